//! Hostile clients: meanwhile a well-behaved one gets every answer, about as soon as before, and the service's memory stays
//! bounded. Attacks come from addresses of their own (127.0.0.x), so that what is allowed to one address is seen too.
//!
//! * [`attacks`]: what they do over HTTP/1.
//! * [`h2`]: what they do over HTTP/2, frame by frame.

mod attacks;
mod h2;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use client::ids::{CartId, ProductId, VendorId};
use client::{CartClient, ClientSettings, CommandOptions, Item, Outcome};
use e2e::harness::{Installation, Process, Service};

/// For whatever has to come: the machine may do much else meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long the shopper shops without anybody else.
const QUIET: Duration = Duration::from_secs(2);

/// The limits, shorter than their defaults so that the test need not wait for them.
const LIMITS: [&str; 10] = [
    "--header-timeout-ms=1000",
    "--body-timeout-ms=1000",
    "--idle-timeout-ms=1500",
    "--connections-per-address-max=400",
    "--header-len-max=16384",
    "--h2-streams-max=128",
    "--h2-resets-max=20",
    "--h2-ping-interval-ms=20000",
    "--reply-timeout-ms=30000",
    "--requests-in-flight-max=1000",
];

/// What an attack may add to the service's memory: far less than what it sends, or would have us hold.
const GROWTH_MAX_KB: u64 = 128 * 1024;

/// When the shopper must be answered at the median. A service that an attack holds up takes seconds; how much later exactly
/// is printed, but not judged: the attackers run on the same cores.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// A well-behaved client.
struct Shopper {
    client: CartClient,
    cart: CartId,
    product: ProductId,
    adjusted: i64,
}

impl Shopper {
    async fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let settings = ClientSettings { answer_timeout: DEADLINE, ..ClientSettings::default() };
        let client = CartClient::new(&format!("http://{address}"), &settings)?;
        let (cart, product) = (CartId::of_member("alice"), ProductId::of_product("mug"));
        let item = Item {
            product_id: product,
            vendor_id: VendorId::of_vendor("shop"),
            name: "mug".to_owned(),
            price: 1.into(),
            quantity: 1,
        };
        match client.add(cart, &item, CommandOptions::default()).await? {
            Outcome::Accepted(_) => Ok(Self { client, cart, product, adjusted: 0 }),
            other @ (Outcome::Rejected(_) | Outcome::Pending { .. } | Outcome::Unavailable { .. }) => {
                bail!("{other:?}")
            }
        }
    }

    /// One more piece, again and again until `attack` is over, and how long it took to be answered at the median.
    async fn shop_during<T>(
        &mut self,
        attack: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Duration)> {
        let mut latencies = Vec::new();
        let mut attack = std::pin::pin!(attack);
        loop {
            let sent_at = Instant::now();
            let answer = self.client.adjust(self.cart, self.product, 1, CommandOptions::default());
            let mut answer = std::pin::pin!(answer);
            let (over, answer) = tokio::select! {
                over = &mut attack => (Some(over), answer.await),
                answer = &mut answer => (None, answer),
            };
            match answer.context("a well-behaved client gets no answer")? {
                Outcome::Accepted(_) => self.adjusted += 1,
                other @ (Outcome::Rejected(_) | Outcome::Pending { .. } | Outcome::Unavailable { .. }) => {
                    bail!("a well-behaved client was told {other:?}")
                }
            }
            latencies.push(sent_at.elapsed());
            if let Some(over) = over {
                latencies.sort();
                return Ok((over?, latencies[latencies.len() / 2]));
            }
        }
    }
}

/// Runs an attack beside the shopper, so that only the service stands between the two.
async fn spawned(attack: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> anyhow::Result<()> {
    tokio::spawn(attack).await?
}

/// A field of /proc/<pid>/status, in kB.
fn memory_kb(process: &Process, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.with_context(|| format!("/proc has no {field}"))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "with --nocapture the figures are of interest")]
async fn a_well_behaved_client_does_not_notice_hostile_ones() -> anyhow::Result<()> {
    let installation = Installation::new("hostile")?;
    installation.setup().await?;
    let services: [(Service, &str, &[&str]); 2] = [(Service::Ingest, "0", &LIMITS), (Service::CartProcessor, "0", &[])];
    let mut processes = installation.start_all(&services).await?;
    let address = processes[0].address().context("ingest has an address")?;
    let mut shopper = Shopper::new(address).await?;
    let quiet = async {
        tokio::time::sleep(QUIET).await;
        Ok(())
    };
    let ((), usual) = shopper.shop_during(quiet).await?;
    let before = memory_kb(&processes[0], "VmHWM")?;
    let mut told = vec![format!("alone: {usual:?}, {before} kB")];
    macro_rules! under {
        ($attack:expr) => {{
            let name = stringify!($attack);
            let ((), latency) =
                shopper.shop_during(spawned($attack)).await.with_context(|| format!("under {name}: {told:?}"))?;
            let peak = memory_kb(&processes[0], "VmHWM")?;
            told.push(format!("{name}: {latency:?}, {peak} kB"));
            ensure!(latency <= LATENCY_MAX, "answers come too late: {told:#?}");
            ensure!(peak < before + GROWTH_MAX_KB, "too much memory is used: {told:#?}");
        }};
    }
    under!(attacks::slowloris(address));
    under!(attacks::silence(address));
    under!(attacks::large_bodies(address));
    under!(attacks::deep_json(address));
    under!(attacks::dribbled_bodies(address));
    under!(attacks::deaf_readers(address));
    under!(attacks::large_heads(address));
    under!(h2::too_many_streams(address));
    under!(h2::rapid_reset(address));
    under!(h2::endless_head(address));
    under!(h2::header_bomb(address));
    under!(h2::nothing(address));
    println!("the shopper's latency at the median, and the service's peak memory: {told:#?}");

    // Everything that it was told is so, and the service is well.
    let cart = shopper.client.cart(shopper.cart).await?;
    ensure!(cart.items.len() == 1 && cart.items[0].quantity == 1 + shopper.adjusted, "{cart:?}, {}", shopper.adjusted);
    processes[0].ready(DEADLINE).await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}
