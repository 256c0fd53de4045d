//! The journal's handle.

use std::sync::Arc;
use std::time::Duration;

use parsers::Micros;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::command::{Command, Reply};
use super::encode::{ANSWER_CAP, NAME_CAP, PreparedEntry, capped, cut, name_fits, prepare};
use super::history::Job;
use super::import::Import;
use super::open;
use super::shared::Shared;
use super::types::{
    Batch, DeadLetter, DeletedDays, Delivery, DeliveryKey, HistoryFilter, Imported, JournalError,
    JournalOptions, JournalStatus, LegRecord, Outgoing, Recovered, RouteId, Selection, Settlement, Trace,
};
use crate::calls::{CallKey, Update};

/// Questions about the past that may wait at once.
const QUESTIONS: usize = 16;

/// How long a settlement may wait for company.
const SOON: Duration = Duration::from_millis(20);

/// A handle on the one writer thread; cheap to clone. When the last one is gone the thread syncs
/// and ends.
#[derive(Clone, Debug)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    jobs: std::sync::mpsc::Sender<Job>,
    questions: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens or makes the journal and starts its thread. Blocking.
    ///
    /// # Errors
    /// When it is in use, belongs to another user or PBX, or the directory cannot be written.
    /// A damaged generation is no error: it is put aside and named in [`Recovered`].
    pub fn open(options: JournalOptions) -> Result<(Self, Recovered), JournalError> {
        let (opened, recovered) = open::open(options)?;
        let open::Opened { shared, commands, jobs } = opened;
        Ok((Self { commands, jobs, questions: Arc::new(Semaphore::new(QUESTIONS)), shared }, recovered))
    }

    /// Appends one batch; returns once it is on disk. Batches become durable in the order of the
    /// calls of this function from one task.
    ///
    /// # Errors
    /// When it is not on disk: nothing of it counts, and the tracker must be rebuilt from
    /// [`Journal::objects`].
    pub async fn append(&self, batch: Batch) -> Result<(), JournalError> {
        let batch = Box::new(prepare(batch)?);
        self.ask(|reply| Command::Append(batch, reply)).await
    }

    /// Appends the creates that are not known yet, each addressed to its history lane
    /// ([`RouteId::history`]); returns once they are on disk. `explicit`: somebody asked for them, so
    /// those of deleted days are sent again. The writer does nothing else meanwhile: give at most a
    /// thousand or so at a time.
    ///
    /// # Errors
    /// When they are not on disk: nothing of them counts.
    pub async fn import(&self, creates: Vec<Outgoing>, explicit: bool) -> Result<Imported, JournalError> {
        let creates = creates.into_iter().map(PreparedEntry::of).collect::<Result<_, _>>()?;
        let import = Box::new(Import { creates, explicit });
        self.ask(|reply| Command::Import(import, reply)).await
    }

    /// Days were deleted from a NiMbox at that time: what is known of them is not there any more.
    ///
    /// # Errors
    /// When it is not on disk.
    pub async fn note_deleted(&self, days: &DeletedDays, at: Micros) -> Result<(), JournalError> {
        name_fits(&days.route.0)?;
        let days = days.clone();
        self.ask(|reply| Command::Deleted(days, at, reply)).await
    }

    /// How many deliveries wait on this route, those under way included.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn pending(&self, route: &RouteId) -> Result<u64, JournalError> {
        let route = route.clone();
        self.ask(|reply| Command::Pending(route, reply)).await
    }

    /// The open objects as they stand on disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn objects(&self) -> Result<Vec<(crate::calls::ObjectKey, Vec<u8>)>, JournalError> {
        self.ask(Command::Objects).await
    }

    /// Up to `limit` deliveries of this route that are due, oldest first, each leased to the
    /// caller; and when the next one will be due, if there are fewer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due(
        &self,
        route: &RouteId,
        now: Micros,
        limit: usize,
    ) -> Result<(Vec<Delivery>, Option<Micros>), JournalError> {
        let route = route.clone();
        self.ask(|reply| Command::Due { route, now, limit, reply }).await
    }

    /// Waits until something new may be due on this route: an append, or a settlement that frees
    /// the next delivery of a call. May wake for nothing.
    pub async fn wait_for_work(&self, route: &RouteId) {
        let waker = self.shared.waker(route);
        waker.notified().await;
    }

    /// Ends a lease. Returns once it is on disk. A delivery that is not leased is left as it is.
    ///
    /// # Errors
    /// When it is not on disk: the lease stands, so settle it again, or the delivery is made again
    /// after a restart.
    pub async fn settle(
        &self,
        key: DeliveryKey,
        settlement: Settlement,
        now: Micros,
    ) -> Result<(), JournalError> {
        let settlement = bounded(settlement);
        self.ask(|reply| Command::Settle(key, settlement, now, reply)).await
    }

    /// As [`Journal::settle`] for whom a moment does not matter: it is committed with what comes next,
    /// or alone after 20 ms.
    ///
    /// # Errors
    /// As [`Journal::settle`].
    pub async fn settle_soon(
        &self,
        key: DeliveryKey,
        settlement: Settlement,
        now: Micros,
    ) -> Result<(), JournalError> {
        let (reply, mut answer) = oneshot::channel();
        let command = Command::SettleSoon(key, bounded(settlement), now, reply);
        self.commands.send(command).await.map_err(|_| JournalError::Closed)?;
        if let Ok(answer) = tokio::time::timeout(SOON, &mut answer).await {
            return answer.map_err(|_| JournalError::Closed)?;
        }
        self.commands.send(Command::Flush).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// Small values that routes keep across restarts (verified URLs, breaker state), by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn note(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let name = note_name(name)?;
        self.ask(|reply| Command::Note(name, reply)).await
    }

    /// Keeps such a value; `None` removes it.
    ///
    /// # Errors
    /// When it is not on disk.
    pub async fn set_note(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), JournalError> {
        let name = note_name(name)?;
        let value = value.map(capped).transpose()?;
        self.ask(|reply| Command::SetNote(name, value, reply)).await
    }

    /// Legs, live or past, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn legs(&self, filter: HistoryFilter) -> Result<Vec<LegRecord>, JournalError> {
        self.ask_history(|reply| Job::Legs(filter, reply)).await
    }

    /// All that is known of one call.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn trace(&self, call: &CallKey) -> Result<Trace, JournalError> {
        let call = call.clone();
        self.ask_history(|reply| Job::Trace(call, reply)).await
    }

    /// Dead letters, of one route or of all, at most so many.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn dead(&self, route: Option<&RouteId>, limit: usize) -> Result<Vec<DeadLetter>, JournalError> {
        let what = Selection { route: route.cloned(), ..Selection::default() };
        let mut letters = self.dead_where(&what, None, limit).await?;
        letters.sort_by_key(|letter| (letter.died, letter.key));
        Ok(letters)
    }

    /// Dead letters by route, id and when they were accepted, in order of their places, at most so
    /// many; `after` is the last one of the page before. What only the receiver may see is left out;
    /// it is sent when they are made again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn dead_where(
        &self,
        what: &Selection,
        after: Option<DeliveryKey>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, JournalError> {
        let what = what.clone();
        let mut letters = self.ask(|reply| Command::Dead { what, after, limit, reply }).await?;
        for letter in &mut letters {
            if letter.payload.conceal() {
                letter.answer.clear();
            }
        }
        Ok(letters)
    }

    /// Makes deliveries of dead letters again, with their old ids and in the order given, behind
    /// whatever their calls have waiting. Answers how many there were. The writer does nothing else
    /// meanwhile: give at most a hundred or so at a time.
    ///
    /// # Errors
    /// When it is not on disk; some may have been put back.
    pub async fn dead_retry(&self, keys: Vec<DeliveryKey>, now: Micros) -> Result<u64, JournalError> {
        self.ask(|reply| Command::DeadRetry { keys, now, reply }).await
    }

    /// Drops dead letters for good. Answers how many there were.
    ///
    /// # Errors
    /// When it is not on disk; some may have been dropped.
    pub async fn dead_drop(&self, keys: Vec<DeliveryKey>) -> Result<u64, JournalError> {
        self.ask(|reply| Command::DeadDrop { keys, reply }).await
    }

    /// Gives up some of what waits on a route that nobody delivers to any more; what is leased is left
    /// alone. Answers how many there were; 0 when there are no more.
    ///
    /// # Errors
    /// When it is not on disk; some may have been given up.
    pub async fn drop_pending(&self, route: &RouteId) -> Result<u64, JournalError> {
        let route = route.clone();
        self.ask(|reply| Command::DropPending(route, reply)).await
    }

    /// Updates as they become durable, a group at a time. Who listens too slowly misses some.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<Update>>> {
        self.shared.updates.subscribe()
    }

    /// Passes through the writer thread and back, also while the disk is full: for the watchdog.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn round_trip(&self) -> Result<(), JournalError> {
        self.ask(Command::RoundTrip).await.map(drop)
    }

    /// The error that keeps it from writing now, if any: for readiness.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn fault(&self) -> Result<Option<String>, JournalError> {
        self.ask(Command::RoundTrip).await
    }

    /// How often open objects were lost with a damaged file since the start. Where it has risen, the
    /// tracker must write all of its objects again, whoever met the damage.
    pub fn objects_lost(&self) -> u64 {
        self.shared.objects_lost()
    }

    /// How it stands.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn status(&self) -> Result<JournalStatus, JournalError> {
        self.ask(Command::Status).await
    }

    /// The first day, UTC, of the history that is still there; `None` while there is no history.
    pub fn held_since(&self) -> Option<String> {
        let entries = std::fs::read_dir(self.shared.history()).ok()?;
        let days = entries.flatten().filter(|entry| entry.path().is_dir());
        days.filter_map(|entry| entry.file_name().into_string().ok()).min()
    }

    /// Empties the oldest sealed generation into the head.
    #[cfg(test)]
    pub(super) async fn forward_oldest(&self) -> Result<(), JournalError> {
        self.ask(Command::Forward).await
    }

    /// Whether what every sealed generation knows of creates is in the months.
    #[cfg(test)]
    pub(super) async fn keys_are_copied(&self) -> Result<bool, JournalError> {
        self.ask(Command::KeysAreCopied).await
    }

    /// What is done at this time with generations of which little is left.
    #[cfg(test)]
    pub(super) async fn stragglers(&self, now: Micros) -> Result<(), JournalError> {
        self.ask(|reply| Command::Stragglers(now.0, reply)).await
    }

    /// The writer does nothing until what this returns is dropped: a disk that stalls.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (held, until) = std::sync::mpsc::channel();
        // one that is closed does nothing already
        let _ = self.commands.send(Command::Hold(until)).await;
        held
    }

    /// Ends the threads once what waits is on disk; later calls answer `Closed`.
    pub async fn close(&self) {
        // closed already is closed
        let _ = self.ask(Command::Close).await;
    }

    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    pub(super) async fn ask_history<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, JournalError> {
        let _turn = self.questions.acquire().await.map_err(|_| JournalError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

/// Reasons and answers come from outside: at most 1 KiB of each is kept.
fn bounded(mut settlement: Settlement) -> Settlement {
    let texts = match &mut settlement {
        Settlement::Delivered { answer, .. } => [Some(answer), None],
        Settlement::Retry { why, .. } => [Some(why), None],
        Settlement::Dead { why, answer, .. } | Settlement::Refused { why, answer } => {
            [Some(why), Some(answer)]
        }
        Settlement::Released => [None, None],
    };
    for text in texts.into_iter().flatten() {
        text.truncate(cut(text, ANSWER_CAP).len());
    }
    settlement
}

fn note_name(name: &str) -> Result<String, JournalError> {
    if name.len() > NAME_CAP { Err(JournalError::TooLarge(name.len())) } else { Ok(name.to_owned()) }
}
