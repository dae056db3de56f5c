//! The frame: what all viewers get once a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cart::Generation;
use cart::contract::{STAGES, Stage};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::audience::Audience;
use crate::backlog::Lag;
use crate::board::{BalanceLine, Board, CatchingUp, LastAudit};
use crate::clock::now_ms;
use crate::health::Known;
use crate::journeys::Summary;
use crate::ledger::Totals;
use crate::metrics::VIEWERS;
use crate::operations::Operations;
use crate::parked_rows::ParkedRows;
use crate::read_models::ShownModel;
use crate::sales::Top;
use crate::times::Percentiles;
use crate::traffic::{Counts, RATE_SECONDS};

const INTERVAL: Duration = Duration::from_secs(1);

/// A consumer group and the topic that it reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StageLag {
    group: &'static str,
    topic: &'static str,
    /// The generation of the read table that it keeps, and that readers see.
    generation: Option<i32>,
    /// Unknown while the topic is still being read, or when the group's offsets could not be read.
    lag: Option<Lag>,
    /// The records that it has processed since this process began, as far as this process has read them.
    processed: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepTimes {
    outcome: Option<Percentiles>,
    event: Option<Percentiles>,
    purchase: Option<Percentiles>,
}

/// A frame.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    at_ms: i64,
    viewers: usize,
    servers: Vec<Known>,
    /// The commands in the log since its beginning.
    log_len: Option<i64>,
    /// The counts of the last whole seconds, for rates.
    recent: Counts,
    recent_seconds: i64,
    /// The counts of the last 15 minutes.
    window: Counts,
    /// Accepted and refused commands by second, oldest first.
    curve: Vec<(u64, u64)>,
    steps: StepTimes,
    stages: Vec<StageLag>,
    /// The topics whose past is still being read.
    reading: Vec<(&'static str, CatchingUp)>,
    totals: Totals,
    top: [Top; 3],
    balances: Vec<BalanceLine>,
    audit: Option<LastAudit>,
    operations: Option<Operations>,
    parked_rows: Option<ParkedRows>,
    /// The generations of the read tables; none before the first look.
    read_models: Vec<ShownModel>,
    newest: Vec<Summary>,
}

fn frame(board: &Board, viewers: usize) -> Frame {
    let now = now_ms();
    let (recent, window, curve) = {
        let traffic = board.traffic();
        (traffic.recent(now), traffic.window(now), traffic.curve(now))
    };
    let steps = {
        let mut steps = board.steps();
        StepTimes {
            outcome: steps.outcome.percentiles(now),
            event: steps.event.percentiles(now),
            purchase: steps.purchase.percentiles(now),
        }
    };
    let generations = STAGES.map(|stage| board.generation_of(&stage).map(Generation::get));
    let stages = {
        let groups = board.groups();
        let stage = |(index, stage): (usize, &Stage)| StageLag {
            group: stage.group,
            topic: stage.topic,
            generation: generations[index],
            lag: groups.lags[index],
            processed: groups.processed[index],
        };
        STAGES.iter().enumerate().map(stage).collect()
    };
    // The temporaries of one expression live to its end: in the literal below they would hold all these locks at once.
    let log_len = *board.log_len();
    let reading = board.reading().iter().map(|(topic, reading)| (*topic, *reading)).collect();
    let totals = board.ledger().totals();
    let top = board.sales().top(now);
    let balances = board.balances().clone();
    let audit = board.audit().clone();
    let operations = board.operations().clone();
    let parked_rows = board.parked_rows().clone();
    let known = board.read_models().clone();
    let read_models = {
        let groups = board.groups();
        known.iter().map(|model| model.shown(|group| groups.behind(group))).collect()
    };
    let newest = board.journeys().newest();
    Frame {
        at_ms: now,
        viewers,
        servers: board.health.all(),
        log_len,
        recent,
        recent_seconds: RATE_SECONDS,
        window,
        curve,
        steps,
        stages,
        reading,
        totals,
        top,
        balances,
        audit,
        operations,
        parked_rows,
        read_models,
        newest,
    }
}

/// Makes a frame once a second while somebody looks.
pub(crate) async fn show_frames(board: Arc<Board>, audience: Audience) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = audience.watched();
    while watched.wait_for(|watched| *watched).await.is_ok() {
        interval.tick().await;
        VIEWERS.with(&[]).set(f64::from(u32::try_from(audience.viewers()).unwrap_or(u32::MAX)));
        if !audience.check() {
            continue;
        }
        match serde_json::to_vec(&frame(&board, audience.viewers())) {
            Ok(json) => audience.show(Bytes::from(json)),
            Err(error) => tracing::error!(%error, "a frame cannot be written as JSON"),
        }
    }
}
