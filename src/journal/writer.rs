//! The writer thread: takes all that waits, commits it as one group, answers; then looks after the
//! generations ([`super::generations`]). After any error no handle is trusted: all are dropped, what is in
//! memory is read again, and nobody who was not answered yet is told that his data is safe.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parsers::Micros;
use tokio::sync::mpsc;

use super::answer::Faulty;
use super::book::Book;
use super::command::{Command, Reply};
use super::encode::Prepared;
use super::engine::{Fault, Store};
use super::format::key;
use super::head::{self, Loaded};
use super::history::Job;
use super::import::Import;
use super::kill_point::{KillPoint, reached};
use super::limit::Class;
use super::open::Lock;
use super::outbox::{self, Leases, Settled};
use super::reopen::BACKOFF;
use super::rewrite::Rewriting;
use super::schedule::Window;
use super::shared::Shared;
use super::space::Space;
use super::staged::Staged;
use super::types::{DeletedDays, DeliveryKey, Imported, JournalError, JournalOptions, Settlement};
use super::witness::{Witness, WitnessFile};
use crate::calls::{CallKey, Update};
use crate::metrics::{Histogram, buckets};

/// A group is closed at so many records …
const GROUP_RECORDS: usize = 256;
/// … or so many payload bytes.
const GROUP_BYTES: usize = 256 * 1024;
/// Settlements held at most.
const MOST_HELD: usize = 64;
/// Commit times remembered.
const TIMES: usize = 1024;

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) options: JournalOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) book: Book,
    /// By route number.
    pub(super) windows: Vec<Window>,
    pub(super) leases: Leases,
    /// Settlements that go with the next group.
    held: Vec<(DeliveryKey, Settlement, Micros, Reply<()>)>,
    pub(super) history: std::sync::mpsc::Sender<Job>,
    pub(super) quarantined: u64,
    /// Acknowledged records found missing.
    pub(super) lost: u64,
    pub(super) commits: u64,
    /// The last commits, microseconds, oldest overwritten.
    pub(super) times: Vec<u64>,
    pub(super) commit_times: Histogram,
    /// Why nothing can be written now.
    pub(super) fault: Option<String>,
    pub(super) retry_at: Instant,
    pub(super) backoff: Duration,
    pub(super) strikes: HashMap<u64, u32>,
    pub(super) space: Space,
    /// Generations and classes of which nothing more can be given up.
    pub(super) spared: BTreeSet<(u64, Class)>,
    /// Generations whose files are about to go.
    pub(super) removing: BTreeSet<u64>,
    /// Generations in which a route has nothing waiting any more, if its counters are right.
    pub(super) emptied: BTreeSet<u64>,
    /// The generation that is being written anew.
    pub(super) rewriting: Option<Rewriting>,
    /// Generations that are not written anew before that time.
    pub(super) left_alone: HashMap<u64, Instant>,
    /// The head's number, and the size of its file when it was first looked at.
    pub(super) head_began: (u64, u64),
    /// Since when appends are refused, and how many records were.
    refused: Option<(i64, u64)>,
    /// A new head could not be made; not before this time again.
    pub(super) roll_after: Option<Instant>,
    /// The history could not be written; not before this time again.
    pub(super) archive_after: Option<Instant>,
    /// What it knows of creates is being copied into the months.
    pub(super) copying: Option<u64>,
    /// The months could not be written; not before this time again.
    pub(super) copy_after: Option<Instant>,
    historian: Option<JoinHandle<()>>,
    pub(super) witness: WitnessFile,
    lock: Lock,
}

/// A group as it grows.
#[derive(Default)]
struct Group {
    staged: Staged,
    records: usize,
    /// Records of appends.
    appends: usize,
    bytes: usize,
    /// What is held goes now, also alone.
    flush: bool,
    replies: Vec<Reply<()>>,
    /// Imports, and what became of them.
    imports: Vec<(Reply<Imported>, Imported)>,
    /// Calls that imports brought into the head.
    imported: Vec<CallKey>,
    updates: Vec<Update>,
    ended: Vec<CallKey>,
    settled: Vec<(DeliveryKey, u16, Settled)>,
    /// Routes with something new.
    routes: Vec<u16>,
    /// Why the group cannot be committed.
    failed: Option<(u64, Fault)>,
}

impl Group {
    /// Whether nobody waits for it.
    const fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.imports.is_empty()
    }
}

impl Writer {
    pub(super) fn new(
        options: JournalOptions,
        shared: Arc<Shared>,
        loaded: Loaded,
        history: std::sync::mpsc::Sender<Job>,
        witness: WitnessFile,
        lock: Lock,
    ) -> Self {
        let space = Space::new(&options.directory, options.max_size);
        Self {
            space,
            spared: BTreeSet::new(),
            removing: BTreeSet::new(),
            emptied: BTreeSet::new(),
            rewriting: None,
            left_alone: HashMap::new(),
            refused: None,
            head_began: (0, 0),
            options,
            shared,
            quarantined: loaded.quarantined.len() as u64,
            lost: loaded.lost,
            book: loaded.book,
            windows: Vec::new(),
            leases: Leases::new(),
            held: Vec::new(),
            history,
            commits: 0,
            times: Vec::new(),
            commit_times: Histogram::default(),
            fault: None,
            retry_at: Instant::now(),
            backoff: BACKOFF.0,
            strikes: HashMap::new(),
            roll_after: None,
            archive_after: None,
            copying: None,
            copy_after: None,
            historian: None,
            witness,
            lock,
        }
    }

    /// The history's thread, ended with this one.
    pub(super) fn with_historian(mut self, historian: JoinHandle<()>) -> Self {
        self.historian = Some(historian);
        self
    }

    /// Runs until closed, or until every handle is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let closing = self.serve(&mut commands);
        // nobody can ask any more, and the history's thread cannot wait for us to listen
        drop(commands);
        self.shared.stop();
        let _ = self.history.send(Job::Stop);
        if let Some(historian) = self.historian.take() {
            let _ = historian.join();
        }
        if self.fault.is_none() {
            self.summarize_all();
        }
        self.shared.pool.close_all();
        self.shared.months.close_all();
        drop(self.lock);
        if let Some(reply) = closing {
            let _ = reply.send(Ok(()));
        }
    }

    fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Reply<()>> {
        self.look_after_space();
        self.look_after_keys();
        self.look_after_generations();
        while let Some(first) = commands.blocking_recv() {
            let mut group = Group::default();
            let mut later = Vec::new();
            self.take(first, &mut group, &mut later);
            while group.records < GROUP_RECORDS && group.bytes < GROUP_BYTES {
                let Ok(next) = commands.try_recv() else { break };
                self.take(next, &mut group, &mut later);
            }
            let closing = later.iter().any(|command| matches!(command, Command::Close(_)));
            if closing || group.flush || !group.is_empty() || self.held.len() >= MOST_HELD {
                self.release_held(&mut group);
                self.commit(group);
            }
            for command in later {
                if let Command::Close(reply) = command {
                    return Some(reply);
                }
                self.answer(command);
            }
            self.look_after_emptied();
            self.look_after_space();
            self.look_after_keys();
            self.look_after_generations();
        }
        let mut last = Group::default();
        self.release_held(&mut last);
        self.commit(last);
        None
    }

    fn release_held(&mut self, group: &mut Group) {
        for (at, settlement, now, reply) in std::mem::take(&mut self.held) {
            self.take_settlement(at, &settlement, now, reply, group);
        }
    }

    fn take_settlement(
        &mut self,
        at: DeliveryKey,
        settlement: &Settlement,
        now: Micros,
        reply: Reply<()>,
        group: &mut Group,
    ) {
        group.records += 3;
        group.replies.push(reply);
        self.stage(group, |writer, group| writer.stage_settle(at, settlement, now, group));
    }

    fn take(&mut self, command: Command, group: &mut Group, later: &mut Vec<Command>) {
        match command {
            Command::Append(batch, reply) => {
                if let Some(why) = self.space.refuses().filter(|_| self.fault.is_none()) {
                    self.refuse(batch.records);
                    let _ = reply.send(Err(self.no_room(why)));
                    return;
                }
                group.appends += batch.records;
                group.records += batch.records;
                group.bytes += batch.bytes;
                self.space.wrote(batch.bytes);
                group.replies.push(reply);
                self.stage(group, |writer, group| writer.stage_append(*batch, group));
            }
            Command::Settle(at, Settlement::Released, _, reply) => {
                self.release(at);
                let _ = reply.send(Ok(()));
            }
            Command::Settle(at, settlement, now, reply) => {
                self.take_settlement(at, &settlement, now, reply, group);
            }
            Command::SettleSoon(at, settlement, now, reply) => {
                let route = self.leases.get(&at).map(|lease| lease.route);
                if route.is_some_and(|route| self.window(route).is_awaited(at)) {
                    self.take_settlement(at, &settlement, now, reply, group);
                } else {
                    self.held.push((at, settlement, now, reply));
                }
            }
            Command::Import(import, reply) => {
                if let Some(why) = self.space.refuses().filter(|_| self.fault.is_none()) {
                    let _ = reply.send(Err(self.no_room(why)));
                    return;
                }
                group.records += import.records();
                group.bytes += import.bytes();
                self.space.wrote(import.bytes());
                let place = group.imports.len();
                group.imports.push((reply, Imported::default()));
                self.stage(group, |writer, group| writer.stage_import(&import, place, group));
            }
            Command::Deleted(days, at, reply) => {
                group.records += 1;
                group.replies.push(reply);
                self.stage(group, |writer, group| writer.stage_deleted(&days, at, group));
            }
            Command::Flush => group.flush = true,
            Command::SetNote(name, value, reply) => {
                group.records += 1;
                group.replies.push(reply);
                self.stage(group, |writer, group| {
                    match value {
                        Some(value) => group.staged.put(writer.book.head, key::note(&name), &value),
                        None => group.staged.remove(writer.book.head, key::note(&name)),
                    }
                    Ok(())
                });
            }
            other @ (Command::Due { .. }
            | Command::Objects(_)
            | Command::Note(..)
            | Command::Dead { .. }
            | Command::DeadMarks(..)
            | Command::Again(..)
            | Command::DeadRetry { .. }
            | Command::DeadDrop { .. }
            | Command::Pending(..)
            | Command::DropPending(..)
            | Command::Status(_)
            | Command::RoundTrip(_)
            | Command::Archived(..)
            | Command::KeysCopied(..)
            | Command::Removed(_)
            | Command::Rewritten(..)
            | Command::Tick
            | Command::Close(_)) => later.push(other),
            #[cfg(test)]
            other @ (Command::Forward(_)
            | Command::Stragglers(..)
            | Command::KeysAreCopied(_)
            | Command::Hold(_)) => later.push(other),
        }
    }

    fn stage(
        &mut self,
        group: &mut Group,
        place: impl FnOnce(&mut Self, &mut Group) -> Result<(), (u64, Fault)>,
    ) {
        if group.failed.is_some() {
            return;
        }
        let placed = self.ready().and_then(|()| place(self, group));
        group.failed = placed.err();
    }

    fn stage_import(&mut self, import: &Import, place: usize, group: &mut Group) -> Faulty<()> {
        let placed = self.place_import(&mut group.staged, import)?;
        group.routes.extend(placed.routes);
        group.imported.extend(placed.calls);
        if let Some((_, done)) = group.imports.get_mut(place) {
            *done = placed.done;
        }
        Ok(())
    }

    fn stage_deleted(&mut self, days: &DeletedDays, at: Micros, group: &mut Group) -> Faulty<()> {
        let head = self.book.head;
        let (name, note) =
            self.book.deletes.add(days, at).map_err(|error| (head, Fault::Io(error.to_string())))?;
        group.staged.put(head, key::note(&name), &note);
        Ok(())
    }

    fn stage_append(&mut self, mut batch: Prepared, group: &mut Group) -> Result<(), (u64, Fault)> {
        let head = self.head()?;
        let number = self.book.head;
        self.leave_out_sent(&mut group.staged, &mut batch.outbox)?;
        let routes = self
            .book
            .append(&mut group.staged, &head, &batch, crate::clock::now().0)
            .map_err(|fault| (number, fault))?;
        group.routes.extend(routes);
        group.updates.extend(batch.updates);
        group.ended.extend(batch.ended);
        Ok(())
    }

    fn stage_settle(
        &mut self,
        at: DeliveryKey,
        settlement: &Settlement,
        now: Micros,
        group: &mut Group,
    ) -> Result<(), (u64, Fault)> {
        // not leased: settled already, or its generation was put aside
        let Some(lease) = self.leases.get(&at).copied().filter(|lease| !lease.settling) else {
            return Ok(());
        };
        let home = self.book.home(at);
        let store = self.store(home)?;
        let settled = outbox::settle(&mut self.book, &mut group.staged, &store, at, &lease, settlement, now)
            .map_err(|fault| (home, fault))?;
        if let Some(lease) = self.leases.get_mut(&at) {
            lease.settling = true;
        }
        group.settled.push((at, lease.route, settled));
        Ok(())
    }

    /// Makes a group durable, then lets it be seen, then answers.
    fn commit(&mut self, mut group: Group) {
        if group.appends > 0 && group.failed.is_none() {
            self.close_gap(&mut group.staged);
        }
        let written = match group.failed.take() {
            Some(failed) => Err(failed),
            None => self.write(&mut group.staged),
        };
        let answer = match written {
            Ok(()) => {
                if group.appends > 0 {
                    self.refused = None;
                }
                self.show(&mut group);
                Ok(())
            }
            Err((generation, fault)) => {
                let error = self.io_error(generation, &fault);
                self.refuse(group.appends);
                self.fail(generation, fault);
                Err(error)
            }
        };
        for reply in group.replies {
            let _ = reply.send(answer.clone());
        }
        for (reply, done) in group.imports {
            let _ = reply.send(answer.clone().map(|()| done));
        }
    }

    /// Something was not taken: a gap, until an append succeeds.
    fn refuse(&mut self, records: usize) {
        if records > 0 {
            let now = crate::clock::now().0;
            if self.refused.is_none() {
                tracing::error!("the journal takes nothing; what comes waits in memory");
            }
            self.refused.get_or_insert((now, 0)).1 += records as u64;
        }
    }

    /// Says in the journal that there was a gap.
    fn close_gap(&mut self, staged: &mut Staged) {
        let Some((from, records)) = self.refused else { return };
        let mut gap = self.book.gap;
        gap.gaps += 1;
        gap.records += records;
        (gap.from, gap.to) = (from, crate::clock::now().0);
        if let Ok(json) = serde_json::to_vec(&gap) {
            staged.put(self.book.head, key::about("gap"), &json);
            self.book.gap = gap;
        }
        tracing::warn!(records, "the journal takes appends again");
    }

    fn no_room(&self, why: String) -> JournalError {
        JournalError::Io { path: self.options.directory.clone(), why }
    }

    /// Why appends are refused now, if they are.
    pub(super) fn trouble(&self) -> Option<String> {
        self.fault.clone().or_else(|| self.space.refuses())
    }

    /// Where the last delivery of a route was settled, nothing may wait that the counters do not know
    /// of: it would be passed over.
    fn look_after_emptied(&mut self) {
        for number in std::mem::take(&mut self.emptied) {
            if self.fault.is_some() {
                return;
            }
            let Some(mut generation) = self.book.generations.remove(&number) else { continue };
            let before: u64 = generation.pending();
            let checked =
                self.shared.pool.get(number).and_then(|store| head::check_pending(&store, &mut generation));
            let found = generation.pending() > before;
            self.book.generations.insert(number, generation);
            match checked {
                Err(fault) => return self.fail(number, fault),
                Ok(()) if found => self.shared.wake_all(),
                Ok(()) => {}
            }
        }
    }

    /// Writes what is staged, each generation flushed and synced; the head first, because it says
    /// which summaries are behind.
    pub(super) fn write(&mut self, staged: &mut Staged) -> Result<(), (u64, Fault)> {
        self.book.close_group(staged);
        if staged.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let stores: BTreeMap<u64, _> = staged.take();
        let opened = stores
            .into_iter()
            .rev()
            .map(|(generation, batch)| Ok((generation, self.store(generation)?, batch)))
            .collect::<Result<Vec<_>, (u64, Fault)>>()?;
        if let Some(rewriting) = &mut self.rewriting {
            opened.iter().for_each(|(generation, _, writes)| rewriting.touch(*generation, writes.keys()));
        }
        {
            let _hidden = self.shared.hide();
            for (generation, store, batch) in opened {
                let synced = || {
                    reached(KillPoint::BeforeWrite);
                    store.apply(batch.into_batch())?;
                    reached(KillPoint::Written);
                    store.sync()
                };
                synced().map_err(|fault| (generation, fault))?;
            }
        }
        reached(KillPoint::Synced);
        self.backoff = BACKOFF.0;
        let witness = Witness { generation: self.book.head, sequence: self.book.next.sequence };
        if let Err(error) = self.witness.write(witness) {
            tracing::warn!(%error, "cannot write the witness file");
        }
        reached(KillPoint::Witnessed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let slot = usize::try_from(self.commits % TIMES as u64).unwrap_or(0);
        match self.times.get_mut(slot) {
            Some(time) => *time = micros,
            None => self.times.push(micros),
        }
        self.commits += 1;
        self.commit_times.observe(buckets::QUICK, micros);
        Ok(())
    }

    fn show(&mut self, group: &mut Group) {
        for (at, route, settled) in std::mem::take(&mut group.settled) {
            self.settled(at, route, settled);
        }
        self.book.forget_ended(&group.ended);
        self.book.forget(&group.imported);
        for route in &group.routes {
            self.wake(*route);
        }
        if !group.updates.is_empty() {
            // nobody may be listening
            let _ = self.shared.updates.send(Arc::new(std::mem::take(&mut group.updates)));
        }
    }

    /// A settlement is on disk.
    pub(super) fn settled(&mut self, at: DeliveryKey, route: u16, settled: Settled) {
        self.leases.remove(&at);
        let home = self.book.home(at);
        match settled {
            Settled::Final => {
                if self.book.generations.get(&home).is_some_and(|found| found.counters(route).pending == 0) {
                    self.emptied.insert(home);
                }
                if self.window(route).settled(at) {
                    self.wake(route);
                }
            }
            Settled::Again(next) => {
                if let Some(generation) = self.book.generations.get_mut(&home) {
                    generation.route(route).scan.scheduled(next, at);
                }
                self.wake(route);
            }
        }
    }

    pub(super) fn release(&mut self, at: DeliveryKey) {
        if self.leases.get(&at).is_some_and(|lease| lease.settling) {
            return;
        }
        if let Some(lease) = self.leases.remove(&at) {
            self.window(lease.route).ready(at, lease.state.next);
            self.wake(lease.route);
        }
    }

    pub(super) fn wake(&self, route: u16) {
        if let Some(name) = self.book.routes.name(route) {
            self.shared.wake(name);
        }
    }

    pub(super) fn window(&mut self, route: u16) -> &mut Window {
        let index = usize::from(route);
        if self.windows.len() <= index {
            self.windows.resize_with(index + 1, Window::default);
        }
        &mut self.windows[index]
    }

    /// The head's store.
    pub(super) fn head(&mut self) -> Result<Arc<Store>, (u64, Fault)> {
        self.store(self.book.head)
    }

    /// A generation's store; its own counters replace those of its summary when it is first opened.
    pub(super) fn store(&mut self, number: u64) -> Result<Arc<Store>, (u64, Fault)> {
        let fault = |fault| (number, fault);
        let store = self.shared.pool.get(number).map_err(fault)?;
        if let Some(generation) = self.book.generations.get_mut(&number)
            && !generation.exact
        {
            let missing = head::read_counters(&store, generation).map_err(fault)?;
            self.were_lost(number, missing);
        }
        Ok(store)
    }

    pub(super) fn io_error(&self, generation: u64, fault: &Fault) -> JournalError {
        JournalError::Io { path: self.shared.pool.path(generation), why: fault.why().to_owned() }
    }

    /// Brings the summaries up to date, so that the next start need not open the generations.
    fn summarize_all(&mut self) {
        let behind = self.book.generations.iter().filter(|(_, generation)| generation.behind);
        let behind: Vec<u64> = behind.map(|(number, _)| *number).collect();
        let mut staged = Staged::default();
        for number in behind {
            self.book.summarize(&mut staged, number, false);
        }
        if let Err((_, fault)) = self.write(&mut staged) {
            tracing::warn!(why = fault.why(), "cannot write the summaries; the next start reads more");
        }
    }
}
