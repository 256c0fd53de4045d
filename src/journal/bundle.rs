//! Records of a sealed generation that will never change, many in one: what waits for days takes a
//! fraction of the disk then ([`super::rewrite`]).
//!
//! A bundle is a record under `B` and the key of the first record in it. Its payload is deflated: for
//! each record its key's length:1, its key, its payload's length:4, its payload, in order of keys. JSON
//! in there is not packed once more: what repeats from record to record costs next to nothing.

use super::format::{PAYLOAD_CAP, Reader, key, kind};
use super::pack::{self, deflate, inflate};

/// Bytes put into one bundle, before they are deflated.
const RAW: usize = 32 * 1024;
/// Largest deflated: sled keeps sixteen of them in a page, and pages above 128 KiB in files of their own.
const STORED: usize = 7 * 1024;
/// How small they are made.
const LEVEL: u32 = 4;
/// What a bundle may grow to when it is read.
const RAW_CAP: u64 = 4 * RAW as u64;
/// What precedes the packed JSON of a delivery.
const ENTRY_HEAD: usize = super::encode::ENTRY_HEAD;

/// Whether a record never changes once its generation has a successor.
pub(super) fn takes(key: &[u8]) -> bool {
    match key.first() {
        Some(&(key::CALL | key::LEG | key::NUMBER)) => true,
        Some(&key::RECORD) => {
            let kinds = [kind::MESSAGE, kind::UPDATE, kind::CDR, kind::MERGER, kind::ENTRY];
            key.get(9).is_some_and(|kind| kinds.contains(kind))
        }
        Some(_) | None => false,
    }
}

/// Whether records from one key to another can be in bundles.
pub(super) fn spans(from: &[u8], to: &[u8]) -> bool {
    [key::CALL, key::LEG, key::NUMBER, key::RECORD]
        .iter()
        .any(|prefix| from.first().is_none_or(|first| first <= prefix) && [*prefix].as_slice() < to)
}

/// Gathers records, in order of their keys, into bundles.
#[derive(Debug, Default)]
pub(super) struct Bundler {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Bundler {
    /// Takes a record in; answers bundles that are full, each with its key.
    pub(super) fn add(&mut self, key: &[u8], payload: Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let payload = unpacked(key, payload);
        self.bytes += 5 + key.len() + payload.len();
        self.records.push((key.to_vec(), payload));
        if self.bytes < RAW { Vec::new() } else { self.finish() }
    }

    /// What is left.
    pub(super) fn finish(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        let mut made = Vec::new();
        fitting(&records, LEVEL, |(key, payload)| (key, payload), &mut |records, deflated| {
            let Some((first, alone)) = records.first() else { return };
            made.push(if deflated.len() > PAYLOAD_CAP {
                // noise: it stands as it was
                (first.clone(), alone.clone())
            } else {
                (key::bundle(first), deflated)
            });
        });
        made
    }
}

/// Deflates records into as few bundles as stay small, in their order: `made` gets the records of each.
pub(super) fn fitting<T>(
    records: &[T],
    level: u32,
    fields: impl Fn(&T) -> (&[u8], &[u8]) + Copy,
    made: &mut impl FnMut(&[T], Vec<u8>),
) {
    if records.is_empty() {
        return;
    }
    let deflated = deflate(&raw(records.iter().map(fields)), level);
    if records.len() > 1 && deflated.len() > STORED {
        let (one, other) = records.split_at(records.len() / 2);
        fitting(one, level, fields, made);
        fitting(other, level, fields, made);
    } else {
        made(records, deflated);
    }
}

/// A bundle of these, before it is deflated.
fn raw<'a>(records: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut raw = Vec::new();
    for (key, payload) in records {
        raw.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        raw.extend_from_slice(key);
        raw.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        raw.extend_from_slice(payload);
    }
    raw
}

/// JSON that was packed alone is packed with the others.
fn unpacked(key: &[u8], payload: Vec<u8>) -> Vec<u8> {
    let head = match key.get(9) {
        Some(&kind::ENTRY) => ENTRY_HEAD,
        Some(&(kind::UPDATE | kind::CDR | kind::MERGER)) => 0,
        Some(_) | None => return payload,
    };
    if key[0] != key::RECORD {
        return payload;
    }
    let Some((head, packed)) = payload.split_at_checked(head) else { return payload };
    match pack::unpack(packed) {
        Some(json) if json.len() + ENTRY_HEAD <= PAYLOAD_CAP => [head, &*json].concat(),
        Some(_) | None => payload,
    }
}

/// A bundle that was read.
#[derive(Debug)]
pub(super) struct Bundle {
    raw: Vec<u8>,
    /// Where each key begins and ends, and where its payload ends.
    places: Vec<[usize; 3]>,
}

impl Bundle {
    /// Reads a bundle; `None` where it makes no sense.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let raw = inflate(payload, RAW_CAP)?;
        let mut places = Vec::new();
        let mut at = 0;
        while at < raw.len() {
            let begin = at + 1;
            let end = begin + usize::from(raw[at]);
            let length = Reader(raw.get(end..)?).u32()?;
            at = end.checked_add(4)?.checked_add(usize::try_from(length).ok()?)?;
            places.push([begin, end, at]);
        }
        (at == raw.len()).then_some(Self { raw, places })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The record at a place: key and payload.
    pub(super) fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        let [begin, end, last] = *self.places.get(place)?;
        Some((&self.raw[begin..end], &self.raw[end + 4..last]))
    }

    /// Its records, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).filter_map(|place| self.at(place))
    }

    /// The record under this key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.places.binary_search_by(|[begin, end, _]| self.raw[*begin..*end].cmp(key)).ok()?;
        self.at(found).map(|(_, payload)| payload)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back_from_bundles_that_stay_small(
            lengths in prop::collection::vec((0usize..16_000, any::<bool>()), 1..40),
        ) {
            let mut bundler = Bundler::default();
            let mut expected = BTreeMap::new();
            let mut made = Vec::new();
            let mut noise = 1u32;
            for (number, (length, noisy)) in (0u64..).zip(lengths) {
                let key = key::record(number, kind::MESSAGE, number);
                let payload: Vec<u8> = (0..length)
                    .map(|at| {
                        noise = crc32c::crc32c(&noise.to_le_bytes());
                        if noisy { noise.to_le_bytes()[0] } else { u8::try_from(at % 7).unwrap() }
                    })
                    .collect();
                made.extend(bundler.add(&key, payload.clone()));
                expected.insert(key, payload);
            }
            made.extend(bundler.finish());
            let mut found = BTreeMap::new();
            for (key, payload) in made {
                prop_assert!(payload.len() <= PAYLOAD_CAP);
                if key[0] != key::BUNDLE {
                    found.insert(key, payload);
                    continue;
                }
                let bundle = Bundle::read(&payload).unwrap();
                prop_assert!(bundle.len() == 1 || payload.len() <= STORED);
                prop_assert_eq!(bundle.at(0).unwrap().0, &key[1..]);
                for (key, payload) in (0..bundle.len()).map(|place| bundle.at(place).unwrap()) {
                    prop_assert_eq!(bundle.get(key), Some(payload));
                    found.insert(key.to_vec(), payload.to_vec());
                }
                prop_assert_eq!(bundle.get(&[]), None);
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(bundle) = Bundle::read(&deflate(&bytes, 1)) {
                let sum: usize = (0..bundle.len()).map(|place| bundle.at(place).unwrap().1.len() + 5).sum();
                prop_assert!(sum <= bytes.len());
            }
        }
    }
}
