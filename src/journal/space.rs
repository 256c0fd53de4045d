//! How much the journal takes, how much it may take, and what is set aside for the day the disk is
//! full: a file of no use but to be removed, so that the stores can be opened and drained.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Largest ballast.
const BALLAST: u64 = 32 << 20;
/// A generation's file, at most; at most a sixteenth of the limit and of the disk.
const GENERATION: u64 = 256 << 20;
/// … and at least: sled writes in segments of half a megabyte.
const LEAST_GENERATION: u64 = 2 << 20;
/// How often it is measured while commits go on, unless much is written meanwhile.
const EVERY: Duration = Duration::from_millis(250);
/// Bytes on disk for each byte of a payload, until measured again (`delivery.md` 4.1).
const AMPLIFICATION: u64 = 6;

/// The journal's room.
#[derive(Debug)]
pub(super) struct Space {
    directory: PathBuf,
    max: u64,
    /// Of the whole disk, bytes.
    disk: u64,
    measured: Option<Instant>,
    /// Bytes of payload since then.
    written: u64,
    /// Bytes that the outbox and the rest take.
    pub(super) used: u64,
    /// Bytes the disk has left.
    pub(super) available: u64,
    /// Above the mark at which something is given up, until well below it.
    pub(super) pressed: bool,
    ballast: bool,
}

impl Space {
    pub(super) fn new(directory: &Path, max: u64) -> Self {
        let disk = statvfs(directory).map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
        let ballast = ballast_path(directory).exists();
        Self {
            directory: directory.to_owned(),
            max,
            disk,
            measured: None,
            written: 0,
            used: 0,
            available: u64::MAX,
            pressed: false,
            ballast,
        }
    }

    /// Bytes on disk at which a generation is sealed.
    pub(super) fn generation(&self) -> u64 {
        GENERATION.min(self.max / 16).min(self.disk / 16).max(LEAST_GENERATION)
    }

    fn ballast_size(&self) -> u64 {
        BALLAST.min(self.max / 16).min(self.disk / 16)
    }

    /// Measures, unless it was just done. `history`: what lies outside the outbox, as the history's
    /// thread last found it. Answers whether it measured.
    pub(super) fn measure(&mut self, history: u64) -> bool {
        let much = self.growth() > self.max / 128;
        if self.measured.is_some_and(|at| at.elapsed() < EVERY && !much) {
            return false;
        }
        self.measured = Some(Instant::now());
        self.written = 0;
        let ballast = if self.ballast { self.ballast_size() } else { 0 };
        self.used = disk_use(&self.directory.join("outbox")) + history + ballast;
        if let Ok(stat) = statvfs(&self.directory) {
            self.available = stat.f_bavail.saturating_mul(stat.f_frsize);
        }
        let (high, low) = (self.max / 8 * 7, self.max / 16 * 13);
        let reserve = self.reserve();
        self.pressed = if self.pressed {
            self.used > low || self.available < 2 * reserve
        } else {
            self.used > high || self.available < reserve
        };
        true
    }

    /// A batch with so many bytes of payload is being written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// What was written since it was measured may take on disk.
    fn growth(&self) -> u64 {
        self.written.saturating_mul(AMPLIFICATION)
    }

    /// Measures with the next occasion.
    pub(super) fn changed(&mut self) {
        self.measured = None;
    }

    /// The limit itself is near, not only the disk's end.
    pub(super) fn above_limit(&self) -> bool {
        self.used > self.max / 16 * 13
    }

    /// Whether so many bytes may be written for a while to have more room afterwards.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let used = self.used.saturating_add(self.growth()).saturating_add(bytes);
        used <= self.max - self.max / 64 && self.available > self.reserve().saturating_add(bytes)
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.used > self.max / 2
    }

    /// So near the limit, or the disk's end, that something must go at once.
    pub(super) fn urgent(&self) -> bool {
        self.used > self.max / 16 * 15 || self.available < self.reserve()
    }

    /// Why nothing may be appended now, if so.
    pub(super) fn refuses(&self) -> Option<String> {
        if self.used.saturating_add(self.growth()) > self.max - self.max / 32 {
            return Some(format!(
                "it is at its limit, [journal] max_size = {} bytes, and nothing more may be given up",
                self.max
            ));
        }
        (!self.ballast && self.available < self.ballast_size() + self.reserve())
            .then(|| "the disk is full; what is left of it is kept to drain what waits".to_owned())
    }

    /// What the disk should have left before anything is given up for it.
    fn reserve(&self) -> u64 {
        (self.max / 64).min(self.disk / 64).min(16 << 20)
    }

    /// Gives the ballast up: the disk refused.
    pub(super) fn release_ballast(&mut self) {
        self.remove_ballast("the disk is full: the journal's ballast was released");
    }

    /// Near the limit, making room takes room first: what is moved stands in two places for a moment.
    pub(super) fn spend_ballast(&mut self) {
        if self.ballast && self.used > self.max / 16 * 15 {
            self.remove_ballast("the journal is near its limit: its ballast gives room to tidy up");
        }
    }

    fn remove_ballast(&mut self, why: &str) {
        self.ballast = false;
        match fs::remove_file(ballast_path(&self.directory)) {
            Ok(()) => tracing::warn!("{why}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "the journal's ballast cannot be removed"),
        }
        self.changed();
    }

    /// Sets the ballast aside where there is none and there is room.
    pub(super) fn make_ballast(&mut self) {
        let size = self.ballast_size();
        let there = self.available.saturating_sub(size) > 2 * self.reserve();
        if self.ballast || !there || self.used.saturating_add(size) > self.max / 8 * 7 {
            return;
        }
        match write_ballast(&ballast_path(&self.directory), size) {
            Ok(()) => self.ballast = true,
            Err(error) => {
                tracing::warn!(%error, "no ballast can be set aside");
                let _ = fs::remove_file(ballast_path(&self.directory));
            }
        }
        self.changed();
    }
}

/// Whether a reason is that the disk, or the share of it, is full.
pub(super) fn is_full(why: &str) -> bool {
    ["os error 28", "os error 122", "No space left", "StorageFull"].iter().any(|text| why.contains(text))
}

/// Bytes of the files under a directory.
pub(super) fn disk_use(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn ballast_path(directory: &Path) -> PathBuf {
    directory.join("ballast")
}

fn write_ballast(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    // blocks that are really there, not a hole
    if fallocate(&file, FallocateFlags::empty(), 0, size).is_err() {
        io::copy(&mut io::Read::take(io::repeat(0xC7), size), &mut file)?;
    }
    Ok(())
}
