//! The number rules.

/// Compiled rules.
#[derive(Debug)]
pub struct Numbers {}

/// What the rules made of a number, rule by rule.
#[derive(Debug)]
pub struct Explained {}
