//! Where deliveries go: one file a destination, one enum over them.

mod address;
mod body;
mod http;
mod nimbox;
mod signature;
mod sink;
mod webhook;

pub use body::{render, test_body};
pub use nimbox::{Deleted, NimboxSink};
pub use signature::{KeyError, SigningKey};
pub use sink::{Class, Outcome, Sink};
pub use webhook::WebhookSink;
