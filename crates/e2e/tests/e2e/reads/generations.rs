//! Readers follow the generation that is active: ingest, `cartctl status` and `cartctl audit`. The test makes the second generation's
//! table itself, so that a row says which one was read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cart::contract::{READ_MODELS, group};
use cartctl::audit::{Kind, Report, Target, audit};
use cassandra::read_models::READERS_FOLLOW;
use e2e::harness::{Installation, Service, wait_until};
use kafka::Admin;
use scylla::client::session::Session;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Api, DEADLINE, item};

const VENDOR: u128 = 7;

/// Fewer reads may all have been before or after the table was dropped.
const READS_MIN: usize = 20;

/// Two tables with different rows, of which a reader shows one.
struct Generations {
    installation: Installation,
    session: Session,
}

impl Generations {
    async fn make(installation: Installation) -> anyhow::Result<Self> {
        let session = cassandra::connect(&installation.cassandra().patient()).await?;
        let create = "CREATE TABLE balance_by_vendor_g2 (vendorid uuid, year int, month int, balance decimal, position bigint, \
            PRIMARY KEY ((vendorid, year), month)) WITH CLUSTERING ORDER BY (month DESC)";
        session.query_unpaged(create, ()).await?;
        for (table, balance) in [("balance_by_vendor", 1), ("balance_by_vendor_g2", 2)] {
            let insert = format!(
                "INSERT INTO {table} (vendorid, year, month, balance, position) VALUES (?, 1999, 1, {balance}, 281474976710656)"
            );
            session.query_unpaged(insert, (Uuid::from_u128(VENDOR),)).await?;
        }
        Ok(Self { installation, session })
    }

    async fn point_to(&self, generation: i32) -> anyhow::Result<()> {
        let insert = format!("INSERT INTO read_model (name, active, newest) VALUES (?, {generation}, 3)");
        self.session.query_unpaged(insert, (group::VENDOR_BILLING,)).await?;
        Ok(())
    }

    async fn audit(&self) -> anyhow::Result<Report> {
        let (kafka, cassandra) = (self.installation.kafka().clone(), self.installation.cassandra().clone());
        audit(&Target::new(kafka, cassandra, self.installation.database()), &[], DEADLINE).await
    }

    async fn status(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let name = format!("status-{name}");
        let text = self.installation.run(&name, "cartctl", ["status", "--json"], DEADLINE).await?;
        let json = text.find('{').map(|start| &text[start..]).with_context(|| text.clone())?;
        let status: Value = serde_json::from_str(json).with_context(|| text.clone())?;
        let of_billing =
            |partition: &&Value| partition["model"] == group::VENDOR_BILLING && partition["partition"] == 0;
        let partitions = status["partitions"].as_array().context("the partitions")?;
        let shown = |partition: &Value| json!([partition["group"], partition["generation"], partition["isActive"]]);
        Ok(partitions.iter().filter(of_billing).map(shown).collect())
    }
}

fn balances() -> String {
    format!("/vendors/{}/billing?year=1999", Uuid::from_u128(VENDOR))
}

async fn shows(api: &Api, balance: &str) -> anyhow::Result<()> {
    let body = api.get(&balances(), &[]).await?.done();
    ensure!(body["balances"] == json!([{ "month": 1, "balance": balance }]), "{body}");
    Ok(())
}

pub(crate) async fn readers_follow_the_active_generation() -> anyhow::Result<()> {
    let installation = Installation::new("generations")?;
    installation.setup().await?;
    let services: [(Service, &str, &[&str]); 6] = [
        (Service::Ingest, "a", &["--read-after-timeout-ms", "400"]),
        (Service::CartProcessor, "a", &[]),
        (Service::Projector(group::ITEM_PURCHASED_EVENTS), "a", &[]),
        (Service::Projector(group::POPULAR_ITEMS), "a", &[]),
        (Service::Projector(group::VENDOR_BILLING), "a", &[]),
        (Service::Projector(group::VENDOR_BILLING_JDBC), "a", &[]),
    ];
    let processes = installation.start_all(&services).await?;
    let api = Api::new(&processes[0]);
    let cart = format!("/cart/{}", Uuid::new_v4());
    api.post(&cart, Some(item(1, VENDOR, "5", 1))).await?.done();
    let bought = api.post(&format!("{cart}/checkout"), None).await?;
    let token = bought.token().context("a token")?.to_owned();
    bought.done();
    let after = [("read-after", token.as_str())];
    let is_included = async || {
        let answer = api.get(&balances(), &after).await?;
        if answer.status == 200 { Ok(()) } else { Err(anyhow::anyhow!("{answer:?}")) }
    };
    wait_until("the purchase to be in the table", DEADLINE, is_included).await?;

    let generations = Generations::make(installation).await?;
    shows(&api, "1").await?;
    ensure!(generations.status("first").await? == [json!(["vendor-billing", 1, true])], "one generation");

    generations.point_to(2).await?;
    let switched_at = Instant::now();
    wait_until("ingest to follow", DEADLINE, async || shows(&api, "2").await).await?;
    // `cartctl switch` keeps both generations at one cut for so long.
    ensure!(switched_at.elapsed() < READERS_FOLLOW, "ingest has followed after {:?}", switched_at.elapsed());
    // Its first question about the group may take longer than such a read waits, and gets 503.
    let is_known = async || {
        let answer = api.get(&balances(), &after).await?;
        if answer.status == 504 { Ok(()) } else { Err(anyhow::anyhow!("{answer:?}")) }
    };
    wait_until("ingest to know how far the second generation is", DEADLINE, is_known).await?;
    // No projector keeps the second generation: the memory of what the first one includes does not count for it.
    api.get(&balances(), &after).await?.problem(504, "read-table-behind", "vendor-billing-g2 is at most ");

    follows_while_a_generation_is_dropped(&generations, &api).await?;
    status_shows_all_generations(&generations).await?;
    the_audit_reports_a_generation_without_a_table(&generations).await?;
    drop(processes);
    generations.installation.remove().await
}

/// A read that meets a table that was dropped asks which one is active, and reads that.
async fn follows_while_a_generation_is_dropped(generations: &Generations, api: &Api) -> anyhow::Result<()> {
    let (is_over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = async {
        while !is_over.load(Ordering::Relaxed) {
            api.get(&balances(), &[]).await?.done();
            reads.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(())
    };
    let drop_it = async {
        generations.point_to(1).await?;
        // At once: ingest still reads the second one.
        generations.session.query_unpaged("DROP TABLE balance_by_vendor_g2", ()).await?;
        wait_until("ingest to follow back", DEADLINE, async || shows(api, "1").await).await?;
        wait_until("reads beside it", DEADLINE, async || {
            if reads.load(Ordering::Relaxed) > READS_MIN { Ok(()) } else { Err("too few") }
        })
        .await?;
        is_over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (read, dropped) = tokio::join!(read, drop_it);
    read.and(dropped)
}

async fn status_shows_all_generations(generations: &Generations) -> anyhow::Result<()> {
    let kafka = generations.installation.kafka().clone();
    let made = tokio::task::spawn_blocking(move || {
        let topic = kafka.prefixed("item-purchased");
        let admin = Admin::new(&kafka)?;
        let starts = admin.watermarks(&topic)?.into_iter().map(|(start, _)| start);
        admin.set_offsets(&kafka.prefixed("vendor-billing-g2"), &topic, starts)
    });
    made.await??;
    let shown = generations.status("both").await?;
    let expected = [json!(["vendor-billing", 1, true]), json!(["vendor-billing-g2", 2, false])];
    ensure!(shown == expected, "{shown:?}");
    Ok(())
}

async fn the_audit_reports_a_generation_without_a_table(generations: &Generations) -> anyhow::Result<()> {
    let model = READ_MODELS.into_iter().find(|model| model.group == group::VENDOR_BILLING).context("the model")?;
    // The row that the test has made is the only one too many.
    let clean = generations.audit().await?;
    ensure!(clean.findings_count() == 1 && clean.has(Kind::RowTooMany), "{clean}");
    generations.point_to(2).await?;
    let report = generations.audit().await?;
    ensure!(report.findings_count() == 1 && report.has(Kind::GenerationWrong), "{report}");
    let place = &report.findings[0].place;
    ensure!(place.starts_with(&model.to_string()), "{place}");
    generations.point_to(1).await
}
