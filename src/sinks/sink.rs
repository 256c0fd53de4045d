//! The sinks as one enum, and what every attempt can mean.

/// A destination.
#[derive(Debug)]
pub enum Sink {}

/// How one attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {}
