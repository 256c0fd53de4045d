//! Which history days can hold a number, a `call_id` or a call: one small file for each day and
//! generation, so that a search opens only the days that matter.
//!
//! A file is the magic `CPS1`, the CRC32C of what follows (4 bytes, little endian), and a Bloom
//! filter of ten bits a token, seven of them set by each. It is a hint: a day whose files are
//! missing or damaged is simply opened. Written before the generation is removed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::engine::{Fault, sync_directory};
use super::format::key;
use crate::calls::CallKey;

const MAGIC: &[u8; 4] = b"CPS1";
const BITS_PER_TOKEN: usize = 10;
const HASHES: u64 = 7;
/// A file above this was not written here.
const FILE_CAP: u64 = 16 << 20;

/// What can be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Token(u64, u64);

impl Token {
    pub(super) fn number(number: &str) -> Self {
        Self::of(&key::number(number))
    }

    pub(super) fn call_id(call_id: u64) -> Self {
        Self::of(&[b"I", call_id.to_be_bytes().as_slice()].concat())
    }

    pub(super) fn call(call: &CallKey) -> Self {
        Self::of(&key::of_call(key::CALL, call))
    }

    fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        let word = |at: usize| hash[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self(word(0), word(8) | 1)
    }

    /// A hash of it that tells the few thousand in one place from each other.
    pub(super) const fn short(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        [a, b, c, d]
    }

    fn bits(self, size: u64) -> impl Iterator<Item = (usize, u8)> {
        (0..HASHES).map(move |index| {
            let bit = self.0.wrapping_add(self.1.wrapping_mul(index)) % size;
            (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
        })
    }
}

/// Writes the file of a day and generation, durably.
pub(super) fn write(history: &Path, day: &str, generation: u64, mut tokens: Vec<Token>) -> Result<(), Fault> {
    tokens.sort_unstable();
    tokens.dedup();
    let mut filter = vec![0u8; (tokens.len() * BITS_PER_TOKEN).div_ceil(8).max(8)];
    let size = filter.len() as u64 * 8;
    for token in tokens {
        for (byte, bit) in token.bits(size) {
            filter[byte] |= bit;
        }
    }
    let path = path(history, day, generation);
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32c::crc32c(&filter).to_le_bytes())?;
    file.write_all(&filter)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    sync_directory(history)
}

/// Whether the day can hold it.
pub(super) fn may_hold(history: &Path, day: &str, token: Token) -> bool {
    let Ok(files) = files(history, day) else { return true };
    files.is_empty() || files.iter().any(|path| read(path).is_none_or(|filter| holds(&filter, token)))
}

/// Removes a day's files.
pub(super) fn remove(history: &Path, day: &str) -> Result<(), Fault> {
    for path in files(history, day)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn path(history: &Path, day: &str, generation: u64) -> PathBuf {
    history.join(format!("{day}.{}", super::pool::directory_name(generation)))
}

fn files(history: &Path, day: &str) -> Result<Vec<PathBuf>, Fault> {
    let mut found = Vec::new();
    for entry in fs::read_dir(history)? {
        let entry = entry?;
        let name = entry.file_name();
        let generation = name.to_str().and_then(|name| name.strip_prefix(day)?.strip_prefix('.'));
        if generation.and_then(super::pool::generation_of).is_some() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > FILE_CAP {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, filter) = rest.split_first_chunk::<4>()?;
    let whole = magic == MAGIC && !filter.is_empty() && crc32c::crc32c(filter) == u32::from_le_bytes(*crc);
    whole.then(|| filter.to_vec())
}

fn holds(filter: &[u8], token: Token) -> bool {
    token.bits(filter.len() as u64 * 8).all(|(byte, bit)| filter[byte] & bit != 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_day_is_passed_over_only_when_it_cannot_hold_the_number() {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path();
        let there = |number: u32| Token::number(&format!("0212555{number:04}"));
        write(history, "2026-01-02", 7, (0..1000).map(there).collect()).unwrap();
        assert!((0..1000).all(|number| may_hold(history, "2026-01-02", there(number))));
        let wrong = (1000..9000).filter(|number| may_hold(history, "2026-01-02", there(*number))).count();
        assert!(wrong < 160, "{wrong} of 8000 days opened in vain");
        assert!(may_hold(history, "2026-01-03", there(1)), "a day without files must be opened");

        let file = path(history, "2026-01-02", 7);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(may_hold(history, "2026-01-02", there(8999)), "a damaged file says nothing");
    }
}
