//! Reading the head generation into memory, and making a new head from the old one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::book::{Book, Chain, Generation, LiveLeg, Summary};
use super::encode::join_object;
use super::engine::{Checked, Fault, Store, sync_directory};
use super::format::{self, Next, Reader, decode_counters, encode_counters, key};
use super::kill_point::{KillPoint, reached};
use super::pack;
use super::pool::{Pool, generation_of};
use super::rewrite;
use super::schedule::Scan;
use super::types::RouteId;
use super::witness::Witness;
use crate::calls::{CallKey, ObjectKey, Update, UpdateBody};

/// A chain untouched for so long belongs to a call that never said its end.
const CHAIN_KEPT: i64 = 7 * 24 * 3600 * 1_000_000;
/// Records copied in one batch.
const COPY_BATCH: usize = 256;

/// What was found when the outbox was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) book: Book,
    /// `pbx.name` as stored; none in a new journal.
    pub(super) pbx: Option<String>,
    /// Generations put aside: where they are now, and why.
    pub(super) quarantined: Vec<(PathBuf, String)>,
    /// Acknowledged records that are not there any more, in generations that did open.
    pub(super) lost: u64,
    /// Nothing was appended ever, or the head was lost: a new one must be made of this book.
    pub(super) needs_head: bool,
}

/// Reads the newest generation that can be read, and compares it with what was acknowledged.
pub(super) fn load(pool: &Pool, quarantine: &Path, witness: Option<Witness>) -> Result<Loaded, Fault> {
    rewrite::tidy(pool.directory())?;
    let mut on_disk = numbers(pool.directory())?;
    let highest = on_disk.last().copied().unwrap_or(0);
    let mut quarantined = Vec::new();
    let mut unready = Vec::new();
    let mut found = None;
    while let Some(number) = on_disk.last().copied() {
        match read(pool, number) {
            Ok(Some(book)) => {
                found = Some(book);
                break;
            }
            Ok(None) => {
                pool.close(number);
                unready.push(number);
            }
            Err(Fault::Damaged(why)) => {
                pool.close(number);
                quarantined.push((put_aside(pool, number, quarantine)?, why));
            }
            Err(error) => return Err(error),
        }
        on_disk.pop();
    }
    let sealed = found.as_ref().is_some_and(|found| found.sealed);
    for number in unready {
        if sealed || witness.is_some_and(|witness| witness.generation >= number) {
            let why = "it is empty, but was not when it was left".to_owned();
            quarantined.push((put_aside(pool, number, quarantine)?, why));
        } else {
            // it never became the head: nothing in it was acknowledged
            remove(pool, number)?;
        }
    }
    let Some(Read { mut book, pbx, .. }) = found else {
        let book = Book { head: highest, ..Book::default() };
        return Ok(Loaded { book, pbx: None, quarantined, lost: 0, needs_head: true });
    };
    for number in on_disk {
        if book.folded.contains(&number) {
            remove(pool, number)?;
        } else {
            // only a head that says so is reason enough to remove a generation
            let unknown = Generation { sealed: true, behind: true, ..Generation::default() };
            book.generations.entry(number).or_insert(unknown);
        }
    }
    book.generations.retain(|number, _| pool.path(*number).is_dir());
    list(pool, &book);
    let mut lost = match witness {
        Some(witness) if witness.generation == book.head => missing(&book, witness.sequence),
        Some(_) | None => 0,
    };
    // a sealed generation had a successor, which is lost now or was at an earlier start
    let needs_head = sealed || lost > 0 || !quarantined.is_empty();
    if needs_head {
        // what this one knew of open calls is older than what was lost
        book.objects.clear();
        book.live.clear();
    }
    quarantined.extend(count_anew(pool, &mut book, quarantine, needs_head, &mut lost)?);
    list(pool, &book);
    Ok(Loaded { book, pbx, quarantined, lost, needs_head })
}

/// Reads the counters of generations whose summary is behind, or of all. One that cannot be read is
/// put aside.
fn count_anew(
    pool: &Pool,
    book: &mut Book,
    quarantine: &Path,
    all: bool,
    lost: &mut u64,
) -> Result<Vec<(PathBuf, String)>, Fault> {
    let mut quarantined = Vec::new();
    for (number, generation) in &mut book.generations {
        if generation.exact || !(all || generation.behind) {
            continue;
        }
        match pool.get(*number).and_then(|store| read_counters(&store, generation)) {
            Ok(missing) => *lost += missing,
            Err(Fault::Damaged(why)) => {
                pool.close(*number);
                quarantined.push((put_aside(pool, *number, quarantine)?, why));
            }
            Err(error) => return Err(error),
        }
    }
    book.generations.retain(|number, _| pool.path(*number).is_dir());
    Ok(quarantined)
}

/// Makes a new head: everything that must outlive the old one is in it, on disk, before anything
/// else is. `old` is read for notes, open objects and live legs.
pub(super) fn create(
    pool: &Pool,
    book: &mut Book,
    old: Option<&Store>,
    pbx: &str,
    now: i64,
) -> Result<(), Fault> {
    let number = numbers(pool.directory())?.last().copied().unwrap_or(0).max(book.head) + 1;
    let made = fill(pool, book, old, pbx, now, number);
    if made.is_err() {
        pool.close(number);
        let _ = fs::remove_dir_all(pool.path(number));
    }
    made
}

fn fill(
    pool: &Pool,
    book: &mut Book,
    old: Option<&Store>,
    pbx: &str,
    now: i64,
    number: u64,
) -> Result<(), Fault> {
    let store = Arc::new(Store::open(&pool.path(number))?);
    let mut copy = Copy { store: &store, batch: sled::Batch::default(), count: 0 };
    copy.put(key::about("pbx"), pbx.as_bytes())?;
    for (route, name) in book.routes.iter() {
        copy.put(key::route(key::ROUTE, route), name.0.as_bytes())?;
    }
    for (route, counters) in (0u16..).zip(&book.carried) {
        copy.put(key::route(key::CARRIED, route), &encode_counters(counters))?;
    }
    for ((route, reason), count) in &book.skipped {
        copy.put(key::skipped(*route, reason), &count.to_be_bytes())?;
    }
    let there = &book.generations;
    book.homes.retain(|_, home| there.contains_key(home));
    for (of, home) in &book.homes {
        copy.put(key::moved(*of), &home.to_be_bytes())?;
    }
    if book.gap.gaps > 0 {
        let json = serde_json::to_vec(&book.gap).map_err(|error| Fault::Io(error.to_string()))?;
        copy.put(key::about("gap"), &json)?;
    }
    book.chains.retain(|_, chain| now.saturating_sub(chain.touched) < CHAIN_KEPT);
    for (call, chain) in &book.chains {
        let json = serde_json::to_vec(chain).map_err(|error| Fault::Io(error.to_string()))?;
        copy.put(key::of_call(key::CHAIN, call), &json)?;
    }
    book.folded.retain(|number| pool.path(*number).is_dir());
    for folded in &book.folded {
        copy.put(key::folded(*folded), &[])?;
    }
    if let Some(old) = book.generations.get_mut(&book.head) {
        old.sequence = book.next.sequence;
    }
    for (generation, known) in &mut book.generations {
        known.behind = false;
        let json = serde_json::to_vec(&known.summary()).map_err(|error| Fault::Io(error.to_string()))?;
        copy.put(key::summary(*generation), &json)?;
    }
    if let Some(old) = old {
        copy.all(old, &[key::NOTE])?;
        for object in book.objects.keys() {
            copy.all(old, &key::object(&object.0))?;
        }
        for leg in book.live.values().flatten() {
            if let Some(update) = live_update(old, leg.call_id)? {
                let json = serde_json::to_vec(&update).map_err(|error| Fault::Io(error.to_string()))?;
                copy.put(key::live(leg.call_id), &json)?;
            }
        }
    }
    copy.flush()?;
    let next = Next { sequence: 1, call: 1, bytes: 0, created: now };
    copy.put(key::about("next"), &next.encode())?;
    copy.put(key::about("ready"), &[])?;
    copy.flush()?;
    reached(KillPoint::HeadCreated);
    store.sync_new()?;
    reached(KillPoint::HeadSynced);

    for known in book.generations.values_mut() {
        known.sealed = true;
    }
    book.generations.insert(number, Generation { created: now, exact: true, ..Generation::default() });
    book.head = number;
    book.next = next;
    book.calls.clear();
    list(pool, book);
    pool.insert(number, store);
    if let Some(old) = old
        && let Err(fault) = mark_sealed(old)
    {
        tracing::warn!(why = fault.why(), "cannot mark a generation as sealed");
    }
    reached(KillPoint::Sealed);
    Ok(())
}

/// Says in a generation that it has a successor.
fn mark_sealed(old: &Store) -> Result<(), Fault> {
    let mut batch = sled::Batch::default();
    let key = key::about("sealed");
    let record = format::seal(&key, &[]);
    batch.insert(key, record);
    old.apply(batch)?;
    old.sync()
}

fn list(pool: &Pool, book: &Book) {
    pool.list(book.generations.iter().map(|(number, known)| (*number, known.created)).collect());
}

/// The last update of a live leg, as the head has it.
pub(super) fn live_update(head: &Store, call_id: u64) -> Result<Option<Update>, Fault> {
    let Some(Ok(payload)) = head.get(&key::live(call_id))? else { return Ok(None) };
    if payload.first() != Some(&b'@') {
        return Ok(serde_json::from_slice(&payload).ok());
    }
    let Some(start) = Reader(&payload[1..]).i64() else { return Ok(None) };
    leg_update(head, parsers::Micros(start), call_id)
}

/// The last update of a leg in a generation.
pub(super) fn leg_update(
    store: &Store,
    start: parsers::Micros,
    call_id: u64,
) -> Result<Option<Update>, Fault> {
    let Some(Ok(place)) = store.get(&key::leg(start, call_id))? else { return Ok(None) };
    let Some(call) = Reader(&place).u64() else { return Ok(None) };
    let mut last = None;
    store.scan_back(&key::records_of(call, format::kind::UPDATE), |_, payload| {
        let update = payload.ok().and_then(|payload| pack::read::<Update>(&payload));
        last = update.filter(|update| match &update.body {
            UpdateBody::Leg(leg) => (leg.call_id, leg.start) == (call_id, start),
            UpdateBody::Sms(_) => false,
        });
        last.is_none()
    })?;
    Ok(last)
}

/// The open objects, whole ones only.
pub(super) fn objects(head: &Store) -> Result<Vec<(ObjectKey, Vec<u8>)>, Fault> {
    let mut parts: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    head.scan(&[key::OBJECT], |key, payload| {
        if let (Some(name), Ok(payload)) = (object_name(key), payload) {
            parts.entry(name).or_default().push(payload);
        }
        true
    })?;
    let whole =
        |(name, parts): (String, Vec<Vec<u8>>)| Some((ObjectKey(name.as_str().into()), join_object(&parts)?));
    Ok(parts.into_iter().filter_map(whole).collect())
}

/// Reads a generation's own counters. Answers how many of its records are missing: its end was cut
/// off since it was sealed.
pub(super) fn read_counters(store: &Store, generation: &mut Generation) -> Result<u64, Fault> {
    store.scan(&[key::COUNTERS], |key, payload| {
        if let (Some(route), Some(counters)) =
            (route_in(key), payload.ok().as_deref().and_then(decode_counters))
        {
            generation.route(route).counters = counters;
        }
        true
    })?;
    generation.exact = true;
    check_pending(store, generation)?;
    let next = store.get(&key::about("next"))?.and_then(Result::ok).and_then(|bytes| Next::decode(&bytes));
    let found = next.map_or(0, |next| next.sequence);
    Ok(generation.sequence.saturating_sub(found))
}

/// Holds the counters against what is there: where they were set back by damage, a delivery that waits
/// must not be passed over, nor one that is lost be waited for.
pub(super) fn check_pending(store: &Store, generation: &mut Generation) -> Result<(), Fault> {
    let mut route = first_waiting(store, 0)?;
    let mut waiting = Vec::new();
    while let Some(found) = route {
        waiting.push(found);
        route = match found.checked_add(1) {
            Some(next) => first_waiting(store, next)?,
            None => None,
        };
    }
    for number in waiting.iter().copied() {
        if generation.counters(number).pending == 0 {
            let mut count = 0;
            store.scan(&key::route(key::PENDING, number), |_, _| {
                count += 1;
                true
            })?;
            let found = generation.route(number);
            found.counters.pending += count;
            found.counters.accepted += count;
            found.scan = Scan::default();
            tracing::error!(route = number, count, "deliveries wait that the counters did not know of");
        }
    }
    for (number, found) in (0u16..).zip(&mut generation.routes) {
        if found.counters.pending > 0 && !waiting.contains(&number) {
            let count = std::mem::take(&mut found.counters.pending);
            found.counters.dropped += count;
            tracing::error!(route = number, count, "deliveries are lost that the counters knew of");
        }
    }
    Ok(())
}

/// The first route from this one on that has deliveries waiting.
fn first_waiting(store: &Store, from: u16) -> Result<Option<u16>, Fault> {
    let mut found = None;
    store.range(&key::route(key::PENDING, from), &[key::PENDING + 1], |key, _| {
        found = route_in(key);
        found.is_none()
    })?;
    Ok(found)
}

fn missing(book: &Book, acknowledged: u64) -> u64 {
    acknowledged.saturating_sub(book.next.sequence)
}

/// Removes a generation that is done with.
pub(super) fn remove(pool: &Pool, number: u64) -> Result<(), Fault> {
    match fs::remove_dir_all(pool.path(number)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    reached(KillPoint::Removed);
    sync_directory(pool.directory())
}

/// Moves a generation into quarantine.
pub(super) fn put_aside(pool: &Pool, number: u64, quarantine: &Path) -> Result<PathBuf, Fault> {
    put_path_aside(&pool.path(number), quarantine)
}

/// Moves a store into quarantine.
pub(super) fn put_path_aside(store: &Path, quarantine: &Path) -> Result<PathBuf, Fault> {
    let name = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = quarantine.join(format!("{name}-{}", crate::clock::now().0));
    fs::rename(store, &to)?;
    sync_directory(quarantine)?;
    if let Some(parent) = store.parent() {
        sync_directory(parent)?;
    }
    Ok(to)
}

/// The generations on disk, in order.
fn numbers(directory: &Path) -> Result<Vec<u64>, Fault> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Some(number) = entry?.file_name().to_str().and_then(generation_of) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads one generation as the head; none when it never was one.
fn read(pool: &Pool, number: u64) -> Result<Option<Read>, Fault> {
    let store = pool.get(number)?;
    read_store(&store, number)
}

/// As [`read`], of a store that is open.
pub(super) fn read_store(store: &Store, number: u64) -> Result<Option<Read>, Fault> {
    match store.get(&key::about("ready"))? {
        Some(Ok(_)) => {}
        Some(Err(damage)) => return Err(Fault::Damaged(damage.0.to_owned())),
        None => return Ok(None),
    }
    let needed = |name: &str| match store.get(&key::about(name))? {
        Some(Ok(payload)) => Ok(payload),
        Some(Err(damage)) => Err(Fault::Damaged(format!("the record {name}: {}", damage.0))),
        None => Err(Fault::Damaged(format!("the record {name} is not there"))),
    };
    let pbx = String::from_utf8(needed("pbx")?).ok();
    let next = Next::decode(&needed("next")?)
        .ok_or_else(|| Fault::Damaged("the record next is too short".to_owned()))?;
    let mut book = Book { head: number, next, ..Book::default() };
    if let Some(Ok(json)) = store.get(&key::about("gap"))? {
        book.gap = serde_json::from_slice(&json).unwrap_or_default();
    }
    let mut own = Generation { created: next.created, ..Generation::default() };
    read_counters(store, &mut own)?;
    read_state(store, &mut book)?;
    book.generations.insert(number, own);
    let sealed = store.contains(&key::about("sealed"))?;
    Ok(Some(Read { book, pbx, sealed }))
}

/// A generation read as the head.
pub(super) struct Read {
    pub(super) book: Book,
    pbx: Option<String>,
    /// It has, or had, a successor.
    sealed: bool,
}

/// What to do with a state record: its key and its payload.
type Visit<'a> = &'a mut dyn FnMut(&mut Book, &[u8], Vec<u8>);

fn read_state(store: &Store, book: &mut Book) -> Result<(), Fault> {
    let mut each = |prefix: u8, visit: Visit<'_>| {
        store.scan(&[prefix], |key, payload: Checked| {
            match payload {
                Ok(payload) => visit(book, key, payload),
                Err(damage) => tracing::error!(why = damage.0, "a record of the journal's head is damaged"),
            }
            true
        })
    };
    each(key::ROUTE, &mut |book, key, payload| {
        if let (Some(route), Ok(name)) = (route_in(key), String::from_utf8(payload)) {
            book.routes.restore(route, RouteId(name.into()));
        }
    })?;
    each(key::CHAIN, &mut |book, key, payload| {
        if let (Some(call), Ok(chain)) = (call_in(key), serde_json::from_slice::<Chain>(&payload)) {
            book.chains.insert(call, chain);
        }
    })?;
    each(key::OBJECT, &mut |book, key, _| {
        if let Some(name) = object_name(key) {
            *book.objects.entry(ObjectKey(name.into())).or_default() += 1;
        }
    })?;
    each(key::SKIPPED, &mut |book, key, payload| {
        if let (Some(route), Some(Ok(reason)), Some(count)) =
            (route_in(key), key.get(3..).map(std::str::from_utf8), Reader(&payload).u64())
        {
            book.skipped.insert((route, reason.to_owned()), count);
        }
    })?;
    each(key::NOTE, &mut |book, key, payload| {
        if let Some(Ok(name)) = key.get(1..).map(std::str::from_utf8) {
            book.deletes.restore(name, &payload);
        }
    })?;
    each(key::MOVED, &mut |book, key, payload| {
        book.homes.extend(Reader(&key[1..]).u64().zip(Reader(&payload).u64()));
    })?;
    each(key::CARRIED, &mut |book, key, payload| {
        if let (Some(route), Some(counters)) = (route_in(key), decode_counters(&payload)) {
            book.carry(route, counters);
        }
    })?;
    each(key::SUMMARY, &mut |book, key, payload| {
        if let (Some(number), Ok(summary)) = (Reader(&key[1..]).u64(), serde_json::from_slice(&payload)) {
            book.generations.insert(number, sealed(summary));
        }
    })?;
    each(key::FOLDED, &mut |book, key, _| book.folded.extend(Reader(&key[1..]).u64()))?;
    let mut live = Vec::new();
    each(key::LIVE, &mut |book, key, payload| {
        let generation = if payload.first() == Some(&b'@') { book.head } else { 0 };
        live.extend(Reader(&key[1..]).u64().map(|call_id| (call_id, generation)));
    })?;
    for (call_id, generation) in live {
        if let Some(update) = live_update(store, call_id)? {
            book.live.entry(update.call).or_default().push(LiveLeg { call_id, generation });
        }
    }
    Ok(())
}

fn sealed(summary: Summary) -> Generation {
    let Summary { created, sequence, behind, keys, rewritten, routes } = summary;
    let mut generation =
        Generation { created, sequence, behind, keys, rewritten, sealed: true, ..Generation::default() };
    for (route, counters) in routes {
        generation.route(route).counters = counters;
    }
    generation
}

fn route_in(key: &[u8]) -> Option<u16> {
    Reader(key.get(1..)?).u16()
}

fn call_in(key: &[u8]) -> Option<CallKey> {
    Some(CallKey(std::str::from_utf8(key.get(1..)?).ok()?.into()))
}

fn object_name(key: &[u8]) -> Option<String> {
    let length = usize::from(*key.get(1)?);
    Some(std::str::from_utf8(key.get(2..2 + length)?).ok()?.to_owned())
}

struct Copy<'a> {
    store: &'a Store,
    batch: sled::Batch,
    count: usize,
}

impl Copy<'_> {
    fn put(&mut self, key: Vec<u8>, payload: &[u8]) -> Result<(), Fault> {
        let record = format::seal(&key, payload);
        self.batch.insert(key, record);
        self.count += 1;
        if self.count < COPY_BATCH { Ok(()) } else { self.flush() }
    }

    /// Copies every whole record under a prefix.
    fn all(&mut self, from: &Store, prefix: &[u8]) -> Result<(), Fault> {
        let mut result = Ok(());
        from.scan(prefix, |key, payload| {
            if let Ok(payload) = payload {
                result = self.put(key.to_vec(), &payload);
            }
            result.is_ok()
        })?;
        result
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.count = 0;
        self.store.apply(std::mem::take(&mut self.batch))
    }
}
