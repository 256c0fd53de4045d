//! Ids that the same stream always gives again, and which channels make one call.
//!
//! A call is the set of channels joined by linkedid: a union of linkedids, named by the oldest.
//! Nothing announces that a channel's linkedid changed, so every block that shows another value
//! joins the two, and so do a swap, a pickup, a park retrieved and an attended transfer. Ids that
//! were published never change; a merge only moves the parts.
//!
//! A `call_id` has 53 bits, so that a number of JavaScript holds it. Of 10,000 legs open at once two
//! have the same with odds of 10,000^2 / 2^54 = 6 in 10^9; of the nine million that a month of
//! 100,000 calls a day leaves in the history, 9e6^2 / 2^54 = 0.4 %, and a new leg meets one of those
//! with 1 in 10^9. Nothing in here is found by it: legs by their channel, calls by linkedid and by
//! the 160 bits of `src_hash`, updates by 56 bits and their number. So there is no salt: two such
//! legs would be two calls with two hashes, which a receiver can tell apart as well.

use std::sync::Arc;

use parsers::{Linkedid, Micros, Uniqueid};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::call::{CallKey, Merger, UpdateId};
use super::cdr_group::GROUP_WAIT;
use super::objects::{Anchor, Call, LegKey, MAX_AGE, MAX_LINKS, MAX_LIST, Phase};
use super::state::State;
use crate::hex::hex;

/// An id whose epoch is this near to the channel's birth, seconds, is Asterisk's own. What is left
/// of a channel is kept for longer after its end, so that an id used again is known or far from it.
const OWN_ID: u64 = 300;
/// Bytes of an anchor in JSON beside its id.
const ANCHOR: usize = 32;

/// The top 53 bits, never 0, and the 14 hex digits of the same hash.
pub(super) fn leg_id(pbx: &str, key: &LegKey) -> (u64, String) {
    let kind = if key.queue { "queue" } else { "leg" };
    hash_id(&[pbx, kind, key.anchor.as_str(), &key.n.to_string()])
}

/// SHA-256 over the parts, a zero byte between them: its top 53 bits and 14 hex digits.
pub(super) fn hash_id(parts: &[&str]) -> (u64, String) {
    let mut hasher = Sha256::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update([0]);
        }
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize();
    let mut top = [0; 8];
    top.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    let id = u64::from_be_bytes(top) >> 11;
    (if id == 0 { 1 } else { id }, hex(digest.get(..7).unwrap_or_default()))
}

/// `<pbx>.<14 hex digits>.<n>`.
pub(super) fn update_id(pbx: &str, hex: &str, n: u64) -> UpdateId {
    UpdateId(format!("{pbx}.{hex}.{n}").into())
}

/// The `call_id` of the first leg of a user's channel that called out.
pub(crate) fn calling_leg(pbx: &str, anchor: &Uniqueid) -> u64 {
    leg_id(pbx, &LegKey { queue: false, anchor: anchor.clone(), n: 0 }).0
}

/// The ids of a leg of which only CDR rows tell, and of its end: by party A, the channel that it called,
/// and when. None of those that were seen as they happened has them.
pub(crate) fn past_leg(
    pbx: &str,
    call: &CallKey,
    party: &str,
    channel: &str,
    start: Micros,
) -> (u64, UpdateId) {
    let second = start.secs().to_string();
    let (id, hex) = hash_id(&[pbx, "cdr-leg", &call.0, party, channel, &second]);
    (id, update_id(pbx, &hex, 0))
}

/// The key of the call with this linkedid.
pub fn call_key(pbx: &str, linkedid: &str) -> CallKey {
    CallKey(src_hash(pbx, linkedid))
}

/// SHA-1 over `pbx 0 text`, 40 hex digits.
pub(super) fn src_hash(pbx: &str, text: &str) -> Arc<str> {
    let mut hasher = Sha1::new();
    hasher.update(pbx.as_bytes());
    hasher.update([0]);
    hasher.update(text.as_bytes());
    hex(&hasher.finalize()).into()
}

/// Keeps as many of the parties sent as the call's object has room for; a party before them was
/// sent long ago.
pub(super) fn trim_sent(sent: &mut Vec<Uniqueid>) {
    let mut bytes: usize = sent.iter().map(|party| party.as_str().len()).sum();
    let excess = sent.iter().take_while(|party| {
        let over = bytes > MAX_LIST;
        bytes -= party.as_str().len();
        over
    });
    let excess = excess.count();
    sent.drain(..excess);
}

fn fits<'a>(links: impl Iterator<Item = &'a Linkedid>) -> bool {
    let (count, bytes) = links.fold((0, 0), |(count, bytes), link| (count + 1, bytes + link.as_str().len()));
    count <= MAX_LINKS && bytes <= MAX_LIST
}

impl State {
    /// The call that a linkedid belongs to, made if there is none. A call that was over lives again.
    pub(super) fn call_of_link(&mut self, link: &Linkedid) -> Linkedid {
        if let Some(key) = self.links.get(link).cloned() {
            self.revive(&key);
            return key;
        }
        self.call_or_new(link);
        link.clone()
    }

    pub(super) fn call_or_new(&mut self, key: &Linkedid) {
        if self.calls.contains(key) {
            return;
        }
        let call = Call {
            key: key.clone(),
            hash: src_hash(&self.who.pbx.name, key.as_str()),
            aliases: Vec::new(),
            links: Vec::new(),
            phase: Phase::Live,
            began: self.now,
            gone: None,
            reported: false,
            lost: false,
            next_row: 0,
            sent: Vec::new(),
            parties: Vec::new(),
            anchors: Vec::new(),
            due: self.now.plus_millis(MAX_AGE),
        };
        self.calls.insert(key.clone(), call);
        self.links.insert(key.clone(), key.clone());
    }

    /// Ordinals of a newborn channel's first leg and first visit: 0 unless its id was used before.
    /// Asterisk's own ids are used once; others choose theirs and may use them again, when nothing is
    /// known of the first any more, so that their ordinals begin with the second of birth.
    pub(super) fn ordinals(&self, id: &Uniqueid) -> (u32, u32) {
        let born = self.at.secs();
        let own = id.epoch().and_then(|(secs, _)| i64::try_from(secs).ok());
        let own = own.is_some_and(|secs| secs.abs_diff(born) <= OWN_ID);
        let least = if own { 0 } else { u32::try_from(born).unwrap_or(0) };
        let kept = self.anchors.get(id).copied().unwrap_or_default();
        let there = self.channels.get(id);
        let there = there.map_or((0, 0), |old| (old.first_leg + old.legs, old.first_visit + old.visits));
        (least.max(kept.0).max(there.0), least.max(kept.1).max(there.1))
    }

    /// A channel is born under the id of one that is gone: what waits for that one's rows need not
    /// any more, and its call does not go on with another channel. What is left of it is given back.
    pub(super) fn make_way(&mut self, id: &Uniqueid) -> Vec<Anchor> {
        let root = Linkedid::new(id.as_str());
        let old = self.channels.get(id).map(|chan| chan.call.clone());
        let Some(key) = old.or_else(|| self.parties.get(id).cloned()).or_else(|| {
            // a call that was this channel's own, not one whose first channel comes late
            let own = self.calls.get(&root).filter(|call| call.phase != Phase::Live);
            own.filter(|_| self.anchors.contains_key(id)).map(|call| call.key.clone())
        }) else {
            return Vec::new();
        };
        for leg in self.legs_of(&key).into_iter().filter(|leg| leg.cur == *id) {
            self.leg_due(&leg.key);
            if let Some(leg) = self.legs.get(&leg.key).cloned() {
                self.lose_leg(&leg, "Unknown", None);
            }
        }
        if self.any_alive(&key) {
            self.forget_channel(id);
            return Vec::new();
        }
        if self.phase(&key) != Some(Phase::Done) {
            self.close(&key);
        }
        if self.phase(&key) != Some(Phase::Done) {
            self.done(&key);
        }
        let kept = self.calls.get(&key).map(|call| call.anchors.clone()).unwrap_or_default();
        self.forget(&key);
        kept
    }

    /// Keeps what is left of channels with their call, as many as its object has room for.
    pub(super) fn keep_anchors(&mut self, call: &Linkedid, anchors: Vec<Anchor>) {
        if anchors.is_empty() || !self.calls.contains(call) {
            return;
        }
        self.anchors.extend(anchors.iter().map(|one| (one.id.clone(), (one.legs, one.visits))));
        let dropped = self.calls.edit(call, |call| {
            call.anchors.retain(|known| !anchors.iter().any(|one| one.id == known.id));
            call.anchors.extend(anchors);
            let mut bytes: usize = call.anchors.iter().map(|one| one.id.as_str().len() + ANCHOR).sum();
            let mut dropped = Vec::new();
            while bytes > MAX_LIST && !call.anchors.is_empty() {
                let one = call.anchors.remove(0);
                bytes -= one.id.as_str().len() + ANCHOR;
                dropped.push(one.id);
            }
            dropped
        });
        for id in dropped.into_iter().flatten() {
            self.anchors.remove(&id);
        }
    }

    /// A channel came to a call that had none left.
    fn revive(&mut self, key: &Linkedid) {
        let phase = self.phase(key);
        if phase == Some(Phase::Done) {
            self.undo_done(key);
        }
        if phase != Some(Phase::Live) {
            let due = self.now.plus_millis(MAX_AGE);
            self.calls.edit(key, |call| (call.phase, call.gone, call.due) = (Phase::Live, None, due));
        }
    }

    /// Joins two calls; the older one's key stays.
    pub(super) fn unite(&mut self, a: &Linkedid, b: &Linkedid) {
        if a == b {
            return;
        }
        let (to, from) = if a < b { (a, b) } else { (b, a) };
        let (Some(target), Some(source)) = (self.calls.get(to), self.calls.get(from)) else { return };
        let links = target.links.iter().chain(&source.links).chain([from]);
        if !fits(links) {
            self.out.skipped.push("calls not merged: too many linkedids");
            return;
        }
        if source.phase == Phase::Done {
            self.undo_done(from);
        }
        self.revive(to);
        let Some(source) = self.calls.remove(from) else { return };
        let parts = self.members.remove(from).unwrap_or_default();
        for id in &parts.channels {
            self.channels.edit(id, |chan| chan.call = to.clone());
        }
        for key in &parts.legs {
            self.legs.edit(key, |leg| leg.call = to.clone());
        }
        let mut next = self.calls.get(to).map_or(0, |call| call.next_row);
        let mut rows = Vec::new();
        for n in &parts.rows {
            if let Some(mut row) = self.rows.remove(&(from.clone(), *n)) {
                (row.call, row.n) = (to.clone(), next);
                self.rows.insert((to.clone(), next), row);
                rows.push(next);
                next = next.saturating_add(1);
            }
        }
        self.join(to, |members| {
            members.channels.extend(parts.channels);
            members.legs.extend(parts.legs);
            members.rows.extend(rows);
        });
        for link in source.links.iter().chain([from]) {
            self.links.insert(link.clone(), to.clone());
        }
        let (at, merged) = (self.at, CallKey(source.hash.clone()));
        let into = self.calls.edit(to, |call| {
            call.aliases.push(source.hash);
            call.aliases.extend(source.aliases);
            call.links.push(from.clone());
            call.links.extend(source.links);
            call.reported |= source.reported;
            call.lost &= source.lost;
            call.sent.extend(source.sent);
            trim_sent(&mut call.sent);
            call.next_row = next;
            CallKey(call.hash.clone())
        });
        self.keep_anchors(to, source.anchors);
        self.out.mergers.extend(into.map(|into| Merger { at, from: merged, into }));
        if !self.any_alive(to) {
            let (now, due) = (self.now, self.now.plus_millis(GROUP_WAIT));
            self.calls.edit(to, |call| (call.phase, call.gone, call.due) = (Phase::Waiting, Some(now), due));
        }
    }

    /// A channel of the call shows this linkedid now: what it stands for is the same call.
    pub(super) fn join_link(&mut self, call: &Linkedid, link: &Linkedid) {
        if let Some(other) = self.links.get(link).cloned() {
            return self.unite(call, &other);
        }
        let Some(known) = self.calls.get(call) else { return };
        if fits(known.links.iter().chain([call.max(link)])) {
            self.call_or_new(link);
            self.unite(call, link);
        } else {
            self.out.skipped.push("calls not merged: too many linkedids");
        }
    }

    /// The calls of two channels become one.
    pub(super) fn unite_channels(&mut self, a: &Uniqueid, b: &Uniqueid) {
        if let (Some(a), Some(b)) = (self.channels.get(a), self.channels.get(b)) {
            let (a, b) = (a.call.clone(), b.call.clone());
            self.unite(&a, &b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(queue: bool, anchor: &str, n: u32) -> LegKey {
        LegKey { queue, anchor: Uniqueid::new(anchor), n }
    }

    /// Computed with `printf 'hq\0leg\x001795252767.1\x000' | sha256sum`.
    #[test]
    fn ids_are_the_documented_bits_of_the_documented_hash() {
        let (id, hex) = leg_id("hq", &key(false, "1795252767.1", 0));
        assert_eq!((id, hex.as_str()), (1792093651924703, "32ef328c37b6fb"));
        assert!(id < (1 << 53));
    }

    #[test]
    fn ids_differ_by_kind_ordinal_and_pbx() {
        let ids = [
            leg_id("hq", &key(false, "1795252767.1", 0)).0,
            leg_id("hq", &key(true, "1795252767.1", 0)).0,
            leg_id("hq", &key(true, "1795252767.1", 1)).0,
            leg_id("b2", &key(false, "1795252767.1", 0)).0,
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
