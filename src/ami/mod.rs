//! The connection to Asterisk: logs in, reads faster than Asterisk writes, asks what it holds after
//! every login, comes back after every loss. Hands [`Feed`] on and waits for nobody.

mod capture;
mod connection;
mod error;
mod probe;
mod session;

pub use capture::{CaptureError, capture};
pub use error::AmiError;
pub use probe::{Finding, ProbeReport, probe};
pub use session::{AmiHealth, AmiWatch, Feed, FeedReceiver, Hub, feed};
