//! Copying one settled generation into the history, one call a step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parsers::{Cdr, Micros};

use super::command::ArchiveFault;
use super::encode::{StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{self, PAYLOAD_CAP, Reader, key, kind};
use super::history::{Days, Tokens, day_of};
use super::outbox::place_in;
use super::pack::{self, deflate};
use super::pool::Pool;
use super::seek::{self, Token};
use super::types::{DeliveryKey, TraceDelivery, TraceMessage};
use crate::calls::{CallKey, LegUpdate, Merger, Update, UpdateBody};

/// Lines deflated together.
const RUN: usize = 32 * 1024;
/// How small the past is made.
const LEVEL: u32 = 6;
/// Records in one batch.
const BATCH: usize = 256;

/// How far the copying of a generation has come.
#[derive(Debug)]
pub(super) struct Archive {
    generation: u64,
    /// Days before this are not kept any more.
    oldest: String,
    /// The next call's number.
    call: u64,
    /// Calls by their numbers; read with the first step.
    names: Option<HashMap<u64, CallKey>>,
    /// The day being written.
    day: Option<String>,
    batch: sled::Batch,
    batched: usize,
    /// Legs that began on another day than their call.
    strays: BTreeMap<String, Vec<Leg>>,
    tokens: Tokens,
}

/// The last update of a leg in this generation.
#[derive(Debug)]
struct Leg {
    start: Micros,
    call_id: u64,
    /// From or to these, over its life.
    numbers: Vec<String>,
    json: Vec<u8>,
}

/// One call's records.
#[derive(Debug, Default)]
struct Cluster {
    /// Letter and JSON, in the order they will stand.
    lines: Vec<(u8, Vec<u8>)>,
    legs: Vec<Leg>,
    /// When its first leg began, else when its first record was made.
    began: Option<Micros>,
    entries: BTreeMap<DeliveryKey, StoredEntry>,
    outcomes: BTreeMap<DeliveryKey, StoredOutcome>,
}

impl Archive {
    pub(super) fn new(generation: u64, oldest: String) -> Self {
        Self {
            generation,
            oldest,
            call: 0,
            names: None,
            day: None,
            batch: sled::Batch::default(),
            batched: 0,
            strays: BTreeMap::new(),
            tokens: Tokens::new(),
        }
    }

    /// Copies the next call. Answers false when all is copied and on disk.
    pub(super) fn step(&mut self, pool: &Pool, days: &mut Days) -> Result<bool, ArchiveFault> {
        let store = pool.get(self.generation).map_err(ArchiveFault::Generation)?;
        if self.names.is_none() {
            self.names = Some(read_names(&store).map_err(ArchiveFault::Generation)?);
        }
        let read = read_call(&store, self.call).map_err(ArchiveFault::Generation)?;
        drop(store);
        match read {
            Some((number, cluster)) => {
                self.call = number + 1;
                if let Some(call) = self.names.as_mut().and_then(|names| names.remove(&number)) {
                    self.copy(&call, cluster, days).map_err(ArchiveFault::History)?;
                }
                Ok(true)
            }
            None => {
                self.finish(days).map_err(ArchiveFault::History)?;
                Ok(false)
            }
        }
    }

    fn copy(&mut self, call: &CallKey, cluster: Cluster, days: &mut Days) -> Result<(), Fault> {
        let day = day_of(cluster.began.unwrap_or_default());
        if day >= self.oldest {
            let store = self.turn_to(&day, days)?;
            self.tokens.entry(day.clone()).or_default().push(Token::call(call));
            for (part, run) in (0u16..).zip(runs(&cluster.lines)) {
                let key = run_key(call, self.generation, part);
                self.put(&store, key, &run)?;
            }
        }
        for leg in cluster.legs {
            let leg_day = day_of(leg.start);
            if leg_day == day && day >= self.oldest {
                let store = self.turn_to(&day, days)?;
                self.put_leg(&store, &day, leg)?;
            } else if leg_day >= self.oldest {
                self.strays.entry(leg_day).or_default().push(leg);
            }
        }
        Ok(())
    }

    fn finish(&mut self, days: &mut Days) -> Result<(), Fault> {
        for (day, legs) in std::mem::take(&mut self.strays) {
            let store = self.turn_to(&day, days)?;
            for leg in legs {
                self.put_leg(&store, &day, leg)?;
            }
        }
        self.leave(days)?;
        for (day, tokens) in std::mem::take(&mut self.tokens) {
            seek::write(days.directory(), &day, self.generation, tokens)?;
            days.rest(&day)?;
        }
        Ok(())
    }

    /// Makes this the day being written; the one before is synced.
    fn turn_to(&mut self, day: &str, days: &mut Days) -> Result<Arc<Store>, Fault> {
        if self.day.as_deref() != Some(day) {
            self.leave(days)?;
            self.day = Some(day.to_owned());
        }
        match days.get(day, true)? {
            Some(store) => Ok(store),
            None => Err(Fault::Io("the day could not be made".to_owned())),
        }
    }

    fn leave(&mut self, days: &mut Days) -> Result<(), Fault> {
        let Some(day) = self.day.take() else { return Ok(()) };
        let Some(store) = days.get(&day, true)? else { return Ok(()) };
        self.flush(&store)?;
        store.sync()
    }

    fn put(&mut self, store: &Store, key: Vec<u8>, payload: &[u8]) -> Result<(), Fault> {
        let record = format::seal(&key, payload);
        self.batch.insert(key, record);
        self.batched += 1;
        if self.batched >= BATCH { self.flush(store) } else { Ok(()) }
    }

    fn flush(&mut self, store: &Store) -> Result<(), Fault> {
        self.batched = 0;
        store.apply(std::mem::take(&mut self.batch))
    }

    /// Generations are copied in the order in which they are settled: a newer one's word stands.
    fn put_leg(&mut self, store: &Store, day: &str, leg: Leg) -> Result<(), Fault> {
        let key = key::leg(leg.start, leg.call_id);
        let known = store.get(&key)?.and_then(Result::ok).and_then(|payload| Reader(&payload).u64());
        if known.is_none_or(|generation| generation <= self.generation) {
            let mut payload = self.generation.to_be_bytes().to_vec();
            payload.extend_from_slice(&deflate(&leg.json, LEVEL));
            self.put(store, key, &payload)?;
        }
        self.put(store, key::call_id_of(leg.call_id, leg.start), &[])?;
        let tokens = self.tokens.entry(day.to_owned()).or_default();
        tokens.push(Token::call_id(leg.call_id));
        tokens.extend(leg.numbers.iter().map(|number| Token::number(number)));
        for number in &leg.numbers {
            self.put(store, key::number_of(number, leg.start, leg.call_id), &[])?;
        }
        Ok(())
    }
}

/// The key of a run of lines; all runs of a call share its beginning.
fn run_key(call: &CallKey, generation: u64, part: u16) -> Vec<u8> {
    let mut out = runs_of(call);
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&part.to_be_bytes());
    out
}

/// What the keys of a call's runs begin with.
pub(super) fn runs_of(call: &CallKey) -> Vec<u8> {
    let mut out = key::of_call(key::CALL, call);
    out.push(0);
    out
}

/// Calls by their numbers: some sixty bytes each while a generation is copied.
fn read_names(store: &Store) -> Result<HashMap<u64, CallKey>, Fault> {
    let mut names = HashMap::new();
    store.scan(&[key::CALL], |key, payload| {
        let number = payload.ok().and_then(|payload| Reader(&payload).u64());
        if let (Some(number), Ok(call)) = (number, std::str::from_utf8(&key[1..])) {
            names.insert(number, CallKey(call.into()));
        }
        true
    })?;
    Ok(names)
}

/// Reads the first call at or after this number.
fn read_call(store: &Store, from: u64) -> Result<Option<(u64, Cluster)>, Fault> {
    let mut number = None;
    let mut cluster = Cluster::default();
    store.range(&key::records(from), &[key::RECORD + 1], |key, payload| {
        let mut read = Reader(&key[1..]);
        let (Some(of), Some(kind)) = (read.u64(), read.0.first()) else { return true };
        if *number.get_or_insert(of) != of {
            return false;
        }
        // a damaged record costs itself
        if let Ok(payload) = payload {
            cluster.add(*kind, key, payload);
        }
        true
    })?;
    let Some(number) = number else { return Ok(None) };
    cluster.add_deliveries();
    Ok(Some((number, cluster)))
}

impl Cluster {
    fn add(&mut self, kind: u8, key: &[u8], payload: Vec<u8>) {
        match kind {
            kind::MESSAGE => pack::messages(&payload).iter().for_each(|message| self.add_message(message)),
            kind::UPDATE => self.add_line(b'u', &payload, Self::add_update),
            kind::CDR => self.add_line(b'd', &payload, |cluster, cdr: &Cdr, _| {
                if let Some(start) = cdr.start_epoch {
                    cluster.began.get_or_insert(start);
                }
            }),
            kind::MERGER => self.add_line(b'l', &payload, |cluster, merger: &Merger, _| {
                cluster.began.get_or_insert(merger.at);
            }),
            kind::ENTRY => {
                if let (Some(at), Some(entry)) = (place_in(key), StoredEntry::decode(&payload)) {
                    self.entries.insert(at, entry);
                }
            }
            kind::OUTCOME => {
                if let (Some(at), Ok(outcome)) = (place_in(key), serde_json::from_slice(&payload)) {
                    self.outcomes.insert(at, outcome);
                }
            }
            _ => {}
        }
    }

    fn add_line<T: serde::de::DeserializeOwned>(
        &mut self,
        letter: u8,
        packed: &[u8],
        look: impl FnOnce(&mut Self, &T, &[u8]),
    ) {
        let Some(json) = pack::unpack(packed) else { return };
        if let Ok(value) = serde_json::from_slice(&json) {
            look(self, &value, &json);
        }
        self.lines.push((letter, json.into_owned()));
    }

    fn add_message(&mut self, message: &TraceMessage) {
        self.began.get_or_insert(message.at);
        if let Ok(json) = serde_json::to_vec(message) {
            self.lines.push((b'm', json));
        }
    }

    fn add_update(&mut self, update: &Update, payload: &[u8]) {
        let UpdateBody::Leg(leg) = &update.body else {
            self.began.get_or_insert(update.at);
            return;
        };
        let LegUpdate { start, call_id, src, dst, .. } = leg.as_ref();
        self.began = Some(self.began.map_or(*start, |began| began.min(*start)));
        let known = self.legs.iter_mut().find(|known| (known.call_id, known.start) == (*call_id, *start));
        let mut numbers = known.as_ref().map(|known| known.numbers.clone()).unwrap_or_default();
        for number in [&src.number, &dst.number] {
            if !number.is_empty() && !numbers.contains(number) {
                numbers.push(number.clone());
            }
        }
        let last = Leg { start: *start, call_id: *call_id, numbers, json: payload.to_vec() };
        match known {
            Some(known) => *known = last,
            None => self.legs.push(last),
        }
    }

    fn add_deliveries(&mut self) {
        for delivery in deliveries(std::mem::take(&mut self.entries), &mut self.outcomes) {
            self.began.get_or_insert(delivery.accepted);
            if let Ok(json) = serde_json::to_vec(&delivery) {
                self.lines.push((b'e', json));
            }
        }
    }
}

/// Entries with their outcomes, in order; what only the receiver may see is left out.
pub(super) fn deliveries(
    entries: BTreeMap<DeliveryKey, StoredEntry>,
    outcomes: &mut BTreeMap<DeliveryKey, StoredOutcome>,
) -> Vec<TraceDelivery> {
    let join = |(at, stored): (DeliveryKey, StoredEntry)| {
        let mut outcome = outcomes.remove(&at);
        let mut payload = stored.entry.payload;
        if payload.conceal() {
            outcome.iter_mut().for_each(|outcome| outcome.settlement.conceal());
        }
        TraceDelivery {
            route: stored.entry.route,
            id: stored.entry.id,
            accepted: Micros(stored.accepted),
            payload,
            attempts: outcome.as_ref().map_or(0, |outcome| outcome.attempts),
            settled: outcome.map(|outcome| (Micros(outcome.at), outcome.settlement)),
        }
    };
    entries.into_iter().map(join).collect()
}

/// Lines deflated in runs that fit a record.
fn runs(lines: &[(u8, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut from = 0;
    while from < lines.len() {
        let mut to = from;
        let mut size = 0;
        while to < lines.len() && (to == from || size + lines[to].1.len() <= RUN) {
            size += lines[to].1.len() + 2;
            to += 1;
        }
        let mut run = deflate_lines(&lines[from..to]);
        while run.len() > PAYLOAD_CAP && to - from > 1 {
            to = from + (to - from) / 2;
            run = deflate_lines(&lines[from..to]);
        }
        out.push(run);
        from = to;
    }
    out
}

fn deflate_lines(lines: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (letter, json) in lines {
        text.push(*letter);
        text.extend_from_slice(json);
        text.push(b'\n');
    }
    deflate(&text, LEVEL)
}
