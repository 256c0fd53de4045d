//! History out of a CDR store: what of a span of time each NiMbox route would be sent.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::grouping::{Complete, Grouper, HOLD};
use super::store::{Span, Store, StoreError};
use crate::journal::Outgoing;
use crate::routes::Routes;

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
    let mut grouper = Grouper::new(pbx, store.order());
    // a call that began before the span has rows in it, one that began in it has rows behind it
    let wide = Span { from: span.from.plus_millis(-HOLD), to: span.to.plus_millis(HOLD) };
    store.begin(wide).await?;
    while let Some(page) = store.next().await? {
        for cdr in page.rows {
            summary.read += 1;
            if !grouper.add(cdr) {
                *summary.left_out.entry(super::DropReason::NoTime.text().to_owned()).or_default() += 1;
            }
        }
        for complete in grouper.complete(page.reached) {
            fold(&complete, span, routes, &mut summary, &mut each)?;
        }
    }
    for complete in grouper.finish() {
        fold(&complete, span, routes, &mut summary, &mut each)?;
    }
    Ok(summary)
}

fn fold(
    complete: &Complete,
    span: Span,
    routes: &Routes,
    summary: &mut Summary,
    each: &mut impl FnMut(&Outgoing) -> io::Result<()>,
) -> io::Result<()> {
    if !span.has(complete.first) {
        return Ok(());
    }
    summary.calls += 1;
    let (outgoing, skipped) = routes.creates(&complete.group);
    for (_, why) in skipped {
        *summary.left_out.entry(why).or_default() += 1;
    }
    for create in &outgoing {
        summary.creates += 1;
        each(create)?;
    }
    Ok(())
}
