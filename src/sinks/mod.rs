//! Where deliveries go: one file a destination, one enum over them.

mod http;
mod nimbox;
mod sink;
mod webhook;

pub use sink::{Outcome, Sink};
