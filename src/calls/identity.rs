//! Ids that the same stream always gives again, and which channels make one call.
//!
//! A call is the set of channels joined by linkedid: a union of linkedids, named by the oldest.
//! Nothing announces that a channel's linkedid changed, so every block that shows another value
//! joins the two, and so do a swap, a pickup, a park retrieved and an attended transfer. Ids that
//! were published never change; a merge only moves the parts.

use std::sync::Arc;

use parsers::{Linkedid, Uniqueid};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::call::{CallKey, Merger, UpdateId};
use super::cdr_group::GROUP_WAIT;
use super::objects::{Call, LegKey, MAX_AGE, MAX_LINKS, MAX_LIST, Phase};
use super::state::State;
use crate::hex::hex;

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
            due: self.now.plus_millis(MAX_AGE),
        };
        self.calls.insert(key.clone(), call);
        self.links.insert(key.clone(), key.clone());
    }

    /// A channel came to a call that had none left.
    fn revive(&mut self, key: &Linkedid) {
        let due = self.now.plus_millis(MAX_AGE);
        let was = self.calls.edit(key, |call| {
            let was = call.phase;
            if was != Phase::Live {
                call.phase = Phase::Live;
                call.gone = None;
                call.due = due;
            }
            was
        });
        if was == Some(Phase::Done) {
            self.undo_done(key);
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
            call.next_row = next;
            CallKey(call.hash.clone())
        });
        self.out.mergers.extend(into.map(|into| Merger { at, from: merged, into }));
        if !self.any_alive(to) {
            let (now, due) = (self.now, self.now.plus_millis(GROUP_WAIT));
            self.calls.edit(to, |call| (call.phase, call.gone, call.due) = (Phase::Waiting, Some(now), due));
        }
    }

    /// Whether one more linkedid can join a call.
    pub(super) fn has_room(&self, call: &Linkedid) -> bool {
        self.calls.get(call).is_some_and(|known| fits(known.links.iter().chain([call])))
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
