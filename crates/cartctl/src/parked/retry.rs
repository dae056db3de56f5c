//! Another try: requests it, and waits for what becomes of it.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use cart::{CartId, ParkedCart, ParkingState};
use kafka::KafkaArgs;
use parking::{AllParked, request_retry};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::retried::{Retried, Tried, Words};
use crate::operate::Outcome;

static WORDS: Words = Words { one: "cart", why_not_tried: "is a cart-processor running?" };

/// Between two looks at what became of the requests.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

/// Let the cart-processor try parked carts again, each from its first waiting command on
///
/// A repeat requests another try once more. No command is decided twice by that.
///
/// Exit code 0: done, or with --wait-s 0 requested. 1: refused, since a cart is not parked; or a cart was tried and is still parked.
/// 2: not found out, or a cart was not tried in time.
#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    /// The carts
    #[arg(value_name = "CART", required_unless_present_any = ["all", "reason"])]
    carts: Vec<CartId>,

    /// All parked carts
    #[arg(long, conflicts_with = "carts")]
    all: bool,

    /// All carts that are parked for this reason
    #[arg(long, value_name = "CODE", conflicts_with_all = ["carts", "all"])]
    #[arg(value_parser = ["journal-unreadable", "rule-panicked", "command-too-new"])]
    reason: Option<String>,

    /// Wait at most so many seconds until each cart is live, or parked again; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait_s: u64,

    /// Print what would be tried, and request nothing
    #[arg(long)]
    dry_run: bool,

    /// Who asks, for the record
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

impl RetryArgs {
    fn is_meant(&self, cart_id: CartId, cart: &ParkedCart) -> bool {
        match &self.reason {
            Some(reason) => cart.reason_code() == reason,
            None => self.all || self.carts.contains(&cart_id),
        }
    }
}

/// A parked cart as it is shown; its fields are those of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TriedCart {
    cart_id: CartId,
    partition: i32,
    state: &'static str,
    reason: String,
}

impl TriedCart {
    fn of((partition, cart_id): (i32, CartId), cart: &ParkedCart) -> Self {
        Self { cart_id, partition, state: cart.state.name(), reason: cart.reason.clone() }
    }
}

impl fmt::Display for TriedCart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cart_id, partition, state, reason } = self;
        write!(f, "{cart_id}  partition {partition}  {state}: {reason}")
    }
}

/// Requests another try, and waits for it.
pub(super) async fn retry(args: &RetryArgs) -> anyhow::Result<Outcome<Retried<TriedCart>>> {
    let parked = AllParked::read(&args.kafka).await.context("reading the parked carts")?;
    let live = args.carts.iter().filter(|cart_id| parked.cart(**cart_id).is_none());
    let live: Vec<String> = live.map(|cart_id| format!("cart {cart_id} is not parked")).collect();
    if !live.is_empty() {
        return Ok(Outcome::Refused(live.join("; ")));
    }
    let meant = parked.carts.iter().filter(|((_, cart_id), cart)| args.is_meant(*cart_id, cart));
    let selected: Vec<TriedCart> = meant.map(|(place, cart)| TriedCart::of(*place, cart)).collect();
    let carts: Vec<(i32, CartId)> = selected.iter().map(|cart| (cart.partition, cart.cart_id)).collect();
    let retried = Retried::new(selected, &WORDS);
    if args.dry_run {
        return Ok(Outcome::Done(Retried { is_dry_run: true, ..retried }));
    }
    request_retry(&args.kafka, &carts, &args.by).await.context("requesting another try")?;
    let result = if args.wait_s == 0 { None } else { Some(wait(args, &carts).await?) };
    Ok(Retried { result, ..retried }.outcome())
}

/// Waits until each cart is live, or was tried and is parked again.
async fn wait(args: &RetryArgs, carts: &[(i32, CartId)]) -> anyhow::Result<Tried<TriedCart>> {
    let deadline = Instant::now() + Duration::from_secs(args.wait_s);
    loop {
        let parked = AllParked::read(&args.kafka).await.context("reading the parked carts")?;
        let is_open = |(_, cart_id): &&(i32, CartId)| {
            let waits = |cart: &ParkedCart| cart.state != ParkingState::Parked || parked.requested.contains(cart_id);
            parked.cart(*cart_id).is_some_and(|(_, cart)| waits(cart))
        };
        let not_tried = carts.iter().filter(is_open).count();
        if not_tried > 0 && Instant::now() < deadline {
            sleep(INTERVAL).await;
            continue;
        }
        let still = carts.iter().filter_map(|(_, cart_id)| {
            parked.cart(*cart_id).map(|(partition, cart)| TriedCart::of((partition, *cart_id), cart))
        });
        let still_parked: Vec<TriedCart> = still.collect();
        let live = carts.len() - still_parked.len();
        return Ok(Tried { live, still_parked, not_tried, wait_s: args.wait_s });
    }
}
