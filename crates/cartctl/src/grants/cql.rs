//! Cassandra's grants: permissions of roles.

use std::io::{self, Write};

use anyhow::Context as _;
use cart::contract::{READ_MODELS, ReadTable, Store};
use cassandra::parked_rows;
use scylla::client::session::Session;

use super::args::Args;
use super::service::Service::{
    self, Audit, CartProcessor, Console, Ingest, Operator, PopularItems, Setup, VendorBilling,
};
use super::tables::TableGenerations;

/// What a permission is on.
#[derive(Debug, Clone, Copy)]
enum Resource {
    Keyspace,
    Table(&'static str),
    /// The tables of a read model's generations.
    ReadTable(ReadTable),
    /// Those of their parked rows.
    ParkedRows(ReadTable),
}

use Resource::{Keyspace, Table};

const JOURNAL: Resource = Table("cart_journal");
const UNCHANGED: Resource = Table("cart_unchanged");
const LOGS: Resource = Table("log_epoch");
const RETRIES: Resource = Table("parked_row_retry");
const QUANTITIES: Resource = Resource::ReadTable(ReadTable::ItemQuantityByDay);
const BALANCES: Resource = Resource::ReadTable(ReadTable::BalanceByVendor);
const PARKED_QUANTITIES: Resource = Resource::ParkedRows(ReadTable::ItemQuantityByDay);
const PARKED_BALANCES: Resource = Resource::ParkedRows(ReadTable::BalanceByVendor);

/// A permission, what it is on, and who has it. `MODIFY` is to insert, update, delete and truncate.
type Row = (&'static str, Resource, &'static [Service]);

const TABLE: &[Row] = &[
    // Who makes a table may do everything with it: so `setup` has all that it needs, if it has made them.
    ("CREATE", Keyspace, &[Setup]),
    // `cartctl`'s recovery and `uninstall`, and the tables of further generations.
    ("CREATE", Keyspace, &[Operator]),
    ("ALTER", Keyspace, &[Operator]),
    ("DROP", Keyspace, &[Operator]),
    ("MODIFY", Keyspace, &[Operator]),
    // They read all tables but one at most. With the keyspace they can also read a generation that is built later, so that a switch needs
    // no administrator.
    ("SELECT", Keyspace, &[Operator, Ingest, Console, Audit]),
    ("SELECT", JOURNAL, &[CartProcessor]),
    ("MODIFY", JOURNAL, &[CartProcessor]),
    ("SELECT", UNCHANGED, &[CartProcessor]),
    ("MODIFY", UNCHANGED, &[CartProcessor]),
    ("SELECT", LOGS, &[CartProcessor, PopularItems, VendorBilling]),
    // The base of the timestamps in the table of generation 1.
    ("SELECT", Table("read_model"), &[PopularItems, VendorBilling]),
    // For each generation anew, once its table is there: MODIFY on the keyspace would include the journal.
    ("SELECT", QUANTITIES, &[PopularItems]),
    ("MODIFY", QUANTITIES, &[PopularItems]),
    ("SELECT", BALANCES, &[VendorBilling]),
    ("MODIFY", BALANCES, &[VendorBilling]),
    ("SELECT", PARKED_QUANTITIES, &[PopularItems]),
    ("MODIFY", PARKED_QUANTITIES, &[PopularItems]),
    ("SELECT", PARKED_BALANCES, &[VendorBilling]),
    ("MODIFY", PARKED_BALANCES, &[VendorBilling]),
    ("SELECT", RETRIES, &[PopularItems, VendorBilling]),
    ("MODIFY", RETRIES, &[PopularItems, VendorBilling]),
];

/// What another try of a parked row at the live page needs besides: the request. The markers stay the projectors' own.
const OPERATIONS: &[Row] = &[("MODIFY", RETRIES, &[Console])];

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

/// The grants of a service's user, with those on the tables of these generations, and those for operators' actions at the live page, if
/// `has_operations`.
#[must_use]
pub fn cql(
    service: Service,
    user: &str,
    keyspace: &str,
    generations: &TableGenerations,
    has_operations: bool,
) -> Vec<Permission> {
    let mut permissions = Vec::new();
    let more = if has_operations { OPERATIONS } else { &[] };
    for &(permission, resource, _) in TABLE.iter().chain(more).filter(|(_, _, services)| services.contains(&service)) {
        let resources = match resource {
            Keyspace => vec![format!("KEYSPACE {keyspace}")],
            Table(table) => vec![format!("TABLE {keyspace}.{table}")],
            Resource::ReadTable(table) => {
                generations.names(table).map(|name| format!("TABLE {keyspace}.{name}")).collect()
            }
            Resource::ParkedRows(table) => {
                let names = generations.names(table).map(|name| parked_rows::table_name(&name));
                names.map(|name| format!("TABLE {keyspace}.{name}")).collect()
            }
        };
        let permission = |resource| Permission { permission, resource, role: user.to_owned() };
        permissions.extend(resources.into_iter().map(permission));
    }
    permissions
}

fn permissions(args: &Args, service: Service, generations: &TableGenerations) -> Vec<Permission> {
    let (user, keyspace) = (args.user.of(service), &args.cassandra.cassandra_keyspace);
    cql(service, &user, keyspace, generations, args.has_operations())
}

/// The generations that have a table, or the wanted one.
async fn generations(args: &Args, session: &Session) -> anyhow::Result<TableGenerations> {
    if let Some(generation) = args.generation {
        return Ok(TableGenerations::only(generation));
    }
    existing_generations(session, &args.cassandra.cassandra_keyspace).await
}

/// The generations that have a table in Cassandra.
pub(crate) async fn existing_generations(session: &Session, keyspace: &str) -> anyhow::Result<TableGenerations> {
    let mut found = Vec::new();
    for model in READ_MODELS.into_iter().filter(|model| model.store == Store::Cassandra) {
        found.push((model, cassandra::read_models::generations_in(session, keyspace, model).await?));
    }
    Ok(found.into_iter().collect())
}

pub(super) async fn change(args: &Args, services: &[Service]) -> anyhow::Result<()> {
    if !args.remove && services.contains(&Setup) {
        // So that `setup` needs no right to make keyspaces.
        cassandra::ensure_keyspace(&args.cassandra, &args.keyspace).await?;
    }
    let session = cassandra::open(&args.cassandra.patient()).await?;
    let generations = generations(args, &session).await?;
    for permission in services.iter().flat_map(|service| permissions(args, *service, &generations)) {
        run(&session, if args.remove { permission.revoke() } else { permission.grant() }).await?;
    }
    Ok(())
}

async fn run(session: &Session, statement: String) -> anyhow::Result<()> {
    let done = session.query_unpaged(statement.as_str(), ()).await;
    done.with_context(|| {
        format!(
            "{statement} (tables and keyspace must exist: `--of setup` and then `setup` come first; `cartctl rebuild` makes the table of \
             another generation)"
        )
    })?;
    Ok(())
}

pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> io::Result<()> {
    let generations = args.printed_generations();
    for service in services {
        let permissions = permissions(args, *service, &generations);
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

#[cfg(test)]
mod tests {
    use cart::Generation;

    use super::*;

    #[test]
    fn a_projector_may_write_the_tables_of_its_generations_only() {
        let [first, second, third] = [1, 2, 3].map(|number| Generation::new(number).expect("a generation"));
        let may = |generations: &TableGenerations| {
            let permissions = cql(PopularItems, "popular-items", "shop", generations, true).into_iter();
            let may = permissions.filter(|permission| permission.permission == "MODIFY");
            may.map(|permission| permission.resource).collect::<Vec<_>>()
        };
        let of = |names: &[&str]| -> Vec<String> {
            let parked = names.iter().map(|name| format!("TABLE shop.{name}_parked"));
            let tables = names.iter().map(|name| format!("TABLE shop.{name}")).chain(parked);
            tables.chain([String::from("TABLE shop.parked_row_retry")]).collect()
        };
        assert_eq!(may(&TableGenerations::only(first)), of(&["item_quantity_by_day"]));
        assert_eq!(may(&TableGenerations::only(second)), of(&["item_quantity_by_day_g2"]));
        let [quantities, balances] = [ReadTable::ItemQuantityByDay, ReadTable::BalanceByVendor].map(ReadTable::model);
        let found = [(quantities, vec![second, third]), (balances, vec![first])].into_iter().collect();
        assert_eq!(may(&found), of(&["item_quantity_by_day_g2", "item_quantity_by_day_g3"]));
    }

    #[test]
    fn the_console_writes_requests_only_where_operators_act_there() {
        let written = |has_operations| {
            let all = cql(Console, "page", "shop", &TableGenerations::only(Generation::FIRST), has_operations);
            let written = all.iter().filter(|permission| permission.permission != "SELECT");
            written.map(Permission::grant).collect::<Vec<_>>()
        };
        assert_eq!(written(false), Vec::<String>::new());
        assert_eq!(written(true), ["GRANT MODIFY ON TABLE shop.parked_row_retry TO \"page\""]);
    }
}
