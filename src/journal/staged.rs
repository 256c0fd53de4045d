//! What one group commit will write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::format::{self, key};
use super::known::{Name, Word};

/// Batches by generation, and whose counters changed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    batches: BTreeMap<u64, sled::Batch>,
    /// Generation and route.
    pub(super) counted: BTreeSet<(u64, u16)>,
    /// The head's place moved on.
    pub(super) moved: bool,
    /// What is known of creates once it is written.
    known: HashMap<Name, Word>,
}

impl Staged {
    pub(super) fn put(&mut self, generation: u64, key: Vec<u8>, payload: &[u8]) {
        let record = format::seal(&key, payload);
        self.batches.entry(generation).or_default().insert(key, record);
    }

    pub(super) fn remove(&mut self, generation: u64, key: Vec<u8>) {
        self.batches.entry(generation).or_default().remove(key);
    }

    /// Says in a generation, the head, what is known of a create or its party from now on.
    pub(super) fn learn(&mut self, generation: u64, name: Name, word: Word) {
        self.put(generation, key::known(name), &word.encode());
        self.known.insert(name, word);
    }

    /// What this group says of a create or its party.
    pub(super) fn known(&self, name: Name) -> Option<Word> {
        self.known.get(&name).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The batches, oldest generation first.
    pub(super) fn take(&mut self) -> BTreeMap<u64, sled::Batch> {
        self.known.clear();
        std::mem::take(&mut self.batches)
    }
}
