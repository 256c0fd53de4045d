//! Local time and instants (`[pbx] timezone`, `[cdr] timezone`). A CDR's text has no zone: one hour
//! a year it is written twice, and only the channel's own id tells which was meant.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use parsers::{Cdr, Micros};

use super::fold::Part;
use crate::config::Initiated;

/// A row of a channel may seem to start this much before the channel was made: the id is made
/// first, but both are cut to seconds, and clocks are corrected.
const BEFORE_BIRTH: i64 = 5;

/// A row's text and its channel's id are of one moment if they differ by no more seconds than this.
const SAME_MOMENT: i64 = 30;

/// Reads `2026-11-21 09:19:27`, also with a `T`; a fraction or an offset after the seconds is not read.
pub fn civil(text: &str) -> Option<DateTime> {
    let text = text.trim().get(..19)?;
    text.parse().ok()
}

/// The instant that a local text means. Of a text that the clocks wrote twice the first is meant that
/// is not before `born`, the creation of the channel; without `born` the first. A text that no
/// clock showed (the clocks were put forward over it) is read with the offset from before.
pub fn instant(text: &str, zone: &TimeZone, born: Option<Micros>) -> Option<Micros> {
    let civil = civil(text)?;
    let at = |offset: Offset| Some(Micros::from_secs(offset.to_timestamp(civil).ok()?.as_second()));
    let (usual, other) = match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => return at(offset),
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
            (at(before)?, at(after)?)
        }
    };
    let Some(born) = born else { return Some(usual) };
    let possible = |t: &Micros| t.secs().saturating_add(BEFORE_BIRTH) >= born.secs();
    let (earlier, later) = (usual.min(other), usual.max(other));
    Some([earlier, later].into_iter().find(possible).unwrap_or(later))
}

/// The local text of an instant, `2026-11-21 09:19:27`, as Asterisk writes it.
pub fn local_text(at: Micros, zone: &TimeZone) -> Option<String> {
    let local = zone.to_datetime(timestamp(at)?);
    Some(local.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// NiMbox's `initiated` of a part: ISO 8601, whole seconds. The local forms take the row's own text
/// where it has one, as the Perl script did, so that the key does not hang on our zone tables.
pub fn initiated(part: &Part, form: Initiated, zone: &TimeZone) -> String {
    let local = || {
        let own = part.start_local.as_deref().and_then(civil);
        own.or_else(|| Some(zone.to_datetime(timestamp(part.start)?)))
    };
    let text = match form {
        Initiated::LocalZ => local().map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Initiated::Local => local().map(|t| t.strftime("%Y-%m-%dT%H:%M:%S").to_string()),
        Initiated::UtcZ => timestamp(part.start).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Initiated::Offset => timestamp(part.start)
            .map(|t| t.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()),
    };
    text.unwrap_or_default()
}

/// Makes a row of a store that writes in another zone look as the PBX would have written it: its
/// instants are filled in from the store's zone, its texts are put into the PBX's.
pub fn relocate(cdr: &mut Cdr, store: &TimeZone, pbx: &TimeZone) {
    let born = cdr.uniqueid.as_ref().and_then(|id| id.epoch()).and_then(|(s, _)| i64::try_from(s).ok());
    let mut not_before = born.map(Micros::from_secs);
    for (text, epoch) in [
        (&mut cdr.start, &mut cdr.start_epoch),
        (&mut cdr.answer, &mut cdr.answer_epoch),
        (&mut cdr.end, &mut cdr.end_epoch),
    ] {
        let Some(written) = text.as_deref() else { continue };
        if epoch.is_none() {
            *epoch = instant(written, store, not_before);
        }
        let Some(at) = *epoch else { continue };
        not_before = Some(at);
        if let Some(local) = local_text(at, pbx) {
            *text = Some(Arc::from(local));
        }
    }
}

/// What a store's clock turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreClock {
    /// The PBX's zone.
    Local,
    /// UTC (`usegmtime`, `CDRUSEGMT`).
    Utc,
    /// Something else: this many seconds east of UTC.
    Offset(i32),
    /// No row says so clearly.
    Unknown,
}

/// Finds a store's clock out: the text of the first row of a channel and the epoch in its
/// uniqueid are of the same moment. Rows that start later in a call, as those of a queue's later rounds,
/// agree with nothing but by chance: another offset than UTC's needs most of all rows. Takes
/// `(start text, uniqueid's epoch)`; a zone that is UTC answers `Local`.
pub fn store_clock<'a>(rows: impl IntoIterator<Item = (&'a str, u64)>, zone: &TimeZone) -> StoreClock {
    let mut votes: Vec<(StoreClock, usize)> = Vec::new();
    let (mut seen, mut voted) = (0, 0);
    for (text, epoch) in rows {
        let (Some(civil), Ok(epoch)) = (civil(text), i64::try_from(epoch)) else { continue };
        seen += 1;
        let Some(vote) = vote(civil, text, epoch, zone) else { continue };
        voted += 1;
        match votes.iter_mut().find(|(clock, _)| *clock == vote) {
            Some((_, count)) => *count += 1,
            None => votes.push((vote, 1)),
        }
    }
    let best = votes.iter().max_by_key(|(_, count)| *count);
    let of = |clock| if matches!(clock, StoreClock::Offset(_)) { seen } else { voted };
    best.filter(|(clock, count)| count * 2 > of(*clock)).map_or(StoreClock::Unknown, |(clock, _)| *clock)
}

fn vote(civil: DateTime, text: &str, epoch: i64, zone: &TimeZone) -> Option<StoreClock> {
    let born = Micros::from_secs(epoch);
    if instant(text, zone, Some(born))?.secs().abs_diff(epoch) <= SAME_MOMENT.unsigned_abs() {
        return Some(StoreClock::Local);
    }
    let ahead = Offset::UTC.to_timestamp(civil).ok()?.as_second().checked_sub(epoch)?;
    // Every zone since 1972 is whole quarters of an hour from UTC.
    let quarter = ahead.saturating_add(450).div_euclid(900) * 900;
    if ahead.abs_diff(quarter) > SAME_MOMENT.unsigned_abs() || quarter.abs() > 15 * 3600 {
        return None;
    }
    if quarter == 0 {
        return Some(StoreClock::Utc);
    }
    i32::try_from(quarter).ok().map(StoreClock::Offset)
}

fn timestamp(at: Micros) -> Option<Timestamp> {
    Timestamp::from_microsecond(at.0).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a host without zone tables fails the test")]

    use proptest::prelude::*;

    use super::*;
    use crate::calls::{CallKey, CdrGroup, CdrRow, CdrSource};
    use crate::config::Mode;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn utc(at: Micros) -> String {
        timestamp(at).unwrap().to_string()
    }

    #[test]
    fn local_text_is_read_by_the_zone_s_history() {
        let table = [
            ("America/Caracas", "2016-05-01 02:29:59", "2016-05-01T06:59:59Z"),
            ("America/Caracas", "2016-05-01 03:00:00", "2016-05-01T07:00:00Z"),
            ("America/Caracas", "2015-06-01 12:00:00", "2015-06-01T16:30:00Z"),
            ("America/Caracas", "2026-06-01 12:00:00", "2026-06-01T16:00:00Z"),
            ("America/Santiago", "2024-04-06 22:30:00", "2024-04-07T01:30:00Z"),
            ("America/Santiago", "2024-04-07 00:30:00", "2024-04-07T04:30:00Z"),
            ("America/Santiago", "2024-09-08 01:00:00", "2024-09-08T04:00:00Z"),
            ("Europe/Madrid", "2026-03-29 01:59:59", "2026-03-29T00:59:59Z"),
            ("Europe/Madrid", "2026-03-29 03:01:00", "2026-03-29T01:01:00Z"),
            ("Europe/Madrid", "2026-10-25 03:00:00", "2026-10-25T02:00:00Z"),
            ("UTC", "2026-11-21T09:19:27", "2026-11-21T09:19:27Z"),
            ("UTC", " 2026-11-21 09:19:27.123456 ", "2026-11-21T09:19:27Z"),
        ];
        for (name, text, expected) in table {
            assert_eq!(instant(text, &zone(name), None).map(utc).as_deref(), Some(expected), "{name} {text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "0000-00-00 00:00:00",
            "2026-02-30 10:00:00",
            "2026-11-21",
            "yesterday, at noon..",
            "2026-11-21 0é:00:000",
        ] {
            assert_eq!(instant(text, &TimeZone::UTC, None), None, "{text}");
        }
    }

    #[test]
    fn a_text_written_twice_is_told_by_the_channel_s_birth() {
        let table = [
            ("Europe/Madrid", "2026-10-25 02:30:10", Some(1_792_888_210), "2026-10-25T00:30:10Z"),
            ("Europe/Madrid", "2026-10-25 02:30:10", Some(1_792_891_810), "2026-10-25T01:30:10Z"),
            ("Europe/Madrid", "2026-10-25 02:30:10", Some(1_792_891_812), "2026-10-25T01:30:10Z"),
            // A transfer long after the call began; a clock set back since.
            ("Europe/Madrid", "2026-10-25 02:30:10", Some(1_792_880_000), "2026-10-25T00:30:10Z"),
            ("Europe/Madrid", "2026-10-25 02:30:10", Some(1_792_899_999), "2026-10-25T01:30:10Z"),
            ("Europe/Madrid", "2026-10-25 02:30:10", None, "2026-10-25T00:30:10Z"),
            ("America/Santiago", "2024-04-06 23:15:00", Some(1_712_459_700), "2024-04-07T03:15:00Z"),
            ("America/Santiago", "2024-04-06 23:15:00", Some(1_712_456_100), "2024-04-07T02:15:00Z"),
            // Never on the wall: written by a PBX that kept another offset.
            ("America/Caracas", "2016-05-01 02:45:00", None, "2016-05-01T07:15:00Z"),
            ("Europe/Madrid", "2026-03-29 02:30:00", Some(1_774_744_200), "2026-03-29T00:30:00Z"),
            ("Europe/Madrid", "2026-03-29 02:30:00", Some(1_774_747_800), "2026-03-29T01:30:00Z"),
        ];
        for (name, text, born, expected) in table {
            let got = instant(text, &zone(name), born.map(Micros::from_secs));
            assert_eq!(got.map(utc).as_deref(), Some(expected), "{name} {text} {born:?}");
        }
    }

    fn rows(texts: &[(&str, &str)]) -> Vec<Part> {
        let mut pbx = crate::cdr::tests::pbx();
        pbx.timezone = zone("Europe/Madrid");
        let row = |(uniqueid, start): &(&str, &str)| CdrRow {
            cdr: crate::cdr::tests::row(&format!(
                "{uniqueid}|||58414|5551000|PJSIP/trunk-{uniqueid}|PJSIP/1001-1|Dial|{start}||||7|5|ANSWERED|"
            ))
            .cdr,
            did: None,
        };
        let rows = texts.iter().map(row).collect();
        let group = CdrGroup { call: CallKey("night".into()), rows, source: CdrSource::Store };
        crate::cdr::fold(&group, Mode::PerCdr, &pbx).parts
    }

    #[test]
    fn the_night_the_clocks_go_back_has_two_instants_and_one_local_text() {
        let parts = rows(&[("1792888210.1", "2026-10-25 02:30:10"), ("1792891810.9", "2026-10-25 02:30:10")]);
        let written =
            |form| parts.iter().map(|part| initiated(part, form, &zone("Europe/Madrid"))).collect::<Vec<_>>();
        assert_eq!(written(Initiated::UtcZ), ["2026-10-25T00:30:10Z", "2026-10-25T01:30:10Z"]);
        assert_eq!(written(Initiated::LocalZ), ["2026-10-25T02:30:10Z"; 2]);
        assert_eq!(written(Initiated::Local), ["2026-10-25T02:30:10"; 2]);
        assert_eq!(written(Initiated::Offset), ["2026-10-25T02:30:10+02:00", "2026-10-25T02:30:10+01:00"]);
    }

    #[test]
    fn the_night_the_clocks_go_forward_loses_no_call() {
        let parts = rows(&[("1774745999.1", "2026-03-29 01:59:59"), ("1774746060.2", "2026-03-29 03:01:00")]);
        assert_eq!(
            parts.iter().map(|part| utc(part.start)).collect::<Vec<_>>(),
            ["2026-03-29T00:59:59Z", "2026-03-29T01:01:00Z"]
        );
        assert!(parts.iter().all(|part| part.duration == 7));
    }

    #[test]
    fn initiated_without_a_text_of_the_row_is_made_from_the_instant() {
        let mut part = rows(&[("1792888210.1", "2026-10-25 02:30:10")]).remove(0);
        part.start_local = None;
        assert_eq!(initiated(&part, Initiated::LocalZ, &zone("America/Caracas")), "2026-10-24T20:30:10Z");
        assert_eq!(initiated(&part, Initiated::Offset, &zone("UTC")), "2026-10-25T00:30:10+00:00");
    }

    #[test]
    fn a_row_of_a_utc_store_becomes_what_the_pbx_would_have_written() {
        let mut cdr =
            crate::cdr::tests::row("1792891810.9|||1|2|A|B|Dial|2026-10-25 01:30:10||||7|5|ANSWERED|").cdr;
        cdr.end = Some("2026-10-25 01:30:17".into());
        relocate(&mut cdr, &TimeZone::UTC, &zone("Europe/Madrid"));
        assert_eq!(cdr.start.as_deref(), Some("2026-10-25 02:30:10"));
        assert_eq!(cdr.end.as_deref(), Some("2026-10-25 02:30:17"));
        assert_eq!((cdr.start_epoch, cdr.answer_epoch), (Some(Micros::from_secs(1_792_891_810)), None));
    }

    #[test]
    fn a_store_s_clock_is_told_by_its_rows() {
        let madrid = zone("Europe/Madrid");
        let winter = 1_795_252_767;
        let local = [
            ("2026-11-21 10:19:27", winter),
            ("2026-11-21 10:19:29", winter + 1),
            ("2026-11-21 11:40:00", winter),
        ];
        assert_eq!(store_clock(local, &madrid), StoreClock::Local);
        let utc = local.map(|(_, epoch)| ("2026-11-21 09:19:28", epoch));
        assert_eq!(store_clock(utc, &madrid), StoreClock::Utc);
        assert_eq!(store_clock([("2026-11-21 04:49:27", winter)], &madrid), StoreClock::Offset(-16_200));
        assert_eq!(store_clock([("2026-11-21 09:19:27", winter)], &zone("UTC")), StoreClock::Local);
        assert_eq!(store_clock([("2026-11-21 10:25:00", winter)], &madrid), StoreClock::Unknown);
        assert_eq!(
            store_clock([("2026-11-21 10:19:27", winter), ("2026-11-21 09:19:27", winter)], &madrid),
            StoreClock::Unknown
        );
        assert_eq!(store_clock([], &madrid), StoreClock::Unknown);
        // a queue of ten phones: the first round, and five more, 20 s apart
        let rounds: Vec<_> = (0..60)
            .map(|row| format!("2026-11-21 09:{:02}:{:02}", 19 + row / 30, 5 + row / 10 % 3 * 20))
            .collect();
        let rounds = rounds.iter().map(|text| (text.as_str(), winter - 22));
        assert_eq!(store_clock(rounds, &madrid), StoreClock::Utc);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_asterisk_writes_at_an_instant_is_read_back_as_that_instant(
            secs in 1_400_000_000_i64..1_900_000_000,
            name in prop::sample::select(vec!["America/Caracas", "America/Santiago", "Europe/Madrid", "UTC"]),
        ) {
            let at = Micros::from_secs(secs);
            let text = local_text(at, &zone(name)).unwrap();
            prop_assert_eq!(instant(&text, &zone(name), Some(at)), Some(at));
        }
    }
}
