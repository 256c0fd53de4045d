//! The history thread: copies settled generations into the days of their calls, removes days when
//! their time has come, and answers questions about the past ([`super::lookup`]).
//!
//! A call's messages, updates, CDR rows, mergers and deliveries are JSON lines, each led by a letter
//! (`m`, `u`, `d`, `l`, `e`), deflated in runs; a run's key names the call and the generation it came
//! from, so copying again after a crash writes the same keys. A generation is reported as copied only when
//! all of it is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use parsers::Micros;
use tokio::sync::mpsc::WeakSender;

use super::archive::Archive;
use super::command::{ArchiveFault, Command, Reply};
use super::engine::{Fault, Store};
use super::kill_point::{KillPoint, reached};
use super::shared::Shared;
use super::types::{HistoryFilter, LegRecord, Selection, Trace};
use super::{head, lookup, replay, seek};
use crate::calls::CallKey;

/// How often ages and sizes are looked at.
const TICK: Duration = Duration::from_secs(10);

/// What the history thread is asked.
#[derive(Debug)]
pub(super) enum Job {
    /// Copy a generation.
    Archive(u64),
    /// Its files are not needed any more.
    Remove(u64),
    Legs(HistoryFilter, Reply<Vec<LegRecord>>),
    Trace(CallKey, Reply<Trace>),
    /// A page of what a replay sends, from this place on.
    Replay(Selection, Option<replay::Place>, Reply<replay::Page>),
    Stop,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Historian {
    pub(super) shared: Arc<Shared>,
    pub(super) days: Days,
    pub(super) writer: WeakSender<Command>,
    pub(super) keep: Duration,
    pub(super) max_size: u64,
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
        let mut settled = VecDeque::new();
        loop {
            if let Some(number) = settled.pop_front() {
                let Some(result) = self.archive(number, jobs, &mut settled) else { return };
                reached(KillPoint::Archived);
                self.tell(Command::Archived(number, result));
                continue;
            }
            match jobs.recv_timeout(TICK) {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Job::Archive(number)) => settled.push_back(number),
                Ok(job) => self.answer(job),
                Err(RecvTimeoutError::Timeout) => {
                    self.days.open = None;
                    self.prune();
                    self.tell(Command::Tick);
                }
            }
        }
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
                self.prune();
            }
            Job::Archive(_) | Job::Stop => {}
        }
    }

    fn error(&self, fault: &Fault) -> super::types::JournalError {
        super::types::JournalError::Io { path: self.shared.directory.clone(), why: fault.why().to_owned() }
    }

    /// Copies call by call and answers questions in between. `None`: told to stop.
    fn archive(
        &mut self,
        number: u64,
        jobs: &Receiver<Job>,
        settled: &mut VecDeque<u64>,
    ) -> Option<Result<(), ArchiveFault>> {
        let oldest = day_of(Micros(crate::clock::now().0.saturating_sub(micros(self.keep))));
        let mut archive = Archive::new(number, oldest);
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            match jobs.try_recv() {
                Ok(Job::Stop) => return None,
                Ok(Job::Archive(other)) => settled.push_back(other),
                Ok(job) => self.answer(job),
                Err(_) => {}
            }
            match archive.step(&self.shared.pool, &mut self.days) {
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

    /// Removes days past their time, and the oldest while the journal is above its limit. What
    /// else may be given up at the limit, and in which order, belongs here.
    fn prune(&mut self) {
        let Ok(mut days) = self.days.list() else { return };
        let oldest = day_of(Micros(crate::clock::now().0.saturating_sub(micros(self.keep))));
        while let Some(day) = days.first() {
            if *day >= oldest && disk_use(&self.shared.directory).0 <= self.max_size {
                break;
            }
            let day = days.remove(0);
            if let Err(fault) = self.days.remove(&day) {
                tracing::warn!(day, why = fault.why(), "cannot remove a day of the history");
                break;
            }
            tracing::info!(day, "a day of the history was removed");
        }
    }
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

    /// A day's store. One that will not open is put aside: the past is worth less than the present.
    pub(super) fn get(&mut self, day: &str, make: bool) -> Result<Option<Arc<Store>>, Fault> {
        if let Some((name, store)) = &self.open
            && name == day
        {
            return Ok(Some(Arc::clone(store)));
        }
        self.open = None;
        let path = self.directory.join(day);
        let new = !path.is_dir();
        if new && !make {
            return Ok(None);
        }
        let store = match Store::open(&path) {
            Err(Fault::Damaged(why)) => {
                self.put_aside(day, &why)?;
                if !make {
                    return Ok(None);
                }
                Store::open(&path)?
            }
            opened => opened?,
        };
        if make {
            store.sync_new()?;
        }
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
        fs::remove_dir_all(self.directory.join(day))?;
        seek::remove(&self.directory, day)?;
        super::engine::sync_directory(&self.directory)
    }
}

/// The UTC day of a time, `YYYY-MM-DD`.
pub(super) fn day_of(at: Micros) -> String {
    let time = Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}

/// Bytes that the journal takes, and how many history days there are.
pub(super) fn disk_use(directory: &Path) -> (u64, u64) {
    fn sum(path: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        let size = |entry: fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        entries.flatten().map(size).sum()
    }
    let days = fs::read_dir(directory.join("history"))
        .map(|entries| entries.flatten().filter(|entry| entry.path().is_dir()).count() as u64)
        .unwrap_or(0);
    (sum(directory), days)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Tokens for each day's seek file.
pub(super) type Tokens = BTreeMap<String, Vec<seek::Token>>;
