//! The journal on disk, format 1.
//!
//! ```text
//! <directory>/lock                     flock; held while a process has the journal
//! <directory>/format                   the text "callpost journal 1\n"; a later format's says its number twice
//! <directory>/witness                  how far the journal had come (`witness.rs`)
//! <directory>/outbox/<number>/         outbox generations, 20 decimal digits, each a sled store
//! <directory>/history/<YYYY-MM-DD>/    history, one sled store a UTC day
//! <directory>/history/<YYYY-MM-DD>.<number>   what that day got from that generation (`seek.rs`)
//! <directory>/keys/<YYYY-MM>/          what is known of delivered creates, one store a month of theirs (`months.rs`)
//! <directory>/quarantine/              stores that would not open, whole
//! ```
//! Every value in every store is a *record*:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | magic `C7 50` |
//! | 1 | version, 1 |
//! | 1 | length of the key |
//! | 4 | length of the payload, little endian |
//! | 4 | CRC32C of all the rest of the record, little endian |
//! | … | the key, the payload |
//!
//! The key is inside so that a record found by its magic in a damaged file still says what it is,
//! and so that a page that answers for another key is noticed. A payload is at most 16 KiB. What
//! says JSON below is JSON: a newer reader gives absent members their default, an older one skips
//! members it does not know. A change that an old reader would misread needs another version.
//!
//! Keys of an outbox generation. All numbers in keys are big endian; times are microseconds.
//!
//! | key | payload |
//! |---|---|
//! | `a` name | what the generation is about: `pbx`; `next`: [`Next`]; `ready`: it became the head; `sealed`: it has a successor |
//! | `r` route:2 | the route's name; a route keeps its number in all generations |
//! | `n` name | a note |
//! | `o` length:1 name part:2 | part of an open object: parts in all, 2 bytes; then its bytes |
//! | `k` call | JSON: the last delivery of an open call on each route, its sequence |
//! | `v` call_id:8 | a live leg: `@` start:8, see `L`; or its last update as JSON when that is of an older generation |
//! | `y` route:2 reason | count, 8 bytes: left out on purpose |
//! | `g` number:8 | JSON: a sealed generation's summary: counters, and whether they are behind |
//! | `f` number:8 | a generation is done with: its directory may be removed |
//! | `w` number:8 | 8 bytes: what waited in a generation was moved into that one |
//! | `Q` route:2 | the counters of generations that are gone |
//! | `q` route:2 | the counters of this generation |
//! | `c` call | the call's number in this generation, 8 bytes |
//! | `R` number:8 `m` seq:8 | AMI messages of the call (`compact.rs`); or packed JSON: one of them |
//! | `R` number:8 `u` seq:8 | packed JSON (`pack.rs`): an update of the call |
//! | `R` number:8 `d` seq:8 | packed JSON (`pack.rs`): a CDR row of the call |
//! | `R` number:8 `l` seq:8 | packed JSON (`pack.rs`): a merger of the call with another one |
//! | `R` number:8 `e` gen:8 seq:8 | a delivery of the call, never changed, moved from that generation where it is another one's: `Callpost-Sequence`:8 accepted:8, packed JSON |
//! | `R` number:8 `s` gen:8 seq:8 | JSON: how its last attempt ended |
//! | `p` route:2 gen:8 seq:8 | [`Pending`]: there while a delivery waits |
//! | `t` route:2 next:8 gen:8 seq:8 | its predecessor, 16 bytes, or nothing; there once it was tried |
//! | `x` gen:8 seq:8 | JSON: a dead letter |
//! | `K` month:2 hash:8 | tag:1 epoch:2, what is known of a create or its party A ([`super::known`]); in its month's store too once the summary says `keys` |
//! | `L` start:8 call_id:8 | number:8 of the leg's call |
//! | `N` length:1 number start:8 call_id:8 | nothing |
//! | `B` key | a bundle: records that never change, the first of them under that key (`bundle.rs`) |
//!
//! What belongs to one call stands together, calls in order of their first record: appends go to
//! the end of the store, and archiving or tracing a call is one short scan.
//!
//! Keys of a history day ([`super::day`]): `H` gen:8 number:4, a bundle of calls; `I` newest:8 gen:8
//! number:4, what can be found in it.
//!
//! Keys of a month: `h` bucket:2, the first 12 bits of a hash, 4,096 in all. A payload is runs of hashes
//! that have the same word, each: tag:1 (1 live, 2 history; 0, forgotten, stands in generations alone),
//! epoch:2 (how often days were deleted on the route before), count:2, and so many times the last 7 bytes
//! of a hash, sorted. A hash is the first 8 bytes of SHA-256 over texts, each ended by a 0: the sink's
//! name, `key`, `initiated`, source, destination; or the sink's name, `party`, party A's uniqueid. Its
//! month is that of `initiated`; a party's, in UTC, that of its uniqueid where it holds a time.

use parsers::Micros;

use super::known::Name;
use super::types::{Counters, DeliveryKey};
use crate::calls::CallKey;

/// Largest payload of a record; sled moves page images above about 128 KiB to files of their own.
pub(super) const PAYLOAD_CAP: usize = 16 * 1024;
/// Bytes of an open object in one record.
pub(super) const OBJECT_PART: usize = 4 * 1024;
/// The content of `format`.
pub(super) const FORMAT: &str = "callpost journal 1\n";

/// What every record begins with.
pub(super) const MAGIC: [u8; 2] = [0xC7, 0x50];
const VERSION: u8 = 1;
const HEADER: usize = 12;

/// A record that cannot be trusted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) &'static str);

/// A payload as a record under this key. Keys are at most 255 bytes: their makers see to it.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + key.len() + payload.len());
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
    let crc = checksum(&out);
    out[8..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The payload of the record under this key.
pub(super) fn unseal<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let header = record.get(..HEADER).ok_or(Damaged("shorter than a header"))?;
    if header[..2] != MAGIC {
        return Err(Damaged("no magic"));
    }
    if header[2] != VERSION {
        return Err(Damaged("another version"));
    }
    let key_len = usize::from(header[3]);
    let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let crc = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if usize::try_from(len).ok().and_then(|len| len.checked_add(HEADER + key_len)) != Some(record.len()) {
        return Err(Damaged("another length"));
    }
    if checksum(record) != crc {
        return Err(Damaged("another checksum"));
    }
    if record[HEADER..HEADER + key_len] != *key {
        return Err(Damaged("another key"));
    }
    Ok(&record[HEADER + key_len..])
}

/// The record that these bytes begin with: its key, its payload, its length.
pub(super) fn record_at(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let header = bytes.get(..HEADER)?;
    let key_len = usize::from(header[3]);
    let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let length = usize::try_from(len).ok()?.checked_add(HEADER + key_len)?;
    let record = bytes.get(..length)?;
    let key = &record[HEADER..HEADER + key_len];
    Some((key, unseal(key, record).ok()?, length))
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..8]), &record[HEADER..])
}

/// How far the head generation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// The next record's number; the first is 1.
    pub(super) sequence: u64,
    /// The next call's number; the first is 1.
    pub(super) call: u64,
    /// Payload bytes appended.
    pub(super) bytes: u64,
    /// When the generation was made.
    pub(super) created: i64,
}

impl Next {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        for word in [self.sequence, self.call, self.bytes] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.created.to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        Some(Self { sequence: read.u64()?, call: read.u64()?, bytes: read.u64()?, created: read.i64()? })
    }
}

/// The changing state of a delivery that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Attempts that counted.
    pub(super) attempts: u32,
    /// When it is due; 0 before its first attempt.
    pub(super) next: i64,
    /// When it was appended.
    pub(super) accepted: i64,
    /// Its call's number in its generation.
    pub(super) call: u64,
    /// The delivery of the same call on the same route that must be settled first.
    pub(super) before: Option<DeliveryKey>,
}

impl Pending {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(44);
        out.extend_from_slice(&self.attempts.to_be_bytes());
        out.extend_from_slice(&self.next.to_be_bytes());
        out.extend_from_slice(&self.accepted.to_be_bytes());
        out.extend_from_slice(&self.call.to_be_bytes());
        out.extend_from_slice(&encode_before(self.before));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        Some(Self {
            attempts: read.u32()?,
            next: read.i64()?,
            accepted: read.i64()?,
            call: read.u64()?,
            before: decode_before(read.0),
        })
    }
}

/// The value of a `t` record.
pub(super) fn encode_before(before: Option<DeliveryKey>) -> Vec<u8> {
    before.map_or_else(Vec::new, |key| delivery_bytes(key).to_vec())
}

/// Reads the value of a `t` record.
pub(super) fn decode_before(bytes: &[u8]) -> Option<DeliveryKey> {
    let mut read = Reader(bytes);
    Some(DeliveryKey { generation: read.u64()?, sequence: read.u64()? })
}

/// Counters as six numbers in the order of their fields.
pub(super) fn encode_counters(counters: &Counters) -> Vec<u8> {
    let c = counters;
    [c.accepted, c.delivered, c.pending, c.dead, c.refused, c.dropped]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// Reads counters.
pub(super) fn decode_counters(bytes: &[u8]) -> Option<Counters> {
    let mut read = Reader(bytes);
    Some(Counters {
        accepted: read.u64()?,
        delivered: read.u64()?,
        pending: read.u64()?,
        dead: read.u64()?,
        refused: read.u64()?,
        dropped: read.u64()?,
    })
}

/// Takes big-endian numbers off the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

/// Kinds of records of a call.
pub(super) mod kind {
    pub(in crate::journal) const MESSAGE: u8 = b'm';
    pub(in crate::journal) const UPDATE: u8 = b'u';
    pub(in crate::journal) const CDR: u8 = b'd';
    pub(in crate::journal) const MERGER: u8 = b'l';
    pub(in crate::journal) const ENTRY: u8 = b'e';
    pub(in crate::journal) const OUTCOME: u8 = b's';
}

/// The keys of the table above.
pub(super) mod key {
    use super::{CallKey, DeliveryKey, Micros, Name, delivery_bytes};

    pub(in crate::journal) const ROUTE: u8 = b'r';
    pub(in crate::journal) const NOTE: u8 = b'n';
    pub(in crate::journal) const OBJECT: u8 = b'o';
    pub(in crate::journal) const CHAIN: u8 = b'k';
    pub(in crate::journal) const LIVE: u8 = b'v';
    pub(in crate::journal) const SKIPPED: u8 = b'y';
    pub(in crate::journal) const SUMMARY: u8 = b'g';
    pub(in crate::journal) const FOLDED: u8 = b'f';
    pub(in crate::journal) const MOVED: u8 = b'w';
    pub(in crate::journal) const CARRIED: u8 = b'Q';
    pub(in crate::journal) const COUNTERS: u8 = b'q';
    pub(in crate::journal) const CALL: u8 = b'c';
    pub(in crate::journal) const RECORD: u8 = b'R';
    pub(in crate::journal) const PENDING: u8 = b'p';
    pub(in crate::journal) const DUE: u8 = b't';
    pub(in crate::journal) const DEAD: u8 = b'x';
    pub(in crate::journal) const KNOWN: u8 = b'K';
    pub(in crate::journal) const BUCKET: u8 = b'h';
    pub(in crate::journal) const LEG: u8 = b'L';
    pub(in crate::journal) const NUMBER: u8 = b'N';
    pub(in crate::journal) const PAST: u8 = b'H';
    pub(in crate::journal) const PAST_INDEX: u8 = b'I';
    pub(in crate::journal) const BUNDLE: u8 = b'B';

    /// Longest number that is indexed; longer ones are cut.
    const NUMBER_CAP: usize = 64;

    /// The first key behind this one.
    pub(in crate::journal) fn behind(key: &[u8]) -> Vec<u8> {
        [key, &[0]].concat()
    }

    fn join(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        out.push(prefix);
        for part in parts {
            out.extend_from_slice(part);
        }
        out
    }

    pub(in crate::journal) fn about(name: &str) -> Vec<u8> {
        join(b'a', &[name.as_bytes()])
    }

    pub(in crate::journal) fn route(prefix: u8, route: u16) -> Vec<u8> {
        join(prefix, &[&route.to_be_bytes()])
    }

    pub(in crate::journal) fn note(name: &str) -> Vec<u8> {
        join(NOTE, &[name.as_bytes()])
    }

    pub(in crate::journal) fn bundle(first: &[u8]) -> Vec<u8> {
        join(BUNDLE, &[first])
    }

    /// The first key behind all that begin so; `None` where there is none.
    pub(in crate::journal) fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
        let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
        let mut out = prefix[..=last].to_vec();
        out[last] += 1;
        Some(out)
    }

    /// All parts of an object share this.
    pub(in crate::journal) fn object(name: &str) -> Vec<u8> {
        join(OBJECT, &[&[u8::try_from(name.len()).unwrap_or(u8::MAX)], name.as_bytes()])
    }

    pub(in crate::journal) fn object_part(name: &str, part: u16) -> Vec<u8> {
        let mut out = object(name);
        out.extend_from_slice(&part.to_be_bytes());
        out
    }

    pub(in crate::journal) fn of_call(prefix: u8, call: &CallKey) -> Vec<u8> {
        join(prefix, &[call.0.as_bytes()])
    }

    pub(in crate::journal) fn live(call_id: u64) -> Vec<u8> {
        join(LIVE, &[&call_id.to_be_bytes()])
    }

    pub(in crate::journal) fn moved(generation: u64) -> Vec<u8> {
        join(MOVED, &[&generation.to_be_bytes()])
    }

    pub(in crate::journal) fn skipped(route: u16, reason: &str) -> Vec<u8> {
        join(SKIPPED, &[&route.to_be_bytes(), reason.as_bytes()])
    }

    pub(in crate::journal) fn summary(generation: u64) -> Vec<u8> {
        join(SUMMARY, &[&generation.to_be_bytes()])
    }

    pub(in crate::journal) fn folded(generation: u64) -> Vec<u8> {
        join(FOLDED, &[&generation.to_be_bytes()])
    }

    /// All records of a call.
    pub(in crate::journal) fn records(call: u64) -> Vec<u8> {
        join(RECORD, &[&call.to_be_bytes()])
    }

    pub(in crate::journal) fn records_of(call: u64, kind: u8) -> Vec<u8> {
        join(RECORD, &[&call.to_be_bytes(), &[kind]])
    }

    pub(in crate::journal) fn record(call: u64, kind: u8, sequence: u64) -> Vec<u8> {
        join(RECORD, &[&call.to_be_bytes(), &[kind], &sequence.to_be_bytes()])
    }

    pub(in crate::journal) fn delivery(call: u64, kind: u8, at: DeliveryKey) -> Vec<u8> {
        join(RECORD, &[&call.to_be_bytes(), &[kind], &delivery_bytes(at)])
    }

    pub(in crate::journal) fn pending(route: u16, at: DeliveryKey) -> Vec<u8> {
        join(PENDING, &[&route.to_be_bytes(), &delivery_bytes(at)])
    }

    /// Times before 1970 count as 1970.
    pub(in crate::journal) fn due(route: u16, next: i64, at: DeliveryKey) -> Vec<u8> {
        join(DUE, &[&route.to_be_bytes(), &next.max(0).to_be_bytes(), &delivery_bytes(at)])
    }

    pub(in crate::journal) fn dead(at: DeliveryKey) -> Vec<u8> {
        join(DEAD, &[&delivery_bytes(at)])
    }

    pub(in crate::journal) fn known(name: Name) -> Vec<u8> {
        join(KNOWN, &[&name.month.to_be_bytes(), &name.hash.to_be_bytes()])
    }

    pub(in crate::journal) fn bucket(bucket: u16) -> Vec<u8> {
        join(BUCKET, &[&bucket.to_be_bytes()])
    }

    pub(in crate::journal) fn leg(start: Micros, call_id: u64) -> Vec<u8> {
        join(LEG, &[&start.0.max(0).to_be_bytes(), &call_id.to_be_bytes()])
    }

    pub(in crate::journal) fn number(number: &str) -> Vec<u8> {
        let bytes = &number.as_bytes()[..number.len().min(NUMBER_CAP)];
        join(NUMBER, &[&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)], bytes])
    }

    pub(in crate::journal) fn number_of(number_: &str, start: Micros, call_id: u64) -> Vec<u8> {
        let mut out = number(number_);
        out.extend_from_slice(&start.0.max(0).to_be_bytes());
        out.extend_from_slice(&call_id.to_be_bytes());
        out
    }

    pub(in crate::journal) fn past(generation: u64, number: u32) -> Vec<u8> {
        join(PAST, &[&generation.to_be_bytes(), &number.to_be_bytes()])
    }

    /// Times before 1970 count as 1970.
    pub(in crate::journal) fn past_index(newest: i64, generation: u64, number: u32) -> Vec<u8> {
        join(PAST_INDEX, &[&newest.max(0).to_be_bytes(), &generation.to_be_bytes(), &number.to_be_bytes()])
    }
}

/// A delivery's place as it stands in keys.
pub(super) fn delivery_bytes(at: DeliveryKey) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&at.generation.to_be_bytes());
    out[8..].copy_from_slice(&at.sequence.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_gives_back_its_payload_and_nothing_else(
            key in prop::collection::vec(any::<u8>(), 0..200),
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            place in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let record = seal(&key, &payload);
            prop_assert_eq!(unseal(&key, &record), Ok(payload.as_slice()));
            let mut flipped = record.clone();
            let at = place.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(unseal(&key, &flipped).is_err());
            prop_assert!(unseal(&key, &record[..at]).is_err());
            let mut other = key.clone();
            other.push(0);
            prop_assert!(unseal(&other, &record).is_err());
        }

        #[test]
        fn pending_state_comes_back(attempts: u32, next: i64, accepted: i64, call: u64, before: Option<(u64, u64)>) {
            let before = before.map(|(generation, sequence)| DeliveryKey { generation, sequence });
            let state = Pending { attempts, next, accepted, call, before };
            prop_assert_eq!(Pending::decode(&state.encode()), Some(state));
        }
    }
}
