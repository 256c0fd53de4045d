//! One task a route: takes what is due, sends it, settles it.

/// Runs one route until told to stop.
#[derive(Debug)]
pub struct Worker;

/// How a route fares, for status.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct RouteHealth {}
