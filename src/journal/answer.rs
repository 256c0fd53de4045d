//! What the writer thread answers between groups: dead letters, how it stands, and the rest.

use std::collections::BTreeMap;

use parsers::Micros;

use super::book;
use super::command::{ArchiveFault, Command, Reply};
use super::encode::PreparedEntry;
use super::engine::Fault;
use super::format::{Pending, encode_counters, key};
use super::head;
use super::history::Job;
use super::outbox;
use super::replay::{self, DeadMark};
use super::staged::Staged;
use super::types::{
    DeadLetter, DeliveryKey, Dropped, JournalError, JournalStatus, RouteId, RouteStatus, Selection,
};
use super::writer::Writer;

/// Most deliveries handed out at once.
const MOST_DUE: usize = 1024;

/// A result, or what failed and in which generation.
pub(super) type Faulty<T> = Result<T, (u64, Fault)>;

impl Writer {
    pub(super) fn answer(&mut self, command: Command) {
        match command {
            Command::Due { route, now, limit, reply } => {
                let due = self.try_answer(|writer| writer.due(&route, now, limit.min(MOST_DUE)));
                let keys: Vec<DeliveryKey> =
                    due.iter().flat_map(|(due, _)| due).map(|delivery| delivery.key).collect();
                if reply.send(due).is_err() {
                    // whoever asked is gone: nobody holds these
                    keys.into_iter().for_each(|key| self.release(key));
                }
            }
            Command::Objects(reply) => self.reply(reply, |writer| {
                let number = writer.book.head;
                head::objects(&*writer.head()?).map_err(|fault| (number, fault))
            }),
            Command::Note(name, reply) => self.reply(reply, |writer| {
                let number = writer.book.head;
                let note = writer.head()?.get(&key::note(&name)).map_err(|fault| (number, fault))?;
                Ok(note.and_then(Result::ok))
            }),
            Command::Dead { what, after, limit, reply } => {
                self.reply(reply, |writer| writer.dead(&what, after, limit));
            }
            Command::DeadMarks(what, reply) => self.reply(reply, |writer| writer.dead_marks(&what)),
            Command::Again(entries, now, reply) => {
                self.reply(reply, |writer| writer.again(&entries, now));
            }
            Command::DeadRetry { keys, now, reply } => {
                self.reply(reply, |writer| writer.each_dead(&keys, Some(now)));
            }
            Command::DeadDrop { keys, reply } => self.reply(reply, |writer| writer.each_dead(&keys, None)),
            Command::Pending(route, reply) => {
                let number = self.book.routes.number(&route);
                let _ = reply.send(Ok(number.map_or(0, |number| self.book.total(number).pending)));
            }
            Command::DropPending(route, reply) => self.reply(reply, |writer| writer.drop_pending(&route)),
            Command::Status(reply) => {
                let status = self.status();
                let _ = reply.send(Ok(status));
            }
            Command::RoundTrip(reply) => {
                let _ = reply.send(Ok(self.fault.clone()));
            }
            Command::Archived(generation, result) => self.archived(generation, result),
            Command::KeysCopied(generation, result) => self.keys_copied(generation, result),
            Command::Removed(number) => {
                self.removing.remove(&number);
                self.space.changed();
            }
            Command::Rewritten(number, copied) => {
                if let Err((generation, fault)) = self.rewritten(number, *copied) {
                    self.fail(generation, fault);
                }
            }
            Command::Tick => {
                let moved = self.ready().and_then(|()| self.move_stragglers(crate::clock::now().0));
                if let Err((generation, fault)) = moved {
                    self.fail(generation, fault);
                }
            }
            #[cfg(test)]
            Command::Forward(reply) => self.reply(reply, Self::forward_oldest),
            #[cfg(test)]
            Command::KeysAreCopied(reply) => {
                let copied = self.book.generations.values().all(|found| !found.sealed || found.keys);
                let _ = reply.send(Ok(copied));
            }
            #[cfg(test)]
            Command::Stragglers(now, reply) => self.reply(reply, |writer| writer.move_stragglers(now)),
            #[cfg(test)]
            Command::Hold(held) => {
                // an error is the other end dropped, which is what is waited for
                let _ = held.recv();
            }
            Command::Append(..)
            | Command::Settle(..)
            | Command::SetNote(..)
            | Command::Import(..)
            | Command::Deleted(..)
            | Command::SettleSoon(..)
            | Command::Flush
            | Command::Close(_) => {}
        }
    }

    fn reply<T>(&mut self, reply: Reply<T>, work: impl FnOnce(&mut Self) -> Faulty<T>) {
        let _ = reply.send(self.try_answer(work));
    }

    fn try_answer<T>(&mut self, work: impl FnOnce(&mut Self) -> Faulty<T>) -> Result<T, JournalError> {
        self.ready().and_then(|()| work(self)).map_err(|(generation, fault)| {
            let error = self.io_error(generation, &fault);
            self.fail(generation, fault);
            error
        })
    }

    /// Dead letters behind a place, in order of their places. One that was caught between two
    /// generations counts once.
    fn dead(
        &mut self,
        what: &Selection,
        after: Option<DeliveryKey>,
        limit: usize,
    ) -> Faulty<Vec<DeadLetter>> {
        let mut letters: BTreeMap<DeliveryKey, DeadLetter> = BTreeMap::new();
        for number in self.with_dead() {
            let store = self.store(number)?;
            let visit = |letter: DeadLetter| {
                let full = letters.len() >= limit;
                // a store's letters come in order
                if full && letters.last_key_value().is_none_or(|(last, _)| letter.key > *last) {
                    return false;
                }
                if what.matches(&letter.route, &letter.id, letter.accepted) {
                    letters.insert(letter.key, letter);
                    if letters.len() > limit {
                        letters.pop_last();
                    }
                }
                true
            };
            outbox::dead_letters(&store, after, visit).map_err(|fault| (number, fault))?;
        }
        Ok(letters.into_values().collect())
    }

    fn dead_marks(&mut self, what: &Selection) -> Faulty<Vec<DeadMark>> {
        let mut marks = BTreeMap::new();
        for number in self.with_dead() {
            let store = self.store(number)?;
            let visit = |letter: DeadLetter| {
                if what.matches(&letter.route, &letter.id, letter.accepted) {
                    marks.insert(letter.key, replay::mark(&letter.route, &letter.id));
                }
                true
            };
            outbox::dead_letters(&store, None, visit).map_err(|fault| (number, fault))?;
        }
        Ok(marks.into_iter().collect())
    }

    fn with_dead(&self) -> Vec<u64> {
        let generations = self.book.generations.iter();
        generations.filter(|(_, found)| found.dead() > 0).map(|(number, _)| *number).collect()
    }

    /// Puts dead letters back (with a time) or drops them; answers how many there were. Letters put
    /// back are in the head before they leave their old places: a crash between the two leaves both.
    fn each_dead(&mut self, keys: &[DeliveryKey], again: Option<Micros>) -> Faulty<u64> {
        let letters = self.find_letters(keys)?;
        let head_number = self.book.head;
        let mut staged = Staged::default();
        let mut routes = Vec::new();
        if let Some(now) = again {
            let head = self.head()?;
            for (_, letter) in &letters {
                outbox::append_again(&mut self.book, &mut staged, &head, letter, now)
                    .map_err(|fault| (head_number, fault))?;
            }
            self.write(&mut staged)?;
        }
        for (number, letter) in &letters {
            let Some(route) = self.book.routes.number(&letter.route) else { continue };
            let (book, at) = (&mut self.book, letter.key);
            if again.is_some() {
                let counters = outbox::take_letter_out(book, &mut staged, *number, route, at);
                counters.accepted = counters.accepted.saturating_sub(1);
            } else {
                outbox::drop_letter(book, &mut staged, *number, route, at, Dropped::Letter);
            }
            routes.push(route);
        }
        self.write(&mut staged)?;
        routes.into_iter().for_each(|route| self.wake(route));
        Ok(letters.len() as u64)
    }

    /// Those of these that are dead letters, and the generations they are in.
    fn find_letters(&mut self, keys: &[DeliveryKey]) -> Faulty<Vec<(u64, DeadLetter)>> {
        let mut found: Vec<(u64, DeadLetter)> = Vec::new();
        for at in keys {
            if found.iter().any(|(_, known)| known.key == *at) {
                continue;
            }
            for number in self.with_dead() {
                let store = self.store(number)?;
                let letter = outbox::dead_letter(&store, *at).map_err(|fault| (number, fault))?;
                if let Some(letter) = letter.filter(|letter| self.book.routes.number(&letter.route).is_some())
                {
                    found.push((number, letter));
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Appends what was settled before, or salvaged.
    pub(super) fn again(&mut self, entries: &[PreparedEntry], now: Micros) -> Faulty<()> {
        let head = self.head()?;
        let number = self.book.head;
        let mut staged = Staged::default();
        let routes =
            self.book.append_entries(&mut staged, &head, entries, now.0).map_err(|fault| (number, fault))?;
        self.write(&mut staged)?;
        routes.into_iter().for_each(|route| self.wake(route));
        Ok(())
    }

    /// A generation is in the history, on disk: its dead letters and totals move to the head, then
    /// its files go.
    pub(super) fn archived(&mut self, number: u64, result: Result<(), ArchiveFault>) {
        if !self.book.generations.contains_key(&number) {
            return;
        }
        let folded = match result {
            Ok(()) => self.ready().and_then(|()| self.fold(number)),
            Err(ArchiveFault::Generation(fault)) => Err((number, fault)),
            Err(ArchiveFault::History(_)) => return self.archive_later(number),
        };
        match folded {
            Ok(()) => {
                self.removing.insert(number);
                let _ = self.history.send(Job::Remove(number));
            }
            Err((at, fault)) => {
                if let Some(generation) = self.book.generations.get_mut(&number) {
                    generation.archiving = false;
                }
                self.fail(at, fault);
            }
        }
    }

    fn fold(&mut self, number: u64) -> Faulty<()> {
        let Some(generation) = self.book.generations.get(&number) else { return Ok(()) };
        let mut counters: Vec<_> = generation.routes.iter().map(|route| route.counters).collect();
        let mut staged = Staged::default();
        let mut letters = Vec::new();
        if generation.dead() > 0 {
            let store = self.store(number)?;
            let visit = |letter| {
                letters.push(letter);
                true
            };
            outbox::dead_letters(&store, None, visit).map_err(|fault| (number, fault))?;
        }
        let head_number = self.book.head;
        for letter in letters {
            let Some(route) = self.book.routes.number(&letter.route) else { continue };
            let left = counters.get_mut(usize::from(route));
            if let Some(left) = left {
                left.dead = left.dead.saturating_sub(1);
                left.accepted = left.accepted.saturating_sub(1);
            }
            let there =
                self.head()?.contains(&key::dead(letter.key)).map_err(|fault| (head_number, fault))?;
            if there {
                continue;
            }
            let json =
                serde_json::to_vec(&letter).map_err(|error| (head_number, Fault::Io(error.to_string())))?;
            staged.put(head_number, key::dead(letter.key), &json);
            let moved = &mut self.book.count(&mut staged, head_number, route).counters;
            moved.accepted += 1;
            moved.dead += 1;
        }
        for (route, mut counters) in (0u16..).zip(counters) {
            // letters that could not be read any more are lost; say so rather than keep them for ever
            let unreadable = std::mem::take(&mut counters.dead);
            counters.dropped += unreadable;
            self.book.skip_dropped(&mut staged, route, Dropped::Unreadable, unreadable);
            let total = self.book.carry(route, counters);
            staged.put(head_number, key::route(key::CARRIED, route), &encode_counters(&total));
        }
        staged.remove(head_number, key::summary(number));
        staged.put(head_number, key::folded(number), &[]);
        self.book.folded.insert(number);
        self.book.generations.remove(&number);
        let listed = self.book.generations.iter().map(|(number, known)| (*number, known.created));
        self.shared.pool.list(listed.collect());
        self.write(&mut staged)?;
        self.shared.pool.close(number);
        Ok(())
    }

    fn status(&mut self) -> JournalStatus {
        self.space.measure(self.shared.outside());
        self.shared.set_used(self.space.used);
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
        let routes: Vec<(u16, RouteId)> =
            self.book.routes.iter().map(|(number, name)| (number, name.clone())).collect();
        JournalStatus {
            bytes: self.shared.used(),
            generations: self.book.generations.len() as u64,
            days: self.shared.days(),
            key_months: self.shared.key_months(),
            quarantined: self.quarantined,
            lost: self.lost,
            head_records: self.book.next.sequence.saturating_sub(1),
            objects: self.book.objects.len() as u64,
            commits: self.commits,
            commit_p50: at(50),
            commit_p99: at(99),
            commit_times: self.commit_times.clone(),
            live_calls: self.book.live.values().filter(|legs| !legs.is_empty()).count() as u64,
            live_legs: self.book.live.values().map(|legs| legs.len() as u64).sum(),
            routes: routes.into_iter().filter_map(|(number, name)| self.route_status(number, name)).collect(),
            fault: self.trouble(),
            max_size: self.options.max_size,
            gaps: self.book.gap.gaps,
            gap_records: self.book.gap.records,
        }
    }

    /// `None` for the unnamed route while nothing was left out in its name.
    fn route_status(&mut self, number: u16, route: RouteId) -> Option<RouteStatus> {
        let mut skipped = Vec::new();
        let mut dropped = Vec::new();
        for ((_, reason), count) in self.book.skipped.iter().filter(|((of, _), _)| *of == number) {
            match reason.strip_prefix(book::DROPPED) {
                Some(reason) => dropped.push((reason.to_owned(), *count)),
                None => skipped.push((reason.clone(), *count)),
            }
        }
        if number == 0 && skipped.is_empty() {
            return None;
        }
        let counters = self.book.total(number);
        let oldest = if self.fault.is_some() { None } else { self.oldest(number) };
        Some(RouteStatus { route, counters, oldest, skipped, dropped })
    }

    fn oldest(&mut self, route: u16) -> Option<Micros> {
        let waiting = |(_, found): &(&u64, &super::book::Generation)| found.counters(route).pending > 0;
        let number = self.book.generations.iter().find(waiting).map(|(number, _)| *number)?;
        let mut oldest = None;
        let store = self.store(number).ok()?;
        store
            .scan(&key::route(key::PENDING, route), |_, payload| {
                oldest = payload.ok().and_then(|payload| Pending::decode(&payload));
                oldest.is_none()
            })
            .ok()?;
        oldest.map(|state| Micros(state.accepted))
    }
}
