//! callpost: gets calls out of an Asterisk PBX and into the systems where people work.
//!
//! ```text
//! Asterisk --> ami --> ingest(calls) --> journal --> routes --> sinks --> NiMbox, webhooks
//! ```
//! Everything moves left to right; see `ARCHITECTURE.md`.

pub mod agent;
pub mod ami;
pub mod api;
pub mod calls;
pub mod cdr;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
mod digest;
mod hex;
pub mod ingest;
pub mod journal;
pub mod metrics;
mod pulse;
pub mod receiver;
pub mod routes;
pub mod sinks;
pub mod systemd;
mod tls;
