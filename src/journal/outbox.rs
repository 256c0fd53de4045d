//! How deliveries end: leases, settlements, dead letters.

use std::collections::HashMap;

use parsers::Micros;

use super::book::Book;
use super::encode::{Entry, PreparedEntry, StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{Damaged, Pending, decode_before, encode_before, key, kind};
use super::staged::Staged;
use super::types::{Counters, DeadLetter, DeliveryKey, Dropped, Settlement};

/// What workers hold now; it dies with the process.
pub(super) type Leases = HashMap<DeliveryKey, Lease>;

/// One delivery in a worker's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) route: u16,
    pub(super) state: Pending,
    /// Its settlement is staged.
    pub(super) settling: bool,
}

/// What a settlement does to the schedule once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It waits no longer: those behind it may go.
    Final,
    /// It is due again at that time.
    Again(i64),
}

/// Places a settlement in the delivery's own generation. [`Settlement::Released`] never comes here.
pub(super) fn settle(
    book: &mut Book,
    staged: &mut Staged,
    store: &Store,
    at: DeliveryKey,
    lease: &Lease,
    settlement: &Settlement,
    now: Micros,
) -> Result<Settled, Fault> {
    let Lease { route, mut state, .. } = *lease;
    let generation = book.home(at);
    let costs = !matches!(settlement, Settlement::Retry { costs: false, .. } | Settlement::Released);
    state.attempts = state.attempts.saturating_add(u32::from(costs));
    let outcome = StoredOutcome { at: now.0, attempts: state.attempts, settlement: settlement.clone() };
    put_json(staged, generation, key::delivery(state.call, kind::OUTCOME, at), &outcome)?;
    if let Settlement::Retry { at: next, .. } = settlement {
        unschedule(staged, generation, route, at, lease.state.next);
        state.next = next.0.max(1);
        staged.put(generation, key::pending(route, at), &state.encode());
        staged.put(generation, key::due(route, state.next, at), &encode_before(state.before));
        return Ok(Settled::Again(state.next));
    }
    let counters = take_out(book, staged, generation, route, at, lease.state.next);
    match settlement {
        Settlement::Delivered { .. } => counters.delivered += 1,
        Settlement::Refused { .. } => counters.refused += 1,
        Settlement::Dead { why, status, answer } => {
            counters.dead += 1;
            if let Some(stored) = entry(store, state.call, at)? {
                let letter = DeadLetter {
                    key: at,
                    route: stored.entry.route,
                    id: stored.entry.id,
                    call: stored.entry.call,
                    ordered: stored.entry.ordered,
                    party: stored.entry.party,
                    payload: stored.entry.payload,
                    why: why.clone(),
                    status: *status,
                    answer: answer.clone(),
                    attempts: state.attempts,
                    accepted: Micros(stored.accepted),
                    died: now,
                };
                put_json(staged, generation, key::dead(at), &letter)?;
            }
        }
        Settlement::Retry { .. } | Settlement::Released => {}
    }
    Ok(Settled::Final)
}

/// Gives up a delivery whose record is damaged: what it was cannot be known any more.
pub(super) fn give_up(book: &mut Book, staged: &mut Staged, at: DeliveryKey, lease: &Lease) {
    let route = lease.route;
    let generation = book.home(at);
    take_out(book, staged, generation, route, at, lease.state.next).dropped += 1;
    book.skip_dropped(staged, route, Dropped::Damaged, 1);
}

/// How a delivery ended that somebody gave up.
pub(super) fn given_up(state: Pending, why: &str, now: Micros) -> StoredOutcome {
    let settlement = Settlement::Dead { why: why.to_owned(), status: None, answer: String::new() };
    StoredOutcome { at: now.0, attempts: state.attempts, settlement }
}

/// A delivery waits no longer in this generation. The caller counts what became of it.
pub(super) fn take_out<'b>(
    book: &'b mut Book,
    staged: &mut Staged,
    generation: u64,
    route: u16,
    at: DeliveryKey,
    next: i64,
) -> &'b mut Counters {
    unschedule(staged, generation, route, at, next);
    staged.remove(generation, key::pending(route, at));
    let counters = &mut book.count(staged, generation, route).counters;
    counters.leave();
    counters
}

/// Only what was tried stands in the schedule.
fn unschedule(staged: &mut Staged, generation: u64, route: u16, at: DeliveryKey, next: i64) {
    if next > 0 {
        staged.remove(generation, key::due(route, next, at));
    }
}

/// A dead letter is given up, for this reason.
pub(super) fn drop_letter(
    book: &mut Book,
    staged: &mut Staged,
    generation: u64,
    route: u16,
    at: DeliveryKey,
    reason: Dropped,
) {
    take_letter_out(book, staged, generation, route, at).dropped += 1;
    book.skip_dropped(staged, route, reason, 1);
}

/// A dead letter leaves its generation. The caller counts what became of it.
pub(super) fn take_letter_out<'b>(
    book: &'b mut Book,
    staged: &mut Staged,
    generation: u64,
    route: u16,
    at: DeliveryKey,
) -> &'b mut Counters {
    staged.remove(generation, key::dead(at));
    let counters = &mut book.count(staged, generation, route).counters;
    counters.dead = counters.dead.saturating_sub(1);
    counters
}

/// A delivery's record; `None` when it is damaged or gone.
pub(super) fn entry(store: &Store, call: u64, at: DeliveryKey) -> Result<Option<StoredEntry>, Fault> {
    let record = store.get(&key::delivery(call, kind::ENTRY, at))?;
    Ok(record.and_then(Result::ok).and_then(|payload| StoredEntry::decode(&payload)))
}

/// How a delivery's last attempt ended; `None` before the first, or when the record is damaged.
pub(super) fn last(store: &Store, call: u64, at: DeliveryKey) -> Result<Option<Settlement>, Fault> {
    let record = store.get(&key::delivery(call, kind::OUTCOME, at))?;
    let outcome = record.and_then(Result::ok).and_then(|text| serde_json::from_slice(&text).ok());
    Ok(outcome.map(|outcome: StoredOutcome| outcome.settlement))
}

/// The state of a delivery: none when it is settled; `Err` when its record is damaged.
pub(super) fn pending(
    store: &Store,
    route: u16,
    at: DeliveryKey,
) -> Result<Option<Result<Pending, Damaged>>, Fault> {
    let record = store.get(&key::pending(route, at))?;
    Ok(record.map(|payload| {
        payload.and_then(|bytes| Pending::decode(&bytes).ok_or(Damaged("shorter than its fields")))
    }))
}

/// Visits the dead letters of a generation behind a place, in order, until `visit` answers false.
pub(super) fn dead_letters(
    store: &Store,
    after: Option<DeliveryKey>,
    mut visit: impl FnMut(DeadLetter) -> bool,
) -> Result<(), Fault> {
    let from = after.map_or_else(|| vec![key::DEAD], |at| key::behind(&key::dead(at)));
    store.range(&from, &[key::DEAD + 1], |_, payload| {
        payload.ok().and_then(|payload| read_letter(&payload)).is_none_or(&mut visit)
    })
}

/// One dead letter.
pub(super) fn dead_letter(store: &Store, at: DeliveryKey) -> Result<Option<DeadLetter>, Fault> {
    let record = store.get(&key::dead(at))?;
    Ok(record.and_then(Result::ok).and_then(|payload| read_letter(&payload)))
}

/// Puts a dead letter back into the head as a new delivery with its old id. It comes after
/// whatever its call has waiting.
pub(super) fn append_again(
    book: &mut Book,
    staged: &mut Staged,
    head: &Store,
    letter: &DeadLetter,
    now: Micros,
) -> Result<u16, Fault> {
    let prepared = PreparedEntry::new(&entry_of(letter)).map_err(|error| Fault::Io(error.to_string()))?;
    book.append_entries(staged, head, std::slice::from_ref(&prepared), now.0)?;
    book.route(staged, &letter.route)
}

/// As it was appended.
pub(super) fn entry_of(letter: &DeadLetter) -> Entry {
    Entry {
        route: letter.route.clone(),
        id: letter.id.clone(),
        call: letter.call.clone(),
        ordered: letter.ordered,
        party: letter.party.clone(),
        payload: letter.payload.clone(),
    }
}

/// Where a `p`, `t` or `R` key says that its delivery stands: its last 16 bytes.
pub(super) fn place_in(key: &[u8]) -> Option<DeliveryKey> {
    decode_before(key.get(key.len().checked_sub(16)?..)?)
}

fn read_letter(payload: &[u8]) -> Option<DeadLetter> {
    serde_json::from_slice(payload).ok()
}

fn put_json(
    staged: &mut Staged,
    generation: u64,
    key: Vec<u8>,
    value: &impl serde::Serialize,
) -> Result<(), Fault> {
    let json = serde_json::to_vec(value).map_err(|error| Fault::Io(error.to_string()))?;
    staged.put(generation, key, &json);
    Ok(())
}
