//! What one group commit will write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::format::{self, key};
use super::known::{Name, Word};

/// What is written into one store: records by key, `None` where one goes. The last word counts.
#[derive(Debug, Default)]
pub(super) struct Writes(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Writes {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn into_batch(self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, record) in self.0 {
            match record {
                Some(record) => batch.insert(key, record),
                None => batch.remove(key),
            }
        }
        batch
    }
}

/// Batches by generation, and whose counters changed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    batches: BTreeMap<u64, Writes>,
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
        self.batches.entry(generation).or_default().0.push((key, Some(record)));
    }

    pub(super) fn remove(&mut self, generation: u64, key: Vec<u8>) {
        self.batches.entry(generation).or_default().0.push((key, None));
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
    pub(super) fn take(&mut self) -> BTreeMap<u64, Writes> {
        self.known.clear();
        std::mem::take(&mut self.batches)
    }
}
