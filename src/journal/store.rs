//! The journal's handle.

use parsers::Micros;

use super::types::{
    Batch, Delivery, DeliveryKey, HistoryFilter, JournalError, JournalOptions, JournalStatus, LegRecord,
    Recovered, RouteId, Settlement, Trace,
};
use crate::calls::CallKey;

/// A handle on the one writer thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {}

impl Journal {
    /// Opens or makes the journal and starts its thread. Blocking.
    ///
    /// # Errors
    /// When it is in use, belongs to another user or PBX, or the directory cannot be written.
    /// A damaged generation is no error: it is put aside and named in [`Recovered`].
    pub fn open(_options: JournalOptions) -> Result<(Self, Recovered), JournalError> {
        Ok((Self {}, Recovered::default()))
    }

    /// Appends one batch; returns once it is on disk. Batches become durable in the order of the
    /// calls of this function from one task.
    ///
    /// # Errors
    /// When it is not on disk: nothing of it counts, and the tracker must be rebuilt from
    /// [`Journal::objects`].
    pub async fn append(&self, _batch: Batch) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    /// The open objects as they stand on disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn objects(&self) -> Result<Vec<(crate::calls::ObjectKey, Vec<u8>)>, JournalError> {
        Err(JournalError::Closed)
    }

    /// Up to `limit` deliveries of this route that are due, oldest first, each leased to the
    /// caller; and when the next one will be due, if none is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due(
        &self,
        _route: &RouteId,
        _now: Micros,
        _limit: usize,
    ) -> Result<(Vec<Delivery>, Option<Micros>), JournalError> {
        Err(JournalError::Closed)
    }

    /// Waits until something new may be due on this route: an append, or a settlement that frees
    /// the next delivery of a call. May wake for nothing.
    pub async fn wait_for_work(&self, _route: &RouteId) {}

    /// Ends a lease. Returns once it is on disk.
    ///
    /// # Errors
    /// When it is not on disk; the delivery may then be made again after a restart.
    pub async fn settle(
        &self,
        _key: DeliveryKey,
        _settlement: Settlement,
        _now: Micros,
    ) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    /// Small values that routes keep across restarts (verified URLs, breaker state), by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn note(&self, _name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        Err(JournalError::Closed)
    }

    /// Keeps such a value; `None` removes it.
    ///
    /// # Errors
    /// When it is not on disk.
    pub async fn set_note(&self, _name: &str, _value: Option<Vec<u8>>) -> Result<(), JournalError> {
        Err(JournalError::Closed)
    }

    /// Legs, live or past, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn legs(&self, _filter: HistoryFilter) -> Result<Vec<LegRecord>, JournalError> {
        Err(JournalError::Closed)
    }

    /// All that is known of one call.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn trace(&self, _call: &CallKey) -> Result<Trace, JournalError> {
        Err(JournalError::Closed)
    }

    /// How it stands.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn status(&self) -> Result<JournalStatus, JournalError> {
        Err(JournalError::Closed)
    }

    /// Batches of updates as they become durable; who lags loses some.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<std::sync::Arc<Vec<crate::calls::Update>>> {
        tokio::sync::broadcast::channel(1).1
    }

    /// Through the writer's thread and back: proof that it lives.
    pub async fn round_trip(&self) {}

    /// Syncs and stops the thread; later calls answer `Closed`.
    pub async fn close(&self) {}
}
