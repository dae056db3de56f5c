//! What all projectors have, as services and within another program.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context as _;
use cart::contract::{Contract, ReadModel, group};
use cart::{CartEvent, Generation, PurchasedItem};
use control::{ControlTopic, Follower, MemberControl};
use kafka::{Admin, Codec, GroupConsumer, Instance, KafkaArgs, MemberArgs, OffsetReset, Registry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{
    Metrics, Readiness, Shutdown, Startup, StartupArgs, probe, serve_admin, shutdown_signal, wait_for, wait_for_unless,
};
use tokio::runtime::Handle;
use trace::Tracing;

use crate::args::Args;
use crate::runner::{Projector, Runner};

/// What a projector works with, however it was started.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) kafka: KafkaArgs,
    pub(crate) member: MemberArgs,
    pub(crate) batch_len_max: u32,
    pub(crate) rows_max: u32,
    /// Most records per second; `None`: as many as it can apply.
    pub(crate) rate_max: Option<NonZeroU32>,
}

impl From<&Args> for Settings {
    fn from(args: &Args) -> Self {
        let Args { kafka, member, batch_len_max, rows_max, .. } = args.clone();
        Self { kafka, member, batch_len_max, rows_max, rate_max: None }
    }
}

/// A projector that is about to start.
pub(crate) struct Base {
    pub(crate) settings: Settings,
    /// The group of the first generation, without a prefix: names the projector.
    name: &'static str,
    /// The group of this generation, without a prefix.
    pub(crate) group: String,
    pub(crate) readiness: Readiness,
    pub(crate) startup: Startup,
    pub(crate) shutdown: Shutdown,
    registry: Registry,
    admin: Arc<Admin>,
    /// `None` within another program.
    tracing: Option<Tracing>,
}

impl Base {
    /// For the service `name` that is consumer group `group`.
    pub(crate) async fn start(args: &Args, name: &'static str, group: String) -> anyhow::Result<Self> {
        args.log.init()?;
        let readiness = Readiness::default();
        let startup = args.startup.start(&readiness);
        let shutdown = shutdown_signal()?;
        let metrics = Metrics::install(name, &[crate::METRICS, kafka::METRICS, trace::METRICS], &[kafka::collect_lag])?;
        crate::metrics::start(&group);
        serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
        let tracing = Some(args.trace.start(name)?);
        let admin = Arc::new(Admin::new(&args.kafka)?);
        probe("Kafka", &readiness, &shutdown, admin.clone(), |admin| async move { admin.check().await });
        let registry = Registry::new(&args.kafka)?;
        Ok(Self { settings: args.into(), name, group, readiness, startup, shutdown, registry, admin, tracing })
    }

    /// For a projector within another program, which has its own log and ends it.
    pub(crate) fn within(
        settings: Settings,
        startup: &StartupArgs,
        shutdown: Shutdown,
        model: ReadModel,
        generation: Generation,
    ) -> anyhow::Result<Self> {
        let readiness = Readiness::default();
        let startup = startup.start(&readiness);
        let (registry, admin) = (Registry::new(&settings.kafka)?, Arc::new(Admin::new(&settings.kafka)?));
        let group = model.group_name(generation);
        Ok(Self { settings, name: model.group, group, readiness, startup, shutdown, registry, admin, tracing: None })
    }

    pub(crate) async fn identity(&self, topic: &str) -> anyhow::Result<kafka::LogIdentity> {
        wait_for(&format!("topic {topic}"), &self.startup, async || {
            tokio::task::block_in_place(|| self.admin.identity(topic))
        })
        .await
    }

    /// Waits until `setup` has committed where `item-purchased-events` begins: before that it would be an error to join
    /// the group, and `setup` could not commit for a group that has members.
    pub(crate) async fn first_offsets(&self) -> anyhow::Result<()> {
        let kafka = &self.settings.kafka;
        let group = kafka.prefixed(group::ITEM_PURCHASED_EVENTS);
        let [events, purchases] = [CartEvent::TOPIC, PurchasedItem::TOPIC].map(|topic| kafka.prefixed(topic));
        wait_for("`projectors setup`", &self.startup, async || {
            tokio::task::block_in_place(|| {
                // If there are purchases, the group has begun. Missing offsets were lost then; the consumer reports that.
                let has_begun = self.admin.watermarks(&purchases)?.iter().any(|(_, end)| *end > 0);
                if has_begun || self.admin.committed(&group, &events)?.iter().all(Option::is_some) {
                    return Ok(());
                }
                let operation = format!("reading the committed offsets of group {group} on {events}");
                Err(kafka::Error::retry(operation, "there are none yet; `setup` commits the first ones"))
            })
        })
        .await
    }

    pub(crate) async fn codec<T: Contract + Serialize + DeserializeOwned>(&self) -> anyhow::Result<Codec<T>> {
        let is_incompatible = |error: &kafka::Error| error.recovery() == kafka::Recovery::Fatal;
        wait_for_unless("the schema registry", &self.startup, is_incompatible, async || {
            Codec::register(&self.registry, T::TOPIC, T::SCHEMA).await
        })
        .await
    }

    /// This process in its group.
    pub(crate) fn instance(&self) -> anyhow::Result<Instance> {
        let Settings { kafka, member, .. } = &self.settings;
        let instance = Instance::of(member, kafka.prefixed(&self.group))?;
        tokio::task::block_in_place(|| self.admin.report_namesakes(&instance));
        Ok(instance)
    }

    /// The control topic, read to its end: no record is applied before.
    async fn control(&self) -> anyhow::Result<Follower> {
        wait_for("the topic cart-control", &self.startup, async || {
            let topic = ControlTopic::open(&self.settings.kafka, &self.registry, self.admin.clone()).await?;
            tokio::task::block_in_place(|| Follower::start(topic, self.shutdown.clone()))
        })
        .await
    }

    /// Joins the group and works until the shutdown.
    pub(crate) async fn run<P>(
        self,
        projector: P,
        codec: Codec<P::Event>,
        instance: Instance,
        topic: &str,
        start_at: OffsetReset,
    ) -> anyhow::Result<()>
    where
        P: Projector + Send + 'static,
        P::Event: 'static,
    {
        let follower = self.control().await?;
        let Settings { kafka, batch_len_max, rate_max, .. } = self.settings;
        // A member of the group takes its leave.
        self.shutdown.started();
        // A projector has one worker.
        let consumer = GroupConsumer::join(&kafka, &instance, 0, &kafka.prefixed(topic), start_at)?;
        let by = instance.name().to_owned();
        let control = MemberControl::of_generation(follower, self.readiness.clone(), &self.group, self.name, topic, by);
        self.startup.ready();
        let runner = Runner {
            name: self.group,
            projector,
            consumer,
            topic: topic.to_owned(),
            group: instance.group().to_owned(),
            codec,
            control,
            batch_len_max: rate_max.map_or(batch_len_max, |rate| rate.get().min(batch_len_max)) as usize,
            rate_max,
            runtime: Handle::current(),
            readiness: self.readiness,
            shutdown: self.shutdown,
            stopped: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name(String::from("projector"));
        let (ended, end) = tokio::sync::oneshot::channel();
        thread.spawn(move || drop(ended.send(runner.run())))?;
        let result = end.await.context("the projector panicked")?;
        drop(self.tracing);
        Ok(result?)
    }
}
