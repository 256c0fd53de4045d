//! What one group commit will write.

use std::collections::{BTreeMap, BTreeSet};

use super::format;

/// Batches by generation, and whose counters changed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    batches: BTreeMap<u64, sled::Batch>,
    /// Generation and route.
    pub(super) counted: BTreeSet<(u64, u16)>,
    /// The head's place moved on.
    pub(super) moved: bool,
}

impl Staged {
    pub(super) fn put(&mut self, generation: u64, key: Vec<u8>, payload: &[u8]) {
        let record = format::seal(&key, payload);
        self.batches.entry(generation).or_default().insert(key, record);
    }

    pub(super) fn remove(&mut self, generation: u64, key: Vec<u8>) {
        self.batches.entry(generation).or_default().remove(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The batches, oldest generation first.
    pub(super) fn take(&mut self) -> BTreeMap<u64, sled::Batch> {
        std::mem::take(&mut self.batches)
    }
}
