//! A disk that fills up, and the journal's own limit: the journal says so, loses nothing that it
//! acknowledged unless it says what it gave up, and goes on by itself once there is room. The first
//! needs a small file system of its own, which root can mount.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::{batch, call, create_of, now, open, options, route, update};
use crate::calls::LegState;
use crate::journal::{Batch, Counters, Journal, JournalError, JournalOptions, Outgoing, Payload, Settlement};

/// A tmpfs of so many megabytes, as long as it is held.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "callpost-test"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                println!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no mount: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let foreign = disk.0.path().join("foreign");
    std::fs::write(&foreign, vec![1; 40 << 20]).unwrap();
    let (journal, _) = open(&disk.0.path().join("journal"));
    let (mut tried, mut acknowledged) = (0, 0);
    // what it tidies up itself may give it room again, for a while
    loop {
        tried += 1;
        assert!(tried < 1_000_000, "the disk does not fill");
        match journal.append(creates(tried)).await {
            Ok(()) => acknowledged += 1,
            Err(JournalError::Io { .. }) if journal.status().await.unwrap().fault.is_some() => break,
            Err(JournalError::Io { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    journal.round_trip().await.unwrap();
    for _ in 0..20 {
        // whoever tries again and again changes nothing
        let _ = journal.append(batch(update(u64::MAX >> 13, 0, LegState::Hangup, now()), &["other"])).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    std::fs::remove_file(foreign).unwrap();
    let freed = Instant::now();
    let took = loop {
        if journal.append(batch(update(u64::MAX >> 12, 0, LegState::Hangup, now()), &["other"])).await.is_ok()
        {
            break freed.elapsed();
        }
        assert!(freed.elapsed() < Duration::from_secs(5), "{:?}", journal.status().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let delivered = drain(&journal, "crm").await.len() as u64;
    // the refused ones may be on disk all the same
    assert!((acknowledged..=tried + 1).contains(&delivered), "{delivered} of {acknowledged}");
    let status = journal.status().await.unwrap();
    assert_eq!(status.fault, None, "{status:?}");
    assert!(status.gaps > 0, "{status:?}");
    assert!(status.gap_records > 0);
    println!("{acknowledged} acknowledged before the disk was full, writing again after {took:?}");
    journal.close().await;
}

#[tokio::test]
async fn at_its_limit_the_journal_gives_up_what_matters_least_and_says_what() {
    let directory = tempfile::tempdir().unwrap();
    let limit: u64 = 32 << 20;
    let options = JournalOptions { max_size: limit, ..options(directory.path()) };
    let (journal, _) = Journal::open(options.clone()).unwrap();
    let mut made = 0;
    let mut most = 0;
    let counters = async |name: &str| {
        let status = journal.status().await.unwrap();
        let found = status.routes.into_iter().find(|found| *found.route.0 == *name).unwrap();
        (found.counters, found.dropped)
    };
    // ringing goes first, and creates are whole as long as there is any of it
    loop {
        let appends = (0..64).map(|n| journal.append(mixed(made + n)));
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
        made += 64;
        most = most.max(crate::journal::space::disk_use(directory.path()));
        assert!(made < 200_000, "the limit is never reached");
        if counters("desk").await.0.dropped > 200 {
            break;
        }
    }
    let (desk, reasons) = counters("desk").await;
    let (crm, _) = counters("crm").await;
    assert_eq!(crm, Counters { accepted: made, pending: made, ..Counters::default() });
    assert_eq!(desk.accepted, 2 * made);
    assert_eq!(desk.accepted, desk.pending + desk.dropped);
    assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), desk.dropped, "{reasons:?}");
    assert!(reasons[0].0.contains("ringing"), "{reasons:?}");

    // and it stays within its limit whatever comes
    for _ in 0..20 {
        let appends = (0..64).map(|n| journal.append(mixed(made + n)));
        let done = futures_util::future::join_all(appends).await;
        made += done.iter().filter(|done| done.is_ok()).count() as u64;
        most = most.max(crate::journal::space::disk_use(directory.path()));
    }
    assert!(most <= limit, "{most} bytes of {limit}");
    let (crm, given_up) = counters("crm").await;
    assert_eq!(crm.accepted, crm.pending + crm.dropped);
    assert_eq!(given_up.iter().map(|(_, count)| count).sum::<u64>(), crm.dropped, "{given_up:?}");
    journal.close().await;

    let (journal, recovered) = Journal::open(options).unwrap();
    assert!(recovered.quarantined.is_empty());
    let creates = drain(&journal, "crm").await;
    assert_eq!(creates.len() as u64, crm.pending, "each create that was not given up is delivered, once");
    let webhooks = drain(&journal, "desk").await;
    assert!(webhooks.len() as u64 <= made * 2);
    let dropped: Vec<u64> = (0..made)
        .filter(|number| !creates.contains(&*update(*number, 0, LegState::Hangup, now()).id.0))
        .collect();
    assert_eq!(dropped.len() as u64, crm.dropped);
    for some in dropped.chunks(100) {
        let import = some.iter().map(|number| Outgoing {
            route: route("crm").history(),
            ..self::creates(*number).outbox.remove(0)
        });
        let done = journal.import(import.collect(), false).await.unwrap();
        assert_eq!(done.appended.len(), some.len(), "what was given up may come again");
    }
    println!("{made} appended, {most} bytes at most, {crm:?}, {given_up:?}");
    journal.close().await;
}

/// A call with a create alone.
fn creates(number: u64) -> Batch {
    let update = update(number, 0, LegState::Hangup, now());
    let create = create_of(&update, number, Some(number), None);
    Batch { outbox: vec![create], ended: vec![call(number)], updates: vec![update], ..Batch::default() }
}

/// As a call makes: a webhook about ringing, one about its end, a create.
fn mixed(number: u64) -> Batch {
    let mut batch = creates(number);
    for (n, event) in ["call.ringing", "call.hangup"].into_iter().enumerate() {
        let mut webhook =
            super::support::outgoing("desk", &update(number, n as u64, LegState::Hangup, now()), true);
        if let Payload::Webhook { event: name, .. } = &mut webhook.payload {
            *name = event.to_owned();
        }
        batch.outbox.push(webhook);
    }
    batch
}

async fn drain(journal: &Journal, name: &str) -> BTreeSet<String> {
    let mut delivered = BTreeSet::new();
    loop {
        let (due, _) = journal.due(&route(name), now(), 256).await.unwrap();
        if due.is_empty() {
            return delivered;
        }
        let mut settling = Vec::new();
        for delivery in due {
            assert!(delivered.insert(delivery.id.0.to_string()), "{} twice", delivery.id.0);
            let settlement = Settlement::Delivered { status: None, answer: String::new() };
            settling.push(journal.settle(delivery.key, settlement, now()));
        }
        for settled in futures_util::future::join_all(settling).await {
            settled.unwrap();
        }
    }
}

#[test]
fn a_limit_is_shared_in_sixteenths() {
    let space = |max: u64| crate::journal::space::Space::new(Path::new("/"), max);
    assert_eq!(space(1 << 30).generation(), 64 << 20);
    assert!(space(4 << 30).generation() <= 256 << 20);
}
