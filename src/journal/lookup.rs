//! Questions about calls, live and past: the open generations first, then the days, newest first,
//! and only those that can hold an answer.

use std::collections::{BTreeMap, HashSet};

use parsers::Micros;

use super::archive::{deliveries, runs_of};
use super::encode::{StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{PAYLOAD_CAP, Reader, key, kind};
use super::head::{leg_update, live_update};
use super::history::{Historian, day_of};
use super::outbox::place_in;
use super::pack::{self, inflate};
use super::seek::{self, Token};
use super::types::{HistoryFilter, LegRecord, Trace, TraceDelivery, TraceMessage};
use crate::calls::{CallKey, EventName, LegState, LegUpdate, Merger, Update, UpdateBody};

/// Most legs in one answer.
const MOST_LEGS: usize = 1000;
/// Most calls in one trace: each costs a search.
const MOST_MERGED: usize = 32;
/// Largest run of trace lines, inflated.
const RUN_CAP: u64 = 1 << 20;
/// Largest inflated leg.
const LEG_CAP: u64 = 4 * PAYLOAD_CAP as u64;

/// Legs that match, newest first.
pub(super) fn legs(historian: &mut Historian, filter: &HistoryFilter) -> Result<Vec<LegRecord>, Fault> {
    let mut found =
        Found { filter, limit: filter.limit.min(MOST_LEGS), seen: HashSet::new(), legs: Vec::new() };
    let generations = historian.shared.pool.listed();
    if filter.live {
        if let Some((head, _)) = generations.last() {
            let _synced = historian.shared.synced();
            found.live(&*historian.shared.pool.get(*head)?)?;
        }
        return Ok(found.sorted());
    }
    if let (Some(call_id), Some((head, _))) = (filter.call_id, generations.last()) {
        let _synced = historian.shared.synced();
        let live = live_update(&*historian.shared.pool.get(*head)?, call_id)?;
        if live.is_some_and(|update| found.add(update)) {
            return Ok(found.sorted());
        }
    }
    // legs of a generation began before the next one was made
    let mut newer = i64::MAX;
    for (number, created) in generations.into_iter().rev() {
        if found.enough(Micros(newer)) {
            return Ok(found.sorted());
        }
        let _synced = historian.shared.synced();
        // it may just have been copied into the history, or put aside
        if let Ok(store) = historian.shared.pool.get(number) {
            found.store(&store, Kind::Generation)?;
        }
        newer = created;
    }
    for day in historian.days.list()?.into_iter().rev() {
        let began = format!("{day}T00:00:00Z").parse::<jiff::Timestamp>();
        let day_began = began.map(|at| at.as_microsecond()).unwrap_or(0);
        if found.enough(Micros(day_began + 24 * 3600 * Micros::SECOND)) {
            break;
        }
        if !found.wants(historian, &day, day_began) {
            continue;
        }
        let Some(store) = historian.days.get(&day, false)? else { continue };
        let read = match &filter.call {
            Some(call) => call_legs(&store, call, &mut found),
            None => found.store(&store, Kind::Day),
        };
        if let Err(Fault::Damaged(why)) = read {
            drop(store);
            historian.days.put_aside(&day, &why)?;
        } else {
            read?;
        }
    }
    Ok(found.sorted())
}

/// All that is known of a call, and of those that were merged with it.
pub(super) fn trace(historian: &mut Historian, call: &CallKey) -> Result<Trace, Fault> {
    let mut trace = Trace::default();
    add_call(historian, call, &mut trace)?;
    let mut read = vec![call.clone()];
    while let Some(next) = trace.merged.iter().find(|other| !read.contains(other)).cloned()
        && read.len() < MOST_MERGED
    {
        add_call(historian, &next, &mut trace)?;
        read.push(next);
    }
    trace.merged = read.split_off(1);
    tidy(&mut trace);
    Ok(trace)
}

fn add_call(historian: &mut Historian, call: &CallKey, trace: &mut Trace) -> Result<(), Fault> {
    let token = Token::call(call);
    for day in historian.days.list()? {
        if !seek::may_hold(historian.days.directory(), &day, token) {
            continue;
        }
        if let Some(store) = historian.days.get(&day, false)? {
            each_line(&store, call, |letter, json| add_line(trace, letter, json))?;
        }
    }
    for (number, _) in historian.shared.pool.listed() {
        let _synced = historian.shared.synced();
        if let Ok(store) = historian.shared.pool.get(number) {
            trace_generation(&store, call, trace)?;
        }
    }
    Ok(())
}

/// What a store is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Generation,
    Day,
}

struct Found<'a> {
    filter: &'a HistoryFilter,
    limit: usize,
    /// The newest word on a leg is met first.
    seen: HashSet<(u64, Micros)>,
    legs: Vec<LegRecord>,
}

impl Found<'_> {
    /// Whether nothing that began before this time can be in the answer.
    fn enough(&self, before: Micros) -> bool {
        self.legs.iter().filter(|update| began(update) >= before).count() >= self.limit
            || self.filter.from.is_some_and(|from| before <= from)
    }

    fn wants(&self, historian: &Historian, day: &str, day_began: i64) -> bool {
        let directory = historian.days.directory();
        let filter = self.filter;
        let may = |token: Token| seek::may_hold(directory, day, token);
        filter.to.is_none_or(|to| day_began < to.0)
            && filter.from.is_none_or(|from| day >= day_of(from).as_str())
            && filter.number.as_ref().is_none_or(|number| may(Token::number(number)))
            && filter.call_id.is_none_or(|call_id| may(Token::call_id(call_id)))
            && filter.call.as_ref().is_none_or(|call| may(Token::call(call)))
    }

    fn live(&mut self, head: &Store) -> Result<(), Fault> {
        let mut ids = Vec::new();
        head.scan(&[key::LIVE], |key, _| {
            ids.extend(Reader(&key[1..]).u64());
            true
        })?;
        for call_id in ids {
            if let Some(update) = live_update(head, call_id)? {
                self.add(update);
            }
        }
        Ok(())
    }

    /// Legs of an outbox generation or a day, by the narrowest index.
    fn store(&mut self, store: &Store, kind: Kind) -> Result<(), Fault> {
        if let Some(call) = &self.filter.call {
            return self.of_call(store, call);
        }
        let from = self.filter.from.map_or(0, |from| from.0.max(0)).to_be_bytes();
        let to = self.filter.to.map_or(i64::MAX, |to| to.0.max(0)).to_be_bytes();
        let prefix = match (self.filter.call_id, &self.filter.number) {
            (Some(call_id), _) if kind == Kind::Day => key::call_id(call_id),
            (_, Some(number)) => key::number(number),
            (_, None) => vec![key::LEG],
        };
        let mut added = 0;
        let mut failed = Ok(());
        let (first, last) = ([prefix.as_slice(), &from].concat(), [prefix.as_slice(), &to].concat());
        store.range_back(&first, &last, |key, _| {
            let Some((start, call_id)) = leg_in(key, &prefix, self.filter.call_id) else { return true };
            if self.seen.contains(&(call_id, start)) {
                return true;
            }
            match load(store, kind, start, call_id) {
                Ok(Some(update)) => added += usize::from(self.add(update)),
                Ok(None) => {}
                Err(fault) => failed = Err(fault),
            }
            failed.is_ok() && added < self.limit
        })?;
        failed
    }

    fn of_call(&mut self, store: &Store, call: &CallKey) -> Result<(), Fault> {
        let Some(number) = call_number(store, call)? else { return Ok(()) };
        let mut updates = Vec::new();
        store.scan_back(&key::records_of(number, kind::UPDATE), |_, payload| {
            updates.extend(payload.ok().and_then(|payload| pack::read::<Update>(&payload)));
            true
        })?;
        updates.into_iter().for_each(|update| {
            self.add(update);
        });
        Ok(())
    }

    /// Takes a leg in unless a newer word on it is known, or it does not match.
    fn add(&mut self, update: Update) -> bool {
        let UpdateBody::Leg(leg) = &update.body else { return false };
        if !self.seen.insert((leg.call_id, leg.start)) || !matches(self.filter, &update, leg) {
            return false;
        }
        self.legs.push(update);
        true
    }

    fn sorted(mut self) -> Vec<LegRecord> {
        self.legs.sort_by_key(|update| std::cmp::Reverse(began(update)));
        self.legs.truncate(self.limit);
        self.legs
    }
}

fn matches(filter: &HistoryFilter, update: &Update, leg: &LegUpdate) -> bool {
    let live = !matches!(leg.state, LegState::Hangup | LegState::Failed);
    (live || !filter.live)
        && (leg.event == EventName::Missed || !filter.missed)
        && filter.call.as_ref().is_none_or(|call| *call == update.call)
        && filter.call_id.is_none_or(|call_id| call_id == leg.call_id)
        && filter.number.as_ref().is_none_or(|number| [&leg.src.number, &leg.dst.number].contains(&number))
        && filter.from.is_none_or(|from| leg.start >= from)
        && filter.to.is_none_or(|to| leg.start < to)
}

fn began(update: &Update) -> Micros {
    match &update.body {
        UpdateBody::Leg(leg) => leg.start,
        UpdateBody::Sms(_) => update.at,
    }
}

fn call_number(store: &Store, call: &CallKey) -> Result<Option<u64>, Fault> {
    let number = store.get(&key::of_call(key::CALL, call))?;
    Ok(number.and_then(Result::ok).and_then(|payload| Reader(&payload).u64()))
}

/// The leg that an index key names, if it is not another than the one wanted.
fn leg_in(key: &[u8], prefix: &[u8], wanted: Option<u64>) -> Option<(Micros, u64)> {
    let mut rest = Reader(key.get(prefix.len()..)?);
    let start = Micros(rest.i64()?);
    let call_id = if key[0] == key::CALL_ID { Reader(&key[1..]).u64()? } else { rest.u64()? };
    wanted.is_none_or(|wanted| wanted == call_id).then_some((start, call_id))
}

fn load(store: &Store, kind: Kind, start: Micros, call_id: u64) -> Result<Option<Update>, Fault> {
    if kind == Kind::Generation {
        return leg_update(store, start, call_id);
    }
    let Some(Ok(payload)) = store.get(&key::leg(start, call_id))? else { return Ok(None) };
    let json = payload.get(8..).and_then(|bytes| inflate(bytes, LEG_CAP));
    Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
}

/// The legs of a call in a day's runs.
fn call_legs(store: &Store, call: &CallKey, found: &mut Found<'_>) -> Result<(), Fault> {
    let mut updates = Vec::new();
    each_line(store, call, |letter, json| {
        if letter == b'u' {
            updates.extend(serde_json::from_slice::<Update>(json).ok());
        }
    })?;
    updates.into_iter().rev().for_each(|update| {
        found.add(update);
    });
    Ok(())
}

fn each_line(store: &Store, call: &CallKey, mut visit: impl FnMut(u8, &[u8])) -> Result<(), Fault> {
    store.scan(&runs_of(call), |_, payload| {
        if let Ok(run) = payload {
            run_lines(&run, &mut visit);
        }
        true
    })
}

/// The lines of a run, each as its letter and its JSON.
pub(super) fn run_lines(run: &[u8], mut visit: impl FnMut(u8, &[u8])) {
    let lines = inflate(run, RUN_CAP).unwrap_or_default();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Some((letter, json)) = line.split_first() {
            visit(*letter, json);
        }
    }
}

fn add_line(trace: &mut Trace, letter: u8, json: &[u8]) {
    match letter {
        b'm' => trace.messages.extend(serde_json::from_slice(json).ok()),
        b'u' => trace.updates.extend(serde_json::from_slice(json).ok()),
        b'd' => trace.cdrs.extend(serde_json::from_slice(json).ok()),
        b'l' => add_merger(trace, serde_json::from_slice(json).ok()),
        b'e' => trace.deliveries.extend(serde_json::from_slice::<TraceDelivery>(json).ok()),
        _ => {}
    }
}

fn add_merger(trace: &mut Trace, merger: Option<Merger>) {
    trace.merged.extend(merger.into_iter().flat_map(|merger| [merger.from, merger.into]));
}

fn trace_generation(store: &Store, call: &CallKey, trace: &mut Trace) -> Result<(), Fault> {
    let Some(number) = call_number(store, call)? else { return Ok(()) };
    let mut entries = BTreeMap::new();
    let mut outcomes: BTreeMap<_, StoredOutcome> = BTreeMap::new();
    store.scan(&key::records(number), |key, payload| {
        let (Some(kind), Ok(payload)) = (key.get(9), payload) else { return true };
        match *kind {
            kind::MESSAGE => trace.messages.extend(pack::messages(&payload)),
            kind::UPDATE => trace.updates.extend(pack::read(&payload)),
            kind::CDR => trace.cdrs.extend(pack::read(&payload)),
            kind::MERGER => add_merger(trace, pack::read(&payload)),
            kind::ENTRY => entries.extend(place_in(key).zip(StoredEntry::decode(&payload))),
            kind::OUTCOME => outcomes.extend(place_in(key).zip(serde_json::from_slice(&payload).ok())),
            _ => {}
        }
        true
    })?;
    trace.deliveries.extend(deliveries(entries, &mut outcomes));
    Ok(())
}

/// In order of time; what stands in a generation and already in the history counts once, and so does
/// what two calls have since they were merged.
fn tidy(trace: &mut Trace) {
    trace.messages.sort_by_key(|message| message.at);
    let mut messages: Vec<TraceMessage> = Vec::with_capacity(trace.messages.len());
    for message in std::mem::take(&mut trace.messages) {
        let mut same_time = messages.iter().rev().take_while(|known| known.at == message.at);
        if !same_time.any(|known| *known == message) {
            messages.push(message);
        }
    }
    trace.messages = messages;
    let mut seen = HashSet::new();
    trace.updates.retain(|update| seen.insert(update.id.clone()));
    trace.updates.sort_by_key(|update| update.at);
    let mut rows = Vec::new();
    for row in std::mem::take(&mut trace.cdrs) {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    trace.cdrs = rows;
    // moved to another generation while it waited: the last word on it stands
    trace.deliveries.sort_by_key(|made| std::cmp::Reverse(made.settled.as_ref().map(|(at, _)| *at)));
    let mut seen = HashSet::new();
    trace.deliveries.retain(|made| seen.insert((made.route.clone(), made.id.clone(), made.accepted)));
    trace.deliveries.sort_by_key(|made| made.accepted);
}
