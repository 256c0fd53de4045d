//! The loop. While one batch is on its way to the disk the next one gathers: many events, one
//! flush. After a failed commit nothing of it counts: the tracker is rebuilt from the journal and
//! fed the same inputs again, which makes the same ids.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parsers::ami::EventKind;
use parsers::{Linkedid, Micros, Uniqueid};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::trace::trace_message;
use crate::ami::{Feed, FeedReceiver};
use crate::calls::{CdrSource, Input, ObjectKey, Step, Tracker};
use crate::clock;
use crate::config::Config;
use crate::journal::{Batch, Journal, JournalError, RouteId, Traced};
use crate::metrics::{Histogram, Minute, buckets};
use crate::routes::Routes;

/// Records of one batch: the journal's own group (`delivery.md` R2).
const MAX_RECORDS: usize = 256;
/// What nobody outside learns of waits this long for company: most events change what is known of a
/// channel and no more, and each flush costs more than many records. A crash meanwhile loses no more
/// than one that came so much earlier; what an event leads to is never waited with. Deadlines, which
/// are far longer, are met together, so much later at most.
const LINGER: Duration = Duration::from_millis(20);
/// First wait after a failed commit, doubled up to [`REBUILD_MAX`].
const REBUILD_MIN: Duration = Duration::from_millis(100);
/// Longest wait after a failed commit.
const REBUILD_MAX: Duration = Duration::from_secs(2);
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
    /// From the arrival of an event that led to something to the disk, median, microseconds.
    pub lag_p50: u64,
    /// The 99th percentile.
    pub lag_p99: u64,
    /// These times, all since the start.
    #[serde(default)]
    pub lag: Histogram,
    /// Events of the last minute; [`AgentStatus`](crate::api::AgentStatus) tells the count.
    #[serde(skip)]
    pub minute: Minute,
    /// Where creates come from.
    pub cdr_source: Option<CdrSource>,
    /// Commits that failed and were made again.
    pub rebuilds: u64,
}

/// What ingest goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Rises with each reload.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub routes: Arc<Routes>,
}

/// Which of some calls the tracker still holds: their creates are not the history's to make. Answered
/// once everything it knows until then is on disk; never, where that fails.
#[derive(Debug)]
pub struct Question {
    /// The calls.
    pub calls: Vec<Asked>,
    /// For each, whether it is held.
    pub reply: oneshot::Sender<Vec<bool>>,
}

/// One call, as its CDRs name it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Its linkedids.
    pub linkedids: Vec<Linkedid>,
    /// Uniqueids of its channels.
    pub parties: Vec<Uniqueid>,
}

/// Feeds the tracker and appends what it says.
#[derive(Debug)]
pub struct Ingest {
    rules: Rules,
    /// Those to go by from the next input on.
    latest: watch::Receiver<Rules>,
    /// The number of those that it goes by.
    followed: watch::Sender<u64>,
    questions: mpsc::Receiver<Question>,
    journal: Journal,
    tracker: Tracker,
    gathered: Gathered,
    /// Number of the last batch made, kept in the journal with it.
    number: u64,
    /// The last commit failed: nothing new is taken until one succeeds, so that what waits is
    /// bounded by the feed.
    failing: bool,
    /// How often the journal had lost objects when they were last written.
    objects_lost: u64,
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
    /// When the first of it was fed.
    since: Option<Instant>,
    /// When those arrived that led to something, which is not waited with.
    urgent: Vec<Micros>,
    /// What was asked meanwhile, answered.
    answers: Vec<(oneshot::Sender<Vec<bool>>, Vec<bool>)>,
}

type Commit = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send>>;

impl Ingest {
    /// With the open objects as the journal has them. The receiver tells which rules it goes by.
    pub fn new(
        mut latest: watch::Receiver<Rules>,
        questions: mpsc::Receiver<Question>,
        journal: Journal,
        objects: Vec<(ObjectKey, Vec<u8>)>,
        health: watch::Sender<IngestHealth>,
    ) -> (Self, watch::Receiver<u64>) {
        let rules = latest.borrow_and_update().clone();
        let (followed, follows) = watch::channel(rules.number);
        let mut ingest = Self {
            objects_lost: journal.objects_lost(),
            tracker: Tracker::new(&rules.config),
            rules,
            latest,
            followed,
            questions,
            journal,
            gathered: Gathered::default(),
            number: 0,
            failing: false,
            resync: false,
            lags: Lags::default(),
            health,
        };
        ingest.restore(objects);
        (ingest, follows)
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
                open = self.linger(&mut feed).await;
            }
            let mut flying = std::mem::take(&mut self.gathered);
            flying.batch.objects = self.tracker.changed();
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
                    self.committed(&flying.fed, &flying.urgent, flying.updates);
                    for (asker, answer) in flying.answers {
                        // who asked may have gone
                        let _ = asker.send(answer);
                    }
                    self.write_lost_objects();
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

    /// Lets what nobody waits for gather; false once the feed has ended.
    async fn linger(&mut self, feed: &mut FeedReceiver) -> bool {
        while let Some(since) =
            self.gathered.since.filter(|_| self.gathered.urgent.is_empty() && self.has_room())
        {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(since + LINGER) => break,
                open = self.gather_one(feed) => if !open {
                    return false;
                },
            }
        }
        true
    }

    /// Waits for one input or question; false once the feed has ended.
    async fn gather_one(&mut self, feed: &mut FeedReceiver) -> bool {
        let tick = async {
            match self.tracker.deadline() {
                Some(at) => tokio::time::sleep(clock::until(together(at), clock::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What already happened goes before what time alone would decide.
            biased;
            () = changed(&mut self.latest) => self.follow(),
            Some(Question { calls, reply }) = self.questions.recv() => {
                let held = |call: &Asked| self.tracker.holds(&call.linkedids, &call.parties);
                let answer = calls.iter().map(held).collect();
                self.gathered.answers.push((reply, answer));
            }
            item = feed.recv() => match item {
                Some(item) => self.feed(Fed::Item(item)),
                None => return false,
            },
            () = tick => self.feed(Fed::Tick(clock::now())),
        }
        true
    }

    /// What is gathered already stays as it was made.
    fn follow(&mut self) {
        self.rules = self.latest.borrow_and_update().clone();
        self.tracker.reconfigure(&self.rules.config);
        self.followed.send_replace(self.rules.number);
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
            Fed::Item(Feed::Event { event, at, .. }) => self.tracker.step(Input::Event(event), *at),
            Fed::Item(Feed::Up { snapshot: Some(snapshot), at }) => {
                self.tracker.step(Input::Snapshot(snapshot), *at)
            }
            Fed::Item(Feed::Up { snapshot: None, at }) => self.tracker.step(Input::Blind, *at),
            Fed::Item(Feed::Audit { listed, at }) => self.tracker.step(Input::Audit(listed), *at),
            Fed::Item(Feed::Lost { at }) => self.tracker.step(Input::Lost, *at),
            Fed::Tick(at) => self.tracker.step(Input::Tick, *at),
        };
        self.resync |= step.resync;
        let gathered = &mut self.gathered;
        gathered.since.get_or_insert_with(Instant::now);
        if let Some(at) = urgent(&fed, &step) {
            gathered.urgent.push(at);
        }
        if let (Fed::Item(Feed::Event { event, message, at }), false) = (&fed, step.calls.is_empty()) {
            let message = trace_message(message, event.at.unwrap_or(*at));
            gathered.batch.messages.push(Traced { calls: step.calls.clone(), message });
        }
        gathered.updates += step.updates.len() as u64;
        take(step, &self.rules.routes, &mut gathered.batch);
        gathered.fed.push(fed);
    }

    /// Whoever met the damage, the journal's open objects are written again from memory.
    fn write_lost_objects(&mut self) {
        let lost = self.journal.objects_lost();
        if lost != self.objects_lost {
            self.objects_lost = lost;
            self.tracker.write_all();
            self.feed(Fed::Tick(clock::now()));
        }
    }

    fn committed(&mut self, fed: &[Fed], urgent: &[Micros], updates: u64) {
        let now = clock::now();
        let events = fed.iter().filter(|fed| matches!(fed, Fed::Item(Feed::Event { .. }))).count() as u64;
        let lag = |at: &Micros| u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0);
        let lags: Vec<u64> = urgent.iter().map(lag).collect();
        lags.iter().for_each(|lag| self.lags.add(*lag));
        let source = self.tracker.cdr_source();
        let percentiles = self.lags.percentiles(now);
        self.health.send_modify(|health| {
            health.events += events;
            health.minute.add(events, now);
            lags.iter().for_each(|lag| health.lag.observe(buckets::QUICK, *lag));
            health.updates += updates;
            health.cdr_source = source;
            if let Some((p50, p99)) = percentiles {
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
        let (tracker, unreadable) = Tracker::restore(&self.rules.config, objects, clock::now());
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
            let Gathered { mut batch, fed, updates, urgent, .. } = std::mem::take(&mut self.gathered);
            batch.objects = self.tracker.changed();
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
                Ok(()) => self.committed(&fed, &urgent, updates),
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

/// Waits for other rules; for ever where nobody makes any.
async fn changed(latest: &mut watch::Receiver<Rules>) {
    if latest.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// When a deadline is met: others of about that time with it.
fn together(at: Micros) -> Micros {
    let slot = i64::try_from(LINGER.as_micros()).unwrap_or(1);
    Micros(at.0.saturating_add(slot - 1).div_euclid(slot).saturating_mul(slot))
}

/// Where the number of the last batch stands among the open objects.
fn batch_number() -> ObjectKey {
    ObjectKey("#batch".into())
}

/// When an input arrived that led to something that is sent, or to a CDR, which Asterisk says once.
/// What is fed otherwise is not to wait either.
fn urgent(fed: &Fed, step: &Step) -> Option<Micros> {
    let (at, always) = match fed {
        Fed::Item(Feed::Event { event, at, .. }) => (*at, matches!(event.kind, EventKind::Cdr(_))),
        Fed::Item(Feed::Up { at, .. } | Feed::Audit { at, .. } | Feed::Lost { at }) => (*at, true),
        Fed::Tick(at) => (*at, false),
    };
    (always || !step.updates.is_empty() || !step.groups.is_empty()).then_some(at)
}

/// Puts what the tracker said into the batch, with what routes want of it.
fn take(step: Step, routes: &Routes, batch: &mut Batch) {
    for mut update in step.updates {
        batch.outbox.extend(routes.select(&update));
        update.conceal();
        batch.updates.push(update);
    }
    for group in step.groups {
        let (creates, skipped) = routes.creates(&group);
        batch.outbox.extend(creates);
        batch.skipped.extend(skipped);
        let call = group.call;
        batch.cdrs.extend(group.rows.into_iter().map(|row| (call.clone(), row.cdr)));
    }
    batch.mergers.extend(step.mergers);
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::{Environment, load_text};
    use crate::journal::Payload;

    /// A digit that nothing else contains.
    const PRESSED: char = '♠';

    const CONFIG: &str = r#"
[pbx]
name = "hq"
trunks = ["PJSIP/trunk"]
[[webhook]]
name = "digits"
url = "https://hooks.example.com/digits"
events = ["call.state", "call.dtmf"]
[[webhook]]
name = "masked"
url = "https://hooks.example.com/masked"
events = ["call.dtmf"]
dtmf_mask = true
[[webhook]]
name = "states"
url = "https://hooks.example.com/states"
events = ["call.state"]
"#;

    /// The batches of a talk in which digits were pressed.
    fn batches() -> Vec<Batch> {
        let config =
            load_text(CONFIG, "test", &Environment::default()).unwrap_or_else(|why| panic!("{why:?}"));
        let routes = Routes::new(&config.config);
        let mut tracker = Tracker::new(&config.config);
        let stream = include_str!("../../fixtures/ami/22/s16_dtmf.ami").replace("Digit: 2\r", "Digit: ♠\r");
        let mut buffer = bytes::BytesMut::from("Asterisk Call Manager/11.0.0\r\n");
        buffer.extend_from_slice(stream.as_bytes());
        let mut codec = parsers::ami::Codec::default();
        let mut batches = Vec::new();
        while let Some(frame) = tokio_util::codec::Decoder::decode(&mut codec, &mut buffer).unwrap() {
            let parsers::ami::Frame::Message(message) = frame else { continue };
            let Some(event) = parsers::ami::Event::parse(&message) else { continue };
            let at = event.at.unwrap_or_default();
            let step = tracker.handle(Input::Event(&event), at);
            let mut batch = Batch::default();
            let calls = step.calls.clone();
            batch.messages.push(Traced { calls, message: trace_message(&message, at) });
            take(step, &routes, &mut batch);
            batches.push(batch);
        }
        batches
    }

    #[test]
    fn a_digit_is_kept_for_the_receivers_that_asked_for_it_and_nowhere_else() {
        let mut bodies = Vec::new();
        for mut batch in batches() {
            for made in std::mem::take(&mut batch.outbox) {
                if let Payload::Webhook { event, body } = made.payload
                    && event == "call.dtmf"
                {
                    bodies.push((made.route.0.to_string(), body));
                }
            }
            for (_, value) in &batch.objects {
                assert!(!String::from_utf8_lossy(value.as_deref().unwrap_or_default()).contains(PRESSED));
            }
            assert!(!format!("{batch:?}").contains(PRESSED), "{batch:?}");
        }
        let of = |route: &str| bodies.iter().filter(|(name, _)| name == route).collect::<Vec<_>>();
        let with = |route: &str| of(route).iter().filter(|(_, body)| body.contains(PRESSED)).count();
        assert_eq!((of("digits").len(), of("masked").len(), of("states").len()), (4, 4, 0));
        assert_eq!((with("digits"), with("masked")), (1, 0), "{bodies:?}");

        for (_, body) in bodies {
            let mut payload = Payload::Webhook { event: "call.dtmf".to_owned(), body };
            assert!(payload.conceal());
            let Payload::Webhook { body, .. } = payload else { panic!("it stays a webhook") };
            assert!(!body.contains(PRESSED) && body.contains(r#""digit":"*","digit_by":""#), "{body}");
        }
    }
}
