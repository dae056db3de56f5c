//! PostgreSQL's grants: privileges of roles.

use std::io::{self, Write};

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::args::Args;
use super::service::Service::{self, Audit, Console, Operator, Setup, VendorBillingJdbc};

/// The database that every PostgreSQL server has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// Privileges, the table or the database itself, and who has them.
type Row = (&'static str, Option<&'static str>, &'static [Service]);

const TABLE: &[Row] = &[
    ("CONNECT", None, &[VendorBillingJdbc, Console, Audit, Operator]),
    // An insert that may meet a row, and adds to it, reads that row.
    ("SELECT", Some("vendor_billing"), &[VendorBillingJdbc, Console, Audit]),
    ("INSERT", Some("vendor_billing"), &[VendorBillingJdbc]),
    ("UPDATE", Some("vendor_billing"), &[VendorBillingJdbc]),
    ("SELECT", Some("projection_offset"), &[VendorBillingJdbc, Console, Audit]),
    ("INSERT", Some("projection_offset"), &[VendorBillingJdbc]),
    ("UPDATE", Some("projection_offset"), &[VendorBillingJdbc]),
    ("SELECT", Some("log_epoch"), &[VendorBillingJdbc]),
];

/// A privilege of a role, or its membership in another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// Such as `SELECT ON TABLE`; empty for a membership.
    what: String,
    /// The name of the table, database or role.
    pub object: String,
    /// The user.
    pub role: String,
}

impl Privilege {
    /// The statement that gives it.
    #[must_use]
    pub fn grant(&self) -> String {
        format!("GRANT {}\"{}\" TO \"{}\"", self.what, self.object, self.role)
    }

    /// The statement that takes it away.
    #[must_use]
    pub fn revoke(&self) -> String {
        format!("REVOKE {}\"{}\" FROM \"{}\"", self.what, self.object, self.role)
    }
}

/// The grants of a service's user. They are given within the database.
#[must_use]
pub fn sql(service: Service, user: &str, owner: &str, database: &str) -> Vec<Privilege> {
    let rows = TABLE.iter().filter(|(_, _, services)| services.contains(&service));
    let privilege = |(privilege, table, _): &Row| {
        let (kind, object) = table.map_or(("DATABASE", database), |table| ("TABLE", table));
        Privilege { what: format!("{privilege} ON {kind} "), object: object.to_owned(), role: user.to_owned() }
    };
    let mut privileges: Vec<_> = rows.map(privilege).collect();
    if service == Operator {
        // To empty and to drop what the owner has made.
        privileges.push(Privilege { what: String::new(), object: owner.to_owned(), role: user.to_owned() });
    }
    privileges
}

fn privileges(args: &Args, service: Service, database: &str) -> Vec<Privilege> {
    sql(service, &args.user.of(service), &args.user.of(Setup), database)
}

/// `setup` owns the database, and so may make its tables. Others connect only where a grant says so.
fn make_database(args: &Args, database: &str) -> [String; 2] {
    [
        format!("CREATE DATABASE \"{database}\" OWNER \"{}\"", args.user.of(Setup)),
        format!("REVOKE CONNECT ON DATABASE \"{database}\" FROM PUBLIC"),
    ]
}

fn options(args: &Args) -> anyhow::Result<(PgConnectOptions, String)> {
    let options = args.database.options()?;
    let database = options.get_database().unwrap_or("cart").to_owned();
    Ok((options, database))
}

pub(super) async fn change(args: &Args, services: &[Service]) -> anyhow::Result<()> {
    let (options, database) = options(args)?;
    if !args.remove && services.contains(&Setup) {
        let mut server =
            options.clone().database(MAINTENANCE_DATABASE).connect().await.context("connecting to PostgreSQL")?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&database)
            .fetch_one(&mut server)
            .await
            .context("looking for the database")?;
        let [create, close] = make_database(args, &database);
        if !exists {
            run(&mut server, &create).await?;
        }
        run(&mut server, &close).await?;
        server.close().await?;
    }
    let mut connection = options.connect().await.with_context(|| format!("connecting to the database {database}"))?;
    for privilege in services.iter().flat_map(|service| privileges(args, *service, &database)) {
        run(&mut connection, &if args.remove { privilege.revoke() } else { privilege.grant() }).await?;
    }
    Ok(connection.close().await?)
}

async fn run(connection: &mut PgConnection, statement: &str) -> anyhow::Result<()> {
    let done = sqlx::query(AssertSqlSafe(statement)).execute(connection).await;
    done.with_context(|| format!("{statement} (the tables must exist: `--of setup` and then `setup` come first)"))?;
    Ok(())
}

pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> anyhow::Result<()> {
    let (_, database) = options(args)?;
    Ok(print_in(args, services, &database, out)?)
}

fn print_in(args: &Args, services: &[Service], database: &str, out: &mut impl Write) -> io::Result<()> {
    for service in services {
        if *service == Setup {
            writeln!(out, "-- {}", service.name())?;
            for statement in make_database(args, database) {
                writeln!(out, "{statement};")?;
            }
            writeln!(out, "\\connect \"{database}\"")?;
            writeln!(out, "-- The others, after `setup` has made the tables")?;
            continue;
        }
        let privileges = privileges(args, *service, database);
        if privileges.is_empty() {
            continue;
        }
        writeln!(out, "-- {}", service.name())?;
        for privilege in privileges {
            writeln!(out, "{};", privilege.grant())?;
        }
    }
    Ok(())
}
