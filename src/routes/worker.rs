//! One task a route: takes what is due, sends it, settles it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parsers::Micros;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::breaker::BreakerState;
use super::flights::{Answered, Flights, JOURNAL_LONGEST_WAIT, JOURNAL_WAIT, Step};
use super::gate::{Attempt, Gate};
use super::health::RouteHealth;
use super::history::{History, HistoryLink};
use super::lane::{Ask, Lane, Lanes, Turn};
use super::retry::{Policy, was_refused};
use super::route::Route;
use crate::clock;
use crate::journal::{Delivery, Journal, JournalError, RouteId, Settlement};
use crate::sinks::{Outcome, Sink};

/// After the stop, requests under way get so long.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// What the journal calls due but does not hand out is not asked for again sooner, milliseconds.
const SOONEST_LOOK: i64 = 50;
/// A receiver has so long to take the new secret.
const OVERLAP: i64 = 24 * 3600 * Micros::SECOND;
/// Answers in a row that are not NiMbox's before somebody is told.
const UNREADABLE_ALARM: u64 = 3;

/// Runs one route until told to stop, its history lane with it.
pub struct Worker {
    pub(super) route: RouteId,
    pub(super) setup: Arc<WorkerSetup>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) journal: Journal,
    pub(super) clock: Clock,
    history: History,
    health: watch::Sender<RouteHealth>,
}

/// What a worker delivers by.
pub struct WorkerSetup {
    /// `pbx.name`.
    pub pbx: String,
    /// Where to.
    pub sink: Arc<Sink>,
    /// The URL that must answer a test event first.
    pub verify: Option<url::Url>,
    /// How patiently.
    pub policy: Policy,
}

/// What a worker is to do from now on. Each time it is sent somebody has acted.
#[derive(Clone, Debug)]
pub struct Orders {
    /// `None`: there is no such sink any more, or it is not enabled; what waits for it is held.
    pub setup: Option<Arc<WorkerSetup>>,
}

impl fmt::Debug for WorkerSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the URL may be secret
        f.debug_struct("WorkerSetup").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// Why a worker does not deliver any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The agent stops.
    Stopped,
    /// There are other orders.
    Ordered,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker for this route, where it is told otherwise, and where it tells how it fares.
    pub fn new(
        route: &Route,
        journal: Journal,
    ) -> (Self, watch::Sender<Orders>, watch::Receiver<RouteHealth>) {
        let setup = Arc::new(route.setup());
        let (orders, told) = watch::channel(Orders { setup: Some(Arc::clone(&setup)) });
        let (health, tells) = watch::channel(RouteHealth::default());
        let worker = Self {
            route: route.id.clone(),
            setup,
            orders: told,
            journal,
            clock: Clock::new(),
            history: History::default(),
            health,
        };
        (worker, orders, tells)
    }

    /// For whoever sends history. It outlives reloads, so it is none of [`WorkerSetup`]'s.
    #[must_use]
    pub fn with_history(mut self, link: HistoryLink) -> Self {
        self.history = History::new(link);
        self
    }

    /// Delivers until told to stop; then lets what is under way end, for 5 s, and gives back the
    /// rest.
    pub async fn run(mut self, stop: CancellationToken) {
        let name = self.note_name("lane");
        let stored = self.journal.note(&name).await.ok().flatten();
        let now = self.clock.now();
        let mut gate = Gate::new(self.setup.policy.clone(), stored.as_deref(), now);
        let mut told = false;
        loop {
            let left = if !self.follow(&mut gate) {
                self.hold(&stop).await
            } else {
                self.rotate().await;
                match self.verified(&mut gate, &stop).await {
                    Ok(()) => {
                        if !std::mem::replace(&mut told, true) {
                            info!(route = %self.route.0, host = self.setup.sink.host(), "route delivers");
                        }
                        self.deliver(&mut gate, &stop).await
                    }
                    Err(left) => left,
                }
            };
            match left {
                Left::Stopped => break,
                Left::Ordered => {}
            }
        }
        debug!(route = %self.route.0, "route stopped");
    }

    /// Takes the latest orders; false when there is nothing to deliver to.
    fn follow(&mut self, gate: &mut Gate) -> bool {
        let setup = self.orders.borrow_and_update().setup.clone();
        let Some(setup) = setup else { return false };
        let now = self.clock.now();
        if Arc::ptr_eq(&setup, &self.setup) {
            gate.asked_again(now);
        } else {
            gate.reconfigured(setup.policy.clone(), now);
            info!(route = %self.route.0, host = setup.sink.host(), "route delivers by another configuration");
            self.setup = setup;
        }
        true
    }

    /// Whether the latest orders can be followed while requests are under way.
    fn goes_on(&self) -> bool {
        let orders = self.orders.borrow();
        let Some(setup) = &orders.setup else { return false };
        setup.verify.is_none() || setup.verify == self.setup.verify
    }

    /// The previous secret signs for [`OVERLAP`] from when it was first seen as such.
    async fn rotate(&mut self) {
        let Sink::Webhook(sink) = &*self.setup.sink else { return };
        let Some(key) = sink.previous_key() else { return };
        let name = self.note_name("rotation");
        let stored = self.journal.note(&name).await.ok().flatten();
        let stored: Option<(String, Micros)> = stored.and_then(|text| serde_json::from_slice(&text).ok());
        let now = self.clock.now();
        let since = match stored {
            Some((known, since)) if known == key => since,
            _ => {
                let note = serde_json::to_vec(&(key, now)).ok();
                if let Err(error) = self.journal.set_note(&name, note).await {
                    debug!(route = %self.route.0, %error, "cannot keep since when the secret is rotated");
                }
                now
            }
        };
        let until = Micros(since.0.saturating_add(OVERLAP));
        sink.end_previous_at(until);
        if until <= now {
            warn!(route = %self.route.0, "secret_previous signs no more since 24 hours after it was given; remove it");
        }
    }

    async fn hold(&mut self, stop: &CancellationToken) -> Left {
        info!(route = %self.route.0, "no such sink is configured and enabled, what waits for it is held");
        tokio::select! {
            () = stop.cancelled() => Left::Stopped,
            () = ordered(&mut self.orders) => Left::Ordered,
        }
    }

    async fn deliver(&mut self, gate: &mut Gate, stop: &CancellationToken) -> Left {
        let mut flights = Flights::default();
        let mut lanes = Lanes::new(self.history.rate());
        let mut journal_wait = JOURNAL_WAIT;
        let (live, history) = (self.route.clone(), self.route.history());
        loop {
            let now = self.clock.now();
            let take = gate.take(lanes.busy(), now);
            let wake = match lanes.turn(take, gate.slots(), self.history.room(), now) {
                Turn::Wait(at) => at,
                Turn::Ask(ask) => {
                    let route = match ask.lane {
                        Lane::Live => &live,
                        Lane::History => &history,
                    };
                    match self.take(gate, &mut lanes, &mut flights, route, ask, now).await {
                        Ok(()) => {
                            journal_wait = JOURNAL_WAIT;
                            continue;
                        }
                        Err(JournalError::Closed) => break,
                        Err(error) => {
                            warn!(route = %self.route.0, %error, "cannot read what is due");
                            let at = now.0.saturating_add(micros(journal_wait));
                            journal_wait = (journal_wait * 2).min(JOURNAL_LONGEST_WAIT);
                            Some(Micros(at))
                        }
                    }
                }
            };
            self.publish(gate).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = ordered(&mut self.orders) => {
                    if !self.goes_on() {
                        return self.drain(gate, lanes, flights, stop).await;
                    }
                    // requests under way keep the sink that they began with
                    self.follow(gate);
                    self.rotate().await;
                }
                Some(step) = flights.next() => self.step(gate, &mut lanes, &mut flights, step, stop),
                () = self.journal.wait_for_work(&live), if lanes.is_quiet(Lane::Live) => {
                    lanes.woken(Lane::Live);
                }
                () = self.journal.wait_for_work(&history), if lanes.is_quiet(Lane::History) => {
                    lanes.woken(Lane::History);
                }
                rate = self.history.another_rate() => lanes.limit(rate),
                () = sleep(self.clock.until(wake)), if wake.is_some() => {}
            }
        }
        self.finish(gate, lanes, flights).await;
        Left::Stopped
    }

    /// Takes what is due on a lane's route, and sends it.
    async fn take(
        &self,
        gate: &mut Gate,
        lanes: &mut Lanes,
        flights: &mut Flights,
        route: &RouteId,
        Ask { lane, limit, probe }: Ask,
        now: Micros,
    ) -> Result<(), JournalError> {
        let (due, next) = self.journal.due(route, now, limit).await?;
        if due.len() < limit {
            lanes.drained(lane, next.map(|next| next.max(now.plus_millis(SOONEST_LOOK))));
        }
        for delivery in due {
            gate.started(probe, now);
            lanes.started(lane, now);
            let attempt = Attempt {
                attempts: delivery.attempts,
                accepted: delivery.accepted,
                refused: delivery.last.as_ref().is_some_and(was_refused),
                probe,
                lane,
                started: now,
            };
            flights.request(Arc::clone(&self.setup.sink), delivery, attempt);
        }
        Ok(())
    }

    /// Nothing new goes out; what is under way ends, however long its timeout lets it.
    async fn drain(
        &mut self,
        gate: &mut Gate,
        mut lanes: Lanes,
        mut flights: Flights,
        stop: &CancellationToken,
    ) -> Left {
        loop {
            self.publish(gate).await;
            tokio::select! {
                () = stop.cancelled() => break,
                step = flights.next() => match step {
                    Some(step) => self.step(gate, &mut lanes, &mut flights, step, stop),
                    None => return Left::Ordered,
                },
            }
        }
        self.finish(gate, lanes, flights).await;
        Left::Stopped
    }

    /// Nothing new goes out; what is under way may end.
    async fn finish(&mut self, gate: &mut Gate, mut lanes: Lanes, mut flights: Flights) {
        let never = CancellationToken::new();
        let deadline = Instant::now() + LAST_WAIT;
        while let Ok(Some(step)) = tokio::time::timeout_at(deadline, flights.next()).await {
            self.step(gate, &mut lanes, &mut flights, step, &never);
        }
        let now = self.clock.now();
        for (key, attempt) in flights.break_off().await {
            gate.broken_off(attempt.probe, now);
            // where this fails the lease ends with the process
            let _ = self.journal.settle(key, Settlement::Released, now).await;
        }
        self.publish(gate).await;
    }

    fn step(
        &mut self,
        gate: &mut Gate,
        lanes: &mut Lanes,
        flights: &mut Flights,
        step: Step,
        stop: &CancellationToken,
    ) {
        let answered = match step {
            Step::Settled(flight) => {
                if let Some(attempt) = flights.landed(flight) {
                    lanes.ended(attempt.lane);
                }
                return;
            }
            Step::Answered(answered) => answered,
        };
        let Answered { flight, delivery, attempt, outcome } = *answered;
        let now = self.clock.now();
        let before = gate.health();
        let settlement = gate.ended(attempt, &outcome, now, chance());
        self.tell(&before, &gate.health(), &delivery, &outcome, &settlement);
        if attempt.lane == Lane::History {
            self.history.report(&self.route, &delivery, &outcome, &settlement);
        }
        // with more to come, what frees a place does not wait
        let patient = lanes.is_quiet(Lane::Live) && lanes.is_quiet(Lane::History);
        flights.settle(flight, self.journal.clone(), settlement, now, patient, stop.clone());
    }

    /// Stores the gate's state where it changed, and tells how the route fares.
    pub(super) async fn publish(&self, gate: &mut Gate) {
        if let Some(stored) = gate.stored()
            && let Err(error) = self.journal.set_note(&self.note_name("lane"), Some(stored)).await
        {
            debug!(route = %self.route.0, %error, "cannot keep the route's state");
        }
        let health = gate.health();
        self.health.send_if_modified(|known| {
            let news = *known != health;
            *known = health;
            news
        });
    }

    fn tell(
        &self,
        before: &RouteHealth,
        after: &RouteHealth,
        delivery: &Delivery,
        outcome: &Outcome,
        settlement: &Settlement,
    ) {
        let route = &*self.route.0;
        let host = self.setup.sink.host();
        debug!(
            route,
            id = %delivery.id.0,
            class = outcome.class.as_str(),
            status = outcome.status,
            attempts = delivery.attempts,
            why = outcome.why,
            "attempt ended"
        );
        match (&before.paused, &after.paused) {
            (None, Some(paused)) => {
                warn!(
                    route,
                    host,
                    why = paused.why,
                    remedy = paused.remedy,
                    "route paused, everything is held"
                );
            }
            (Some(_), None) => info!(route, host, "route goes on"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let open = |health: &RouteHealth| health.breaker != BreakerState::Closed;
        match (open(before), open(after)) {
            (false, true) => warn!(route, host, why = outcome.why, "receiver fails, deliveries wait"),
            (true, false) => info!(route, host, "receiver is back"),
            (false, false) | (true, true) => {}
        }
        if after.unreadable == UNREADABLE_ALARM && before.unreadable < UNREADABLE_ALARM {
            warn!(route, host, "receiver does not answer as NiMbox does, deliveries are tried again");
        }
        if matches!(settlement, Settlement::Dead { .. }) {
            warn!(
                route,
                host,
                id = %delivery.id.0,
                class = outcome.class.as_str(),
                status = outcome.status,
                "delivery given up, kept among the dead letters"
            );
        }
    }

    pub(super) fn note_name(&self, what: &str) -> String {
        format!("route/{}/{what}", self.route.0)
    }
}

/// Waits for other orders; for ever where nobody gives any.
pub(super) async fn ordered(orders: &mut watch::Receiver<Orders>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Between -1 and 1.
pub(super) fn chance() -> f64 {
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX) * 2.0 - 1.0)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The time of day, except that it never goes back while the process runs: what was put off by
/// minutes must not wait for a day because somebody set the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    read: Instant,
    then: Micros,
}

impl Clock {
    fn new() -> Self {
        Self { read: Instant::now(), then: clock::now() }
    }

    pub(super) fn now(&mut self) -> Micros {
        let now = self.at(clock::now());
        *self = Self { read: Instant::now(), then: now };
        now
    }

    fn at(&self, wall: Micros) -> Micros {
        wall.max(Micros(self.then.0.saturating_add(micros(self.read.elapsed()))))
    }

    pub(super) fn until(&self, at: Option<Micros>) -> Duration {
        let wait = at.map_or(0, |at| at.0.saturating_sub(self.at(clock::now()).0));
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::calls::{CallKey, UpdateId};
    use crate::config::{Environment, load_text};
    use crate::journal::{Batch, JournalOptions, Outgoing, Payload};
    use crate::routes::Routes;

    const DAY: i64 = 86_400 * Micros::SECOND;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_by_a_day_stops_nothing() {
        let clock = Clock { read: Instant::now(), then: Micros(10 * DAY) };
        tokio::time::advance(Duration::from_secs(5)).await;
        let passed = Micros(10 * DAY + 5 * Micros::SECOND);
        assert_eq!(clock.at(Micros(9 * DAY)), passed, "set back: time goes on as it passes");
        assert_eq!(clock.at(Micros(11 * DAY)), Micros(11 * DAY), "set forward: what was put off is due");
    }

    fn create(n: usize) -> Outgoing {
        Outgoing {
            route: RouteId("crm".into()),
            id: UpdateId(format!("hq.{n}.0").into()),
            call: CallKey(format!("{n}").into()),
            ordered: false,
            party: None,
            start: None,
            payload: Payload::Nimbox {
                initiated: "2026-11-21T09:19:27Z".to_owned(),
                source: "04145550100".to_owned(),
                destination: format!("{n}"),
                duration: None,
                url: None,
            },
        }
    }

    fn journal(directory: &TempDir) -> Journal {
        let options = JournalOptions {
            max_size: 256 << 20,
            keep: Duration::from_secs(86_400),
            generation_records: 1000,
            ..JournalOptions::of_tests(directory.path())
        };
        Journal::open(options).unwrap().0
    }

    fn routes(port: u16, timeout: Duration) -> Routes {
        let text = format!(
            "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\n[[nimbox]]\nname = \"crm\"\ntoken = \"t\"\n\
             url = \"http://127.0.0.1:{port}/\"\nallow_http = true\nconcurrency = 2\n"
        );
        let mut config = load_text(&text, "test", &Environment::default()).unwrap().config;
        config.nimbox[0].delivery.timeout = timeout;
        Routes::new(&config)
    }

    /// The first request of a connection, unanswered.
    async fn request(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut seen).await.unwrap();
        }
        stream
    }

    #[tokio::test]
    async fn what_is_answered_while_the_journal_stalls_is_not_sent_again() {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let directory = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let journal = journal(&directory);
        journal.append(Batch { outbox: vec![create(0), create(1)], ..Batch::default() }).await.unwrap();
        let routes = routes(listener.local_addr().unwrap().port(), TIMEOUT);
        let (worker, _orders, mut health) = Worker::new(&routes.routes[0], journal.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run(stop.clone()));
        let (mut first, mut second) = (request(&listener).await, request(&listener).await);
        let stalled = journal.hold().await;
        // the pause that follows is to be kept in the journal
        first.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        sleep(TIMEOUT / 20).await;
        // in a chunk and an end, as most servers send what a script says: whoever looks at it late has to
        // wait for the end
        let taken =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\n{\"error\":false}\r\n0\r\n\r\n";
        second.write_all(taken).await.unwrap();
        sleep(TIMEOUT + TIMEOUT / 4).await;
        drop(stalled);
        let health =
            health.wait_for(|health| health.paused.is_some() && health.in_flight == 0).await.unwrap().clone();
        assert_eq!(health.attempts.get("delivered"), Some(&1), "{:?}", health.attempts);
        stop.cancel();
        task.await.unwrap();
        let counters = journal.status().await.unwrap().routes[0].counters;
        assert_eq!((counters.delivered, counters.pending), (1, 1));
        journal.close().await;
    }
}
