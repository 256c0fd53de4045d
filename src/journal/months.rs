//! What is known of delivered creates, one store a month of theirs (`keys/2026-11`): written by the
//! history's thread when a generation is sealed, read by the writer. What is lost here costs that much
//! alone: an import offers again what NiMbox then says exists.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::command::ArchiveFault;
use super::engine::{Fault, Store, sync_directory};
use super::format::{self, Reader, key};
use super::head::put_path_aside;
use super::history::open_or_make;
use super::kill_point::{KillPoint, reached};
use super::known::{Bucket, Name, Word, month_name};
use super::pool::Pool;
use super::space::disk_use;

/// The newest month, and one more; those in use beyond that stay until they are not.
const MOST_OPEN: usize = 2;
/// Names read in one step.
const STEP: usize = 4096;
/// Buckets written in one batch.
const BATCH: usize = 64;
/// The share of `max_size` that all months may take.
const SHARE: u64 = 8;

/// The months.
#[derive(Debug)]
pub(super) struct Months {
    directory: PathBuf,
    quarantine: PathBuf,
    /// Least recently used first.
    open: Mutex<Vec<(u16, Arc<Store>)>>,
}

impl Months {
    pub(super) fn new(directory: &Path) -> Self {
        let (directory, quarantine) = (directory.join("keys"), directory.join("quarantine"));
        Self { directory, quarantine, open: Mutex::default() }
    }

    /// What is known of these, in order of their months at best. A month that cannot be read knows nothing.
    pub(super) fn find(&self, names: impl Iterator<Item = Name>) -> Vec<Option<Word>> {
        let mut month: Option<(u16, Option<Arc<Store>>)> = None;
        names
            .map(|name| {
                if month.as_ref().is_none_or(|(known, _)| *known != name.month) {
                    month = None;
                    let store = self.get(name.month, false).unwrap_or_else(|fault| {
                        tracing::error!(why = fault.why(), "a month of delivered keys cannot be read");
                        None
                    });
                    month = Some((name.month, store));
                }
                let store = month.as_ref().and_then(|(_, store)| store.as_ref())?;
                match store.get(&key::bucket(name.bucket())) {
                    Ok(record) => Bucket::find(&record?.ok()?, name),
                    Err(fault) => {
                        month = Some((name.month, None));
                        self.failed(name.month, &fault);
                        None
                    }
                }
            })
            .collect()
    }

    /// A month's store; one that will not open is put aside.
    fn get(&self, month: u16, make: bool) -> Result<Option<Arc<Store>>, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(known, _)| *known == month) {
            let found = open.remove(at);
            let store = Arc::clone(&found.1);
            open.push(found);
            return Ok(Some(store));
        }
        let path = self.directory.join(month_name(month));
        // no other is closed for one that is not there
        if !path.is_dir() && !make {
            return Ok(None);
        }
        let newest = open.iter().map(|(month, _)| *month).max();
        while open.len() >= MOST_OPEN {
            let idle = |(known, store): &(u16, Arc<Store>)| {
                Arc::strong_count(store) == 1 && (Some(*known) != newest || month > *known)
            };
            let Some(at) = open.iter().position(idle) else { break };
            open.remove(at);
        }
        let Some(store) = open_or_make(&path, make, |why| self.put_aside(month, why))? else {
            return Ok(None);
        };
        let store = Arc::new(store);
        open.push((month, Arc::clone(&store)));
        Ok(Some(store))
    }

    /// No handle is trusted after an error; bytes that are not what was written are put aside.
    fn failed(&self, month: u16, fault: &Fault) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| *known != month);
        let put = match fault {
            Fault::Damaged(why) => self.put_aside(month, why),
            Fault::Io(why) => {
                tracing::error!(month = month_name(month), why, "a month of delivered keys fails");
                Ok(())
            }
        };
        if let Err(fault) = put {
            tracing::error!(why = fault.why(), "cannot put a month of delivered keys aside");
        }
    }

    fn put_aside(&self, month: u16, why: &str) -> Result<(), Fault> {
        let path = put_path_aside(&self.directory.join(month_name(month)), &self.quarantine)?;
        tracing::error!(path = %path.display(), why, "a damaged month of delivered keys was put aside");
        Ok(())
    }

    /// Closes what is not in use, the newest month apart.
    pub(super) fn rest(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = open.iter().map(|(month, _)| *month).max();
        open.retain(|(month, store)| Some(*month) == newest || Arc::strong_count(store) > 1);
    }

    pub(super) fn close_all(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Months there are, oldest first.
    pub(super) fn list(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut months: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        months.sort_unstable();
        months
    }

    /// Gives up the oldest months beyond their share of the journal.
    pub(super) fn keep_within(&self, max_size: u64) {
        let mut months = self.list();
        let mut used: u64 = months.iter().map(|month| disk_use(&self.directory.join(month))).sum();
        months.reverse();
        while used > max_size / SHARE
            && let Some(month) = months.pop()
        {
            used = used.saturating_sub(disk_use(&self.directory.join(&month)));
            self.remove(&month);
        }
    }

    /// Gives up the oldest month, where there is one.
    pub(super) fn give_up_oldest(&self) {
        if let Some(month) = self.list().first() {
            self.remove(month);
        }
    }

    fn remove(&self, month: &str) {
        // nobody opens it meanwhile
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(known, _)| month_name(*known) != month);
        let removed = fs::remove_dir_all(self.directory.join(month)).map_err(Fault::from);
        match removed.and_then(|()| sync_directory(&self.directory)) {
            Ok(()) => tracing::info!(month, "a month of delivered keys was removed"),
            Err(fault) => tracing::warn!(month, why = fault.why(), "cannot remove a month of delivered keys"),
        }
    }
}

/// How far the copying of a sealed generation's names has come. Copied again they are the same.
#[derive(Debug)]
pub(super) struct KeyCopy {
    generation: u64,
    /// The next key in the generation.
    from: Vec<u8>,
    /// What is written, but not synced.
    month: Option<u16>,
    names: u64,
    refused: u64,
}

impl KeyCopy {
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, from: vec![key::KNOWN], month: None, names: 0, refused: 0 }
    }

    /// Copies some. Answers false when all are copied and on disk.
    pub(super) fn step(&mut self, pool: &Pool, months: &Months) -> Result<bool, ArchiveFault> {
        let store = pool.get(self.generation).map_err(ArchiveFault::Generation)?;
        let (names, last) = read(&store, &self.from).map_err(ArchiveFault::Generation)?;
        drop(store);
        let copied = match last {
            None => self.leave(months).map(|()| false),
            Some(last) => self.copy(&names, months).map(|()| {
                self.from = key::behind(&last);
                true
            }),
        };
        match copied {
            Ok(true) => Ok(true),
            Ok(false) => {
                if self.refused > 0 {
                    tracing::warn!(
                        refused = self.refused,
                        "a month of delivered keys is full; an import may offer these creates again"
                    );
                }
                tracing::debug!(generation = self.generation, names = self.names, "delivered keys copied");
                Ok(false)
            }
            Err((month, Fault::Damaged(why))) => {
                // what it got of this generation went with it
                months.failed(month, &Fault::Damaged(why));
                *self = Self::new(self.generation);
                Ok(true)
            }
            Err((month, fault)) => {
                months.failed(month, &fault);
                Err(ArchiveFault::History(fault))
            }
        }
    }

    /// Names of one month, in order.
    fn copy(&mut self, names: &[(Name, Word)], months: &Months) -> Result<(), (u16, Fault)> {
        let Some(month) = names.first().map(|(name, _)| name.month) else { return Ok(()) };
        if self.month.is_some_and(|before| before != month) {
            self.leave(months)?;
        }
        self.month = Some(month);
        let failed = |fault| (month, fault);
        let missing = || failed(Fault::Io("the month could not be made".to_owned()));
        let store = months.get(month, true).map_err(failed)?.ok_or_else(missing)?;
        let mut batch = sled::Batch::default();
        let mut batched = 0;
        for some in names.chunk_by(|(one, _), (other, _)| one.bucket() == other.bucket()) {
            let Some((name, _)) = some.first() else { continue };
            let at = key::bucket(name.bucket());
            let known = store.get(&at).map_err(failed)?.and_then(Result::ok);
            let mut bucket = known.and_then(|record| Bucket::decode(&record)).unwrap_or_default();
            self.refused += bucket.merge(some);
            let record = format::seal(&at, &bucket.encode());
            batch.insert(at, record);
            batched += 1;
            if batched >= BATCH {
                batched = 0;
                store.apply(std::mem::take(&mut batch)).map_err(failed)?;
            }
        }
        store.apply(batch).map_err(failed)?;
        self.names += names.len() as u64;
        reached(KillPoint::KeysWritten);
        Ok(())
    }

    fn leave(&mut self, months: &Months) -> Result<(), (u16, Fault)> {
        let Some(month) = self.month else { return Ok(()) };
        let store = months.get(month, true).map_err(|fault| (month, fault))?;
        if let Some(store) = store {
            store.sync().map_err(|fault| (month, fault))?;
        }
        self.month = None;
        Ok(())
    }
}

/// Names of one month from a key on, and the last key that was read.
type Read = (Vec<(Name, Word)>, Option<Vec<u8>>);

fn read(store: &Store, from: &[u8]) -> Result<Read, Fault> {
    let mut names: Vec<(Name, Word)> = Vec::new();
    let mut last = None;
    store.range(from, &[key::KNOWN + 1], |key, payload| {
        if let (Some(name), Some(word)) = (name_in(key), payload.ok().and_then(|word| Word::decode(&word))) {
            if names.first().is_some_and(|(first, _)| first.month != name.month) {
                return false;
            }
            names.push((name, word));
        }
        last = Some(key.to_vec());
        names.len() < STEP
    })?;
    Ok((names, last))
}

/// The name in the key of its record.
pub(super) fn name_in(key: &[u8]) -> Option<Name> {
    let mut read = Reader(key.get(1..)?);
    Some(Name { month: read.u16()?, hash: read.u64()? })
}
