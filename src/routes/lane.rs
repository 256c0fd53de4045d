//! What a route may do now, and what follows from what came of it. Pure: time and chance are
//! passed in; the worker acts.

use std::time::Duration;

use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, BreakerState};
use super::concurrency::Concurrency;
use super::health::{Paused, RouteHealth};
use super::retry::{Facts, Pause, Policy, Verdict, decide, jittered, retry_after};
use crate::journal::Settlement;
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
            pauses: self.pauses.clone(),
        })
        .ok()
    }

    /// For status.
    pub fn health(&self) -> RouteHealth {
        RouteHealth {
            paused: self.paused.clone(),
            breaker: self.breaker.state(),
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

    /// Holds everything.
    pub fn pause(&mut self, pause: Pause, now: Micros) {
        let since = self.paused.as_ref().map_or(now, |paused| paused.since);
        let remedy = pause.remedy.to_owned();
        self.paused = Some(Paused { since, why: pause.why, remedy, probe: pause.probe });
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
        if matches!(outcome.class, Class::Delivered | Class::Duplicate) {
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
