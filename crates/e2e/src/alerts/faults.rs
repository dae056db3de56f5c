//! What goes wrong, and the alerts that are for it.

use std::pin::Pin;
use std::time::Duration;

use anyhow::ensure;
use cart::contract::{Contract as _, group};
use cart::{CartCommand, PurchasedItem};
use futures::future::join_all;
use kafka::{Producer, Record, TransactionalProducer};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::system::System;
use crate::harness::UNKNOWN_SCHEMA;

/// The longest time until a damaged cart is parked: three tries in ten seconds.
const PARKED_WITHIN: Duration = Duration::from_secs(60);

/// The group that is paused: meanwhile the audit alone waits for it.
const PAUSED: &str = group::VENDOR_BILLING;

/// How long a pause or its end may take: members follow within seconds, and `--wait` ends after 60.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(90);

/// What a fault keeps up until its alert fires; ended when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Harm {
    tasks: Vec<JoinHandle<()>>,
    /// What stays harmed.
    damaged: Option<Damage>,
}

/// What has to be repaired before an alert ends.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// A cart with a damaged journal.
    Cart(Uuid),
    /// A constraint that a row of vendor_billing violates.
    Constraint,
    /// A group that an operator has paused.
    Pause,
}

impl Harm {
    /// Ends it, and repairs what stays harmed. Returns whether there was anything to repair: then its alert ends.
    pub(super) async fn end(self, system: &System) -> anyhow::Result<bool> {
        match self.damaged {
            None => return Ok(false),
            Some(Damage::Cart(cart)) => repair_cart(system, cart).await?,
            Some(Damage::Constraint) => drop_constraint(system).await?,
            Some(Damage::Pause) => resume_group(system).await?,
        }
        Ok(true)
    }
}

impl Drop for Harm {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

type Injected<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Harm>> + 'a>>;

/// A fault.
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// In the order in which they fire.
    pub(super) alerts: &'static [&'static str],
    pub(super) inject: for<'a> fn(&'a mut System) -> Injected<'a>,
}

/// Those that cannot be healed come last.
pub(super) const FAULTS: [Fault; 13] = [
    Fault {
        name: "a record that is no command, on cart-commands",
        alerts: &["DeadLetters"],
        inject: |system| Box::pin(async { garbage(system, CartCommand::TOPIC) }),
    },
    Fault {
        name: "30 clients of an ingest that takes one command at a time",
        alerts: &["RequestsFailing"],
        inject: |system| Box::pin(async { Ok(crowd(system)) }),
    },
    Fault {
        name: "a request for whose cart the handler panics",
        alerts: &["HandlerPanics"],
        inject: |system| Box::pin(panic_in_handler(system)),
    },
    Fault {
        name: "a journal row whose schema the registry does not have",
        alerts: &["CartsParked"],
        inject: |system| Box::pin(damage_cart(system)),
    },
    Fault {
        name: "a constraint in PostgreSQL that a vendor's balance violates",
        alerts: &["RowsParked"],
        inject: |system| Box::pin(add_constraint(system)),
    },
    Fault {
        name: "an operator who pauses a group and forgets it",
        alerts: &["PausedLong"],
        inject: |system| Box::pin(pause_group(system)),
    },
    Fault {
        name: "a certificate of five days",
        alerts: &["CertificateExpires"],
        inject: |system| Box::pin(async { system.certificate.replace(5).map(|()| Harm::default()) }),
    },
    Fault {
        name: "a certificate that is none",
        alerts: &["ReloadFailing"],
        inject: |system| Box::pin(async { system.certificate.spoil().map(|()| Harm::default()) }),
    },
    Fault {
        name: "another process under the processor's name",
        alerts: &["TransactionsFailing"],
        inject: |system| Box::pin(async { Ok(fence(system)) }),
    },
    Fault {
        name: "a row too many in vendor_billing",
        alerts: &["AuditFindings"],
        inject: |system| Box::pin(spoil_table(system)),
    },
    Fault {
        name: "a lock on the offsets in PostgreSQL",
        alerts: &["LagGrowing"],
        inject: |system| Box::pin(lock_offsets(system)),
    },
    Fault {
        name: "a record that is no purchase, on item-purchased",
        alerts: &["PartitionStopped", "NotReady", "AuditStale"],
        inject: |system| Box::pin(async { garbage(system, PurchasedItem::TOPIC) }),
    },
    Fault {
        name: "kill -9 of the only popular-items",
        alerts: &["ServiceDown", "PartitionWithoutOwner"],
        inject: |system| Box::pin(async { Ok(system.popular_items.kill9().map(|()| Harm::default())?) }),
    },
];

fn garbage(system: &System, topic: &str) -> anyhow::Result<Harm> {
    let kafka = system.installation.kafka();
    let producer = Producer::transient(kafka, &kafka.prefixed(topic))?;
    drop(producer.send(&Record { partition: Some(0), key: None, value: Some(b"garbage".to_vec()), headers: None })?);
    producer.flush(Duration::from_secs(30))?;
    Ok(Harm::default())
}

fn crowd(system: &System) -> Harm {
    let limited = system.limited;
    let client = |_| {
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            loop {
                let url = format!("http://{limited}/cart/{}/checkout", Uuid::new_v4());
                // Most are refused, which is the point.
                drop(client.post(url).send().await);
            }
        })
    };
    Harm { tasks: (0..30).map(client).collect(), damaged: None }
}

async fn panic_in_handler(system: &System) -> anyhow::Result<Harm> {
    let response = reqwest::get(format!("http://{}/cart/{}", system.limited, system.panicking)).await?;
    ensure!(response.status() == 500, "a panic was answered with {}", response.status());
    Ok(Harm::default())
}

/// The statements that damage and repair a new cart's journal have timestamps far below those of any position, so that what the
/// cart-processor writes in the end is newer.
async fn damage_cart(system: &System) -> anyhow::Result<Harm> {
    let cart = Uuid::new_v4();
    let session = cassandra::connect(system.installation.cassandra()).await?;
    let row = "INSERT INTO cart_journal (cart_id, sequence_number, position, command_id, events, keyed) \
               VALUES (?, 1, 1, ?, ?, true) USING TIMESTAMP 1";
    session.query_unpaged(row, (cart, Uuid::new_v4(), vec![UNKNOWN_SCHEMA.to_vec()])).await?;
    let (product, vendor) = (Uuid::new_v4(), Uuid::new_v4());
    let item = json!({"productId": product, "vendorId": vendor, "name": "mug", "price": "2", "quantity": 1});
    let url = format!("http://{}/cart/{cart}", system.ingest);
    let answer: Value = reqwest::Client::new().post(url).json(&item).send().await?.json().await?;
    ensure!(answer["parked"] == true, "the command of a damaged cart was answered with {answer}");
    Ok(Harm { tasks: Vec::new(), damaged: Some(Damage::Cart(cart)) })
}

async fn repair_cart(system: &System, cart: Uuid) -> anyhow::Result<()> {
    system.installation.becomes_parked(cart, PARKED_WITHIN).await?;
    let session = cassandra::connect(system.installation.cassandra()).await?;
    let delete = "DELETE FROM cart_journal USING TIMESTAMP 2 WHERE cart_id = ? AND sequence_number = 1";
    session.query_unpaged(delete, (cart,)).await?;
    system.installation.retry_parked(cart).await
}

/// Buys something of a vendor whose balance PostgreSQL rejects.
async fn add_constraint(system: &System) -> anyhow::Result<Harm> {
    let [vendor, other] = [(); 2].map(|()| Uuid::new_v4());
    let database = PgPool::connect(system.installation.database_url()).await?;
    let constraint = format!("ALTER TABLE vendor_billing_g1 ADD CONSTRAINT no_vendor CHECK (vendor_id <> '{vendor}')");
    sqlx::query(AssertSqlSafe(constraint)).execute(&database).await?;
    database.close().await;
    // A row is parked only if another one can be kept.
    for vendor in [other, vendor] {
        buy(system, vendor).await?;
    }
    Ok(Harm { tasks: Vec::new(), damaged: Some(Damage::Constraint) })
}

async fn buy(system: &System, vendor: Uuid) -> anyhow::Result<()> {
    let [product, cart] = [(); 2].map(|()| Uuid::new_v4());
    let item = json!({"productId": product, "vendorId": vendor, "name": "mug", "price": "2", "quantity": 1});
    let url = format!("http://{}/cart/{cart}", system.ingest);
    let client = reqwest::Client::new();
    for (url, body) in [(url.clone(), item), (format!("{url}/checkout"), json!({}))] {
        client.post(url).json(&body).send().await?.error_for_status()?;
    }
    Ok(())
}

async fn drop_constraint(system: &System) -> anyhow::Result<()> {
    let database = PgPool::connect(system.installation.database_url()).await?;
    sqlx::query("ALTER TABLE vendor_billing_g1 DROP CONSTRAINT no_vendor").execute(&database).await?;
    database.close().await;
    system.installation.retry_parked_rows(1).await
}

async fn pause_group(system: &System) -> anyhow::Result<Harm> {
    let pause = ["pause", PAUSED, "--reason", "a fault", "--by", "alerts", "--wait", "60s"];
    system.installation.cartctl(&pause, &[], FOLLOWED_WITHIN).await?.with(0, "is paused")?;
    Ok(Harm { tasks: Vec::new(), damaged: Some(Damage::Pause) })
}

async fn resume_group(system: &System) -> anyhow::Result<()> {
    let resume = ["resume", PAUSED, "--by", "alerts", "--wait", "60s"];
    system.installation.cartctl(&resume, &[], FOLLOWED_WITHIN).await?.with(0, "goes on").map(drop)
}

/// Takes the transactional ids of the processor's workers over and over, with time for a commit between.
fn fence(system: &System) -> Harm {
    let kafka = system.installation.kafka().clone();
    let group = kafka.prefixed(group::CART_PROCESSOR);
    let fences = tokio::spawn(async move {
        loop {
            let taken = (0..2).map(|worker| {
                let (kafka, id) = (kafka.clone(), format!("{group}-a-{worker}"));
                tokio::task::spawn_blocking(move || drop(TransactionalProducer::connect(&kafka, &id)))
            });
            join_all(taken).await;
            tokio::time::sleep(Duration::from_millis(1_000)).await;
        }
    });
    Harm { tasks: vec![fences], damaged: None }
}

async fn spoil_table(system: &System) -> anyhow::Result<Harm> {
    let database = PgPool::connect(system.installation.database_url()).await?;
    let more = "INSERT INTO vendor_billing VALUES (gen_random_uuid(), 2026, 1, 0)";
    sqlx::query(more).execute(&database).await?;
    database.close().await;
    Ok(Harm::default())
}

async fn lock_offsets(system: &System) -> anyhow::Result<Harm> {
    let database = PgPool::connect(system.installation.database_url()).await?;
    let mut transaction = database.begin().await?;
    let lock = "SELECT next_offset FROM projection_offset FOR UPDATE";
    let rows = sqlx::query(lock).fetch_all(&mut *transaction).await?;
    ensure!(!rows.is_empty(), "there are no offsets");
    let keep = async move {
        std::future::pending::<()>().await;
        drop(transaction);
    };
    Ok(Harm { tasks: vec![tokio::spawn(keep)], damaged: None })
}
