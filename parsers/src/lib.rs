//! Bytes in, values out: no sockets, no clocks, no logs.
//!
//! - [`ami`]: the Asterisk Manager Interface, from bytes to typed events and back.
//! - [`cdr`]: a call detail record, whoever wrote it.
//! - [`ident`]: the identities that pass through the program after the parser's edge.

pub mod ami;
pub mod cdr;
pub mod ident;

pub use cdr::Cdr;
pub use ident::{CallerId, ChannelName, Linkedid, Micros, Uniqueid};
