//! One task a route: takes what is due, sends it, settles it.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Route;
use crate::config::Config;
use crate::journal::Journal;

/// Runs one route until told to stop.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// For one route, and what to watch for its health.
    pub fn new(_route: &Route, _config: &Config, _journal: Journal) -> (Self, watch::Receiver<RouteHealth>) {
        (Self, watch::channel(RouteHealth::default()).1)
    }

    /// Runs until told to stop; what is under way gets 5 s, the rest is given back.
    pub async fn run(self, _stop: CancellationToken) {}
}

/// How a route fares, for status.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct RouteHealth {}
