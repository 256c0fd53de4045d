//! The retry rule: pure.

/// Placeholder for the ladder.
#[derive(Debug)]
pub struct Ladder;

/// What to do with a delivery after an attempt.
#[derive(Debug)]
pub enum Verdict {}

/// Chooses.
pub fn decide() {}
