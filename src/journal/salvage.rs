//! What can still be read of a generation that was put aside.
//!
//! Its file is searched for records as they were written: each has a magic, its key and a checksum
//! (`format`), whatever became of the pages around it. A delivery whose end is not among them goes
//! into the head again, with its old id and in its old order; one that had ended may be made once
//! more where its end was what got lost. A file `salvaged` in the directory says that this was done.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::encode::{PreparedEntry, StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{self, key, kind};
use super::known::{Name, Word};
use super::months::name_in;
use super::outbox::place_in;
use super::pool::generation_of;
use super::staged::Staged;
use super::types::{DeadLetter, DeliveryKey, Settlement};
use super::writer::Writer;

/// Bytes read at once.
const CHUNK: usize = 4 << 20;
/// More than the longest record.
const OVERLAP: usize = 64 * 1024;
/// Bundles kept as they were read.
const MOST_BUNDLES: usize = 16;
/// Deliveries appended in one group.
const GROUP: usize = 128;

/// Words put back in one group.
const WORDS: usize = 1024;

/// Where things stand in the file.
#[derive(Debug, Default)]
struct Found {
    entries: BTreeMap<DeliveryKey, (u64, usize)>,
    /// Deliveries that ended.
    ended: HashSet<DeliveryKey>,
    letters: BTreeMap<DeliveryKey, DeadLetter>,
    /// What it knew of creates.
    known: BTreeMap<Name, Word>,
}

impl Writer {
    /// Puts back what is owed by generations that were put aside. Blocking, a fraction of a second
    /// for each.
    pub(super) fn salvage_all(&mut self) -> Result<(), (u64, Fault)> {
        let quarantine = self.shared.quarantine();
        for (generation, path) in unsalvaged(&quarantine).map_err(|error| (0, Fault::from(error)))? {
            match search(&path.join("db"), generation) {
                Ok((file, found)) => self.put_back(&file, found)?,
                Err(error) => tracing::error!(path = %path.display(), %error, "nothing can be salvaged"),
            }
            if let Err(error) = File::create(path.join("salvaged")) {
                tracing::warn!(path = %path.display(), %error, "cannot mark as salvaged");
            }
        }
        Ok(())
    }

    fn put_back(&mut self, file: &File, found: Found) -> Result<(), (u64, Fault)> {
        let mut bundles = VecDeque::new();
        let mut group = Vec::new();
        let mut count = 0;
        for (at, (offset, length)) in found.entries {
            if found.ended.contains(&at) {
                continue;
            }
            if let Some(entry) = read_entry(file, at, (offset, length), &mut bundles) {
                group.push(entry);
                count += 1;
            }
            if group.len() >= GROUP {
                self.again(&std::mem::take(&mut group), crate::clock::now())?;
            }
        }
        self.again(&group, crate::clock::now())?;
        self.put_words_back(found.known)?;
        let letters = found.letters.len();
        self.put_letters_back(found.letters)?;
        tracing::warn!(deliveries = count, letters, "salvaged from a damaged generation");
        Ok(())
    }

    /// What nobody else knows: a word from elsewhere may be a later one.
    fn put_words_back(&mut self, known: BTreeMap<Name, Word>) -> Result<(), (u64, Fault)> {
        let known: Vec<(Name, Word)> = known.into_iter().collect();
        for some in known.chunks(WORDS) {
            let names: Vec<Name> = some.iter().map(|(name, _)| *name).collect();
            let there = self.known(&names)?;
            let head = self.book.head;
            let mut staged = Staged::default();
            for ((name, word), _) in some.iter().zip(there).filter(|(_, there)| there.is_none()) {
                staged.learn(head, *name, *word);
            }
            self.write(&mut staged)?;
        }
        Ok(())
    }

    fn put_letters_back(&mut self, letters: BTreeMap<DeliveryKey, DeadLetter>) -> Result<(), (u64, Fault)> {
        let number = self.book.head;
        let mut staged = Staged::default();
        for (at, letter) in letters {
            let fault = |fault| (number, fault);
            let route = self.book.route(&mut staged, &letter.route).map_err(fault)?;
            let json = serde_json::to_vec(&letter).map_err(|error| fault(Fault::Io(error.to_string())))?;
            staged.put(number, key::dead(at), &json);
            let counters = &mut self.book.count(&mut staged, number, route).counters;
            counters.accepted += 1;
            counters.dead += 1;
        }
        self.write(&mut staged)
    }
}

/// What can be taken from a store that was put aside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    pub(super) deliveries: u64,
    pub(super) letters: u64,
    /// Records of the past, of a day that was put aside.
    pub(super) history: u64,
}

/// Looks into a store that was put aside.
pub(super) fn plan(path: &Path) -> io::Result<Plan> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(generation) = name.split_once('-').and_then(|(number, _)| generation_of(number)) {
        let (_, found) = search(&path.join("db"), generation)?;
        let open = found.entries.keys().filter(|at| !found.ended.contains(at)).count();
        return Ok(Plan { deliveries: open as u64, letters: found.letters.len() as u64, history: 0 });
    }
    if !is_day(&name) {
        return Ok(Plan::default());
    }
    let mut keys = HashSet::new();
    each_record(&path.join("db"), |key, _, _| {
        keys.insert(crc32c::crc32c(key));
    })?;
    Ok(Plan { history: keys.len() as u64, ..Plan::default() })
}

/// Puts the records of a day that was put aside into the day, unless newer ones are there.
pub(super) fn put_day_back(path: &Path, history: &Path) -> Result<u64, Fault> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let day = name.get(..10).filter(|_| is_day(&name));
    let day = day.ok_or_else(|| Fault::Io("its name is not a day's".to_owned()))?;
    let store = Store::open(&history.join(day))?;
    store.sync_new()?;
    let mut put = 0;
    let mut failed = Ok(());
    each_record(&path.join("db"), |key, payload, _| {
        if failed.is_ok() {
            failed = put_back(&store, key, payload).map(|new| put += u64::from(new));
        }
    })?;
    failed?;
    store.sync()?;
    drop(store);
    File::create(path.join("salvaged"))?.sync_all()?;
    Ok(put)
}

/// Whether a store that was put aside was a day, `2026-11-21-…`, and not a month, `2026-11-…`.
fn is_day(name: &str) -> bool {
    name.as_bytes().get(10) == Some(&b'-')
}

/// What stands there is never changed.
fn put_back(store: &Store, key: &[u8], payload: &[u8]) -> Result<bool, Fault> {
    if store.get(key)?.is_some_and(|known| known.is_ok()) {
        return Ok(false);
    }
    let mut batch = sled::Batch::default();
    batch.insert(key, format::seal(key, payload));
    store.apply(batch)?;
    Ok(true)
}

/// Generations in quarantine that nobody looked into yet, oldest first.
fn unsalvaged(quarantine: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(quarantine)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let generation = name.split_once('-').and_then(|(number, _)| generation_of(number));
        if let Some(generation) = generation
            && !path.join("salvaged").exists()
        {
            found.push((generation, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Searches a file for a generation's records.
fn search(path: &Path, generation: u64) -> io::Result<(File, Found)> {
    let mut found = Found::default();
    let file = each_record(path, |key, payload, place| found.add(generation, key, payload, place))?;
    Ok((file, found))
}

/// Visits every whole record in a file, whatever became of the pages around it.
fn each_record(path: &Path, mut visit: impl FnMut(&[u8], &[u8], (u64, usize))) -> io::Result<File> {
    let file = File::open(path)?;
    let mut buffer = vec![0; CHUNK + OVERLAP];
    let mut start = 0;
    loop {
        let filled = read_at(&file, &mut buffer, start)?;
        let bytes = &buffer[..filled];
        let mut at = 0;
        while let Some(skip) = find(&bytes[at..], format::MAGIC) {
            at += skip;
            // what begins in the overlap is met again in the next chunk
            if at >= CHUNK {
                break;
            }
            if let Some((key, payload, length)) = format::record_at(&bytes[at..]) {
                let place = (start + at as u64, length);
                match key.first() {
                    Some(&key::BUNDLE) => {
                        let bundle = Bundle::read(payload);
                        bundle
                            .iter()
                            .flat_map(Bundle::iter)
                            .for_each(|(key, payload)| visit(key, payload, place));
                    }
                    Some(_) | None => visit(key, payload, place),
                }
                at += length;
            } else {
                at += 1;
            }
        }
        if filled < buffer.len() {
            return Ok(file);
        }
        start += CHUNK as u64;
    }
}

impl Found {
    fn add(&mut self, generation: u64, key: &[u8], payload: &[u8], place: (u64, usize)) {
        if key[0] == key::KNOWN && key.len() == 11 {
            if let (Some(name), Some(word)) = (name_in(key), Word::decode(payload)) {
                // an older record may stand behind a newer one: in doubt it may be sent again
                let known = self.known.entry(name).or_insert(word);
                *known = (*known).min(word);
            }
            return;
        }
        let kind = key.get(9).copied().filter(|_| key[0] == key::RECORD && key.len() == 26);
        let Some(at) = place_in(key) else { return };
        match kind {
            // what was moved here from an older generation stands here alone
            Some(kind::ENTRY) if at.generation <= generation => {
                self.entries.insert(at, place);
            }
            Some(kind::OUTCOME) => {
                let outcome = serde_json::from_slice::<StoredOutcome>(payload).ok();
                if outcome.is_some_and(|found| !matches!(found.settlement, Settlement::Retry { .. })) {
                    self.ended.insert(at);
                }
            }
            _ if key[0] == key::DEAD && key.len() == 17 => {
                if let Ok(letter) = serde_json::from_slice(payload) {
                    self.letters.insert(at, letter);
                }
            }
            _ => {}
        }
    }
}

/// Bundles that were just read: deliveries of one time stand in a few of them.
type Bundles = VecDeque<(u64, Bundle)>;

fn read_entry(
    file: &File,
    at: DeliveryKey,
    (offset, length): (u64, usize),
    bundles: &mut Bundles,
) -> Option<PreparedEntry> {
    let in_bundle = |bundle: &Bundle| {
        bundle.iter().find_map(|(key, payload)| (entry_at(key) == Some(at)).then(|| prepare(payload))?)
    };
    if let Some((_, bundle)) = bundles.iter().find(|(known, _)| *known == offset) {
        return in_bundle(bundle);
    }
    let mut record = vec![0; length];
    file.read_exact_at(&mut record, offset).ok()?;
    let (key, payload, _) = format::record_at(&record)?;
    if key.first() != Some(&key::BUNDLE) {
        return prepare(payload);
    }
    let bundle = Bundle::read(payload)?;
    let found = in_bundle(&bundle);
    if bundles.len() >= MOST_BUNDLES {
        bundles.pop_front();
    }
    bundles.push_back((offset, bundle));
    found
}

fn prepare(payload: &[u8]) -> Option<PreparedEntry> {
    PreparedEntry::new(&StoredEntry::decode(payload)?.entry).ok()
}

/// The delivery whose record has this key.
fn entry_at(key: &[u8]) -> Option<DeliveryKey> {
    let is_entry = key.len() == 26 && key[0] == key::RECORD && key[9] == kind::ENTRY;
    place_in(key).filter(|_| is_entry)
}

fn read_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn find(bytes: &[u8], magic: [u8; 2]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == magic)
}
