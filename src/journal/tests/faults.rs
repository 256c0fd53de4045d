//! A disk that errs, though it is not full: every handle is dropped, what was acknowledged is read
//! again, nothing that was not is told to be safe, and it goes on by itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::support::{batch, body_of, now, open_small, route, update};
use crate::calls::{LegState, ObjectKey};
use crate::journal::fault_point::{Doing, Injected};
use crate::journal::{Batch, Journal, JournalError, Payload, Settlement};

fn delivered() -> Settlement {
    Settlement::Delivered { status: Some(200), answer: String::new() }
}

async fn append(journal: &Journal, number: u64) -> Result<(), JournalError> {
    journal.append(batch(update(number, 0, LegState::Hangup, now()), &["desk"])).await
}

/// Tries again until it works, as ingest and the workers do.
async fn persist<T, F: Future<Output = Result<T, JournalError>>>(mut work: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        match work().await {
            Ok(done) => return done,
            Err(JournalError::Io { .. }) if begun.elapsed() < Duration::from_secs(20) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn drain(journal: &Journal) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    loop {
        let (due, _) = persist(|| async { journal.due(&route("desk"), now(), 64).await }).await;
        if due.is_empty() {
            return found;
        }
        for delivery in due {
            let Payload::Webhook { body, .. } = &delivery.payload else { panic!("a webhook") };
            assert_eq!(*body, body_of(&delivery.id.0));
            assert!(found.insert(delivery.id.0.to_string()), "{} twice", delivery.id.0);
            persist(|| journal.settle(delivery.key, delivered(), now())).await;
        }
    }
}

/// Fails the next so many times that the newest generation does this.
fn failing(directory: &Path, doing: Doing, times: u32) -> (Injected, Arc<AtomicU32>) {
    let left = Arc::new(AtomicU32::new(times));
    let counted = Arc::clone(&left);
    let rule = move |_: &Path, done: Doing| {
        done == doing
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    (Injected::under(directory, rule), counted)
}

#[tokio::test]
async fn an_error_of_the_disk_costs_nothing_that_was_acknowledged_and_passes() {
    for doing in [Doing::Writing, Doing::Syncing, Doing::Reading, Doing::Opening] {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open_small(directory.path(), 30);
        let object = Batch { objects: vec![(ObjectKey("a".into()), Some(vec![7]))], ..Batch::default() };
        journal.append(object).await.unwrap();
        let mut acknowledged = BTreeSet::new();
        for number in 0..40 {
            append(&journal, number).await.unwrap();
            acknowledged.insert(format!("hq.{number:014x}.0"));
        }
        let (due, _) = journal.due(&route("desk"), now(), 5).await.unwrap();
        let (injected, left) = failing(directory.path(), doing, 3);
        let mut refused = BTreeSet::new();
        for number in 100..200 {
            if append(&journal, number).await.is_ok() {
                acknowledged.insert(format!("hq.{number:014x}.0"));
            } else {
                refused.insert(format!("hq.{number:014x}.0"));
            }
            // who holds a delivery settles it, whatever happens meanwhile
            if let Some(held) = due.get(usize::try_from(number - 100).unwrap()) {
                persist(|| journal.settle(held.key, delivered(), now())).await;
                assert!(acknowledged.remove(&*held.id.0));
            }
            if left.load(Ordering::Relaxed) == 0 && number > 110 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // a start opens what a working journal never closes
        if doing != Doing::Opening {
            assert_eq!(left.load(Ordering::Relaxed), 0, "{doing:?}");
            assert!(!refused.is_empty() || doing == Doing::Reading, "{doing:?}");
        }
        drop(injected);
        let found = drain(&journal).await;
        assert!(acknowledged.is_subset(&found), "{doing:?}: {:?}", acknowledged.difference(&found));
        let more: BTreeSet<String> = found.difference(&acknowledged).cloned().collect();
        assert!(more.is_subset(&refused), "{doing:?}: what nobody appended: {more:?}");
        let status = journal.status().await.unwrap();
        assert_eq!((status.fault, status.quarantined, status.lost), (None, 0, 0), "{doing:?}");
        assert_eq!(status.gaps > 0, !refused.is_empty(), "{doing:?}");
        let line = status.routes[0].counters;
        assert_eq!((line.pending, line.difference()), (0, 0), "{doing:?}");
        assert_eq!(journal.objects().await.unwrap().len(), 1);
        journal.close().await;
    }
}

#[tokio::test]
async fn a_spot_that_cannot_be_read_takes_one_generation_and_not_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 30);
    for number in 0..40 {
        append(&journal, number).await.unwrap();
    }
    journal.close().await;
    let (journal, _) = open_small(directory.path(), 30);
    let bad = directory.path().join("outbox").join(format!("{:020}", 2));
    let _injected = Injected::under(directory.path(), move |store, _| store == bad);
    let begun = Instant::now();
    while journal.status().await.unwrap().quarantined == 0 {
        let _ = journal.due(&route("desk"), now(), 64).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", journal.status().await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    persist(|| append(&journal, 100)).await;
    // its file can be searched still, so that what waited in it is delivered all the same
    let found = drain(&journal).await;
    assert_eq!(found.len(), 41);
    let status = journal.status().await.unwrap();
    assert_eq!((status.fault, status.quarantined), (None, 1));
    journal.close().await;
}
