//! The retry rule: what to do with a delivery after an attempt. Pure: time and chance are passed in.

use std::time::Duration;

use jiff::civil::Time;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use parsers::Micros;

use crate::journal::Settlement;
use crate::sinks::{Class, Outcome};

/// Seconds from a failed attempt to the next, by the number of attempts made: 75 hours together.
/// Standard Webhooks' schedule; the first attempt is made at once.
const LADDER: [i64; 10] = [5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// No wait is longer, whatever `Retry-After` says.
const LONGEST_WAIT: i64 = 86_400;
/// Part of a wait that chance adds or takes.
const JITTER: f64 = 0.2;
/// A request that the receiver finds fault with is made so many times.
const TRIES_OF_INVALID: u32 = 3;
/// A business refusal is offered again for so long.
const REFUSED_FOR: i64 = 30 * 86_400;
/// When refusals are offered again, in the PBX's zone: nobody telephones, nobody's backup runs.
const NIGHTLY: Time = Time::constant(2, 30, 0, 0);
/// A refusal is not offered again sooner than this, seconds.
const SOONEST_NIGHT: i64 = 6 * 3600;
/// Chance spreads the nightly offers over twice this, seconds.
const NIGHT_SPREAD: f64 = 1800.0;
/// Marks, in the journal, a delivery that was refused before.
const REFUSED: &str = "refused: ";
/// A paused route asks again with one delivery, seconds.
const PROBE_EVERY: i64 = 300;

/// How patiently a route delivers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Deliveries that keep failing become dead letters at this age, paused time not counted.
    pub retry_for: Duration,
    /// Requests under way at once, at most.
    pub concurrency: usize,
    /// Requests a second.
    pub rate: Option<f64>,
    /// Whose nights refusals wait for.
    pub zone: TimeZone,
}

/// What the rule needs to know of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Attempts before this one.
    pub attempts: u32,
    /// Since it was appended, microseconds, paused time left out.
    pub age: i64,
    /// Whether NiMbox refused it before: then the nights count, not `retry_for`.
    pub refused: bool,
    /// Whether this attempt counts; not behind an open breaker.
    pub costs: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// This delivery is the matter.
    Settle(Settlement),
    /// The route is the matter: hold everything.
    Pause(Pause),
}

/// Why a route holds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// In a word, for metrics: the class of answer, or `unverified`.
    pub reason: &'static str,
    /// What happened.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// When to ask again; `None`: not before somebody acts.
    pub probe: Option<Micros>,
}

/// Chooses. `chance` is between -1 and 1.
pub fn decide(policy: &Policy, facts: Facts, outcome: &Outcome, now: Micros, chance: f64) -> Verdict {
    let why = outcome.why.clone();
    let status = outcome.status;
    let answer = outcome.answer.clone();
    let settlement = match outcome.class {
        Class::Delivered | Class::Duplicate => Settlement::Delivered { status, answer },
        Class::Mismatch => Settlement::Dead { why, status, answer },
        Class::Refused if facts.age >= REFUSED_FOR * Micros::SECOND => Settlement::Refused { why, answer },
        Class::Refused => {
            let why = format!("{REFUSED}{why}");
            Settlement::Retry { at: night(&policy.zone, now, chance), why, status, costs: facts.costs }
        }
        Class::Invalid if facts.attempts + 1 >= TRIES_OF_INVALID => Settlement::Dead { why, status, answer },
        Class::Invalid
        | Class::Unreadable
        | Class::Throttled
        | Class::Overloaded
        | Class::Unavailable
        | Class::Unreachable => {
            let patience = if facts.refused {
                REFUSED_FOR * Micros::SECOND
            } else {
                i64::try_from(policy.retry_for.as_micros()).unwrap_or(i64::MAX)
            };
            let why = if facts.refused { format!("{REFUSED}then {why}") } else { why };
            if facts.age >= patience {
                Settlement::Dead { why: format!("{why}; given up after retry_for"), status, answer }
            } else {
                let wait = wait(facts, patience - facts.age, outcome, now, chance);
                Settlement::Retry { at: Micros(now.0.saturating_add(wait)), why, status, costs: facts.costs }
            }
        }
        Class::Moved
        | Class::Unauthorized
        | Class::Gone
        | Class::Certificate
        | Class::Forbidden
        | Class::Unusable => return Verdict::Pause(pause(outcome, now)),
    };
    Verdict::Settle(settlement)
}

/// Microseconds until the next attempt. The last one is made when patience ends, not long after.
fn wait(facts: Facts, patience_left: i64, outcome: &Outcome, now: Micros, chance: f64) -> i64 {
    let step = ladder_step(facts.attempts);
    let shortest = LADDER[0] * Micros::SECOND;
    let wait = jittered(step, chance).min(patience_left.max(shortest));
    match outcome.retry_after.as_deref().and_then(|text| retry_after(text, now)) {
        Some(asked) => asked.min(LONGEST_WAIT * Micros::SECOND).max(wait),
        None => wait,
    }
}

/// Microseconds, by attempts made before the one that failed.
fn ladder_step(attempts: u32) -> i64 {
    let step = usize::try_from(attempts).unwrap_or(usize::MAX).min(LADDER.len() - 1);
    LADDER[step] * Micros::SECOND
}

/// This wait, a fifth longer or shorter. `chance` is between -1 and 1.
pub(super) fn jittered(micros: i64, chance: f64) -> i64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "waits are days at most: far inside 52 bits"
    )]
    let spread = (micros as f64 * JITTER * chance.clamp(-1.0, 1.0)) as i64;
    micros + spread
}

/// Microseconds from now: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(text: &str, now: Micros) -> Option<i64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(LONGEST_WAIT);
        return Some(seconds * Micros::SECOND);
    }
    let at = rfc2822::parse(text).ok()?.timestamp();
    Some(at.as_microsecond().saturating_sub(now.0).max(0))
}

/// The next night that is far enough away.
fn night(zone: &TimeZone, now: Micros, chance: f64) -> Micros {
    #[expect(clippy::cast_possible_truncation, reason = "half an hour in microseconds")]
    let spread = (NIGHT_SPREAD * chance.clamp(-1.0, 1.0) * 1e6) as i64;
    let tomorrow = Micros(now.0.saturating_add(REFUSED_AGAIN_IN_DOUBT));
    let earliest = now.0.saturating_add(SOONEST_NIGHT * Micros::SECOND);
    let Ok(from) = Timestamp::from_microsecond(earliest) else { return tomorrow };
    let mut date = from.to_zoned(zone.clone()).date();
    for _ in 0..3 {
        let at = date.to_datetime(NIGHTLY).to_zoned(zone.clone());
        match at.map(|at| at.timestamp().as_microsecond()) {
            Ok(at) if at >= earliest => return Micros(at.saturating_add(spread)),
            Ok(_) | Err(_) => {}
        }
        let Ok(next) = date.checked_add(1.day()) else { return tomorrow };
        date = next;
    }
    tomorrow
}

/// A day, in microseconds: where the calendar gives no night.
const REFUSED_AGAIN_IN_DOUBT: i64 = 86_400 * Micros::SECOND;

/// Whether a delivery was refused when it was last offered, or is still waiting because of that.
pub(super) fn was_refused(last: &Settlement) -> bool {
    matches!(last, Settlement::Retry { why, .. } if why.starts_with(REFUSED))
}

fn pause(outcome: &Outcome, now: Micros) -> Pause {
    let remedy = match outcome.class {
        Class::Moved => "set url to where the receiver is now; callpost follows no redirect",
        Class::Gone => "ask the receiver's owner; then restart callpost, or set enabled = false on this sink",
        Class::Certificate => {
            "renew the receiver's certificate, or name its authority in ca_file, or its key in pin"
        }
        Class::Forbidden => "correct url or the name's DNS record",
        Class::Unusable => "correct the configuration; `callpost check` shows it",
        _ => "correct url, token or credentials; `callpost check` shows what the receiver says",
    };
    let probe = (outcome.class != Class::Gone).then(|| now.plus_millis(PROBE_EVERY * 1000));
    Pause { reason: outcome.class.as_str(), why: outcome.why.clone(), remedy, probe }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]

    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn policy() -> Policy {
        Policy {
            retry_for: Duration::from_secs(75 * 3600),
            concurrency: 2,
            rate: None,
            zone: TimeZone::fixed(jiff::tz::offset(-4)),
        }
    }

    fn outcome(class: Class) -> Outcome {
        Outcome { class, status: None, why: "why".to_owned(), answer: String::new(), retry_after: None }
    }

    fn asking(retry_after: &str) -> Outcome {
        Outcome { retry_after: Some(retry_after.to_owned()), ..outcome(Class::Throttled) }
    }

    fn facts(attempts: u32, age: i64) -> Facts {
        Facts { attempts, age: age * Micros::SECOND, refused: false, costs: true }
    }

    /// Seconds until the next attempt.
    fn next(policy: &Policy, facts: Facts, outcome: &Outcome, now: Micros, chance: f64) -> i64 {
        match decide(policy, facts, outcome, now, chance) {
            Verdict::Settle(Settlement::Retry { at, .. }) => (at.0 - now.0) / Micros::SECOND,
            other => panic!("not tried again: {other:?}"),
        }
    }

    #[test]
    fn the_whole_ladder_and_then_a_dead_letter() {
        for (chance, expected) in [
            (0.0, vec![5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 84_265]),
            (1.0, vec![6, 36, 360, 2160, 8640, 21_600, 43_200, 60_480, 86_400, 47_118]),
            (-1.0, vec![4, 24, 240, 1440, 5760, 14_400, 28_800, 40_320, 57_600, 69_120, 52_292]),
        ] {
            let mut age = 0;
            let mut waits = Vec::new();
            let dead = loop {
                let attempts = u32::try_from(waits.len()).unwrap();
                let now = Micros::from_secs(1_790_000_000 + age);
                match decide(&policy(), facts(attempts, age), &outcome(Class::Unreachable), now, chance) {
                    Verdict::Settle(Settlement::Retry { at, costs, .. }) => {
                        assert!(costs);
                        waits.push(at.secs() - now.secs());
                        age += at.secs() - now.secs();
                    }
                    Verdict::Settle(dead) => break dead,
                    Verdict::Pause(pause) => panic!("{pause:?}"),
                }
            };
            assert_eq!(waits, expected, "chance {chance}");
            assert_eq!(age, 75 * HOUR, "the last attempt is made when patience ends");
            assert!(matches!(dead, Settlement::Dead { .. }), "{dead:?}");
        }
    }

    #[test]
    fn a_short_patience_ends_with_a_last_attempt_in_time() {
        let policy = Policy { retry_for: Duration::from_secs(60), ..policy() };
        let failed = outcome(Class::Unavailable);
        assert_eq!(next(&policy, facts(2, 35), &failed, Micros(0), 0.0), 25);
        assert_eq!(next(&policy, facts(2, 59), &failed, Micros(0), 0.0), 5, "not at once");
        let verdict = decide(&policy, facts(3, 60), &failed, Micros(0), 0.0);
        assert!(matches!(verdict, Verdict::Settle(Settlement::Dead { .. })), "{verdict:?}");
    }

    #[test]
    fn what_follows_from_each_class() {
        let table = [
            (Class::Delivered, "delivered"),
            (Class::Duplicate, "delivered"),
            (Class::Refused, "retry"),
            (Class::Unreadable, "retry"),
            (Class::Moved, "pause"),
            (Class::Invalid, "retry"),
            (Class::Unauthorized, "pause"),
            (Class::Gone, "pause for good"),
            (Class::Throttled, "retry"),
            (Class::Overloaded, "retry"),
            (Class::Unavailable, "retry"),
            (Class::Unreachable, "retry"),
            (Class::Certificate, "pause"),
            (Class::Forbidden, "pause"),
            (Class::Unusable, "pause"),
            (Class::Mismatch, "dead"),
        ];
        for (class, expected) in table {
            let now = Micros::from_secs(1_790_000_000);
            let got = match decide(&policy(), facts(0, 1), &outcome(class), now, 0.0) {
                Verdict::Settle(Settlement::Delivered { .. }) => "delivered",
                Verdict::Settle(Settlement::Retry { .. }) => "retry",
                Verdict::Settle(Settlement::Dead { .. }) => "dead",
                Verdict::Settle(Settlement::Refused { .. }) => "refused",
                Verdict::Settle(Settlement::Released) => "released",
                Verdict::Pause(Pause { probe: None, .. }) => "pause for good",
                Verdict::Pause(Pause { probe: Some(at), .. }) => {
                    assert_eq!(at.secs() - now.secs(), 300);
                    "pause"
                }
            };
            assert_eq!(got, expected, "{class:?}");
        }
    }

    #[test]
    fn a_request_that_is_found_fault_with_is_made_three_times() {
        let invalid = outcome(Class::Invalid);
        for attempts in 0..2 {
            assert!(next(&policy(), facts(attempts, 1), &invalid, Micros(0), 0.0) > 0);
        }
        let verdict = decide(&policy(), facts(2, 40), &invalid, Micros(0), 0.0);
        assert!(matches!(verdict, Verdict::Settle(Settlement::Dead { .. })), "{verdict:?}");
    }

    #[test]
    fn retry_after_counts_between_the_step_and_a_day() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = Micros::from_secs(784_111_777);
        for (text, attempts, expected) in [
            ("120", 0, 120),
            (" 120 ", 0, 120),
            ("1", 1, 30),
            ("0", 0, 5),
            ("999999999999999999", 0, DAY),
            ("99999999999999999999999", 0, 5),
            ("Sun, 06 Nov 1994 08:59:37 GMT", 0, 600),
            ("Sun, 06 Nov 1994 07:49:37 GMT", 0, 5),
            ("Wed, 06 Nov 2024 07:49:37 GMT", 0, DAY),
            ("soon", 0, 5),
            ("-5", 0, 5),
            ("", 0, 5),
        ] {
            assert_eq!(next(&policy(), facts(attempts, 1), &asking(text), now, 0.0), expected, "{text:?}");
        }
    }

    #[test]
    fn a_refusal_is_offered_again_nightly_for_thirty_days_and_then_settled() {
        // 2026-11-21 10:00 in a zone four hours behind
        let start = 1_795_269_600;
        assert_eq!(Timestamp::from_second(start).unwrap().to_string(), "2026-11-21T14:00:00Z");
        let mut age = 0;
        let mut nights = 0;
        let verdict = loop {
            let now = Micros::from_secs(start + age);
            match decide(&policy(), facts(nights, age), &outcome(Class::Refused), now, 0.0) {
                Verdict::Settle(Settlement::Retry { at, .. }) => {
                    let local = Timestamp::from_second(at.secs()).unwrap().to_zoned(policy().zone);
                    assert_eq!(local.time(), NIGHTLY);
                    nights += 1;
                    age = at.secs() - start;
                }
                other => break other,
            }
        };
        assert_eq!(nights, 31);
        assert!(matches!(verdict, Verdict::Settle(Settlement::Refused { .. })), "{verdict:?}");
    }

    #[test]
    fn a_refusal_shortly_before_the_night_waits_for_the_next() {
        let zone = TimeZone::UTC;
        // 02:00 and 20:00
        for (at, hours) in [(1_795_226_400, 24.5), (1_795_291_200, 6.5)] {
            let night = night(&zone, Micros::from_secs(at), 0.0);
            assert_eq!((night.secs() - at) as f64 / 3600.0, hours);
        }
    }

    #[test]
    fn once_refused_a_receiver_that_is_away_for_a_night_costs_nothing() {
        let refused = match decide(&policy(), facts(0, 1), &outcome(Class::Refused), Micros(0), 0.0) {
            Verdict::Settle(last) => was_refused(&last),
            Verdict::Pause(pause) => panic!("{pause:?}"),
        };
        let late = Facts { refused, ..facts(9, 20 * DAY) };
        match decide(&policy(), late, &outcome(Class::Unreachable), Micros(0), 0.0) {
            Verdict::Settle(last @ Settlement::Retry { .. }) => assert!(was_refused(&last), "{last:?}"),
            other => panic!("{other:?}"),
        }
        let verdict = decide(&policy(), facts(9, 20 * DAY), &outcome(Class::Unreachable), Micros(0), 0.0);
        assert!(matches!(verdict, Verdict::Settle(Settlement::Dead { .. })), "{verdict:?}");
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_four_fifths_of_its_step_or_longer_than_six_fifths_of_a_day(
            attempts in 0u32..1000,
            age in 0i64..75 * HOUR,
            chance in -1.0f64..1.0,
            asked in proptest::option::of(any::<u32>()),
        ) {
            let outcome = Outcome { retry_after: asked.map(|s| s.to_string()), ..outcome(Class::Overloaded) };
            let wait = next(&policy(), facts(attempts, age), &outcome, Micros::from_secs(1_790_000_000), chance);
            prop_assert!(wait >= 4, "{wait}");
            prop_assert!(wait <= DAY * 6 / 5, "{wait}");
        }
    }
}
