//! What a backfill is asked, and what it says of itself while it runs, as JSON lines.

use std::collections::BTreeMap;

use parsers::Micros;
use serde::{Deserialize, Serialize};

/// What somebody asked for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Calls that began then or later.
    pub from: Micros,
    /// And before this.
    pub to: Micros,
    /// The arguments as they were typed: a run begun again with the same goes on where it was.
    pub arguments: String,
    /// Another store than `[cdr] source`; secret.
    pub source: Option<String>,
    /// For this NiMbox sink alone.
    pub route: Option<String>,
    /// Creates a second at most.
    pub rate: Option<f64>,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // a source has a password in it
        f.debug_struct("Ask").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Frame {
    /// It has begun to read.
    Begin {
        /// The first moment.
        from: Micros,
        /// The end.
        to: Micros,
        /// Where a run before this one had come to.
        resumed: Option<Micros>,
        /// How rows are found.
        paging: String,
        /// What the store's times are in.
        zone: String,
        /// What is to be known of the store: what, and what to do.
        warnings: Vec<(String, String)>,
    },
    /// How far it is.
    Progress(Progress),
    /// It is done: all was read, and each create was tried.
    Summary(Progress),
    /// It ended early.
    Failed {
        /// Why.
        what: String,
        /// What to do.
        remedy: String,
        /// How far it was.
        progress: Progress,
    },
}

/// How far a run is, and what became of what it read since it began, or went on. `creates` = `known` + `added` +
/// `deleted`, `put_off` apart, and `added` = `delivered` + `there` + `refused` + `failing` + `dead` + `waiting` +
/// `unseen`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The first moment.
    pub from: Micros,
    /// The end.
    pub to: Micros,
    /// How far it was read, about.
    pub at: Micros,
    /// All was read.
    pub read_all: bool,
    /// Rows, those around the span that its calls needed included.
    pub read: u64,
    /// Calls that began in the span.
    pub calls: u64,
    /// Calls that are left to the live path, which has not ended with them.
    pub held: u64,
    /// Creates that the others came to.
    pub creates: u64,
    /// Of these, known to have been sent, or to wait.
    pub known: u64,
    /// Not sent again, because their day was deleted.
    pub deleted: u64,
    /// New in the journal.
    pub added: u64,
    /// Rows and parts that made none, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// Not compared with the journal: a thousand wait already for a receiver that is down, and nobody
    /// waits for this run.
    pub put_off: u64,
    /// Accepted by the receiver.
    pub delivered: u64,
    /// NiMbox says that it has them already.
    pub there: u64,
    /// NiMbox refuses them, by reason; they are offered again by night.
    pub refused: BTreeMap<String, u64>,
    /// Their first attempt failed; they are tried again.
    pub failing: u64,
    /// Given up at once.
    pub dead: u64,
    /// In the journal, not tried yet.
    pub waiting: u64,
    /// Gone from the journal without a word of how.
    pub unseen: u64,
    /// Why nothing moves, if nothing does.
    pub hold: Option<String>,
}

impl Progress {
    /// Of the span, what was read: 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "for eyes")]
    pub fn part(&self) -> f64 {
        let (whole, done) = (self.to.0.saturating_sub(self.from.0), self.at.0.saturating_sub(self.from.0));
        if whole <= 0 { 1.0 } else { (done as f64 / whole as f64).clamp(0.0, 1.0) }
    }
}
