//! At the limit: what is given up, in which order, and that it is said. First the settled past, the
//! oldest day first, and the past of generations that wait to be copied there. Then generations that
//! are mostly done are emptied into the head. Then, of what was never delivered: webhooks about
//! ringing and digits, other webhooks, the oldest dead letters; creates last, and those only at the
//! journal's own limit, never for a disk that others fill.

use parsers::Micros;

use super::answer::Faulty;
use super::book::Generation;
use super::engine::Fault;
use super::format::{Pending, key, kind};
use super::forward::{Fate, Moved};
use super::history::Job;
use super::outbox::{self, Settled};
use super::staged::Staged;
use super::types::{DeadLetter, DeliveryKey, Dropped, Payload, RouteId};
use super::writer::Writer;

/// Older generations are emptied when little of them is left, microseconds.
const STRAGGLER_AGE: i64 = 24 * 3600 * Micros::SECOND;
/// What a delivery takes in the head, about, bytes.
const MOVED: u64 = 2048;
/// Dead letters given up in one group.
const LETTERS: usize = 256;

/// What is given up next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Webhooks about ringing and digits.
    Ringing,
    /// Other webhooks.
    Webhook,
    /// Dead letters.
    Dead,
    /// Creates.
    Create,
}

impl Class {
    const ALL: [Self; 4] = [Self::Ringing, Self::Webhook, Self::Dead, Self::Create];

    fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Webhook { event, .. }
                if ["call.initial", "call.ringing", "call.dtmf"].contains(&event.as_str()) =>
            {
                Self::Ringing
            }
            Payload::Webhook { .. } => Self::Webhook,
            Payload::Nimbox { .. } => Self::Create,
        }
    }

    fn dropped(self) -> Dropped {
        match self {
            Self::Ringing => Dropped::Ringing,
            Self::Webhook => Dropped::Webhook,
            Self::Dead => Dropped::Dead,
            Self::Create => Dropped::Create,
        }
    }
}

impl Writer {
    /// Keeps the journal within its room; one step at a time, so that commits go on.
    pub(super) fn look_after_space(&mut self) {
        if !self.space.measure(self.shared.outside()) {
            return;
        }
        self.shared.set_used(self.space.used);
        if self.fault.is_some() {
            return;
        }
        if !self.space.pressed {
            self.spared.clear();
            self.space.make_ballast();
            return;
        }
        self.space.spend_ballast();
        // what was given up already is not gone yet
        let archiving = self.book.generations.values().any(|found| found.archiving);
        if archiving || !self.removing.is_empty() || self.is_copying_settled() {
            return;
        }
        // nothing is lost by it
        let rewriting = self.rewrite_some(true);
        if rewriting && !self.space.urgent() {
            return;
        }
        if self.shared.can_prune() {
            if !self.shared.set_pruning(true) {
                let _ = self.history.send(Job::Prune);
            }
            return;
        }
        if rewriting {
            // what is emptied into the head takes more room there, for a while
            return self.wait_for_copy();
        }
        if let Err((number, fault)) = self.make_room() {
            self.fail(number, fault);
        }
    }

    fn make_room(&mut self) -> Faulty<()> {
        let room = |writer: &Self, number: &u64| {
            let pending = writer.book.generations.get(number).map_or(0, Generation::pending);
            writer.space.has_room_for(pending.saturating_mul(MOVED))
        };
        if let Some(number) = self.mostly_done().filter(|number| room(self, number)) {
            // the head must have room for what comes
            let moved = self.forward(number, |_| Fate::Moved)?;
            tracing::warn!(generation = number, moved = moved.moved, "emptied a generation to make room");
            return Ok(());
        }
        let above_limit = self.space.above_limit();
        for class in Class::ALL {
            if class == Class::Create && !above_limit {
                break;
            }
            let sealed = self.book.generations.iter().filter(|(_, found)| found.sealed && !found.archiving);
            let next =
                sealed.map(|(number, _)| *number).find(|number| !self.spared.contains(&(*number, class)));
            let Some(number) = next else { continue };
            self.spared.insert((number, class));
            let dropped = self.give_up_class(number, class)?;
            if dropped > 0 {
                tracing::error!(
                    generation = number,
                    dropped,
                    reason = class.dropped().reason(),
                    "the journal is full: deliveries were given up"
                );
            }
            return Ok(());
        }
        Ok(())
    }

    /// The oldest sealed generation of which at most half waits still.
    fn mostly_done(&self) -> Option<u64> {
        let half = |found: &Generation| found.pending() > 0 && found.pending() * 2 <= found.sequence;
        let mut generations = self.book.generations.iter();
        generations
            .find(|(_, found)| found.sealed && !found.archiving && half(found))
            .map(|(number, _)| *number)
    }

    fn give_up_class(&mut self, number: u64, class: Class) -> Faulty<u64> {
        if class == Class::Dead {
            return self.give_up_letters(number);
        }
        let decide = |payload: &Payload| match Class::of(payload) {
            found if found == class => Fate::Dropped(class.dropped()),
            _ => Fate::Stays,
        };
        let Moved { dropped, .. } = self.forward(number, decide)?;
        Ok(dropped)
    }

    fn give_up_letters(&mut self, number: u64) -> Faulty<u64> {
        let mut dropped = 0;
        loop {
            let store = self.store(number)?;
            let mut letters: Vec<DeadLetter> = Vec::new();
            let visit = |letter| {
                letters.push(letter);
                letters.len() < LETTERS
            };
            outbox::dead_letters(&store, None, visit).map_err(|fault| (number, fault))?;
            if letters.is_empty() {
                return Ok(dropped);
            }
            let mut staged = Staged::default();
            for letter in &letters {
                let reason = Class::Dead.dropped();
                self.book.unlearn(&mut staged, &outbox::entry_of(letter));
                match self.book.routes.number(&letter.route) {
                    Some(route) => {
                        outbox::drop_letter(&mut self.book, &mut staged, number, route, letter.key, reason);
                    }
                    // its route's name is lost: it is counted with its generation, as one that cannot
                    // be read
                    None => staged.remove(number, key::dead(letter.key)),
                }
            }
            self.write(&mut staged)?;
            dropped += letters.len() as u64;
        }
    }

    /// Gives up the oldest that wait on a route that is not configured any more, one group of them.
    pub(super) fn drop_pending(&mut self, route: &RouteId) -> Faulty<u64> {
        let Some(route) = self.book.routes.number(route) else { return Ok(0) };
        let waits = |found: &Generation| found.counters(route).pending > 0;
        let found = self.book.generations.iter().filter(|(_, found)| waits(found));
        let numbers: Vec<u64> = found.map(|(number, _)| *number).collect();
        for number in numbers {
            let store = self.store(number)?;
            let mut group: Vec<(DeliveryKey, Option<Pending>)> = Vec::new();
            store
                .scan(&key::route(key::PENDING, route), |key, payload| {
                    let state = payload.ok().and_then(|payload| Pending::decode(&payload));
                    let free = outbox::place_in(key).filter(|at| !self.leases.contains_key(at));
                    group.extend(free.map(|at| (at, state)));
                    group.len() < LETTERS
                })
                .map_err(|fault| (number, fault))?;
            if group.is_empty() {
                continue;
            }
            let mut staged = Staged::default();
            for (at, state) in &group {
                let next = state.map_or(0, |state| state.next);
                outbox::take_out(&mut self.book, &mut staged, number, route, *at, next).dropped += 1;
                if let Some(state) = state {
                    let given_up =
                        outbox::given_up(*state, Dropped::Unconfigured.reason(), crate::clock::now());
                    let json = serde_json::to_vec(&given_up)
                        .map_err(|error| (number, Fault::Io(error.to_string())))?;
                    staged.put(number, key::delivery(state.call, kind::OUTCOME, *at), &json);
                }
            }
            self.book.skip_dropped(&mut staged, route, Dropped::Unconfigured, group.len() as u64);
            self.write(&mut staged)?;
            for (at, _) in &group {
                self.settled(*at, route, Settled::Final);
            }
            return Ok(group.len() as u64);
        }
        Ok(0)
    }

    /// Empties one old generation of which little is left.
    pub(super) fn move_stragglers(&mut self, now: i64) -> Faulty<()> {
        let straggles = |found: &Generation| {
            let little = found.pending() > 0 && found.pending() * 10 < found.sequence;
            found.sealed && !found.archiving && little && now.saturating_sub(found.created) > STRAGGLER_AGE
        };
        let found = self.book.generations.iter().find(|(_, found)| straggles(found));
        let Some(number) = found.map(|(number, _)| *number) else { return Ok(()) };
        let moved = self.forward(number, |_| Fate::Moved)?;
        tracing::info!(generation = number, moved = moved.moved, "emptied an old generation");
        Ok(())
    }
}
