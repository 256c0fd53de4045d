//! Which updates go to which sink, and how patiently.

mod retry;
mod route;
mod worker;

pub use retry::{Ladder, Verdict, decide};
pub use route::{Route, Routes};
pub use worker::{RouteHealth, Worker};
