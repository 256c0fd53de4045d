//! What the writer thread answers between groups: what is due, dead letters, how it stands.

use std::sync::Arc;

use parsers::Micros;

use super::command::{ArchiveFault, Command, Reply};
use super::engine::{Fault, Store};
use super::format::{self, Pending, encode_counters, key};
use super::head;
use super::history::{self, Job};
use super::outbox::{self, Lease, Settled};
use super::schedule::Ahead;
use super::staged::Staged;
use super::types::{DeadLetter, Delivery, DeliveryKey, JournalError, JournalStatus, RouteId, RouteStatus};
use super::writer::Writer;

/// Most schedule records read for one question; commits wait meanwhile.
const READ_AT_ONCE: usize = 8192;
/// Most deliveries handed out at once.
const MOST_DUE: usize = 1024;

type Faulty<T> = Result<T, (u64, Fault)>;

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
            Command::Dead { route, limit, reply } => {
                self.reply(reply, |writer| writer.dead(route.as_ref(), limit));
            }
            Command::DeadRetry { keys, now, reply } => {
                self.reply(reply, |writer| writer.each_dead(&keys, Some(now)));
            }
            Command::DeadDrop { keys, reply } => self.reply(reply, |writer| writer.each_dead(&keys, None)),
            Command::Status(reply) => {
                let status = self.status();
                let _ = reply.send(Ok(status));
            }
            Command::RoundTrip(reply) => {
                let _ = reply.send(Ok(()));
            }
            Command::Archived(generation, result) => self.archived(generation, result),
            Command::Tick => {
                let _ = self.ready();
            }
            Command::Append(..) | Command::Settle(..) | Command::SetNote(..) | Command::Close(_) => {}
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

    fn due(&mut self, route: &RouteId, now: Micros, limit: usize) -> Faulty<(Vec<Delivery>, Option<Micros>)> {
        let Some(number) = self.book.routes.number(route) else { return Ok((Vec::new(), None)) };
        let mut due = Vec::new();
        let mut broken = Vec::new();
        let mut budget = READ_AT_ONCE;
        while due.len() < limit {
            if self.window(number).is_empty() {
                self.start_over(number);
                self.refill(number, now, &mut budget)?;
            }
            let Some((at, next)) = self.window(number).take() else { break };
            match self.lease(number, at, next)? {
                Taken::Delivery(delivery) => due.push(*delivery),
                Taken::Broken(lease) => broken.push((at, lease)),
                Taken::Settled => {}
            }
        }
        if !broken.is_empty() {
            self.give_up(broken)?;
        }
        let next = if due.is_empty() && limit > 0 { self.next_due(number, now) } else { None };
        Ok((due, next))
    }

    /// Hands one out, if it still waits and can be read.
    fn lease(&mut self, route: u16, at: DeliveryKey, next: i64) -> Faulty<Taken> {
        if self.leases.contains_key(&at) || !self.book.generations.contains_key(&at.generation) {
            return Ok(Taken::Settled);
        }
        let store = self.store(at.generation)?;
        let fault = |fault| (at.generation, fault);
        let state = match outbox::pending(&store, route, at).map_err(fault)? {
            None => return Ok(Taken::Settled),
            Some(Ok(state)) => state,
            Some(Err(_)) => {
                let state = Pending { attempts: 0, next, accepted: 0, call: 0, before: None };
                return Ok(Taken::Broken(Lease { route, state, settling: false }));
            }
        };
        let lease = Lease { route, state, settling: false };
        let Some(stored) = outbox::entry(&store, state.call, at).map_err(fault)? else {
            return Ok(Taken::Broken(lease));
        };
        let last = if state.next > 0 { outbox::last(&store, state.call, at).map_err(fault)? } else { None };
        self.leases.insert(at, lease);
        Ok(Taken::Delivery(Box::new(Delivery {
            key: at,
            route: stored.entry.route,
            id: stored.entry.id,
            call: stored.entry.call,
            sequence: stored.sequence,
            attempts: state.attempts,
            last,
            accepted: Micros(stored.accepted),
            payload: stored.entry.payload,
        })))
    }

    /// Deliveries whose records are damaged: counted as dropped, and those behind them go on.
    fn give_up(&mut self, broken: Vec<(DeliveryKey, Lease)>) -> Faulty<()> {
        let mut staged = Staged::default();
        for (at, lease) in &broken {
            tracing::error!(
                generation = at.generation,
                sequence = at.sequence,
                "a delivery's record is damaged"
            );
            outbox::give_up(&mut self.book, &mut staged, *at, lease);
        }
        self.write(&mut staged)?;
        for (at, lease) in broken {
            self.settled(at, lease.route, Settled::Final);
        }
        Ok(())
    }

    fn start_over(&mut self, route: u16) {
        if self.window(route).must_start_over() {
            for generation in self.book.generations.values_mut() {
                generation.route(route).scan = super::schedule::Scan::default();
            }
        }
    }

    /// Examines schedules, oldest generation first, until the window is full.
    fn refill(&mut self, route: u16, now: Micros, budget: &mut usize) -> Faulty<()> {
        let numbers: Vec<u64> = self.book.generations.keys().copied().collect();
        for number in numbers {
            if *budget == 0 || self.window(route).room() == 0 {
                break;
            }
            let Some(generation) = self.book.generations.get_mut(&number) else { continue };
            if generation.counters(route).pending == 0 || !generation.route(route).scan.wants_reading(now.0) {
                continue;
            }
            let store = self.store(number)?;
            self.refill_retries(route, number, &store, now.0, budget)?;
            self.refill_fresh(route, number, &store, budget)?;
        }
        Ok(())
    }

    fn refill_retries(
        &mut self,
        route: u16,
        number: u64,
        store: &Arc<Store>,
        now: i64,
        budget: &mut usize,
    ) -> Faulty<()> {
        let fault = |fault| (number, fault);
        let scan = self.scan(number, route);
        if !scan.retry_due(now) {
            return Ok(());
        }
        let zero = DeliveryKey { generation: 0, sequence: 0 };
        let (since, place) = scan.retry.unwrap_or((1, zero));
        let until = now.saturating_add(1).max(1);
        let room = self.window(route).room().div_ceil(2).min(*budget);
        let from = key::due(route, since, place);
        let found = read_schedule(store, &from, &key::due(route, until, zero), room).map_err(fault)?;
        *budget -= found.len().min(*budget);
        let exhausted = found.len() < room;
        let last = found.last().map(|(next, at, _)| (*next, after(*at)));
        for (next, at, before) in found {
            self.examine(route, at, next, before)?;
        }
        let scan = self.scan(number, route);
        if !exhausted {
            scan.retry = last.or(scan.retry);
            return Ok(());
        }
        let beyond = until.max(since);
        scan.retry = Some((beyond, zero));
        let mut ahead = Ahead::Nothing;
        store
            .range(&key::due(route, beyond, zero), &after_route(route), |key, _| {
                ahead = due_time(key).map_or(Ahead::Unknown, Ahead::At);
                false
            })
            .map_err(fault)?;
        self.scan(number, route).ahead = ahead;
        Ok(())
    }

    fn refill_fresh(
        &mut self,
        route: u16,
        number: u64,
        store: &Arc<Store>,
        budget: &mut usize,
    ) -> Faulty<()> {
        let zero = DeliveryKey { generation: 0, sequence: 0 };
        let scan = self.scan(number, route);
        if scan.fresh_done {
            return Ok(());
        }
        let from = key::due(route, 0, scan.fresh.unwrap_or(zero));
        let room = self.window(route).room().min(*budget);
        let found =
            read_schedule(store, &from, &key::due(route, 1, zero), room).map_err(|fault| (number, fault))?;
        *budget -= found.len().min(*budget);
        let exhausted = found.len() < room;
        let last = found.last().map(|(_, at, _)| after(*at));
        for (next, at, before) in found {
            self.examine(route, at, next, before)?;
        }
        let scan = self.scan(number, route);
        scan.fresh = last.or(scan.fresh);
        scan.fresh_done = exhausted;
        Ok(())
    }

    fn examine(&mut self, route: u16, at: DeliveryKey, next: i64, before: Option<DeliveryKey>) -> Faulty<()> {
        if self.leases.contains_key(&at) || self.window(route).is_ready(at) {
            return Ok(());
        }
        match before {
            Some(before) if self.is_pending(route, before)? => self.window(route).blocked(before, at, next),
            Some(_) | None => self.window(route).ready(at, next),
        }
        Ok(())
    }

    /// Whether a delivery waits still; one whose generation is gone does not.
    fn is_pending(&mut self, route: u16, at: DeliveryKey) -> Faulty<bool> {
        let Some(generation) = self.book.generations.get(&at.generation) else { return Ok(false) };
        if generation.exact && generation.counters(route).pending == 0 {
            return Ok(false);
        }
        let store = self.store(at.generation)?;
        store.contains(&key::pending(route, at)).map_err(|fault| (at.generation, fault))
    }

    fn next_due(&mut self, route: u16, now: Micros) -> Option<Micros> {
        let mut next: Option<i64> = None;
        for generation in self.book.generations.values_mut() {
            if generation.counters(route).pending == 0 {
                continue;
            }
            let scan = generation.route(route).scan;
            let at = match scan.ahead {
                _ if !scan.fresh_done => now.0,
                Ahead::Unknown => now.0,
                Ahead::At(at) => at,
                Ahead::Nothing => continue,
            };
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        next.map(Micros)
    }

    fn scan(&mut self, generation: u64, route: u16) -> &mut super::schedule::Scan {
        &mut self.book.generations.entry(generation).or_default().route(route).scan
    }

    fn dead(&mut self, route: Option<&RouteId>, limit: usize) -> Faulty<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for number in self.with_dead() {
            let store = self.store(number)?;
            outbox::dead_letters(&store, route, limit, &mut letters).map_err(|fault| (number, fault))?;
        }
        letters.sort_by_key(|letter| (letter.died, letter.key));
        Ok(letters)
    }

    fn with_dead(&self) -> Vec<u64> {
        let generations = self.book.generations.iter();
        generations.filter(|(_, found)| found.dead() > 0).map(|(number, _)| *number).collect()
    }

    /// Puts dead letters back (with a time) or drops them; answers how many there were. A letter put
    /// back is in the head before it leaves its old place: a crash between the two leaves both.
    fn each_dead(&mut self, keys: &[DeliveryKey], again: Option<Micros>) -> Faulty<u64> {
        let mut done = 0;
        let mut routes = Vec::new();
        for at in keys {
            for number in self.with_dead() {
                let store = self.store(number)?;
                let fault = |fault| (number, fault);
                let Some(letter) = outbox::dead_letter(&store, *at).map_err(fault)? else { continue };
                let Some(route) = self.book.routes.number(&letter.route) else { continue };
                let mut staged = Staged::default();
                if let Some(now) = again {
                    let head = self.head()?;
                    outbox::append_again(&mut self.book, &mut staged, &head, &letter, now).map_err(fault)?;
                    if number != self.book.head {
                        self.write(&mut staged)?;
                    }
                }
                staged.remove(number, key::dead(*at));
                let counters = &mut self.book.count(&mut staged, number, route).counters;
                counters.dead = counters.dead.saturating_sub(1);
                if again.is_some() {
                    counters.accepted = counters.accepted.saturating_sub(1);
                } else {
                    counters.dropped += 1;
                }
                self.write(&mut staged)?;
                routes.push(route);
                done += 1;
                break;
            }
        }
        routes.into_iter().for_each(|route| self.wake(route));
        Ok(done)
    }

    /// A generation is in the history, on disk: its dead letters and totals move to the head, then
    /// its files go.
    fn archived(&mut self, number: u64, result: Result<(), ArchiveFault>) {
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
            outbox::dead_letters(&store, None, usize::MAX, &mut letters).map_err(|fault| (number, fault))?;
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
            counters.dropped += std::mem::take(&mut counters.dead);
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
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
        let (bytes, days) = history::disk_use(&self.shared.directory);
        let routes: Vec<(u16, RouteId)> =
            self.book.routes.iter().map(|(number, name)| (number, name.clone())).collect();
        JournalStatus {
            bytes,
            generations: self.book.generations.len() as u64,
            days,
            quarantined: self.quarantined,
            lost: self.lost,
            head_records: self.book.next.sequence.saturating_sub(1),
            objects: self.book.objects.len() as u64,
            commits: self.commits,
            commit_p50: at(50),
            commit_p99: at(99),
            routes: routes.into_iter().filter_map(|(number, name)| self.route_status(number, name)).collect(),
            fault: self.fault.clone(),
        }
    }

    /// `None` for the unnamed route while nothing was left out in its name.
    fn route_status(&mut self, number: u16, route: RouteId) -> Option<RouteStatus> {
        let skipped: Vec<(String, u64)> = self
            .book
            .skipped
            .iter()
            .filter(|((of, _), _)| *of == number)
            .map(|((_, reason), count)| (reason.clone(), *count))
            .collect();
        if number == 0 && skipped.is_empty() {
            return None;
        }
        let counters = self.book.total(number);
        let oldest = if self.fault.is_some() { None } else { self.oldest(number) };
        Some(RouteStatus { route, counters, oldest, skipped })
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

enum Taken {
    Delivery(Box<Delivery>),
    Settled,
    Broken(Lease),
}

type Scheduled = (i64, DeliveryKey, Option<DeliveryKey>);

/// Schedule records from one key to another, at most so many.
fn read_schedule(store: &Store, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Scheduled>, Fault> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    store.range(from, to, |key, payload| {
        if let (Some(next), Some(at)) = (due_time(key), outbox::place_in(key)) {
            // a damaged record frees its delivery: better out of order than never
            found.push((next, at, payload.ok().and_then(|bytes| format::decode_before(&bytes))));
        }
        found.len() < limit
    })?;
    Ok(found)
}

fn due_time(key: &[u8]) -> Option<i64> {
    format::Reader(key.get(3..)?).i64()
}

/// The least place behind this one.
fn after(at: DeliveryKey) -> DeliveryKey {
    DeliveryKey { generation: at.generation, sequence: at.sequence.saturating_add(1) }
}

/// The least key behind all of a route's schedule.
fn after_route(route: u16) -> Vec<u8> {
    match route.checked_add(1) {
        Some(next) => key::route(key::DUE, next),
        None => vec![key::DUE + 1],
    }
}
