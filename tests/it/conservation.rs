//! Nothing is lost, doubled or invented, whatever happens: the oracle's verdict on the real agent.
//!
//! `CALLPOST_ORACLE_UPDATES=1000000` for that many deliveries (in a release build: `cargo test
//! --release`), `CALLPOST_STOPS=100` for so many stops, `CALLPOST_ORACLE_SEED` to draw the same faults.

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
        deliveries: long.unwrap_or(1_000_000),
        rate: None,
        faults: Faults { per_mille: 20, stubborn: if long.is_some() { 100 } else { 0 }, doomed: 50 },
        troubles: vec![KillFrozen, Refuse, Kill, Reload, Unauthorized, Kill, Restart, Disconnect, KillFrozen],
        every: Duration::from_secs(if long.is_some() { 20 } else { 6 }),
        once: long.is_none(),
    };
    let most = if long.is_some() { Duration::from_secs(86_400) } else { Duration::from_secs(75) };
    let mut run = Run::start(plan).await;
    run.play(most).await;
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
    };
    let mut run = Run::start(plan).await;
    run.play(Duration::from_secs(86_400)).await;
    println!("{}", run.finish().await);
}
