//! Days and times as people type them, in the zone of their terminal.

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use parsers::Micros;

/// A day, a time of a day, or a time of today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// `2026-11-21`
    Day(Date),
    /// `2026-11-21 14:30`
    At(DateTime),
    /// `14:30`
    Today(Time),
}

impl std::str::FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(time) = text.parse::<Time>()
            && text.contains(':')
            && !text.contains('-')
        {
            return Ok(Self::Today(time));
        }
        if text.len() == 10
            && let Ok(day) = text.parse::<Date>()
        {
            return Ok(Self::Day(day));
        }
        let at = text.contains(':').then(|| text.parse::<DateTime>().ok()).flatten();
        at.map(Self::At).ok_or("not a day or time, as 2026-11-21, \"2026-11-21 14:30\" or 14:30 of today")
    }
}

impl When {
    /// Where it begins.
    pub(super) fn begin(self, now: Micros, zone: &TimeZone) -> Option<Micros> {
        let at = match self {
            Self::Day(day) => day.to_datetime(Time::midnight()),
            Self::At(at) => at,
            Self::Today(time) => today(now, zone).date().to_datetime(time),
        };
        micros(&at.to_zoned(zone.clone()).ok()?)
    }

    /// Where it is over: a day is over with the next one.
    pub(super) fn end(self, now: Micros, zone: &TimeZone) -> Option<Micros> {
        match self {
            Self::Day(day) => Self::Day(day.tomorrow().ok()?).begin(now, zone),
            Self::At(_) | Self::Today(_) => self.begin(now, zone),
        }
    }
}

/// Whether a time is of this day.
pub(super) fn is_today(at: Micros, now: Micros, zone: &TimeZone) -> bool {
    today(at, zone).date() == today(now, zone).date()
}

fn today(now: Micros, zone: &TimeZone) -> Zoned {
    jiff::Timestamp::from_microsecond(now.0).unwrap_or_default().to_zoned(zone.clone())
}

fn micros(at: &Zoned) -> Option<Micros> {
    Some(Micros(at.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn days_and_times_are_those_of_the_readers_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(-4));
        // 2026-11-21 02:00 UTC is still the 20th there
        let now = Micros(1_795_226_400_000_000);
        let at = |text: &str| text.parse::<When>().unwrap();
        let utc = |at: Option<Micros>| jiff::Timestamp::from_microsecond(at.unwrap().0).unwrap().to_string();
        assert_eq!(utc(at("2026-11-20").begin(now, &zone)), "2026-11-20T04:00:00Z");
        assert_eq!(utc(at("2026-11-20").end(now, &zone)), "2026-11-21T04:00:00Z");
        for text in ["2026-11-20 14:30", "2026-11-20T14:30:00", "14:30"] {
            assert_eq!(utc(at(text).begin(now, &zone)), "2026-11-20T18:30:00Z", "{text}");
            assert_eq!(at(text).end(now, &zone), at(text).begin(now, &zone));
        }
        assert!(is_today(Micros(now.0 + 1_000_000), now, &zone));
        assert!(!is_today(Micros(now.0 + 3 * 3_600_000_000), now, &zone));
        for bad in ["", "yesterday", "2026-13-01", "25:00", "21/11/2026", "14", "2h"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }
}
