//! Cassandra's grants: permissions of roles.

use std::io::{self, Write};

use anyhow::Context as _;
use scylla::client::session::Session;

use super::args::Args;
use super::service::Service::{
    self, Audit, CartProcessor, Console, Ingest, Operator, PopularItems, Setup, VendorBilling,
};

const JOURNAL: Option<&str> = Some("cart_journal");
const UNCHANGED: Option<&str> = Some("cart_unchanged");
const LOGS: Option<&str> = Some("log_epoch");
const QUANTITIES: Option<&str> = Some("item_quantity_by_day");
const BALANCES: Option<&str> = Some("balance_by_vendor");

/// A permission, the table or the whole keyspace, and who has it. `MODIFY` is to insert, update, delete and truncate.
type Row = (&'static str, Option<&'static str>, &'static [Service]);

const TABLE: &[Row] = &[
    // Who makes a table may do everything with it: so `setup` has all that it needs, if it has made them.
    ("CREATE", None, &[Setup]),
    // `cartctl`'s recovery and `uninstall`.
    ("CREATE", None, &[Operator]),
    ("ALTER", None, &[Operator]),
    ("DROP", None, &[Operator]),
    ("SELECT", None, &[Operator]),
    ("MODIFY", None, &[Operator]),
    ("SELECT", JOURNAL, &[Ingest, CartProcessor, Console, Audit]),
    ("MODIFY", JOURNAL, &[CartProcessor]),
    ("SELECT", UNCHANGED, &[Ingest, CartProcessor, Console, Audit]),
    ("MODIFY", UNCHANGED, &[CartProcessor]),
    ("SELECT", LOGS, &[Ingest, CartProcessor, PopularItems, VendorBilling, Audit]),
    ("SELECT", QUANTITIES, &[Ingest, PopularItems, Console, Audit]),
    ("MODIFY", QUANTITIES, &[PopularItems]),
    ("SELECT", BALANCES, &[Ingest, VendorBilling, Console, Audit]),
    ("MODIFY", BALANCES, &[VendorBilling]),
];

/// A permission of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Such as `SELECT`.
    pub permission: &'static str,
    /// Such as `TABLE shop.cart_journal`.
    pub resource: String,
    /// The user.
    pub role: String,
}

impl Permission {
    /// The statement that gives it.
    #[must_use]
    pub fn grant(&self) -> String {
        format!("GRANT {} ON {} TO \"{}\"", self.permission, self.resource, self.role)
    }

    /// The statement that takes it away.
    #[must_use]
    pub fn revoke(&self) -> String {
        format!("REVOKE {} ON {} FROM \"{}\"", self.permission, self.resource, self.role)
    }
}

/// The grants of a service's user.
#[must_use]
pub fn cql(service: Service, user: &str, keyspace: &str) -> Vec<Permission> {
    let rows = TABLE.iter().filter(|(_, _, services)| services.contains(&service));
    rows.map(|(permission, table, _)| Permission {
        permission,
        resource: match table {
            Some(table) => format!("TABLE {keyspace}.{table}"),
            None => format!("KEYSPACE {keyspace}"),
        },
        role: user.to_owned(),
    })
    .collect()
}

fn permissions(args: &Args, service: Service) -> Vec<Permission> {
    cql(service, &args.user.of(service), &args.cassandra.cassandra_keyspace)
}

pub(super) async fn change(args: &Args, services: &[Service]) -> anyhow::Result<()> {
    if !args.remove && services.contains(&Setup) {
        // So that `setup` needs no right to make keyspaces.
        cassandra::ensure_keyspace(&args.cassandra, &args.keyspace).await?;
    }
    let session = cassandra::open(&args.cassandra.patient()).await?;
    for permission in services.iter().flat_map(|service| permissions(args, *service)) {
        run(&session, if args.remove { permission.revoke() } else { permission.grant() }).await?;
    }
    Ok(())
}

async fn run(session: &Session, statement: String) -> anyhow::Result<()> {
    let done = session.query_unpaged(statement.as_str(), ()).await;
    done.with_context(|| {
        format!("{statement} (tables and keyspace must exist: `--of setup` and then `setup` come first)")
    })?;
    Ok(())
}

pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> io::Result<()> {
    for service in services {
        let permissions = permissions(args, *service);
        if permissions.is_empty() {
            continue;
        }
        writeln!(out, "-- {}", service.name())?;
        if *service == Setup {
            writeln!(out, "{};", cassandra::create_keyspace(&args.cassandra, &args.keyspace))?;
        }
        for permission in permissions {
            writeln!(out, "{};", permission.grant())?;
        }
        if *service == Setup {
            writeln!(out, "-- The others, after `setup` has made the tables")?;
        }
    }
    Ok(())
}
