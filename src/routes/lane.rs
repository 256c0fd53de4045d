//! What a route may do now, and what follows from what came of it. Pure: time and chance are
//! passed in; the worker acts.

use std::time::Duration;

use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, BreakerState};
use super::concurrency::Concurrency;
use super::health::{Failing, Paused, RouteHealth};
use super::retry::{Facts, Pause, Policy, Verdict, decide, jittered, retry_after};
use crate::journal::Settlement;
use crate::metrics::buckets;
use crate::sinks::{Class, Outcome};

/// A receiver that asks for time gets at most so much for the whole route; one delivery may wait
/// longer.
const LONGEST_HOLD: i64 = 300 * Micros::SECOND;
/// Paused times that are remembered, to be left out of ages.
const MOST_PAUSES: usize = 32;

/// One route's state.
#[derive(Debug)]
pub struct Lane {
    policy: Policy,
    breaker: Breaker,
    paused: Option<Paused>,
    /// Set while the breaker is not closed.
    failing: Option<Failing>,
    /// Earlier paused times, oldest first.
    pauses: Vec<(Micros, Micros)>,
    concurrency: Concurrency,
    /// Nothing goes out before: the receiver asked for time.
    hold: Micros,
    /// Nothing goes out before: `rate`.
    next_slot: Micros,
    /// The paused route's probe is out.
    probing: bool,
    /// What is stored has changed.
    changed: bool,
    health: RouteHealth,
}

/// What may go out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// So many deliveries.
    UpTo(usize),
    /// One, the oldest that is due, to see whether the receiver is back.
    Probe,
    /// Nothing before this time; `None`: before something else happens.
    Wait(Option<Micros>),
}

/// One attempt as it went out.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Attempts before it.
    pub attempts: u32,
    /// When the delivery was appended.
    pub accepted: Micros,
    /// Whether NiMbox refused it before.
    pub refused: bool,
    /// Whether it is a probe.
    pub probe: bool,
    /// When it went out.
    pub started: Micros,
}

/// What is stored across restarts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    breaker: Breaker,
    #[serde(default)]
    paused: Option<Paused>,
    #[serde(default)]
    failing: Option<Failing>,
    #[serde(default)]
    pauses: Vec<(Micros, Micros)>,
}

impl Lane {
    /// From what [`Lane::stored`] gave before the restart; anything unreadable counts as nothing.
    /// A paused route asks again at once: somebody may have acted.
    pub fn new(policy: Policy, stored: Option<&[u8]>, now: Micros) -> Self {
        let stored: Stored = stored.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
        let paused = stored.paused.map(|paused| Paused { probe: Some(now), ..paused });
        let concurrency = Concurrency::new(policy.concurrency);
        Self {
            breaker: stored.breaker.restored(now),
            paused,
            failing: stored.failing,
            pauses: stored.pauses.into_iter().take(MOST_PAUSES).collect(),
            concurrency,
            policy,
            hold: Micros(i64::MIN),
            next_slot: Micros(i64::MIN),
            probing: false,
            changed: false,
            health: RouteHealth::default(),
        }
    }

    /// What to store, if it has changed since it was last asked.
    pub fn stored(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        serde_json::to_vec(&Stored {
            breaker: self.breaker.clone(),
            paused: self.paused.clone(),
            failing: self.failing.clone(),
            pauses: self.pauses.clone(),
        })
        .ok()
    }

    /// For status.
    pub fn health(&self) -> RouteHealth {
        RouteHealth {
            paused: self.paused.clone(),
            breaker: self.breaker.state(),
            failing: self.failing.clone(),
            concurrency: self.concurrency.limit(),
            ..self.health.clone()
        }
    }

    /// What may go out now, while so many deliveries are out or being settled.
    pub fn take(&self, busy: usize, now: Micros) -> Take {
        if let Some(paused) = &self.paused {
            return match paused.probe {
                Some(at) if at <= now && !self.probing => Take::Probe,
                Some(at) if !self.probing => Take::Wait(Some(at)),
                Some(_) | None => Take::Wait(None),
            };
        }
        match self.breaker.state() {
            BreakerState::Open { until } if until.max(self.hold) <= now => return Take::Probe,
            BreakerState::Open { until } => return Take::Wait(Some(until.max(self.hold))),
            BreakerState::HalfOpen => return Take::Wait(None),
            BreakerState::Closed => {}
        }
        let free = self.concurrency.limit().saturating_sub(busy);
        let wait = self.hold.max(self.next_slot);
        if free == 0 {
            Take::Wait(None)
        } else if wait > now {
            Take::Wait(Some(wait))
        } else if self.policy.rate.is_some() {
            Take::UpTo(1)
        } else {
            Take::UpTo(free)
        }
    }

    /// An attempt goes out.
    pub fn started(&mut self, probe: bool, now: Micros) {
        self.health.in_flight += 1;
        if let Some(rate) = self.policy.rate.filter(|rate| *rate > 0.0) {
            let gap = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::from_secs(3600));
            let gap = i64::try_from(gap.as_micros()).unwrap_or(i64::MAX);
            self.next_slot = Micros(self.next_slot.max(now).0.saturating_add(gap));
        }
        if probe {
            if self.paused.is_some() {
                self.probing = true;
            } else {
                self.breaker.probe();
            }
        }
    }

    /// An attempt was broken off: the agent stops.
    pub fn broken_off(&mut self, probe: bool, now: Micros) {
        self.health.in_flight = self.health.in_flight.saturating_sub(1);
        if probe {
            self.probing = false;
            self.breaker.no_probe(now);
        }
    }

    /// An attempt ended: how to settle its delivery. `chance` is between -1 and 1.
    pub fn ended(&mut self, attempt: Attempt, outcome: &Outcome, now: Micros, chance: f64) -> Settlement {
        self.health.in_flight = self.health.in_flight.saturating_sub(1);
        self.note(attempt, outcome, now);
        let held = self.paused.is_some() && attempt.probe;
        if attempt.probe {
            self.probing = false;
        }
        let facts = Facts {
            attempts: attempt.attempts,
            age: self.age(attempt.accepted, now),
            refused: attempt.refused,
            costs: !attempt.probe,
        };
        let verdict = decide(&self.policy, facts, outcome, now, chance);
        self.bear(attempt, outcome, now, chance);
        match verdict {
            Verdict::Pause(pause) => {
                self.pause(pause, now);
                Settlement::Released
            }
            // still nobody there: the pause goes on, and nothing of it is the delivery's fault
            Verdict::Settle(Settlement::Retry { .. }) if held && failed(outcome.class) => {
                if let Some(paused) = &mut self.paused {
                    paused.probe = Some(now.plus_millis(300_000));
                }
                Settlement::Released
            }
            Verdict::Settle(settlement) => {
                if held {
                    self.resume(now);
                }
                self.at_probe(settlement, attempt.probe && outcome.retry_after.is_none())
            }
        }
    }

    /// The configuration was read again: somebody acted, so a paused route asks again at once.
    pub fn asked_again(&mut self, now: Micros) {
        if let Some(paused) = &mut self.paused {
            paused.probe = Some(now);
        }
    }

    /// Another configuration. What was learned of the receiver holds no longer: it may be another.
    pub fn reconfigured(&mut self, policy: Policy, now: Micros) {
        self.concurrency.configured(policy.concurrency);
        self.policy = policy;
        self.hold = Micros(i64::MIN);
        self.next_slot = Micros(i64::MIN);
        if self.breaker.state() != BreakerState::Closed {
            self.breaker = Breaker::default();
            self.concurrency.afresh();
            self.changed = true;
        }
        self.asked_again(now);
    }

    /// Holds everything.
    pub fn pause(&mut self, pause: Pause, now: Micros) {
        let since = self.paused.as_ref().map_or(now, |paused| paused.since);
        let remedy = pause.remedy.to_owned();
        let reason = pause.reason.to_owned();
        self.paused = Some(Paused { since, reason, why: pause.why, remedy, probe: pause.probe });
        self.changed = true;
    }

    /// Holds nothing any more.
    pub fn resume(&mut self, now: Micros) {
        let Some(paused) = self.paused.take() else { return };
        if self.pauses.len() == MOST_PAUSES {
            self.pauses.remove(0);
        }
        self.pauses.push((paused.since, now));
        self.changed = true;
    }

    /// Time since it was appended, paused time left out, microseconds.
    fn age(&self, accepted: Micros, now: Micros) -> i64 {
        let open = self.paused.iter().map(|paused| (paused.since, now));
        let held: i64 = self
            .pauses
            .iter()
            .copied()
            .chain(open)
            .map(|(from, to)| to.min(now).0.saturating_sub(from.max(accepted).0).max(0))
            .fold(0, i64::saturating_add);
        now.0.saturating_sub(accepted.0).saturating_sub(held).max(0)
    }

    /// What the receiver can bear.
    fn bear(&mut self, attempt: Attempt, outcome: &Outcome, now: Micros, chance: f64) {
        let before = self.breaker.state();
        match outcome.class {
            Class::Throttled | Class::Overloaded => {
                self.concurrency.overloaded(attempt.started, now);
                if let Some(asked) = outcome.retry_after.as_deref().and_then(|text| retry_after(text, now)) {
                    let wait = jittered(asked.min(LONGEST_HOLD), chance.abs());
                    self.hold = self.hold.max(Micros(now.0.saturating_add(wait)));
                }
            }
            Class::Delivered | Class::Duplicate => self.concurrency.went_well(),
            Class::Refused
            | Class::Unreadable
            | Class::Moved
            | Class::Invalid
            | Class::Unauthorized
            | Class::Gone
            | Class::Unavailable
            | Class::Unreachable
            | Class::Certificate
            | Class::Forbidden
            | Class::Unusable
            | Class::Mismatch => {}
        }
        if outcome.class != Class::Mismatch {
            self.breaker.record(failed(outcome.class), attempt.probe, now);
        } else if attempt.probe {
            self.breaker.no_probe(now);
        }
        let after = self.breaker.state();
        if before != after {
            self.changed = true;
            if after == BreakerState::Closed {
                self.concurrency.afresh();
                self.failing = None;
            } else {
                let since = self.failing.as_ref().map_or(now, |failing| failing.since);
                self.failing = Some(Failing { since, why: outcome.why.clone() });
            }
        }
    }

    /// A delivery that failed as a probe is due again when the next probe is: behind an open breaker
    /// the oldest goes first.
    fn at_probe(&self, settlement: Settlement, probe: bool) -> Settlement {
        match (settlement, self.breaker.state()) {
            (Settlement::Retry { why, status, costs, .. }, BreakerState::Open { until }) if probe => {
                Settlement::Retry { at: until, why, status, costs }
            }
            (settlement, _) => settlement,
        }
    }

    fn note(&mut self, attempt: Attempt, outcome: &Outcome, now: Micros) {
        *self.health.attempts.entry(outcome.class.as_str().to_owned()).or_default() += 1;
        let took = u64::try_from(now.0.saturating_sub(attempt.started.0)).unwrap_or(0) / 1000;
        self.health.latency_ms = Some(match self.health.latency_ms {
            None => took,
            Some(before) => (before.saturating_mul(9).saturating_add(took)) / 10,
        });
        let unreadable = outcome.class == Class::Unreadable;
        self.health.unreadable = if unreadable { self.health.unreadable.saturating_add(1) } else { 0 };
        let since_accepted = |at: Micros| u64::try_from(at.0.saturating_sub(attempt.accepted.0)).unwrap_or(0);
        if attempt.attempts == 0 && !attempt.probe {
            self.health.first_request.observe(buckets::PATIENT, since_accepted(attempt.started));
        }
        if matches!(outcome.class, Class::Delivered | Class::Duplicate) {
            self.health.latency.observe(buckets::PATIENT, since_accepted(now));
            self.health.minute.add(1, now);
            self.health.last_success = Some(now);
        } else {
            self.health.last_error = Some((now, outcome.why.clone()));
        }
    }
}

/// Whether the breaker counts it: the receiver did not answer, or failed.
const fn failed(class: Class) -> bool {
    matches!(class, Class::Unreachable | Class::Unavailable | Class::Overloaded)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn policy() -> Policy {
        Policy { retry_for: Duration::from_secs(75 * 3600), concurrency: 4, rate: None, zone: TimeZone::UTC }
    }

    fn lane() -> Lane {
        Lane::new(policy(), None, at(0))
    }

    const fn at(seconds: i64) -> Micros {
        Micros::from_secs(1_790_000_000 + seconds)
    }

    fn outcome(class: Class) -> Outcome {
        Outcome { class, status: None, why: "why".to_owned(), answer: String::new(), retry_after: None }
    }

    /// One attempt at a delivery of that age, from start to end.
    fn attempt(lane: &mut Lane, class: Class, accepted: i64, now: i64) -> Settlement {
        let probe = lane.take(0, at(now)) == Take::Probe;
        lane.started(probe, at(now));
        let attempt =
            Attempt { attempts: 0, accepted: at(accepted), refused: false, probe, started: at(now) };
        lane.ended(attempt, &outcome(class), at(now), 0.0)
    }

    #[test]
    fn what_is_busy_takes_slots() {
        let mut lane = lane();
        assert_eq!(lane.take(0, at(0)), Take::UpTo(4));
        lane.started(false, at(0));
        assert_eq!(lane.take(1, at(0)), Take::UpTo(3));
        assert_eq!(lane.take(4, at(0)), Take::Wait(None));
        assert_eq!(lane.take(9, at(0)), Take::Wait(None));
    }

    #[test]
    fn a_rate_spaces_requests() {
        let mut lane = Lane::new(Policy { rate: Some(2.0), ..policy() }, None, at(0));
        let half = Micros(at(0).0 + Micros::SECOND / 2);
        assert_eq!(lane.take(0, at(0)), Take::UpTo(1));
        lane.started(false, at(0));
        assert_eq!(lane.take(1, at(0)), Take::Wait(Some(half)));
        assert_eq!(lane.take(1, half), Take::UpTo(1));
        assert_eq!(lane.take(0, at(3600)), Take::UpTo(1), "idle time is not saved up");
        lane.started(false, at(3600));
        assert!(matches!(lane.take(0, at(3600)), Take::Wait(Some(_))));
    }

    #[test]
    fn a_fault_of_the_route_holds_everything_and_asks_again_every_five_minutes() {
        for class in
            [Class::Unauthorized, Class::Moved, Class::Certificate, Class::Forbidden, Class::Unusable]
        {
            let mut lane = lane();
            assert_eq!(attempt(&mut lane, class, 0, 10), Settlement::Released, "{class:?}");
            assert_eq!(lane.take(0, at(11)), Take::Wait(Some(at(310))), "{class:?}");
            assert_eq!(lane.take(0, at(310)), Take::Probe, "{class:?}");
            lane.started(true, at(310));
            assert_eq!(lane.take(0, at(310)), Take::Wait(None), "one probe at a time");
            lane.broken_off(true, at(310));
            assert_eq!(attempt(&mut lane, class, 0, 310), Settlement::Released, "{class:?}");
            assert_eq!(lane.take(0, at(311)), Take::Wait(Some(at(610))), "{class:?}");
            let settlement = attempt(&mut lane, Class::Delivered, 0, 610);
            assert!(matches!(settlement, Settlement::Delivered { .. }), "{settlement:?}");
            assert_eq!(lane.take(0, at(610)), Take::UpTo(4), "{class:?}");
            assert_eq!(lane.health().paused, None);
        }
    }

    #[test]
    fn a_receiver_that_wants_no_more_is_not_asked_until_somebody_acts() {
        let mut lane = lane();
        assert_eq!(attempt(&mut lane, Class::Gone, 0, 10), Settlement::Released);
        assert_eq!(lane.take(0, at(1_000_000)), Take::Wait(None));
        let stored = lane.stored();
        let mut again = Lane::new(policy(), stored.as_deref(), at(2000));
        assert_eq!(again.take(0, at(2000)), Take::Probe, "a restart asks once");
        assert_eq!(attempt(&mut again, Class::Gone, 0, 2000), Settlement::Released);
        assert_eq!(again.take(0, at(1_000_000)), Take::Wait(None));
    }

    #[test]
    fn while_paused_a_receiver_that_is_away_ends_nothing_and_costs_nothing() {
        let mut lane = lane();
        attempt(&mut lane, Class::Unauthorized, 0, 0);
        let long = 90 * 86_400;
        assert_eq!(attempt(&mut lane, Class::Unreachable, 0, long), Settlement::Released);
        assert_eq!(lane.take(0, at(long)), Take::Wait(Some(at(long + 300))));
    }

    #[test]
    fn paused_time_is_no_age() {
        let mut lane = lane();
        attempt(&mut lane, Class::Unauthorized, 0, 0);
        let long = 90 * 86_400;
        attempt(&mut lane, Class::Delivered, 0, long);
        let settlement = attempt(&mut lane, Class::Unreachable, 0, long + 60);
        assert!(matches!(settlement, Settlement::Retry { costs: true, .. }), "{settlement:?}");
        let settlement = attempt(&mut lane, Class::Unreachable, 0, long + 76 * 3600);
        assert!(matches!(settlement, Settlement::Dead { .. }), "{settlement:?}");
    }

    #[test]
    fn behind_an_open_breaker_one_goes_out_at_a_time_and_costs_nothing() {
        let mut lane = lane();
        for _ in 0..5 {
            let settlement = attempt(&mut lane, Class::Unreachable, 0, 0);
            assert!(matches!(settlement, Settlement::Retry { costs: true, .. }), "{settlement:?}");
        }
        assert_eq!(lane.take(0, at(1)), Take::Wait(Some(at(5))));
        assert_eq!(lane.take(0, at(5)), Take::Probe);
        let settlement = attempt(&mut lane, Class::Unreachable, 0, 5);
        let Settlement::Retry { at: next, costs: false, .. } = settlement else {
            unreachable!("a probe costs nothing: {settlement:?}")
        };
        assert_eq!(next, at(15), "the oldest is the next probe again");
        let settlement = attempt(&mut lane, Class::Delivered, 0, 15);
        assert!(matches!(settlement, Settlement::Delivered { .. }), "{settlement:?}");
        assert_eq!(lane.take(0, at(15)), Take::UpTo(1), "carefully at first");
    }

    #[test]
    fn an_hour_of_black_hole_is_over_within_five_minutes_of_the_recovery() {
        let mut lane = lane();
        let mut now = 0;
        let mut sent = 0;
        let recovered = 3600;
        let first = loop {
            match lane.take(0, at(now)) {
                Take::Wait(Some(until)) => now = until.secs() - at(0).secs(),
                Take::Wait(None) => unreachable!("nothing is out"),
                Take::UpTo(_) | Take::Probe => {
                    sent += 1;
                    let class = if now >= recovered { Class::Delivered } else { Class::Unreachable };
                    if matches!(attempt(&mut lane, class, 0, now), Settlement::Delivered { .. }) {
                        break now;
                    }
                }
            }
        };
        assert!(first - recovered <= 300, "{first}");
        assert!(sent < 30, "{sent} requests into the black hole");
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_for_the_whole_route() {
        let mut lane = lane();
        lane.started(false, at(0));
        let attempt = Attempt { attempts: 0, accepted: at(0), refused: false, probe: false, started: at(0) };
        let asks = Outcome { retry_after: Some("60".to_owned()), ..outcome(Class::Throttled) };
        lane.ended(attempt, &asks, at(0), 0.0);
        assert_eq!(lane.take(0, at(1)), Take::Wait(Some(at(60))));
        assert_eq!(lane.take(0, at(60)), Take::UpTo(2), "and half the requests at once");
    }

    #[test]
    fn its_state_survives_a_restart() {
        let mut lane = lane();
        for _ in 0..5 {
            attempt(&mut lane, Class::Unreachable, 0, 100);
        }
        let stored = lane.stored();
        assert!(stored.is_some());
        assert_eq!(lane.stored(), None, "stored once a change");
        let again = Lane::new(policy(), stored.as_deref(), at(101));
        assert_eq!(again.take(0, at(101)), Take::Wait(Some(at(105))));
        assert_eq!(Lane::new(policy(), Some(b"rubbish"), at(101)).take(0, at(101)), Take::UpTo(4));
    }

    #[test]
    fn another_configuration_asks_a_paused_or_failing_receiver_at_once() {
        let mut lane = lane();
        attempt(&mut lane, Class::Gone, 0, 10);
        assert_eq!(lane.take(0, at(1000)), Take::Wait(None));
        lane.asked_again(at(1000));
        assert_eq!(lane.take(0, at(1000)), Take::Probe);
        attempt(&mut lane, Class::Delivered, 0, 1000);
        for _ in 0..5 {
            attempt(&mut lane, Class::Unreachable, 0, 1000);
        }
        assert_eq!(lane.take(0, at(1001)), Take::Wait(Some(at(1005))));
        lane.reconfigured(Policy { concurrency: 2, ..policy() }, at(1001));
        assert_eq!(lane.take(0, at(1001)), Take::UpTo(1), "carefully at first");
        // what was out under the old configuration may still fail
        lane.started(false, at(1001));
        assert!(matches!(attempt(&mut lane, Class::Unreachable, 0, 1002), Settlement::Retry { .. }));
    }

    #[test]
    fn whatever_comes_every_slot_is_free_again_when_all_have_ended() {
        for first in [Class::Delivered, Class::Unreachable, Class::Throttled, Class::Refused, Class::Gone] {
            let mut lane = lane();
            for _ in 0..8 {
                attempt(&mut lane, first, 0, 0);
            }
            assert_eq!(lane.health().in_flight, 0, "{first:?}");
        }
    }
}
