//! Questions about calls, live and past: what may be asked, and the bounds of each answer. The
//! socket asks for others, the commands for themselves where no agent runs.

use std::fmt::Write;

use parsers::Micros;
use serde::{Deserialize, Serialize};

use crate::calls::{CallKey, UpdateBody};
use crate::journal::{HistoryFilter, Journal, JournalError, LegRecord, Trace};

/// Most legs in one answer: the journal's own limit.
pub const MOST_LEGS: usize = 1000;
/// Most messages and most deliveries in one trace: a call that loops has many thousands, and its
/// beginning and end tell most.
const MOST_LINES: usize = 5000;
/// How many times [`MOST_LEGS`] are searched for the beginning of a `src_hash`.
const MOST_PAGES: usize = 20;
/// A `src_hash` has this many digits.
const HASH_DIGITS: usize = 40;
/// With fewer, too many calls begin alike.
const LEAST_DIGITS: usize = 4;
/// Calls named when there are several.
const MOST_NAMED: usize = 5;

/// Which legs: the query of `GET /legs`. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegsQuery {
    /// Only live ones.
    pub live: bool,
    /// Only missed ones.
    pub missed: bool,
    /// From or to this number, exactly.
    pub number: Option<String>,
    /// With this `call_id`.
    pub call_id: Option<u64>,
    /// Started at or after.
    pub from: Option<i64>,
    /// Started before.
    pub to: Option<i64>,
    /// At most so many, and never more than [`MOST_LEGS`].
    pub limit: Option<usize>,
}

impl LegsQuery {
    /// As the query of a URL.
    pub(super) fn text(&self) -> String {
        let mut text = format!("live={}&missed={}", self.live, self.missed);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                let _ = write!(text, "&{name}={value}");
            }
        };
        add("number", self.number.clone());
        add("call_id", self.call_id.map(|id| id.to_string()));
        add("from", self.from.map(|at| at.to_string()));
        add("to", self.to.map(|at| at.to_string()));
        add("limit", self.limit.map(|limit| limit.to_string()));
        text
    }

    /// Asks the journal: newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn ask(&self, journal: &Journal) -> Result<Vec<LegRecord>, JournalError> {
        let filter = HistoryFilter {
            live: self.live,
            missed: self.missed,
            call: None,
            call_id: self.call_id,
            number: self.number.clone(),
            from: self.from.map(Micros),
            to: self.to.map(Micros),
            limit: self.limit.unwrap_or(MOST_LEGS).min(MOST_LEGS),
        };
        journal.legs(filter).await
    }
}

/// How a person names a call: by its `src_hash`, the beginning of one, or the `call_id` of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallName(String);

impl std::str::FromStr for CallName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_end_matches('…').to_ascii_lowercase();
        if !(LEAST_DIGITS..=HASH_DIGITS).contains(&text.len())
            || !text.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err("not a call: name its call_id, or 4 to 40 digits of its src_hash");
        }
        Ok(Self(text))
    }
}

impl std::fmt::Display for CallName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One call and all that is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallTrace {
    /// Its `src_hash`.
    pub call: CallKey,
    /// Messages and deliveries left out of the middle, because there are too many.
    #[serde(default)]
    pub left_out: usize,
    /// What is known.
    #[serde(flatten)]
    pub trace: Trace,
}

/// Why there is no trace.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FindError {
    /// No call has that name.
    #[error("the journal holds no call {0}: `callpost calls` lists those it holds")]
    Unknown(CallName),
    /// Several have.
    #[error("{name} is the beginning of several calls: {calls}")]
    Several {
        /// What was asked for.
        name: CallName,
        /// Some of them.
        calls: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// All that is known of the call of that name.
///
/// # Errors
/// When there is none, or several; or when the store cannot be read.
pub async fn find(journal: &Journal, name: &CallName) -> Result<CallTrace, FindError> {
    let call = key(journal, name).await?;
    let trace = journal.trace(&call).await?;
    if trace.messages.is_empty() && trace.updates.is_empty() && trace.cdrs.is_empty() {
        return Err(FindError::Unknown(name.clone()));
    }
    Ok(bounded(call, trace))
}

fn bounded(call: CallKey, mut trace: Trace) -> CallTrace {
    let left_out = thin(&mut trace.messages)
        + thin(&mut trace.updates)
        + thin(&mut trace.cdrs)
        + thin(&mut trace.deliveries);
    CallTrace { call, left_out, trace }
}

/// Takes the middle out of too many.
fn thin<T>(lines: &mut Vec<T>) -> usize {
    let more = lines.len().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.drain(MOST_LINES / 2..MOST_LINES / 2 + more);
    }
    more
}

async fn key(journal: &Journal, name: &CallName) -> Result<CallKey, FindError> {
    if name.0.len() == HASH_DIGITS {
        return Ok(CallKey(name.0.as_str().into()));
    }
    if let Ok(call_id) = name.0.parse() {
        let query = LegsQuery { call_id: Some(call_id), limit: Some(1), ..LegsQuery::default() };
        if let Some(leg) = query.ask(journal).await?.into_iter().next() {
            return Ok(leg.call);
        }
    }
    beginning(journal, name).await
}

/// The one call whose `src_hash` begins so, among the newest.
async fn beginning(journal: &Journal, name: &CallName) -> Result<CallKey, FindError> {
    let mut found: Vec<CallKey> = Vec::new();
    let mut query = LegsQuery { limit: Some(MOST_LEGS), ..LegsQuery::default() };
    for _ in 0..MOST_PAGES {
        let legs = query.ask(journal).await?;
        for leg in &legs {
            if leg.call.0.starts_with(&name.0) && !found.contains(&leg.call) {
                found.push(leg.call.clone());
            }
        }
        query.to = legs.last().and_then(|leg| match &leg.body {
            UpdateBody::Leg(leg) => Some(leg.start.0),
            UpdateBody::Sms(_) => None,
        });
        if legs.len() < MOST_LEGS || query.to.is_none() {
            break;
        }
    }
    match found.as_slice() {
        [] => Err(FindError::Unknown(name.clone())),
        [call] => Ok(call.clone()),
        several => {
            let calls: Vec<&str> = several.iter().take(MOST_NAMED).map(|call| &*call.0).collect();
            Err(FindError::Several { name: name.clone(), calls: calls.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_digits_alone() {
        for good in ["139543232", "3F2A", "3f2a…", &"a".repeat(40)] {
            assert!(good.parse::<CallName>().is_ok(), "{good}");
        }
        for bad in ["", "3f2", "../status", "3f2a 1", "xyzw", &"a".repeat(41)] {
            assert!(bad.parse::<CallName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn too_long_a_trace_keeps_its_beginning_and_its_end() {
        let mut lines: Vec<usize> = (0..MOST_LINES + 7).collect();
        assert_eq!(thin(&mut lines), 7);
        assert_eq!(
            (lines.len(), lines.first(), lines.last()),
            (MOST_LINES, Some(&0), Some(&(MOST_LINES + 6)))
        );
        assert_eq!(thin(&mut lines), 0);
    }
}
