//! The words of `cart`: its options, and its commands, which are the same on the command line, in a script and in a session.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command as ClapCommand, FromArgMatches as _, Parser, Subcommand};
use rust_decimal::Decimal;

use super::names::Member;

/// What `--help` says at its end.
const MORE_HELP: &str = "\
Without a command: an interactive session if standard input is a terminal; otherwise a script is read from
it, one command a line, quoted as in a shell; # begins a comment. A script ends at its first failure, with
that exit code; with --keep-going all of it is run, and the exit code is that of the first failure.

Names become ids, the same on every machine: UUIDv5 in the URL namespace of urn:cart:member:<member>,
urn:cart:product:<product> and urn:cart:vendor:<vendor>. Where a name is asked for, an id will do as well.

Every command carries a fresh idempotency key and is sent again with it when its answer is lost.

Exit codes:
  0  done
  1  refused by a rule: the item is in the cart already, is not in the cart, ...
  2  usage: no such command, option, value or member, an ambiguous name, a value that the service does not
     take; or the output could not be written
  3  the service is away or did not take the command: it was not carried out and will not be
  4  outcome unknown: the command may have been, or will be, carried out; sent again with the same
     --idempotency-key it tells what has become of it

With --json each command writes one line to standard output, the body of the service's answer:
  add, remove, adjust  {\"commandId\",\"cartId\",\"sessionId\",\"version\",\"item\":{\"productId\",\"vendorId\",
                       \"name\",\"price\",\"quantity\"}}
  checkout             {\"commandId\",\"cartId\",\"sessionId\",\"version\",\"items\":[...],\"total\",\"purchasedAt\"}
  list                 {\"cartId\",\"sessionId\",\"version\",\"items\":[...],\"total\"}
  refused              {\"type\":\"urn:cart:problem:...\",\"title\",\"status\",\"detail\",\"commandId\"?}
  exit code 3, 4       the same, type urn:cart:problem:unavailable or urn:cart:problem:outcome-unknown, or
                       {\"commandId\",\"cartId\",\"status\":\"pending\"}; 4 also has \"idempotencyKey\"
  change-member, current-member  {\"member\",\"cartId\"}
  history              [{\"command\",\"outcome\"},...]
Prices are strings, times RFC 3339 in UTC. With exit code 2 there is a line only if it was the service that
refused; all else is told on standard error.";

/// Fills a shopping cart through the cart service: by one command, a script, or in an interactive session.
#[derive(Debug, Clone, Parser)]
#[command(name = "cart", version, max_term_width = 120, after_long_help = MORE_HELP)]
pub struct Args {
    /// How the service is reached.
    #[command(flatten)]
    pub settings: Settings,
    /// The one command; none for a session or a script.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What holds for all commands.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The ingest service.
    #[arg(long, env = "CART_URL", default_value = "http://127.0.0.1:9001", global = true)]
    pub url: String,
    /// A bearer token, for an ingest that was started with `--auth jwt`.
    #[arg(long, env = "CART_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// For https: trust these certificates (PEM) instead of this machine's roots.
    #[arg(long, env = "CART_CA_CERT", value_name = "FILE", global = true)]
    pub ca_cert: Option<PathBuf>,
    /// Whose cart: a member's name, or a cart's id.
    #[arg(long, short, env = "CART_MEMBER", value_name = "NAME", global = true)]
    pub member: Option<Member>,
    /// How long a command may take, retries included; two seconds while the service is certainly away.
    #[arg(
        long, env = "CART_TIMEOUT_MS", value_name = "MS", default_value = "20000", global = true,
        value_parser = clap::value_parser!(u64).range(3..=3_600_000)
    )]
    pub timeout_ms: u64,
    /// Write JSON, one line a command, instead of tables: see the end of --help.
    #[arg(long, global = true)]
    pub json: bool,
    /// Run all of a script, whatever fails.
    #[arg(long)]
    pub keep_going: bool,
}

impl Settings {
    /// How long a command may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Goes on with another member's cart.
    ChangeMember {
        /// The member's name, or a cart's id.
        name: Member,
    },
    /// Shows whose cart it is, and the cart's id.
    CurrentMember,
    /// Puts an item into the cart.
    Add(Add),
    /// Takes an item out of the cart.
    Remove {
        /// The item's name, its product or the product's id.
        item: String,
        /// Makes it the same as an earlier one.
        #[command(flatten)]
        key: Key,
    },
    /// Shows what is in the cart.
    List {
        /// With the ids of products and vendors.
        #[arg(long)]
        ids: bool,
    },
    /// Changes the quantity of an item in the cart by a difference.
    Adjust {
        /// The item's name, its product or the product's id.
        item: String,
        /// How many more (3, +3) or fewer (-2).
        #[arg(allow_negative_numbers = true)]
        by: i64,
        /// Makes it the same as an earlier one.
        #[command(flatten)]
        key: Key,
    },
    /// Buys all that is in the cart.
    Checkout {
        /// Makes it the same as an earlier one.
        #[command(flatten)]
        key: Key,
    },
    /// Shows the commands of this session, and what became of them.
    History,
    /// Leaves the session, as Ctrl-D does.
    #[command(visible_alias = "quit")]
    Exit,
}

/// What is put into the cart.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Add {
    /// The item's name.
    pub name: String,
    /// Price of one piece, with at most four decimal places.
    #[arg(long, short, default_value = "0", allow_negative_numbers = true, value_parser = price)]
    pub price: Decimal,
    /// How many pieces.
    #[arg(long, short, default_value_t = 1, allow_negative_numbers = true)]
    pub quantity: i64,
    /// Who sells it: a vendor's name or id.
    #[arg(long, default_value = "shop")]
    pub vendor: String,
    /// The product's name (a stock code, for example) or id, if it is not the item's name.
    #[arg(long)]
    pub product: Option<String>,
    /// Makes it the same as an earlier one.
    #[command(flatten)]
    pub key: Key,
}

/// What makes a command the same as an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Key {
    /// Send this key instead of a fresh one: a command with the key of an earlier one gets the earlier one's outcome.
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    pub idempotency_key: Option<String>,
}

/// A line of a session or a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) command: Command,
    pub(crate) json: bool,
}

/// Why a line is no command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLine {
    /// Shell quoting.
    #[error("a quote is not closed, or the line ends with a backslash")]
    Quoting,
    /// Also the help that was asked for.
    #[error(transparent)]
    Words(#[from] Box<clap::Error>),
}

impl Line {
    /// The commands as a line's first words.
    pub(crate) fn clap() -> ClapCommand {
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Write JSON");
        let clap = ClapCommand::new("cart").multicall(true).subcommand_required(true);
        Command::augment_subcommands(clap).about(None).mut_subcommands(|command| command.arg(json.clone()))
    }

    /// Understands a line; none if there is nothing but a comment.
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

/// Why a text is no price.
#[derive(Debug, thiserror::Error)]
#[error("a price is a decimal number such as 3.50")]
struct NoPrice;

/// Exactly: nothing is rounded. What a price may be is for the service to say.
fn price(text: &str) -> Result<Decimal, NoPrice> {
    Decimal::from_str_exact(text).map_err(|_| NoPrice)
}

/// Why a text is no idempotency key.
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

    fn add(name: &str, price: Decimal, quantity: i64, vendor: &str) -> Command {
        let (name, vendor) = (name.to_owned(), vendor.to_owned());
        Command::Add(Add { name, price, quantity, vendor, product: None, key: Key::default() })
    }

    #[test]
    fn the_options_agree_with_each_other() {
        Args::command().debug_assert();
        Line::clap().debug_assert();
    }

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let red_mug = add("red mug", Decimal::new(350, 2), 2, "shop");
        for text in [
            r#"add "red mug" --price 3.50 --quantity 2"#,
            r"add 'red mug' -p 3.50 -q 2 # for the office",
            r"  add red\ mug --price=3.50 --quantity=2  ",
        ] {
            assert_eq!(line(text), Line { command: red_mug.clone(), json: false }, "{text}");
        }
        assert_eq!(line("add mug --vendor acme").command, add("mug", Decimal::ZERO, 1, "acme"));
        assert_eq!(line("quit").command, Command::Exit);
        for nothing in ["", "   ", "# a comment"] {
            assert_eq!(Line::parse(nothing).expect("nothing wrong"), None, "{nothing}");
        }
        assert!(refused("add \"red mug").contains("quote"));
    }

    #[test]
    fn a_difference_has_a_sign_or_none() {
        for (text, difference) in [("-2", -2), ("+3", 3), ("3", 3)] {
            let expected = Command::Adjust { item: "mug".to_owned(), by: difference, key: Key::default() };
            assert_eq!(line(&format!("adjust mug {text}")).command, expected);
        }
        assert!(refused("adjust mug -x").contains("-x"));
        assert!(refused("adjust mug 1.5").contains("1.5"));
        assert!(refused("adjust mug").contains("<BY>"));
    }

    #[test]
    fn every_line_can_ask_for_json() {
        assert_eq!(line("list --json"), Line { command: Command::List { ids: false }, json: true });
        assert!(!line("list").json);
    }

    #[test]
    fn what_is_no_command_is_told_with_what_is_near() {
        assert!(refused("lst").contains("'list'"), "{}", refused("lst"));
        assert!(refused("add mug --prize 3").contains("'--price'"), "{}", refused("add mug --prize 3"));
        // More digits than a decimal has would be rounded.
        for price in ["3,50", "1e2", "abc", "0.00000000000000000000000000001", ""] {
            assert!(refused(&format!("add mug --price '{price}'")).contains("3.50"), "{price}");
        }
        assert!(refused("checkout --idempotency-key ' '").contains("1 to 200 characters"));
    }

    #[test]
    fn help_is_there_for_all_and_for_each() {
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
