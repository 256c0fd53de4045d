//! A sealed generation with much that waits is written anew, in a fraction of the room: what never
//! changes goes into bundles (`bundle`), and sled's stale pages stay behind.
//!
//! The history's thread fills a store beside the generation, slowly, while settlements go on in the
//! old one; the writer notes which records they touch. When all is copied it brings these up to date,
//! and the directories change their names: a crash at any moment leaves one of the two whole
//! ([`tidy`]). A generation of which everything is delivered is never written anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::answer::Faulty;
use super::book::Generation;
use super::bundle::{self, Bundler};
use super::engine::{Fault, Store, sync_directory};
use super::format;
use super::history::Job;
use super::kill_point::{KillPoint, reached};
use super::pool::{Pool, generation_of};
use super::writer::Writer;

/// Records read at once.
const STEP: usize = 256;
/// Bytes written at once.
const BATCH: usize = 64 * 1024;
/// Ends the name of the store that is being filled.
const NEW: &str = ".new";
/// Ends the name of the one that was replaced.
const OLD: &str = ".old";

/// A generation waits for so many newer ones, the head among them: until then it may be emptied.
const NEWER: usize = 2;
/// One with less than this share of its records waiting is not worth it.
const SHARE: u64 = 100;
/// A copy takes less than this share of the generation; it is not begun where that is not there.
const COPY: u64 = 4;
/// How long commits wait at most for a copy that makes room, and how often it is looked at.
const WAIT: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(5);
/// Records that may change while a generation is copied; with more it is being emptied.
const MOST_TOUCHED: usize = 4096;
/// After it was left as it is, for whatever reason.
const PAUSE: Duration = Duration::from_secs(60);

/// What the writer knows of a rewriting under way.
#[derive(Debug)]
pub(super) struct Rewriting {
    generation: u64,
    touched: BTreeSet<Vec<u8>>,
    order: Arc<Order>,
}

/// What the writer tells the one who copies.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// It is not wanted any more.
    cancelled: AtomicBool,
    /// No pauses: room is needed.
    hurry: AtomicBool,
    /// All is copied, or cannot be.
    done: AtomicBool,
    /// What the generation knows of creates is in the months: no need to take it along.
    keys: bool,
}

impl Order {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) const fn keys(&self) -> bool {
        self.keys
    }

    pub(super) fn set_done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }
}

impl Rewriting {
    /// A commit changes these records of a generation.
    pub(super) fn touch<'a>(&mut self, generation: u64, keys: impl Iterator<Item = &'a Vec<u8>>) {
        if generation != self.generation || self.order.is_cancelled() {
            return;
        }
        self.touched.extend(keys.cloned());
        if self.touched.len() > MOST_TOUCHED {
            self.cancel();
        }
    }

    pub(super) fn cancel(&mut self) {
        self.touched.clear();
        self.order.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_of(&self, generation: u64) -> bool {
        self.generation == generation
    }

    pub(super) fn hurry(&self) {
        self.order.hurry.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    /// Has a generation written anew, if one is worth it; `pressed`: also a young one. Answers whether one is under way.
    pub(super) fn rewrite_some(&mut self, pressed: bool) -> bool {
        let hurry = pressed || self.space.is_half_full();
        if let Some(rewriting) = &self.rewriting {
            if hurry {
                rewriting.hurry();
            }
            return true;
        }
        let now = Instant::now();
        self.left_alone.retain(|_, until| *until > now);
        let old = self.book.generations.len().saturating_sub(NEWER);
        let worth = |(number, found): &(&u64, &Generation)| {
            let much = found.pending() > 0 && found.pending().saturating_mul(SHARE) >= found.sequence;
            let open = found.sealed && !found.archiving && !found.rewritten;
            open && much && !self.left_alone.contains_key(number)
        };
        let most = if pressed { usize::MAX } else { old };
        let Some(generation) = self.book.generations.iter().take(most).find(worth).map(|(number, _)| *number)
        else {
            return false;
        };
        let size = super::space::disk_use(&self.shared.pool.path(generation));
        if !self.space.has_room_for(size / COPY) {
            return false;
        }
        let keys = self.book.generations.get(&generation).is_some_and(|found| found.keys);
        let order = Arc::new(Order { keys, ..Order::default() });
        order.hurry.store(hurry, Ordering::Relaxed);
        self.rewriting = Some(Rewriting { generation, touched: BTreeSet::new(), order: Arc::clone(&order) });
        let _ = self.history.send(Job::Rewrite(generation, order));
        true
    }

    /// So near the limit, what comes waits for the copy that makes room for it.
    pub(super) fn wait_for_copy(&self) {
        let Some(rewriting) = &self.rewriting else { return };
        let until = Instant::now() + WAIT;
        while !rewriting.order.done.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(GLANCE);
        }
    }

    /// What is being copied is not wanted any more.
    pub(super) fn cancel_rewriting(&mut self) {
        if let Some(mut rewriting) = self.rewriting.take() {
            rewriting.cancel();
        }
    }

    /// A generation is copied, or why not.
    pub(super) fn rewritten(&mut self, number: u64, copied: Result<Option<Store>, Fault>) -> Faulty<()> {
        let rewriting = self.rewriting.take();
        let new = beside(&self.shared.pool.path(number), NEW);
        let there = self.book.generations.get(&number).is_some_and(|found| !found.archiving);
        let Some(rewriting) =
            rewriting.filter(|known| known.is_of(number) && !known.order.is_cancelled() && there)
        else {
            drop(copied);
            return self.leave_alone(number, &new);
        };
        match copied {
            Ok(Some(store)) => {
                let before = super::space::disk_use(&self.shared.pool.path(number));
                if !self.exchange(number, store, &rewriting.touched)? {
                    return self.leave_alone(number, &new);
                }
                let after = super::space::disk_use(&self.shared.pool.path(number));
                tracing::info!(generation = number, before, after, "a generation was written anew");
                self.mark(number, |found| found.rewritten = true)?;
            }
            Ok(None) => self.mark(number, |found| found.rewritten = true)?,
            Err(fault) => {
                tracing::warn!(generation = number, why = fault.why(), "cannot write a generation anew");
                self.leave_alone(number, &new)?;
            }
        }
        self.space.changed();
        Ok(())
    }

    fn leave_alone(&mut self, number: u64, new: &Path) -> Faulty<()> {
        self.left_alone.insert(number, Instant::now() + PAUSE);
        let _ = self.history.send(Job::Sweep(new.to_owned()));
        Ok(())
    }

    /// Brings the copy up to date and puts it in the old one's place. Answers false where somebody
    /// reads the old one just now.
    fn exchange(&mut self, number: u64, new: Store, touched: &BTreeSet<Vec<u8>>) -> Faulty<bool> {
        let fault = |fault| (number, fault);
        let old = self.store(number)?;
        let mut batch = sled::Batch::default();
        for key in touched {
            match old.get(key).map_err(fault)? {
                Some(Ok(payload)) => batch.insert(key.as_slice(), format::seal(key, &payload)),
                Some(Err(_)) => return Ok(false),
                None => batch.remove(key.as_slice()),
            }
        }
        if new.apply(batch).and_then(|()| new.sync()).is_err() {
            return Ok(false);
        }
        drop((new, old));
        reached(KillPoint::Rewritten);
        let shared = Arc::clone(&self.shared);
        let _hidden = shared.hide();
        if !shared.pool.close_alone(number) {
            return Ok(false);
        }
        let path = shared.pool.path(number);
        change_places(&path).map_err(fault)?;
        let _ = self.history.send(Job::Sweep(beside(&path, OLD)));
        Ok(true)
    }
}

fn change_places(path: &Path) -> Result<(), Fault> {
    let parent = path.parent().unwrap_or(path);
    fs::rename(path, beside(path, OLD))?;
    sync_directory(parent)?;
    reached(KillPoint::Replaced);
    fs::rename(beside(path, NEW), path)?;
    sync_directory(parent)?;
    reached(KillPoint::Exchanged);
    Ok(())
}

/// Makes whole what a crash cut short: the old store stands until the new one has its name.
pub(super) fn tidy(outbox: &Path) -> Result<(), Fault> {
    let mut changed = false;
    for end in [OLD, NEW] {
        for entry in fs::read_dir(outbox)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(generation) = name.strip_suffix(end).filter(|name| generation_of(name).is_some()) else {
                continue;
            };
            let place = outbox.join(generation);
            if end == OLD && !place.exists() {
                fs::rename(&path, &place)?;
            } else {
                remove(&path)?;
            }
            changed = true;
        }
    }
    if changed { sync_directory(outbox) } else { Ok(()) }
}

/// The generation that a directory stands for: also one that was replaced, as long as the other does not
/// have its name.
pub(super) fn stands_for<'a>(outbox: &Path, name: &'a str) -> Option<&'a str> {
    let replaced = name.strip_suffix(OLD).filter(|name| !outbox.join(name).exists());
    Some(replaced.unwrap_or(name)).filter(|name| generation_of(name).is_some())
}

/// How far the copying of a generation has come.
#[derive(Debug)]
pub(super) struct Rewrite {
    generation: u64,
    store: Store,
    /// Where reading goes on.
    from: Vec<u8>,
    bundler: Bundler,
    batch: sled::Batch,
    bytes: usize,
    keys: bool,
}

impl Rewrite {
    /// Makes the new store. `None` where the generation was written anew before.
    /// `keys`: what it knows of creates stays behind.
    pub(super) fn begin(pool: &Pool, generation: u64, keys: bool) -> Result<Option<Self>, Fault> {
        if pool.get(generation)?.is_bundled() {
            return Ok(None);
        }
        let path = beside(&pool.path(generation), NEW);
        remove(&path)?;
        let store = Store::open(&path)?;
        let (bundler, batch) = (Bundler::default(), sled::Batch::default());
        Ok(Some(Self { generation, store, from: vec![0], bundler, batch, bytes: 0, keys }))
    }

    /// Copies some more records. Answers false when all are copied.
    pub(super) fn step(&mut self, pool: &Pool) -> Result<bool, Fault> {
        let old = pool.get(self.generation)?;
        let mut read = Vec::new();
        let mut damage = None;
        old.range(&self.from, &[u8::MAX], |key, payload| {
            match payload {
                Ok(payload) => read.push((key.to_vec(), payload)),
                Err(found) => damage = Some(found.0.to_owned()),
            }
            damage.is_none() && read.len() < STEP
        })?;
        if let Some(why) = damage {
            return Err(Fault::Damaged(why));
        }
        let more = read.len() == STEP;
        if let Some((last, _)) = read.last() {
            self.from = format::key::behind(last);
        }
        for (key, payload) in read {
            if self.keys && key[0] == format::key::KNOWN {
                continue;
            }
            if bundle::takes(&key) {
                let full = self.bundler.add(&key, payload);
                self.put_all(full)?;
            } else {
                self.put_all(vec![(key, payload)])?;
            }
        }
        if !more {
            let last = self.bundler.finish();
            self.put_all(last)?;
            self.flush()?;
            self.store.sync_new()?;
            self.store.has_bundles();
        }
        Ok(more)
    }

    /// The new store, filled.
    pub(super) fn into_store(self) -> Store {
        self.store
    }

    fn put_all(&mut self, records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        for (key, payload) in records {
            let record = format::seal(&key, &payload);
            self.bytes += record.len();
            self.batch.insert(key, record);
            if self.bytes >= BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.bytes = 0;
        self.store.apply(std::mem::take(&mut self.batch))
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Removes what is not needed any more.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
