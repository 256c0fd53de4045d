//! Times as a person types them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use parsers::Micros;

use crate::config::duration;

/// A time, not yet in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// `2026-11-20`.
    Day(Date),
    /// `2026-11-20 14:00`.
    Local(DateTime),
    /// `14:00`, of today.
    Today(Time),
    /// `2026-11-20T14:00:00-04:00`, `…Z`.
    Instant(Timestamp),
    /// `2h`: so many microseconds ago.
    Ago(i64),
}

/// Reads one.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    // a time with an offset also reads as one without
    if let Ok(instant) = text.parse() {
        return Ok(Moment::Instant(instant));
    }
    if text.len() <= 10
        && let Ok(day) = text.parse()
    {
        return Ok(Moment::Day(day));
    }
    if !text.contains('-')
        && text.contains(':')
        && let Ok(time) = text.parse()
    {
        return Ok(Moment::Today(time));
    }
    if let Ok(local) = text.parse() {
        return Ok(Moment::Local(local));
    }
    if let Some(ago) = duration(text) {
        return Ok(Moment::Ago(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)));
    }
    Err("not a time, as 2026-11-20, \"2026-11-20 14:00\", 14:00, 2026-11-20T14:00:00-04:00 or 2h".to_owned())
}

impl Moment {
    /// Where a time begins that is given so.
    pub(super) fn begin(self, zone: &TimeZone, now: Micros) -> Micros {
        match self {
            Self::Day(day) => midnight(day, zone, now),
            Self::Local(local) => at(local.to_zoned(zone.clone()).ok(), now),
            Self::Today(time) => at(day_of(now, zone).to_datetime(time).to_zoned(zone.clone()).ok(), now),
            Self::Instant(instant) => Micros(instant.as_microsecond()),
            Self::Ago(micros) => Micros(now.0.saturating_sub(micros)),
        }
    }

    /// Where it ends: a day when it is over.
    pub(super) fn end(self, zone: &TimeZone, now: Micros) -> Micros {
        match self {
            Self::Day(day) => midnight(day.saturating_add(1.day()), zone, now),
            Self::Local(_) | Self::Today(_) | Self::Instant(_) | Self::Ago(_) => self.begin(zone, now),
        }
    }
}

/// Whether a time is of this day.
pub(super) fn is_today(at: Micros, now: Micros, zone: &TimeZone) -> bool {
    day_of(at, zone) == day_of(now, zone)
}

fn day_of(at: Micros, zone: &TimeZone) -> Date {
    Timestamp::from_microsecond(at.0).unwrap_or_default().to_zoned(zone.clone()).date()
}

fn midnight(day: Date, zone: &TimeZone, now: Micros) -> Micros {
    at(day.to_zoned(zone.clone()).ok(), now)
}

/// `None` only for times at the end of the calendar.
fn at(zoned: Option<Zoned>, now: Micros) -> Micros {
    zoned.map_or(now, |zoned| Micros(zoned.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let zone = TimeZone::get("America/Caracas").unwrap();
        let now = Micros::from_secs(1_795_267_167);
        let day = |text: &str| Micros(text.parse::<Timestamp>().unwrap().as_microsecond());
        for (text, begin, end) in [
            ("2026-11-20", "2026-11-20T04:00:00Z", "2026-11-21T04:00:00Z"),
            ("2026-11-20 14:00", "2026-11-20T18:00:00Z", "2026-11-20T18:00:00Z"),
            ("14:00", "2026-11-21T18:00:00Z", "2026-11-21T18:00:00Z"),
            ("2026-11-20T14:00:05", "2026-11-20T18:00:05Z", "2026-11-20T18:00:05Z"),
            ("2026-11-20T14:00:00Z", "2026-11-20T14:00:00Z", "2026-11-20T14:00:00Z"),
            ("2026-11-20T14:00:00+02:00", "2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z"),
        ] {
            let read = moment(text).unwrap();
            assert_eq!((read.begin(&zone, now), read.end(&zone, now)), (day(begin), day(end)), "{text}");
        }
        // 01:59 UTC on the 22nd is still the 21st there
        assert!(is_today(now, Micros::from_secs(1_795_312_740), &zone));
        assert!(!is_today(now, Micros::from_secs(1_795_330_800), &zone));
        assert_eq!(moment("2h").unwrap().begin(&zone, now), Micros::from_secs(1_795_267_167 - 7200));
        for bad in ["", "yesterday", "20/11/2026", "2026-13-01", "25:00", "14"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
