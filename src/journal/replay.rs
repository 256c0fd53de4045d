//! Sending again what the journal still holds, with the ids it had: dead letters go back into the
//! outbox, everything else that was settled is appended again. What waits still is left alone.
//!
//! The history's thread reads a page at a time and answers questions in between; the writer appends
//! what a page held as one group. Nothing appended by a replay is found by it: it was accepted later.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use parsers::Micros;

use super::bundle::Bundle;
use super::command::Command;
use super::day;
use super::encode::{Entry, PreparedEntry, StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{Reader, key, kind};
use super::history::{Historian, Job, day_of};
use super::outbox::place_in;
use super::store::Journal;
use super::types::{
    DeliveryKey, JournalError, Payload, Replayed, RouteId, Selection, Settlement, TraceDelivery,
};
use crate::calls::{CallKey, UpdateId};

/// Deliveries in one page, about.
const PAGE: usize = 128;
/// Bundles of the past read for one page.
const BUNDLES: usize = 32;
/// Records read for one page: commits and questions wait meanwhile.
const READ_AT_ONCE: usize = 1024;
/// Deliveries remembered so that each goes out once in a replay; beyond it some may go twice.
const MOST_MARKS: usize = 1 << 19;
/// Dead letters put back in one group.
const LETTERS: usize = 64;
/// How far clocks may have been apart, microseconds.
const SLACK: i64 = 24 * 3600 * Micros::SECOND;

/// Where reading goes on.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In this day, behind this key.
    Day(String, Vec<u8>),
    /// In this generation, behind this key.
    Generation(u64, Vec<u8>),
}

/// What was read at once.
#[derive(Debug, Default)]
pub(super) struct Page {
    entries: Vec<Entry>,
    /// Matched, but wait still.
    waiting: u64,
    /// Where the next one begins.
    next: Option<Place>,
}

/// A dead letter that matches: where it stands, and what it is known by.
pub(super) type DeadMark = (DeliveryKey, u64);

impl Journal {
    /// Sends again what was accepted in a time, by route or id, with the ids it had. Dead letters
    /// leave their place; deliveries that wait are left alone. Blocks nobody for long.
    ///
    /// # Errors
    /// When the store cannot be read, or something is not on disk: a part may have been put back.
    pub async fn replay(&self, what: &Selection, now: Micros) -> Result<Replayed, JournalError> {
        self.replay_each(what, now, true).await
    }

    /// What [`Journal::replay`] would send.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn replay_count(&self, what: &Selection, now: Micros) -> Result<Replayed, JournalError> {
        self.replay_each(what, now, false).await
    }

    async fn replay_each(&self, what: &Selection, now: Micros, send: bool) -> Result<Replayed, JournalError> {
        let to = what.to.map_or(now, |to| to.min(now));
        let what = Selection { to: Some(to), ..what.clone() };
        let mut done = Replayed::default();
        let mut marks = HashSet::new();
        let letters = self.ask(|reply| Command::DeadMarks(what.clone(), reply)).await?;
        marks.extend(letters.iter().map(|(_, mark)| *mark));
        for some in letters.chunks(LETTERS) {
            done.dead += match send {
                true => self.dead_retry(some.iter().map(|(at, _)| *at).collect(), now).await?,
                false => some.len() as u64,
            };
        }
        let mut place = None;
        loop {
            let (selection, from) = (what.clone(), place.take());
            let page = self.ask_history(|reply| Job::Replay(selection, from, reply)).await?;
            done.waiting += page.waiting;
            let mut entries = Vec::new();
            for entry in page.entries {
                if marks.len() >= MOST_MARKS {
                    marks.clear();
                }
                if marks.insert(mark(&entry.route, &entry.id)) {
                    entries.push(PreparedEntry::new(&entry)?);
                }
            }
            done.settled += entries.len() as u64;
            if send && !entries.is_empty() {
                self.ask(|reply| Command::Again(entries, now, reply)).await?;
            }
            match page.next {
                Some(next) => place = Some(next),
                None => return Ok(done),
            }
        }
    }
}

/// What a delivery is known by within a replay.
pub(super) fn mark(route: &RouteId, id: &UpdateId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (route, id).hash(&mut hasher);
    hasher.finish()
}

/// Reads the next page: days first, then generations, oldest first.
pub(super) fn page(historian: &mut Historian, what: &Selection, from: Option<Place>) -> Result<Page, Fault> {
    let mut page = Page::default();
    let after = match from {
        Some(Place::Generation(number, after)) => Some((number, after)),
        Some(Place::Day(day, after)) => {
            read_days(historian, what, Some((day, after)), &mut page)?;
            None
        }
        None => {
            read_days(historian, what, None, &mut page)?;
            None
        }
    };
    if page.next.is_none() {
        read_generations(historian, what, after, &mut page)?;
    }
    Ok(page)
}

/// Behind which key a store is read, from none on where empty; `None`: it was read before.
fn after<T: Ord>(from: Option<&(T, Vec<u8>)>, store: &T) -> Option<Vec<u8>> {
    match from {
        Some((first, _)) if store < first => None,
        Some((first, after)) if store == first => Some(after.clone()),
        Some(_) | None => Some(Vec::new()),
    }
}

fn read_days(
    historian: &mut Historian,
    what: &Selection,
    from: Option<(String, Vec<u8>)>,
    page: &mut Page,
) -> Result<(), Fault> {
    // a call is imported after it began, never before
    let last = what.to.map(|to| day_of(Micros(to.0.saturating_add(SLACK))));
    for day in historian.days.list()? {
        let Some(after) = after(from.as_ref(), &day) else { continue };
        if last.as_ref().is_some_and(|last| day > *last) {
            continue;
        }
        let Some(store) = historian.days.get(&day, false)? else { continue };
        match read_day(&store, what, &after, page) {
            Ok(None) => {}
            Ok(Some(at)) => {
                page.next = Some(Place::Day(day, at));
                return Ok(());
            }
            Err(Fault::Damaged(why)) => {
                drop(store);
                historian.days.put_aside(&day, &why)?;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Reads a day's bundles behind a key; answers the last key read, where there is more.
fn read_day(
    store: &Store,
    what: &Selection,
    after: &[u8],
    page: &mut Page,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut read = 0;
    let mut more = None;
    let from = if after.is_empty() { vec![key::PAST] } else { key::behind(after) };
    store.range(&from, &[key::PAST + 1], |key, payload| {
        read += 1;
        // a damaged bundle costs itself
        let bundle = payload.ok().and_then(|payload| Bundle::read(&payload));
        for (key, run) in bundle.iter().flat_map(Bundle::iter) {
            let Some(call) = call_of_run(key) else { continue };
            day::lines(run, |letter, json| {
                if letter == b'e'
                    && let Ok(made) = serde_json::from_slice::<TraceDelivery>(json)
                    && what.matches(&made.route, &made.id, made.accepted)
                    // one that was moved while it waited stands elsewhere with its end
                    && !matches!(made.settled, None | Some((_, Settlement::Retry { .. })))
                {
                    page.entries.push(entry_of(&call, made));
                }
            });
        }
        if page.entries.len() >= PAGE || read >= BUNDLES {
            more = Some(key.to_vec());
        }
        more.is_none()
    })?;
    Ok(more)
}

fn read_generations(
    historian: &Historian,
    what: &Selection,
    from: Option<(u64, Vec<u8>)>,
    page: &mut Page,
) -> Result<(), Fault> {
    for (number, created) in historian.shared.pool.listed() {
        let Some(after) = after(from.as_ref(), &number) else { continue };
        if what.to.is_some_and(|to| to.0.saturating_add(SLACK) < created) {
            continue;
        }
        let _synced = historian.shared.synced();
        // it may just have been copied into the history, or put aside
        let Ok(store) = historian.shared.pool.get(number) else { continue };
        if let Some(at) = read_generation(&store, what, &after, page)? {
            page.next = Some(Place::Generation(number, at));
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a generation's records behind a key; answers the last key read, where there is more.
fn read_generation(
    store: &Store,
    what: &Selection,
    after: &[u8],
    page: &mut Page,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut read = 0;
    let mut more = None;
    let mut found = Vec::new();
    let from = if after.is_empty() { vec![key::RECORD] } else { key::behind(after) };
    store.range(&from, &[key::RECORD + 1], |key, payload| {
        read += 1;
        if key.get(9) == Some(&kind::ENTRY)
            && let (Some(call), Some(at), Ok(payload)) = (Reader(&key[1..]).u64(), place_in(key), payload)
            && let Some(stored) = StoredEntry::decode(&payload)
            && what.matches(&stored.entry.route, &stored.entry.id, Micros(stored.accepted))
        {
            found.push((call, at, stored.entry));
        }
        if found.len() >= PAGE || read >= READ_AT_ONCE {
            more = Some(key.to_vec());
        }
        more.is_none()
    })?;
    for (call, at, entry) in found {
        match store.get(&key::delivery(call, kind::OUTCOME, at))? {
            Some(Ok(json)) if is_settled(&json) => page.entries.push(entry),
            Some(Ok(_)) | None => page.waiting += 1,
            Some(Err(_)) => page.entries.push(entry),
        }
    }
    Ok(more)
}

fn is_settled(outcome: &[u8]) -> bool {
    serde_json::from_slice::<StoredOutcome>(outcome)
        .is_ok_and(|outcome| !matches!(outcome.settlement, Settlement::Retry { .. }))
}

/// The call of a run's key: `c`, the call, 0, and ten bytes.
pub(super) fn call_of_run(key: &[u8]) -> Option<CallKey> {
    key.first().filter(|letter| **letter == key::CALL)?;
    let call = key.get(1..key.len().checked_sub(11)?)?;
    Some(CallKey(std::str::from_utf8(call).ok()?.into()))
}

fn entry_of(call: &CallKey, made: TraceDelivery) -> Entry {
    // creates have no order to keep
    let ordered = matches!(made.payload, Payload::Webhook { .. });
    Entry { route: made.route, id: made.id, call: call.clone(), ordered, party: None, payload: made.payload }
}
