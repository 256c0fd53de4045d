//! Sending again what the journal still holds.

use parsers::Micros;
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError, Replayed, Selection};

/// What was sent again, or would be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplayAnswer {
    /// How many.
    #[serde(flatten)]
    pub replayed: Replayed,
    /// The first day (UTC, `YYYY-MM-DD`) of which the journal still holds something; `None`: it has
    /// no history yet, so nothing of it has gone.
    pub held_since: Option<String>,
}

/// Sends again what is selected, or only counts it.
///
/// # Errors
/// When the store cannot be read, or something is not on disk: a part may have been put back.
pub async fn replay(
    journal: &Journal,
    what: &Selection,
    send: bool,
    now: Micros,
) -> Result<ReplayAnswer, JournalError> {
    let replayed =
        if send { journal.replay(what, now).await? } else { journal.replay_count(what, now).await? };
    Ok(ReplayAnswer { replayed, held_since: journal.held_since() })
}
