//! Copying one settled generation into the history, one call a step: packed into bundles ([`super::day`]),
//! and the days opened for some thousand calls at once.

use std::collections::{BTreeMap, HashMap};

use parsers::{Cdr, Micros};

use super::command::ArchiveFault;
use super::day::{Packer, Piece};
use super::encode::{StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{self, Reader, key, kind};
use super::history::{Days, Tokens, day_of};
use super::outbox::place_in;
use super::pack;
use super::pool::Pool;
use super::seek::{self, Token};
use super::types::{DeliveryKey, TraceDelivery, TraceMessage};
use crate::calls::{CallKey, LegUpdate, Merger, Update, UpdateBody};

/// Lines of a call in one piece, bytes.
const RUN: usize = 16 * 1024;
/// Bytes of records written at once.
const BATCH: usize = 256 * 1024;
/// Days gathered for at once: calls over midnight alternate.
const MOST_DAYS: usize = 8;

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
    /// What each day gets; emptied together, never given up, so that numbers go on.
    packers: BTreeMap<String, Packer>,
    /// Records to be written.
    ready: BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>,
    ready_bytes: usize,
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
            packers: BTreeMap::new(),
            ready: BTreeMap::new(),
            ready_bytes: 0,
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
        let Cluster { lines, legs, began, .. } = cluster;
        let began = began.unwrap_or_default();
        let day = day_of(began);
        let starts = || legs.iter().map(|leg| leg.start.0);
        let span = (starts().min().unwrap_or(began.0), starts().max().unwrap_or(began.0));
        let mut tokens = vec![Token::call(call)];
        tokens.extend(legs.iter().flat_map(Leg::tokens));
        for (part, payload) in (0u16..).zip(runs(&lines)) {
            let key = run_key(call, self.generation, part);
            self.gather(&day, Piece { key, payload, tokens: tokens.clone(), span }, days)?;
        }
        // who looks for a leg looks on the day when it began
        for leg in legs {
            let leg_day = day_of(leg.start);
            if leg_day != day {
                let (mut tokens, span) = (leg.tokens(), (leg.start.0, leg.start.0));
                tokens.push(Token::call(call));
                let key = key::leg(leg.start, leg.call_id);
                self.gather(&leg_day, Piece { key, payload: leg.json, tokens, span }, days)?;
            }
        }
        Ok(())
    }

    fn gather(&mut self, day: &str, piece: Piece, days: &mut Days) -> Result<(), Fault> {
        if *day < *self.oldest {
            return Ok(());
        }
        if !self.packers.contains_key(day) && self.packers.len() >= MOST_DAYS {
            self.finish_bundles();
        }
        self.tokens.entry(day.to_owned()).or_default().extend(&piece.tokens);
        let generation = self.generation;
        let packer = self.packers.entry(day.to_owned()).or_insert_with(|| Packer::new(generation));
        let made = packer.add(piece);
        self.make_ready(day, made);
        if self.ready_bytes >= BATCH { self.write(days) } else { Ok(()) }
    }

    fn finish_bundles(&mut self) {
        let finished: Vec<_> =
            self.packers.iter_mut().map(|(day, packer)| (day.clone(), packer.finish())).collect();
        for (day, made) in finished {
            self.make_ready(&day, made);
        }
    }

    fn make_ready(&mut self, day: &str, made: Vec<(Vec<u8>, Vec<u8>)>) {
        if !made.is_empty() {
            self.ready_bytes += made.iter().map(|(key, payload)| key.len() + payload.len()).sum::<usize>();
            self.ready.entry(day.to_owned()).or_default().extend(made);
        }
    }

    /// Writes what is ready, durably, one day after the other.
    fn write(&mut self, days: &mut Days) -> Result<(), Fault> {
        self.ready_bytes = 0;
        for (day, records) in std::mem::take(&mut self.ready) {
            let store = days.get(&day, true)?;
            let store = store.ok_or_else(|| Fault::Io("the day could not be made".to_owned()))?;
            let mut batch = sled::Batch::default();
            for (key, payload) in records {
                let record = format::seal(&key, &payload);
                batch.insert(key, record);
            }
            store.apply(batch)?;
            store.sync()?;
        }
        Ok(())
    }

    fn finish(&mut self, days: &mut Days) -> Result<(), Fault> {
        self.finish_bundles();
        self.write(days)?;
        for (day, tokens) in std::mem::take(&mut self.tokens) {
            seek::write(days.directory(), &day, self.generation, tokens)?;
            days.rest(&day)?;
        }
        Ok(())
    }
}

impl Leg {
    fn tokens(&self) -> Vec<Token> {
        let numbers = self.numbers.iter().map(|number| Token::number(number));
        std::iter::once(Token::call_id(self.call_id)).chain(numbers).collect()
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

/// Lines in runs that fit a bundle.
fn runs(lines: &[(u8, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for (letter, json) in lines {
        match out.last_mut() {
            Some(run) if run.len() + json.len() + 2 <= RUN => add_line(run, *letter, json),
            Some(_) | None => {
                let mut run = Vec::new();
                add_line(&mut run, *letter, json);
                out.push(run);
            }
        }
    }
    out
}

fn add_line(run: &mut Vec<u8>, letter: u8, json: &[u8]) {
    run.push(letter);
    run.extend_from_slice(json);
    run.push(b'\n');
}
