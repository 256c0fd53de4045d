//! The agent's integration tests, one binary.

mod expect;
mod replay;
