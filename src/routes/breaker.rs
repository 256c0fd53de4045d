//! Leaves a receiver alone that does not answer, and asks again with one delivery at a time.
//! Pure: time is passed in.
//!
//! ```text
//!            5 failures in a row, or half of 20 or more in 60 s
//!   Closed ------------------------------------------------------> Open (5 s, doubling to 5 min
//!     ^                                                             |    from probe to probe)
//!     |                                                             |    ^
//!     | the probe got through                          time is up   v    | the probe failed
//!     '----------------------------------------------------------- HalfOpen
//! ```

use parsers::Micros;
use serde::{Deserialize, Serialize};

const IN_A_ROW: u32 = 5;
const WINDOW: i64 = 60 * Micros::SECOND;
const SLICES: usize = 12;
const SLICE: i64 = WINDOW / 12;
/// Below so many attempts a share says nothing.
const ENOUGH: u32 = 20;
const FIRST_WAIT: i64 = 5 * Micros::SECOND;
const LONGEST_WAIT: i64 = 300 * Micros::SECOND;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Deliveries go out.
    #[default]
    Closed,
    /// Nothing goes out before this time.
    Open {
        /// When the next probe may go.
        until: Micros,
    },
    /// One delivery is out to see whether the receiver is back.
    HalfOpen,
}

/// One route's breaker. What it stores is its state and how long it waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    state: BreakerState,
    /// The wait before the next probe, microseconds.
    wait: i64,
    #[serde(skip)]
    in_a_row: u32,
    #[serde(skip)]
    slices: [Slice; SLICES],
}

/// Attempts that ended within one twelfth of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    number: i64,
    failed: u32,
    all: u32,
}

impl Breaker {
    /// Where it stands.
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// After a restart: a probe that was out is out no more.
    #[must_use]
    pub fn restored(mut self, now: Micros) -> Self {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { until: now };
        }
        if let BreakerState::Open { until } = &mut self.state {
            // the clock may have been set back while we were away
            *until = (*until).min(Micros(now.0.saturating_add(LONGEST_WAIT)));
        }
        self.wait = self.wait.clamp(FIRST_WAIT, LONGEST_WAIT);
        self
    }

    /// A probe goes out.
    pub fn probe(&mut self) {
        self.state = BreakerState::HalfOpen;
    }

    /// A probe was to go out, but nothing is due.
    pub fn no_probe(&mut self, now: Micros) {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { until: now };
        }
    }

    /// An attempt ended. `failed`: by transport or 5xx. `probe`: when it went out, if it was one.
    pub fn record(&mut self, failed: bool, probe: Option<Micros>, now: Micros) {
        match (self.state, failed) {
            (BreakerState::Closed, false) => {
                self.in_a_row = 0;
                self.count(false, now);
            }
            (BreakerState::Closed, true) => {
                self.in_a_row += 1;
                self.count(true, now);
                if self.in_a_row >= IN_A_ROW || self.half_failed(now) {
                    self.open(FIRST_WAIT, now, now);
                }
            }
            // whatever got through, the receiver is back
            (BreakerState::Open { .. } | BreakerState::HalfOpen, false) => *self = Self::default(),
            (BreakerState::Open { .. } | BreakerState::HalfOpen, true) => match probe {
                Some(began) if self.state == BreakerState::HalfOpen => {
                    self.open(self.wait.saturating_mul(2).clamp(FIRST_WAIT, LONGEST_WAIT), began, now);
                }
                // attempts that were out when it opened
                Some(_) | None => {}
            },
        }
    }

    /// From now for `wait`, but the next probe goes out no later than [`LONGEST_WAIT`] after the last
    /// one did: a receiver may have come back the moment after that one was sent into the void.
    fn open(&mut self, wait: i64, began: Micros, now: Micros) {
        let until = now.0.saturating_add(wait).min(began.0.saturating_add(LONGEST_WAIT));
        let until = Micros(until.max(now.0.saturating_add(FIRST_WAIT)));
        *self = Self { state: BreakerState::Open { until }, wait, ..Self::default() };
    }

    fn count(&mut self, failed: bool, now: Micros) {
        let number = now.0.div_euclid(SLICE);
        let place = usize::try_from(number.rem_euclid(SLICES as i64)).unwrap_or(0);
        let slice = &mut self.slices[place];
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        slice.all = slice.all.saturating_add(1);
        slice.failed = slice.failed.saturating_add(u32::from(failed));
    }

    fn half_failed(&self, now: Micros) -> bool {
        let oldest = now.0.div_euclid(SLICE) - (SLICES as i64 - 1);
        let recent = self.slices.iter().filter(|slice| slice.number >= oldest);
        let (failed, all) = recent.fold((0u32, 0u32), |(failed, all), slice| {
            (failed.saturating_add(slice.failed), all.saturating_add(slice.all))
        });
        all >= ENOUGH && failed.saturating_mul(2) >= all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Micros {
        Micros::from_secs(seconds)
    }

    fn open_until(breaker: &Breaker) -> Option<i64> {
        match breaker.state() {
            BreakerState::Open { until } => Some(until.secs()),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = Breaker::default();
        for second in 0..4 {
            breaker.record(true, None, at(second));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.record(false, None, at(4));
        for second in 5..9 {
            breaker.record(true, None, at(second));
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "a success starts the count anew");
        breaker.record(true, None, at(9));
        assert_eq!(open_until(&breaker), Some(14));
    }

    #[test]
    fn half_of_twenty_within_a_minute_open_it() {
        let mut breaker = Breaker::default();
        for n in 0..19 {
            breaker.record(n % 2 == 0, None, at(1000 + n));
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "nineteen are not enough");
        breaker.record(false, None, at(1019));
        breaker.record(true, None, at(1020));
        assert_eq!(open_until(&breaker), Some(1025));
    }

    #[test]
    fn failures_older_than_a_minute_do_not_count() {
        let mut breaker = Breaker::default();
        for n in 0..18 {
            breaker.record(n % 2 == 0, None, at(1000 + n));
        }
        for n in 0..3 {
            breaker.record(n % 2 == 0, None, at(1090 + n));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn probes_wait_twice_as_long_each_time_up_to_five_minutes() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.record(true, None, at(0));
        }
        let mut now = 0;
        let mut waits = Vec::new();
        while let Some(until) = open_until(&breaker) {
            waits.push(until - now);
            now = until;
            if waits.len() == 9 {
                break;
            }
            breaker.probe();
            breaker.record(true, Some(at(now)), at(now));
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        breaker.probe();
        breaker.record(false, Some(at(now)), at(now));
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..5 {
            breaker.record(true, None, at(now));
        }
        assert_eq!(open_until(&breaker), Some(now + 5), "the wait starts anew after a success");
    }

    #[test]
    fn what_a_probe_takes_is_part_of_the_longest_wait() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.record(true, None, at(0));
        }
        let mut began = 0;
        for _ in 0..9 {
            let Some(until) = open_until(&breaker) else { unreachable!("it is open") };
            assert!(until - began <= 300, "{until} after {began}");
            began = until;
            breaker.probe();
            breaker.record(true, Some(at(began)), at(began + 30));
        }
        assert_eq!(open_until(&breaker), Some(began + 300));
        breaker.probe();
        breaker.record(true, Some(at(began)), at(began + 900));
        assert_eq!(open_until(&breaker), Some(began + 905), "never at once");
    }

    #[test]
    fn attempts_that_were_out_when_it_opened_do_not_lengthen_the_wait() {
        let mut breaker = Breaker::default();
        for _ in 0..16 {
            breaker.record(true, None, at(0));
        }
        assert_eq!(open_until(&breaker), Some(5));
    }

    #[test]
    fn it_survives_a_restart_open_and_a_lost_probe_goes_out_at_once() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.record(true, None, at(100));
        }
        let again = |breaker: &Breaker, now| {
            let text = serde_json::to_string(breaker).unwrap_or_default();
            serde_json::from_str::<Breaker>(&text).map(|b| b.restored(at(now))).unwrap_or_default()
        };
        assert_eq!(open_until(&again(&breaker, 102)), Some(105));
        assert_eq!(
            open_until(&again(&breaker, -90_000)),
            Some(-89_700),
            "a clock set back costs five minutes"
        );
        breaker.probe();
        let mut restored = again(&breaker, 106);
        assert_eq!(open_until(&restored), Some(106));
        restored.probe();
        restored.record(true, Some(at(106)), at(106));
        assert_eq!(open_until(&restored), Some(116), "the wait was kept");
    }
}
