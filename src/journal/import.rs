//! What is known of creates decides what is appended: history that was sent already is not sent again.
//! Done by the writer's thread, so that nothing comes in between.

use super::answer::Faulty;
use super::encode::PreparedEntry;
use super::format::key;
use super::known::{Create, Name, Tag, Word};
use super::staged::Staged;
use super::types::Imported;
use super::writer::Writer;
use crate::calls::CallKey;

/// Why a live create is left out whose history was sent before.
const SENT_AS_HISTORY: &str = "sent before, with the history";

/// Creates that are to be appended unless they are known.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) creates: Vec<PreparedEntry>,
    /// Those of deleted days are meant as well.
    pub(super) explicit: bool,
}

/// What became of an import.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) done: Imported,
    /// Routes that got something.
    pub(super) routes: Vec<u16>,
    /// Calls that are in the head for their deliveries alone.
    pub(super) calls: Vec<CallKey>,
}

/// What an import does with a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Known,
    Deleted,
}

impl Import {
    pub(super) fn records(&self) -> usize {
        self.creates.iter().map(PreparedEntry::records).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.creates.iter().map(PreparedEntry::bytes).sum()
    }
}

impl Writer {
    /// Places those that are not known.
    pub(super) fn place_import(&mut self, staged: &mut Staged, import: &Import) -> Faulty<Placed> {
        let Import { creates, explicit } = import;
        let mut placed = Placed::default();
        let names: Vec<Name> =
            creates.iter().filter_map(|entry| entry.create.as_ref()).flat_map(asked).collect();
        let words = self.known(&names)?;
        let mut words = words.into_iter();
        let head = self.head()?;
        for (place, entry) in creates.iter().enumerate() {
            let verdict = entry.create.as_ref().map_or(Verdict::New, |create| {
                let key = words.next().flatten();
                let party = create.party.and_then(|_| words.next().flatten());
                let later = create.later.and_then(|_| words.next().flatten());
                self.judge(staged, create, key, party.or(later), *explicit)
            });
            match verdict {
                Verdict::Known => placed.done.known += 1,
                Verdict::Deleted => placed.done.deleted += 1,
                Verdict::New => {
                    if !self.book.is_known(&entry.call) {
                        placed.calls.push(entry.call.clone());
                    }
                    let one = std::slice::from_ref(entry);
                    let number = self.book.head;
                    let routes = self.book.append_entries(staged, &head, one, crate::clock::now().0);
                    placed.routes.extend(routes.map_err(|fault| (number, fault))?);
                    placed.done.appended.push(place);
                }
            }
        }
        Ok(placed)
    }

    fn judge(
        &self,
        staged: &Staged,
        create: &Create,
        key: Option<Word>,
        party: Option<Word>,
        explicit: bool,
    ) -> Verdict {
        let needed = self.book.deletes.needed(&create.sink, create.date, create.start);
        let key = staged.known(create.key).or(key);
        let staged_party =
            [create.party, create.later].into_iter().flatten().find_map(|name| staged.known(name));
        let party = staged_party.or(party);
        let by_key = key.is_some_and(|word| word.tag != Tag::Forgotten && word.epoch >= needed);
        let by_party = party.is_some_and(|word| word.tag == Tag::Live && word.epoch >= needed);
        match (by_key || by_party, needed) {
            (true, _) => Verdict::Known,
            (false, 1..) if !explicit => Verdict::Deleted,
            (false, _) => Verdict::New,
        }
    }

    /// Takes those out that a history was faster with, and counts them.
    pub(super) fn leave_out_sent(
        &mut self,
        staged: &mut Staged,
        outbox: &mut Vec<PreparedEntry>,
    ) -> Faulty<()> {
        let routes = &self.book.routes;
        // who never had a history has nothing to ask
        let asked = |entry: &PreparedEntry| {
            let create = entry.create.as_ref().filter(|create| create.tag == Tag::Live)?;
            routes.number(&create.sink.history()).map(|_| create.key)
        };
        let keys: Vec<Option<Name>> = outbox.iter().map(asked).collect();
        if keys.iter().all(Option::is_none) {
            return Ok(());
        }
        let names: Vec<Name> = keys.iter().flatten().copied().collect();
        let mut words = self.known(&names)?.into_iter();
        let mut sent = keys.into_iter().map(|key| {
            let key = key?;
            let word = words.next().flatten();
            staged.known(key).or(word).filter(|word| word.tag == Tag::History)
        });
        let mut left_out = Vec::new();
        let deletes = &self.book.deletes;
        outbox.retain(|entry| {
            let (Some(word), Some(create)) = (sent.next().flatten(), &entry.create) else { return true };
            let is_there = word.epoch >= deletes.needed(&create.sink, create.date, create.start);
            if is_there {
                left_out.push(entry.route.clone());
            }
            !is_there
        });
        for route in left_out {
            self.book.skip(staged, &route, SENT_AS_HISTORY);
        }
        Ok(())
    }

    /// What is known of these on disk, the latest word of each.
    pub(super) fn known(&mut self, names: &[Name]) -> Faulty<Vec<Option<Word>>> {
        let mut words = vec![None; names.len()];
        let newest_first: Vec<u64> = self
            .book
            .generations
            .iter()
            .rev()
            .filter(|(_, found)| !found.keys)
            .map(|(number, _)| *number)
            .collect();
        for number in newest_first {
            let store = self.store(number)?;
            for (name, word) in names.iter().zip(&mut words).filter(|(_, word)| word.is_none()) {
                let record = store.get(&key::known(*name)).map_err(|fault| (number, fault))?;
                *word = record.and_then(Result::ok).and_then(|payload| Word::decode(&payload));
            }
        }
        let unknown: Vec<usize> = (0..names.len()).filter(|place| words[*place].is_none()).collect();
        let found = self.shared.months.find(unknown.iter().map(|place| names[*place]));
        for (place, word) in unknown.into_iter().zip(found) {
            words[place] = word;
        }
        Ok(words)
    }
}

/// What is asked of a create: its key, its party.
fn asked(create: &Create) -> impl Iterator<Item = Name> + use<> {
    [Some(create.key), create.party, create.later].into_iter().flatten()
}
