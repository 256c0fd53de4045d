//! Bytes and values, both ways.

#![expect(clippy::expect_used, clippy::panic, reason = "a test says what it expected by failing")]

mod action;
mod codec;
mod event;
mod ident;
mod message;
mod probes;
mod recorded;
mod wire;
