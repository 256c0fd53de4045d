//! Killed while what is known of creates is copied: a child process appends and imports the same
//! creates over and over and says what it was told; in the end each is there once.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, a child talks")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::crash;
use super::import::{append, create, drain, past};
use super::kill_points::kill_at;
use super::support::open_small;
use crate::journal::kill_point::KillPoint;
use crate::journal::{Journal, Outgoing};

const GENERATION: u64 = 40;
/// Creates of one round.
const OF_ROUND: u64 = 10_000;

const POINTS: [(KillPoint, u32); 12] = [
    (KillPoint::KeysWritten, 0),
    (KillPoint::KeysSynced, 0),
    (KillPoint::KeysMarked, 0),
    (KillPoint::Sealed, 1),
    (KillPoint::KeysWritten, 3),
    (KillPoint::KeysSynced, 2),
    (KillPoint::HeadSynced, 2),
    (KillPoint::KeysMarked, 2),
    (KillPoint::Written, 90),
    (KillPoint::KeysWritten, 5),
    (KillPoint::Synced, 130),
    (KillPoint::KeysSynced, 4),
];

#[test]
fn no_create_is_doubled_or_withheld_by_a_kill_while_keys_are_copied() {
    let directory = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for (round, (point, passed)) in (1..).zip(POINTS) {
        let mut child = crash::command("key_crash::child", directory.path(), round)
            .env("CALLPOST_JOURNAL_KILL_POINT", format!("{point:?} {passed}"))
            .spawn()
            .unwrap();
        told.take(&kill_at(&mut child, &format!("K {point:?}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(told.settle_accounts(directory.path()));
    println!("{} kills, {} tried, {} acknowledged", POINTS.len(), told.tried.len(), told.there.len());
}

/// The other process; not a test of its own.
#[test]
#[ignore = "the process that the test above starts, and kills"]
fn child() {
    let Some((directory, round)) = crash::asked() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let (journal, recovered) = open_small(&directory, GENERATION);
        assert!(recovered.quarantined.is_empty(), "{recovered:?}");
        let mut n = 0;
        loop {
            let live = round * OF_ROUND + n;
            println!("T {live}");
            append(&journal, spread(create(live), live)).await;
            println!("A {live}");
            // of this round and of the one before, both lanes, and one that is new
            let before = (round - 1) * OF_ROUND + n;
            let numbers = [live, before, before + OF_ROUND / 2, live + OF_ROUND / 2];
            for number in numbers {
                println!("T {number}");
            }
            let done = journal.import(pasts(&numbers), false).await.unwrap();
            for (place, number) in numbers.iter().enumerate() {
                println!("{} {number}", if done.appended.contains(&place) { "A" } else { "N" });
            }
            n += 1;
            if n % 50 == 0 {
                drain(&journal).await;
            }
        }
    });
}

/// Each has a party of its own.
fn spread(mut create: Outgoing, number: u64) -> Outgoing {
    create.party = Some(parsers::Uniqueid::new(format!("1795000000.{number}")));
    create
}

fn pasts(numbers: &[u64]) -> Vec<Outgoing> {
    numbers.iter().map(|number| spread(past(*number), *number)).collect()
}

#[derive(Default)]
struct Told {
    tried: BTreeSet<u64>,
    there: BTreeSet<u64>,
}

impl Told {
    fn take(&mut self, lines: &[String]) {
        for line in lines {
            let Some((what, Ok(number))) = line.split_once(' ').map(|(what, rest)| (what, rest.parse()))
            else {
                continue;
            };
            match what {
                "T" => {
                    self.tried.insert(number);
                }
                "A" => assert!(self.there.insert(number), "{number} was appended twice"),
                "N" => {
                    assert!(self.tried.contains(&number), "{number} was withheld");
                    // it was on disk before its acknowledgement was heard
                    self.there.insert(number);
                }
                _ => {}
            }
        }
    }

    async fn settle_accounts(&mut self, directory: &Path) {
        let (journal, recovered) = open_small(directory, GENERATION);
        assert!(recovered.quarantined.is_empty(), "{recovered:?}");
        let tried: Vec<u64> = self.tried.iter().copied().collect();
        for some in tried.chunks(200) {
            let done = journal.import(pasts(some), false).await.unwrap();
            for place in done.appended {
                assert!(!self.there.contains(&some[place]), "{} was known", some[place]);
            }
        }
        self.all_are_there_once(&journal).await;
        let new: Vec<u64> = (1..100).map(|n| 900 * OF_ROUND + n).collect();
        assert_eq!(journal.import(pasts(&new), false).await.unwrap().appended.len(), new.len());
        journal.close().await;
    }

    /// What the children delivered is in the history, the rest waits.
    async fn all_are_there_once(&self, journal: &Journal) {
        drain(journal).await;
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for number in self.tried.iter().copied() {
            let trace = journal.trace(&super::support::call(number)).await.unwrap();
            times.insert(number, trace.deliveries.len());
        }
        let wrong: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let status = journal.status().await.unwrap();
        assert!(status.routes.iter().all(|route| route.counters.difference() == 0));
        let accepted: u64 = status.routes.iter().map(|route| route.counters.accepted).sum();
        assert_eq!(accepted, self.tried.len() as u64);
    }
}
