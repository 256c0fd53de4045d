//! The agent's one integration binary; each module says what it proves.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it did not expect has failed"
)]

mod ami;
mod config;
mod expect;
mod lab;
mod promises;
mod real_asterisk;
mod replay;
mod scenarios;
mod sip;
mod variants;
