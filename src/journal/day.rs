//! What a day's store holds: the lines of many calls in one bundle, and beside each bundle a small
//! record of what can be found in it. A day of a hundred thousand calls is a few thousand records: sled
//! keeps some hundreds of bytes in memory for every sixteen of them, as long as the store is open.
//!
//! A bundle (`bundle.rs`) stands under `H`, its generation and its number. The records in it: `c` call 0
//! generation:8 part:2, lines of a call, each a letter, JSON and a line feed ([`super::archive`]); `L`
//! start:8 call_id:8, the last update of a leg that began on this day, its call on another. Beside it,
//! under `I`, when its newest leg began, generation and number: when its oldest leg began:8, and a
//! sorted 4-byte hash of each call, `call_id` and number in it.

use super::bundle::{self, Bundle};
use super::engine::{Fault, Store};
use super::format::{Reader, key};
use super::seek::Token;

/// Bytes put into one bundle, before they are deflated.
const RAW: usize = 32 * 1024;
/// How small they are made.
const LEVEL: u32 = 6;

/// What goes into a bundle together: some lines of a call, or a leg.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) tokens: Vec<Token>,
    /// When its oldest and its newest leg began, microseconds.
    pub(super) span: (i64, i64),
}

/// Gathers what a day gets from one generation.
#[derive(Debug)]
pub(super) struct Packer {
    generation: u64,
    number: u32,
    pieces: Vec<Piece>,
    bytes: usize,
}

/// A key and its payload.
pub(super) type Record = (Vec<u8>, Vec<u8>);

impl Packer {
    pub(super) const fn new(generation: u64) -> Self {
        Self { generation, number: 0, pieces: Vec::new(), bytes: 0 }
    }

    /// Takes one in; answers records that are ready to be written.
    pub(super) fn add(&mut self, piece: Piece) -> Vec<Record> {
        self.bytes += piece.key.len() + piece.payload.len();
        self.pieces.push(piece);
        if self.bytes < RAW { Vec::new() } else { self.finish() }
    }

    /// What is left.
    pub(super) fn finish(&mut self) -> Vec<Record> {
        self.bytes = 0;
        let pieces = std::mem::take(&mut self.pieces);
        let mut made = Vec::new();
        bundle::fitting(&pieces, LEVEL, |piece| (&piece.key, &piece.payload), &mut |pieces, deflated| {
            let number = self.number;
            self.number += 1;
            made.push((key::past(self.generation, number), deflated));
            made.push(index(pieces, self.generation, number));
        });
        made
    }
}

/// What can be found in a bundle.
fn index(pieces: &[Piece], generation: u64, number: u32) -> Record {
    let oldest = pieces.iter().map(|piece| piece.span.0).min().unwrap_or(0);
    let newest = pieces.iter().map(|piece| piece.span.1).max().unwrap_or(0);
    let mut hashes: Vec<[u8; 4]> =
        pieces.iter().flat_map(|piece| &piece.tokens).map(|token| token.short()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let found = [oldest.to_be_bytes().as_slice(), hashes.as_flattened()].concat();
    (key::past_index(newest, generation, number), found)
}

/// A bundle, as its index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) generation: u64,
    number: u32,
    /// When its oldest leg began, microseconds.
    pub(super) oldest: i64,
    /// When its newest leg began, microseconds.
    pub(super) newest: i64,
}

impl Place {
    fn read(key: &[u8], index: &[u8]) -> Option<Self> {
        let mut read = Reader(key.get(1..)?);
        let (newest, generation, number) = (read.i64()?, read.u64()?, read.u32()?);
        Some(Self { generation, number, oldest: Reader(index).i64()?, newest })
    }

    /// What is in it; `None` where it cannot be read.
    pub(super) fn load(&self, store: &Store) -> Result<Option<Bundle>, Fault> {
        let payload = store.get(&key::past(self.generation, self.number))?;
        Ok(payload.and_then(Result::ok).and_then(|payload| Bundle::read(&payload)))
    }
}

/// Visits bundles that can hold all of these and have legs that began at `from` or later, those with
/// the newest legs first, until `visit` answers false.
pub(super) fn newest_first(
    store: &Store,
    from: i64,
    wanted: &[Token],
    mut visit: impl FnMut(Place) -> bool,
) -> Result<(), Fault> {
    each(store, from, |place, holds| !wanted.iter().all(holds) || visit(place))
}

/// The bundles that can hold one of these, in the order in which they were written.
pub(super) fn holding(store: &Store, wanted: &[Token]) -> Result<Vec<Place>, Fault> {
    let mut places = Vec::new();
    each(store, 0, |place, holds| {
        if wanted.iter().any(holds) {
            places.push(place);
        }
        true
    })?;
    places.sort_unstable();
    Ok(places)
}

/// Every bundle with what it can hold, newest legs first, until `visit` answers false.
fn each(
    store: &Store,
    from: i64,
    mut visit: impl FnMut(Place, &dyn Fn(&Token) -> bool) -> bool,
) -> Result<(), Fault> {
    store.range_back(&key::past_index(from, 0, 0), &[key::PAST_INDEX + 1], |key, index| {
        let Ok(index) = index else { return true };
        let Some(place) = Place::read(key, &index) else { return true };
        let hashes = index.get(8..).unwrap_or_default().as_chunks::<4>().0;
        visit(place, &|token| hashes.binary_search(&token.short()).is_ok())
    })
}

/// The lines of a run, each as its letter and its JSON.
pub(super) fn lines(run: &[u8], mut visit: impl FnMut(u8, &[u8])) {
    for line in run.split(|byte| *byte == b'\n') {
        if let Some((letter, json)) = line.split_first() {
            visit(*letter, json);
        }
    }
}

/// Which bundle the key of one, or of its index, means.
pub(super) fn place_of(key: &[u8]) -> Option<(u64, u32)> {
    let mut read = Reader(key.get(if key.first() == Some(&key::PAST) { 1 } else { 9 }..)?);
    Some((read.u64()?, read.u32()?))
}
