//! Room for what is new: what the tracker holds is bounded whatever it is fed.
//!
//! No PBX comes near these limits, so who reaches them invents channels, and what is oldest and
//! least like a call goes first: ended calls that wait for rows, then live ones that nobody was told
//! of, then those that nobody answered, then those without a user. A call in which a user talks is
//! never given up; where there are only those, what is new is left out and counted.

use parsers::{Linkedid, Micros};

use super::call::CdrSource;
use super::objects::{MAX_ALL_ROWS, MAX_CHANNELS, MAX_HELD, MAX_OPEN, Phase};
use super::state::State;

/// Calls given up at a time: to look for them costs, and each may say updates.
const AT_ONCE: usize = 256;
/// After a search without result, milliseconds.
const NEXT_SEARCH: i64 = 1_000;

impl State {
    /// Room for one more channel; false where there is none to be made.
    pub(super) fn room_for_channel(&mut self) -> bool {
        if self.channels.len() >= MAX_HELD {
            self.close_waiting();
        }
        if self.alive < MAX_CHANNELS && self.channels.len() < MAX_HELD {
            return true;
        }
        self.give_up_calls(false)
    }

    /// Room for one more leg or queue visit.
    pub(super) fn room_for_leg(&mut self) -> bool {
        self.legs.len() < MAX_OPEN || self.give_up_calls(true)
    }

    /// Room for one more CDR row: those of the oldest calls leave early.
    pub(super) fn room_for_row(&mut self) {
        if self.rows.len() < MAX_ALL_ROWS {
            return;
        }
        let mut calls: Vec<Linkedid> = self.rows.values().map(|row| row.call.clone()).collect();
        calls.sort();
        calls.dedup();
        for call in calls {
            self.out.skipped.push("CDR group sent early: too many rows wait");
            let rows = self.rows_of(&call);
            self.send(&call, rows, CdrSource::Events);
            if self.rows.len() + AT_ONCE <= MAX_ALL_ROWS {
                return;
            }
        }
    }

    /// Calls that wait for their rows do so without their channels: a late row opens them again.
    fn close_waiting(&mut self) {
        let mut waiting: Vec<(Micros, Linkedid)> = self
            .calls
            .values()
            .filter(|call| call.phase == Phase::Waiting)
            .map(|call| (call.due, call.key.clone()))
            .collect();
        waiting.sort();
        for (_, key) in waiting.into_iter().take(AT_ONCE) {
            self.out.skipped.push("call closed early: too many channels are held");
            let rows = self.rows_of(&key);
            if !rows.is_empty() {
                self.send(&key, rows, CdrSource::Events);
            }
            self.done(&key);
        }
    }

    fn give_up_calls(&mut self, with_legs: bool) -> bool {
        if self.now < self.full_until {
            return false;
        }
        let mut calls: Vec<(u8, Micros, Linkedid)> = self
            .calls
            .values()
            .filter(|call| call.phase == Phase::Live)
            .filter_map(|call| Some((self.rank(&call.key, with_legs)?, call.began, call.key.clone())))
            .collect();
        if calls.is_empty() {
            self.full_until = self.now.plus_millis(NEXT_SEARCH);
            return false;
        }
        calls.sort();
        for (_, _, key) in calls.into_iter().take(AT_ONCE) {
            self.out.skipped.push("call given up: too many channels are held");
            self.calls.edit(&key, |call| call.lost = true);
            for chan in self.channels_of(&key).into_iter().filter(super::objects::Chan::alive) {
                self.lose_channel(&chan, "Lost");
            }
            let rows = self.rows_of(&key);
            if !rows.is_empty() {
                self.send(&key, rows, CdrSource::Events);
            }
            self.done(&key);
        }
        true
    }

    /// How little of a call it is; `None` where it must not be given up.
    fn rank(&self, key: &Linkedid, with_legs: bool) -> Option<u8> {
        let members = self.members.get(key)?;
        if members.legs.is_empty() {
            let bridged = members
                .channels
                .iter()
                .any(|id| self.channels.get(id).is_some_and(|chan| chan.bridge.is_some()));
            return (!with_legs).then_some(if bridged { 2 } else { 0 });
        }
        let talks =
            members.legs.iter().any(|leg| self.legs.get(leg).is_some_and(|leg| leg.connected.is_some()));
        (!talks).then_some(1)
    }
}
