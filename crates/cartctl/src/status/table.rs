//! The table of the groups: a line for each partition, or one for those of a group that are alike.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use super::numbers::{age, grouped};
use super::partition::{Partition, State};

/// Without borders: of groups that are well, all but the owner fits in a terminal of 80 columns.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));

/// In place of the offsets of partitions that share a line.
const OMITTED: &str = "…";

/// Signs of the table: the column, how a cell with the sign ends, and what it means. Together they fit in a terminal of 80 columns.
const SIGNS: [(usize, &str, &str); 3] = [
    (4, OMITTED, "…: see --partitions"),
    (1, "*", "*: the generation that readers see"),
    (1, "-", "gen -: no read model"),
];

/// How the state is printed as text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    /// Each partition has a line of its own.
    pub(super) each_partition: bool,
    /// The columns of the terminal. The table is clipped to them.
    pub(super) columns: Option<usize>,
}

/// The lines of the table.
pub(super) fn lines(partitions: &[Partition], view: View) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(STYLE);
    let oldest = "oldest\nwaiting";
    table.set_header(["group", "gen", "partition", "state", "next", "behind", oldest, "rate/s", "owner"]);
    for alike in joined(partitions, view.each_partition) {
        table.add_row(cells(&alike));
    }
    for column in [2, 4, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| clipped(&line, view.columns).to_owned()).collect()
}

/// What the signs in the table mean, in a line; `None` where it has none.
pub(super) fn legend(partitions: &[Partition], view: View) -> Option<String> {
    let lines: Vec<Vec<String>> = joined(partitions, view.each_partition).iter().map(|alike| cells(alike)).collect();
    let is_in_table = |(column, sign, _): &(usize, &str, &str)| {
        lines.iter().any(|line| line.get(*column).is_some_and(|cell| cell.ends_with(sign)))
    };
    let meanings: Vec<&str> = SIGNS.into_iter().filter(is_in_table).map(|(.., meaning)| meaning).collect();
    (!meanings.is_empty()).then(|| clipped(&meanings.join("; "), view.columns).to_owned())
}

/// The partitions of each line.
fn joined(partitions: &[Partition], each_partition: bool) -> Vec<Vec<&Partition>> {
    let mut lines: Vec<Vec<&Partition>> = Vec::new();
    for partition in partitions {
        let mut others = lines.iter_mut().filter(|_| !each_partition);
        match others.find(|line| line.first().is_some_and(|first| are_alike(first, partition))) {
            Some(line) => line.push(partition),
            None => lines.push(vec![partition]),
        }
    }
    lines
}

/// Whether two partitions have one owner and nothing to do, and nothing is said of either behind the table.
fn are_alike(one: &Partition, other: &Partition) -> bool {
    let is_quiet = |of: &Partition| of.behind == 0 && matches!(of.state, State::Running | State::NoMember);
    (&one.group, &one.state, &one.owner) == (&other.group, &other.state, &other.owner)
        && is_quiet(one)
        && is_quiet(other)
}

/// The cells of partitions that share a line; their rates are added.
fn cells(alike: &[&Partition]) -> Vec<String> {
    let Some(first) = alike.first() else { return Vec::new() };
    let numbers: Vec<i32> = alike.iter().map(|one| one.partition).collect();
    let rates: Vec<f64> = alike.iter().filter_map(|one| one.rate).collect();
    let none = || String::from("-");
    vec![
        first.group.clone(),
        first.generation(),
        ranges(&numbers),
        first.state.word(),
        if alike.len() == 1 { grouped(first.next) } else { OMITTED.to_owned() },
        grouped(first.behind),
        first.oldest_waiting_ms.map_or_else(none, age),
        if rates.is_empty() { none() } else { format!("{:.0}", rates.iter().sum::<f64>()) },
        first.owner.clone().unwrap_or_else(none),
    ]
}

/// Ascending numbers, as `0, 2-5`.
fn ranges(numbers: &[i32]) -> String {
    let runs = numbers.chunk_by(|one, next| *one + 1 == *next).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [one] => one.to_string(),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// The part of a line that fits in so many columns. A character of the table takes one.
fn clipped(line: &str, columns: Option<usize>) -> &str {
    let end = columns.and_then(|columns| line.char_indices().nth(columns));
    end.map_or(line, |(end, _)| &line[..end]).trim_end()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use chrono::DateTime;

    use super::*;

    type Change = fn(&mut Partition, State);

    fn partition(partition: i32) -> Partition {
        Partition {
            group: String::from("item-purchased-events"),
            model: None,
            generation: None,
            is_active: None,
            topic: "cart-events",
            partition,
            state: State::Running,
            next: 81_233,
            behind: 0,
            oldest_waiting_ms: None,
            rate: Some(410.0),
            owner: Some(String::from("myhost-0-0@myhost:7")),
        }
    }

    /// The rows below the header and its separator, with one blank between words.
    fn rows(partitions: &[Partition], each_partition: bool) -> Vec<String> {
        let lines = lines(partitions, View { each_partition, columns: None });
        lines.iter().skip(3).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn partitions_that_are_alike_share_a_line() {
        let all: Vec<Partition> = (0..6).map(partition).collect();
        let owner = "myhost-0-0@myhost:7";
        assert_eq!(rows(&all, false), [format!("item-purchased-events - 0-5 running … 0 - 2460 {owner}")]);
        let each = rows(&all, true);
        assert_eq!(each.len(), 6);
        assert_eq!(each[5], format!("item-purchased-events - 5 running 81,233 0 - 410 {owner}"));
    }

    #[test]
    fn a_partition_of_which_there_is_more_to_see_has_its_own_line() {
        let stopped = State::Stopped {
            offset: 77,
            sha256: String::from("9f"),
            reason: String::from("cannot be read"),
            since: DateTime::UNIX_EPOCH,
        };
        let pause = State::Paused {
            by: String::from("ops"),
            since: DateTime::UNIX_EPOCH,
            reason: String::from("index build"),
            before_offset: None,
            is_followed: true,
        };
        let changes: [(&str, Change); 4] = [
            ("another state", |of, state| of.state = state),
            ("behind", |of, _| (of.behind, of.oldest_waiting_ms) = (3, Some(250_000))),
            ("another owner", |of, _| of.owner = Some(String::from("myhost-1-0@myhost:8"))),
            ("another group", |of, _| of.group = String::from("popular-items")),
        ];
        for (what, change) in changes {
            let mut all: Vec<Partition> = (0..6).map(partition).collect();
            change(&mut all[1], stopped.clone());
            let rows = rows(&all, false);
            assert_eq!(rows.len(), 2, "{what}: {rows:?}");
            assert!(rows[0].contains(" 0, 2-5 running … "), "{what}: {rows:?}");
            assert!(rows[1].contains(" 1 ") && rows[1].contains("81,233"), "{what}: {rows:?}");
        }
        // Both are alike, but who has paused them is said behind the table.
        let mut all: Vec<Partition> = (0..2).map(partition).collect();
        all.iter_mut().for_each(|of| of.state = pause.clone());
        assert_eq!(rows(&all, false).len(), 2);
        // Both are alike, and have something to do.
        let mut all: Vec<Partition> = (0..2).map(partition).collect();
        all.iter_mut().for_each(|of| of.behind = 3);
        assert_eq!(rows(&all, false).len(), 2);
    }

    #[test]
    fn a_group_without_members_is_one_line() {
        let mut all: Vec<Partition> = (0..6).map(partition).collect();
        all.iter_mut().for_each(|of| (of.state, of.owner, of.rate) = (State::NoMember, None, None));
        assert_eq!(rows(&all, false), ["item-purchased-events - 0-5 no member … 0 - - -"]);
    }

    #[test]
    fn the_table_is_clipped_to_the_terminal_and_its_rates_are_seen() {
        let all: Vec<Partition> = (0..6).map(partition).collect();
        let clipped = lines(&all, View { each_partition: false, columns: Some(80) });
        assert!(clipped.iter().all(|line| line.chars().count() <= 80), "{clipped:?}");
        assert!(clipped[0].ends_with("rate/s") && clipped[3].ends_with(" 2460"), "{clipped:?}");
        let whole = lines(&all, View::default());
        assert!(whole[3].ends_with("myhost-0-0@myhost:7") && whole[3].chars().count() > 80, "{whole:?}");
    }

    #[test]
    fn the_signs_in_a_table_are_explained() {
        let legend_of =
            |partitions: &[Partition], each_partition| legend(partitions, View { each_partition, columns: None });
        let without_model: Vec<Partition> = (0..2).map(partition).collect();
        assert_eq!(legend_of(&without_model, false).as_deref(), Some("…: see --partitions; gen -: no read model"));
        assert_eq!(legend_of(&without_model, true).as_deref(), Some("gen -: no read model"));
        let group = String::from("popular-items");
        let seen = Partition { group, generation: Some(2), is_active: Some(true), ..partition(0) };
        let unseen = Partition { is_active: Some(false), ..seen.clone() };
        assert_eq!(legend_of(slice::from_ref(&seen), false).as_deref(), Some("*: the generation that readers see"));
        assert_eq!(legend_of(&[unseen], false), None);
        assert_eq!(legend_of(&[], false), None);
        let all = [without_model, vec![seen]].concat();
        let whole = legend_of(&all, false);
        assert_eq!(whole.as_deref().map(|line| line.matches("; ").count()), Some(SIGNS.len() - 1));
        assert_eq!(legend(&all, View { each_partition: false, columns: Some(80) }), whole);
        let clipped = legend(&all, View { each_partition: false, columns: Some(10) });
        assert_eq!(clipped.as_deref(), Some("…: see --p"));
    }

    #[test]
    fn a_line_is_clipped_between_characters() {
        let line = "──── ab ";
        assert_eq!([Some(3), Some(80), None].map(|columns| clipped(line, columns)), ["───", "──── ab", "──── ab"]);
    }

    #[test]
    fn numbers_in_a_row_are_a_range() {
        let text = [&[0][..], &[0, 1], &[0, 2, 3, 4, 7], &[]].map(ranges);
        assert_eq!(text, ["0", "0-1", "0, 2-4, 7", ""]);
    }
}
