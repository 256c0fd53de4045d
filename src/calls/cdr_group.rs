//! The CDR rows of one whole call, collected until they are complete.
//!
//! ```text
//!           last channel gone          rows are there, 2 s (or the delay seen) later
//!   LIVE ---------------------> WAITING -----------------------------------> DONE --310 s--> (nothing)
//!    |  ^                        |   ^ |  answered, but no row for 310 s:     |
//!    |  '---- a channel comes ---'   | '-- rows made by the tracker --------> |
//!    |                               '------ late row of a party A whose -----'
//!    '-- only a stuck channel left 10 min: rows leave      rows have not left
//! ```
//! Asterisk posts all rows of a party A when that channel is gone: within milliseconds, or in
//! batches up to 300 s later (`cdr.conf batch=yes`). Rows are counted as late from 5 s on; then
//! groups wait as long as was seen.

use std::sync::Arc;

use parsers::cdr::{Cdr, Disposition};
use parsers::{Linkedid, Micros, Uniqueid};

use super::call::{CallKey, CdrGroup, CdrRow, CdrSource};
use super::direction::{Side, clid};
use super::identity::trim_sent;
use super::objects::{
    CdrFeed, Chan, MAX_AGE, MAX_DONE, MAX_LIST, MAX_ROWS, Outcome, Phase, Row, clip, is_sane,
};
use super::state::{State, Timer};

/// After the last channel, for rows that come a moment later.
pub(super) const GROUP_WAIT: i64 = 2_000;
/// Asterisk's longest batch (300 s) and a margin.
const LONGEST_DELAY: i64 = 310_000;
/// A row that comes later than this after its channel was posted in a batch.
const LATE: i64 = 5_000;
/// A delay that was not seen again for this long is over: somebody switched the batches off.
const DELAY_FORGOTTEN: i64 = 3_600_000;
/// How exactly the last Cdr event's time is kept, microseconds.
const FEED_SEEN: i64 = 60_000_000;
/// A channel that outlives every party A of its call by this much is stuck.
const STUCK: i64 = 600_000;

impl State {
    /// A Cdr event. Rows of channels that were never announced are not believed.
    pub(super) fn cdr_event(&mut self, cdr: &Cdr) {
        let at = self.at;
        let Some(key) = self.call_of_row(cdr) else {
            self.out.skipped.push("CDR of a channel that was never seen");
            return;
        };
        let party = cdr.uniqueid.as_ref().and_then(|id| self.channels.get(id)).cloned();
        let Some(call) = self.calls.get(&key).cloned() else { return };
        let ended = party.as_ref().and_then(|party| party.gone).or(call.gone);
        self.note_feed(ended.map_or(0, |ended| at.0.saturating_sub(ended.0)));
        let sent = cdr.uniqueid.as_ref().is_some_and(|id| call.sent.contains(id));
        if sent {
            self.out.skipped.push("CDR that came after its part of the call was sent");
            return;
        }
        if self.members.get(&key).is_some_and(|members| members.rows.len() >= MAX_ROWS) {
            self.out.skipped.push("CDR above the limit of one call");
            return;
        }
        self.room_for_row();
        let did = match &party {
            Some(party) => self.did(party),
            None => call
                .parties
                .iter()
                .find(|(id, _)| Some(id) == cdr.uniqueid.as_ref())
                .and_then(|(_, did)| did.clone()),
        };
        self.add_row(&key, CdrRow { cdr: clipped(cdr), did });
        self.trace_call(&key);
        if call.phase == Phase::Done {
            self.undo_done(&key);
            let due = self.now.plus_millis(GROUP_WAIT);
            self.calls.edit(&key, |call| (call.phase, call.due) = (Phase::Waiting, due));
        } else {
            self.set_call_due(&key);
        }
    }

    fn call_of_row(&self, cdr: &Cdr) -> Option<Linkedid> {
        let by_channel = cdr.uniqueid.as_ref().and_then(|id| {
            self.channels.get(id).map(|chan| chan.call.clone()).or_else(|| self.parties.get(id).cloned())
        });
        by_channel.or_else(|| self.links.get(cdr.linkedid.as_ref()?).cloned())
    }

    fn trace_call(&mut self, key: &Linkedid) {
        let Some(call) = self.calls.get(key) else { return };
        for hash in std::iter::once(&call.hash).chain(&call.aliases) {
            if !self.out.calls.iter().any(|known| known.0 == *hash) {
                self.out.calls.push(CallKey(hash.clone()));
            }
        }
    }

    fn add_row(&mut self, key: &Linkedid, row: CdrRow) {
        let members = self.members.get(key).map(|members| &members.rows);
        let mut known = members.into_iter().flatten().filter_map(|n| self.rows.get(&(key.clone(), *n)));
        if known.any(|known| known.row.cdr == row.cdr) {
            return;
        }
        let Some(n) = self.calls.edit(key, |call| {
            call.next_row = call.next_row.saturating_add(1);
            call.next_row.saturating_sub(1)
        }) else {
            return;
        };
        self.rows.insert((key.clone(), n), Row { call: key.clone(), n, row });
        self.join(key, |members| members.rows.insert(n));
    }

    pub(super) fn rows_of(&self, key: &Linkedid) -> Vec<(u32, CdrRow)> {
        let Some(members) = self.members.get(key) else { return Vec::new() };
        members
            .rows
            .iter()
            .filter_map(|n| Some((*n, self.rows.get(&(key.clone(), *n))?.row.clone())))
            .collect()
    }

    /// Cdr events come, so late.
    fn note_feed(&mut self, micros: i64) {
        let at = self.at;
        self.meta.edit(&(), |meta| {
            meta.feed = CdrFeed::Events;
            if at.0.saturating_sub(meta.feed_seen.0) > FEED_SEEN {
                meta.feed_seen = at;
            }
            let forgotten = at.0.saturating_sub(meta.delay_seen.0) > DELAY_FORGOTTEN * 1000;
            if micros > LATE * 1000 {
                meta.delay = if forgotten { micros } else { meta.delay.max(micros) };
                meta.delay = meta.delay.min(LONGEST_DELAY * 1000);
                meta.delay_seen = at;
            } else if forgotten {
                (meta.delay, meta.delay_seen) = (0, Micros(0));
            }
        });
    }

    /// A channel is gone: its call may be over, or only a stuck channel may be left of it.
    pub(super) fn channel_over(&mut self, chan: &Chan) {
        self.prune(&chan.call);
        self.over_if_empty(&chan.call);
        self.set_call_due(&chan.call);
    }

    /// A live call that has no channel any more, whatever took them, waits for its rows.
    pub(super) fn over_if_empty(&mut self, key: &Linkedid) {
        if self.phase(key) != Some(Phase::Live) || self.any_alive(key) {
            return;
        }
        let (now, due) = (self.now, self.now.plus_millis(GROUP_WAIT));
        self.calls.edit(key, |call| (call.phase, call.gone, call.due) = (Phase::Waiting, Some(now), due));
    }

    pub(super) fn set_call_due(&mut self, key: &Linkedid) {
        let Some(call) = self.calls.get(key) else { return };
        let due = match (call.phase, call.gone) {
            (Phase::Live, _) => self.live_due(key, call.began),
            (Phase::Waiting, Some(gone)) => {
                Micros(gone.0.saturating_add(self.meta().delay)).plus_millis(GROUP_WAIT)
            }
            (Phase::Waiting, None) => self.now.plus_millis(GROUP_WAIT),
            (Phase::Done, _) => return,
        };
        self.calls.edit(key, |call| call.due = due);
    }

    fn live_due(&self, key: &Linkedid, began: Micros) -> Micros {
        let doubts = self.channels_of(key).into_iter().filter(Chan::alive).filter_map(|chan| chan.doubt);
        let age = doubts.chain([began.plus_millis(MAX_AGE)]).min().unwrap_or(began);
        let has_rows = self.members.get(key).is_some_and(|members| !members.rows.is_empty());
        if !has_rows {
            return age;
        }
        let parties: Vec<Chan> = self.channels_of(key).into_iter().filter(Chan::party_a).collect();
        if parties.iter().any(Chan::alive) {
            return age;
        }
        let last = parties.iter().filter_map(|party| party.gone).max();
        last.map_or(age, |last| age.min(last.plus_millis(STUCK)))
    }

    /// A call's deadline.
    pub(super) fn call_due(&mut self, key: &Linkedid) {
        match self.phase(key) {
            Some(Phase::Live) => self.live_too_long(key),
            Some(Phase::Waiting) => self.close(key),
            Some(Phase::Done) => self.forget(key),
            None => {}
        }
    }

    fn live_too_long(&mut self, key: &Linkedid) {
        let rows = self.rows_of(key);
        if !rows.is_empty() {
            self.send(key, rows, CdrSource::Events);
        }
        self.lose_doubtful(key);
        let began = self.calls.get(key).map_or(self.now, |call| call.began);
        if self.now >= began.plus_millis(MAX_AGE) {
            self.out.skipped.push("channel without an end for seven days");
            for chan in self.channels_of(key).into_iter().filter(Chan::alive) {
                self.lose_channel(&chan, "Lost");
            }
        }
        self.over_if_empty(key);
        self.set_call_due(key);
    }

    /// All channels are gone and the time for rows is over.
    pub(super) fn close(&mut self, key: &Linkedid) {
        let Some(call) = self.calls.get(key).cloned() else { return };
        let rows = self.rows_of(key);
        if !rows.is_empty() {
            self.send(key, rows, CdrSource::Events);
            return self.done(key);
        }
        if call.sent.is_empty() {
            let made = self.made_up(key);
            let answered = made.iter().any(|row| row.cdr.disposition == Disposition::Answered);
            let hold = i64::try_from(self.who.calls.cdr_hold.as_millis()).unwrap_or(LONGEST_DELAY);
            let patience = call.gone.unwrap_or(call.began).plus_millis(hold);
            if !answered {
                self.out.skipped.push("unanswered call without a CDR");
            } else if call.lost {
                self.out.skipped.push("call lost with Asterisk, without a CDR");
            } else if self.meta().feed == CdrFeed::Silent || self.now >= patience {
                let now = self.now;
                self.meta.edit(&(), |meta| {
                    // an answered call had no row, and neither had any other in that time
                    if meta.feed_seen.plus_millis(hold) < now {
                        meta.feed = CdrFeed::Silent;
                    }
                });
                let made =
                    made.into_iter().enumerate().map(|(n, row)| (u32::try_from(n).unwrap_or(u32::MAX), row));
                self.send(key, made.collect(), CdrSource::Tracker);
            } else {
                self.calls.edit(key, |call| call.due = patience);
                return;
            }
        }
        self.done(key);
    }

    pub(super) fn send(&mut self, key: &Linkedid, rows: Vec<(u32, CdrRow)>, source: CdrSource) {
        let Some(hash) = self.calls.edit(key, |call| {
            for (_, row) in &rows {
                if let Some(party) = row.cdr.uniqueid.as_ref().filter(|party| !call.sent.contains(party)) {
                    call.sent.push(party.clone());
                }
            }
            trim_sent(&mut call.sent);
            call.hash.clone()
        }) else {
            return;
        };
        for (n, _) in &rows {
            self.rows.remove(&(key.clone(), *n));
            self.join(key, |members| members.rows.remove(n));
        }
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        self.out.groups.push(CdrGroup { call: CallKey(hash), rows, source });
    }

    /// Nothing is open any more; what a late row needs is kept for a while.
    pub(super) fn done(&mut self, key: &Linkedid) {
        for leg in self.legs_of(key) {
            self.lose_leg(&leg, "Unknown", None);
        }
        let (mut parties, mut bytes) = (Vec::new(), 0);
        for chan in self.channels_of(key) {
            if chan.party_a() && bytes < MAX_LIST {
                let did = self.did(&chan);
                bytes += chan.id.as_str().len() + did.as_ref().map_or(0, |did| did.len());
                parties.push((chan.id.clone(), did));
                self.parties.insert(chan.id.clone(), key.clone());
            }
            self.forget_channel(&chan.id);
        }
        let due = self.now.plus_millis(LONGEST_DELAY);
        self.calls.edit(key, |call| {
            call.phase = Phase::Done;
            call.parties = parties;
            call.due = due;
        });
        self.done.insert((due, key.clone()));
        let Some(call) = self.calls.get(key) else { return };
        self.out.ended.extend(std::iter::once(&call.hash).chain(&call.aliases).cloned().map(CallKey));
        if self.done.len() > MAX_DONE
            && let Some((_, oldest)) = self.done.first().cloned()
        {
            self.forget(&oldest);
        }
    }

    /// A done call is open again.
    pub(super) fn undo_done(&mut self, key: &Linkedid) {
        let Some(call) = self.calls.get(key) else { return };
        self.done.remove(&(call.due, key.clone()));
        for (party, _) in call.parties.clone() {
            self.parties.remove(&party);
        }
        let now = self.now;
        self.calls.edit(key, |call| {
            if call.phase == Phase::Done {
                call.phase = Phase::Waiting;
                call.gone.get_or_insert(now);
            }
        });
    }

    pub(super) fn forget(&mut self, key: &Linkedid) {
        self.undo_done(key);
        if let Some(call) = self.calls.remove(key) {
            for one in &call.anchors {
                self.anchors.remove(&one.id);
            }
            self.links.remove(key);
            for link in &call.links {
                self.links.remove(link);
            }
        }
        self.members.remove(key);
        self.arm(Timer::Call(key.clone()), None);
    }

    /// Rows as Asterisk's CDR engine would have written them: one for each dialled channel, party A
    /// the one that dialled it; one without a party B for a call that only a voice menu answered.
    fn made_up(&self, key: &Linkedid) -> Vec<CdrRow> {
        let channels = self.channels_of(key);
        let mut rows = Vec::new();
        for a in channels.iter().filter(|chan| chan.party_a()) {
            let dialled: Vec<&Chan> = channels.iter().filter(|chan| dialled_by(chan, &a.id)).collect();
            let first_end = dialled.iter().filter_map(|chan| chan.dial.as_ref()?.end).min();
            for b in &dialled {
                rows.push(self.made_row(key, a, Some(b), first_end));
            }
            if dialled.is_empty() && a.up.is_some() && a.side != Side::Local {
                rows.push(self.made_row(key, a, None, None));
            }
        }
        rows
    }

    fn made_row(&self, key: &Linkedid, a: &Chan, b: Option<&Chan>, first_end: Option<Micros>) -> CdrRow {
        let dial = b.and_then(|b| b.dial.as_ref());
        let a_end = a.gone.unwrap_or(self.at);
        // attempts of the first round begin with the call, later ones with their dialling
        let start = match dial {
            Some(dial) if first_end.is_some_and(|end| dial.at > end) => dial.at,
            _ => a.start,
        };
        let outcome = dial.and_then(|dial| dial.outcome);
        let (disposition, answer) = match (dial, outcome) {
            (None, _) => (Disposition::Answered, a.up),
            (Some(dial), Some(Outcome::Answer)) => (Disposition::Answered, dial.end),
            (_, Some(Outcome::Busy)) => (Disposition::Busy, None),
            (_, Some(Outcome::Failed)) => (Disposition::Failed, None),
            (_, Some(Outcome::Cancel | Outcome::NoAnswer | Outcome::Other) | None) => {
                (Disposition::NoAnswer, None)
            }
        };
        let end = match (answer, dial) {
            (None, Some(dial)) => dial.end,
            _ => b.and_then(|b| b.gone).map(|gone| gone.min(a_end)),
        };
        let end = end.unwrap_or(a_end);
        let queue = b.is_some() && a.visits > 0;
        let seconds =
            |from: Option<Micros>| from.map_or(0, |from| u64::try_from(end.secs_since(from)).unwrap_or(0));
        let cdr = Cdr {
            uniqueid: Some(a.id.clone()),
            linkedid: Some(key.clone()),
            sequence: None,
            src: a.caller.num.clone(),
            dst: a.exten.clone(),
            dcontext: a.context.clone(),
            clid: Some(clid(&a.caller)).filter(|clid| !clid.is_empty()).map(Arc::from),
            channel: Some(a.name.clone()),
            dstchannel: b.map(|b| b.name.clone()),
            lastapp: b.map(|_| if queue { "Queue" } else { "Dial" }.into()),
            lastdata: None,
            start: None,
            answer: None,
            end: None,
            start_epoch: Some(start),
            answer_epoch: answer,
            end_epoch: Some(end),
            duration: seconds(Some(start)),
            billsec: seconds(answer),
            disposition,
            did: None,
            recordingfile: None,
            accountcode: None,
            peeraccount: None,
            userfield: None,
        };
        CdrRow { cdr, did: self.did(a) }
    }
}

fn dialled_by(chan: &Chan, caller: &Uniqueid) -> bool {
    chan.dial.as_ref().is_some_and(|dial| dial.by.as_ref() == Some(caller))
}

/// A row whose texts are within bounds; Asterisk's own are (79 characters, 255 for userfield).
fn clipped(cdr: &Cdr) -> Cdr {
    let mut cdr = cdr.clone();
    let texts = [
        &mut cdr.src,
        &mut cdr.dst,
        &mut cdr.dcontext,
        &mut cdr.clid,
        &mut cdr.lastapp,
        &mut cdr.lastdata,
        &mut cdr.start,
        &mut cdr.answer,
        &mut cdr.end,
        &mut cdr.did,
        &mut cdr.recordingfile,
        &mut cdr.accountcode,
        &mut cdr.peeraccount,
        &mut cdr.userfield,
    ];
    for text in texts.into_iter().flatten() {
        *text = clip(text);
    }
    cdr.channel = cdr.channel.filter(|name| is_sane(name.as_str()));
    cdr.dstchannel = cdr.dstchannel.filter(|name| is_sane(name.as_str()));
    cdr.uniqueid = cdr.uniqueid.filter(|id| is_sane(id.as_str()));
    cdr.linkedid = cdr.linkedid.filter(|id| is_sane(id.as_str()));
    cdr
}
