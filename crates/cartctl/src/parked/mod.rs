//! `cartctl parked`: the carts whose commands wait because they cannot be read or decided, another try, and the end of a command; with
//! `rows` the list and another try of rows of the read tables.

mod discard;
mod discarded;
mod letter;
mod list;
mod retried;
mod retry;
mod rows;
mod waiting;

use std::io::Write;

use cart::CartId;
use kafka::KafkaArgs;

/// List the parked carts, show one, let them be tried again, or discard a command; `rows` lists parked rows of the read tables, or lets
/// them be tried again
///
/// A cart is parked when its journal cannot be read or decoded, or the rules panic for it, while other carts succeed; with
/// `cart-processor --too-new park` also when a command is newer than that program. Its commands wait in cart-commands in their order;
/// the others of its partition go on.
///
/// Exit code 0: done. 1: refused, or a cart is still parked. 2: it could not be found out, or not in time.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl parked")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the waiting commands of a cart, in their order
    Show(ShowArgs),
    Retry(retry::RetryArgs),
    Discard(Box<discard::DiscardArgs>),
    Rows(Box<rows::RowsArgs>),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The cart
    #[arg(value_name = "CART")]
    cart: CartId,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Runs the verb. Writes to `out`, and to `errors` why it was refused. Returns the exit code.
///
/// # Errors
/// A server is unavailable, or writing fails.
pub async fn parked(args: &Args, out: &mut impl Write, errors: &mut impl Write) -> anyhow::Result<u8> {
    match &args.verb {
        None => list::list(&args.list.kafka, args.list.json, out).await,
        Some(Verb::Show(ShowArgs { cart, json, kafka })) => list::show(kafka, *cart, *json, out).await,
        Some(Verb::Retry(args)) => retry::retry(args).await?.write(args.json, out, errors),
        Some(Verb::Discard(args)) => discard::discard(args).await?.write(args.json, out, errors),
        Some(Verb::Rows(args)) => rows::rows(args, out, errors).await,
    }
}
