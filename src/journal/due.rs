//! Handing out what is due: windows are filled from the schedules, what is handed out is leased.

use std::sync::Arc;

use parsers::Micros;

use super::answer::Faulty;
use super::engine::{Fault, Store};
use super::format::{self, Pending, key};
use super::outbox::{self, Lease, Settled};
use super::schedule::{Ahead, Scan};
use super::staged::Staged;
use super::types::{Delivery, DeliveryKey, RouteId};
use super::writer::Writer;

/// Most schedule records read for one question; commits wait meanwhile.
const READ_AT_ONCE: usize = 8192;

impl Writer {
    /// Up to `limit` that are due, and when the next one will be, if there are fewer.
    pub(super) fn due(
        &mut self,
        route: &RouteId,
        now: Micros,
        limit: usize,
    ) -> Faulty<(Vec<Delivery>, Option<Micros>)> {
        let Some(number) = self.book.routes.number(route) else { return Ok((Vec::new(), None)) };
        let mut due = Vec::new();
        if let Err(failed) = self.hand_out(number, now, limit, &mut due) {
            // nobody will hear of these
            for delivery in due {
                self.leases.remove(&delivery.key);
            }
            return Err(failed);
        }
        let next = if due.len() < limit { self.next_due(number, now) } else { None };
        Ok((due, next))
    }

    fn hand_out(&mut self, number: u16, now: Micros, limit: usize, due: &mut Vec<Delivery>) -> Faulty<()> {
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
        Ok(())
    }

    /// Hands one out, if it still waits and can be read.
    fn lease(&mut self, route: u16, at: DeliveryKey, next: i64) -> Faulty<Taken> {
        let home = self.book.home(at);
        if self.leases.contains_key(&at) || !self.book.generations.contains_key(&home) {
            return Ok(Taken::Settled);
        }
        let store = self.store(home)?;
        let fault = |fault| (home, fault);
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
                generation.route(route).scan = Scan::default();
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
            .range(&key::due(route, beyond, zero), &after_route(key::DUE, route), |key, _| {
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
        let from = key::pending(route, scan.fresh.unwrap_or(zero));
        let room = self.window(route).room();
        let read = read_fresh(store, route, &from, room, *budget).map_err(|fault| (number, fault))?;
        *budget -= read.visited.min(*budget);
        for (at, before) in read.found {
            self.examine(route, at, 0, before)?;
        }
        let scan = self.scan(number, route);
        scan.fresh = read.last.map(after).or(scan.fresh);
        scan.fresh_done = read.exhausted;
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
        let home = self.book.home(at);
        let Some(generation) = self.book.generations.get(&home) else { return Ok(false) };
        if generation.exact && generation.counters(route).pending == 0 {
            return Ok(false);
        }
        let store = self.store(home)?;
        store.contains(&key::pending(route, at)).map_err(|fault| (home, fault))
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

    fn scan(&mut self, generation: u64, route: u16) -> &mut Scan {
        &mut self.book.generations.entry(generation).or_default().route(route).scan
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

/// Deliveries never tried, in order.
#[derive(Default)]
struct Fresh {
    found: Vec<(DeliveryKey, Option<DeliveryKey>)>,
    visited: usize,
    last: Option<DeliveryKey>,
    /// There are no more.
    exhausted: bool,
}

/// Reads what waits from a key on, until so many were found that were never tried, or so many
/// records were visited.
fn read_fresh(store: &Store, route: u16, from: &[u8], limit: usize, visits: usize) -> Result<Fresh, Fault> {
    let mut read = Fresh::default();
    if limit == 0 || visits == 0 {
        return Ok(read);
    }
    read.exhausted = true;
    store.range(from, &after_route(key::PENDING, route), |key, payload| {
        let Some(at) = outbox::place_in(key) else { return true };
        read.visited += 1;
        read.last = Some(at);
        match payload.ok().and_then(|payload| Pending::decode(&payload)) {
            Some(state) if state.next > 0 => {}
            Some(state) => read.found.push((at, state.before)),
            // damaged: whoever takes it will see
            None => read.found.push((at, None)),
        }
        read.exhausted = read.found.len() < limit && read.visited < visits;
        read.exhausted
    })?;
    Ok(read)
}

fn due_time(key: &[u8]) -> Option<i64> {
    format::Reader(key.get(3..)?).i64()
}

/// The least place behind this one.
fn after(at: DeliveryKey) -> DeliveryKey {
    DeliveryKey { generation: at.generation, sequence: at.sequence.saturating_add(1) }
}

/// The least key behind all of a route's keys with this prefix.
fn after_route(prefix: u8, route: u16) -> Vec<u8> {
    match route.checked_add(1) {
        Some(next) => key::route(prefix, next),
        None => vec![prefix + 1],
    }
}
