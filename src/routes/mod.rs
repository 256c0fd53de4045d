//! Which updates go to which sink, and how patiently.

mod breaker;
mod concurrency;
mod creates;
mod flights;
mod gate;
mod health;
mod history;
mod lane;
mod retry;
mod route;
mod verify;
mod worker;

pub use breaker::BreakerState;
pub use health::{Failing, Paused, RouteHealth};
pub use history::{Ended, HistoryLink, Report};
pub use retry::{Facts, Pause, Policy, Verdict, decide};
pub use route::{Route, Routes};
pub use worker::{Orders, Worker, WorkerSetup};
