//! What becomes of generations: a full head is sealed and has a successor, what a sealed one knows of
//! creates goes into their months, and one that is settled becomes history.

use std::time::{Duration, Instant};

use super::answer::Faulty;
use super::book::Generation;
use super::command::ArchiveFault;
use super::engine::Fault;
use super::head;
use super::history::Job;
use super::kill_point::{KillPoint, reached};
use super::space;
use super::staged::Staged;
use super::writer::Writer;

/// A generation is sealed at so many payload bytes …
const BYTES: u64 = 16 << 20;
/// … or at this age, microseconds.
const AGE: i64 = 24 * 3600 * 1_000_000;
/// What could not be written is not tried again sooner.
const PATIENCE: Duration = Duration::from_secs(10);

impl Writer {
    /// Seals a full head, hands settled generations to the history.
    pub(super) fn look_after_generations(&mut self) {
        if self.fault.is_some() {
            return;
        }
        if self.head_is_full() && self.roll_after.is_none_or(|after| Instant::now() >= after) {
            self.roll_after = None;
            if let Err(fault) = self.make_head() {
                tracing::error!(why = fault.why(), "cannot make a new generation; the old one goes on");
                if space::is_full(fault.why()) {
                    self.space.release_ballast();
                }
                self.roll_after = Some(Instant::now() + PATIENCE);
            }
        }
        self.rewrite_some(false);
        if self.archive_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        let no_room = self.no_room_for_the_past();
        let settled = |found: &Generation| {
            found.sealed && !found.archiving && found.pending() == 0 && (found.keys || no_room)
        };
        let done: Vec<u64> = self
            .book
            .generations
            .iter()
            .filter(|(_, generation)| settled(generation))
            .map(|(number, _)| *number)
            .collect();
        for number in done {
            if let Err((number, fault)) = self.store(number) {
                return self.fail(number, fault);
            }
            if let Some(generation) = self.book.generations.get_mut(&number).filter(|found| settled(found)) {
                if no_room {
                    self.archived(number, Ok(()));
                } else {
                    generation.archiving = true;
                    if let Some(rewriting) = self.rewriting.as_mut().filter(|known| known.is_of(number)) {
                        rewriting.cancel();
                    }
                    let _ = self.history.send(Job::Archive(number));
                }
            }
        }
    }

    fn no_room_for_the_past(&self) -> bool {
        self.space.pressed && !self.shared.can_prune()
    }

    /// Hands sealed generations to the months, one after the other: a later word must come later.
    pub(super) fn look_after_keys(&mut self) {
        let later = self.copy_after.is_some_and(|after| Instant::now() < after);
        if self.fault.is_some() || self.copying.is_some() || later || self.no_room_for_the_past() {
            return;
        }
        let next = self.book.generations.iter().find(|(_, found)| found.sealed && !found.keys);
        if let Some(number) = next.map(|(number, _)| *number) {
            self.copying = Some(number);
            let _ = self.history.send(Job::Keys(number));
        }
    }

    /// What a generation knows of creates is in the months, on disk.
    pub(super) fn keys_copied(&mut self, number: u64, result: Result<(), ArchiveFault>) {
        self.copying = None;
        let marked = match result {
            Ok(()) => self.ready().and_then(|()| self.mark(number, |found| found.keys = true)),
            Err(ArchiveFault::Generation(_)) if !self.book.generations.contains_key(&number) => Ok(()),
            Err(ArchiveFault::Generation(fault)) => Err((number, fault)),
            Err(ArchiveFault::History(fault)) => {
                tracing::error!(why = fault.why(), "delivered keys cannot be written");
                self.copy_after = Some(Instant::now() + PATIENCE);
                Ok(())
            }
        };
        match marked {
            Ok(()) => reached(KillPoint::KeysMarked),
            Err((at, fault)) => self.fail(at, fault),
        }
    }

    /// A generation that waits for nothing else is about to be done with.
    pub(super) fn is_copying_settled(&self) -> bool {
        let settled =
            |number: &u64| self.book.generations.get(number).is_some_and(|found| found.pending() == 0);
        self.copying.as_ref().is_some_and(settled)
    }

    pub(super) fn make_head(&mut self) -> Result<(), Fault> {
        let pool = &self.shared.pool;
        let old = if self.book.generations.contains_key(&self.book.head) {
            Some(pool.get(self.book.head)?)
        } else {
            None
        };
        head::create(pool, &mut self.book, old.as_deref(), &self.options.pbx, crate::clock::now().0)
    }

    /// Notes something of a generation, durably.
    pub(super) fn mark(&mut self, number: u64, change: impl FnOnce(&mut Generation)) -> Faulty<()> {
        let Some(generation) = self.book.generations.get_mut(&number) else { return Ok(()) };
        change(generation);
        let behind = generation.behind;
        let mut staged = Staged::default();
        self.book.summarize(&mut staged, number, behind);
        self.write(&mut staged)
    }

    /// The history could not take a generation: it stays in the outbox for now.
    pub(super) fn archive_later(&mut self, number: u64) {
        if let Some(generation) = self.book.generations.get_mut(&number) {
            generation.archiving = false;
        }
        self.archive_after = Some(Instant::now() + PATIENCE);
    }

    fn head_is_full(&mut self) -> bool {
        let next = self.book.next;
        let file = self.shared.pool.path(self.book.head).join("db");
        let size = std::fs::metadata(file).map_or(0, |found| found.len());
        if self.head_began.0 != self.book.head {
            self.head_began = (self.book.head, size);
        }
        let records = next.sequence.saturating_sub(1);
        records >= self.options.generation_records
            || next.bytes >= BYTES
            || size.saturating_sub(self.head_began.1) >= self.space.generation()
            || (records > 0 && crate::clock::now().0.saturating_sub(next.created) >= AGE)
    }
}
