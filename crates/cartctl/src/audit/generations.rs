//! Which generation of each read table readers see, as its store has it, and whether that one is there. Code of its own: the audit also
//! checks what `cartctl switch` has written.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel, ReadTable, Store};
use scylla::client::session::Session;
use sqlx::PgConnection;

use super::evidence::WrongGeneration;

/// The table with the generation of each read model, in both stores.
const POINTERS: &str = "read_model";

/// What readers see before the first rebuild has made a model's row.
const WITHOUT_A_ROW: Option<i32> = Some(1);

/// PostgreSQL's read model.
const IN_POSTGRES: ReadModel = ReadTable::VendorBilling.model();

/// The generations of some read tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Active {
    generations: HashMap<ReadTable, Generation>,
    pub(super) wrong: Vec<WrongGeneration>,
}

impl Active {
    /// The generation that readers see; `None` where there is none, which is a finding.
    pub(super) fn of(&self, table: ReadTable) -> Option<Generation> {
        self.generations.get(&table).copied()
    }

    /// The name of the table that readers see.
    pub(super) fn table(&self, table: ReadTable) -> Option<String> {
        Some(table.model().table_name(self.of(table)?))
    }

    /// The group that keeps the table that readers see, without the installation's prefix.
    pub(super) fn group(&self, table: ReadTable) -> Option<String> {
        Some(table.model().group_name(self.of(table)?))
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.generations.extend(other.generations);
        self.wrong.extend(other.wrong);
        self
    }

    /// Notes that `setup` has not made the table of the generations yet: readers see the first one.
    fn note_first(&mut self, model: ReadModel) {
        self.generations.insert(model.table, Generation::FIRST);
    }

    /// Notes the number that a store names; `None`: it names none. `check` says what is there instead if readers do not see that table.
    fn note(&mut self, model: ReadModel, number: Option<i32>, check: impl Fn(&str) -> Result<(), String>) {
        let mut wrong = |expected: String, found: String| {
            self.wrong.push(WrongGeneration { table: model.table, expected, found });
        };
        let Some(generation) = number.and_then(Generation::new) else {
            let found = number.map_or_else(|| String::from("none"), |number| number.to_string());
            wrong(String::from("a generation from 1 to 999"), found);
            return;
        };
        let name = model.table_name(generation);
        match check(&name) {
            Ok(()) => {
                self.generations.insert(model.table, generation);
            }
            Err(found) => wrong(format!("table {name}, of the active generation"), found),
        }
    }
}

/// Reads those of Cassandra's tables.
pub(super) async fn in_cassandra(session: &Session) -> anyhow::Result<Active> {
    let read = async {
        let keyspace = session.get_keyspace().map(|name| name.to_string()).unwrap_or_default();
        let select = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let rows = session.query_unpaged(select, (keyspace,)).await?.into_rows_result()?;
        let tables: HashSet<String> =
            rows.rows::<(String,)>()?.map(|row| row.map(|(name,)| name)).collect::<Result<_, _>>()?;
        let mut active = Active::default();
        let models = READ_MODELS.into_iter().filter(|model| model.store == Store::Cassandra);
        if !tables.contains(POINTERS) {
            models.for_each(|model| active.note_first(model));
            return anyhow::Ok(active);
        }
        let rows = session.query_unpaged(format!("SELECT name, active FROM {POINTERS}"), ()).await?;
        let rows = rows.into_rows_result()?;
        let numbers: HashMap<String, Option<i32>> = rows.rows::<(String, Option<i32>)>()?.collect::<Result<_, _>>()?;
        let check = |name: &str| if tables.contains(name) { Ok(()) } else { Err(String::from("no such table")) };
        for model in models {
            let number = numbers.get(model.group).copied().unwrap_or(WITHOUT_A_ROW);
            active.note(model, number, check);
        }
        Ok(active)
    };
    read.await.with_context(|| format!("reading table {POINTERS} in Cassandra"))
}

/// Reads that of PostgreSQL's table, in a transaction of [`crate::read_tables::snapshot`].
pub(super) async fn in_postgres(transaction: &mut PgConnection) -> anyhow::Result<Active> {
    // What the view is made from. A table of an earlier version is no view.
    const SHOWN: &str = "SELECT DISTINCT depends.refobjid::regclass::text FROM pg_rewrite AS rule \
        JOIN pg_depend AS depends ON depends.classid = 'pg_rewrite'::regclass AND depends.objid = rule.oid \
            AND depends.refclassid = 'pg_class'::regclass AND depends.refobjid <> rule.ev_class \
        WHERE rule.ev_class = to_regclass($1)";
    let read = async {
        let mut active = Active::default();
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(POINTERS)
            .fetch_one(&mut *transaction)
            .await?;
        if !exists {
            active.note_first(IN_POSTGRES);
            return anyhow::Ok(active);
        }
        let number: Option<i32> = sqlx::query_scalar("SELECT active FROM read_model WHERE name = $1")
            .bind(IN_POSTGRES.group)
            .fetch_optional(&mut *transaction)
            .await?;
        let shown: Vec<String> =
            sqlx::query_scalar(SHOWN).bind(IN_POSTGRES.table.name()).fetch_all(&mut *transaction).await?;
        // Readers see what the view shows, whatever the pointer says.
        active.note(IN_POSTGRES, number.or(WITHOUT_A_ROW), |name| check_view(&shown, name));
        Ok(active)
    };
    read.await.with_context(|| format!("reading table {POINTERS} in PostgreSQL"))
}

/// Whether the view is of that table alone.
fn check_view(shown: &[String], table: &str) -> Result<(), String> {
    if shown == [table] {
        return Ok(());
    }
    Err(match (IN_POSTGRES.table.name(), shown) {
        (view, []) => format!("no view {view}"),
        (view, shown) => format!("the view {view} of {}", shown.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_without_its_table_is_wrong() {
        let model = ReadTable::BalanceByVendor.model();
        let noted = |number, tables: &[&str]| {
            let mut active = Active::default();
            let check = |name: &str| if tables.contains(&name) { Ok(()) } else { Err("no such table".to_owned()) };
            active.note(model, number, check);
            active
        };
        let active = noted(Some(2), &["balance_by_vendor_g2"]);
        let names = (active.table(model.table), active.group(model.table));
        assert_eq!(names, (Some("balance_by_vendor_g2".to_owned()), Some("vendor-billing-g2".to_owned())));
        let mut active = Active::default();
        active.note_first(model);
        assert_eq!(active.of(model.table), Some(Generation::FIRST), "before `setup` has made the table");
        assert_eq!(noted(WITHOUT_A_ROW, &["balance_by_vendor"]).of(model.table), Some(Generation::FIRST));
        let first = "table balance_by_vendor, of the active generation";
        let second = "table balance_by_vendor_g2, of the active generation";
        let number = "a generation from 1 to 999";
        for (named, expected, found) in [
            (Some(2), second, "no such table"),
            (WITHOUT_A_ROW, first, "no such table"),
            (Some(0), number, "0"),
            (None, number, "none"),
        ] {
            let active = noted(named, &["balance_by_vendor_g3"]);
            assert_eq!(active.of(model.table), None);
            let wrong: Vec<_> = active.wrong.iter().map(|wrong| (&*wrong.expected, &*wrong.found)).collect();
            assert_eq!(wrong, [(expected, found)]);
        }
    }

    #[test]
    fn a_view_of_another_table_is_wrong() {
        let shown = |tables: &[&str]| tables.iter().map(|table| (*table).to_owned()).collect::<Vec<_>>();
        let check = |tables| check_view(&shown(tables), "vendor_billing_g2");
        assert_eq!(check(&["vendor_billing_g2"]), Ok(()));
        assert_eq!(check(&["vendor_billing_g1"]), Err("the view vendor_billing of vendor_billing_g1".to_owned()));
        assert_eq!(check(&[]), Err("no view vendor_billing".to_owned()));
    }
}
