//! The options and commands of `cart`. The commands are the same on the command line, in a script and in a session.

use std::path::PathBuf;
use std::time::Duration;

use cart::{Price, whole_number};
use clap::{Arg, ArgAction, Command as ClapCommand, FromArgMatches as _, Parser, Subcommand};

use super::names::{Member, label};

/// The error of an `add` without a price: the usage, and an example.
const ADD_USAGE: &str = "\
add <NAME> --price <PRICE> [OPTIONS]
       for example: add mug --price 3.50";

/// The end of `-h`.
const EXAMPLE: &str = "\
Example, with the stack of `scripts/stack up`:
  cart --member alice add mug --price 3.50";

/// The end of `--help`.
const MORE_HELP: &str = "\
Without a command, cart starts an interactive session if standard input is a terminal. Otherwise it reads a
script from standard input: one command per line, quoted as in a shell; # starts a comment. The script is
UTF-8; its lines end with LF, CR LF or CR, and a byte order mark is skipped. A script ends at its first
failure, with that exit code. With --keep-going all of it is run, and the exit code is that of the first failure.

Names become ids, the same on every machine: UUIDv5 in the URL namespace of urn:cart:member:<member>,
urn:cart:product:<product> and urn:cart:vendor:<vendor>, with the name in Unicode NFC. An id can be given
instead of a name.

Every command has a new idempotency key, and is retried with it when its answer is lost.

Exit codes:
  0  done
  1  rejected by a rule: for example the item is already in the cart, or is not in the cart
  2  usage: an unknown command, option, value or member, an ambiguous name, or a value that the service
     rejects; or the output could not be written
  3  the service is unavailable or rejected the request: the command was not executed and will not be
  4  outcome unknown: the command may have been executed, or may still be. Send it again with the same
     --idempotency-key to get its outcome

With --json each command writes one line to standard output, the body of the service's response:
  add, remove, adjust  {\"commandId\",\"cartId\",\"sessionId\",\"version\",\"item\":{\"productId\",\"vendorId\",
                       \"name\",\"price\",\"quantity\"}}
  checkout             {\"commandId\",\"cartId\",\"sessionId\",\"version\",\"items\":[...],\"total\",\"purchasedAt\"}
  list                 {\"cartId\",\"sessionId\",\"version\",\"items\":[...],\"total\"}
  rejected             {\"type\":\"urn:cart:problem:...\",\"title\",\"status\",\"detail\",\"commandId\"?}
  exit code 3, 4       the same, type urn:cart:problem:unavailable or urn:cart:problem:outcome-unknown, or
                       {\"commandId\",\"cartId\",\"status\":\"pending\"}; 4 also has \"idempotencyKey\"
  change-member, current-member  {\"member\",\"cartId\"}
  history              [{\"command\",\"outcome\"},...]
  watch                one line per event: {\"eventId\",\"type\",\"sequenceNumber\",\"sessionId\",\"commandId\",
                       \"occurredAt\",\"item\":{...},\"increasedBy\"?,\"decreasedBy\"?}
Prices are strings, times are RFC 3339 in UTC. With exit code 2 there is a line only if the service rejected
the command; other errors are written to standard error.

Example, with the stack of `scripts/stack up`:
  cart --member alice add mug --price 3.50 && cart --member alice list";

/// Fills a shopping cart through the cart service: with one command, a script, or an interactive session
#[derive(Debug, Clone, Parser)]
#[command(name = "cart", version, max_term_width = 120, after_help = EXAMPLE, after_long_help = MORE_HELP)]
pub struct Args {
    /// The settings for all commands.
    #[command(flatten)]
    pub settings: Settings,
    /// The single command; `None` for a session or a script.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The settings for all commands.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// URL of the ingest service
    #[arg(long, env = "CART_URL", default_value = "http://127.0.0.1:9001", global = true)]
    pub url: String,
    /// Bearer token, for an ingest with --auth jwt
    #[arg(long, env = "CART_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// Certificates (PEM) to trust for https, instead of the system's root certificates
    #[arg(long, env = "CART_CA_CERT", value_name = "FILE", global = true)]
    pub ca_cert: Option<PathBuf>,
    /// Member whose cart is used: a name, or a cart's id
    #[arg(long, short, env = "CART_MEMBER", value_name = "NAME", global = true)]
    pub member: Option<Member>,
    /// Maximum time of a command with its retries; two seconds while the service is certainly unavailable
    #[arg(
        long, env = "CART_TIMEOUT_MS", value_name = "MS", default_value = "20000", global = true,
        value_parser = clap::value_parser!(u64).range(3..=3_600_000)
    )]
    pub timeout_ms: u64,
    /// Print JSON, one line per command, instead of tables; the end of --help describes it
    #[arg(long, global = true)]
    pub json: bool,
    /// Run the whole script, even if a command fails
    #[arg(long)]
    pub keep_going: bool,
}

impl Settings {
    /// The maximum time of a command.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Switch to another member's cart
    ChangeMember {
        /// Name of the member, or a cart's id
        name: Member,
    },
    /// Show the current member and the cart's id
    CurrentMember,
    /// Add an item to the cart
    #[command(override_usage = format!("cart {}", ADD_USAGE.replace(": add", ": cart add")))]
    Add(Add),
    /// Remove an item from the cart
    Remove {
        /// Name of the item, its product or the product's id
        #[arg(value_parser = label)]
        item: String,
        /// The idempotency key.
        #[command(flatten)]
        key: Key,
    },
    /// Show the items of the cart
    List {
        /// Show the ids of products and vendors too
        #[arg(long)]
        ids: bool,
    },
    /// Change the quantity of an item by a difference
    Adjust {
        /// Name of the item, its product or the product's id
        #[arg(value_parser = label)]
        item: String,
        /// Difference: more (3, +3) or fewer (-2)
        #[arg(allow_negative_numbers = true, value_parser = difference)]
        by: i64,
        /// The idempotency key.
        #[command(flatten)]
        key: Key,
    },
    /// Buy all items of the cart
    Checkout {
        /// The idempotency key.
        #[command(flatten)]
        key: Key,
    },
    /// Print each event of a cart: those that it has, and new ones as they happen, until Ctrl-C
    ///
    /// Reconnects behind the last event when the connection is lost; gives up when the service is unavailable for two thirds
    /// of --timeout-ms.
    Watch {
        /// Name of the member, or a cart's id, instead of the current member
        cart: Option<Member>,
        /// Start after the event with this sequence number
        #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        after: i64,
    },
    /// Show the commands of this session and their outcomes
    History,
    /// End the session, like Ctrl-D
    #[command(visible_alias = "quit")]
    Exit,
}

/// The item to add.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Add {
    /// Name of the item
    #[arg(value_parser = label)]
    pub name: String,
    /// Price of one piece, 0 or more, with at most four decimal places
    #[arg(long, short, allow_negative_numbers = true)]
    pub price: Price,
    /// Number of pieces
    #[arg(long, short, default_value = "1", allow_negative_numbers = true, value_parser = quantity)]
    pub quantity: i64,
    /// Name or id of the vendor
    #[arg(long, default_value = "shop", value_parser = label)]
    pub vendor: String,
    /// Name (for example a stock code) or id of the product, if it is not the item's name
    #[arg(long, value_parser = label)]
    pub product: Option<String>,
    /// The idempotency key.
    #[command(flatten)]
    pub key: Key,
}

/// The idempotency key of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Key {
    /// Idempotency key to send instead of a new one; a command with the key of an earlier one gets its outcome
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    pub idempotency_key: Option<String>,
}

/// A line of a session or a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) command: Command,
    pub(crate) json: bool,
}

/// Why a line is not a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLine {
    /// The quotes are not balanced.
    #[error("a quote is not closed, or the line ends with a backslash")]
    Quoting,
    /// The arguments are invalid, or the line asks for help.
    #[error(transparent)]
    Words(#[from] Box<clap::Error>),
}

impl Line {
    /// The commands as the first words of a line.
    pub(crate) fn clap() -> ClapCommand {
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
        let clap = ClapCommand::new("cart").multicall(true).subcommand_required(true);
        Command::augment_subcommands(clap)
            .about(None)
            .mut_subcommands(|command| command.arg(json.clone()))
            .mut_subcommand("add", |add| add.override_usage(ADD_USAGE))
    }

    /// Parses a line; `None` if it is empty or a comment.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, NoLine> {
        let words = shlex::split(text).ok_or(NoLine::Quoting)?;
        if words.is_empty() {
            return Ok(None);
        }
        let matches = Self::clap().try_get_matches_from(words).map_err(Box::new)?;
        let command = Command::from_arg_matches(&matches).map_err(Box::new)?;
        let json = matches.subcommand().is_some_and(|(_, matches)| matches.get_flag("json"));
        Ok(Some(Self { command, json }))
    }
}

/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error)]
enum NoNumber {
    #[error("a quantity is a whole number such as 2")]
    Quantity,
    #[error("a difference is a whole number such as 3, +3 or -2")]
    Difference,
}

/// Parses exactly, without rounding. The service checks the limits.
fn quantity(text: &str) -> Result<i64, NoNumber> {
    whole_number(text).ok_or(NoNumber::Quantity)
}

/// Parses as [`quantity`], with an optional plus sign.
fn difference(text: &str) -> Result<i64, NoNumber> {
    let more = text.strip_prefix('+').filter(|more| !more.starts_with('-'));
    whole_number(more.unwrap_or(text)).ok_or(NoNumber::Difference)
}

/// Why a text is not an idempotency key.
#[derive(Debug, thiserror::Error)]
#[error("an idempotency key is 1 to 200 characters without white space around them")]
struct NoKey;

fn idempotency_key(text: &str) -> Result<String, NoKey> {
    let has_room = (1..=200).contains(&text.chars().count());
    let good = has_room && text.trim() == text && !text.contains(char::is_control);
    if good { Ok(text.to_owned()) } else { Err(NoKey) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text).expect("a good line").expect("a command")
    }

    fn refused(text: &str) -> String {
        Line::parse(text).expect_err("a bad line").to_string()
    }

    fn add(name: &str, price: &str, quantity: i64, vendor: &str) -> Command {
        let (name, price, vendor) = (name.to_owned(), price.parse().expect("a price"), vendor.to_owned());
        Command::Add(Add { name, price, quantity, vendor, product: None, key: Key::default() })
    }

    #[test]
    fn the_options_agree_with_each_other() {
        Args::command().debug_assert();
        Line::clap().debug_assert();
    }

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let red_mug = add("red mug", "3.5", 2, "shop");
        for text in [
            r#"add "red mug" --price 3.50 --quantity 2"#,
            r"add 'red mug' -p 3.50 -q 2 # for the office",
            r"  add red\ mug --price=3.50 --quantity=2  ",
        ] {
            assert_eq!(line(text), Line { command: red_mug.clone(), json: false }, "{text}");
        }
        assert_eq!(line("add mug --vendor acme -p 0").command, add("mug", "0", 1, "acme"));
        assert_eq!(line("quit").command, Command::Exit);
        for nothing in ["", "   ", "# a comment"] {
            assert_eq!(Line::parse(nothing).expect("nothing wrong"), None, "{nothing}");
        }
        assert!(refused("add \"red mug").contains("quote"));
    }

    #[test]
    fn a_difference_has_a_sign_or_none() {
        for (text, difference) in [("-2", -2), ("+3", 3), ("3", 3), ("2.0", 2)] {
            let expected = Command::Adjust { item: "mug".to_owned(), by: difference, key: Key::default() };
            assert_eq!(line(&format!("adjust mug {text}")).command, expected);
        }
        assert!(refused("adjust mug -x").contains("-x"));
        for bad in ["1.5", "0.99999999999999999", "1_000", "+1_000", "++3", "+-3", "+", "9223372036854775808", "٣"] {
            let text = refused(&format!("adjust mug {bad}"));
            assert!(text.contains(bad) && text.contains("3, +3 or -2"), "{text}");
        }
        assert!(refused("adjust mug").contains("<BY>"));
    }

    #[test]
    fn every_line_can_ask_for_json() {
        assert_eq!(line("list --json"), Line { command: Command::List { ids: false }, json: true });
        assert!(!line("list").json);
    }

    #[test]
    fn an_unknown_command_is_rejected_with_a_suggestion() {
        assert!(refused("lst").contains("'list'"), "{}", refused("lst"));
        assert!(refused("add mug --prize 3").contains("'--price'"), "{}", refused("add mug --prize 3"));
        assert!(refused("checkout --idempotency-key ' '").contains("1 to 200 characters"));
    }

    #[test]
    fn a_price_and_a_quantity_are_read_as_the_service_reads_them() {
        for (price, same) in [("3.50", "3.5"), ("0", "0.00"), ("1e2", "100"), ("999999999.9999", "999999999.9999")] {
            assert_eq!(line(&format!("add mug --price {price}")).command, add("mug", same, 1, "shop"), "{price}");
        }
        for price in ["1_000", "1_", "_1", "1_0.5_0", "3,50", "abc", "", " 1", "NaN", "0x1"] {
            let text = refused(&format!("add mug --price '{price}'"));
            assert!(text.contains("decimal number such as"), "{price}: {text}");
        }
        for (price, reason) in [
            ("0.00001", "4 decimal places"),
            // A number with more digits than a decimal has is rejected, not rounded.
            ("0.00000000000000000000000000001", "4 decimal places"),
            ("1000000000", "above"),
            ("-1", "negative"),
        ] {
            let text = refused(&format!("add mug --price {price}"));
            assert!(text.contains(reason), "{price}: {text}");
        }
        assert_eq!(line("add mug -p 1 -q 2e1").command, add("mug", "1", 20, "shop"));
        assert_eq!(line("add mug -p 1 -q -1").command, add("mug", "1", -1, "shop"));
        for quantity in ["1_000", "1.5", "+2", "0.99999999999999999", "999999.99999999999", "9223372036854775808", ""] {
            let text = refused(&format!("add mug -p 1 -q '{quantity}'"));
            assert!(text.contains("a whole number such as 2"), "{quantity}: {text}");
        }
    }

    #[test]
    fn an_add_without_a_price_is_refused_with_an_example() {
        for words in ["add mug", "add mug --quantity 2", "add mug --vendor acme"] {
            let text = refused(words);
            assert!(text.contains("--price <PRICE>") && text.contains(": add mug --price 3.50"), "{text}");
        }
        let error = Args::try_parse_from(["cart", "add", "mug"]).expect_err("no price").to_string();
        assert!(error.contains("cart add <NAME>") && error.contains(": cart add mug --price 3.50"), "{error}");
        assert!(refused("add mug --price").contains("--price"));
    }

    #[test]
    fn names_have_one_spelling_and_no_control_characters() {
        let composed = "add 'caf\u{e9}' -p 1 --vendor 'Jos\u{e9}' --product 'th\u{e9}'";
        let decomposed = "add 'cafe\u{301}' -p 1 --vendor 'Jose\u{301}' --product 'the\u{301}'";
        assert_eq!(line(composed), line(decomposed));
        for (composed, decomposed) in [
            ("remove 'caf\u{e9}'", "remove 'cafe\u{301}'"),
            ("adjust 'caf\u{e9}' 1", "adjust 'cafe\u{301}' 1"),
            ("change-member 'Jos\u{e9}'", "change-member 'Jose\u{301}'"),
        ] {
            assert_eq!(line(composed), line(decomposed));
        }
        // As a shell passes them on from a file with other line ends.
        for words in [
            &["add", "mug\r", "--price", "1"][..],
            &["add", "mug", "--price", "1", "--vendor", "acme\r"],
            &["add", "mug", "--price", "1", "--product", "85123A\n"],
            &["add", "mug", "--price", "1\r"],
            &["add", "mug", "--price", "1", "--quantity", "2\r"],
            &["adjust", "mug", "1\r"],
            &["remove", "mug\r"],
            &["remove", ""],
            &["change-member", "alice\r"],
            &["--member", "alice\r", "list"],
        ] {
            let error = Args::try_parse_from([&["cart"], words].concat()).expect_err("no name");
            assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
        }
    }

    #[test]
    fn there_is_help_for_all_commands_and_for_each() {
        for (text, word) in [("help", "change-member"), ("help adjust", "Usage: adjust"), ("add --help", "--quantity")]
        {
            match Line::parse(text) {
                Err(NoLine::Words(error)) => {
                    assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{text}");
                    assert!(error.to_string().contains(word), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_single_command_takes_its_options_before_or_after_it() {
        for words in [
            &["cart", "--member", "alice", "list", "--json"][..],
            &["cart", "list", "--json", "--member", "alice"],
            &["cart", "--json", "-m", "alice", "list"],
        ] {
            let args = Args::try_parse_from(words).expect("good options");
            assert!(args.settings.json, "{words:?}");
            assert_eq!(args.settings.member.expect("a member").name(), "alice");
            assert_eq!(args.command, Some(Command::List { ids: false }));
        }
    }
}
