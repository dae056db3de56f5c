//! Completion with Tab: commands, their options, and the products in the cart.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Runtime;

use super::args::Line;
use super::names::{as_word, printable};
use crate::ids::CartId;
use crate::text::nfc;
use crate::{CartClient, Item};

/// The timeout of reading the cart for a completion. After it the products seen last are offered.
const TAB_PATIENCE: Duration = Duration::from_millis(300);

/// Completes the lines of a session.
pub(crate) struct Completion<'a> {
    runtime: &'a Runtime,
    client: CartClient,
    cart: Option<CartId>,
    last_seen: RefCell<Vec<Item>>,
}

impl fmt::Debug for Completion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("cart", &self.cart).finish_non_exhaustive()
    }
}

impl<'a> Completion<'a> {
    pub(crate) fn new(runtime: &'a Runtime, client: CartClient) -> Self {
        Self { runtime, client, cart: None, last_seen: RefCell::default() }
    }

    /// Sets the cart whose products are offered.
    pub(crate) fn look_into(&mut self, cart: Option<CartId>) {
        if self.cart != cart {
            self.cart = cart;
            self.last_seen.take();
        }
    }

    fn items(&self) -> Vec<Item> {
        let Some(cart) = self.cart else { return vec![] };
        let asked = async { tokio::time::timeout(TAB_PATIENCE, self.client.cart(cart)).await };
        if let Ok(Ok(cart)) = self.runtime.block_on(asked) {
            self.last_seen.replace(cart.items);
        }
        self.last_seen.borrow().clone()
    }
}

impl Completer for Completion<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(complete(&line[..pos], || self.items()))
    }
}

impl Helper for Completion<'_> {}
impl Highlighter for Completion<'_> {}
impl Validator for Completion<'_> {}
impl Hinter for Completion<'_> {
    type Hint = String;
}

/// The start of the last word before the cursor, and the candidates for it.
fn complete(before: &str, items: impl FnOnce() -> Vec<Item>) -> (usize, Vec<Pair>) {
    let start = last_word_start(before);
    let (Some(words), Some(partial)) = (shlex::split(&before[..start]), unquoted(&before[start..])) else {
        return (start, vec![]);
    };
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let candidates = match words[..] {
        [] | ["help"] => commands(),
        [command, ..] if partial.starts_with('-') => options(command),
        ["remove" | "adjust"] => products(&items()),
        [..] => vec![],
    };
    let mut matching = starting_with(&partial, candidates);
    if let [only] = &mut matching[..] {
        only.replacement.push(' ');
    }
    (start, matching)
}

/// The start of the last word: after the last white space outside of quotes.
fn last_word_start(text: &str) -> usize {
    let (mut start, mut quote, mut is_escaped) = (0, None, false);
    for (at, char) in text.char_indices() {
        match (quote, char) {
            _ if is_escaped => is_escaped = false,
            (None | Some('"'), '\\') => is_escaped = true,
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            (None, _) if char.is_whitespace() => start = at + char.len_utf8(),
            (None | Some(_), _) => {}
        }
    }
    start
}

/// The text of a word whose quotes may still be open.
fn unquoted(word: &str) -> Option<String> {
    let closed = ["", "\"", "'"].into_iter().find_map(|end| shlex::split(&format!("{word}{end}")));
    closed.map(|words| words.concat())
}

fn commands() -> Vec<(String, Pair)> {
    let mut clap = Line::clap();
    clap.build();
    let names = clap.get_subcommands().map(|command| command.get_name().to_owned());
    names.map(|name| (name.clone(), Pair { display: name.clone(), replacement: name })).collect()
}

fn options(command: &str) -> Vec<(String, Pair)> {
    let mut clap = Line::clap();
    clap.build();
    let Some(command) = clap.find_subcommand(command) else { return vec![] };
    let options = command.get_arguments().filter_map(|option| option.get_long()).map(|long| format!("--{long}"));
    options.map(|name| (name.clone(), Pair { display: name.clone(), replacement: name })).collect()
}

/// The products by name; those that share a name by id.
fn products(items: &[Item]) -> Vec<(String, Pair)> {
    let mut named: HashMap<&str, u32> = HashMap::new();
    for item in items {
        *named.entry(&item.name).or_default() += 1;
    }
    let products = items.iter().filter_map(|item| {
        let (id, name) = (item.product_id.to_string(), printable(&item.name));
        let pair = if named[item.name.as_str()] > 1 {
            Pair { display: format!("{name} ({id})"), replacement: id }
        } else {
            Pair { display: name, replacement: as_word(&item.name)? }
        };
        Some((item.name.clone(), pair))
    });
    products.collect()
}

/// The candidates with this prefix, in any letter case and Unicode composition.
fn starting_with(partial: &str, candidates: Vec<(String, Pair)>) -> Vec<Pair> {
    let plain = |text: &str| nfc(text).to_lowercase();
    let partial = plain(partial);
    let matching = candidates
        .into_iter()
        .filter(|(name, pair)| plain(name).starts_with(&partial) || plain(&pair.replacement).starts_with(&partial));
    matching.map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::ids::{ProductId, VendorId};

    fn item(product: &str, name: &str) -> Item {
        let (product_id, vendor_id) = (ProductId::of_product(product), VendorId::of_vendor("shop"));
        Item { product_id, vendor_id, name: name.to_owned(), price: Decimal::ONE, quantity: 1 }
    }

    /// The completed lines, one for each candidate.
    fn completed(before: &str, items: &[Item]) -> Vec<String> {
        let (start, candidates) = complete(before, || items.to_vec());
        candidates.iter().map(|candidate| format!("{}{}", &before[..start], candidate.replacement)).collect()
    }

    #[test]
    fn commands_are_completed() {
        assert_eq!(completed("ch", &[]), ["change-member", "checkout"]);
        assert_eq!(completed("  adj", &[]), ["  adjust "]);
        assert_eq!(completed("help adj", &[]), ["help adjust "]);
        assert!(completed("", &[]).iter().any(|name| name == "help"));
        assert_eq!(completed("xyz", &[]), [""; 0]);
    }

    #[test]
    fn options_are_those_of_the_command() {
        assert_eq!(completed("add mug --pr", &[]), ["add mug --price", "add mug --product"]);
        assert_eq!(completed("list --j", &[]), ["list --json "]);
        assert_eq!(completed("nothing --j", &[]), [""; 0]);
    }

    #[test]
    fn products_are_completed_and_quoted() {
        let items = [item("1", "red mug"), item("2", "red jug"), item("3", "kettle"), item("4", "it's")];
        assert_eq!(completed("remove k", &items), ["remove kettle "]);
        assert_eq!(completed("remove red", &items), ["remove 'red mug'", "remove 'red jug'"]);
        for begun in ["adjust 'red m", "adjust \"RED m", "adjust red\\ m", "adjust \"red mug\""] {
            assert_eq!(completed(begun, &items), ["adjust 'red mug' "], "{begun}");
        }
        assert_eq!(completed("remove it", &items), ["remove \"it's\" "]);
        let accented = [item("5", "caf\u{e9}s")];
        assert_eq!(completed("remove cafe\u{301}", &accented), ["remove 'caf\u{e9}s' "]);
        assert_eq!(completed("remove ", &items).len(), 4);
        // A difference or a new item has no candidates.
        assert_eq!(completed("adjust kettle ", &items), [""; 0]);
        assert_eq!(completed("add k", &items), [""; 0]);
    }

    #[test]
    fn products_of_one_name_are_offered_by_id() {
        let items = [item("1", "mug"), item("2", "mug")];
        let ids = items.each_ref().map(|item| format!("remove {}", item.product_id));
        assert_eq!(completed("remove mu", &items), ids);
        assert_eq!(completed(&ids[0][..20], &items), [format!("{} ", ids[0])]);
    }
}
