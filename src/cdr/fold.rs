//! The fold of a complete CDR group into parts (`asterisk.md` 5.7).

use crate::calls::CdrGroup;
use crate::config::{Mode, Pbx};

/// One create to be, before a route's own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {}

/// Folds.
pub fn fold(_group: &CdrGroup, _mode: Mode, _pbx: &Pbx) -> Vec<Part> {
    Vec::new()
}
