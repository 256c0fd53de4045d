//! What waits in an old generation moves to the head, so that one dead endpoint cannot pin gigabytes;
//! or is given up, at the disk's limit. A delivery keeps its place (`DeliveryKey`) wherever it is
//! stored: order and leases rest on it. Where it is now, `Book::home` says.

use std::collections::HashSet;
use std::sync::Arc;

use super::answer::Faulty;
use super::encode::StoredEntry;
use super::engine::{Fault, Store};
use super::format::{Pending, encode_before, key, kind};
use super::outbox::{self, Settled};
use super::schedule::Scan;
use super::staged::Staged;
use super::types::{DeliveryKey, Dropped, Payload};
use super::writer::Writer;
use crate::calls::CallKey;

/// Deliveries moved in one group.
const GROUP: usize = 256;

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Into the head.
    Moved,
    /// Nowhere else.
    Stays,
    /// Given up, for this reason.
    Dropped(Dropped),
}

/// How many met which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) moved: u64,
    pub(super) dropped: u64,
}

/// One that waits, as it was read.
struct Waiting {
    route: u16,
    at: DeliveryKey,
    state: Option<Pending>,
}

impl Writer {
    /// Decides on every delivery that waits in a sealed generation. The writer does nothing else
    /// meanwhile: some tenths of a second for the tenth of a generation.
    pub(super) fn forward(&mut self, number: u64, decide: impl Fn(&Payload) -> Fate) -> Faulty<Moved> {
        let mut done = Moved::default();
        if number == self.book.head {
            return Ok(done);
        }
        let store = self.store(number)?;
        let mut from = vec![key::PENDING];
        loop {
            let (waiting, last) = read(&store, &from).map_err(|fault| (number, fault))?;
            let Some(last) = last else { break };
            from = key::behind(&last);
            let group = self.forward_group(number, &store, waiting, &decide)?;
            done.moved += group.moved;
            done.dropped += group.dropped;
        }
        self.space.changed();
        Ok(done)
    }

    fn forward_group(
        &mut self,
        number: u64,
        store: &Arc<Store>,
        waiting: Vec<Waiting>,
        decide: &impl Fn(&Payload) -> Fate,
    ) -> Faulty<Moved> {
        let mut staged = Staged::default();
        let mut done = Moved::default();
        let mut known: HashSet<CallKey> = HashSet::new();
        let (mut moved, mut dropped) = (Vec::new(), Vec::new());
        for Waiting { route, at, state } in waiting {
            let entry = match &state {
                Some(state) => outbox::entry(store, state.call, at).map_err(|fault| (number, fault))?,
                None => None,
            };
            let fate = match &entry {
                // what a worker holds is as good as sent
                Some(found) if self.leases.contains_key(&at) => match decide(&found.entry.payload) {
                    Fate::Dropped(_) => Fate::Stays,
                    fate => fate,
                },
                Some(found) => decide(&found.entry.payload),
                None => Fate::Dropped(Dropped::Damaged),
            };
            if fate == Fate::Stays {
                continue;
            }
            let next = state.map_or(0, |state| state.next);
            let counters = outbox::take_out(&mut self.book, &mut staged, number, route, at, next);
            match (fate, state, entry) {
                (Fate::Moved, Some(state), Some(found)) => {
                    counters.accepted = counters.accepted.saturating_sub(1);
                    let call = &found.entry.call;
                    if !self.book.is_known(call) {
                        known.insert(call.clone());
                    }
                    let state = self.place_moved(&mut staged, store, route, at, state, call)?;
                    moved.push((at, state));
                }
                (Fate::Dropped(reason), _, found) => {
                    counters.dropped += 1;
                    if let Some(StoredEntry { entry, .. }) = found {
                        self.book.unlearn(&mut staged, &entry);
                    }
                    self.book.skip_dropped(&mut staged, route, reason, 1);
                    dropped.push((at, route));
                }
                _ => {}
            }
        }
        if !moved.is_empty() {
            self.book.move_home(&mut staged, number);
        }
        self.write(&mut staged)?;
        self.book.forget(&known);
        for (at, state) in moved {
            done.moved += 1;
            if let Some(lease) = self.leases.get_mut(&at) {
                lease.state = state;
            }
        }
        for (at, route) in dropped {
            done.dropped += 1;
            self.settled(at, route, Settled::Final);
        }
        Ok(done)
    }

    fn place_moved(
        &mut self,
        staged: &mut Staged,
        from: &Store,
        route: u16,
        at: DeliveryKey,
        state: Pending,
        call: &CallKey,
    ) -> Faulty<Pending> {
        let head = self.head()?;
        let number = self.book.head;
        let fault = |fault: Fault| (number, fault);
        // a crash between the two writes of a move leaves it in both
        if head.contains(&key::pending(route, at)).map_err(fault)? {
            return Ok(state);
        }
        let there = Pending { call: self.book.call(staged, &head, call).map_err(fault)?, ..state };
        for kind in [kind::ENTRY, kind::OUTCOME] {
            let record =
                from.get(&key::delivery(state.call, kind, at)).map_err(|fault| (at.generation, fault))?;
            if let Some(Ok(payload)) = record {
                if kind == kind::ENTRY {
                    self.book.take_sequence(payload.len());
                }
                staged.put(number, key::delivery(there.call, kind, at), &payload);
            }
        }
        staged.put(number, key::pending(route, at), &there.encode());
        if there.next > 0 {
            staged.put(number, key::due(route, there.next, at), &encode_before(there.before));
        }
        let counted = self.book.count(staged, number, route);
        counted.counters.accepted += 1;
        counted.counters.pending += 1;
        counted.scan = Scan::default();
        staged.moved = true;
        Ok(there)
    }

    #[cfg(test)]
    pub(super) fn forward_oldest(&mut self) -> Faulty<()> {
        let sealed = self.book.generations.iter().find(|(_, found)| found.sealed && found.pending() > 0);
        let Some(number) = sealed.map(|(number, _)| *number) else { return Ok(()) };
        self.forward(number, |_| Fate::Moved).map(|_| ())
    }

    /// Moves that a crash cut short are made whole before anything is handed out.
    pub(super) fn finish_moves(&mut self) -> Faulty<()> {
        let unfinished: Vec<(u64, u64)> = self.book.homes.iter().map(|(of, home)| (*of, *home)).collect();
        for (number, home) in unfinished {
            let pending = |generation: &super::book::Generation| generation.pending() > 0;
            if number != self.book.head && self.book.generations.get(&number).is_some_and(pending) {
                self.forget_doubles(number, home)?;
                self.forward(number, |_| Fate::Moved)?;
            }
        }
        Ok(())
    }

    /// What already stands in its new generation leaves the old one.
    fn forget_doubles(&mut self, number: u64, home: u64) -> Faulty<()> {
        if !self.book.generations.contains_key(&home) {
            return Ok(());
        }
        let (store, there) = (self.store(number)?, self.store(home)?);
        let mut from = vec![key::PENDING];
        loop {
            let (waiting, last) = read(&store, &from).map_err(|fault| (number, fault))?;
            let Some(last) = last else { return Ok(()) };
            from = key::behind(&last);
            let mut staged = Staged::default();
            for Waiting { route, at, state } in waiting {
                if !there.contains(&key::pending(route, at)).map_err(|fault| (home, fault))? {
                    continue;
                }
                let next = state.map_or(0, |state| state.next);
                let counters = outbox::take_out(&mut self.book, &mut staged, number, route, at, next);
                counters.accepted = counters.accepted.saturating_sub(1);
            }
            self.write(&mut staged)?;
        }
    }
}

/// Reads some that wait from a key on; and the last key that was read.
fn read(store: &Store, from: &[u8]) -> Result<(Vec<Waiting>, Option<Vec<u8>>), Fault> {
    let mut found = Vec::new();
    let mut last = None;
    store.range(from, &[key::PENDING + 1], |key, payload| {
        if let (Some(route), Some(at)) = (super::format::Reader(&key[1..]).u16(), outbox::place_in(key)) {
            let state = payload.ok().and_then(|payload| Pending::decode(&payload));
            found.push(Waiting { route, at, state });
        }
        last = Some(key.to_vec());
        found.len() < GROUP
    })?;
    Ok((found, last))
}
