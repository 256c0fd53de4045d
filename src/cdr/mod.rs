//! CDRs: from rows to what a person would have written down, and the stores that rows are read from.

mod backfill;
mod checkpoint;
mod columns;
mod csv;
mod fold;
mod grouping;
mod history;
mod legs;
mod numbers;
mod paging;
mod plan;
mod progress;
mod reconcile;
mod recording;
mod row;
mod row_times;
mod rules;
mod sql;
mod sql_error;
mod store;
#[cfg(test)]
mod tests;
mod zone;

pub(crate) use backfill::Link;
pub(crate) use checkpoint::note_deleted;
pub use fold::{DropReason, Folded, Part, fold};
pub use history::{History, Refused};
pub(crate) use history::{Reader, Reconciles};
pub(crate) use legs::ends;
pub use numbers::{Dropped, Explained, ExplainedRule, Numbers};
pub use plan::{BackfillError, Summary, plan};
pub use progress::{Ask, Frame, Progress};
pub(crate) use reconcile::FULL;
pub use reconcile::{Away, Reconciled, Reconciliation};
pub use recording::{Recording, url};
pub(crate) use store::source_url;
pub use store::{About, Order, Page, Span, Store, StoreError};
pub use zone::{StoreClock, civil, initiated, instant, relocate, store_clock};
