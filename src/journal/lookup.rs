//! Questions about calls, live and past: the open generations first, then the days, newest first,
//! and only those that can hold an answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use parsers::Micros;

use super::archive::{deliveries, runs_of};
use super::day;
use super::encode::{StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{Reader, key, kind};
use super::head::{leg_update, live_update};
use super::history::{Historian, day_of};
use super::outbox::place_in;
use super::pack;
use super::seek::{self, Token};
use super::types::{HistoryFilter, LegRecord, Trace, TraceDelivery, TraceMessage};
use crate::calls::{CallKey, EventName, LegState, LegUpdate, Merger, Update, UpdateBody};

/// Most legs in one answer.
const MOST_LEGS: usize = 1000;
/// Most calls in one trace: each costs a search.
const MOST_MERGED: usize = 32;
/// The head's word on a leg is the last one.
const HEAD: u64 = u64::MAX;

/// Legs that match, newest first.
pub(super) fn legs(historian: &mut Historian, filter: &HistoryFilter) -> Result<Vec<LegRecord>, Fault> {
    let mut found = Found { filter, limit: filter.limit.min(MOST_LEGS), legs: HashMap::new() };
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
        if live.is_some_and(|update| found.add(HEAD, update)) {
            return Ok(found.sorted());
        }
    }
    // legs of a generation began before the next one was made
    let mut newer = i64::MAX;
    for (number, created) in generations.into_iter().rev() {
        if found.enough(Micros(newer)) {
            return found.settled(historian);
        }
        let _synced = historian.shared.synced();
        // it may just have been copied into the history, or put aside
        if let Ok(store) = historian.shared.pool.get(number) {
            found.generation(&store, number)?;
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
        let read = found.day(&store, &day);
        if let Err(Fault::Damaged(why)) = read {
            drop(store);
            historian.days.put_aside(&day, &why)?;
        } else {
            read?;
        }
        // what did not match is remembered because older words on it may be met
        found.legs.retain(|(_, start), (_, leg)| leg.is_some() || start.0 < day_began);
    }
    found.settled(historian)
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
            trace_day(&store, call, trace)?;
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

/// A leg: its `call_id` and when it began.
type LegName = (u64, Micros);

struct Found<'a> {
    filter: &'a HistoryFilter,
    limit: usize,
    /// The word of the newest generation on each leg that was met; `None` where it does not match.
    legs: HashMap<LegName, (u64, Option<LegRecord>)>,
}

impl Found<'_> {
    /// Whether nothing that began before this time can be in the answer.
    fn enough(&self, before: Micros) -> bool {
        self.matched().filter(|update| began(update) >= before).count() >= self.limit
            || self.filter.from.is_some_and(|from| before <= from)
    }

    fn matched(&self) -> impl Iterator<Item = &LegRecord> {
        self.legs.values().filter_map(|(_, leg)| leg.as_ref())
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
                self.add(HEAD, update);
            }
        }
        Ok(())
    }

    /// Legs of an outbox generation, by the narrowest index.
    fn generation(&mut self, store: &Store, generation: u64) -> Result<(), Fault> {
        if let Some(call) = &self.filter.call {
            return self.of_call(store, generation, call);
        }
        let from = self.filter.from.map_or(0, |from| from.0.max(0)).to_be_bytes();
        let to = self.filter.to.map_or(i64::MAX, |to| to.0.max(0)).to_be_bytes();
        let prefix = self.filter.number.as_ref().map_or_else(|| vec![key::LEG], |number| key::number(number));
        let mut added = 0;
        let mut failed = Ok(());
        let (first, last) = ([prefix.as_slice(), &from].concat(), [prefix.as_slice(), &to].concat());
        store.range_back(&first, &last, |key, _| {
            let Some((start, call_id)) = leg_in(key, &prefix, self.filter.call_id) else { return true };
            if self.legs.contains_key(&(call_id, start)) {
                return true;
            }
            match leg_update(store, start, call_id) {
                Ok(Some(update)) => added += usize::from(self.add(generation, update)),
                Ok(None) => {}
                Err(fault) => failed = Err(fault),
            }
            failed.is_ok() && added < self.limit
        })?;
        failed
    }

    fn of_call(&mut self, store: &Store, generation: u64, call: &CallKey) -> Result<(), Fault> {
        let Some(number) = call_number(store, call)? else { return Ok(()) };
        store.scan(&key::records_of(number, kind::UPDATE), |_, payload| {
            if let Some(update) = payload.ok().and_then(|payload| pack::read::<Update>(&payload)) {
                self.add(generation, update);
            }
            true
        })
    }

    /// Legs of a day, those that began last first.
    fn day(&mut self, store: &Store, day: &str) -> Result<(), Fault> {
        let filter = self.filter;
        let mut wanted = Vec::new();
        wanted.extend(filter.call.as_ref().map(Token::call));
        wanted.extend(filter.call_id.map(Token::call_id));
        wanted.extend(filter.number.as_ref().map(|number| Token::number(number)));
        let mut failed = Ok(());
        let from = filter.from.map_or(0, |from| from.0.max(0));
        day::newest_first(store, from, &wanted, |place| {
            // of those that began just then, a later word may follow
            if self.enough(Micros(place.newest.saturating_add(1))) {
                return false;
            }
            if filter.to.is_none_or(|to| place.oldest < to.0) {
                failed = self.bundle(store, day, place);
            }
            failed.is_ok()
        })?;
        failed?;
        if filter.number.is_some() { self.later_words(store, day) } else { Ok(()) }
    }

    /// Of a leg that had not ended, a later word may stand where the number that was asked for does not.
    fn later_words(&mut self, store: &Store, day: &str) -> Result<(), Fault> {
        let open: Vec<Token> =
            self.matched().filter(|update| !has_ended(update)).filter_map(call_id).collect();
        if open.is_empty() {
            return Ok(());
        }
        day::holding(store, &open)?.into_iter().try_for_each(|place| self.bundle(store, day, place))
    }

    /// The answer, once newer generations were asked about legs that had not ended: there the number
    /// that was asked for may not stand any more.
    fn settled(mut self, historian: &Historian) -> Result<Vec<LegRecord>, Fault> {
        let open = |(name, (generation, leg)): (&LegName, &(u64, Option<LegRecord>))| {
            leg.as_ref().filter(|leg| !has_ended(leg)).map(|_| (*name, *generation))
        };
        let open: Vec<(LegName, u64)> = self.legs.iter().filter_map(open).collect();
        if self.filter.number.is_none() || open.is_empty() {
            return Ok(self.sorted());
        }
        for (number, _) in historian.shared.pool.listed().into_iter().rev() {
            if open.iter().all(|(_, generation)| *generation >= number) {
                break;
            }
            let _synced = historian.shared.synced();
            let Ok(store) = historian.shared.pool.get(number) else { continue };
            for ((call_id, start), _) in open.iter().filter(|(_, generation)| *generation < number) {
                if let Some(update) = leg_update(&store, *start, *call_id)? {
                    self.add(number, update);
                }
            }
        }
        Ok(self.sorted())
    }

    /// What a bundle says of legs that began on its day: those of another day stand there as well.
    fn bundle(&mut self, store: &Store, day: &str, place: day::Place) -> Result<(), Fault> {
        // a damaged bundle costs itself
        let Some(bundle) = place.load(store)? else { return Ok(()) };
        for (key, payload) in bundle.iter() {
            if key.first() == Some(&key::LEG) {
                self.add_json(place.generation, day, payload);
            } else {
                day::lines(payload, |letter, json| {
                    if letter == b'u' {
                        self.add_json(place.generation, day, json);
                    }
                });
            }
        }
        Ok(())
    }

    fn add_json(&mut self, generation: u64, day: &str, json: &[u8]) {
        let update = serde_json::from_slice::<Update>(json).ok();
        if let Some(update) = update.filter(|update| day_of(began(update)) == day) {
            self.add(generation, update);
        }
    }

    /// Takes a leg in unless a newer word on it is known. Answers whether it matches.
    fn add(&mut self, generation: u64, update: Update) -> bool {
        let UpdateBody::Leg(leg) = &update.body else { return false };
        let name = (leg.call_id, leg.start);
        if self.legs.get(&name).is_some_and(|(known, _)| *known > generation) {
            return false;
        }
        let matched = matches(self.filter, &update, leg).then_some(update);
        let found = matched.is_some();
        self.legs.insert(name, (generation, matched));
        found
    }

    fn sorted(self) -> Vec<LegRecord> {
        let mut legs: Vec<LegRecord> = self.legs.into_values().filter_map(|(_, leg)| leg).collect();
        legs.sort_by_key(|update| std::cmp::Reverse(began(update)));
        legs.truncate(self.limit);
        legs
    }
}

fn has_ended(update: &Update) -> bool {
    match &update.body {
        UpdateBody::Leg(leg) => matches!(leg.state, LegState::Hangup | LegState::Failed),
        UpdateBody::Sms(_) => true,
    }
}

fn call_id(update: &Update) -> Option<Token> {
    match &update.body {
        UpdateBody::Leg(leg) => Some(Token::call_id(leg.call_id)),
        UpdateBody::Sms(_) => None,
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
    let call_id = rest.u64()?;
    wanted.is_none_or(|wanted| wanted == call_id).then_some((start, call_id))
}

fn trace_day(store: &Store, call: &CallKey, trace: &mut Trace) -> Result<(), Fault> {
    let runs = runs_of(call);
    for place in day::holding(store, &[Token::call(call)])? {
        let Some(bundle) = place.load(store)? else { continue };
        for (_, run) in bundle.iter().filter(|(key, _)| key.starts_with(&runs)) {
            day::lines(run, |letter, json| add_line(trace, letter, json));
        }
    }
    Ok(())
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
