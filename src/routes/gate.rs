//! What a route may do now, and what follows from what came of it. Pure: time and chance are
//! passed in; the worker acts.

use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, BreakerState};
use super::concurrency::Concurrency;
use super::health::{Failing, Paused, RouteHealth};
use super::lane::{Lane, next_slot};
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
pub struct Gate {
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
    /// On which lane it went out.
    pub lane: Lane,
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

impl Gate {
    /// From what [`Gate::stored`] gave before the restart; anything unreadable counts as nothing.
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

    /// Requests under way at once, at most, now.
    pub fn slots(&self) -> usize {
        self.concurrency.limit()
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
            self.next_slot = next_slot(self.next_slot, rate, now);
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

    /// Holds nothing any more for this reason; another configuration may have taken it away.
    pub fn resume_from(&mut self, reason: &str, now: Micros) {
        if self.paused.as_ref().is_some_and(|paused| paused.reason == reason) {
            self.resume(now);
        }
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
            self.breaker.record(failed(outcome.class), attempt.probe.then_some(attempt.started), now);
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
        let live = attempt.lane == Lane::Live;
        let since_accepted = |at: Micros| u64::try_from(at.0.saturating_sub(attempt.accepted.0)).unwrap_or(0);
        // history waits its turn, which says nothing of how late calls are
        if live && attempt.attempts == 0 && !attempt.probe {
            self.health.first_request.observe(buckets::PATIENT, since_accepted(attempt.started));
        }
        if matches!(outcome.class, Class::Delivered | Class::Duplicate) {
            if live {
                self.health.latency.observe(buckets::PATIENT, since_accepted(now));
            }
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
    use std::time::Duration;

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy { retry_for: Duration::from_secs(75 * 3600), concurrency: 4, rate: None, zone: TimeZone::UTC }
    }

    fn gate() -> Gate {
        Gate::new(policy(), None, at(0))
    }

    const fn at(seconds: i64) -> Micros {
        Micros::from_secs(1_790_000_000 + seconds)
    }

    fn outcome(class: Class) -> Outcome {
        Outcome { class, status: None, why: "why".to_owned(), answer: String::new(), retry_after: None }
    }

    /// One attempt at a delivery of that age, from start to end.
    fn attempt(gate: &mut Gate, class: Class, accepted: i64, now: i64) -> Settlement {
        let probe = gate.take(0, at(now)) == Take::Probe;
        gate.started(probe, at(now));
        let attempt = Attempt {
            attempts: 0,
            accepted: at(accepted),
            refused: false,
            probe,
            lane: Lane::Live,
            started: at(now),
        };
        gate.ended(attempt, &outcome(class), at(now), 0.0)
    }

    #[test]
    fn what_is_busy_takes_slots() {
        let mut gate = gate();
        assert_eq!(gate.take(0, at(0)), Take::UpTo(4));
        gate.started(false, at(0));
        assert_eq!(gate.take(1, at(0)), Take::UpTo(3));
        assert_eq!(gate.take(4, at(0)), Take::Wait(None));
        assert_eq!(gate.take(9, at(0)), Take::Wait(None));
    }

    #[test]
    fn a_rate_spaces_requests() {
        let mut gate = Gate::new(Policy { rate: Some(2.0), ..policy() }, None, at(0));
        let half = Micros(at(0).0 + Micros::SECOND / 2);
        assert_eq!(gate.take(0, at(0)), Take::UpTo(1));
        gate.started(false, at(0));
        assert_eq!(gate.take(1, at(0)), Take::Wait(Some(half)));
        assert_eq!(gate.take(1, half), Take::UpTo(1));
        assert_eq!(gate.take(0, at(3600)), Take::UpTo(1), "idle time is not saved up");
        gate.started(false, at(3600));
        assert!(matches!(gate.take(0, at(3600)), Take::Wait(Some(_))));
    }

    #[test]
    fn a_fault_of_the_route_holds_everything_and_asks_again_every_five_minutes() {
        for class in
            [Class::Unauthorized, Class::Moved, Class::Certificate, Class::Forbidden, Class::Unusable]
        {
            let mut gate = gate();
            assert_eq!(attempt(&mut gate, class, 0, 10), Settlement::Released, "{class:?}");
            assert_eq!(gate.take(0, at(11)), Take::Wait(Some(at(310))), "{class:?}");
            assert_eq!(gate.take(0, at(310)), Take::Probe, "{class:?}");
            gate.started(true, at(310));
            assert_eq!(gate.take(0, at(310)), Take::Wait(None), "one probe at a time");
            gate.broken_off(true, at(310));
            assert_eq!(attempt(&mut gate, class, 0, 310), Settlement::Released, "{class:?}");
            assert_eq!(gate.take(0, at(311)), Take::Wait(Some(at(610))), "{class:?}");
            let settlement = attempt(&mut gate, Class::Delivered, 0, 610);
            assert!(matches!(settlement, Settlement::Delivered { .. }), "{settlement:?}");
            assert_eq!(gate.take(0, at(610)), Take::UpTo(4), "{class:?}");
            assert_eq!(gate.health().paused, None);
        }
    }

    #[test]
    fn a_receiver_that_wants_no_more_is_not_asked_until_somebody_acts() {
        let mut gate = gate();
        assert_eq!(attempt(&mut gate, Class::Gone, 0, 10), Settlement::Released);
        assert_eq!(gate.take(0, at(1_000_000)), Take::Wait(None));
        let stored = gate.stored();
        let mut again = Gate::new(policy(), stored.as_deref(), at(2000));
        assert_eq!(again.take(0, at(2000)), Take::Probe, "a restart asks once");
        assert_eq!(attempt(&mut again, Class::Gone, 0, 2000), Settlement::Released);
        assert_eq!(again.take(0, at(1_000_000)), Take::Wait(None));
    }

    #[test]
    fn while_paused_a_receiver_that_is_away_ends_nothing_and_costs_nothing() {
        let mut gate = gate();
        attempt(&mut gate, Class::Unauthorized, 0, 0);
        let long = 90 * 86_400;
        assert_eq!(attempt(&mut gate, Class::Unreachable, 0, long), Settlement::Released);
        assert_eq!(gate.take(0, at(long)), Take::Wait(Some(at(long + 300))));
    }

    #[test]
    fn paused_time_is_no_age() {
        let mut gate = gate();
        attempt(&mut gate, Class::Unauthorized, 0, 0);
        let long = 90 * 86_400;
        attempt(&mut gate, Class::Delivered, 0, long);
        let settlement = attempt(&mut gate, Class::Unreachable, 0, long + 60);
        assert!(matches!(settlement, Settlement::Retry { costs: true, .. }), "{settlement:?}");
        let settlement = attempt(&mut gate, Class::Unreachable, 0, long + 76 * 3600);
        assert!(matches!(settlement, Settlement::Dead { .. }), "{settlement:?}");
    }

    #[test]
    fn behind_an_open_breaker_one_goes_out_at_a_time_and_costs_nothing() {
        let mut gate = gate();
        for _ in 0..5 {
            let settlement = attempt(&mut gate, Class::Unreachable, 0, 0);
            assert!(matches!(settlement, Settlement::Retry { costs: true, .. }), "{settlement:?}");
        }
        assert_eq!(gate.take(0, at(1)), Take::Wait(Some(at(5))));
        assert_eq!(gate.take(0, at(5)), Take::Probe);
        let settlement = attempt(&mut gate, Class::Unreachable, 0, 5);
        let Settlement::Retry { at: next, costs: false, .. } = settlement else {
            unreachable!("a probe costs nothing: {settlement:?}")
        };
        assert_eq!(next, at(15), "the oldest is the next probe again");
        let settlement = attempt(&mut gate, Class::Delivered, 0, 15);
        assert!(matches!(settlement, Settlement::Delivered { .. }), "{settlement:?}");
        assert_eq!(gate.take(0, at(15)), Take::UpTo(1), "carefully at first");
    }

    proptest! {
        #[test]
        fn after_a_black_hole_the_first_success_begins_within_five_minutes(
            recovered in 60i64..7200,
            // a request into the hole takes its whole timeout, whatever that is
            timeout in 1i64..=60,
            chance in -1.0f64..1.0,
        ) {
            let mut gate = gate();
            let (mut now, mut sent) = (0, 0);
            let begun = loop {
                match gate.take(0, at(now)) {
                    Take::Wait(Some(until)) => now = (until.secs() - at(0).secs()).max(now + 1),
                    Take::Wait(None) => unreachable!("nothing is out"),
                    take @ (Take::UpTo(_) | Take::Probe) => {
                        let (probe, began) = (take == Take::Probe, now);
                        gate.started(probe, at(now));
                        let there = now >= recovered;
                        now += if there { 0 } else { timeout };
                        let class = if there { Class::Delivered } else { Class::Unreachable };
                        let attempt = Attempt {
                            attempts: 0,
                            accepted: at(0),
                            refused: false,
                            probe,
                            lane: Lane::Live,
                            started: at(began),
                        };
                        sent += 1;
                        if let Settlement::Delivered { .. } = gate.ended(attempt, &outcome(class), at(now), chance) {
                            break began;
                        }
                    }
                }
            };
            prop_assert!(begun - recovered <= 300, "{begun} - {recovered}");
            prop_assert!(sent < 60, "{sent} requests into the black hole");
        }
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_for_the_whole_route() {
        let mut gate = gate();
        gate.started(false, at(0));
        let attempt = Attempt {
            attempts: 0,
            accepted: at(0),
            refused: false,
            probe: false,
            lane: Lane::Live,
            started: at(0),
        };
        let asks = Outcome { retry_after: Some("60".to_owned()), ..outcome(Class::Throttled) };
        gate.ended(attempt, &asks, at(0), 0.0);
        assert_eq!(gate.take(0, at(1)), Take::Wait(Some(at(60))));
        assert_eq!(gate.take(0, at(60)), Take::UpTo(2), "and half the requests at once");
    }

    #[test]
    fn its_state_survives_a_restart() {
        let mut gate = gate();
        for _ in 0..5 {
            attempt(&mut gate, Class::Unreachable, 0, 100);
        }
        let stored = gate.stored();
        assert!(stored.is_some());
        assert_eq!(gate.stored(), None, "stored once a change");
        let again = Gate::new(policy(), stored.as_deref(), at(101));
        assert_eq!(again.take(0, at(101)), Take::Wait(Some(at(105))));
        assert_eq!(Gate::new(policy(), Some(b"rubbish"), at(101)).take(0, at(101)), Take::UpTo(4));
    }

    #[test]
    fn another_configuration_asks_a_paused_or_failing_receiver_at_once() {
        let mut gate = gate();
        attempt(&mut gate, Class::Gone, 0, 10);
        assert_eq!(gate.take(0, at(1000)), Take::Wait(None));
        gate.asked_again(at(1000));
        assert_eq!(gate.take(0, at(1000)), Take::Probe);
        attempt(&mut gate, Class::Delivered, 0, 1000);
        for _ in 0..5 {
            attempt(&mut gate, Class::Unreachable, 0, 1000);
        }
        assert_eq!(gate.take(0, at(1001)), Take::Wait(Some(at(1005))));
        gate.reconfigured(Policy { concurrency: 2, ..policy() }, at(1001));
        assert_eq!(gate.take(0, at(1001)), Take::UpTo(1), "carefully at first");
        // what was out under the old configuration may still fail
        gate.started(false, at(1001));
        assert!(matches!(attempt(&mut gate, Class::Unreachable, 0, 1002), Settlement::Retry { .. }));
    }

    #[test]
    fn whatever_comes_every_slot_is_free_again_when_all_have_ended() {
        for first in [Class::Delivered, Class::Unreachable, Class::Throttled, Class::Refused, Class::Gone] {
            let mut gate = gate();
            for _ in 0..8 {
                attempt(&mut gate, first, 0, 0);
            }
            assert_eq!(gate.health().in_flight, 0, "{first:?}");
        }
    }
}
