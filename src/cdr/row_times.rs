//! When a stored row began and ended, once it was put into the PBX's zone.

use parsers::{Cdr, Micros};

use super::columns::born;

/// `None` where neither a time nor an id tells.
pub(super) fn start(cdr: &Cdr) -> Option<Micros> {
    cdr.start_epoch.filter(|at| at.0 > 0).or_else(|| born(cdr))
}

/// By the duration, which every store has.
pub(super) fn end(cdr: &Cdr, start: Micros) -> Micros {
    start.plus_millis(i64::try_from(cdr.duration).unwrap_or(0).saturating_mul(1000))
}
