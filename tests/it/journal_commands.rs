//! `callpost journal` as a user runs it: beside an agent at work, on a damaged store, and by its exit
//! codes; and giving up what waits for a route that is gone.

use std::fs;
use std::path::{Path, PathBuf};

use callpost::receiver::{Misbehaviour, Receiver};
use serde_json::Value;

use crate::cli::{json_lines, run, site, text, until};
use crate::operate::{agent, append, arrived, config, done, journal, receiver, stop};

/// Deliveries that wait, in several generations.
async fn waiting(directory: &Path, routes: &[&str], count: u64) {
    let journal = journal(directory, 400).await;
    for number in 0..count {
        append(&journal, routes, number).await;
    }
    journal.close().await;
}

fn value(output: &std::process::Output, code: i32) -> Value {
    serde_json::from_str(done(output, code).trim()).unwrap()
}

/// The oldest generation's file.
fn oldest(directory: &Path) -> PathBuf {
    let stores = fs::read_dir(directory.join("journal/outbox")).unwrap().flatten();
    stores.map(|entry| entry.path()).min().unwrap().join("db")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journal_commands_beside_an_agent_at_work_tell_the_truth_and_disturb_nothing() {
    const COUNT: u64 = 2000;
    let receiver = receiver().await;
    receiver.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    let site = site(&config(&receiver));
    let at = site.path();
    waiting(at, &["desk"], COUNT).await;
    let agent = agent(&site);
    receiver.misbehave(Misbehaviour::default());
    until(|| {
        let status = value(&run(at, &["journal", "status", "--json"]), 0);
        assert_eq!(status["live"], true);
        let counters = &status["journal"]["routes"][0]["counters"];
        assert_eq!(counters["accepted"], COUNT, "{status}");
        for part in json_lines(done(&run(at, &["journal", "verify", "--json"]), 0).as_bytes()) {
            assert_eq!((&part["damaged"], &part["faults"]), (&0.into(), &Value::Array(vec![])), "{part}");
        }
        let exported = json_lines(done(&run(at, &["journal", "export"]), 0).as_bytes());
        assert!(exported.iter().all(|line| line["kind"] == "delivery"), "{:?}", exported.first());
        assert_eq!(done(&run(at, &["journal", "salvage"]), 0), "nothing was put aside\n");
        (counters["delivered"] == COUNT).then_some(())
    });
    assert!(arrived(&receiver).len() as u64 == COUNT && arrived(&receiver).values().all(|times| *times == 1));
    stop(agent);
    let shown = done(&run(at, &["journal", "status"]), 0);
    assert!(shown.contains("no agent runs") && shown.contains(&COUNT.to_string()), "{shown}");
    assert_eq!(json_lines(done(&run(at, &["journal", "export"]), 0).as_bytes()).len() as u64, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_verified_put_aside_and_salvaged_by_the_book() {
    let receiver = receiver().await;
    receiver.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    let site = site(&config(&receiver));
    let at = site.path();
    let nothing = run(at, &["journal", "verify"]);
    assert_eq!(nothing.status.code(), Some(1), "there is none: {}", text(&nothing.stderr));
    waiting(at, &["desk"], 500).await;
    done(&run(at, &["journal", "verify"]), 0);

    // within records, wherever they stand
    let file = oldest(at);
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    let records: Vec<usize> =
        (0..bytes.len() - 40).filter(|at| bytes[*at..*at + 2] == [0xC7, 0x50]).collect();
    records.iter().for_each(|at| bytes[at + 30] ^= 1);
    fs::write(&file, &bytes).unwrap();
    let verified = done(&run(at, &["journal", "verify"]), 3);
    assert!(verified.contains("1 store with faults"), "{verified}");
    // whether sled reads past them, leaves them out or gives the file up, it is said
    let export = run(at, &["journal", "export"]);
    assert!(text(&export.stderr).contains("was not exported whole"), "{}", text(&export.stderr));
    done(&export, 3);

    // as the agent leaves one that does not open at all; what it holds can be found
    fs::write(&file, whole).unwrap();
    let store = file.parent().unwrap();
    let aside = at.join("journal/quarantine").join(format!("{}-1", store.file_name().unwrap().display()));
    fs::rename(store, aside).unwrap();
    let verified = done(&run(at, &["journal", "verify"]), 3);
    assert!(verified.contains("it was put aside"), "{verified}");
    let plan = done(&run(at, &["journal", "salvage"]), 0);
    assert!(plan.contains("400") && plan.contains("with --yes"), "{plan}");
    let agent = agent(&site);
    until(|| done(&run(at, &["journal", "salvage"]), 0).contains("done").then_some(()));
    let beside = done(&run(at, &["journal", "verify"]), 3);
    assert!(beside.contains("put aside"), "{beside}");
    let plan = done(&run(at, &["journal", "salvage"]), 0);
    assert!(plan.contains("done") && plan.contains("an agent runs"), "{plan}");
    let status = done(&run(at, &["status"]), 0);
    assert!(status.contains("journal/quarantine/"), "{status}");
    receiver.misbehave(Misbehaviour::default());
    until(|| {
        let status = value(&run(at, &["status", "--json"]), 0);
        (status["journal"]["routes"][0]["counters"]["pending"] == 0).then_some(())
    });
    assert_eq!(arrived(&receiver).len(), 500, "what could not be opened was searched");
    assert!(arrived(&receiver).values().all(|times| *times == 1));
    stop(agent);

    // a day that was put aside is put back by hand, while no agent runs
    let days =
        || fs::read_dir(at.join("journal/history")).unwrap().flatten().filter(|day| day.path().is_dir());
    // what was delivered becomes the past with the next generation
    waiting(at, &["desk"], 1).await;
    let agent = self::agent(&site);
    until(|| days().next());
    until(|| (value(&run(at, &["status", "--json"]), 0)["journal"]["generations"] == 1).then_some(()));
    stop(agent);
    let day = days().next().unwrap();
    fs::rename(day.path(), at.join("journal/quarantine").join(format!("{}-1", day.file_name().display())))
        .unwrap();
    let plan = done(&run(at, &["journal", "salvage"]), 0);
    assert!(plan.contains("with --yes"), "{plan}");
    let agent = self::agent(&site);
    let refused = run(at, &["journal", "salvage", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("an agent has the journal"), "{}", text(&refused.stderr));
    stop(agent);
    let put = done(&run(at, &["journal", "salvage", "--yes"]), 0);
    assert!(put.contains("of the past") && !put.contains(" 0 records of the past"), "{put}");
    assert_eq!(days().count(), 1);
    let again = done(&run(at, &["journal", "salvage", "--yes"]), 0);
    assert!(!again.contains("with --yes"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_route_that_is_gone_is_given_up_when_asked_and_never_a_configured_ones() {
    let receiver: Receiver = receiver().await;
    receiver.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    let site = site(&config(&receiver));
    let at = site.path();
    waiting(at, &["desk", "old"], 300).await;
    let drop = |route: &str, more: &[&str]| {
        run(at, &[&["dead", "drop", "--pending", "--route", route], more].concat())
    };
    let refused = drop("desk", &["--yes"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("is configured"), "{}", text(&refused.stderr));
    assert_eq!(run(at, &["dead", "drop", "--pending", "--yes"]).status.code(), Some(2), "of which route?");
    assert_eq!(drop("odl", &["--yes"]).status.code(), Some(2), "a slip of the pen");

    let agent = agent(&site);
    let refused = drop("desk", &["--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is configured"), "{}", text(&refused.stderr));
    let shown = done(&run(at, &["status"]), 0);
    assert!(shown.contains("callpost dead drop --pending --route old"), "{shown}");
    let unasked = drop("old", &[]);
    assert_eq!(unasked.status.code(), Some(2));
    assert!(text(&unasked.stderr).contains("Give up 300 deliveries of route old for good?"));
    assert_eq!(done(&drop("old", &["--yes"]), 0), "300 deliveries of route old given up\n");
    assert_eq!(value(&drop("old", &["--yes", "--json"]), 0)["dropped"], 0, "once more changes nothing");
    let status = value(&run(at, &["status", "--json"]), 0);
    let of = |name: &str| {
        let routes = status["journal"]["routes"].as_array().unwrap();
        routes.iter().find(|found| found["route"] == name).unwrap().clone()
    };
    assert_eq!(
        (&of("old")["counters"]["pending"], &of("old")["counters"]["dropped"]),
        (&0.into(), &300.into())
    );
    assert_eq!(of("old")["dropped"][0][1], 300);
    assert_eq!(of("desk")["counters"]["pending"], 300);
    let exported = json_lines(done(&run(at, &["journal", "export"]), 0).as_bytes());
    let of_old = exported.iter().filter(|line| line["value"]["route"] == "old");
    let told =
        of_old.filter(|line| line.to_string().contains("its route is not configured any more")).count();
    assert_eq!(told, 300, "{:?}", exported.first());
    receiver.misbehave(Misbehaviour::default());
    until(|| (arrived(&receiver).len() == 300).then_some(()));
    stop(agent);
    done(&run(at, &["journal", "verify"]), 0);
}
