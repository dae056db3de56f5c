//! Another try: requests it, and waits for what becomes of it.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use cart::{CartId, ParkedCart, ParkingState};
use kafka::KafkaArgs;
use parking::{AllParked, request_retry};
use tokio::time::{Instant, sleep};

/// Between two looks at what became of the requests.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

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

pub(super) async fn retry(args: &RetryArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let parked = AllParked::read(&args.kafka).await.context("reading the parked carts")?;
    let mut is_refused = false;
    for cart_id in args.carts.iter().filter(|cart_id| parked.cart(**cart_id).is_none()) {
        writeln!(out, "{cart_id}  not parked")?;
        is_refused = true;
    }
    if is_refused {
        return Ok(1);
    }
    let meant = parked.carts.iter().filter(|((_, cart_id), cart)| args.is_meant(*cart_id, cart));
    let meant: Vec<(i32, CartId)> = meant.map(|(place, _)| *place).collect();
    if args.dry_run {
        for (partition, cart_id) in &meant {
            writeln!(out, "{cart_id}  partition {partition}  would be tried")?;
        }
        return Ok(0);
    }
    request_retry(&args.kafka, &meant, &args.by).await.context("requesting another try")?;
    writeln!(out, "requested another try of {} {}", meant.len(), if meant.len() == 1 { "cart" } else { "carts" })?;
    if args.wait_s == 0 {
        return Ok(0);
    }
    wait(args, &meant, out).await
}

/// Waits until each cart is live, or was tried and is parked again.
async fn wait(args: &RetryArgs, carts: &[(i32, CartId)], out: &mut impl Write) -> anyhow::Result<u8> {
    let deadline = Instant::now() + Duration::from_secs(args.wait_s);
    loop {
        let parked = AllParked::read(&args.kafka).await.context("reading the parked carts")?;
        let is_open = |(_, cart_id): &&(i32, CartId)| {
            let waits = |cart: &ParkedCart| cart.state != ParkingState::Parked || parked.requested.contains(cart_id);
            parked.cart(*cart_id).is_some_and(|(_, cart)| waits(cart))
        };
        let open = carts.iter().filter(is_open).count();
        if open > 0 && Instant::now() < deadline {
            sleep(INTERVAL).await;
            continue;
        }
        let mut live = 0;
        for (_, cart_id) in carts {
            match parked.cart(*cart_id) {
                None => live += 1,
                Some((_, cart)) => writeln!(out, "{cart_id}  {}: {}", cart.state.name(), cart.reason)?,
            }
        }
        writeln!(out, "{live} live, {} still parked", carts.len() - live)?;
        if open > 0 {
            writeln!(out, "{open} were not tried in {} s: is a cart-processor running?", args.wait_s)?;
        }
        return Ok(u8::from(live < carts.len()));
    }
}
