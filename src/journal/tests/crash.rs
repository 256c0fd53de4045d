//! Killed at any moment: a child process appends, delivers and settles, and says what was
//! acknowledged; it is killed and started again on the same files, and in the end everything is
//! accounted for. `CALLPOST_JOURNAL_KILLS` for more kills.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, a child talks"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::support::{batch, body_of, call, now, open_small, route, update};
use crate::calls::LegState;
use crate::journal::{Delivery, Journal, Payload, Settlement};

/// The work of most tests' child.
pub(super) const CHILD: &str = "crash::child";
const DIRECTORY: &str = "CALLPOST_JOURNAL_CRASH_DIRECTORY";
const ROUND: &str = "CALLPOST_JOURNAL_CRASH_ROUND";
/// Small, so that sealing and archiving are killed as well.
const GENERATION: u64 = 300;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let kills: u64 = std::env::var("CALLPOST_JOURNAL_KILLS").map_or(12, |text| text.parse().unwrap());
    let mut told = Told::default();
    let mut random = crc32c::crc32c(directory.path().as_os_str().as_encoded_bytes());
    for round in 0..kills {
        random = crc32c::crc32c(&random.to_le_bytes());
        let life = Duration::from_millis(50 + u64::from(random % 400));
        told.take(&run_and_kill(directory.path(), round, life));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(told.settle_accounts(directory.path()));
    println!("{kills} kills, {} acknowledged, {} settled", told.appended.len(), told.settled.len());
}

/// The other process; not a test of its own.
#[test]
#[ignore = "the process that the test above starts, and kills"]
fn child() {
    let Some((directory, round)) = asked() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let (journal, recovered) = open_small(&directory, GENERATION);
        assert!(recovered.quarantined.is_empty(), "{recovered:?}");
        let mut tasks = vec![tokio::spawn(deliver(journal.clone()))];
        for task in 0..6 {
            tasks.push(tokio::spawn(append(journal.clone(), round * 100_000 + task * 10_000)));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn append(journal: Journal, first: u64) {
    for number in first..first + 10_000 {
        for n in 0..5 {
            let state = if n == 4 { LegState::Hangup } else { LegState::Ringing };
            let mut batch = batch(update(number, n, state, now()), &["desk"]);
            if n == 4 {
                batch.ended.push(call(number));
            }
            let id = batch.updates[0].id.clone();
            journal.append(batch).await.unwrap();
            println!("A {}", id.0);
        }
    }
}

async fn deliver(journal: Journal) {
    let desk = route("desk");
    loop {
        let (due, _) = journal.due(&desk, now(), 8).await.unwrap();
        if due.is_empty() {
            journal.wait_for_work(&desk).await;
        }
        for delivery in due {
            println!("D {}", delivery.id.0);
            check_payload(&delivery);
            let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
            journal.settle(delivery.key, settlement, now()).await.unwrap();
            println!("S {}", delivery.id.0);
        }
    }
}

fn check_payload(delivery: &Delivery) {
    let Payload::Webhook { body, .. } = &delivery.payload else { panic!("a webhook") };
    assert_eq!(*body, body_of(&delivery.id.0));
}

/// What the other process is to do: where, and in which round. `None`: it is this one.
pub(super) fn asked() -> Option<(PathBuf, u64)> {
    let directory = std::env::var_os(DIRECTORY)?;
    Some((directory.into(), std::env::var(ROUND).unwrap().parse().unwrap()))
}

/// The other process, its output kept. `child`: the test that is its work.
pub(super) fn command(child: &str, directory: &Path, round: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&format!("journal::tests::{child}"), "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped());
    command
}

fn run_and_kill(directory: &Path, round: u64, life: Duration) -> Vec<String> {
    let mut child = command(CHILD, directory, round).spawn().unwrap();
    let talk = Talk::of(&mut child);
    talk.let_live(round, life);
    let died = child.try_wait().unwrap();
    assert!(died.is_none(), "the child failed: {died:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    talk.all()
}

/// What a child says.
pub(super) struct Talk {
    reader: std::thread::JoinHandle<Vec<String>>,
    acknowledged: mpsc::Receiver<()>,
}

impl Talk {
    pub(super) fn of(child: &mut Child) -> Self {
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, acknowledged) = mpsc::channel();
        let take = move |line: &String| {
            if line.starts_with("A ") {
                let _ = sender.send(());
            }
        };
        let reader = std::thread::spawn(move || {
            output.lines().map_while(Result::ok).inspect(take).collect::<Vec<_>>()
        });
        Self { reader, acknowledged }
    }

    /// Mostly so long from its first word that something is on disk; now and then from its start.
    pub(super) fn let_live(&self, round: u64, life: Duration) {
        if !round.is_multiple_of(5) {
            let _ = self.acknowledged.recv_timeout(Duration::from_secs(10));
        }
        std::thread::sleep(life);
    }

    pub(super) fn all(self) -> Vec<String> {
        self.reader.join().unwrap()
    }
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) appended: BTreeSet<String>,
    pub(super) settled: BTreeSet<String>,
    /// By call: the last one that was sent, by its number in the call.
    sent: HashMap<String, u64>,
}

impl Told {
    pub(super) fn take(&mut self, lines: &[String]) {
        for line in lines {
            match line.split_once(' ') {
                Some(("A", id)) => assert!(self.appended.insert(id.to_owned())),
                Some(("D", id)) => self.send(id),
                Some(("S", id)) => assert!(self.settled.insert(id.to_owned())),
                _ => {}
            }
        }
    }

    /// A delivery is made: not one that was settled, and in its call's order.
    fn send(&mut self, id: &str) {
        assert!(!self.settled.contains(id), "{id} was delivered and acknowledged before");
        let (call, n) = id.rsplit_once('.').unwrap();
        let n: u64 = n.parse().unwrap();
        let last = self.sent.insert(call.to_owned(), n);
        let fits = match last {
            None => n == 0,
            Some(last) => n == last || n == last + 1,
        };
        assert!(fits, "{id} after number {last:?} of its call");
    }

    /// Delivers what is left and looks whether all that was acknowledged was delivered.
    pub(super) async fn settle_accounts(&mut self, directory: &Path) {
        let (journal, recovered) = open_small(directory, GENERATION);
        assert!(recovered.quarantined.is_empty(), "{recovered:?}");
        loop {
            let (due, _) = journal.due(&route("desk"), now(), 100).await.unwrap();
            if due.is_empty() {
                break;
            }
            let mut settling = Vec::new();
            for delivery in due {
                self.send(&delivery.id.0);
                check_payload(&delivery);
                let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
                settling.push(journal.settle(delivery.key, settlement, now()));
                self.settled.insert(delivery.id.0.to_string());
            }
            for settled in futures_util::future::join_all(settling).await {
                settled.unwrap();
            }
        }
        let mut calls: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for id in &self.appended {
            let (call, n) = id.rsplit_once('.').unwrap();
            let n: u64 = n.parse().unwrap();
            assert!(self.sent.get(call).is_some_and(|last| *last >= n), "{id} was lost");
            let number = u64::from_str_radix(call.split_once('.').unwrap().1, 16).unwrap();
            calls.entry(number).or_default().insert(id.clone());
        }
        for (number, ids) in calls.iter().step_by(7) {
            let trace = journal.trace(&call(*number)).await.unwrap();
            let found: Vec<String> = trace.updates.iter().map(|update| update.id.0.to_string()).collect();
            assert_eq!(found.len(), found.iter().collect::<BTreeSet<_>>().len());
            assert!(ids.iter().all(|id| found.contains(id)), "call {number}: {ids:?} but {found:?}");
        }
        let status = journal.status().await.unwrap();
        let line = status.routes[0].counters;
        assert_eq!(line.pending, 0);
        assert_eq!(line.accepted, line.delivered);
        assert!(usize::try_from(line.accepted).unwrap() >= self.appended.len());
        journal.close().await;
    }
}
