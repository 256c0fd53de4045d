//! The history thread: copies settled generations into the days of their calls, removes days when
//! their time has come, and answers questions about the past ([`super::lookup`]).
//!
//! A call's messages, updates, CDR rows, mergers and deliveries are JSON lines, each led by a letter
//! (`m`, `u`, `d`, `l`, `e`), packed with those of other calls ([`super::day`]); a bundle's key names the
//! generation it came from, so copying again after a crash writes the same keys. A generation is reported
//! as copied only when all of it is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parsers::Micros;
use tokio::sync::mpsc::WeakSender;

use super::archive::Archive;
use super::command::{ArchiveFault, Command, Reply};
use super::engine::{Fault, Store};
use super::kill_point::{KillPoint, reached};
use super::months::KeyCopy;
use super::rewrite::{self, Order, Rewrite};
use super::shared::Shared;
use super::space::disk_use;
use super::types::{HistoryFilter, LegRecord, Selection, Trace};
use super::{head, lookup, replay, seek};
use crate::calls::CallKey;

/// How often the writer is reminded of what waits for its time.
const TICK: Duration = Duration::from_secs(1);
/// Ages and sizes are looked at with every so manieth reminder.
const LOOK: u32 = 10;
/// What is being written is looked at so often.
const LOOK_WHILE_COPYING: Duration = Duration::from_millis(100);
/// A rewriting's pauses, in times of its work; and the longest.
const PAUSES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What the history thread is asked.
#[derive(Debug)]
pub(super) enum Job {
    /// Copy a generation.
    Archive(u64),
    /// Copy what it knows of creates into their months.
    Keys(u64),
    /// Its files are not needed any more.
    Remove(u64),
    /// Copy a generation into as little room as it can take.
    Rewrite(u64, Arc<Order>),
    /// A copy, or what it was made of, is not needed any more.
    Sweep(PathBuf),
    /// Give up what is oldest.
    Prune,
    Legs(HistoryFilter, Reply<Vec<LegRecord>>),
    Trace(CallKey, Reply<Trace>),
    /// A page of what a replay sends, from this place on.
    Replay(Selection, Option<replay::Place>, Reply<replay::Page>),
    Stop,
}

/// Work that takes long.
#[derive(Debug, Default)]
struct Waiting {
    copies: VecDeque<Task>,
    rewrites: VecDeque<(u64, Arc<Order>)>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Historian {
    pub(super) shared: Arc<Shared>,
    pub(super) days: Days,
    pub(super) writer: WeakSender<Command>,
    pub(super) keep: Duration,
    /// `[journal] max_size`.
    pub(super) max_size: u64,
}

/// What it does between questions.
#[derive(Clone, Copy, Debug)]
enum Task {
    Archive(u64),
    Keys(u64),
}

/// One of them, under way.
enum Copying {
    Archive(Box<Archive>),
    Keys(KeyCopy),
}

/// The history's stores, one open at a time.
#[derive(Debug)]
pub(super) struct Days {
    directory: PathBuf,
    quarantine: PathBuf,
    open: Option<(String, Arc<Store>)>,
}

impl Historian {
    /// Runs until told to stop.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        self.prune();
        self.look_around();
        let mut waiting = Waiting::default();
        let mut ticks = 0;
        loop {
            if self.copy_all(jobs, &mut waiting).is_none() {
                return;
            }
            if let Some((number, order)) = waiting.rewrites.pop_front() {
                let result = self.rewrite(number, &order, jobs, &mut waiting);
                order.set_done();
                let Some(result) = result else { return };
                self.tell(Command::Rewritten(number, Box::new(result)));
                continue;
            }
            match jobs.recv_timeout(TICK) {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(job) => self.take(job, &mut waiting),
                Err(RecvTimeoutError::Timeout) => {
                    ticks += 1;
                    if ticks % LOOK == 0 {
                        self.days.open = None;
                        self.shared.months.rest();
                        self.prune();
                        self.look_around();
                    }
                    self.tell(Command::Tick);
                }
            }
        }
    }

    fn take(&mut self, job: Job, waiting: &mut Waiting) {
        match job {
            Job::Archive(number) => waiting.copies.push_back(Task::Archive(number)),
            Job::Keys(number) => waiting.copies.push_back(Task::Keys(number)),
            Job::Rewrite(number, order) => waiting.rewrites.push_back((number, order)),
            other => self.answer(other),
        }
    }

    /// Copies all that waits for it, into the history or the months. `None`: told to stop.
    fn copy_all(&mut self, jobs: &Receiver<Job>, waiting: &mut Waiting) -> Option<()> {
        while let Some(task) = waiting.copies.pop_front() {
            let result = self.copy(task, jobs, waiting)?;
            match task {
                Task::Archive(number) => {
                    self.look_around();
                    reached(KillPoint::Archived);
                    self.tell(Command::Archived(number, result));
                }
                Task::Keys(number) => {
                    self.shared.months.keep_within(self.max_size);
                    self.look_around();
                    reached(KillPoint::KeysSynced);
                    self.tell(Command::KeysCopied(number, result));
                }
            }
        }
        Some(())
    }

    fn tell(&self, command: Command) {
        if let Some(writer) = self.writer.upgrade() {
            let _ = writer.blocking_send(command);
        }
    }

    fn answer(&mut self, job: Job) {
        match job {
            Job::Legs(filter, reply) => {
                let _ = reply.send(lookup::legs(self, &filter).map_err(|fault| self.error(&fault)));
            }
            Job::Trace(call, reply) => {
                let _ = reply.send(lookup::trace(self, &call).map_err(|fault| self.error(&fault)));
            }
            Job::Replay(what, from, reply) => {
                let _ = reply.send(replay::page(self, &what, from).map_err(|fault| self.error(&fault)));
            }
            Job::Remove(number) => {
                self.shared.pool.close(number);
                reached(KillPoint::BeforeRemoval);
                if let Err(fault) = head::remove(&self.shared.pool, number) {
                    tracing::warn!(number, why = fault.why(), "cannot remove a generation that is done with");
                }
                self.tell(Command::Removed(number));
            }
            Job::Prune => {
                self.give_up_oldest();
                self.look_around();
                self.shared.set_pruning(false);
                self.tell(Command::Tick);
            }
            Job::Sweep(path) => {
                if let Err(fault) = rewrite::remove(&path) {
                    tracing::warn!(path = %path.display(), why = fault.why(), "cannot remove a copy");
                }
                self.tell(Command::Tick);
            }
            Job::Archive(_) | Job::Keys(_) | Job::Rewrite(..) | Job::Stop => {}
        }
    }

    fn error(&self, fault: &Fault) -> super::types::JournalError {
        super::types::JournalError::Io { path: self.shared.directory.clone(), why: fault.why().to_owned() }
    }

    /// Copies step by step and answers questions in between. `None`: told to stop.
    fn copy(
        &mut self,
        task: Task,
        jobs: &Receiver<Job>,
        waiting: &mut Waiting,
    ) -> Option<Result<(), ArchiveFault>> {
        let mut copying = match task {
            Task::Archive(number) => {
                let oldest = day_of(Micros(crate::clock::now().0.saturating_sub(micros(self.keep))));
                Copying::Archive(Box::new(Archive::new(number, oldest)))
            }
            Task::Keys(number) => Copying::Keys(KeyCopy::new(number)),
        };
        let mut looked = Instant::now();
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            // the limit holds while it grows, too
            if looked.elapsed() >= LOOK_WHILE_COPYING {
                looked = Instant::now();
                self.look_around();
            }
            match jobs.try_recv() {
                Ok(Job::Stop) => return None,
                Ok(job) => self.take(job, waiting),
                Err(_) => {}
            }
            let step = match &mut copying {
                Copying::Archive(archive) => archive.step(&self.shared.pool, &mut self.days),
                Copying::Keys(keys) => keys.step(&self.shared.pool, &self.shared.months),
            };
            match step {
                Ok(true) => {}
                Ok(false) => return Some(Ok(())),
                Err(fault) => {
                    if let ArchiveFault::History(fault) = &fault {
                        tracing::error!(why = fault.why(), "the history cannot be written");
                    }
                    return Some(Err(fault));
                }
            }
        }
    }

    /// Copies a generation into bundles, as a guest of a host that is at work: it pauses four times as
    /// long as it worked, while questions are answered and what is settled is archived. `None`: told to
    /// stop.
    fn rewrite(
        &mut self,
        number: u64,
        order: &Order,
        jobs: &Receiver<Job>,
        waiting: &mut Waiting,
    ) -> Option<Result<Option<Store>, Fault>> {
        self.days.open = None;
        let mut rewrite = match Rewrite::begin(&self.shared.pool, number, order.keys()) {
            Ok(Some(rewrite)) => rewrite,
            Ok(None) => return Some(Ok(None)),
            Err(fault) => return Some(Err(fault)),
        };
        loop {
            let started = Instant::now();
            match rewrite.step(&self.shared.pool) {
                Ok(true) => {}
                Ok(false) => return Some(Ok(Some(rewrite.into_store()))),
                Err(fault) => return Some(Err(fault)),
            }
            let pause = if order.is_hurried() { Duration::ZERO } else { started.elapsed() * PAUSES };
            let until = Instant::now() + pause.min(LONGEST_PAUSE);
            loop {
                match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                    Ok(job) => self.take(job, waiting),
                    Err(RecvTimeoutError::Timeout) => break,
                }
                self.copy_all(jobs, waiting)?;
            }
            if self.shared.is_stopping() {
                return None;
            }
            if order.is_cancelled() {
                return Some(Err(Fault::Io("it is being emptied".to_owned())));
            }
        }
    }

    /// Removes days past their time.
    fn prune(&mut self) {
        let oldest = day_of(Micros(crate::clock::now().0.saturating_sub(micros(self.keep))));
        for day in self.days.list().unwrap_or_default().into_iter().filter(|day| *day < oldest) {
            self.remove_day(&day);
        }
    }

    /// At the limit: the oldest day; where there is none, what was put aside and is salvaged; then the
    /// oldest month of delivered keys.
    fn give_up_oldest(&mut self) {
        if let Some(day) = self.days.list().unwrap_or_default().first() {
            self.remove_day(day);
        } else if let Some(path) = spare(&self.shared.quarantine()).first() {
            tracing::warn!(path = %path.display(), "the journal is full: a damaged part was removed");
            if let Err(error) = fs::remove_dir_all(path) {
                tracing::warn!(%error, "cannot remove it");
            }
        } else {
            self.shared.months.give_up_oldest();
        }
    }

    fn remove_day(&mut self, day: &str) {
        match self.days.remove(day) {
            Ok(()) => tracing::info!(day, "a day of the history was removed"),
            Err(fault) => tracing::warn!(day, why = fault.why(), "cannot remove a day of the history"),
        }
    }

    /// Measures what lies outside the outbox.
    fn look_around(&self) {
        let directory = &self.shared.directory;
        let bytes =
            ["history", "quarantine", "keys"].iter().map(|room| disk_use(&directory.join(room))).sum();
        let days = self.days.list().map_or(0, |days| days.len() as u64);
        let spare = spare(&self.shared.quarantine()).len() as u64;
        self.shared.set_outside(bytes, days, self.shared.months.list().len() as u64, spare);
    }
}

/// Stores in quarantine that nobody needs any more, oldest first: days, and generations from which
/// everything was taken that could be.
fn spare(quarantine: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(quarantine) else { return Vec::new() };
    let is_spare = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let generation = name.split_once('-').and_then(|(number, _)| super::pool::generation_of(number));
        generation.is_none() || path.join("salvaged").exists()
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_spare).collect();
    found.sort_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).ok());
    found
}

impl Days {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { directory: shared.history(), quarantine: shared.quarantine(), open: None }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Days there are, oldest first.
    pub(super) fn list(&self) -> Result<Vec<String>, Fault> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_dir()
                && name.len() == 10
            {
                days.push(name);
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// A day's store.
    pub(super) fn get(&mut self, day: &str, make: bool) -> Result<Option<Arc<Store>>, Fault> {
        if let Some((name, store)) = &self.open
            && name == day
        {
            return Ok(Some(Arc::clone(store)));
        }
        self.open = None;
        let path = self.directory.join(day);
        let Some(store) = open_or_make(&path, make, |why| self.put_aside(day, why))? else { return Ok(None) };
        let store = Arc::new(store);
        self.open = Some((day.to_owned(), Arc::clone(&store)));
        Ok(Some(store))
    }

    /// Leaves a day as it is quickest to open: sled writes its snapshot when it opens, and reads all
    /// that was written since the last one. So this is paid here and not by who searches.
    pub(super) fn rest(&mut self, day: &str) -> Result<(), Fault> {
        self.open = None;
        self.get(day, false)?;
        self.open = None;
        Ok(())
    }

    /// Puts a damaged day aside.
    pub(super) fn put_aside(&mut self, day: &str, why: &str) -> Result<(), Fault> {
        self.open = None;
        let path = head::put_path_aside(&self.directory.join(day), &self.quarantine)?;
        tracing::error!(path = %path.display(), why, "a damaged day of the history was put aside");
        Ok(())
    }

    fn remove(&mut self, day: &str) -> Result<(), Fault> {
        if self.open.as_ref().is_some_and(|(name, _)| name == day) {
            self.open = None;
        }
        let path = self.directory.join(day);
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
        seek::remove(&self.directory, day)?;
        super::engine::sync_directory(&self.directory)
    }
}

/// The UTC day of a time, `YYYY-MM-DD`.
pub(super) fn day_of(at: Micros) -> String {
    let time = Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}

/// A store of the past. One that will not open is put aside: the past is worth less than the present.
/// `None`: it is not there, and is not to be made.
pub(super) fn open_or_make(
    path: &Path,
    make: bool,
    put_aside: impl FnOnce(&str) -> Result<(), Fault>,
) -> Result<Option<Store>, Fault> {
    if !path.is_dir() && !make {
        return Ok(None);
    }
    let store = match Store::open(path) {
        Err(Fault::Damaged(why)) => {
            put_aside(&why)?;
            if !make {
                return Ok(None);
            }
            Store::open(path)?
        }
        opened => opened?,
    };
    if make {
        store.sync_new()?;
    }
    Ok(Some(store))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Tokens for each day's seek file.
pub(super) type Tokens = BTreeMap<String, Vec<seek::Token>>;
