//! The fold of a complete CDR group into parts: what a person would have written down of one call.
//!
//! Asterisk writes a record for each pair of channels: a phone that rang in vain, each try of a
//! queue, both halves of a Local channel. The rules, in this order:
//!
//! - a. rows that are no outside call go: texts, Local halves (unless they called out),
//!   internal calls, parties that were dialled, rows without a destination, tails of 0 s.
//! - b. an inbound row's destination is the DID, since `dst` moves with transfers.
//! - c. of one caller: once a party answered, what rang in vain goes; if none did, the earliest stays.
//! - d. rows that only the optimisation of a Local channel split are one.
//! - e. of equal keys (second, source, destination) the best row stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parsers::cdr::Disposition;
use parsers::{ChannelName, Linkedid, Micros, Uniqueid};

use super::row::{Key, Party, Row, trunk};
use super::rules::Group;
use crate::calls::CdrGroup;
use crate::config::{Mode, Pbx};

/// One create to be, before a route's own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// When it began.
    pub start: Micros,
    /// The same as the row has it: local time of the PBX, without a zone ([`super::relocate`] for
    /// stores that write another).
    pub start_local: Option<Arc<str>>,
    /// Whole seconds, ringing included.
    pub duration: u64,
    /// Whole seconds of talk.
    pub billsec: u64,
    /// How it ended.
    pub disposition: Disposition,
    /// The number that called; `None` when withheld.
    pub source: Option<Arc<str>>,
    /// The row's `dst`: for an outbound part the number that was dialled.
    pub destination: Option<Arc<str>>,
    /// The number that was called from outside; `None` in outbound and raw parts, and where nothing tells it.
    pub did: Option<Arc<str>>,
    /// Number rules apply to the destination; to that of every raw part, as in the Perl script.
    pub outbound: bool,
    /// Party A.
    pub uniqueid: Option<Uniqueid>,
    /// Counts the parts of one party A from 0, in order of time.
    pub part: u32,
    /// The call.
    pub linkedid: Option<Linkedid>,
    /// Party A's channel.
    pub channel: Option<ChannelName>,
    /// File name of the recording.
    pub recordingfile: Option<Arc<str>>,
}

/// What a group came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// In order of time; no two have equal keys.
    pub parts: Vec<Part>,
    /// Rows (by their place in [`CdrGroup::rows`]) that made no part of their own, in that order.
    pub dropped: Vec<(usize, DropReason)>,
}

/// Why a row made no part of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Neither a time nor an id that holds one.
    NoTime,
    /// The same record, read twice.
    SameRecord,
    /// A text, not a call.
    Message,
    /// Half of a Local channel that did not call out.
    LocalHalf,
    /// No outside line takes part.
    Internal,
    /// Party A did not call, it was called.
    Dialled,
    /// Nothing says who was called.
    NoDestination,
    /// Asterisk's record of the instant after a failed dial.
    Tail,
    /// Rang in vain, another party of the call answered.
    OtherAnswered,
    /// Rang in vain, as another did before.
    OtherAttempt,
    /// Went into the part before it.
    Joined,
    /// A better row has the same second, source and destination.
    SameKey,
}

impl DropReason {
    /// For people: fits after "left out:".
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoTime => "no start time",
            Self::SameRecord => "same record read twice",
            Self::Message => "text message, not a call",
            Self::LocalHalf => "half of a Local channel",
            Self::Internal => "internal call",
            Self::Dialled => "record of a called party",
            Self::NoDestination => "no destination",
            Self::Tail => "empty record after a failed dial",
            Self::OtherAnswered => "rang, another party answered",
            Self::OtherAttempt => "unanswered like an earlier attempt",
            Self::Joined => "continuation of another record",
            Self::SameKey => "same time, source and destination as another record",
        }
    }
}

/// Folds a complete group. The order of its rows does not matter, nor does a row that comes twice.
pub fn fold(group: &CdrGroup, mode: Mode, pbx: &Pbx) -> Folded {
    let mut dropped = Dropped::default();
    let rows = read(group, pbx, &mut dropped);
    let drafts = match mode {
        Mode::Raw => rows.iter().map(raw).collect(),
        Mode::PerCdr => per_cdr(&rows, pbx, &mut dropped),
        Mode::PerCall => per_call(&rows, pbx, &mut dropped),
    };
    let parts = numbered(best_of_equal_keys(drafts, &mut dropped));
    dropped.0.sort_unstable();
    Folded { parts, dropped: dropped.0 }
}

/// Rows that made no part of their own.
#[derive(Default)]
pub(super) struct Dropped(Vec<(usize, DropReason)>);

impl Dropped {
    pub fn push(&mut self, row: &Row<'_>, why: DropReason) {
        self.0.push((row.index, why));
    }
}

/// A part with the row that began it.
struct Draft<'r, 'a> {
    row: &'r Row<'a>,
    part: Part,
}

/// Reads the rows, in their order of time, each record once.
pub(super) fn read<'a>(group: &'a CdrGroup, pbx: &Pbx, dropped: &mut Dropped) -> Vec<Row<'a>> {
    let mut rows = Vec::with_capacity(group.rows.len());
    for (index, row) in group.rows.iter().enumerate() {
        match Row::read(index, row, pbx) {
            Some(row) => rows.push(row),
            None => dropped.0.push((index, DropReason::NoTime)),
        }
    }
    // A row with instants is preferred to the same row with texts alone.
    rows.sort_by(|x, y| {
        (x.cdr.start_epoch.is_none(), x.order()).cmp(&(y.cdr.start_epoch.is_none(), y.order()))
    });
    let mut seen: BTreeMap<_, Vec<Row<'a>>> = BTreeMap::new();
    rows.retain(|row| {
        let same = seen.entry((row.party(), row.start.secs(), row.cdr.dstchannel.as_ref())).or_default();
        if same.iter().any(|other| other.same_record(row)) {
            dropped.push(row, DropReason::SameRecord);
            return false;
        }
        same.push(row.clone());
        true
    });
    rows.sort_by(|x, y| x.order().cmp(&y.order()));
    rows
}

fn draft<'r, 'a>(row: &'r Row<'a>) -> Draft<'r, 'a> {
    let cdr = row.cdr;
    let part = Part {
        start: row.start,
        start_local: cdr.start.clone(),
        duration: cdr.duration,
        billsec: cdr.billsec,
        disposition: cdr.disposition,
        source: cdr.src.clone(),
        destination: row.dst().cloned(),
        did: None,
        outbound: row.outbound(),
        uniqueid: cdr.uniqueid.clone(),
        part: 0,
        linkedid: cdr.linkedid.clone(),
        channel: cdr.channel.clone(),
        recordingfile: cdr.recordingfile.clone(),
    };
    Draft { row, part }
}

fn raw<'r, 'a>(row: &'r Row<'a>) -> Draft<'r, 'a> {
    let mut draft = draft(row);
    draft.part.outbound = true;
    draft
}

/// Rules a to d.
fn per_cdr<'r, 'a>(rows: &'r [Row<'a>], pbx: &Pbx, dropped: &mut Dropped) -> Vec<Draft<'r, 'a>> {
    let group = Group::new(rows);
    let kept = group.outside_calls(dropped);
    let kept = group.one_per_attempt(kept, dropped);
    group.join_splits(kept, dropped).iter().filter_map(|run| part_of(run, &group, pbx)).collect()
}

fn part_of<'r, 'a>(run: &[&'r Row<'a>], group: &Group<'_, 'a>, pbx: &Pbx) -> Option<Draft<'r, 'a>> {
    let (first, last) = (*run.first()?, *run.last()?);
    let mut draft = draft(first);
    let part = &mut draft.part;
    if run.len() > 1 {
        part.duration = seconds(first.start, last.end);
        part.billsec = seconds(first.answer.unwrap_or(first.start), last.end);
        part.recordingfile = run.iter().find_map(|row| row.cdr.recordingfile.clone());
    }
    part.source = part.source.take().filter(|number| !withheld(number));
    if !part.outbound {
        part.did = group.did(first).cloned().or_else(|| line_number(first, pbx));
    }
    Some(draft)
}

/// The parts as one: from the first sign of an outside line to the last.
fn per_call<'r, 'a>(rows: &'r [Row<'a>], pbx: &Pbx, dropped: &mut Dropped) -> Vec<Draft<'r, 'a>> {
    let mut drafts = per_cdr(rows, pbx, dropped);
    drafts.sort_by(|x, y| x.row.order().cmp(&y.row.order()));
    let outside = || rows.iter().filter(|row| row.a == Party::Outside || row.b == Some(Party::Outside));
    // The first outside caller's part, else the first part; the others go into it.
    let Some(at) = drafts.iter().position(|draft| !draft.part.outbound).or((!drafts.is_empty()).then_some(0))
    else {
        return drafts;
    };
    let best = drafts.iter().max_by_key(|draft| quality(draft)).map(|best| best.part.disposition);
    let recording = drafts.iter().find_map(|draft| draft.part.recordingfile.clone());
    let mut whole = drafts.swap_remove(at);
    let answer = drafts.iter().chain([&whole]).filter_map(|draft| draft.row.answer).min();
    drafts.iter().for_each(|draft| dropped.push(draft.row, DropReason::Joined));
    let first = outside().next().unwrap_or(whole.row);
    let end = outside().map(|row| row.end).max().unwrap_or(whole.row.end);
    whole.part.start = first.start;
    whole.part.start_local = first.cdr.start.clone();
    whole.part.duration = seconds(first.start, end);
    whole.part.billsec = answer.map_or(0, |answer| seconds(answer, end));
    whole.part.disposition = best.unwrap_or(whole.part.disposition);
    whole.part.recordingfile = recording;
    vec![whole]
}

/// Rule e.
fn best_of_equal_keys<'r, 'a>(mut drafts: Vec<Draft<'r, 'a>>, dropped: &mut Dropped) -> Vec<Draft<'r, 'a>> {
    drafts.sort_by(|x, y| quality(y).cmp(&quality(x)).then_with(|| x.row.order().cmp(&y.row.order())));
    let mut taken = BTreeSet::new();
    drafts.retain(|Draft { row, part }| {
        let to = part.did.as_ref().or(part.destination.as_ref());
        let first = taken.insert((part.start.secs(), part.source.clone(), to.cloned()));
        if !first {
            dropped.push(row, DropReason::SameKey);
        }
        first
    });
    drafts
}

fn quality(draft: &Draft<'_, '_>) -> (u8, u64, u64) {
    let part = &draft.part;
    let rank = match part.disposition {
        Disposition::Answered => 1 + u8::from(draft.row.b.is_some()),
        Disposition::NoAnswer
        | Disposition::Failed
        | Disposition::Busy
        | Disposition::Congestion
        | Disposition::Cancel
        | Disposition::Unknown => 0,
    };
    (rank, part.billsec, part.duration)
}

fn numbered(mut drafts: Vec<Draft<'_, '_>>) -> Vec<Part> {
    drafts.sort_by(|x, y| (x.part.start, x.row.order()).cmp(&(y.part.start, y.row.order())));
    let mut next: BTreeMap<Key<'_>, u32> = BTreeMap::new();
    for draft in &mut drafts {
        let count = next.entry(draft.row.party()).or_default();
        draft.part.part = *count;
        *count = count.saturating_add(1);
    }
    drafts.into_iter().map(|draft| draft.part).collect()
}

/// What PBXs put in place of a number that they do not know or may not show.
pub(super) fn withheld(number: &str) -> bool {
    const WORDS: [&str; 9] = [
        "",
        "anonymous",
        "unknown",
        "<unknown>",
        "unavailable",
        "restricted",
        "private",
        "withheld",
        "no number",
    ];
    WORDS.iter().any(|word| number.trim().eq_ignore_ascii_case(word))
}

pub(super) fn line_number(row: &Row<'_>, pbx: &Pbx) -> Option<Arc<str>> {
    trunk(row.cdr.channel.as_ref()?, pbx)?.number.as_deref().map(Arc::from)
}

fn seconds(from: Micros, to: Micros) -> u64 {
    u64::try_from(to.secs_since(from)).unwrap_or(0)
}
