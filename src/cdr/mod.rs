//! CDRs: from rows to what a person would have written down. All pure.

mod fold;
mod numbers;
mod recording;
mod row;
mod rules;
#[cfg(test)]
mod tests;
mod zone;

pub use fold::{DropReason, Folded, Part, fold};
pub use numbers::{Dropped, Explained, ExplainedRule, Numbers};
pub use recording::{Recording, url};
pub use zone::{StoreClock, civil, initiated, instant, relocate, store_clock};
