//! One task a route: takes what is due, sends it, settles it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parsers::Micros;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::breaker::BreakerState;
use super::health::RouteHealth;
use super::lane::{Attempt, Lane, Take};
use super::retry::{Pause, Policy, jittered, was_refused};
use super::route::Route;
use crate::calls::UpdateId;
use crate::clock;
use crate::hex::hex;
use crate::journal::{Delivery, DeliveryKey, Journal, JournalError, RouteId, Settlement};
use crate::sinks::{Class, Outcome, Sink, test_body};

/// After the stop, requests under way get so long.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// A journal that cannot be read or written is tried again after this, doubling.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);
const JOURNAL_LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What the journal calls due but does not hand out is not asked for again sooner, milliseconds.
const SOONEST_LOOK: i64 = 50;
/// A receiver has so long to take the new secret.
const OVERLAP: i64 = 24 * 3600 * Micros::SECOND;
/// Test events: seconds to the second one, doubling.
const VERIFY_WAIT: i64 = 5;
const VERIFY_LONGEST_WAIT: i64 = 300;
/// Why a route waits that has not answered a test event, in a word.
const UNVERIFIED: &str = "unverified";
/// Answers in a row that are not NiMbox's before somebody is told.
const UNREADABLE_ALARM: u64 = 3;

/// Runs one route until told to stop.
pub struct Worker {
    route: RouteId,
    setup: Arc<WorkerSetup>,
    orders: watch::Receiver<Orders>,
    journal: Journal,
    clock: Clock,
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
enum Left {
    /// The agent stops.
    Stopped,
    /// There are other orders.
    Ordered,
}

type Flights = FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>;

/// How far a delivery got.
enum Step {
    Answered(Box<(Delivery, Attempt, Outcome)>),
    Settled(DeliveryKey),
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
        let worker =
            Self { route: route.id.clone(), setup, orders: told, journal, clock: Clock::new(), health };
        (worker, orders, tells)
    }

    /// Delivers until told to stop; then lets what is under way end, for 5 s, and gives back the
    /// rest.
    pub async fn run(mut self, stop: CancellationToken) {
        let name = self.note_name("lane");
        let stored = self.journal.note(&name).await.ok().flatten();
        let now = self.clock.now();
        let mut lane = Lane::new(self.setup.policy.clone(), stored.as_deref(), now);
        let mut told = false;
        loop {
            let left = if !self.follow(&mut lane) {
                self.hold(&stop).await
            } else {
                self.rotate().await;
                match self.verified(&mut lane, &stop).await {
                    Ok(()) => {
                        if !std::mem::replace(&mut told, true) {
                            info!(route = %self.route.0, host = self.setup.sink.host(), "route delivers");
                        }
                        self.deliver(&mut lane, &stop).await
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
    fn follow(&mut self, lane: &mut Lane) -> bool {
        let setup = self.orders.borrow_and_update().setup.clone();
        let Some(setup) = setup else { return false };
        let now = self.clock.now();
        if Arc::ptr_eq(&setup, &self.setup) {
            lane.asked_again(now);
        } else {
            lane.reconfigured(setup.policy.clone(), now);
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

    async fn deliver(&mut self, lane: &mut Lane, stop: &CancellationToken) -> Left {
        let mut flights: Flights = FuturesUnordered::new();
        let mut out: HashMap<DeliveryKey, bool> = HashMap::new();
        let mut journal_wait = JOURNAL_WAIT;
        // Nothing more is due until then, or until the journal says so.
        let mut drained: Option<Option<Micros>> = None;
        loop {
            let now = self.clock.now();
            let (wake, idle) = match (lane.take(flights.len(), now), drained) {
                (Take::Wait(at), _) => (at, false),
                (_, Some(next)) if next.is_none_or(|next| next > now) => (next, true),
                (take @ (Take::UpTo(_) | Take::Probe), _) => {
                    let (limit, probe) = match take {
                        Take::UpTo(limit) => (limit, false),
                        Take::Probe | Take::Wait(_) => (1, true),
                    };
                    match self.journal.due(&self.route, now, limit).await {
                        Ok((due, next)) => {
                            journal_wait = JOURNAL_WAIT;
                            let next = next.map(|next| next.max(now.plus_millis(SOONEST_LOOK)));
                            drained = (due.len() < limit).then_some(next);
                            for delivery in due {
                                out.insert(delivery.key, probe);
                                flights.push(self.attempt(lane, delivery, probe, now));
                            }
                            self.publish(lane).await;
                            continue;
                        }
                        Err(JournalError::Closed) => break,
                        Err(error) => {
                            warn!(route = %self.route.0, %error, "cannot read what is due");
                            let at = now.0.saturating_add(micros(journal_wait));
                            journal_wait = (journal_wait * 2).min(JOURNAL_LONGEST_WAIT);
                            (Some(Micros(at)), false)
                        }
                    }
                }
            };
            self.publish(lane).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = ordered(&mut self.orders) => {
                    if !self.goes_on() {
                        return self.drain(lane, flights, out, stop).await;
                    }
                    // requests under way keep the sink that they began with
                    self.follow(lane);
                    self.rotate().await;
                }
                Some(step) = flights.next() => {
                    // with more to come, what frees a place does not wait
                    let patient = drained.is_some();
                    self.step(lane, &mut flights, &mut out, step, patient, stop);
                }
                () = self.journal.wait_for_work(&self.route), if idle => drained = None,
                () = sleep(self.clock.until(wake)), if wake.is_some() => {}
            }
        }
        self.finish(lane, flights, out).await;
        Left::Stopped
    }

    /// Nothing new goes out; what is under way ends, however long its timeout lets it.
    async fn drain(
        &mut self,
        lane: &mut Lane,
        mut flights: Flights,
        mut out: HashMap<DeliveryKey, bool>,
        stop: &CancellationToken,
    ) -> Left {
        loop {
            self.publish(lane).await;
            tokio::select! {
                () = stop.cancelled() => break,
                step = flights.next() => match step {
                    Some(step) => self.step(lane, &mut flights, &mut out, step, false, stop),
                    None => return Left::Ordered,
                },
            }
        }
        self.finish(lane, flights, out).await;
        Left::Stopped
    }

    /// Nothing new goes out; what is under way may end.
    async fn finish(&mut self, lane: &mut Lane, mut flights: Flights, mut out: HashMap<DeliveryKey, bool>) {
        let never = CancellationToken::new();
        let deadline = Instant::now() + LAST_WAIT;
        while let Ok(Some(step)) = tokio::time::timeout_at(deadline, flights.next()).await {
            self.step(lane, &mut flights, &mut out, step, false, &never);
        }
        let now = self.clock.now();
        for (key, probe) in out {
            lane.broken_off(probe, now);
            // where this fails the lease ends with the process
            let _ = self.journal.settle(key, Settlement::Released, now).await;
        }
        self.publish(lane).await;
    }

    fn step(
        &mut self,
        lane: &mut Lane,
        flights: &mut Flights,
        out: &mut HashMap<DeliveryKey, bool>,
        step: Step,
        patient: bool,
        stop: &CancellationToken,
    ) {
        match step {
            Step::Settled(key) => {
                out.remove(&key);
            }
            Step::Answered(answered) => {
                let (delivery, attempt, outcome) = *answered;
                let now = self.clock.now();
                let before = lane.health();
                let settlement = lane.ended(attempt, &outcome, now, chance());
                self.tell(&before, &lane.health(), &delivery, &outcome, &settlement);
                flights.push(Box::pin(settle(
                    self.journal.clone(),
                    delivery.key,
                    settlement,
                    now,
                    patient,
                    stop.clone(),
                )));
            }
        }
    }

    fn attempt(
        &self,
        lane: &mut Lane,
        delivery: Delivery,
        probe: bool,
        started: Micros,
    ) -> Pin<Box<dyn Future<Output = Step> + Send>> {
        lane.started(probe, started);
        let attempt = Attempt {
            attempts: delivery.attempts,
            accepted: delivery.accepted,
            refused: delivery.last.as_ref().is_some_and(was_refused),
            probe,
            started,
        };
        let sink = Arc::clone(&self.setup.sink);
        Box::pin(async move {
            let outcome = sink.send(&delivery).await;
            Step::Answered(Box::new((delivery, attempt, outcome)))
        })
    }

    /// Stores the lane's state where it changed, and tells how the route fares.
    async fn publish(&self, lane: &mut Lane) {
        if let Some(stored) = lane.stored()
            && let Err(error) = self.journal.set_note(&self.note_name("lane"), Some(stored)).await
        {
            debug!(route = %self.route.0, %error, "cannot keep the route's state");
        }
        let health = lane.health();
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

    /// Posts test events until one is answered, unless this URL answered one before.
    async fn verified(&mut self, lane: &mut Lane, stop: &CancellationToken) -> Result<(), Left> {
        let setup = Arc::clone(&self.setup);
        let (Some(url), Sink::Webhook(sink)) = (&setup.verify, &*setup.sink) else { return Ok(()) };
        let route = self.route.clone();
        let (route, host) = (&*route.0, sink.host());
        let name = self.note_name("verified");
        // the URL itself may be secret
        let fingerprint = hex(&Sha256::digest(url.as_str().as_bytes()));
        let known = self.journal.note(&name).await.ok().flatten();
        if known.as_deref() == Some(fingerprint.as_bytes()) {
            return Ok(());
        }
        let first = self.clock.now();
        let id = test_id(&setup.pbx, route, first);
        let body = test_body(&id, first);
        let mut wait = VERIFY_WAIT;
        let mut why = "the receiver has not answered the test event yet".to_owned();
        loop {
            let now = self.clock.now();
            let next = Micros(now.0.saturating_add(jittered(wait * Micros::SECOND, chance())));
            let remedy = "make the receiver answer a POST at this URL with 2xx, or set verify = false; `callpost check` shows the address to admit";
            lane.pause(Pause { reason: UNVERIFIED, why: why.clone(), remedy, probe: Some(next) }, now);
            self.publish(lane).await;
            let outcome = tokio::select! {
                () = stop.cancelled() => return Err(Left::Stopped),
                () = ordered(&mut self.orders) => return Err(Left::Ordered),
                outcome = sink.post(&id, None, &body) => outcome,
            };
            if outcome.class == Class::Delivered {
                if let Err(error) = self.journal.set_note(&name, Some(fingerprint.into_bytes())).await {
                    debug!(route, %error, "cannot keep that the URL is verified");
                }
                lane.resume(self.clock.now());
                self.publish(lane).await;
                info!(route, host, "webhook verified by a test event");
                return Ok(());
            }
            warn!(route, host, why = outcome.why, "test event not accepted, the route waits");
            why = format!("the receiver did not accept the test event: {}", outcome.why);
            lane.pause(Pause { reason: UNVERIFIED, why: why.clone(), remedy, probe: Some(next) }, now);
            self.publish(lane).await;
            wait = (wait * 2).min(VERIFY_LONGEST_WAIT);
            tokio::select! {
                () = stop.cancelled() => return Err(Left::Stopped),
                () = ordered(&mut self.orders) => return Err(Left::Ordered),
                () = sleep(self.clock.until(Some(next))) => {}
            }
        }
    }

    fn note_name(&self, what: &str) -> String {
        format!("route/{}/{what}", self.route.0)
    }
}

/// Waits for other orders; for ever where nobody gives any.
async fn ordered(orders: &mut watch::Receiver<Orders>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Until it is on disk: a delivery that is made but not settled would be made again.
async fn settle(
    journal: Journal,
    key: DeliveryKey,
    settlement: Settlement,
    now: Micros,
    patient: bool,
    stop: CancellationToken,
) -> Step {
    let mut wait = JOURNAL_WAIT;
    let mut patient = patient && matches!(settlement, Settlement::Delivered { .. });
    loop {
        let settled = if std::mem::replace(&mut patient, false) {
            journal.settle_soon(key, settlement.clone(), now).await
        } else {
            journal.settle(key, settlement.clone(), now).await
        };
        match settled {
            Ok(()) | Err(JournalError::Closed) => return Step::Settled(key),
            Err(error) => warn!(%error, "cannot keep how a delivery ended"),
        }
        tokio::select! {
            () = stop.cancelled() => return Step::Settled(key),
            () = sleep(wait) => {}
        }
        wait = (wait * 2).min(JOURNAL_LONGEST_WAIT);
    }
}

/// As an update's id, from what a test event is about.
fn test_id(pbx: &str, route: &str, at: Micros) -> UpdateId {
    let mut hash = Sha256::new();
    for text in [pbx, "test", route, &at.0.to_string()] {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    UpdateId(format!("{pbx}.{}.0", &hex(&hash.finalize())[..14]).into())
}

/// Between -1 and 1.
fn chance() -> f64 {
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX) * 2.0 - 1.0)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The time of day, except that it never goes back while the process runs: what was put off by
/// minutes must not wait for a day because somebody set the clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    read: Instant,
    then: Micros,
}

impl Clock {
    fn new() -> Self {
        Self { read: Instant::now(), then: clock::now() }
    }

    fn now(&mut self) -> Micros {
        let now = self.at(clock::now());
        *self = Self { read: Instant::now(), then: now };
        now
    }

    fn at(&self, wall: Micros) -> Micros {
        wall.max(Micros(self.then.0.saturating_add(micros(self.read.elapsed()))))
    }

    fn until(&self, at: Option<Micros>) -> Duration {
        let wait = at.map_or(0, |at| at.0.saturating_sub(self.at(clock::now()).0));
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }
}
