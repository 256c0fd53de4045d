//! Where runs were that did not end, in a note of the journal: at most a few, the latest last.

use parsers::Micros;
use serde::{Deserialize, Serialize};

use crate::digest;
use crate::hex::hex;
use crate::journal::{DeletedDays, Journal, JournalError};

/// Its name.
const NOTE: &str = "cdr/backfills";
/// So many runs are remembered.
const MOST: usize = 16;

/// Where one run was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// What it was asked, hashed: a source has a password in it.
    pub run: String,
    /// The first moment of its span.
    pub from: Micros,
    /// Everything that began before this is in the journal.
    pub again: Micros,
}

/// Names a run by what it was asked.
pub(super) fn name(parts: &[&str]) -> String {
    hex(&digest::of_texts(parts)[..16])
}

/// Where this run was, if it was cut off.
pub(super) async fn find(journal: &Journal, run: &str) -> Option<Checkpoint> {
    all(journal).await.into_iter().find(|known| known.run == run)
}

/// Writes down where it is.
pub(super) async fn keep(journal: &Journal, checkpoint: Checkpoint) -> Result<(), JournalError> {
    let mut all = all(journal).await;
    all.retain(|known| known.run != checkpoint.run);
    all.push(checkpoint);
    let excess = all.len().saturating_sub(MOST);
    all.drain(..excess);
    write(journal, &all).await
}

/// It has ended: the next one starts anew.
pub(super) async fn forget(journal: &Journal, run: &str) -> Result<(), JournalError> {
    let mut all = all(journal).await;
    let before = all.len();
    all.retain(|known| known.run != run);
    if all.len() == before { Ok(()) } else { write(journal, &all).await }
}

/// Days were deleted from a NiMbox: what is known of them is not there any more, and a run that was cut
/// off after them must not go on behind them.
///
/// # Errors
/// When it is not on disk.
pub async fn note_deleted(journal: &Journal, days: &DeletedDays, at: Micros) -> Result<(), JournalError> {
    write(journal, &[]).await?;
    journal.note_deleted(days, at).await
}

async fn all(journal: &Journal) -> Vec<Checkpoint> {
    let note = journal.note(NOTE).await.ok().flatten();
    note.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

async fn write(journal: &Journal, all: &[Checkpoint]) -> Result<(), JournalError> {
    let text = (!all.is_empty()).then(|| serde_json::to_vec(all).unwrap_or_default());
    journal.set_note(NOTE, text).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;
    use crate::journal::{JournalOptions, RouteId};

    #[tokio::test]
    async fn after_a_delete_a_run_that_was_cut_off_starts_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(JournalOptions::of_tests(directory.path())).unwrap();
        let run = name(&["--full"]);
        let checkpoint = Checkpoint { run: run.clone(), from: Micros(0), again: Micros(9) };
        keep(&journal, checkpoint.clone()).await.unwrap();
        assert_eq!(find(&journal, &run).await, Some(checkpoint));
        let day = jiff::civil::date(2026, 11, 1);
        let days =
            DeletedDays { route: RouteId("crm".into()), from: day, to: jiff::civil::date(2026, 11, 3) };
        note_deleted(&journal, &days, Micros(10)).await.unwrap();
        assert_eq!(find(&journal, &run).await, None);
        journal.close().await;
    }
}
