//! CDRs: from rows to what a person would have written down.

mod fold;
mod numbers;

pub use fold::{Part, fold};
pub use numbers::{Explained, Numbers};
