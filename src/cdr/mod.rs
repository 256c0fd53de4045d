//! CDRs: from rows to what a person would have written down, and the stores that rows are read from.

mod backfill;
mod columns;
mod csv;
mod fold;
mod grouping;
mod numbers;
mod paging;
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

pub use backfill::{BackfillError, Summary, plan};
pub use fold::{DropReason, Folded, Part, fold};
pub use numbers::{Dropped, Explained, ExplainedRule, Numbers};
pub use recording::{Recording, url};
pub(crate) use store::source_url;
pub use store::{About, Order, Page, Span, Store, StoreError};
pub use zone::{StoreClock, civil, initiated, instant, relocate, store_clock};
