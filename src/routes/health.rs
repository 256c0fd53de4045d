//! How a route fares, for status and metrics.

use std::collections::BTreeMap;

use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::breaker::BreakerState;
use crate::metrics::{Histogram, Minute};

/// How a route fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteHealth {
    /// Set while it holds everything.
    pub paused: Option<Paused>,
    /// Whether the receiver answers.
    pub breaker: BreakerState,
    /// Set while the breaker is not closed.
    #[serde(default)]
    pub failing: Option<Failing>,
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
    /// From a delivery's append to the journal to the answer that accepted it.
    #[serde(default)]
    pub latency: Histogram,
    /// From a delivery's append to its first request.
    #[serde(default)]
    pub first_request: Histogram,
    /// Deliveries accepted in the last minute; [`RouteView`](crate::api::RouteView) tells the count.
    #[serde(skip)]
    pub minute: Minute,
    /// Answers in a row that were not what NiMbox sends; from 3 on somebody should look.
    pub unreadable: u64,
}

/// A route that holds everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub since: Micros,
    /// In a word, for metrics: the class of answer, or `unverified`.
    #[serde(default)]
    pub reason: String,
    /// What happened.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// When it asks again; `None`: not before somebody acts.
    pub probe: Option<Micros>,
}

/// A receiver that fails: deliveries wait, one at a time asks whether it is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when.
    pub since: Micros,
    /// What it answered, or why it did not.
    pub why: String,
}
