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
/// uniqueid are of the same moment. Rows that start later in a call agree with nothing and
/// are outvoted. Takes `(start text, uniqueid's epoch)`; a zone that is UTC answers `Local`.
pub fn store_clock<'a>(rows: impl IntoIterator<Item = (&'a str, u64)>, zone: &TimeZone) -> StoreClock {
    let mut votes: Vec<(StoreClock, usize)> = Vec::new();
    let mut seen = 0;
    for (text, epoch) in rows {
        let (Some(civil), Ok(epoch)) = (civil(text), i64::try_from(epoch)) else { continue };
        seen += 1;
        let Some(vote) = vote(civil, text, epoch, zone) else { continue };
        match votes.iter_mut().find(|(clock, _)| *clock == vote) {
            Some((_, count)) => *count += 1,
            None => votes.push((vote, 1)),
        }
    }
    let best = votes.iter().max_by_key(|(_, count)| *count);
    best.filter(|(_, count)| count * 2 > seen).map_or(StoreClock::Unknown, |(clock, _)| *clock)
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
