//! A disk that fills up: the journal says so, loses nothing that it acknowledged, and goes on by
//! itself once there is room. Needs a small file system of its own, such as a tmpfs of 48 MB, named
//! in `CALLPOST_SMALL_DISK`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::support::{batch, now, open, route, update};
use crate::calls::LegState;
use crate::journal::{JournalError, Settlement};

#[tokio::test]
#[ignore = "needs CALLPOST_SMALL_DISK"]
async fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let Ok(disk) = std::env::var("CALLPOST_SMALL_DISK") else { return };
    let directory = tempfile::tempdir_in(&disk).unwrap();
    let ballast = PathBuf::from(disk).join("ballast");
    std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let (journal, _) = open(&directory.path().join("journal"));
    let mut acknowledged = 0;
    let refused = loop {
        match journal.append(batch(update(acknowledged, 0, LegState::Hangup, now()), &["desk"])).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000_000, "the disk does not fill");
    };
    assert!(matches!(refused, JournalError::Io { .. }), "{refused:?}");
    journal.round_trip().await.unwrap();
    assert!(journal.status().await.unwrap().fault.is_some());

    std::fs::remove_file(ballast).unwrap();
    let freed = Instant::now();
    let extra = loop {
        let later = batch(update(u64::MAX >> 12, 0, LegState::Hangup, now()), &["other"]);
        if journal.append(later).await.is_ok() {
            break freed.elapsed();
        }
        assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", journal.status().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut delivered = 0;
    loop {
        let (due, _) = journal.due(&route("desk"), now(), 64).await.unwrap();
        if due.is_empty() {
            break;
        }
        for delivery in due {
            let settlement = Settlement::Delivered { status: None, answer: String::new() };
            journal.settle(delivery.key, settlement, now()).await.unwrap();
            delivered += 1;
        }
    }
    // the refused one may be on disk all the same
    assert!(delivered == acknowledged || delivered == acknowledged + 1, "{delivered} of {acknowledged}");
    println!("{acknowledged} acknowledged before the disk was full, writing again after {extra:?}");
    journal.close().await;
}
