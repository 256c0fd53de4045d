//! When the store is asked for what the live path missed, and how far back. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::ToSpan as _;
use jiff::tz::TimeZone;
use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::store::Span;
use crate::config::Reconcile;

/// After a login: the snapshot and what follows from it come first.
const AFTER_LOGIN: Duration = Duration::from_secs(30);
/// After one that failed, doubling.
const RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);
/// The nightly look, as the script's -full.
pub(crate) const FULL: Duration = Duration::from_secs(360 * 86_400);
/// A look goes back to the end of the last one that succeeded, and so much further: a call's row is
/// dated by its start.
const OVERLAP: Duration = Duration::from_secs(24 * 3_600);

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `[cdr] reconcile_since`.
    Usual,
    /// 360 days.
    Full,
}

/// How the reconciliation with the CDR store stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconciliation {
    /// Why there is none, and what to do, if there is none.
    pub off: Option<String>,
    /// One is under way, and has read up to this time.
    pub running: Option<Micros>,
    /// The last one that succeeded.
    pub last: Option<Reconciled>,
    /// When the next one begins.
    pub next: Option<Micros>,
    /// The store cannot be read.
    pub away: Option<Away>,
    /// Those that succeeded, since the start.
    pub runs: u64,
    /// Those that failed, since the start.
    pub failed: u64,
    /// Creates that were missing and were put on their way, since the start.
    pub missing: u64,
}

/// What one came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// When it began.
    pub at: Micros,
    /// How long it took, seconds.
    pub seconds: u64,
    /// The first moment of its span.
    pub from: Micros,
    /// The end.
    pub to: Micros,
    /// Rows read.
    pub rows: u64,
    /// Calls in the store.
    pub calls: u64,
    /// Calls that are not over, or ended too short a time ago.
    pub held: u64,
    /// Creates that the others came to.
    pub creates: u64,
    /// Of these, known.
    pub known: u64,
    /// Not sent again, because their day was deleted.
    pub deleted: u64,
    /// Missing, and on their way now.
    pub missing: u64,
    /// Not compared yet: a thousand wait already for a receiver that is down.
    #[serde(default)]
    pub put_off: u64,
    /// Why it is down, of one of them.
    #[serde(default)]
    pub hold: Option<String>,
    /// Rows and parts that made none, by reason.
    pub left_out: BTreeMap<String, u64>,
}

impl Reconciled {
    pub(super) fn new(at: Micros, now: Micros, progress: &Progress) -> Self {
        Self {
            at,
            seconds: u64::try_from(now.secs_since(at)).unwrap_or(0),
            from: progress.from,
            to: progress.to,
            rows: progress.read,
            calls: progress.calls,
            held: progress.held,
            creates: progress.creates,
            known: progress.known,
            deleted: progress.deleted,
            missing: progress.added,
            put_off: progress.put_off,
            hold: progress.hold.clone().filter(|_| progress.put_off > 0),
            left_out: progress.left_out.clone(),
        }
    }
}

/// A store that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// Since when.
    pub since: Micros,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// When what is due.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    rules: Reconcile,
    zone: TimeZone,
    usual: Option<Micros>,
    full: Option<Micros>,
    /// After a login: once for what is long over, once for what ended in the gap just before.
    soon: Option<Micros>,
    settled: Option<Micros>,
    /// Nothing begins before.
    not_before: Option<Micros>,
    failures: u32,
    /// Of the full look alone: what it cannot read may be in the far past, which the usual one does not
    /// need.
    full_failures: u32,
}

impl Schedule {
    pub fn new(rules: &Reconcile, zone: &TimeZone, now: Micros) -> Self {
        let mut schedule = Self {
            rules: rules.clone(),
            zone: zone.clone(),
            usual: None,
            full: None,
            soon: None,
            settled: None,
            not_before: None,
            failures: 0,
            full_failures: 0,
        };
        schedule.usual = schedule.rules.every.map(|every| later(now, every));
        schedule.full = schedule.next_full(now);
        schedule
    }

    /// Asterisk was logged in to: what went by meanwhile is in the store.
    pub fn connected(&mut self, now: Micros) {
        if self.rules.every.is_none() {
            return;
        }
        let soon = AFTER_LOGIN.min(self.rules.settle);
        self.soon.get_or_insert(later(now, soon));
        self.settled = Some(later(now, self.rules.settle + soon));
    }

    /// What is next, and when.
    pub fn next(&self) -> Option<(Micros, Kind)> {
        let usual = [self.usual, self.soon, self.settled].into_iter().flatten().min();
        let usual = usual.map(|at| (at, Kind::Usual));
        let (at, kind) = usual.into_iter().chain(self.full.map(|at| (at, Kind::Full))).min()?;
        Some((self.not_before.map_or(at, |not_before| at.max(not_before)), kind))
    }

    /// One of this kind succeeded that began at that time.
    pub fn done(&mut self, kind: Kind, began: Micros, now: Micros) {
        (self.failures, self.not_before) = (0, None);
        for at in [&mut self.soon, &mut self.settled] {
            *at = at.filter(|at| *at > began);
        }
        self.usual = self.rules.every.map(|every| later(now, every));
        if kind == Kind::Full {
            self.full = self.next_full(now);
            self.full_failures = 0;
        }
    }

    /// One failed: it is tried again, ever more rarely.
    pub fn failed(&mut self, kind: Kind, now: Micros) {
        let (failures, again) = match kind {
            Kind::Usual => (&mut self.failures, &mut self.not_before),
            Kind::Full => (&mut self.full_failures, &mut self.full),
        };
        let wait = RETRY.saturating_mul(1 << (*failures).min(16)).min(LONGEST_RETRY);
        *failures += 1;
        *again = Some(later(now, wait));
    }

    /// What it reads: never further back than `floor`.
    pub fn span(&self, kind: Kind, last: Option<Micros>, floor: Micros, now: Micros) -> Span {
        let back = |time: Duration| now.plus_millis(-millis(time));
        let from = match kind {
            Kind::Full => back(FULL),
            Kind::Usual => {
                let last = last.map(|last| last.plus_millis(-millis(OVERLAP)));
                last.map_or(back(self.rules.since), |last| last.min(back(self.rules.since))).max(back(FULL))
            }
        };
        // stores cut times to the second
        Span { from: from.max(Micros::from_secs(floor.secs())), to: now }
    }

    /// What ended after this is left for the next time.
    pub fn settled(&self, now: Micros) -> Micros {
        now.plus_millis(-millis(self.rules.settle))
    }

    fn next_full(&self, now: Micros) -> Option<Micros> {
        let at = self.rules.full_at?;
        let today = jiff::Timestamp::from_microsecond(now.0).ok()?.to_zoned(self.zone.clone()).date();
        let of = |days: i64| {
            let day = today.checked_add(days.days()).ok()?;
            let zoned = day.to_datetime(at).to_zoned(self.zone.clone()).ok()?;
            Some(Micros(zoned.timestamp().as_microsecond()))
        };
        of(0).filter(|at| *at > now).or_else(|| of(1))
    }
}

fn later(at: Micros, wait: Duration) -> Micros {
    at.plus_millis(millis(wait))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    const MINUTE: i64 = 60;
    const HOUR: i64 = 3_600;
    const DAY: i64 = 86_400;
    /// 2026-11-21 09:19:27 in Caracas.
    const NOW: i64 = 1_795_267_167;

    fn at(seconds: i64) -> Micros {
        Micros::from_secs(NOW + seconds)
    }

    fn schedule() -> Schedule {
        Schedule::new(&Reconcile::default(), &TimeZone::get("America/Caracas").unwrap(), at(0))
    }

    #[test]
    fn it_looks_hourly_and_at_night() {
        let mut schedule = schedule();
        assert_eq!(schedule.next(), Some((at(HOUR), Kind::Usual)));
        schedule.done(Kind::Usual, at(HOUR), at(HOUR + 5));
        assert_eq!(schedule.next(), Some((at(2 * HOUR + 5), Kind::Usual)));
        // 23:00
        let night = 13 * HOUR + 40 * MINUTE + 33;
        schedule.done(Kind::Usual, at(night - 10), at(night - 10));
        assert_eq!(schedule.next(), Some((at(night), Kind::Full)));
        schedule.done(Kind::Full, at(night), at(night + 90));
        assert_eq!(
            schedule.next(),
            Some((at(night + 90 + HOUR), Kind::Usual)),
            "the full one was one as well"
        );
        schedule.usual = None;
        assert_eq!(schedule.next(), Some((at(night + DAY), Kind::Full)));
    }

    #[test]
    fn after_a_login_it_looks_for_what_is_long_over_and_then_for_what_just_ended() {
        let mut schedule = schedule();
        schedule.connected(at(0));
        assert_eq!(schedule.next(), Some((at(30), Kind::Usual)));
        schedule.done(Kind::Usual, at(30), at(31));
        assert_eq!(schedule.next(), Some((at(630), Kind::Usual)));
        // a line that comes and goes puts off the second alone
        schedule.connected(at(100));
        schedule.connected(at(110));
        assert_eq!(schedule.next(), Some((at(130), Kind::Usual)));
        schedule.done(Kind::Usual, at(130), at(131));
        assert_eq!(schedule.next(), Some((at(740), Kind::Usual)));
        schedule.done(Kind::Usual, at(740), at(741));
        assert_eq!(schedule.next(), Some((at(741 + HOUR), Kind::Usual)));
    }

    #[test]
    fn a_full_look_that_always_fails_leaves_the_usual_ones_their_turn() {
        let mut schedule = schedule();
        let (mut usual, mut full) = (0, 0);
        let day = 3 * DAY;
        loop {
            let (next, kind) = schedule.next().unwrap();
            if next > at(day) {
                break;
            }
            match kind {
                Kind::Usual => {
                    usual += 1;
                    schedule.done(kind, next, next);
                }
                Kind::Full => {
                    full += 1;
                    schedule.failed(kind, next);
                }
            }
        }
        assert!(usual >= 71, "{usual}");
        assert!((90..=150).contains(&full), "{full}");
    }

    #[test]
    fn a_store_that_is_away_is_asked_ever_more_rarely() {
        let mut schedule = schedule();
        let mut now = HOUR;
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            schedule.failed(Kind::Usual, at(now));
            now += minutes * MINUTE;
            assert_eq!(schedule.next(), Some((at(now), Kind::Usual)));
        }
        schedule.connected(at(now));
        schedule.done(Kind::Usual, at(now), at(now));
        assert_eq!(schedule.next(), Some((at(now + 30), Kind::Usual)), "it is back");
    }

    #[test]
    fn it_reads_back_to_the_last_one_and_never_beyond_the_first_start() {
        let schedule = schedule();
        let span = |kind, last: Option<i64>, floor| {
            let span = schedule.span(kind, last.map(at), at(floor), at(0));
            ((span.from.0 - at(0).0) / Micros::SECOND, (span.to.0 - at(0).0) / Micros::SECOND)
        };
        assert_eq!(span(Kind::Usual, None, -500 * DAY), (-200 * HOUR, 0));
        assert_eq!(span(Kind::Usual, Some(-HOUR), -500 * DAY), (-200 * HOUR, 0));
        assert_eq!(span(Kind::Usual, Some(-20 * DAY), -500 * DAY), (-21 * DAY, 0), "it was off for long");
        assert_eq!(span(Kind::Usual, Some(-490 * DAY), -500 * DAY), (-360 * DAY, 0));
        assert_eq!(span(Kind::Full, None, -500 * DAY), (-360 * DAY, 0));
        assert_eq!(span(Kind::Full, None, -DAY), (-DAY, 0));
        assert_eq!(span(Kind::Usual, Some(-20 * DAY), -HOUR), (-HOUR, 0));
        let floor = schedule.span(Kind::Full, None, at(-1).plus_millis(999), at(0)).from;
        assert_eq!(floor, at(-1), "a call of the second of the first start is one of its own");
        assert_eq!(schedule.settled(at(0)), at(-600));
    }

    #[test]
    fn what_is_off_is_not_begun() {
        let off = Reconcile { every: None, full_at: None, ..Reconcile::default() };
        let mut schedule = Schedule::new(&off, &TimeZone::UTC, at(0));
        schedule.connected(at(0));
        assert_eq!(schedule.next(), None);
    }
}
