//! Bytes that are not what was written: flipped, zeroed, cut off, in any file. The journal opens,
//! delivers nothing wrong, goes on working, and says what it lost. `CALLPOST_JOURNAL_MUTATIONS` for
//! more of them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::support::{batch, body_of, call, now, open_small, options, route, update};
use crate::calls::{LegState, ObjectKey};
use crate::journal::{HistoryFilter, Journal, JournalOptions, Payload, Settlement};

const GENERATION: u64 = 200;
const CALLS: u64 = 150;
/// No start and no question takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn damaged_files_cost_what_they_held_and_nothing_else() {
    let mutations: u32 = std::env::var("CALLPOST_JOURNAL_MUTATIONS").map_or(60, |text| text.parse().unwrap());
    let seed: u32 = std::env::var("CALLPOST_JOURNAL_SEED").map_or(1, |text| text.parse().unwrap());
    let template = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waiting = runtime.block_on(fill(template.path()));
    let mut sums = Sums::default();
    for mutation in 0..mutations {
        let directory = tempfile::tempdir().unwrap();
        copy(template.path(), directory.path());
        let what = mutate(directory.path(), seed.wrapping_mul(1_000_003).wrapping_add(mutation));
        let (sender, receiver) = mpsc::channel();
        let path = directory.path().to_owned();
        let expected = waiting.clone();
        let started = Instant::now();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _ = sender.send(runtime.block_on(examine(&path, &expected)));
        });
        let Ok(found) = receiver.recv_timeout(PATIENCE) else { panic!("{what}: failed or hangs") };
        assert!(
            found.lost == 0 || found.quarantined > 0 || found.missing > 0 || found.lost <= found.dropped,
            "{what}: {found:?} and no word of it"
        );
        sums.add(&found, started.elapsed());
    }
    println!("{mutations} mutations, {} deliveries wait each time: {sums:?}", waiting.len());
}

#[test]
fn another_format_is_refused_and_a_damaged_name_of_ours_is_not_taken_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("format");
    let open = |text: &str| {
        fs::write(&file, text).unwrap();
        Journal::open(options(directory.path()))
    };
    for bit in 0..8 {
        for at in 0..19 {
            let mut bytes = b"callpost journal 1\n".to_vec();
            bytes[at] ^= 1 << bit;
            fs::write(&file, bytes).unwrap();
            super::super::open::check_format(directory.path()).unwrap().unwrap();
        }
    }
    for text in ["callpost journal 2 2\n", "callpost journal 17 17\n"] {
        assert!(open(text).unwrap_err().to_string().contains("cannot read"), "{text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "and left as it is");
    }
    open("callpost journal 2 3\n").unwrap();
}

#[derive(Debug, Default)]
struct Sums {
    harmless: u32,
    lost: usize,
    quarantined: u32,
    slowest: Duration,
}

impl Sums {
    fn add(&mut self, found: &Found, took: Duration) {
        self.harmless += u32::from(found.lost == 0);
        self.lost += found.lost;
        self.quarantined += u32::from(found.quarantined > 0);
        self.slowest = self.slowest.max(took);
    }
}

#[derive(Debug)]
struct Found {
    lost: usize,
    quarantined: u64,
    missing: u64,
    dropped: usize,
}

/// Several generations with deliveries that wait, a few days of history, open objects.
async fn fill(directory: &Path) -> BTreeSet<String> {
    let (journal, _) = open_small(directory, GENERATION);
    let start = parsers::Micros(now().0 - super::support::DAY);
    for n in 0..2 {
        for number in 0..CALLS {
            let state = if n == 1 { LegState::Hangup } else { LegState::Ringing };
            let mut batch = batch(update(number, n, state, start), &["desk"]);
            batch.objects = vec![(ObjectKey(format!("{number}").into()), (n == 0).then(|| vec![7; 3000]))];
            journal.append(batch).await.unwrap();
        }
    }
    let mut waiting: BTreeSet<String> =
        (0..CALLS).flat_map(|number| (0..2).map(move |n| format!("hq.{number:014x}.{n}"))).collect();
    // the first generation is settled and becomes history, half of the second is settled
    for _ in 0..100 {
        let (due, _) = journal.due(&route("desk"), now(), 1).await.unwrap();
        waiting.remove(&*due[0].id.0);
        let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
        journal.settle(due[0].key, settlement, now()).await.unwrap();
    }
    while journal.status().await.unwrap().days == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    journal.close().await;
    waiting
}

/// Opens, delivers all that is there, appends, asks questions, opens again.
async fn examine(directory: &Path, waiting: &BTreeSet<String>) -> Found {
    let options = JournalOptions { generation_records: GENERATION, ..options(directory) };
    let (journal, _) = Journal::open(options.clone()).unwrap();
    let mut delivered = BTreeSet::new();
    let fresh = update(1_000_000, 0, LegState::Ringing, now());
    deliver(&journal, &mut delivered).await;
    persist(|| journal.append(batch(fresh.clone(), &["desk"]))).await;
    deliver(&journal, &mut delivered).await;
    assert!(delivered.remove(&*fresh.id.0), "what is appended now is delivered");
    assert!(delivered.iter().all(|id| id.starts_with("hq.")));
    let _ = journal.legs(HistoryFilter { limit: 1000, ..HistoryFilter::default() }).await;
    for number in [0, 10, CALLS - 1] {
        let _ = journal.trace(&call(number)).await;
    }
    let status = journal.status().await.unwrap();
    let counted = status.routes.iter().find(|found| *found.route.0 == *"desk").unwrap().counters;
    let c = counted;
    assert_eq!(c.accepted, c.delivered + c.pending + c.dead + c.refused + c.dropped, "{counted:?}");
    journal.close().await;
    let (journal, recovered) = Journal::open(options).unwrap();
    assert!(recovered.quarantined.is_empty(), "a second start finds nothing new: {recovered:?}");
    journal.close().await;
    let lost = waiting.difference(&delivered).count();
    Found {
        lost,
        quarantined: status.quarantined,
        missing: status.lost,
        dropped: usize::try_from(counted.dropped).unwrap(),
    }
}

async fn deliver(journal: &Journal, delivered: &mut BTreeSet<String>) {
    loop {
        let (due, _) = persist(|| async { journal.due(&route("desk"), now(), 64).await }).await;
        if due.is_empty() {
            return;
        }
        for delivery in due {
            let Payload::Webhook { body, .. } = &delivery.payload else { panic!("a webhook") };
            assert_eq!(*body, body_of(&delivery.id.0), "a wrong payload");
            delivered.insert(delivery.id.0.to_string());
            let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
            persist(|| journal.settle(delivery.key, settlement.clone(), now())).await;
        }
    }
}

/// As a worker does: tries again until it works.
async fn persist<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(mut work: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        match work().await {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the journal does not recover: {:?}", work().await.err());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(of: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if fs::metadata(&path).unwrap().len() > 0 {
            into.push(path);
        }
    }
}

/// Changes one file; says what was done.
fn mutate(directory: &Path, seed: u32) -> String {
    let mut state = seed;
    let mut random = |below: usize| {
        state = crc32c::crc32c(&state.to_le_bytes()) ^ 0x5bd1_e995;
        usize::try_from(state).unwrap() % below.max(1)
    };
    let mut all = Vec::new();
    files(directory, &mut all);
    all.sort();
    // most bytes are in the stores' files, so most damage is there
    let stores: Vec<PathBuf> = all.iter().filter(|path| path.ends_with("db")).cloned().collect();
    let path =
        if random(3) == 0 { all[random(all.len())].clone() } else { stores[random(stores.len())].clone() };
    let mut bytes = fs::read(&path).unwrap();
    // sled's files are long and mostly empty: damage where something stands
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = random(used);
    let kind = random(5);
    match kind {
        0 => bytes.truncate(at),
        1 => bytes[at..(at + 512).min(used)].fill(0),
        _ => bytes[at] ^= 1 << random(8),
    }
    fs::write(&path, bytes).unwrap();
    format!(
        "seed {seed}: kind {kind} at {at} of {used} in {}",
        path.strip_prefix(directory).unwrap().display()
    )
}
