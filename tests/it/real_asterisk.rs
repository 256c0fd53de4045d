//! Tests against a real Asterisk: `tests/asterisk/start 22 -- IT real_asterisk`,
//! where IT is this test binary. Elsewhere they say that they are skipped.
//!
//! Two more variables help by hand: `CALLPOST_SCENARIO=q0` plays only the
//! scenarios whose names begin so, and `CALLPOST_RECORD=fixtures/ami/22` writes
//! what the account `callpost` is sent to that directory, a file a scenario.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::FutureExt;

use crate::lab::{Lab, Recorder};
use crate::scenarios::SCENARIOS;

/// The version beside us, if there is one.
fn asterisk() -> Option<String> {
    let version = std::env::var("CALLPOST_ASTERISK").ok();
    if version.is_none() {
        eprintln!("skipped: no Asterisk here; run by `tests/asterisk/start 22 -- ...`");
    }
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_plays() {
    let Some(_version) = asterisk() else { return };
    let only = std::env::var("CALLPOST_SCENARIO").unwrap_or_default();
    let directory = std::env::var_os("CALLPOST_RECORD").map(PathBuf::from);
    let lab = Lab::open().await;
    let mut failed = Vec::new();
    for scenario in SCENARIOS.iter().filter(|s| s.name.starts_with(&only)) {
        let recorder = Recorder::start("callpost").await;
        lab.begin().await;
        let begin = Instant::now();
        let play = async {
            (scenario.play)(&lab).await;
            lab.settle().await;
        };
        let played = AssertUnwindSafe(play).catch_unwind().await.is_ok();
        let heard = recorder.finish().await;
        let verdict = if played { "ok" } else { "FAILED" };
        eprintln!(
            "{verdict} {} {:.1} s {} bytes",
            scenario.name,
            begin.elapsed().as_secs_f64(),
            heard.len()
        );
        if !played {
            failed.push(scenario.name);
            lab.clear().await;
        } else if let Some(directory) = &directory {
            std::fs::write(directory.join(format!("{}.ami", scenario.name)), heard).unwrap();
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}
