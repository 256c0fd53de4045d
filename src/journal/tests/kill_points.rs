//! Killed exactly there: a child process stands still at a named point, is killed, and started again
//! on the same files; in the end everything is accounted for. `CALLPOST_JOURNAL_KILL_POINTS` for so
//! many kills at each point.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::crash::{CHILD, Told, command};
use crate::journal::kill_point::KillPoint;

/// Each with how often it is passed, at most, before the kill.
const POINTS: [(KillPoint, u32); 14] = [
    (KillPoint::BeforeWrite, 300),
    (KillPoint::Written, 300),
    (KillPoint::Synced, 300),
    (KillPoint::Witnessed, 300),
    (KillPoint::HeadCreated, 3),
    (KillPoint::HeadSynced, 3),
    (KillPoint::Sealed, 3),
    (KillPoint::Archived, 2),
    (KillPoint::BeforeRemoval, 2),
    (KillPoint::Removed, 2),
    (KillPoint::Rewritten, 3),
    (KillPoint::Replaced, 3),
    (KillPoint::Exchanged, 3),
    (KillPoint::Loaded, 1),
];
/// To reach a point on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);

fn kills() -> u64 {
    std::env::var("CALLPOST_JOURNAL_KILL_POINTS").map_or(1, |text| text.parse().unwrap())
}

fn chance(random: &mut u32, most: u32) -> u32 {
    *random = crc32c::crc32c(&random.to_le_bytes());
    *random % most
}

fn account(mut told: Told, directory: &Path) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(told.settle_accounts(directory));
    (told.appended.len(), told.settled.len())
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_a_kill_at_any_named_point() {
    for kill in 0..kills() {
        let directory = tempfile::tempdir().unwrap();
        let mut random = crc32c::crc32c(directory.path().as_os_str().as_encoded_bytes());
        let mut told = Told::default();
        for (round, (point, most)) in (0..).zip(POINTS) {
            let passed = if kill == 0 { 0 } else { chance(&mut random, most) };
            let mut child = command(CHILD, directory.path(), round)
                .env("CALLPOST_JOURNAL_KILL_POINT", format!("{point:?} {passed}"))
                .spawn()
                .unwrap();
            told.take(&kill_at(&mut child, &format!("K {point:?}")));
        }
        let (appended, settled) = account(told, directory.path());
        println!("{} kills, {appended} acknowledged, {settled} settled", POINTS.len());
    }
}

/// What it said until it stood still, and what its other threads said until it was gone.
pub(super) fn kill_at(child: &mut Child, wanted: &str) -> Vec<String> {
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let begin = Instant::now();
    let mut said = Vec::new();
    let reached = output.by_ref().any(|line| {
        let reached = line.ends_with(wanted);
        said.push(line);
        reached || begin.elapsed() > PATIENCE
    });
    assert!(reached && said.last().is_some_and(|line| line.ends_with(wanted)), "not reached: {wanted}");
    child.kill().unwrap();
    child.wait().unwrap();
    said.extend(output);
    said
}

/// sled writes a snapshot at each start under another name first, for about a millisecond.
#[test]
fn a_kill_while_the_store_writes_its_snapshot_at_the_start_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let mut hits = 0;
    let rounds = kills().max(3);
    for round in 0..rounds {
        // something to be read at the next start
        let mut child = command(CHILD, directory.path(), 2 * round)
            .env("CALLPOST_JOURNAL_KILL_POINT", format!("{:?} 40", KillPoint::Synced))
            .spawn()
            .unwrap();
        told.take(&kill_at(&mut child, "K Synced"));
        let mut child = command(CHILD, directory.path(), 2 * round + 1).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        let hit = watch(&directory.path().join("outbox"), Duration::from_secs(2));
        child.kill().unwrap();
        child.wait().unwrap();
        told.take(&reader.join().unwrap());
        hits += u64::from(hit && unfinished(&directory.path().join("outbox")).is_some());
    }
    let (appended, _) = account(told, directory.path());
    println!("{hits} of {rounds} kills left an unfinished snapshot, {appended} acknowledged");
}

/// Looks without a pause until a snapshot is being written.
fn watch(outbox: &Path, most: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < most {
        if unfinished(outbox).is_some() {
            return true;
        }
    }
    false
}

fn unfinished(outbox: &Path) -> Option<PathBuf> {
    let stores = std::fs::read_dir(outbox).ok()?.flatten();
    let mut files = stores.filter_map(|store| std::fs::read_dir(store.path()).ok()).flatten().flatten();
    files.find(|file| file.path().extension().is_some_and(|end| end == "generating")).map(|file| file.path())
}
