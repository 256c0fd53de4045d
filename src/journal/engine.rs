//! One sled store under the recipe that makes it durable: small cache, its background flusher on
//! (the only caller of its garbage collection), and after each `flush()`, which does not reach the
//! disk on Linux, our own fdatasync.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::bundle;
use super::fault_point::{Doing, pass};
use super::format::{self, Damaged, key};
use super::view::{self, Kept};

const CACHE: u64 = 4 << 20;
/// After kill -9 the old process may hold its lock a little longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Far above the grain of a file system's times.
const BLOBS_SETTLED: Duration = Duration::from_secs(3);

/// What went wrong with a store.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Its bytes are not what was written.
    Damaged(String),
    /// The system refused.
    Io(String),
}

impl Fault {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Damaged(why) | Self::Io(why) => why,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if is_damage(error.kind()) => Self::Damaged(error.to_string()),
            sled::Error::Io(error) => Self::Io(error.to_string()),
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Damaged(error.to_string()),
        }
    }
}

/// What reading past an end, or a number that makes no sense, looks like.
fn is_damage(kind: io::ErrorKind) -> bool {
    [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::InvalidData,
        io::ErrorKind::InvalidInput,
        io::ErrorKind::NotFound,
    ]
    .contains(&kind)
}

/// A value read: its payload, or that it cannot be trusted.
pub(super) type Checked = Result<Vec<u8>, Damaged>;

/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    db: sled::Db,
    file: File,
    path: PathBuf,
    /// When something last came into `blobs/`, as far as that was looked at.
    blobs: Mutex<Option<SystemTime>>,
    /// Some of its records are in bundles.
    bundled: AtomicBool,
    kept: Kept,
}

impl Store {
    /// Opens or makes the store in this directory. Blocking, up to ten seconds where another
    /// process is just going away.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        pass(path, Doing::Opening)?;
        remove_unfinished_snapshots(path)?;
        let started = Instant::now();
        let db = loop {
            match caught(|| config(path).open().map_err(Fault::from)) {
                Err(Fault::Io(why)) if is_locked(&why) && started.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => break result?,
            }
        };
        let file = File::open(path.join("db"))?;
        let any = caught(|| Ok(db.scan_prefix([key::BUNDLE]).next().transpose()?.is_some()))?;
        let bundled = AtomicBool::new(any);
        Ok(Self { db, file, path: path.to_owned(), blobs: Mutex::default(), bundled, kept: Kept::default() })
    }

    /// Makes what a new store consists of durable: its files, its directory, the parent's entry.
    pub(super) fn sync_new(&self) -> Result<(), Fault> {
        self.sync()?;
        File::open(self.path.join("conf"))?.sync_all()?;
        sync_directory(&self.path.join("blobs"))?;
        sync_directory(&self.path)?;
        if let Some(parent) = self.path.parent() {
            sync_directory(parent)?;
        }
        Ok(())
    }

    /// Applies a batch, all or nothing; durable only after [`Store::sync`].
    pub(super) fn apply(&self, batch: sled::Batch) -> Result<(), Fault> {
        pass(&self.path, Doing::Writing)?;
        caught(|| self.db.apply_batch(batch).map_err(Fault::from))
    }

    /// Everything applied is on disk when this returns.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        caught(|| self.db.flush().map_err(Fault::from))?;
        pass(&self.path, Doing::Syncing)?;
        self.file.sync_data()?;
        self.sync_blobs()
    }

    /// Records are small enough that sled keeps pages in its one file. Where it does not all the
    /// same, those files are synced as well.
    fn sync_blobs(&self) -> Result<(), Fault> {
        let directory = self.path.join("blobs");
        let mut known = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = fs::metadata(&directory)?.modified()?;
        if *known == Some(changed) {
            return Ok(());
        }
        let mut any = false;
        for entry in fs::read_dir(&directory)? {
            match File::open(entry?.path()) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            any = true;
        }
        if any {
            tracing::warn!(path = %directory.display(), "the store moved a page to a file of its own");
            sync_directory(&directory)?;
        }
        // what came within the grain of that clock would not change it
        let settled = changed.elapsed().is_ok_and(|since| since > BLOBS_SETTLED);
        *known = settled.then_some(changed);
        Ok(())
    }

    /// The record under this key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Checked>, Fault> {
        pass(&self.path, Doing::Reading)?;
        caught(|| match self.db.get(key)? {
            Some(record) => Ok(Some(format::unseal(key, &record).map(<[u8]>::to_vec))),
            None if self.is_bundled() && bundle::takes(key) => view::get(&self.db, &self.kept, key),
            None => Ok(None),
        })
    }

    /// Whether anything stands under this key.
    pub(super) fn contains(&self, key: &[u8]) -> Result<bool, Fault> {
        if self.is_bundled() && bundle::takes(key) {
            return Ok(self.get(key)?.is_some());
        }
        caught(|| self.db.contains_key(key).map_err(Fault::from))
    }

    /// Whether its records that never change are in bundles.
    pub(super) fn is_bundled(&self) -> bool {
        self.bundled.load(Ordering::Relaxed)
    }

    /// Bundles were written into it.
    pub(super) fn has_bundles(&self) {
        self.bundled.store(true, Ordering::Relaxed);
    }

    /// Records whose key starts so, in order, until `visit` answers false.
    pub(super) fn scan(&self, prefix: &[u8], visit: impl FnMut(&[u8], Checked) -> bool) -> Result<(), Fault> {
        self.walk(prefix, &end_of(prefix), false, visit)
    }

    /// As [`Store::scan`], from the last to the first.
    pub(super) fn scan_back(
        &self,
        prefix: &[u8],
        visit: impl FnMut(&[u8], Checked) -> bool,
    ) -> Result<(), Fault> {
        self.walk(prefix, &end_of(prefix), true, visit)
    }

    /// Records from one key (inclusive) to another (exclusive), in order.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
        visit: impl FnMut(&[u8], Checked) -> bool,
    ) -> Result<(), Fault> {
        self.walk(from, to, false, visit)
    }

    /// As [`Store::range`], from the last to the first.
    pub(super) fn range_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: impl FnMut(&[u8], Checked) -> bool,
    ) -> Result<(), Fault> {
        self.walk(from, to, true, visit)
    }

    fn walk(
        &self,
        from: &[u8],
        to: &[u8],
        back: bool,
        mut visit: impl FnMut(&[u8], Checked) -> bool,
    ) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        pass(&self.path, Doing::Reading)?;
        caught(move || {
            if self.is_bundled() && bundle::spans(from, to) {
                return view::walk(&self.db, &self.kept, (from, to), back, visit);
            }
            let mut items = self.db.range(from..to);
            while let Some(item) = if back { items.next_back() } else { items.next() } {
                let (key, record) = item?;
                if !visit(&key, format::unseal(&key, &record).map(<[u8]>::to_vec)) {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// The first key behind all that begin so. Keys begin with a letter: it is there.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    key::behind_prefix(prefix).unwrap_or_else(|| vec![u8::MAX; 256])
}

fn config(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(Some(500))
        .print_profile_on_drop(false)
}

/// sled asserts where bytes are not as it left them; to us that is damage like any other.
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(Fault::Damaged(format!("the store failed an assertion: {why}")))
    })
}

fn is_locked(why: &str) -> bool {
    why.contains("could not acquire lock") || why.contains("WouldBlock")
}

/// A snapshot whose writing was cut short keeps sled from opening.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), Fault> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Makes a directory's entries durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Fault> {
    Ok(File::open(path)?.sync_all()?)
}
