//! JSON made smaller: what waits for days in the outbox takes half the disk.
//!
//! A packed value is the JSON itself, which begins with `{`, or a 1 and the JSON deflated, whichever
//! is shorter.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, FlushCompress, Status};

use super::compact;
use super::format::PAYLOAD_CAP;
use super::types::TraceMessage;

const DEFLATED: u8 = 1;
/// Shorter values are not worth the time.
const WORTHWHILE: usize = 160;
/// What a packed value may grow to: a record's payload was held to its limit before it was packed.
const UNPACKED_CAP: u64 = 4 * PAYLOAD_CAP as u64;

/// Packs JSON.
pub(super) fn pack(json: Vec<u8>) -> Vec<u8> {
    if json.len() < WORTHWHILE {
        return json;
    }
    // making a new one costs more than what it does
    static DEFLATER: Mutex<Option<Compress>> = Mutex::new(None);
    let mut deflater = DEFLATER.lock().unwrap_or_else(PoisonError::into_inner);
    let deflater = deflater.get_or_insert_with(|| Compress::new(Compression::fast(), false));
    deflater.reset();
    let mut packed = Vec::with_capacity(json.len());
    packed.push(DEFLATED);
    // it fills the room there is, and no more
    match deflater.compress_vec(&json, &mut packed, FlushCompress::Finish) {
        Ok(Status::StreamEnd) if packed.len() < json.len() => packed,
        Ok(_) | Err(_) => json,
    }
}

/// The AMI messages of a record, in order.
pub(super) fn messages(record: &[u8]) -> Vec<TraceMessage> {
    match record.first() {
        Some(&compact::COMPACT) => compact::read(record),
        Some(_) | None => read(record).into_iter().collect(),
    }
}

/// The JSON of a packed value; `None` where it cannot be inflated.
pub(super) fn unpack(packed: &[u8]) -> Option<Cow<'_, [u8]>> {
    match packed.split_first() {
        Some((&DEFLATED, deflated)) => inflate(deflated, UNPACKED_CAP).map(Cow::Owned),
        Some(_) | None => Some(Cow::Borrowed(packed)),
    }
}

/// A value from packed JSON.
pub(super) fn read<T: serde::de::DeserializeOwned>(packed: &[u8]) -> Option<T> {
    serde_json::from_slice(&unpack(packed)?).ok()
}

/// Deflates, from 1 (fast) to 9 (small).
pub(super) fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    // writing into memory does not fail
    written.unwrap_or_default()
}

/// Inflates, to at most so many bytes.
pub(super) fn inflate(bytes: &[u8], cap: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).take(cap).read_to_end(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(text in ".{0,600}") {
            let json = format!("{{\"text\":{text:?}}}").into_bytes();
            let packed = pack(json.clone());
            prop_assert!(packed.len() <= json.len());
            let unpacked = unpack(&packed).map(Cow::into_owned);
            prop_assert_eq!(unpacked, Some(json));
        }
    }
}
