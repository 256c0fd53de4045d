//! A receiver for trying things: acts as NiMbox and as a webhook's end, remembers what it got, and
//! can fail on request. `callpost receive`, `callpost demo` and tests stand on it.

mod nimbox;
mod received;
mod server;
mod store;

pub use received::{Received, Request};
pub use server::{Misbehaviour, Options, Receiver};
pub use store::Counts;
