//! The loop. While one batch is on its way to the disk the next one gathers: many events, one
//! flush. After a failed commit nothing of it counts: the tracker is rebuilt from the journal and
//! fed the same inputs again, which makes the same ids.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parsers::Micros;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::trace::trace_message;
use crate::ami::{Feed, FeedReceiver};
use crate::calls::{CdrSource, Input, ObjectKey, Step, Tracker};
use crate::clock;
use crate::config::Config;
use crate::journal::{Batch, Journal, JournalError, RouteId, Traced};
use crate::routes::Routes;

/// Records of one batch: the journal's own group (`delivery.md` R2).
const MAX_RECORDS: usize = 256;
/// First wait after a failed commit, doubled up to [`REBUILD_MAX`].
const REBUILD_MIN: Duration = Duration::from_millis(100);
/// Longest wait after a failed commit.
const REBUILD_MAX: Duration = Duration::from_secs(5);
/// How long a stop waits for a disk that refuses.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Arrivals whose way to the disk is remembered for the percentiles.
const LAGS: usize = 1024;

/// How ingest fares.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IngestHealth {
    /// Events that a call was concerned by.
    pub events: u64,
    /// Updates journalled.
    pub updates: u64,
    /// From an event's arrival to the disk, median, microseconds.
    pub lag_p50: u64,
    /// The 99th percentile.
    pub lag_p99: u64,
    /// Where creates come from.
    pub cdr_source: Option<CdrSource>,
    /// Commits that failed and were made again.
    pub rebuilds: u64,
}

/// Feeds the tracker and appends what it says.
#[derive(Debug)]
pub struct Ingest {
    config: Arc<Config>,
    journal: Journal,
    routes: Arc<Routes>,
    tracker: Tracker,
    gathered: Gathered,
    /// Number of the last batch made, kept in the journal with it.
    number: u64,
    /// The last commit failed: nothing new is taken until one succeeds, so that what waits is
    /// bounded by the feed.
    failing: bool,
    /// The tracker wants a new snapshot.
    resync: bool,
    lags: Lags,
    health: watch::Sender<IngestHealth>,
}

/// What the tracker was fed, kept until it is on disk.
#[derive(Debug)]
enum Fed {
    Item(Feed),
    Tick(Micros),
}

#[derive(Debug, Default)]
struct Gathered {
    batch: Batch,
    fed: Vec<Fed>,
    updates: u64,
}

type Commit = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send>>;

impl Ingest {
    /// With the open objects as the journal has them.
    pub fn new(
        config: Arc<Config>,
        journal: Journal,
        routes: Arc<Routes>,
        objects: Vec<(ObjectKey, Vec<u8>)>,
        health: watch::Sender<IngestHealth>,
    ) -> Self {
        let mut ingest = Self {
            tracker: Tracker::new(&config),
            config,
            journal,
            routes,
            gathered: Gathered::default(),
            number: 0,
            failing: false,
            resync: false,
            lags: Lags::default(),
            health,
        };
        ingest.restore(objects);
        ingest
    }

    /// Runs until the feed ends and everything gathered is on disk.
    pub async fn run(mut self, mut feed: FeedReceiver) {
        let mut open = true;
        loop {
            if self.gathered.fed.is_empty() {
                open = open && self.gather_one(&mut feed).await;
                if !open && self.gathered.fed.is_empty() {
                    return;
                }
            }
            if open && !self.failing {
                self.gather_more(&mut feed);
            }
            let flying = std::mem::take(&mut self.gathered);
            let mut commit = self.commit(flying.batch);
            let committed = loop {
                tokio::select! {
                    biased;
                    result = &mut commit => break result,
                    gathered = self.gather_one(&mut feed), if open && !self.failing && self.has_room() => {
                        open = gathered;
                    }
                }
            };
            drop(commit);
            match committed {
                Ok(()) => {
                    self.failing = false;
                    self.committed(&flying.fed, flying.updates);
                    if std::mem::take(&mut self.resync) {
                        tracing::warn!(
                            "Asterisk holds a channel that it did not announce; its lists are read anew"
                        );
                        feed.resync();
                    }
                }
                Err(why) => {
                    if !self.rebuild(flying.fed, &why, &feed).await {
                        return;
                    }
                }
            }
        }
    }

    fn commit(&mut self, mut batch: Batch) -> Commit {
        // A step without effect costs no flush.
        if batch.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.number += 1;
        batch.objects.push((batch_number(), Some(self.number.to_string().into_bytes())));
        let journal = self.journal.clone();
        Box::pin(async move { journal.append(batch).await })
    }

    fn has_room(&self) -> bool {
        self.gathered.batch.records() < MAX_RECORDS && self.gathered.fed.len() < MAX_RECORDS * 4
    }

    /// Waits for one input; false once the feed has ended.
    async fn gather_one(&mut self, feed: &mut FeedReceiver) -> bool {
        let tick = async {
            match self.tracker.deadline() {
                Some(at) => tokio::time::sleep(clock::until(at, clock::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What already happened goes before what time alone would decide.
            biased;
            item = feed.recv() => match item {
                Some(item) => self.feed(Fed::Item(item)),
                None => return false,
            },
            () = tick => self.feed(Fed::Tick(clock::now())),
        }
        true
    }

    /// Takes what already waits.
    fn gather_more(&mut self, feed: &mut FeedReceiver) {
        while self.has_room() {
            let Some(item) = feed.try_recv() else { break };
            self.feed(Fed::Item(item));
        }
    }

    fn feed(&mut self, fed: Fed) {
        let step = match &fed {
            Fed::Item(Feed::Event { event, at, .. }) => self.tracker.handle(Input::Event(event), *at),
            Fed::Item(Feed::Up { snapshot: Some(snapshot), at }) => {
                self.tracker.handle(Input::Snapshot(snapshot), *at)
            }
            Fed::Item(Feed::Up { snapshot: None, at }) => self.tracker.handle(Input::Blind, *at),
            Fed::Item(Feed::Audit { listed, at }) => self.tracker.handle(Input::Audit(listed), *at),
            Fed::Item(Feed::Lost { at }) => self.tracker.handle(Input::Lost, *at),
            Fed::Tick(at) => self.tracker.handle(Input::Tick, *at),
        };
        self.resync |= step.resync;
        let batch = &mut self.gathered.batch;
        if let (Fed::Item(Feed::Event { event, message, at }), false) = (&fed, step.calls.is_empty()) {
            let message = trace_message(message, event.at.unwrap_or(*at));
            batch.messages.push(Traced { calls: step.calls.clone(), message });
        }
        self.gathered.updates += step.updates.len() as u64;
        take(step, &self.routes, batch);
        self.gathered.fed.push(fed);
    }

    fn committed(&mut self, fed: &[Fed], updates: u64) {
        let now = clock::now();
        let mut events = 0;
        for one in fed {
            if let Fed::Item(Feed::Event { at, .. }) = one {
                events += 1;
                self.lags.add(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0));
            }
        }
        let source = self.tracker.cdr_source();
        let lags = self.lags.percentiles(now);
        self.health.send_modify(|health| {
            health.events += events;
            health.updates += updates;
            health.cdr_source = source;
            if let Some((p50, p99)) = lags {
                health.lag_p50 = p50;
                health.lag_p99 = p99;
            }
        });
    }

    /// The tracker as the journal has it.
    fn restore(&mut self, mut objects: Vec<(ObjectKey, Vec<u8>)>) {
        let name = batch_number();
        let number = objects.iter().position(|(key, _)| *key == name).map(|at| objects.swap_remove(at).1);
        let number = number.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        self.number = number.unwrap_or_default();
        let (tracker, unreadable) = Tracker::restore(&self.config, objects, clock::now());
        self.tracker = tracker;
        for object in unreadable {
            tracing::error!(%object, "an open object of the journal could not be read");
        }
    }

    /// The tracker as the journal has it, fed again what is not on disk. False when that will never
    /// be: the journal has stopped, or the agent is to stop and the disk still refuses.
    async fn rebuild(&mut self, lost: Vec<Fed>, why: &JournalError, feed: &FeedReceiver) -> bool {
        tracing::error!(reason = %why, "a commit failed; calls wait in memory and will be journalled again");
        self.health.send_modify(|health| health.rebuilds += 1);
        self.failing = true;
        // What the journal lost of open calls, Asterisk still knows.
        feed.resync();
        let number = self.number;
        let mut gathered = std::mem::take(&mut self.gathered).fed;
        let began = tokio::time::Instant::now();
        let mut wait = REBUILD_MIN;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REBUILD_MAX);
            match self.journal.objects().await {
                Ok(objects) => {
                    self.restore(objects);
                    break;
                }
                Err(JournalError::Closed) => {
                    tracing::error!("the journal stopped with events not yet on disk");
                    return false;
                }
                Err(why) => tracing::error!(reason = %why, "the journal cannot be read"),
            }
            if feed.is_ending() && began.elapsed() > STOP_PATIENCE {
                tracing::error!(inputs = lost.len() + gathered.len(), "stopping with events not on disk");
                return false;
            }
        }
        // The batch may be on disk although its answer was an error.
        let mut again = if self.number == number { Vec::new() } else { lost };
        again.append(&mut gathered);
        if matches!(why, JournalError::TooLarge(_)) {
            return self.append_singly(again, feed).await;
        }
        for fed in again {
            self.feed(fed);
        }
        true
    }

    /// Appends each input's batch by itself, and of one that the journal will never take only what
    /// the tracker needs: one hostile text costs itself alone.
    async fn append_singly(&mut self, inputs: Vec<Fed>, feed: &FeedReceiver) -> bool {
        let mut inputs = inputs.into_iter();
        while let Some(fed) = inputs.next() {
            self.feed(fed);
            let Gathered { mut batch, fed, updates } = std::mem::take(&mut self.gathered);
            let mut appended = self.commit(batch.clone()).await;
            if let Err(JournalError::TooLarge(bytes)) = appended {
                tracing::error!(bytes, "an update is too large for the journal and was left out");
                batch.messages.clear();
                batch.updates.clear();
                batch.cdrs.clear();
                batch.outbox.clear();
                batch.skipped.push((RouteId("".into()), "too large for the journal".to_owned()));
                appended = self.commit(batch).await;
            }
            match appended {
                Ok(()) => self.committed(&fed, updates),
                Err(JournalError::Closed) => return false,
                Err(why) => {
                    let rest = fed.into_iter().chain(inputs).collect();
                    return Box::pin(self.rebuild(rest, &why, feed)).await;
                }
            }
        }
        true
    }
}

/// Where the number of the last batch stands among the open objects.
fn batch_number() -> ObjectKey {
    ObjectKey("#batch".into())
}

/// Puts what the tracker said into the batch, with what routes want of it.
fn take(step: Step, routes: &Routes, batch: &mut Batch) {
    for update in step.updates {
        batch.outbox.extend(routes.select(&update));
        batch.updates.push(update);
    }
    for group in step.groups {
        let (creates, skipped) = routes.creates(&group);
        batch.outbox.extend(creates);
        batch.skipped.extend(skipped);
        let call = group.call;
        batch.cdrs.extend(group.rows.into_iter().map(|row| (call.clone(), row.cdr)));
    }
    for (key, value) in step.objects {
        // The last state alone counts: one write an object and batch.
        match batch.objects.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = value,
            None => batch.objects.push((key, value)),
        }
    }
    batch.ended.extend(step.ended);
    let nobody = RouteId("".into());
    batch.skipped.extend(step.skipped.into_iter().map(|reason| (nobody.clone(), reason.to_owned())));
}

/// The last arrivals' way to the disk.
#[derive(Debug, Default)]
struct Lags {
    last: Vec<u64>,
    next: usize,
    sorted_at: Micros,
}

impl Lags {
    fn add(&mut self, micros: u64) {
        if self.last.len() < LAGS {
            self.last.push(micros);
        } else if let Some(slot) = self.last.get_mut(self.next) {
            *slot = micros;
        }
        self.next = (self.next + 1) % LAGS;
    }

    /// Median and 99th percentile, at most once a second: sorting costs.
    fn percentiles(&mut self, now: Micros) -> Option<(u64, u64)> {
        if now.secs_since(self.sorted_at) < 1 {
            return None;
        }
        self.sorted_at = now;
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        let at = |hundredth: usize| sorted.get(sorted.len() * hundredth / 100).copied().unwrap_or(0);
        Some((at(50), at(99)))
    }
}
