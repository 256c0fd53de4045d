//! How far the journal had come, in one small file beside the stores.
//!
//! sled takes a damaged record at the end of its log for one that was being written when the power
//! went, and goes on without it and without a word. This file knows better: it is one record
//! (`format`), key `witness`, with the head's number and its next sequence, written after each sync
//! and never synced itself. After a power cut it may be behind, or torn; it is never ahead.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{self, Reader};

const KEY: &[u8] = b"witness";

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    /// The head's number.
    pub(super) generation: u64,
    /// The next record's number in it.
    pub(super) sequence: u64,
}

/// The file, kept open.
#[derive(Debug)]
pub(super) struct WitnessFile(File);

impl WitnessFile {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("witness");
        Ok(Self(File::options().create(true).truncate(false).write(true).open(path)?))
    }

    pub(super) fn write(&self, witness: Witness) -> io::Result<()> {
        let mut payload = witness.generation.to_be_bytes().to_vec();
        payload.extend_from_slice(&witness.sequence.to_be_bytes());
        self.0.write_all_at(&format::seal(KEY, &payload), 0)
    }
}

/// What the file says, if it can be trusted.
pub(super) fn read(directory: &Path) -> Option<Witness> {
    let path = directory.join("witness");
    if fs::metadata(&path).ok()?.len() > 64 {
        return None;
    }
    let record = fs::read(path).ok()?;
    let mut read = Reader(format::unseal(KEY, &record).ok()?);
    Some(Witness { generation: read.u64()?, sequence: read.u64()? })
}
