//! The generations of the read tables: which there are, which one readers see, who switched to it, and how far each is behind.

use cart::contract::ReadModel;
use cart::{Generation, GenerationPointer};
use serde::Serialize;

use crate::backlog::Behind;
use crate::operations::Act;

/// What the stores say of a read model's generations.
#[derive(Debug, Clone)]
pub(crate) struct Generations {
    pub(crate) pointer: GenerationPointer,
    /// Those that have a table, in their order.
    pub(crate) existing: Vec<Generation>,
}

/// What is known of a read model.
#[derive(Debug, Clone)]
pub(crate) struct KnownModel {
    pub(crate) model: ReadModel,
    /// Or why they are not known now.
    pub(crate) generations: Result<Generations, String>,
}

impl KnownModel {
    /// The groups that keep its generations.
    pub(crate) fn groups(&self) -> impl Iterator<Item = String> {
        let existing = self.generations.iter().flat_map(|generations| &generations.existing);
        existing.map(move |generation| self.model.group_name(*generation))
    }

    /// For the page; `behind` says how far a group is.
    pub(crate) fn shown(&self, behind: impl Fn(&str) -> Option<Behind>) -> ShownModel {
        let (name, table) = (self.model.group, self.model.table.name());
        match &self.generations {
            Err(error) => {
                ShownModel { name, table, generations: Vec::new(), switched: None, unknown: Some(error.clone()) }
            }
            Ok(Generations { pointer, existing }) => {
                let generation = |generation: &Generation| {
                    let group = self.model.group_name(*generation);
                    let (number, is_active) = (generation.get(), *generation == pointer.active);
                    ShownGeneration { number, is_active, behind: behind(&group), group }
                };
                let switched = pointer.last_switch.as_ref().map(|switch| Act {
                    by: switch.by.clone(),
                    at_ms: switch.at.timestamp_millis(),
                    reason: switch.reason.clone(),
                });
                let generations = existing.iter().map(generation).collect();
                ShownModel { name, table, generations, switched, unknown: None }
            }
        }
    }
}

/// A generation of a read table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownGeneration {
    number: i32,
    /// The group that keeps it.
    group: String,
    /// Whether readers see it.
    is_active: bool,
    /// `None` while the topic is still being read, or the group's offsets are not known.
    behind: Option<Behind>,
}

/// A read model as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownModel {
    /// The group of the first generation.
    name: &'static str,
    table: &'static str,
    generations: Vec<ShownGeneration>,
    /// The last switch. `None`: readers have always seen the first one.
    switched: Option<Act>,
    /// Why the generations are not known now.
    unknown: Option<String>,
}

#[cfg(test)]
mod tests {
    use cart::GenerationSwitch;
    use cart::contract::ReadTable;
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn generation(number: i32) -> Generation {
        Generation::new(number).expect("a generation")
    }

    #[test]
    fn the_page_gets_each_generation_and_who_switched() {
        let (by, reason) = (String::from("olga"), String::from("new rule"));
        let last_switch =
            Some(GenerationSwitch { at: DateTime::UNIX_EPOCH, by, reason, accepted_diff: String::from("none") });
        let active = generation(2);
        let pointer = GenerationPointer { active, newest: active, last_switch, ..GenerationPointer::FIRST };
        let generations = Ok(Generations { pointer, existing: vec![generation(1), active] });
        let known = KnownModel { model: ReadTable::BalanceByVendor.model(), generations };
        assert_eq!(known.groups().collect::<Vec<_>>(), ["vendor-billing", "vendor-billing-g2"]);
        let behind = |group: &str| (group == "vendor-billing").then_some(Behind { records: 7, is_most: true });
        let shown = json!({
            "name": "vendor-billing",
            "table": "balance_by_vendor",
            "generations": [
                {"number": 1, "group": "vendor-billing", "isActive": false, "behind": {"records": 7, "isMost": true}},
                {"number": 2, "group": "vendor-billing-g2", "isActive": true, "behind": null},
            ],
            "switched": {"by": "olga", "atMs": 0, "reason": "new rule"},
            "unknown": null,
        });
        assert_eq!(serde_json::to_value(known.shown(behind)).expect("JSON"), shown);
    }

    #[test]
    fn a_store_that_does_not_answer_is_named() {
        let generations = Err(String::from("no answer"));
        let known = KnownModel { model: ReadTable::VendorBilling.model(), generations };
        assert_eq!(known.groups().count(), 0);
        let shown = serde_json::to_value(known.shown(|_| None)).expect("JSON");
        assert_eq!((&shown["unknown"], &shown["generations"]), (&json!("no answer"), &json!([])));
    }
}
