//! The outbox generations that are open, few at a time, shared by the writer and the reader.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::{Fault, Store};

/// Head, two more for deliveries, one while a new head is made; history has one of its own. With
/// the one that a reader may still hold this keeps within six.
const MOST_OPEN: usize = 4;

/// Open stores by generation.
#[derive(Debug)]
pub(super) struct Pool {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Least recently used first.
    open: Vec<(u64, Arc<Store>)>,
    /// Every generation on disk that counts, the head last, with the time it was made.
    listed: Vec<(u64, i64)>,
}

impl Pool {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, inner: Mutex::default() }
    }

    /// Where a generation's files are.
    pub(super) fn path(&self, generation: u64) -> PathBuf {
        self.directory.join(directory_name(generation))
    }

    /// Where the generations are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The store of a generation, opened if need be.
    pub(super) fn get(&self, generation: u64) -> Result<Arc<Store>, Fault> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = inner.open.iter().position(|(number, _)| *number == generation) {
            let found = inner.open.remove(at);
            let store = Arc::clone(&found.1);
            inner.open.push(found);
            return Ok(store);
        }
        let path = self.path(generation);
        if !path.is_dir() {
            return Err(Fault::Damaged("the directory is gone".to_owned()));
        }
        inner.make_room();
        let store = Arc::new(Store::open(&path)?);
        inner.open.push((generation, Arc::clone(&store)));
        Ok(store)
    }

    /// Takes in a store that was opened elsewhere.
    pub(super) fn insert(&self, generation: u64, store: Arc<Store>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.make_room();
        inner.open.push((generation, store));
    }

    /// Closes one.
    pub(super) fn close(&self, generation: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open.retain(|(number, _)| *number != generation);
    }

    /// Closes one, unless somebody else has it just now.
    pub(super) fn close_alone(&self, generation: u64) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = inner.open.iter().position(|(number, _)| *number == generation) else { return true };
        if Arc::strong_count(&inner.open[at].1) > 1 {
            return false;
        }
        inner.open.remove(at);
        true
    }

    /// Closes all: after an error no handle is trusted.
    pub(super) fn close_all(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).open.clear();
    }

    /// Says which generations there are, oldest first, and when each was made.
    pub(super) fn list(&self, generations: Vec<(u64, i64)>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).listed = generations;
    }

    /// Which there are, oldest first.
    pub(super) fn listed(&self) -> Vec<(u64, i64)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).listed.clone()
    }
}

impl Inner {
    /// Closes the least used that nobody holds. The head is used by every commit, so it stays.
    fn make_room(&mut self) {
        while self.open.len() >= MOST_OPEN {
            let head = self.listed.last().map(|(number, _)| *number);
            let Some(at) = self
                .open
                .iter()
                .position(|(number, store)| Some(*number) != head && Arc::strong_count(store) == 1)
            else {
                return;
            };
            self.open.remove(at);
        }
    }
}

/// The name of a generation's directory: names sort as numbers do.
pub(super) fn directory_name(generation: u64) -> String {
    format!("{generation:020}")
}

/// The generation of a directory.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    if name.len() == 20 { name.parse().ok() } else { None }
}
