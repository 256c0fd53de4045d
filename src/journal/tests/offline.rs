//! Looking from outside changes nothing, and finds what is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::support::{batch, now, open_small, route, update};
use crate::calls::LegState;
use crate::journal::{Offline, PartKind, Settlement};

async fn fill(directory: &Path) {
    let (journal, _) = open_small(directory, 60);
    for number in 0..60 {
        journal.append(batch(update(number, 0, LegState::Hangup, now()), &["desk"])).await.unwrap();
    }
    for _ in 0..40 {
        let (due, _) = journal.due(&route("desk"), now(), 1).await.unwrap();
        let settlement = match due[0].id.0.ends_with("1.0") {
            true => Settlement::Dead { why: "old".to_owned(), status: None, answer: String::new() },
            false => Settlement::Delivered { status: Some(200), answer: String::new() },
        };
        journal.settle(due[0].key, settlement, now()).await.unwrap();
    }
    for _ in 0..500 {
        if journal.status().await.unwrap().days > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    journal.close().await;
}

fn files(directory: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_whole_journal_has_no_faults_and_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let before = files(directory.path());
    let offline = Offline::open(directory.path()).unwrap();
    assert!(!offline.is_live());
    let parts = offline.parts().unwrap();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for part in &parts {
        let found = offline.examine(part).unwrap();
        assert!(found.faults.is_empty() && found.damaged == 0, "{found:?}");
        let exported = offline.export(part, (None, None), |value| {
            *kinds.entry(value["kind"].as_str().unwrap().to_owned()).or_default() += 1;
            Ok(())
        });
        exported.unwrap().unwrap();
    }
    assert_eq!((kinds["update"], kinds["message"], kinds["delivery"]), (60, 60, 60), "{kinds:?}");
    assert_eq!(kinds["dead"], 3, "{kinds:?}");
    let status = offline.status().unwrap();
    let line = status.routes.iter().find(|found| found.route == route("desk")).unwrap().counters;
    assert_eq!((line.accepted, line.delivered, line.pending, line.dead), (60, 37, 20, 3));
    let later = parsers::Micros(now().0 + super::support::DAY);
    let mut any = 0;
    for part in &parts {
        let count = |_| {
            any += 1;
            Ok(())
        };
        offline.export(part, (Some(later), None), count).unwrap().unwrap();
    }
    assert_eq!(any, 0, "nothing is of tomorrow");
    drop(offline);
    assert_eq!(files(directory.path()), before);
}

#[tokio::test]
async fn a_damaged_byte_is_found_and_what_was_put_aside_is_planned_then_put_back() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let offline = Offline::open(directory.path()).unwrap();
    let day = offline.parts().unwrap().into_iter().find(|part| part.kind == PartKind::Day).unwrap();
    let generation =
        offline.parts().unwrap().into_iter().find(|part| part.kind == PartKind::Generation).unwrap();
    drop(offline);
    let database = directory.path().join("outbox").join(&generation.name).join("db");
    let mut bytes = fs::read(&database).unwrap();
    let records: Vec<usize> =
        (0..bytes.len() - 20).filter(|at| bytes[*at..*at + 2] == [0xC7, 0x50]).collect();
    // the same bytes stand there several times; whichever counts is among them
    records.iter().for_each(|at| bytes[at + 14] ^= 1);
    fs::write(&database, bytes).unwrap();
    let aside = directory.path().join("quarantine").join(format!("{}-1", day.name));
    fs::rename(directory.path().join("history").join(&day.name), &aside).unwrap();

    let offline = Offline::open(directory.path()).unwrap();
    let faults: usize =
        offline.parts().unwrap().iter().map(|part| offline.examine(part).unwrap().faults.len()).sum();
    assert!(faults > 0, "the flipped bit is found, and that a day was put aside");
    let plan = offline.salvageable().unwrap();
    assert!(plan.len() == 1 && plan[0].history > 0 && !plan[0].done, "{plan:?}");
    assert!(offline.salvage_days().unwrap() > 0);
    assert!(offline.salvageable().unwrap()[0].done);
    let again = offline.parts().unwrap().into_iter().find(|part| part.kind == PartKind::Day).unwrap();
    assert!(offline.examine(&again).unwrap().faults.is_empty());
}

#[tokio::test]
async fn a_generation_that_is_just_being_replaced_is_seen_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let names = |offline: &Offline| -> Vec<String> {
        offline.parts().unwrap().into_iter().map(|part| part.name).collect()
    };
    let offline = Offline::open(directory.path()).unwrap();
    let routes = || serde_json::to_value(offline.status().unwrap().routes).unwrap();
    let (before, counted) = (names(&offline), routes());
    let outbox = directory.path().join("outbox");
    let generation = outbox.join(&before[0]);
    fs::rename(&generation, outbox.join(format!("{}.old", before[0]))).unwrap();
    assert_eq!(names(&offline), before);
    let part = offline.parts().unwrap().remove(0);
    assert!(offline.examine(&part).unwrap().faults.is_empty());
    assert_eq!(routes(), counted);
    fs::create_dir(&generation).unwrap();
    assert_eq!(names(&offline), before, "the newer one counts");
}
