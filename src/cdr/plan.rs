//! History out of a CDR store: the calls that began in a span of time, and what each NiMbox route would
//! be sent of them.

use std::collections::BTreeMap;
use std::io;

use parsers::Micros;
use serde::Serialize;

use super::DropReason;
use super::grouping::{Complete, Grouper, HOLD};
use super::store::{Order, Span, Store, StoreError};
use crate::journal::Outgoing;
use crate::routes::Routes;

/// By end: a call that is as long as that is still found when reading is begun again in its middle.
const LONGEST: i64 = 24 * 3_600_000;

/// What a span came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Rows read, those around the span that its calls needed included.
    pub read: u64,
    /// Calls that began in the span.
    pub calls: u64,
    /// Creates made of them.
    pub creates: u64,
    /// Rows and parts that made none, by reason.
    pub left_out: BTreeMap<String, u64>,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Whoever takes the creates.
    #[error("{0}")]
    Taker(#[from] io::Error),
}

/// Hands every create of the calls that began in a span to `each`, in order of time but for calls that
/// overlap. The fold and the rules are those of the live path.
///
/// # Errors
/// When the store cannot be read on, or `each` fails.
pub async fn plan(
    store: &mut Store,
    span: Span,
    pbx: &str,
    routes: &Routes,
    mut each: impl FnMut(&Outgoing) -> io::Result<()>,
) -> Result<Summary, BackfillError> {
    let mut summary = Summary::default();
    let mut reading = Reading::begin(store, span, span.from, pbx).await?;
    while let Some(page) = reading.next().await? {
        summary.read += page.rows;
        count(&mut summary.left_out, DropReason::NoTime.text(), page.timeless);
        for complete in page.calls {
            summary.calls += 1;
            let (outgoing, skipped) = routes.past(&complete.group);
            for (_, why) in skipped {
                count(&mut summary.left_out, &why, 1);
            }
            for create in &outgoing {
                summary.creates += 1;
                each(create)?;
            }
        }
    }
    Ok(summary)
}

/// So many more for a reason.
pub(super) fn count(reasons: &mut BTreeMap<String, u64>, why: &str, more: u64) {
    if more > 0 {
        *reasons.entry(why.to_owned()).or_default() += more;
    }
}

/// What a page of the store led to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Rows of the page.
    pub rows: u64,
    /// Those of which nothing tells when they were.
    pub timeless: u64,
    /// Calls of the span that are complete now.
    pub calls: Vec<Complete>,
}

/// A walk through the calls of a span.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    store: &'a mut Store,
    span: Span,
    /// Calls that began earlier are known to be done.
    from: Micros,
    grouper: Option<Grouper>,
    /// How far it came.
    place: Place,
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the span, about, for people.
    pub reached: Micros,
    /// From where another walk finds every call that this one has not given.
    pub again: Micros,
}

impl<'a> Reading<'a> {
    /// Starts with the calls of the span that began at `from` or later.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn begin(
        store: &'a mut Store,
        span: Span,
        from: Micros,
        pbx: &str,
    ) -> Result<Self, StoreError> {
        let from = from.max(span.from);
        let grouper = Grouper::new(pbx, span.to.plus_millis(LONGEST));
        // a call that began before it has rows in it, one that began in it has rows behind it
        store.begin(Span { from: from.plus_millis(-HOLD), to: span.to.plus_millis(HOLD) }).await?;
        let place = Place { reached: from, again: from };
        Ok(Self { store, span, from, grouper: Some(grouper), place })
    }

    /// What the next page leads to; `None` at the end.
    ///
    /// # Errors
    /// When the store cannot be read on.
    pub async fn next(&mut self) -> Result<Option<Read>, StoreError> {
        let Some(grouper) = &mut self.grouper else { return Ok(None) };
        let mut read = Read::default();
        match self.store.next().await? {
            None => {
                read.calls = self.grouper.take().map(Grouper::finish).unwrap_or_default();
                self.place = Place { reached: self.span.to, again: self.span.to };
            }
            Some(page) => {
                for cdr in page.rows {
                    read.rows += 1;
                    read.timeless += u64::from(!grouper.add(cdr));
                }
                let reached = match self.store.order() {
                    Order::Start => page.reached,
                    Order::End => Some(grouper.latest()),
                };
                read.calls = grouper.complete(reached);
                if let Some(reached) = reached {
                    let open = grouper.oldest().map_or(reached, |oldest| oldest.min(reached));
                    let again = match self.store.order() {
                        Order::Start => open,
                        Order::End => open.plus_millis(-LONGEST),
                    };
                    let within = |at: Micros| at.clamp(self.from, self.span.to);
                    self.place = Place { reached: within(reached), again: within(again) };
                }
            }
        }
        read.calls.retain(|call| self.span.has(call.first) && self.from <= call.first);
        Ok(Some(read))
    }

    /// How far it came; what it gave included.
    pub const fn place(&self) -> Place {
        self.place
    }
}
