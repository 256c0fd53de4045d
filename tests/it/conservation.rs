//! Nothing is lost, doubled or invented, whatever happens: the oracle's verdict on the real agent.
//!
//! The quick form is 200,000 deliveries, with the journal in memory.
//! `CALLPOST_ORACLE_UPDATES=1000000` for that many deliveries, however long it takes (in a release build:
//! `cargo test --release`), `CALLPOST_STOPS=100` for so many stops, `CALLPOST_ORACLE_SEED` to draw the same
//! faults.

#![expect(clippy::print_stdout, reason = "the figures are what a long run is for")]

use std::time::Duration;

use crate::oracle::{Faults, Plan, Run, Trouble};

/// A number from the environment.
fn long(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_faults_and_kills_every_delivery_arrives_once_and_in_order() {
    use Trouble::{Disconnect, Kill, KillFrozen, Refuse, Reload, Restart, Unauthorized};
    let long = long("CALLPOST_ORACLE_UPDATES");
    let plan = Plan {
        deliveries: long.unwrap_or(200_000),
        rate: None,
        // a request that is never answered takes one of a route's few slots for 30 s, and one that is
        // throttled stops its route: with many more of them there is little else to see
        faults: Faults { per_mille: 2, stubborn: if long.is_some() { 20 } else { 0 }, doomed: 50 },
        troubles: vec![KillFrozen, Refuse, Kill, Reload, Unauthorized, Kill, Restart, Disconnect, KillFrozen],
        every: Duration::from_secs(if long.is_some() { 20 } else { 12 }),
        once: false,
        in_memory: long.is_none(),
    };
    let mut run = Run::start(plan).await;
    run.play(Duration::from_secs(86_400)).await;
    println!("{}", run.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_and_doubles_nothing() {
    let stops = long("CALLPOST_STOPS").unwrap_or(10);
    let plan = Plan {
        deliveries: usize::MAX,
        rate: None,
        // an answer that is withheld would excuse a double
        faults: Faults { per_mille: 0, stubborn: 0, doomed: 0 },
        troubles: [Trouble::StopFrozen, Trouble::Stop].repeat(stops.div_ceil(2)),
        every: Duration::from_secs(3),
        once: true,
        in_memory: false,
    };
    let mut run = Run::start(plan).await;
    run.play(Duration::from_secs(86_400)).await;
    println!("{}", run.finish().await);
}
