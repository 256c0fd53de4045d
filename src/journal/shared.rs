//! What the handle, the writer and the history thread share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, broadcast};

use super::months::Months;
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
    pub(super) months: Months,
    pub(super) updates: broadcast::Sender<Arc<Vec<Update>>>,
    /// Held by the writer from the first byte written to the sync: nobody reads what may yet fail.
    unsynced: RwLock<()>,
    wakers: Mutex<HashMap<RouteId, Arc<Notify>>>,
    stopping: AtomicBool,
    /// Bytes outside the outbox.
    outside: AtomicU64,
    /// Days of history, months of delivered keys, stores in quarantine that nobody needs any more.
    days: AtomicU64,
    key_months: AtomicU64,
    spare: AtomicU64,
    pruning: AtomicBool,
    /// Bytes that the journal takes.
    used: AtomicU64,
    /// How often open objects were lost.
    objects_lost: AtomicU64,
}

impl Shared {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            pool: Pool::new(directory.join("outbox")),
            months: Months::new(&directory),
            directory,
            updates: broadcast::Sender::new(LAG),
            unsynced: RwLock::default(),
            wakers: Mutex::default(),
            stopping: AtomicBool::new(false),
            outside: AtomicU64::new(0),
            days: AtomicU64::new(0),
            key_months: AtomicU64::new(0),
            spare: AtomicU64::new(0),
            pruning: AtomicBool::new(false),
            used: AtomicU64::new(0),
            objects_lost: AtomicU64::new(0),
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

    /// The history's thread says what it found outside the outbox.
    pub(super) fn set_outside(&self, bytes: u64, days: u64, months: u64, spare: u64) {
        self.outside.store(bytes, Ordering::Relaxed);
        self.days.store(days, Ordering::Relaxed);
        self.key_months.store(months, Ordering::Relaxed);
        self.spare.store(spare, Ordering::Relaxed);
    }

    pub(super) fn outside(&self) -> u64 {
        self.outside.load(Ordering::Relaxed)
    }

    pub(super) fn days(&self) -> u64 {
        self.days.load(Ordering::Relaxed)
    }

    pub(super) fn key_months(&self) -> u64 {
        self.key_months.load(Ordering::Relaxed)
    }

    /// Whether there is something settled that can be given up.
    pub(super) fn can_prune(&self) -> bool {
        self.days() > 0 || self.key_months() > 0 || self.spare.load(Ordering::Relaxed) > 0
    }

    /// Says that something is to be given up, or that it was; answers what held before.
    pub(super) fn set_pruning(&self, pruning: bool) -> bool {
        self.pruning.swap(pruning, Ordering::Relaxed)
    }

    pub(super) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The open objects on disk are not all there were.
    pub(super) fn lost_objects(&self) {
        self.objects_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn objects_lost(&self) -> u64 {
        self.objects_lost.load(Ordering::Relaxed)
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
