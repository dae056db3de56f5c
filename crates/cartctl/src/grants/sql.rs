//! PostgreSQL's grants: privileges of roles.

use std::io::{self, Write};

use anyhow::Context as _;
use cart::contract::{ReadModel, ReadTable};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgExecutor, Postgres};

use super::args::Args;
use super::service::Service::{self, Audit, Console, Operator, Setup, VendorBillingJdbc};
use super::tables::TableGenerations;

/// The database that every PostgreSQL server has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// The read model in PostgreSQL.
const BILLING: ReadModel = ReadTable::VendorBilling.model();

/// What a privilege is on.
#[derive(Debug, Clone, Copy)]
enum Object {
    Database,
    Table(&'static str),
    /// These columns of the table, and no others.
    Columns(&'static str, &'static [&'static str]),
    /// The tables of [`BILLING`]'s generations.
    Generations,
}

use Object::{Columns, Database, Generations, Table};

/// A privilege, what it is on, and who has it.
type Row = (&'static str, Object, &'static [Service]);

const TABLE: &[Row] = &[
    ("CONNECT", Database, &[VendorBillingJdbc, Console, Audit, Operator]),
    // The view of the generation that readers see, and which one that is.
    ("SELECT", Table("vendor_billing"), &[Console, Audit]),
    ("SELECT", Table("read_model"), &[Console, Audit]),
    // An insert that may meet a row, and adds to it, reads that row. `cartctl rebuild` copies these to the table of a further generation.
    ("SELECT", Generations, &[VendorBillingJdbc]),
    ("INSERT", Generations, &[VendorBillingJdbc]),
    ("UPDATE", Generations, &[VendorBillingJdbc]),
    ("SELECT", Table("projection_offset"), &[VendorBillingJdbc, Console, Audit]),
    ("INSERT", Table("projection_offset"), &[VendorBillingJdbc]),
    ("UPDATE", Table("projection_offset"), &[VendorBillingJdbc]),
    // To park rows, to try them again, and to list them.
    ("SELECT", Table("parked_row"), &[VendorBillingJdbc, Console, Audit]),
    ("INSERT", Table("parked_row"), &[VendorBillingJdbc]),
    ("UPDATE", Table("parked_row"), &[VendorBillingJdbc]),
    ("DELETE", Table("parked_row"), &[VendorBillingJdbc]),
    ("SELECT", Table("log_epoch"), &[VendorBillingJdbc]),
];

/// What another try of a parked row at the live page needs besides: the request, and nothing else of a marker.
const OPERATIONS: &[Row] = &[("UPDATE", Columns("parked_row", &["retry_by", "retry_at"]), &[Console])];

/// What a [`Privilege`] is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Columns(&'static [&'static str]),
    Database,
    /// The privilege is the membership.
    Role,
}

/// A privilege of a role, or its membership in another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// Such as `SELECT`; empty for a membership.
    privilege: &'static str,
    kind: Kind,
    /// The name of the table, database or role.
    pub object: String,
    /// The user.
    pub role: String,
}

impl Privilege {
    /// The statement that gives it.
    #[must_use]
    pub fn grant(&self) -> String {
        format!("GRANT {} TO \"{}\"", self.what(), self.role)
    }

    /// The statement that takes it away.
    #[must_use]
    pub fn revoke(&self) -> String {
        format!("REVOKE {} FROM \"{}\"", self.what(), self.role)
    }

    /// For people to read.
    pub(crate) fn text(&self) -> String {
        match self.kind {
            Kind::Table | Kind::Columns(_) | Kind::Database => self.what(),
            Kind::Role => format!("membership in {}", self.what()),
        }
    }

    /// Whether it is on a table, or on columns of one.
    pub(crate) fn is_on_table(&self) -> bool {
        matches!(self.kind, Kind::Table | Kind::Columns(_))
    }

    pub(crate) fn is_on_database(&self) -> bool {
        self.kind == Kind::Database
    }

    /// As it stands in a statement.
    fn what(&self) -> String {
        let Self { privilege, kind, object, .. } = self;
        match kind {
            Kind::Table => format!("{privilege} ON TABLE \"{object}\""),
            Kind::Columns(columns) => format!("{privilege} ({}) ON TABLE \"{object}\"", columns.join(", ")),
            Kind::Database => format!("{privilege} ON DATABASE \"{object}\""),
            Kind::Role => format!("\"{object}\""),
        }
    }

    /// Whether its role has it, also as a superuser, as a member of another role, or since all have it. `None` where the role or the
    /// table does not exist.
    pub(crate) async fn is_held(&self, executor: impl PgExecutor<'_>) -> Result<Option<bool>, sqlx::Error> {
        let of = |select: &'static str| {
            sqlx::query_scalar::<Postgres, Option<bool>>(select).bind(&self.role).bind(&self.object)
        };
        match self.kind {
            Kind::Table => of(HAS_ON_TABLE).bind(self.privilege).fetch_one(executor).await,
            Kind::Columns(columns) => of(HAS_ON_COLUMNS).bind(self.privilege).bind(columns).fetch_one(executor).await,
            Kind::Database => of(HAS_ON_DATABASE).bind(self.privilege).fetch_one(executor).await,
            Kind::Role => of(IS_MEMBER).fetch_one(executor).await,
        }
    }
}

/// Null where there is no such role or table.
const HAS_ON_TABLE: &str =
    "SELECT has_table_privilege((SELECT oid FROM pg_roles WHERE rolname = $1), to_regclass($2)::oid, $3)";
const HAS_ON_COLUMNS: &str = "SELECT bool_and(has_column_privilege((SELECT oid FROM pg_roles WHERE rolname = $1), \
    to_regclass($2)::oid, wanted.name, $3)) FROM unnest($4::text[]) AS wanted (name)";
const HAS_ON_DATABASE: &str =
    "SELECT has_database_privilege((SELECT oid FROM pg_roles WHERE rolname = $1), $2::text, $3)";
/// Whether it may do what the other role may.
const IS_MEMBER: &str = "SELECT pg_has_role((SELECT oid FROM pg_roles WHERE rolname = $1), \
    (SELECT oid FROM pg_roles WHERE rolname = $2), 'USAGE')";

/// The grants of a service's user, with those on the tables of these generations, and those for operators' actions at the live page, if
/// `has_operations`. They are given within the database.
#[must_use]
pub fn sql(
    service: Service,
    user: &str,
    owner: &str,
    database: &str,
    generations: &TableGenerations,
    has_operations: bool,
) -> Vec<Privilege> {
    let mut privileges = Vec::new();
    let more = if has_operations { OPERATIONS } else { &[] };
    for &(privilege, object, _) in TABLE.iter().chain(more).filter(|(_, _, services)| services.contains(&service)) {
        let (kind, objects) = match object {
            Database => (Kind::Database, vec![database.to_owned()]),
            Table(name) => (Kind::Table, vec![name.to_owned()]),
            Columns(name, columns) => (Kind::Columns(columns), vec![name.to_owned()]),
            Generations => (Kind::Table, generations.names(BILLING.table).collect()),
        };
        let privilege = |object| Privilege { privilege, kind, object, role: user.to_owned() };
        privileges.extend(objects.into_iter().map(privilege));
    }
    if service == Operator {
        // To empty and to drop what the owner has made.
        let (object, role) = (owner.to_owned(), user.to_owned());
        privileges.push(Privilege { privilege: "", kind: Kind::Role, object, role });
    }
    privileges
}

fn privileges(args: &Args, service: Service, database: &str, generations: &TableGenerations) -> Vec<Privilege> {
    let (user, owner) = (args.user.of(service), args.user.of(Setup));
    sql(service, &user, &owner, database, generations, args.has_operations())
}

/// The generations that have a table, or the wanted one.
async fn generations(args: &Args, connection: &mut PgConnection) -> anyhow::Result<TableGenerations> {
    if let Some(generation) = args.generation {
        return Ok(TableGenerations::only(generation));
    }
    existing_generations(connection).await
}

/// The generations that have a table in PostgreSQL.
pub(crate) async fn existing_generations(executor: impl PgExecutor<'_>) -> anyhow::Result<TableGenerations> {
    let found = postgres::read_models::generations(executor, BILLING).await?;
    Ok([(BILLING, found)].into_iter().collect())
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
    let generations = generations(args, &mut connection).await?;
    for privilege in services.iter().flat_map(|service| privileges(args, *service, &database, &generations)) {
        run(&mut connection, &if args.remove { privilege.revoke() } else { privilege.grant() }).await?;
    }
    Ok(connection.close().await?)
}

async fn run(connection: &mut PgConnection, statement: &str) -> anyhow::Result<()> {
    let done = sqlx::query(AssertSqlSafe(statement)).execute(connection).await;
    done.with_context(|| {
        format!(
            "{statement} (the tables must exist: `--of setup` and then `setup` come first; `cartctl rebuild` makes the table of another \
             generation)"
        )
    })?;
    Ok(())
}

pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> anyhow::Result<()> {
    let (_, database) = options(args)?;
    Ok(print_in(args, services, &database, out)?)
}

fn print_in(args: &Args, services: &[Service], database: &str, out: &mut impl Write) -> io::Result<()> {
    let generations = args.printed_generations();
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
        let privileges = privileges(args, *service, database, &generations);
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

#[cfg(test)]
mod tests {
    use cart::Generation;

    use super::*;

    #[test]
    fn a_projector_may_write_the_tables_of_the_generations_that_are_there() {
        let [second, third] = [2, 3].map(|number| Generation::new(number).expect("a generation"));
        let written = |generations: &TableGenerations| {
            let all = sql(VendorBillingJdbc, "jdbc", "setup", "shop", generations, true);
            let written =
                all.iter().filter(|one| one.privilege == "INSERT" && one.object.starts_with(BILLING.table.name()));
            written.map(Privilege::revoke).collect::<Vec<_>>()
        };
        let revoke = |table: &str| format!("REVOKE INSERT ON TABLE \"{table}\" FROM \"jdbc\"");
        assert_eq!(written(&TableGenerations::only(Generation::FIRST)), [revoke("vendor_billing_g1")]);
        let found = [(BILLING, vec![second, third])].into_iter().collect();
        assert_eq!(written(&found), [revoke("vendor_billing_g2"), revoke("vendor_billing_g3")]);
        assert_eq!(written(&TableGenerations::default()), Vec::<String>::new());
    }

    #[test]
    fn the_console_writes_requests_only_where_operators_act_there() {
        let written = |has_operations| {
            let all = sql(Console, "page", "setup", "shop", &TableGenerations::default(), has_operations);
            let written = all.iter().filter(|one| !["SELECT", "CONNECT"].contains(&one.privilege));
            written.map(Privilege::grant).collect::<Vec<_>>()
        };
        assert_eq!(written(false), Vec::<String>::new());
        assert_eq!(written(true), ["GRANT UPDATE (retry_by, retry_at) ON TABLE \"parked_row\" TO \"page\""]);
        let all = sql(Console, "page", "setup", "shop", &TableGenerations::default(), true);
        let of_columns = all.iter().find(|one| one.kind == Kind::Columns(&["retry_by", "retry_at"]));
        // The server is asked for the privilege by its name, and for each column.
        assert!(of_columns.is_some_and(|one| one.privilege == "UPDATE" && one.is_on_table()), "{all:?}");
    }

    #[test]
    fn operators_are_members_of_the_owner() {
        let all = sql(Operator, "operator", "setup", "shop", &TableGenerations::only(Generation::FIRST), false);
        let found: Vec<_> = all.iter().map(|one| (one.grant(), one.text())).collect();
        let expected = [
            (r#"GRANT CONNECT ON DATABASE "shop" TO "operator""#, r#"CONNECT ON DATABASE "shop""#),
            (r#"GRANT "setup" TO "operator""#, r#"membership in "setup""#),
        ];
        assert_eq!(found, expected.map(|(grant, text)| (grant.to_owned(), text.to_owned())));
    }
}
