//! The one place that reads the wall clock; whoever decides gets the time passed in.

use std::time::{SystemTime, UNIX_EPOCH};

use parsers::Micros;

/// Now.
pub fn now() -> Micros {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// How long until `at`; zero when it is past.
pub fn until(at: Micros, now: Micros) -> std::time::Duration {
    std::time::Duration::from_micros(u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0))
}
