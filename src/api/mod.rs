//! What a running agent answers: to the commands on a Unix socket (`api.socket`), to other programs
//! over HTTP (`api.listen`).
//!
//! ```text
//! socket (mode, peer) --.
//!                        >-- connections (how many, how long, how large) -- server (what is asked)
//! listen (token) -------'                                                    past, dead, probes
//! ```

mod backfill;
mod client;
mod connections;
mod dead;
mod listen;
mod past;
mod probes;
mod replay;
mod server;
mod socket;
mod types;

pub use client::{Client, ClientError, Frames};
pub use dead::{DeadDone, DeadPage, DeadQuery, MOST_LETTERS, PendingDone, PendingQuery, SMALL_PAGE};
pub use past::{CallName, CallTrace, FindError, LegsQuery, MOST_LEGS, find};
pub use replay::{ReplayAnswer, replay};
pub use server::{ApiError, Server};
pub use types::{AgentStatus, Live, Reloaded, RouteView, View};
