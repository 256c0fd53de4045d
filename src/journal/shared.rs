//! What the handle, the writer and the history thread share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, broadcast};

use super::pool::Pool;
use super::types::RouteId;
use crate::calls::Update;

/// Groups of updates that a slow listener may lag behind.
const LAG: usize = 256;

/// Shared state; nothing here is ever held for long.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) pool: Pool,
    pub(super) updates: broadcast::Sender<Arc<Vec<Update>>>,
    /// Held by the writer from the first byte written to the sync: nobody reads what may yet fail.
    unsynced: RwLock<()>,
    wakers: Mutex<HashMap<RouteId, Arc<Notify>>>,
    stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            pool: Pool::new(directory.join("outbox")),
            directory,
            updates: broadcast::Sender::new(LAG),
            unsynced: RwLock::default(),
            wakers: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.directory.join("quarantine")
    }

    pub(super) fn history(&self) -> PathBuf {
        self.directory.join("history")
    }

    /// The writer, while it writes.
    pub(super) fn hide(&self) -> RwLockWriteGuard<'_, ()> {
        self.unsynced.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Anyone else, while reading the outbox: briefly, commits wait.
    pub(super) fn synced(&self) -> RwLockReadGuard<'_, ()> {
        self.unsynced.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the history's thread to leave what it does.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A route's alarm clock.
    pub(super) fn waker(&self, route: &RouteId) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakers.entry(route.clone()).or_default())
    }

    /// Also where nobody waits yet: who waits next finds it ringing.
    pub(super) fn wake(&self, route: &RouteId) {
        self.waker(route).notify_one();
    }

    pub(super) fn wake_all(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.values().for_each(|waker| waker.notify_one());
    }
}
