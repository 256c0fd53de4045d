//! What is known of creates, so that none is sent twice: by its key (`initiated`, source, destination)
//! and by party A, as hashes of 64 bits; and of webhooks about ends, by the call, or by the leg.
//! Here is what a name and a word are, and how many of them lie in one record of a month.

use jiff::civil::Date;
use parsers::Micros;
use serde::Deserialize;

use super::encode::Entry;
use super::format::{PAYLOAD_CAP, Reader};
use super::types::{Payload, RouteId};
use crate::digest;

/// Bits of a hash that say its bucket; the rest stands in the bucket.
const BUCKET_BITS: u32 = 12;
/// Bytes of a hash in a bucket: more than the rest has bits.
const STORED: usize = 7;
/// What precedes the hashes of one word: tag, epoch, count.
const RUN_HEAD: usize = 5;

/// What a create, or a party A, is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    /// Months since the year 0; 0 where it is unknown.
    pub(super) month: u16,
    pub(super) hash: u64,
}

/// When a leg began and ended, as the body of a webhook has it.
#[derive(Default, Deserialize)]
struct Times<'a> {
    #[serde(default)]
    start_time: &'a str,
    #[serde(default)]
    event_time: &'a str,
}

/// What was last done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    pub(super) tag: Tag,
    /// How often days were deleted on its route before.
    pub(super) epoch: u16,
}

/// How it came to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tag {
    /// It was given up undelivered: as if it had never been there.
    Forgotten,
    Live,
    History,
}

/// What the writer must know of a create to tell whether it was there before.
#[derive(Clone, Debug)]
pub(super) struct Create {
    /// Its route as configured.
    pub(super) sink: RouteId,
    pub(super) tag: Tag,
    /// The day of its `initiated`.
    pub(super) date: Option<Date>,
    /// When what it tells of began.
    pub(super) start: Option<Micros>,
    pub(super) key: Name,
    pub(super) party: Option<Name>,
    /// The same of a call that may be in the next month's.
    pub(super) later: Option<Name>,
}

impl Create {
    /// Of a create, and of a webhook about a leg's end; `None` of anything else.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let Entry { route, party, payload, .. } = entry;
        let (initiated, source, destination) = match payload {
            Payload::Nimbox { initiated, source, destination, .. } => (initiated, source, destination),
            Payload::Webhook { event, body } => return Self::of_webhook(entry, event, body),
        };
        let sink = route.sink();
        let month = month_of(initiated);
        let key = Name { month, hash: hash(&[&sink.0, "key", initiated, source, destination]) };
        let party = party.as_ref().map(|party| Name {
            month: party.epoch().map_or(month, |(seconds, _)| month_of_epoch(seconds)),
            hash: hash(&[&sink.0, "party", party.as_str()]),
        });
        let tag = if route.is_history() { Tag::History } else { Tag::Live };
        let date = initiated.get(..10).and_then(|date| date.parse().ok());
        Some(Self { sink, tag, date, start: None, key, party, later: None })
    }

    /// Live, a webhook is known by its call: of what was told of as it happened nothing is told again
    /// from history, whose legs are known each by its own id.
    fn of_webhook(entry: &Entry, event: &str, body: &str) -> Option<Self> {
        if !matches!(event, "call.missed" | "call.failed" | "call.hangup") {
            return None;
        }
        let sink = entry.route.sink();
        let name = |month, what: &str, id: &str| Name { month, hash: hash(&[&sink.0, what, id]) };
        let Times { start_time, event_time } = serde_json::from_str(body).unwrap_or_default();
        let (begun, ended) = (month_of(start_time), month_of(event_time));
        let call = name(begun, "call", &entry.call.0);
        let (tag, key, party, later) = if entry.route.is_history() {
            let later = (ended != begun).then(|| name(ended, "call", &entry.call.0));
            (Tag::History, name(begun, "leg", &entry.id.0), Some(call), later)
        } else {
            (Tag::Live, call, None, None)
        };
        Some(Self { sink, tag, date: None, start: None, key, party, later })
    }

    /// What is written down of it once it is appended. Only what was sent live is known by its party: a
    /// store's rows are told apart by their keys.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        let party = self.party.filter(|_| self.tag == Tag::Live);
        [Some(self.key), party].into_iter().flatten()
    }
}

impl Name {
    /// Where in its month it stands.
    pub(super) const fn bucket(self) -> u16 {
        (self.hash >> (u64::BITS - BUCKET_BITS)) as u16
    }

    fn stored(self) -> [u8; STORED] {
        let [_, stored @ ..] = self.hash.to_be_bytes();
        stored
    }
}

impl Word {
    pub(super) fn encode(self) -> [u8; 3] {
        let [high, low] = self.epoch.to_be_bytes();
        [self.tag.number(), high, low]
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        Some(Self { tag: Tag::of(read.u8()?)?, epoch: read.u16()? })
    }
}

impl Tag {
    const fn number(self) -> u8 {
        match self {
            Self::Forgotten => 0,
            Self::Live => 1,
            Self::History => 2,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Forgotten),
            1 => Some(Self::Live),
            2 => Some(Self::History),
            _ => None,
        }
    }
}

/// A month as its store is called, `2026-11`.
pub(super) fn month_name(month: u16) -> String {
    format!("{:04}-{:02}", month / 12, month % 12 + 1)
}

/// The month of a text that begins so; 0 where it does not.
pub(super) fn month_of(text: &str) -> u16 {
    let numbers = || {
        let (year, month) = text.get(..7)?.split_once('-')?;
        let (year, month): (u16, u16) = (year.parse().ok()?, month.parse().ok()?);
        if year < 5000 && (1..=12).contains(&month) { Some(year * 12 + month - 1) } else { None }
    };
    numbers().unwrap_or(0)
}

fn month_of_epoch(seconds: u64) -> u16 {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or(0, |time| month_of(&time.strftime("%Y-%m").to_string()))
}

fn hash(parts: &[&str]) -> u64 {
    digest::of_texts(parts).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The names of one bucket: runs of hashes, each run sorted and led by its word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    runs: Vec<(Word, Vec<[u8; STORED]>)>,
}

impl Bucket {
    /// What a record says of a name, without taking it apart.
    pub(super) fn find(record: &[u8], name: Name) -> Option<Word> {
        let wanted = name.stored();
        let mut rest = record;
        while let Some((word, hashes, behind)) = run(rest) {
            if hashes.binary_search(&wanted).is_ok() {
                return Some(word);
            }
            rest = behind;
        }
        None
    }

    /// Reads a record; `None` where it is not one.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let mut bucket = Self::default();
        let mut rest = record;
        while let Some((word, hashes, behind)) = run(rest) {
            bucket.runs.push((word, hashes.to_vec()));
            rest = behind;
        }
        if rest.is_empty() { Some(bucket) } else { None }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        for (word, hashes) in self.runs.iter().filter(|(_, hashes)| !hashes.is_empty()) {
            out.extend_from_slice(&word.encode());
            out.extend_from_slice(&u16::try_from(hashes.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(hashes.as_flattened());
        }
        out
    }

    /// Takes in what was said later of these names. Answers how many found no room: of those that are
    /// full nothing more is learned, and NiMbox will say what exists.
    pub(super) fn merge(&mut self, later: &[(Name, Word)]) -> u64 {
        let mut refused = 0;
        for (name, word) in later {
            let stored = name.stored();
            for (_, hashes) in &mut self.runs {
                if let Ok(at) = hashes.binary_search(&stored) {
                    hashes.remove(at);
                }
            }
            if word.tag == Tag::Forgotten {
                continue;
            }
            let at = self.runs.iter().position(|(known, _)| known == word);
            let more = if at.is_some() { STORED } else { RUN_HEAD + STORED };
            if self.size() + more > PAYLOAD_CAP {
                refused += 1;
                continue;
            }
            let at = at.unwrap_or_else(|| {
                self.runs.push((*word, Vec::new()));
                self.runs.len() - 1
            });
            let hashes = &mut self.runs[at].1;
            if let Err(place) = hashes.binary_search(&stored) {
                hashes.insert(place, stored);
            }
        }
        refused
    }

    /// How many names there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.runs.iter().map(|(_, hashes)| hashes.len()).sum()
    }

    /// Whether the runs are as they were written.
    pub(super) fn is_sorted(&self) -> bool {
        self.runs.iter().all(|(_, hashes)| hashes.is_sorted_by(|one, other| one < other))
    }

    fn size(&self) -> usize {
        self.runs.iter().map(|(_, hashes)| RUN_HEAD + hashes.len() * STORED).sum()
    }
}

/// A run of hashes, its word before it, what follows behind it.
type Run<'a> = (Word, &'a [[u8; STORED]], &'a [u8]);

fn run(bytes: &[u8]) -> Option<Run<'_>> {
    let word = Word::decode(bytes)?;
    let count = usize::from(Reader(bytes.get(3..)?).u16()?);
    let (hashes, behind) = bytes.get(RUN_HEAD..)?.split_at_checked(count * STORED)?;
    let (hashes, _) = hashes.as_chunks();
    Some((word, hashes, behind))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use std::collections::BTreeMap;

    use parsers::Uniqueid;
    use proptest::prelude::*;

    use super::*;
    use crate::calls::{CallKey, UpdateId};

    fn name(hash: u64) -> Name {
        Name { month: 1, hash }
    }

    fn word() -> impl Strategy<Value = Word> {
        (0u8..3, 0u16..3).prop_map(|(tag, epoch)| Word { tag: Tag::of(tag).unwrap(), epoch })
    }

    proptest! {
        #[test]
        fn a_bucket_says_what_was_said_last_of_each_name(
            rounds in prop::collection::vec(prop::collection::vec((0u64..60, word()), 0..40), 0..6),
        ) {
            let mut model = BTreeMap::new();
            let mut record = Vec::new();
            for round in rounds {
                let later: Vec<_> = round.iter().map(|(hash, word)| (name(*hash), *word)).collect();
                let mut bucket = Bucket::decode(&record).unwrap();
                prop_assert_eq!(bucket.merge(&later), 0);
                prop_assert!(bucket.is_sorted());
                record = bucket.encode();
                for (name, word) in later {
                    match word.tag {
                        Tag::Forgotten => model.remove(&name),
                        Tag::Live | Tag::History => model.insert(name, word),
                    };
                }
                prop_assert_eq!(Bucket::decode(&record).unwrap().len(), model.len());
            }
            for hash in 0..60 {
                prop_assert_eq!(Bucket::find(&record, name(hash)), model.get(&name(hash)).copied());
            }
        }

        #[test]
        fn bytes_that_are_no_bucket_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Bucket::find(&bytes, name(7));
            if let Some(bucket) = Bucket::decode(&bytes) {
                prop_assert!(bucket.len() * STORED <= bytes.len());
            }
        }
    }

    #[test]
    fn a_full_bucket_keeps_what_it_has_and_fits_its_record() {
        let word = Word { tag: Tag::Live, epoch: 0 };
        let mut bucket = Bucket::default();
        let all: Vec<_> = (0..3000).map(|hash| (name(hash), word)).collect();
        let refused = bucket.merge(&all);
        let record = bucket.encode();
        assert!(record.len() <= PAYLOAD_CAP && record.len() + 32 > PAYLOAD_CAP, "{}", record.len());
        assert_eq!(bucket.len() as u64 + refused, 3000);
        assert_eq!(Bucket::find(&record, name(0)), Some(word));
        assert_eq!(Bucket::find(&record, name(2999)), None);
        let again: Vec<_> = (0..100).map(|hash| (name(hash), word)).collect();
        assert_eq!(bucket.merge(&again), 0, "what is there already needs no room");
    }

    #[test]
    fn months_are_those_of_their_texts() {
        for text in ["2026-11", "0000-02", "1999-12", "2027-01"] {
            assert_eq!(month_name(month_of(text)), text);
        }
        assert_eq!(month_of("2026-11-21T09:19:27Z"), month_of("2026-11"));
        for text in ["", "x", "2026/11", "2026-13", "2026-00", "99999-1", "é2026-1"] {
            assert_eq!(month_of(text), 0, "{text}");
        }
        assert_eq!(month_of_epoch(1_795_267_167), month_of("2026-11"));
    }

    #[test]
    fn a_create_is_known_by_its_key_and_party_and_by_nothing_else() {
        let route = RouteId("crm".into());
        let payload = |destination: &str, duration| Payload::Nimbox {
            initiated: "2026-11-21T09:19:27Z".to_owned(),
            source: "04145550100".to_owned(),
            destination: destination.to_owned(),
            duration,
            url: None,
        };
        let entry = |route: &RouteId, payload| Entry {
            route: route.clone(),
            id: UpdateId("hq.1.0".into()),
            call: CallKey("call".into()),
            ordered: false,
            party: Some(Uniqueid::new("1795267167.7")),
            payload,
        };
        let of = |route: &RouteId, payload: &Payload| Create::of(&entry(route, payload.clone())).unwrap();
        let one = of(&route, &payload("1001", None));
        let same = of(&route.history(), &payload("1001", Some(9)));
        assert_eq!((one.key, one.party), (same.key, same.party));
        assert_eq!((one.tag, same.tag), (Tag::Live, Tag::History));
        assert_ne!(one.key, of(&route, &payload("1002", None)).key);
        assert_ne!(one.key, of(&RouteId("other".into()), &payload("1001", None)).key);
        assert_eq!(month_name(one.key.month), "2026-11");
        // part of the format: what is on disk must be found again
        insta::assert_snapshot!(format!("{:016x} {:016x}", one.key.hash, one.party.unwrap().hash), @"78771da028ab5a72 aed6e4d5168f3b03");
    }

    #[test]
    fn history_of_a_call_that_was_told_of_live_is_known_by_the_call() {
        let entry = |route: &RouteId, id: &str, event: &str, began: &str| Entry {
            route: route.clone(),
            id: UpdateId(id.into()),
            call: CallKey("call".into()),
            ordered: true,
            party: None,
            payload: Payload::Webhook {
                event: event.to_owned(),
                body: format!(r#"{{"id":"{id}","event_time":"2026-11-01 00:00:40","start_time":"{began}"}}"#),
            },
        };
        let desk = RouteId("desk".into());
        let live = Create::of(&entry(&desk, "hq.1.3", "call.hangup", "2026-11-01 00:00:01")).unwrap();
        let past = |id: &str| {
            let entry = entry(&desk.history(), id, "call.hangup", "2026-10-31 23:59:59");
            Create::of(&entry).unwrap()
        };
        let (one, other) = (past("hq.2.0"), past("hq.3.0"));
        // a row begins with its caller, a leg when its phone is called
        assert_eq!(Some(live.key), one.later);
        assert_eq!(month_name(one.party.unwrap().month), "2026-10");
        assert_ne!(one.key, other.key);
        assert_eq!((live.names().count(), one.names().count()), (1, 1));
        assert_eq!((live.tag, one.tag), (Tag::Live, Tag::History));
        for event in ["call.initial", "call.ringing", "call.connected", "call.hold", "call.dtmf", "test"] {
            let entry = entry(&desk, "hq.1.0", event, "2026-11-01 00:00:01");
            assert!(Create::of(&entry).is_none(), "{event}");
        }
    }
}
