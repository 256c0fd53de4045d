//! Named moments at which the tests kill the process. Outside of tests there is nothing here: the
//! calls compile to no code.

/// A moment at which a crash must cost nothing that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillPoint {
    /// A group is complete; nothing of it is written.
    BeforeWrite,
    /// A group is applied to a store, which is not synced.
    Written,
    /// A group is on disk; the witness does not say so.
    Synced,
    /// The witness says so; nobody was answered.
    Witnessed,
    /// A new head is filled, but not synced.
    HeadCreated,
    /// A new head is on disk; the old one does not know.
    HeadSynced,
    /// The old head is marked as sealed.
    Sealed,
    /// Some of a sealed generation's keys are in their month, not synced.
    KeysWritten,
    /// All of them are on disk; the writer does not know.
    KeysSynced,
    /// The head says so.
    KeysMarked,
    /// A settled generation is in the history; the writer does not know.
    Archived,
    /// A generation is done with, its directory stands.
    BeforeRemoval,
    /// Its directory is gone, its parent is not synced.
    Removed,
    /// A generation is copied and up to date beside the old one.
    Rewritten,
    /// The old one has lost its name, the new one has not got it.
    Replaced,
    /// The new one stands in its place; the head does not know.
    Exchanged,
    /// Everything is read at the start; no thread runs.
    Loaded,
}

/// Does nothing.
#[cfg(not(test))]
pub(super) const fn reached(_: KillPoint) {}

/// Where the environment names this point and the count is reached, says so and stands still until
/// the parent kills the process.
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a child talks to the test that started it")]
pub(super) fn reached(point: KillPoint) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The point and how many times it is passed first.
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("CALLPOST_JOURNAL_KILL_POINT").ok()?;
        let (point, passed) = text.split_once(' ')?;
        Some((point.to_owned(), passed.parse().ok()?))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let Some((wanted, passed)) = WANTED.as_ref() else { return };
    if *wanted == format!("{point:?}") && PASSED.fetch_add(1, Ordering::Relaxed) == *passed {
        println!("K {point:?}");
        loop {
            std::thread::park();
        }
    }
}
