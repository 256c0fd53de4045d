//! What is due on a route: a small window over the schedules (`t` keys) of the generations.
//!
//! A delivery is examined once: it becomes ready, or it is blocked by the unsettled delivery before
//! it. What was examined lies behind a cursor and is not read again; a retry goes back into the
//! schedule with its new time.

use std::collections::{BTreeMap, HashMap};

use super::types::DeliveryKey;

/// Most deliveries that are ready in memory.
pub(super) const WINDOW: usize = 4096;
/// Most deliveries known to be blocked; beyond it they are found again by another scan.
const MOST_BLOCKED: usize = 32 * 1024;

/// How far a route's schedule in one generation was examined.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// First attempts: everything before this place was examined.
    pub(super) fresh: Option<DeliveryKey>,
    /// No first attempts beyond what was examined.
    pub(super) fresh_done: bool,
    /// Further attempts: everything before this time and place was examined.
    pub(super) retry: Option<(i64, DeliveryKey)>,
    /// When the next further attempt is due.
    pub(super) ahead: Ahead,
}

/// What lies beyond the cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Nobody looked.
    #[default]
    Unknown,
    /// Nothing.
    Nothing,
    /// Something at that time, nothing before.
    At(i64),
}

impl Scan {
    /// Whether the generation must be read for what is due now.
    pub(super) fn wants_reading(&self, now: i64) -> bool {
        !self.fresh_done || self.retry_due(now)
    }

    pub(super) fn retry_due(&self, now: i64) -> bool {
        match self.ahead {
            Ahead::Unknown => true,
            Ahead::Nothing => false,
            Ahead::At(at) => at <= now,
        }
    }

    /// A retry was put into the schedule.
    pub(super) fn scheduled(&mut self, next: i64, key: DeliveryKey) {
        if self.retry.is_some_and(|cursor| (next, key) < cursor) {
            self.retry = Some((next, key));
        }
        self.ahead = match self.ahead {
            Ahead::Unknown => Ahead::Unknown,
            Ahead::Nothing => Ahead::At(next),
            Ahead::At(at) => Ahead::At(at.min(next)),
        };
    }
}

/// One route's window.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Due and free to go, oldest first.
    ready: BTreeMap<DeliveryKey, i64>,
    /// By the delivery that must be settled first.
    blocked: HashMap<DeliveryKey, Vec<(DeliveryKey, i64)>>,
    blocked_count: usize,
    /// Some blocked ones were let go.
    overflowed: bool,
    /// Something was settled since.
    moved: bool,
}

impl Window {
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.ready.len())
    }

    pub(super) fn is_ready(&self, key: DeliveryKey) -> bool {
        self.ready.contains_key(&key)
    }

    /// Makes one ready.
    pub(super) fn ready(&mut self, key: DeliveryKey, next: i64) {
        self.ready.insert(key, next);
    }

    /// Notes that one waits for another.
    pub(super) fn blocked(&mut self, before: DeliveryKey, key: DeliveryKey, next: i64) {
        if self.blocked_count >= MOST_BLOCKED {
            self.overflowed = true;
            self.moved = false;
            return;
        }
        let waiting = self.blocked.entry(before).or_default();
        if waiting.iter().all(|(known, _)| *known != key) {
            waiting.push((key, next));
            self.blocked_count += 1;
        }
    }

    /// Whether one that is settled lets others go.
    pub(super) fn is_awaited(&self, key: DeliveryKey) -> bool {
        self.overflowed || self.blocked.contains_key(&key)
    }

    /// One is settled: those that waited for it are ready. Answers whether there may be any.
    pub(super) fn settled(&mut self, key: DeliveryKey) -> bool {
        self.ready.remove(&key);
        self.moved = true;
        let Some(freed) = self.blocked.remove(&key) else { return self.overflowed };
        self.blocked_count -= freed.len();
        self.ready.extend(freed);
        true
    }

    /// Takes the oldest that is ready.
    pub(super) fn take(&mut self) -> Option<(DeliveryKey, i64)> {
        self.ready.pop_first()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether the schedules must be examined from their beginning again, because more was blocked
    /// than the window holds; if so it starts empty.
    pub(super) fn must_start_over(&mut self) -> bool {
        if !self.overflowed || !self.moved || !self.ready.is_empty() {
            return false;
        }
        *self = Self::default();
        true
    }
}
