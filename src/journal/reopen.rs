//! After an error: every handle is dropped, the stores are opened again with growing pauses, and a
//! generation that stays unreadable is put aside.

use std::path::Path;
use std::time::{Duration, Instant};

use super::engine::Fault;
use super::head;
use super::space;
use super::witness::{self, WitnessFile};
use super::writer::Writer;

/// Pauses between attempts: the first, and the longest.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// After so many errors of its bytes a generation is put aside.
const STRIKES: u32 = 2;
/// After so many errors of the disk under it alone, too.
const DISK_STRIKES: u32 = 5;

impl Writer {
    /// Whether anything can be read or written now; after an error this is where it is tried again.
    pub(super) fn ready(&mut self) -> Result<(), (u64, Fault)> {
        let Some(why) = self.fault.clone() else { return Ok(()) };
        let head = self.book.head;
        if Instant::now() < self.retry_at {
            return Err((head, Fault::Io(why)));
        }
        self.reload().map_err(|fault| {
            self.put_off(fault.why().to_owned());
            (head, fault)
        })
    }

    /// Drops every handle; what is in memory is not trusted either.
    pub(super) fn fail(&mut self, generation: u64, fault: Fault) {
        if self.fault.is_some() {
            return;
        }
        tracing::error!(generation, why = fault.why(), "the journal failed; it is opened again");
        self.shared.pool.close_all();
        self.put_off(fault.why().to_owned());
        match fault {
            Fault::Damaged(why) => {
                if self.strike(generation) >= STRIKES {
                    self.put_aside(generation, &why);
                }
                self.retry_at = Instant::now();
            }
            // a spot of the disk that cannot be read takes one sealed generation, not the journal
            Fault::Io(why) if is_disk_error(&why) => {
                if generation != self.book.head && self.strike(generation) >= DISK_STRIKES {
                    self.put_aside(generation, &why);
                }
            }
            Fault::Io(why) => {
                if space::is_full(&why) {
                    self.space.release_ballast();
                    self.retry_at = Instant::now();
                }
            }
        }
        let _ = self.ready();
    }

    fn strike(&mut self, generation: u64) -> u32 {
        let strikes = self.strikes.entry(generation).or_default();
        *strikes += 1;
        *strikes
    }

    fn put_off(&mut self, why: String) {
        self.fault = Some(why);
        self.retry_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }

    fn put_aside(&mut self, generation: u64, why: &str) {
        match head::put_aside(&self.shared.pool, generation, &self.shared.quarantine()) {
            Ok(path) => self.was_put_aside(&path, why),
            Err(fault) => tracing::error!(generation, why = fault.why(), "cannot put a generation aside"),
        }
        self.strikes.remove(&generation);
    }

    fn was_put_aside(&mut self, path: &Path, why: &str) {
        self.quarantined += 1;
        tracing::error!(path = %path.display(), why, "a damaged part of the journal was put aside");
    }

    /// Acknowledged records that are gone, though their generation can be read.
    pub(super) fn were_lost(&mut self, generation: u64, records: u64) {
        if records > 0 {
            self.lost += records;
            tracing::error!(generation, records, "records at the end of a generation are lost");
        }
    }

    /// Reads everything again.
    fn reload(&mut self) -> Result<(), Fault> {
        let witness = witness::read(&self.shared.directory);
        let loaded = head::load(&self.shared.pool, &self.shared.quarantine(), witness)?;
        self.witness = WitnessFile::open(&self.shared.directory)?;
        self.were_lost(loaded.book.head, loaded.lost);
        for (path, why) in &loaded.quarantined {
            self.was_put_aside(path, why);
        }
        self.book = loaded.book;
        if loaded.needs_head {
            self.make_head()?;
            self.shared.lost_objects();
        }
        self.removing.clear();
        self.cancel_rewriting();
        self.spared.clear();
        self.space.changed();
        self.windows.clear();
        let book = &self.book;
        self.leases.retain(|at, _| book.generations.contains_key(&book.home(*at)));
        for lease in self.leases.values_mut() {
            lease.settling = false;
        }
        self.fault = None;
        self.finish_moves().map_err(|(_, fault)| fault)?;
        self.salvage_all().map_err(|(_, fault)| fault)?;
        self.shared.wake_all();
        Ok(())
    }
}

fn is_disk_error(why: &str) -> bool {
    why.contains("os error 5)") || why.contains("Input/output error")
}
