//! During attacks of hostile clients a well-behaved client gets every answer, and the service's memory stays bounded. The
//! latency is measured by `scripts/bench --only hostile`, not here, since the attackers use the same cores.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use client::ids::{CartId, ProductId, VendorId};
use client::{CartClient, ClientSettings, CommandOptions, Item, Outcome};
use e2e::harness::{Installation, Process, Service};
use e2e::hostile::{h2, http1};

/// The timeout of every wait, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// An attack goes on until the shopper got this many answers.
const ANSWERS_MIN: usize = 20;

/// The maximum number of connections per address.
const PER_ADDRESS: usize = 400;

/// The timeout of an idle connection.
const IDLE: Duration = Duration::from_secs(4);

/// The limits of both services.
const LIMITS: [&str; 3] =
    ["--connections-per-address-max=400", "--reply-timeout-ms=60000", "--requests-in-flight-max=1000"];

/// The timeouts for attacks that a timeout ends: shorter than the defaults, for a short test.
const HASTY: [&str; 3] = ["--header-timeout-ms=3000", "--body-timeout-ms=3000", "--idle-timeout-ms=4000"];

/// The timeouts for attacks that must end otherwise: longer than any wait of this test.
const PATIENT: [&str; 3] = ["--header-timeout-ms=300000", "--body-timeout-ms=300000", "--idle-timeout-ms=3600000"];

/// The maximum growth of the service's memory in an attack: far less than the attack sends or tries to make it hold.
const GROWTH_MAX_KB: u64 = 128 * 1024;

/// A well-behaved client.
struct Shopper {
    client: CartClient,
    cart: CartId,
    product: ProductId,
    adjusted: i64,
}

impl Shopper {
    async fn new(address: SocketAddr, member: &str) -> anyhow::Result<Self> {
        let settings = ClientSettings { answer_timeout: DEADLINE, ..ClientSettings::default() };
        let client = CartClient::new(&format!("http://{address}"), &settings)?;
        let (cart, product) = (CartId::of_member(member), ProductId::of_product("mug"));
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

    /// Repeatedly adds a piece while `attack` is repeated. Returns the median latency.
    async fn shop_during<A>(&mut self, attack: impl Fn() -> A + Send + 'static) -> anyhow::Result<Duration>
    where
        A: Future<Output = anyhow::Result<()>> + Send,
    {
        let enough = Arc::new(AtomicBool::new(false));
        // A separate task, so that the two share only the service.
        let attackers = tokio::spawn({
            let enough = enough.clone();
            async move {
                loop {
                    attack().await?;
                    if enough.load(Ordering::Relaxed) {
                        return anyhow::Ok(());
                    }
                }
            }
        });
        let mut latencies = Vec::new();
        while !attackers.is_finished() {
            let sent_at = Instant::now();
            let answer = self.client.adjust(self.cart, self.product, 1, CommandOptions::default());
            match answer.await.context("a well-behaved client gets no answer")? {
                Outcome::Accepted(_) => self.adjusted += 1,
                other @ (Outcome::Rejected(_) | Outcome::Pending { .. } | Outcome::Unavailable { .. }) => {
                    bail!("a well-behaved client got {other:?}")
                }
            }
            latencies.push(sent_at.elapsed());
            enough.store(latencies.len() >= ANSWERS_MIN, Ordering::Relaxed);
        }
        attackers.await??;
        latencies.sort();
        latencies.get(latencies.len() / 2).copied().context("the attack was over before anybody shopped")
    }
}

/// A field of /proc/<pid>/status, in kB.
fn memory_kb(process: &Process, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.with_context(|| format!("/proc has no {field}"))
}

/// An ingest with its shopper.
struct Shop {
    process: Process,
    address: SocketAddr,
    shopper: Shopper,
    /// Its peak memory before the attacks.
    before_kb: u64,
}

impl Shop {
    async fn open(process: Process, member: &str) -> anyhow::Result<Self> {
        let address = process.address().context("ingest has an address")?;
        let shopper = Shopper::new(address, member).await?;
        let before_kb = memory_kb(&process, "VmHWM")?;
        Ok(Self { process, address, shopper, before_kb })
    }

    /// Runs an attack. Returns the shopper's latency and the service's memory as text.
    async fn under<A>(&mut self, name: &str, attack: impl Fn() -> A + Send + 'static) -> anyhow::Result<String>
    where
        A: Future<Output = anyhow::Result<()>> + Send,
    {
        let latency = self.shopper.shop_during(attack).await.with_context(|| format!("under {name}"))?;
        let peak = memory_kb(&self.process, "VmHWM")?;
        let result = format!("{name}: {latency:?}, {} kB, then {peak} kB", self.before_kb);
        ensure!(peak < self.before_kb + GROWTH_MAX_KB, "too much memory is used: {result}");
        Ok(result)
    }

    /// Checks that the cart agrees with the shopper's answers, and that the service is ready.
    async fn close(mut self) -> anyhow::Result<()> {
        let (cart, adjusted) = (self.shopper.client.cart(self.shopper.cart).await?, self.shopper.adjusted);
        ensure!(cart.items.len() == 1 && cart.items[0].quantity == 1 + adjusted, "{cart:?}, {adjusted}");
        self.process.ready(DEADLINE).await?;
        self.process.terminate(DEADLINE).await
    }
}

#[expect(clippy::print_stdout, reason = "with --nocapture the figures are of interest")]
pub(crate) async fn hostile_clients_block_no_other_client() -> anyhow::Result<()> {
    let installation = Installation::new("hostile")?;
    installation.setup().await?;
    let (hasty, patient) = ([LIMITS.as_slice(), &HASTY].concat(), [LIMITS.as_slice(), &PATIENT].concat());
    let services: [(Service, &str, &[&str]); 3] = [
        (Service::CartProcessor, "0", &[]),
        (Service::LimitedIngest, "0", &hasty),
        (Service::LimitedIngest, "1", &patient),
    ];
    let mut processes = installation.start_all(&services).await?;
    let mut patient = Shop::open(processes.pop().context("it was started")?, "alice").await?;
    let mut hasty = Shop::open(processes.pop().context("it was started")?, "bob").await?;
    macro_rules! under {
        ($shop:ident, $attack:path $(, $more:expr)?) => {{
            let address = $shop.address;
            let result = $shop.under(stringify!($attack), move || $attack(address $(, $more)?)).await?;
            println!("{result}");
        }};
    }
    println!("the shopper's latency at the median, and the service's peak memory");
    under!(hasty, http1::slowloris);
    under!(hasty, http1::silence);
    under!(hasty, http1::large_bodies);
    under!(hasty, http1::dribbled_bodies);
    under!(hasty, http1::deaf_readers);
    under!(hasty, h2::too_many_streams);
    under!(hasty, h2::header_bomb);
    under!(hasty, h2::nothing, IDLE);
    under!(patient, http1::full_address, PER_ADDRESS);
    under!(patient, http1::deep_json);
    under!(patient, http1::large_heads);
    under!(patient, h2::rapid_reset);
    under!(patient, h2::endless_head);
    hasty.close().await?;
    patient.close().await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}
