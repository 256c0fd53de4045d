//! What the handle asks of the writer thread.

use parsers::Micros;
use tokio::sync::oneshot;

use super::encode::{Prepared, PreparedEntry};
use super::engine::{Fault, Store};
use super::import::Import;
use super::replay::DeadMark;
use super::types::{
    DeadLetter, DeletedDays, Delivery, DeliveryKey, Imported, JournalError, JournalStatus, RouteId,
    Selection, Settlement,
};
use crate::calls::ObjectKey;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// One request. The first seven are committed in groups; the others are answered between groups.
#[derive(Debug)]
pub(super) enum Command {
    Append(Box<Prepared>, Reply<()>),
    Settle(DeliveryKey, Settlement, Micros, Reply<()>),
    SetNote(String, Option<Vec<u8>>, Reply<()>),
    Import(Box<Import>, Reply<Imported>),
    /// Days were deleted at that time.
    Deleted(DeletedDays, Micros, Reply<()>),
    /// As `Settle`, with the next group that is committed, or at the next `Flush`.
    SettleSoon(DeliveryKey, Settlement, Micros, Reply<()>),
    Flush,
    Due {
        route: RouteId,
        now: Micros,
        limit: usize,
        reply: Reply<(Vec<Delivery>, Option<Micros>)>,
    },
    Objects(Reply<Vec<(ObjectKey, Vec<u8>)>>),
    Note(String, Reply<Option<Vec<u8>>>),
    /// Those behind a place.
    Dead {
        what: Selection,
        after: Option<DeliveryKey>,
        limit: usize,
        reply: Reply<Vec<DeadLetter>>,
    },
    /// Where the dead letters that match stand, in order.
    DeadMarks(Selection, Reply<Vec<DeadMark>>),
    /// Append these; they were settled before.
    Again(Vec<PreparedEntry>, Micros, Reply<()>),
    DeadRetry {
        keys: Vec<DeliveryKey>,
        now: Micros,
        reply: Reply<u64>,
    },
    DeadDrop {
        keys: Vec<DeliveryKey>,
        reply: Reply<u64>,
    },
    /// How many wait on a route.
    Pending(RouteId, Reply<u64>),
    /// Gives up some of what waits on a route.
    DropPending(RouteId, Reply<u64>),
    Status(Reply<JournalStatus>),
    /// Answers the error that keeps it from writing, if any.
    RoundTrip(Reply<Option<String>>),
    /// From the history thread: a generation was copied, or why not.
    Archived(u64, Result<(), ArchiveFault>),
    /// From the history thread: what a sealed generation knows of creates is in the months, or why not.
    KeysCopied(u64, Result<(), ArchiveFault>),
    /// From the history thread: a generation's files are gone.
    Removed(u64),
    /// From the history thread: a generation's copy, unless it needs none, or why there is none.
    Rewritten(u64, Box<Result<Option<Store>, Fault>>),
    /// From the history thread: time to look at ages.
    Tick,
    /// Empties the oldest sealed generation.
    #[cfg(test)]
    Forward(Reply<()>),
    /// Whether nothing waits to be copied into the months.
    #[cfg(test)]
    KeysAreCopied(Reply<bool>),
    /// As `Tick` at that time.
    #[cfg(test)]
    Stragglers(i64, Reply<()>),
    /// Does nothing until the other end is dropped.
    #[cfg(test)]
    Hold(std::sync::mpsc::Receiver<()>),
    Close(Reply<()>),
}

/// Why a generation was not copied into the history.
#[derive(Clone, Debug)]
pub(super) enum ArchiveFault {
    /// It cannot be read.
    Generation(Fault),
    /// The history cannot be written.
    History(Fault),
}
