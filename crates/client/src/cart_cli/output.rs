//! Prints outcomes, as tables or as JSON.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use chrono::SecondsFormat;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use rust_decimal::Decimal;
use serde::Serialize;

use super::failure::Failure;
use super::names::printable;
use super::session::{Change, Done, Entry};
use crate::ids::CartId;
use crate::{CartEvent, EventMessage, Item, ItemChange};

/// The style of successes and totals.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// The style of rejections and errors.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// The style of pending outcomes and retries.
pub(crate) const UNSURE: Style = AnsiColor::Yellow.on_default();
/// The style of the prompt.
pub(crate) const PROMPT: Style = AnsiColor::Cyan.on_default().bold();

/// The minimum width of a table.
const WIDTH_MIN: u16 = 20;

/// The writers of results and messages. Styles are written only to terminals.
#[derive(Debug)]
pub(crate) struct Output<O, E> {
    pub(crate) results: O,
    pub(crate) messages: E,
    /// The columns of the terminal for results; `None` if it is not a terminal.
    pub(crate) width: Option<u16>,
}

impl Output<AutoStream<io::Stdout>, AutoStream<io::Stderr>> {
    /// Standard output and standard error.
    pub(crate) fn of_process() -> Self {
        let (results, messages) = (io::stdout(), io::stderr());
        let width = rustix::termios::tcgetwinsize(&results).ok().map(|size| size.ws_col);
        Self {
            width: width.filter(|width| *width >= WIDTH_MIN),
            results: AutoStream::new(results, choice(is_coloured())),
            messages: AutoStream::new(messages, choice(is_coloured() && io::stderr().is_terminal())),
        }
    }
}

/// Whether colours are used: standard output is a terminal that has them, and NO_COLOR (no-color.org) is not set.
pub(crate) fn is_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

fn choice(is_coloured: bool) -> ColorChoice {
    if is_coloured { ColorChoice::Always } else { ColorChoice::Never }
}

impl<O: Write, E: Write> Output<O, E> {
    /// Prints the outcome of a command.
    pub(crate) fn done(&mut self, done: &Done, is_json: bool) -> io::Result<()> {
        match as_json(done) {
            Some(json) if is_json => self.json(&json?),
            None if is_json => Ok(()),
            Some(_) | None => self.text(done),
        }
    }

    /// Prints why a command failed; `place` is the line of a script.
    pub(crate) fn failure(&mut self, failure: &Failure, is_json: bool, place: Option<u64>) -> io::Result<()> {
        match failure.json() {
            Some(json) if is_json => self.json(&json?),
            Some(_) | None => {
                let style = if failure.exit_code() == 4 { UNSURE } else { BAD };
                let place = place.map(|line| format!("line {line}: ")).unwrap_or_default();
                writeln!(self.messages, "{place}{style}{failure}{style:#}")
            }
        }
    }

    fn json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.results, "{json}")?;
        self.results.flush()
    }

    fn text(&mut self, done: &Done) -> io::Result<()> {
        let out = &mut self.results;
        match done {
            Done::Member(member) => writeln!(out, "{}: cart {}", member.name(), member.cart()),
            Done::Changed(change, changed) => writeln!(out, "{}", sentence(*change, changed)),
            Done::Bought(purchase) => {
                let at = purchase.purchased_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                writeln!(out, "{}", items_table(&purchase.items, false, self.width))?;
                writeln!(out, "{GOOD}bought for {}{GOOD:#} at {at}", money(purchase.total))
            }
            Done::Listed { cart, .. } if cart.items.is_empty() => writeln!(out, "the cart is empty"),
            Done::Listed { cart, ids } => {
                writeln!(out, "{}", items_table(&cart.items, *ids, self.width))?;
                writeln!(out, "{GOOD}total {}{GOOD:#}", money(cart.total))
            }
            Done::Remembered(entries) if entries.is_empty() => writeln!(out, "no commands yet"),
            Done::Remembered(entries) => writeln!(out, "{}", history_table(entries, self.width)),
            Done::Watched | Done::Exit => Ok(()),
        }?;
        out.flush()
    }
}

/// Whose cart it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CurrentMember<'a> {
    member: &'a str,
    cart_id: CartId,
}

fn as_json(done: &Done) -> Option<serde_json::Result<String>> {
    Some(match done {
        Done::Member(member) => serde_json::to_string(&CurrentMember { member: member.name(), cart_id: member.cart() }),
        Done::Changed(_, changed) => serde_json::to_string(changed),
        Done::Bought(purchase) => serde_json::to_string(purchase),
        Done::Listed { cart, .. } => serde_json::to_string(cart),
        Done::Remembered(entries) => serde_json::to_string(entries),
        Done::Watched | Done::Exit => return None,
    })
}

/// Prints an event of `watch`, as JSON as it came.
pub(crate) fn show_event(results: &mut impl Write, message: &EventMessage, is_json: bool) -> Result<(), Failure> {
    if is_json {
        writeln!(results, "{}", message.data)?;
    } else {
        let event = serde_json::from_str(&message.data);
        let event: CartEvent = event.map_err(|error| Failure::away(&format!("event {}: {error}", message.id)))?;
        let at = event.occurred_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        writeln!(results, "{:>4}  {at}  {}", message.id, happened(&event))?;
    }
    Ok(results.flush()?)
}

fn happened(event: &CartEvent) -> String {
    let Item { name, price, quantity, .. } = &event.item;
    let of = format!("{quantity} of {}", printable(name));
    let (done, rest) = match (event.kind.as_str(), event.increased_by, event.decreased_by) {
        ("ItemAdded", ..) => ("added", format!("{of} at {}", money(*price))),
        ("ItemPurchased", ..) => ("bought", format!("{of} at {}", money(*price))),
        ("ItemRemoved", ..) => ("removed", of),
        (_, Some(by), _) => ("increased", format!("by {by} to {of}")),
        (_, _, Some(by)) => ("decreased", format!("by {by} to {of}")),
        // A newer service may have other events.
        (other, None, None) => (other, of),
    };
    format!("{GOOD}{done}{GOOD:#} {rest}")
}

fn sentence(change: Change, changed: &ItemChange) -> String {
    let Item { name, price, quantity, .. } = &changed.item;
    let name = printable(name);
    let (done, rest) = match change {
        Change::Added => ("added", format!("{quantity} of {name} at {}", money(*price))),
        Change::Removed => ("removed", format!("{quantity} of {name}")),
        Change::Adjusted => ("adjusted", format!("to {quantity} of {name}")),
    };
    format!("{GOOD}{done}{GOOD:#} {rest}")
}

fn items_table(items: &[Item], ids: bool, width: Option<u16>) -> Table {
    let header: &[_] = if ids { &["item", "product", "vendor"] } else { &["item"] };
    let mut table = table(&[header, &["price", "quantity", "amount"]].concat(), header.len(), width);
    for item in items {
        let mut row = vec![printable(&item.name)];
        if ids {
            row.extend([item.product_id.to_string(), item.vendor_id.to_string()]);
        }
        let amount = item.price.checked_mul(item.quantity.into());
        row.extend([money(item.price), item.quantity.to_string(), amount.map_or_else(|| "?".to_owned(), money)]);
        table.add_row(row);
    }
    table
}

fn history_table(entries: &[Entry], width: Option<u16>) -> Table {
    let mut table = table(&["command", "outcome"], 2, width);
    for entry in entries {
        table.add_row([printable(&entry.command), printable(&entry.outcome)]);
    }
    table
}

fn table(header: &[&str], first_number: usize, width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header.iter().copied());
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats an amount with all its decimal places, at least two.
fn money(mut amount: Decimal) -> String {
    amount = amount.normalize();
    if amount.scale() < 2 {
        amount.rescale(2);
    }
    amount.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::Cart;
    use crate::ids::{ProductId, VendorId};

    fn item(name: &str, price: Decimal, quantity: i64) -> Item {
        let (product_id, vendor_id) = (ProductId::of_product(name), VendorId::of_vendor("shop"));
        Item { product_id, vendor_id, name: name.to_owned(), price, quantity }
    }

    fn listed(items: Vec<Item>, ids: bool) -> Done {
        let cart = Cart {
            cart_id: CartId::of_member("alice"),
            session_id: Some(Uuid::nil()),
            version: 2,
            total: items.iter().map(|item| item.price * Decimal::from(item.quantity)).sum(),
            items,
        };
        Done::Listed { cart, ids }
    }

    fn shown(done: &Done, is_json: bool, width: Option<u16>) -> String {
        let mut output = Output { results: AutoStream::new(vec![], ColorChoice::Never), messages: vec![], width };
        output.done(done, is_json).expect("memory takes all");
        String::from_utf8(output.results.into_inner()).expect("text")
    }

    #[test]
    fn amounts_have_at_least_two_decimal_places() {
        for (text, shown) in [("3.5", "3.50"), ("0", "0.00"), ("0.0010", "0.001"), ("1200.00", "1200.00")] {
            assert_eq!(money(text.parse().expect("a number")), shown);
        }
    }

    #[test]
    fn prints_a_cart_as_a_table_with_its_total() {
        let text = shown(
            &listed(vec![item("red mug", Decimal::new(35, 1), 2), item("\u{1b}[31m", Decimal::ONE, 1)], false),
            false,
            None,
        );
        for expected in ["red mug", "3.50", "7.00", "total 8.00", "\u{fffd}[31m"] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("-"), "{text}");
        let text = shown(&listed(vec![item("red mug", Decimal::ONE, 2)], true), false, None);
        assert!(text.contains(&ProductId::of_product("red mug").to_string()), "{text}");
        assert_eq!(shown(&listed(vec![], false), false, None), "the cart is empty\n");
    }

    #[test]
    fn an_event_is_a_line() {
        let shown = |kind: &str, more: &str| {
            let item = serde_json::to_string(&item("red mug", Decimal::new(35, 1), 3)).expect("JSON");
            let data = format!(
                r#"{{"type":"{kind}","sequenceNumber":2,"occurredAt":"2026-11-29T09:29:03.344609Z","item":{item}{more}}}"#
            );
            let mut results = AutoStream::new(vec![], ColorChoice::Never);
            show_event(&mut results, &EventMessage { id: 2, data }, false).expect("memory takes all");
            String::from_utf8(results.into_inner()).expect("text")
        };
        let line = |text: &str| format!("   2  2026-11-29T09:29:03Z  {text}\n");
        assert_eq!(shown("ItemAdded", ""), line("added 3 of red mug at 3.50"));
        assert_eq!(shown("ItemQuantityIncreased", r#","increasedBy":1"#), line("increased by 1 to 3 of red mug"));
        assert_eq!(shown("ItemQuantityDecreased", r#","decreasedBy":2"#), line("decreased by 2 to 3 of red mug"));
        assert_eq!(shown("ItemRemoved", ""), line("removed 3 of red mug"));
        assert_eq!(shown("ItemPurchased", ""), line("bought 3 of red mug at 3.50"));
        assert_eq!(shown("ItemWrapped", ""), line("ItemWrapped 3 of red mug"));
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let text = shown(&listed(vec![item(&"long name ".repeat(20), Decimal::ONE, 1)], false), false, Some(60));
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn json_is_one_line_with_the_fields_of_the_service() {
        let text = shown(&listed(vec![item("red mug", Decimal::new(350, 2), 2)], false), true, None);
        assert_eq!(text.lines().count(), 1);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&json["items"][0]["price"], &json["version"]), (&json!("3.50"), &json!(2)));
        assert_eq!(shown(&Done::Exit, true, None), "");
    }

    #[test]
    fn styles_reach_only_terminals() {
        let failure = Failure::usage("no");
        let written = |choice| {
            let mut output = Output { results: vec![], messages: AutoStream::new(vec![], choice), width: None };
            output.failure(&failure, false, Some(3)).expect("memory takes all");
            String::from_utf8(output.messages.into_inner()).expect("text")
        };
        assert_eq!(written(ColorChoice::Never), "line 3: no\n");
        assert_eq!(written(ColorChoice::Always), "line 3: \u{1b}[31mno\u{1b}[0m\n");
    }
}
