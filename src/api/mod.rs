//! What a running agent answers: to the commands, on a Unix socket (`api.socket`).

mod client;
mod past;
mod server;
mod types;

pub use client::{Client, ClientError};
pub use past::{CallName, CallTrace, FindError, LegsQuery, MOST_LEGS, find};
pub use server::{ApiError, serve};
pub use types::{AgentStatus, Live, Reloaded, RouteView, View};
