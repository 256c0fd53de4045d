//! Dead letters: which, page by page. The socket asks for others, the commands for themselves where
//! no agent runs.

use parsers::Micros;
use serde::{Deserialize, Serialize};

use crate::calls::UpdateId;
use crate::clock;
use crate::journal::{DeadLetter, DeliveryKey, Journal, JournalError, RouteId, Selection};

/// Most letters in one answer.
pub const MOST_LETTERS: usize = 1000;
/// Letters put back or dropped by one request: the journal writes them one by one, and calls wait
/// for it meanwhile.
pub const SMALL_PAGE: usize = 64;
/// Letters looked through at once.
const LOOK: usize = 256;

/// Which dead letters; all of them without any bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadQuery {
    /// Of this route.
    pub route: Option<RouteId>,
    /// With one of these ids; empty: whatever their ids.
    pub ids: Vec<UpdateId>,
    /// Given up before: those put back that died again do not come twice.
    pub before: Option<Micros>,
    /// Behind this place: where the page before ended.
    pub after: Option<DeliveryKey>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Some of them, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<DeliveryKey>,
}

/// What became of some of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeadDone {
    /// Which: id and route.
    pub done: Vec<(UpdateId, RouteId)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<DeliveryKey>,
}

/// Of which route what waits is given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingQuery {
    /// One that is not configured.
    pub route: RouteId,
}

/// How many were given up; 0: there are no more.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PendingDone {
    /// Deliveries.
    pub dropped: u64,
}

impl PendingQuery {
    /// Gives up some of what waits on the route.
    ///
    /// # Errors
    /// When it is not on disk; some may have been given up.
    pub async fn drop(&self, journal: &Journal) -> Result<PendingDone, JournalError> {
        let dropped = match journal.drop_pending(&self.route).await? {
            0 => journal.drop_pending(&self.route.history()).await?,
            dropped => dropped,
        };
        Ok(PendingDone { dropped })
    }
}

impl DeadQuery {
    /// A page of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&self, journal: &Journal) -> Result<DeadPage, JournalError> {
        let limit = self.limit.unwrap_or(MOST_LETTERS).clamp(1, MOST_LETTERS);
        let mut letters = Vec::new();
        let mut after = self.after;
        let of_route = Selection { route: self.route.clone(), ..Selection::default() };
        loop {
            let looked = journal.dead_where(&of_route, after, LOOK).await?;
            let last = looked.len() < LOOK;
            for letter in looked {
                let key = letter.key;
                after = Some(key);
                if self.wants(&letter) {
                    letters.push(letter);
                    if letters.len() == limit {
                        return Ok(DeadPage { letters, next: Some(key) });
                    }
                }
            }
            if last {
                return Ok(DeadPage { letters, next: None });
            }
        }
    }

    /// Makes deliveries of a page of them again.
    ///
    /// # Errors
    /// When it is not on disk; some may have been put back.
    pub async fn retry(&self, journal: &Journal) -> Result<DeadDone, JournalError> {
        let (keys, done) = self.chosen(journal).await?;
        journal.dead_retry(keys, clock::now()).await?;
        Ok(done)
    }

    /// Drops a page of them for good.
    ///
    /// # Errors
    /// When it is not on disk; some may have been dropped.
    pub async fn drop(&self, journal: &Journal) -> Result<DeadDone, JournalError> {
        let (keys, done) = self.chosen(journal).await?;
        journal.dead_drop(keys).await?;
        Ok(done)
    }

    async fn chosen(&self, journal: &Journal) -> Result<(Vec<DeliveryKey>, DeadDone), JournalError> {
        let page = Self { limit: Some(SMALL_PAGE), ..self.clone() }.page(journal).await?;
        let keys = page.letters.iter().map(|letter| letter.key).collect();
        let done = page.letters.into_iter().map(|letter| (letter.id, letter.route)).collect();
        Ok((keys, DeadDone { done, next: page.next }))
    }

    fn wants(&self, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.before.is_none_or(|before| letter.died < before)
    }
}
