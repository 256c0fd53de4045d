//! Which updates go to which sink, and how patiently.

mod breaker;
mod concurrency;
mod creates;
mod health;
mod lane;
mod retry;
mod route;
mod worker;

pub use breaker::BreakerState;
pub use health::{Failing, Paused, RouteHealth};
pub use retry::{Facts, Pause, Policy, Verdict, decide};
pub use route::{Route, Routes};
pub use worker::{Orders, Worker, WorkerSetup};
