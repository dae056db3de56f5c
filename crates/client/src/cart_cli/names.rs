//! Converts names to ids, and finds items of a cart by their names.

use std::str::FromStr;

use uuid::Uuid;

use crate::Item;
use crate::ids::{CartId, ProductId, VendorId};
use crate::text::nfc;

/// The maximum length of a member's name: that of an item's name. The prompt shows it.
const MEMBER_CHARS_MAX: usize = 200;

/// How many names are suggested at most.
const NEAR_MAX: usize = 5;

/// The minimum Jaro-Winkler similarity of a suggestion: `mgu` is near `mug`, `red mug` is not near `kettle`.
const NEAR_FROM: f64 = 0.7;

/// The owner of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    name: String,
    cart: CartId,
}

/// Why a text is not a member's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member's name has 1 to {MEMBER_CHARS_MAX} visible characters")]
pub struct NoMember;

/// Why a text is not the name of an item, product or vendor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has one or more visible characters")]
pub(crate) struct NoLabel;

/// Why no item in the cart is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// No item has the name; with the message.
    Absent(String),
    /// Several items have the name; with the message, which lists their ids.
    Ambiguous(String),
}

impl Member {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn cart(&self) -> CartId {
        self.cart
    }
}

impl FromStr for Member {
    type Err = NoMember;

    fn from_str(name: &str) -> Result<Self, NoMember> {
        let name = nfc(name);
        let is_good = (1..=MEMBER_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !is_good {
            return Err(NoMember);
        }
        let cart = id(&name).map_or_else(|| CartId::of_member(&name), CartId);
        Ok(Self { name: name.into_owned(), cart })
    }
}

/// Converts a name to Unicode NFC, in which it is sent and hashed to an id. Rejects control characters: a CR at the end, for
/// example, would give another id to a name that looks the same.
pub(crate) fn label(text: &str) -> Result<String, NoLabel> {
    if text.is_empty() || text.contains(char::is_control) { Err(NoLabel) } else { Ok(nfc(text).into_owned()) }
}

/// The product with this name or id.
pub(crate) fn product(text: &str) -> ProductId {
    id(text).map_or_else(|| ProductId::of_product(text), ProductId)
}

/// The vendor with this name or id.
pub(crate) fn vendor(text: &str) -> VendorId {
    id(text).map_or_else(|| VendorId::of_vendor(text), VendorId)
}

/// Parses an id in the form with hyphens. 32 hexadecimal digits without hyphens may be a name.
pub(crate) fn id(text: &str) -> Option<Uuid> {
    if text.len() == uuid::fmt::Hyphenated::LENGTH { Uuid::try_parse(text).ok() } else { None }
}

/// Finds an item by its name, its product's name or id; if there is none, by its name in another letter case. Names in the cart
/// may not be in NFC, because older versions did not convert them.
pub(crate) fn find<'a>(items: &'a [Item], text: &str) -> Result<&'a Item, Unresolved> {
    let text = &*nfc(text);
    let product = product(text);
    let exact: Vec<_> = items.iter().filter(|item| nfc(&item.name) == text || item.product_id == product).collect();
    let lower = text.to_lowercase();
    let is_like = |item: &&Item| nfc(&item.name).to_lowercase() == lower;
    let found = if exact.is_empty() { items.iter().filter(is_like).collect() } else { exact };
    match found[..] {
        [item] => Ok(item),
        [] => Err(Unresolved::Absent(absent(items, text))),
        [..] => Err(Unresolved::Ambiguous(ambiguous(&found, text))),
    }
}

fn absent(items: &[Item], text: &str) -> String {
    let text = text.escape_debug();
    if items.is_empty() {
        return format!("there is no \"{text}\" in the cart: it is empty");
    }
    let near = near(items.iter().map(|item| item.name.as_str()), &text.to_string());
    let hint = if near.is_empty() { "`list` shows its items".to_owned() } else { format!("near: {}", quoted(&near)) };
    format!("there is no \"{text}\" in the cart; {hint}")
}

fn ambiguous(found: &[&Item], text: &str) -> String {
    let count = found.len();
    let each = |item: &&Item| format!("  {}  \"{}\"", item.product_id, item.name.escape_debug());
    let ids: Vec<_> = found.iter().map(each).collect();
    format!(
        "{count} items in the cart are called \"{}\"; choose one by its id:\n{}",
        text.escape_debug(),
        ids.join("\n")
    )
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{}\"", name.escape_debug())).collect();
    names.join(", ")
}

/// The suggestions, the nearest first.
fn near<'a>(names: impl Iterator<Item = &'a str>, text: &str) -> Vec<&'a str> {
    let text = text.to_lowercase();
    let scored = names.map(|name| {
        let lower = name.to_lowercase();
        let is_part = lower.contains(&text);
        (if is_part { 1.0 } else { strsim::jaro_winkler(&lower, &text) }, name)
    });
    let mut near: Vec<_> = scored.filter(|(score, _)| *score >= NEAR_FROM).collect();
    near.sort_by(|(one, _), (two, _)| two.total_cmp(one));
    near.dedup_by_key(|(_, name)| *name);
    near.into_iter().map(|(_, name)| name).take(NEAR_MAX).collect()
}

/// Quotes a word of a line, if necessary.
pub(crate) fn as_word(text: &str) -> Option<String> {
    // Only NUL can't be quoted, and it can't be typed either.
    shlex::try_quote(text).ok().map(std::borrow::Cow::into_owned)
}

/// Escapes text from the service for a terminal: it can't move the cursor or change colours.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn item(product: &str, name: &str) -> Item {
        let (product_id, vendor_id) = (ProductId::of_product(product), VendorId::of_vendor("shop"));
        Item { product_id, vendor_id, name: name.to_owned(), price: Decimal::ONE, quantity: 1 }
    }

    fn found(items: &[Item], text: &str) -> Result<ProductId, Unresolved> {
        find(items, text).map(|item| item.product_id)
    }

    fn absent_text(items: &[Item], text: &str) -> String {
        match find(items, text) {
            Err(Unresolved::Absent(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    // Expected values: Python's `uuid.uuid5(uuid.NAMESPACE_URL, "urn:cart:member:alice")` and so on.
    #[test]
    fn a_name_gives_its_id_and_an_id_itself() {
        let cart = |text: &str| text.parse::<Member>().expect("a member").cart().to_string();
        assert_eq!(cart("alice"), "e4fbfd75-c6ab-52e9-b751-9da31e2bc37b");
        assert_eq!(product("red mug").to_string(), "6bee9ef3-0a4c-5494-890e-c4534ac1cfb1");
        assert_eq!(vendor("shop").to_string(), "03eed10f-b373-5529-ba8a-25b42bcbe3dd");
        let id = "5e3367bf-a5c9-5408-8034-479d558dad7c";
        assert_eq!((cart(id), product(id).to_string(), vendor(id).to_string()), (id.into(), id.into(), id.into()));
        assert_ne!(cart("5e3367bfa5c954088034479d558dad7c"), id);
        assert_ne!(cart("Alice"), cart("alice"));
        assert_eq!(cart("Jose\u{301}"), cart("Jos\u{e9}"));
        assert_eq!(product("cafe\u{301}"), product("caf\u{e9}"));
        assert_eq!(vendor("cafe\u{301}"), vendor("caf\u{e9}"));
    }

    #[test]
    fn rejects_member_names_that_cannot_be_shown() {
        for bad in ["", "a\nb", "alice\r", "\u{1b}[2J", &"x".repeat(201)] {
            assert_eq!(bad.parse::<Member>(), Err(NoMember), "{bad:?}");
        }
        let decomposed = "e\u{301}".repeat(200);
        assert_eq!(decomposed.parse::<Member>().expect("200 letters").name(), "\u{e9}".repeat(200));
        assert_eq!("Zoë 7".parse::<Member>().expect("a member").name(), "Zoë 7");
    }

    #[test]
    fn an_item_is_found_by_name_product_or_id() {
        let items = [item("85123A", "WHITE HOLDER"), item("red mug", "red mug"), item("x", "Red Jug")];
        let holder = items[0].product_id;
        for text in ["WHITE HOLDER", "85123A", "white holder", &holder.to_string()] {
            assert_eq!(found(&items, text), Ok(holder), "{text}");
        }
        assert_eq!(found(&items, "red mug"), Ok(items[1].product_id));
        assert_eq!(found(&items, "red jug"), Ok(items[2].product_id));
    }

    #[test]
    fn an_item_is_found_however_its_letters_are_composed() {
        for name in ["caf\u{e9}", "cafe\u{301}"] {
            let items = [item("1", name), item("2", "cafe")];
            for text in ["caf\u{e9}", "cafe\u{301}", "CAF\u{c9}", "CAFE\u{301}"] {
                assert_eq!(found(&items, text), Ok(items[0].product_id), "{text} for {name}");
            }
        }
    }

    #[test]
    fn an_exact_name_is_preferred_to_another_letter_case() {
        let items = [item("1", "Mug"), item("2", "mug")];
        assert_eq!(found(&items, "Mug"), Ok(items[0].product_id));
        assert_eq!(found(&items, "mug"), Ok(items[1].product_id));
        assert!(matches!(found(&items, "MUG"), Err(Unresolved::Ambiguous(_))));
    }

    #[test]
    fn items_that_share_a_name_are_listed_with_their_ids() {
        let items = [item("1", "mug"), item("2", "mug"), item("3", "cup")];
        let Err(Unresolved::Ambiguous(text)) = find(&items, "mug") else { panic!("it is ambiguous") };
        assert!(text.contains(&items[0].product_id.to_string()) && text.contains(&items[1].product_id.to_string()));
        assert!(!text.contains(&items[2].product_id.to_string()), "{text}");
    }

    #[test]
    fn a_missing_item_is_reported_with_suggestions() {
        let items = [item("1", "red mug"), item("2", "blue mug"), item("3", "kettle")];
        let text = absent_text(&items, "red mgu");
        assert!(text.contains("near: \"red mug\"") && !text.contains("kettle"), "{text}");
        let text = absent_text(&items, "MUG");
        assert!(text.contains("\"red mug\"") && text.contains("\"blue mug\""), "{text}");
        assert!(absent_text(&items, "sofa").ends_with("`list` shows its items"));
        assert!(absent_text(&[], "mug").ends_with("it is empty"));
        let many: Vec<_> = (0..20).map(|n| item(&n.to_string(), &format!("mug {n}"))).collect();
        assert_eq!(absent_text(&many, "mug").matches("\"mug ").count(), NEAR_MAX);
    }

    #[test]
    fn a_quoted_word_is_parsed_to_itself() {
        for name in ["mug", "red mug", "it's", "a\"b", "$HOME `x` \\", "Tasse für Tee", "#1"] {
            let word = as_word(name).expect("a word");
            assert_eq!(shlex::split(&word), Some(vec![name.to_owned()]), "{word}");
        }
        assert_eq!(as_word("mug").as_deref(), Some("mug"));
    }

    #[test]
    fn text_from_the_service_cannot_control_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r\n"), "a\u{fffd}[31mb\u{fffd}\u{fffd}");
    }
}
