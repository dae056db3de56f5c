//! `cartctl parked`: the carts whose commands wait because they cannot be read or decided, and another try.

mod list;
mod retry;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{CartCommand, CartId, ParkedCart};
use kafka::{Admin, KafkaArgs, Registry};
use parking::{ParkedCarts, ParkedPartition};
use tokio::runtime::Handle;

/// List the parked carts, show one, or let them be tried again
///
/// A cart is parked when its journal cannot be read or decoded, or the rules panic for it, while other carts succeed. Its commands
/// wait in cart-commands in their order; the others of its partition go on.
///
/// Exit code 0: done. 1: refused, or a cart is still parked. 2: it could not be found out.
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
    /// Let the cart-processor try parked carts again, each from its first waiting command on
    Retry(retry::RetryArgs),
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

/// Runs the verb. Returns the exit code.
///
/// # Errors
/// Kafka or the registry is unavailable, or writing fails.
pub async fn parked(args: &Args, out: &mut impl Write) -> anyhow::Result<u8> {
    match &args.verb {
        None => list::list(&args.list.kafka, args.list.json, out).await,
        Some(Verb::Show(ShowArgs { cart, json, kafka })) => list::show(kafka, *cart, *json, out).await,
        Some(Verb::Retry(args)) => retry::retry(args, out).await,
    }
}

/// All parked carts, by partition and cart.
#[derive(Debug, Default, Clone)]
pub(crate) struct AllParked {
    pub(crate) carts: BTreeMap<(i32, CartId), ParkedCart>,
    /// Those that an operator wants to be tried.
    pub(crate) requested: Vec<CartId>,
}

impl AllParked {
    /// As they stand now. If committed offsets of `cart-commands` were read before, a command before them is decided or held.
    pub(crate) async fn read(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let codec = parking::codec(&Registry::new(kafka)?).await?;
        let (kafka, runtime) = (kafka.clone(), Handle::current());
        let read = tokio::task::spawn_blocking(move || {
            let topic = kafka.prefixed(cart::CartParked::TOPIC);
            let partitions = Admin::new(&kafka)?.partitions(&topic)?;
            let mut carts = ParkedCarts::new(&kafka, codec, runtime)?;
            let mut all = Self::default();
            for partition in 0..partitions {
                let ParkedPartition { carts, requested, .. } = &*carts.read(partition)?;
                all.carts.extend(carts.iter().map(|(id, cart)| ((partition, *id), cart.clone())));
                all.requested.extend(requested);
            }
            Ok::<_, kafka::Error>(all)
        });
        read.await?.context("reading the parked carts")
    }

    pub(crate) fn cart(&self, cart_id: CartId) -> Option<(i32, &ParkedCart)> {
        self.carts.iter().find(|((_, id), _)| *id == cart_id).map(|((partition, _), cart)| (*partition, cart))
    }
}

/// The log of commands, its full name.
fn commands(kafka: &KafkaArgs) -> String {
    kafka.prefixed(CartCommand::TOPIC)
}
