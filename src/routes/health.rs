//! How a route fares, for status and metrics.

use std::collections::BTreeMap;

use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::breaker::BreakerState;

/// How a route fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteHealth {
    /// Set while it holds everything.
    pub paused: Option<Paused>,
    /// Whether the receiver answers.
    pub breaker: BreakerState,
    /// The last failure, and when.
    pub last_error: Option<(Micros, String)>,
    /// The last delivery that was accepted.
    pub last_success: Option<Micros>,
    /// Requests under way.
    pub in_flight: usize,
    /// Requests that may be under way at once, now.
    pub concurrency: usize,
    /// Milliseconds that an exchange takes, smoothed over the last ten or so.
    pub latency_ms: Option<u64>,
    /// Attempts since the start, by class of answer.
    pub attempts: BTreeMap<String, u64>,
    /// Answers in a row that were not what NiMbox sends; from 3 on somebody should look.
    pub unreadable: u64,
}

/// A route that holds everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub since: Micros,
    /// What happened.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// When it asks again; `None`: not before somebody acts.
    pub probe: Option<Micros>,
}
