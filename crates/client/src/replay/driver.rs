//! The loop of a run: reads commands, sends them and takes their answers, until the source is at its end or the run is stopped.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

use super::args::Args;
use super::attempt::{Answer, Finished, Sender};
use super::pacer::{Pacer, Schedule};
use super::progress::Progress;
use super::queues::{MemberQueues, Planned};
use super::record::{Line, RecordFile};
use super::report::{Report, Unfinished};
use super::sent::SentFile;
use super::source::Source;
use super::statistics::Statistics;
use crate::error::chain;

/// Why nothing more is sent before the source is at its end.
#[derive(Debug)]
enum Stop {
    Interrupted,
    /// The outcomes of commands after an unanswered one could not be judged.
    Unanswered,
    Failed(String),
}

/// Sends all commands of the source, or as many as it can before `shutdown` is done.
///
/// # Errors
/// If the run can't begin: invalid settings, or a file that can't be opened or created. Later failures are in the report.
pub async fn run(args: &Args, shutdown: impl Future<Output = ()>) -> anyhow::Result<Report> {
    let run_id = args.run_id.clone().unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let sender = Sender::new(args, run_id.clone())?;
    let mut run = Run::new(args)?;
    run.progress.say(&format!("run id {run_id}, sending to {}", args.url.join(", ")));
    let started_at = Instant::now();
    run.schedule = args.rate.map(|rate| Schedule::new(started_at, rate.get()));
    drive(&mut run, &sender, args, shutdown).await?;
    let elapsed = run.last_finished_at.unwrap_or(started_at) - started_at;
    Ok(run.finish(args, run_id, elapsed, &sender))
}

async fn drive(run: &mut Run, sender: &Sender, args: &Args, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut shutdown = pin!(shutdown);
    let mut pacer = Pacer::start().context("starting the pacing thread failed")?;
    let mut ticker = interval(run.progress.interval());
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.reset();
    let mut in_flight = FuturesUnordered::new();
    loop {
        // All futures are polled here, on one thread: a task for each would cost more than it gives.
        while in_flight.len() < args.in_flight_max()
            && let Some(planned) = run.next_to_send()
        {
            in_flight.push(sender.execute(planned));
        }
        if in_flight.is_empty() && (run.at_end || run.stop.is_some()) {
            return Ok(());
        }
        let due = run.next_due().filter(|_| in_flight.len() < args.in_flight_max());
        let drained_by = run.stopped_at.map(|at| at + run.drain_for);
        tokio::select! {
            biased;
            Some(finished) = in_flight.next() => run.complete(&finished),
            () = async { pacer.wait(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
            () = &mut shutdown, if run.stop.is_none() => run.stop_with(Stop::Interrupted),
            _ = ticker.tick() => run.progress.show(&mut run.statistics, &sender.retries, in_flight.len()),
            () = sleep_until(drained_by.unwrap_or_else(Instant::now).into()), if drained_by.is_some() => {
                run.give_up(sender);
                return Ok(());
            }
        }
    }
}

/// A command in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    sequence: u64,
    line: u64,
}

impl Place {
    fn of(planned: &Planned) -> Option<Self> {
        planned.line.map(|line| Self { sequence: planned.sequence, line })
    }
}

/// The state of a run.
struct Run {
    source: Source,
    limit: u64,
    /// The rows before `--from-line`: they count for the keys, and are not sent.
    skipped: u64,
    read: u64,
    at_end: bool,
    /// The invalid line. The commands before it are still sent.
    bad_line: Option<String>,
    /// Commands that were accepted or rejected.
    done: u64,
    /// The first command that has to be sent again: it has no answer, or the service rejected the header `Command-Time`.
    not_done: Option<Place>,
    schedule: Option<Schedule>,
    queues: MemberQueues,
    statistics: Statistics,
    sent: Option<SentFile>,
    recorded: Option<RecordFile>,
    progress: Progress,
    stop: Option<Stop>,
    drain_for: Duration,
    stopped_at: Option<Instant>,
    last_finished_at: Option<Instant>,
}

impl Run {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let mut source = Source::open(args)?;
        let skipped = match args.from_line {
            Some(line) => source.skip_to(line).with_context(|| format!("{source} cannot be continued"))?,
            None => 0,
        };
        let sent = args
            .sent
            .as_deref()
            .map(|path| SentFile::create(path).with_context(|| format!("{} cannot be written", path.display())));
        let recorded = args
            .record
            .as_deref()
            .map(|path| RecordFile::create(path).with_context(|| format!("{} cannot be written", path.display())));
        Ok(Self {
            source,
            limit: args.limit.unwrap_or(u64::MAX),
            skipped,
            read: skipped,
            at_end: false,
            bad_line: None,
            done: 0,
            not_done: None,
            schedule: None,
            queues: MemberQueues::new(args.look_ahead),
            statistics: Statistics::new(),
            sent: sent.transpose()?,
            recorded: recorded.transpose()?,
            progress: Progress::start(args.commands_expected()),
            stop: None,
            drain_for: args.drain_for,
            stopped_at: None,
            last_finished_at: None,
        })
    }

    /// The oldest command that may be sent now. Reads ahead while all members that it has read are busy.
    fn next_to_send(&mut self) -> Option<Arc<Planned>> {
        loop {
            if self.stop.is_some() {
                return None;
            }
            if let Some(planned) = self.queues.take() {
                return Some(planned);
            }
            if self.next_due().is_some_and(|due| due > Instant::now()) || !self.read_one() {
                return None;
            }
        }
    }

    /// When the next unread command is due, if it may be read.
    fn next_due(&self) -> Option<Instant> {
        let schedule = self.schedule.as_ref()?;
        let wanted = !self.at_end && self.stop.is_none() && self.queues.has_room();
        wanted.then(|| schedule.due(self.read + 1 - self.skipped))
    }

    fn read_one(&mut self) -> bool {
        if self.at_end || !self.queues.has_room() {
            return false;
        }
        let command = if self.read < self.limit { self.source.next() } else { None };
        match command {
            Some(Ok(command)) => {
                self.read += 1;
                let due = self.schedule.map(|schedule| schedule.due(self.read - self.skipped));
                self.queues.offer(Planned { sequence: self.read, line: self.source.line(), command, due });
                true
            }
            Some(Err(error)) => {
                let reason = chain(&error);
                self.progress.say(&format!("{}: {reason}; the lines before it were sent", self.source));
                self.at_end = true;
                self.bad_line = Some(reason);
                false
            }
            None => {
                self.at_end = true;
                false
            }
        }
    }

    fn complete(&mut self, finished: &Finished) {
        self.last_finished_at = Some(Instant::now());
        self.record(finished);
        self.queues.complete(&finished.planned.command.member);
        match &finished.answer {
            Answer::Accepted => self.done += 1,
            Answer::Refused { code, detail } if code == "invalid-header" => {
                self.note_not_done(&finished.planned);
                self.stop_with(Stop::Failed(format!(
                    "the service rejects a header ({detail}): start ingest with --allow-client-time, or use \
                     --no-send-time"
                )));
            }
            Answer::Refused { .. } => self.done += 1,
            Answer::Unanswered { .. } => {
                self.note_not_done(&finished.planned);
                self.stop_with(Stop::Unanswered);
            }
        }
    }

    fn note_not_done(&mut self, planned: &Planned) {
        self.not_done = self.not_done.into_iter().chain(Place::of(planned)).min();
    }

    /// The unsent rest of a file, if the run ends before the file's end.
    fn unfinished(&mut self, run_id: &str) -> Option<Unfinished> {
        if self.stop.is_none() && self.bad_line.is_none() {
            return None;
        }
        let line = self.source.line()?;
        let next = match (&self.bad_line, self.at_end) {
            (Some(_), _) => Some(line),
            (None, true) => None,
            (None, false) => Some(line + 1),
        };
        let next = next.map(|line| Place { sequence: self.read + 1, line });
        let open = self.queues.oldest().and_then(Place::of);
        let first = self.not_done.into_iter().chain(open).chain(next).min()?;
        let done_before = first.sequence - 1 - self.skipped;
        Some(Unfinished {
            line: first.line,
            fault: self.bad_line.clone().filter(|_| Some(first) == next),
            answered_after: self.done - done_before,
            options: format!("--run-id {run_id} --from-line {}", first.line),
        })
    }

    fn record(&mut self, finished: &Finished) {
        self.statistics.record(finished);
        self.write_record(finished);
        let Some(sent) = &mut self.sent else { return };
        if let Err(error) = sent.write(&finished.planned.command, &finished.answer, finished.command_id) {
            self.sent = None;
            self.stop_with(Stop::Failed(chain(&error)));
        }
    }

    fn write_record(&mut self, finished: &Finished) {
        let (Some(file), Some(recorded)) = (&mut self.recorded, &finished.recorded) else { return };
        let line = Line {
            cart_id: recorded.cart,
            idempotency_key: &recorded.key,
            command_id: recorded.command_id,
            command: &recorded.command,
            attempts: &recorded.attempts,
        };
        if let Err(error) = file.write(&line) {
            self.recorded = None;
            self.stop_with(Stop::Failed(format!("writing the record failed: {error}")));
        }
    }

    /// Keeps the first reason.
    fn stop_with(&mut self, stop: Stop) {
        if self.stop.is_none() {
            self.progress.say(&format!("stopping: waiting at most {:?} for the commands in flight", self.drain_for));
            self.stop = Some(stop);
            self.stopped_at = Some(Instant::now());
        }
    }

    /// Counts the commands that are still in flight as unanswered.
    fn give_up(&mut self, sender: &Sender) {
        for planned in self.queues.in_flight() {
            let answer = Answer::Unanswered { reason: "abandoned because the run was interrupted".to_owned() };
            let recorded = sender.given_up(&planned);
            self.record(&Finished { planned, answer, command_id: None, recorded, latency: Duration::ZERO });
        }
    }

    fn finish(mut self, args: &Args, run_id: String, elapsed: Duration, sender: &Sender) -> Report {
        self.progress.finish();
        let unfinished = self.unfinished(&run_id);
        let mut report = Report::new(args, run_id, elapsed, &self.statistics, &sender.retries);
        report.unfinished = unfinished;
        if let Some(reason) = self.bad_line.take() {
            report.failures.push(format!("{}: {reason}", self.source));
        }
        if let Some(Err(error)) = self.sent.take().map(SentFile::finish) {
            report.failures.push(chain(&error));
        }
        if let Some(Err(error)) = self.recorded.take().map(RecordFile::finish) {
            report.failures.push(format!("finishing the record failed: {error}"));
        }
        match self.stop {
            None => {}
            Some(Stop::Interrupted) => report.interrupted = true,
            Some(Stop::Unanswered) => report.failures.push("stopped at a command without an answer".to_owned()),
            Some(Stop::Failed(reason)) => report.failures.push(reason),
        }
        report.judge(args);
        report
    }
}
