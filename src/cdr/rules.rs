//! Rules a, c and d of the fold: which rows of a group are the call's, and which belong together.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parsers::{ChannelName, Micros, Uniqueid};

use super::fold::{DropReason, Dropped};
use super::row::{Key, Party, Row};

/// Local channels may call Local channels; further than this nobody nests them.
const NESTED: usize = 16;

/// When a record began; of two in one instant the older channel's comes first.
type Begin<'a> = (Micros, Option<&'a Uniqueid>);

/// The rows of a call in order of time, with what the rules look up.
pub(super) struct Group<'r, 'a> {
    rows: &'r [Row<'a>],
    /// Each party A's first record.
    first: BTreeMap<Key<'a>, Begin<'a>>,
    /// Each party B's first record as such.
    called: BTreeMap<&'a ChannelName, Begin<'a>>,
    /// The first record that has a Local pair as party B: its caller.
    callers: BTreeMap<&'a str, &'r Row<'a>>,
    /// The records that have a Local half as party A, by pair.
    behind: BTreeMap<&'a str, Vec<&'r Row<'a>>>,
    /// The number that each party A called, as FreePBX noted it.
    columns: BTreeMap<Key<'a>, &'a Arc<str>>,
    /// The same, as the tracker saw it.
    tracked: BTreeMap<Key<'a>, &'a Arc<str>>,
}

impl<'r, 'a> Group<'r, 'a> {
    /// `rows` in order of time.
    pub fn new(rows: &'r [Row<'a>]) -> Self {
        let mut group = Self {
            rows,
            first: BTreeMap::new(),
            called: BTreeMap::new(),
            callers: BTreeMap::new(),
            behind: BTreeMap::new(),
            columns: BTreeMap::new(),
            tracked: BTreeMap::new(),
        };
        for row in rows {
            group.learn(row);
        }
        group
    }

    fn learn(&mut self, row: &'r Row<'a>) {
        let begin = (row.start, row.cdr.uniqueid.as_ref());
        let earlier = |known: &mut Begin<'a>| *known = begin.min(*known);
        self.first.entry(row.party()).and_modify(earlier).or_insert(begin);
        let behind = pair(row.cdr.channel.as_ref());
        if let Some(pair) = behind {
            self.behind.entry(pair).or_default().push(row);
        }
        if let Some(b) = &row.cdr.dstchannel {
            self.called.entry(b).and_modify(earlier).or_insert(begin);
            if let Some(pair) = b.local_pair().filter(|pair| behind != Some(pair)) {
                self.callers.entry(pair).or_insert(row);
            }
        }
        let known = |did: &&Arc<str>| dialable(did);
        if let Some(did) = row.cdr.did.as_ref().filter(known) {
            self.columns.entry(row.party()).or_insert(did);
        }
        if let Some(did) = row.tracked.filter(known) {
            self.tracked.entry(row.party()).or_insert(did);
        }
    }

    /// The number that a row's party A called from outside, from whichever of its rows knows it.
    /// FreePBX's column goes first: the live path and the backfill both have it.
    pub fn did(&self, row: &Row<'a>) -> Option<&'a Arc<str>> {
        self.columns.get(&row.party()).or_else(|| self.tracked.get(&row.party())).copied()
    }

    /// Rule a.
    pub fn outside_calls(&self, dropped: &mut Dropped) -> Vec<&'r Row<'a>> {
        let mut kept = Vec::new();
        let mut tails = Vec::new();
        for row in self.rows {
            match self.no_outside_call(row) {
                Some(why) => dropped.push(row, why),
                None if row.tail() => tails.push(row),
                None => kept.push(row),
            }
        }
        for tail in tails {
            if kept.iter().any(|row| row.party() == tail.party()) {
                dropped.push(tail, DropReason::Tail);
            } else {
                kept.push(tail);
            }
        }
        in_order(kept)
    }

    fn no_outside_call(&self, row: &Row<'a>) -> Option<DropReason> {
        if row.a == Party::Message {
            return Some(DropReason::Message);
        }
        if row.outbound() {
            return row.dst().is_none().then_some(DropReason::NoDestination);
        }
        match row.a {
            Party::Local => return Some(DropReason::LocalHalf),
            Party::User => return Some(DropReason::Internal),
            Party::Outside | Party::Message => {}
        }
        if self.dialled(row) || row.dst().is_none() && row.app_dial() {
            return Some(DropReason::Dialled);
        }
        (row.dst().is_none() && self.did(row).is_none()).then_some(DropReason::NoDestination)
    }

    /// Whether party A came into the call by being called: a record had it as party B before it
    /// had records of its own. An outside caller may become a party B too, but only later.
    pub fn dialled(&self, row: &Row<'a>) -> bool {
        let called = row.cdr.channel.as_ref().and_then(|channel| self.called.get(channel));
        called.zip(self.first.get(&row.party())).is_some_and(|(called, first)| called < first)
    }

    /// Rule c. What a Local channel tried counts for the party that called it.
    pub fn one_per_attempt(&self, kept: Vec<&'r Row<'a>>, dropped: &mut Dropped) -> Vec<&'r Row<'a>> {
        let mut stay = Vec::new();
        for own in by(kept, |row| self.originator(row)).into_values() {
            let (answered, vain): (Vec<_>, Vec<_>) =
                own.iter().copied().partition(|row| row.answered() && !picked_up(row, &own));
            if answered.iter().any(|row| row.b.is_some()) {
                vain.iter().for_each(|row| dropped.push(row, DropReason::OtherAnswered));
            } else {
                // Of equals the first is taken: `vain` is in order of time.
                let rank =
                    |row: &&Row<'a>| (row.a == Party::Local, row.start.secs(), Reverse(row.cdr.duration));
                let first = vain.iter().copied().min_by_key(rank);
                let others = vain.iter().filter(|row| first.is_some_and(|first| first.index != row.index));
                others.for_each(|row| dropped.push(row, DropReason::OtherAttempt));
                stay.extend(first);
            }
            stay.extend(answered);
        }
        in_order(stay)
    }

    /// Follows Local channels back to the party that called them.
    fn originator(&self, row: &'r Row<'a>) -> Key<'a> {
        self.caller(row).party()
    }

    /// The record of that party.
    pub fn caller(&self, row: &'r Row<'a>) -> &'r Row<'a> {
        let mut at = row;
        for _ in 0..NESTED {
            match pair(at.cdr.channel.as_ref()).and_then(|pair| self.callers.get(pair)) {
                Some(caller) => at = caller,
                None => break,
            }
        }
        at
    }

    /// Rule d: the rows of each part.
    pub fn join_splits(&self, kept: Vec<&'r Row<'a>>, dropped: &mut Dropped) -> Vec<Vec<&'r Row<'a>>> {
        let mut parts = Vec::new();
        for own in by(kept, |row| row.party()).into_values() {
            let mut runs: Vec<Vec<&'r Row<'a>>> = Vec::new();
            for row in own {
                match runs.last_mut() {
                    Some(run) if run.last().is_some_and(|last| self.continues(last, row)) => {
                        dropped.push(row, DropReason::Joined);
                        run.push(row);
                    }
                    Some(_) | None => runs.push(vec![row]),
                }
            }
            parts.append(&mut runs);
        }
        parts
    }

    /// Whether `row` is the talk of `last` after its Local channel was optimised away. The record
    /// behind the Local channel tells whom it had reached: somebody else now is a transfer.
    fn continues(&self, last: &Row<'a>, row: &Row<'a>) -> bool {
        if !last.answered() || !row.answered() {
            return false;
        }
        let (Some(local), Some(b)) = (&last.cdr.dstchannel, &row.cdr.dstchannel) else { return false };
        let Some(pair) = local.local_pair() else { return false };
        let exact = last.cdr.end_epoch.is_some() && row.cdr.start_epoch.is_some();
        let apart = if exact { Micros::SECOND } else { 2 * Micros::SECOND };
        row.start.0.abs_diff(last.end.0) <= apart.unsigned_abs()
            && self.reached(pair, b, NESTED).unwrap_or(true)
    }

    /// Whether a Local pair had led to `b`; `None` where no record tells.
    fn reached(&self, pair: &str, b: &ChannelName, depth: usize) -> Option<bool> {
        let depth = depth.checked_sub(1)?;
        let behind = self.behind.get(pair)?.iter().filter(|row| row.answered());
        let mut told = None;
        for to in behind.filter_map(|row| row.cdr.dstchannel.as_ref()) {
            let same = to == b || to.local_pair().is_some_and(|to| b.local_pair() == Some(to));
            let further = to.local_pair().filter(|to| *to != pair).and_then(|to| self.reached(to, b, depth));
            if same || further == Some(true) {
                return Some(true);
            }
            if to.local_pair().is_none() || further.is_some() {
                told = Some(false);
            }
        }
        told
    }
}

/// Nobody says a word in less, and no pickup takes Asterisk longer.
const A_WORD: u64 = 500_000;

/// Whether what says that it was answered is a phone whose call another one picked up: Asterisk may
/// write an answer and, a moment later, an end into its record, with nothing billed (a whole second
/// where it rounds up). The record of who took the call begins then or, where the first one ended as
/// soon as the phone rang, as much later as it rang.
fn picked_up(row: &Row<'_>, own: &[&Row<'_>]) -> bool {
    let exact = row.cdr.answer_epoch.zip(row.cdr.end_epoch);
    let talked = match exact {
        Some((answer, end)) => end.0.saturating_sub(answer.0).unsigned_abs() >= A_WORD,
        None => row.cdr.billsec > 0,
    };
    let taken = |next: &&Row<'_>| {
        let later = next.start.secs() >= row.end.secs() && next.cdr.dst == row.cdr.dst;
        // by whole seconds a short talk looks the same, so only what follows at once counts
        let close = next.start.0.abs_diff(row.end.0) <= Micros::SECOND.unsigned_abs();
        let talks = next.answered() && next.b.is_some() && next.cdr.billsec > 0;
        next.index != row.index && talks && later && (exact.is_some() || close)
    };
    // What a Local channel led to goes on in the next record: rule d joins them.
    let phone = row.b.is_some() && pair(row.cdr.dstchannel.as_ref()).is_none();
    !talked && phone && own.iter().any(taken)
}

fn by<'r, 'a>(
    rows: Vec<&'r Row<'a>>,
    key: impl Fn(&'r Row<'a>) -> Key<'a>,
) -> BTreeMap<Key<'a>, Vec<&'r Row<'a>>> {
    let mut groups: BTreeMap<Key<'a>, Vec<&'r Row<'a>>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

fn in_order<'r, 'a>(mut rows: Vec<&'r Row<'a>>) -> Vec<&'r Row<'a>> {
    rows.sort_by(|x, y| x.order().cmp(&y.order()));
    rows
}

fn pair(channel: Option<&ChannelName>) -> Option<&str> {
    channel.and_then(ChannelName::local_pair)
}

/// A number, and not one of the dialplan's own extensions (`s`, `h`, `i`, `t`…).
fn dialable(did: &str) -> bool {
    did.bytes().any(|b| b.is_ascii_digit())
}
