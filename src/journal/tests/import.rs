//! Imports against a plain list of what was appended: nothing known is appended twice, nothing unknown
//! is withheld, across seals, restarts and deletes. `CALLPOST_JOURNAL_IMPORTS` for more cases;
//! `CALLPOST_JOURNAL_KEYS=1000000` for the figures.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use parsers::{Micros, Uniqueid};
use proptest::prelude::*;

use super::support::{call, now, open_small, options, route};
use crate::calls::UpdateId;
use crate::journal::months::Months;
use crate::journal::space::disk_use;
use crate::journal::{
    Batch, Counters, DeletedDays, Imported, Journal, JournalOptions, Offline, Outgoing, PartKind, Payload,
    Settlement,
};

/// Few enough that they meet.
const CREATES: u64 = 24;
const START: i64 = 1_795_000_000;

/// The day of a create: every second day from the end of one month into the third.
fn day(number: u64) -> Date {
    let days = i64::try_from(number % CREATES).unwrap() * 2;
    jiff::civil::date(2026, 10, 20).saturating_add(jiff::Span::new().days(days))
}

fn start(number: u64) -> Micros {
    Micros::from_secs(START + 100 * i64::try_from(number).unwrap())
}

/// Three creates share a party.
fn party(number: u64) -> u64 {
    number / 3
}

/// The create of this number, on the live lane.
pub(super) fn create(number: u64) -> Outgoing {
    Outgoing {
        route: route("crm"),
        id: UpdateId(format!("hq.{number:014x}.0").into()),
        call: call(number),
        ordered: false,
        party: Some(Uniqueid::new(format!("hq-{START}.{}", party(number)))),
        start: Some(start(number)),
        payload: Payload::Nimbox {
            initiated: format!("{}T09:19:27Z", day(number)),
            source: format!("0212{number:07}"),
            destination: "1001".to_owned(),
            duration: Some(number),
            url: None,
        },
    }
}

/// The same from the history, without its party where it has none in common with a live one.
pub(super) fn past(number: u64) -> Outgoing {
    Outgoing { route: route("crm").history(), ..create(number) }
}

fn alone(mut create: Outgoing) -> Outgoing {
    create.party = None;
    create
}

pub(super) async fn append(journal: &Journal, create: Outgoing) {
    journal.append(Batch { outbox: vec![create], ..Batch::default() }).await.unwrap();
}

async fn counters(journal: &Journal, name: &str) -> (Counters, u64) {
    let status = journal.status().await.unwrap();
    let found = status.routes.into_iter().find(|found| *found.route.0 == *name);
    found.map_or_else(Default::default, |found| {
        (found.counters, found.skipped.iter().map(|(_, count)| count).sum())
    })
}

/// Settles what waits on both lanes; answers whose it was.
pub(super) async fn drain(journal: &Journal) -> Vec<String> {
    let mut delivered = Vec::new();
    for lane in [route("crm"), route("crm").history()] {
        loop {
            let (due, _) = journal.due(&lane, now(), 256).await.unwrap();
            if due.is_empty() {
                break;
            }
            let mut settling = Vec::new();
            for delivery in due {
                delivered.push(delivery.id.0.to_string());
                let settlement = Settlement::Delivered { status: None, answer: String::new() };
                settling.push(journal.settle(delivery.key, settlement, now()));
            }
            for settled in futures_util::future::join_all(settling).await {
                settled.unwrap();
            }
        }
    }
    delivered
}

/// Waits until every sealed generation's keys are in their months.
async fn copied(journal: &Journal) {
    while !journal.keys_are_copied().await.unwrap() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Live {
        number: u64,
    },
    Import {
        numbers: Vec<u64>,
        explicit: bool,
        alone: bool,
    },
    /// Days from this create's to that one's, both left out, at the start of a third.
    Delete {
        from: u64,
        to: u64,
        at: u64,
    },
    /// Appends and imports at once, in one group.
    Together {
        live: Vec<u64>,
        numbers: Vec<u64>,
    },
    Settle,
    Copied,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0..CREATES;
    let numbers = || prop::collection::vec(number(), 0..8);
    prop_oneof![
        4 => number().prop_map(|number| Step::Live { number }),
        6 => (numbers(), any::<bool>(), any::<bool>())
            .prop_map(|(numbers, explicit, alone)| Step::Import { numbers, explicit, alone }),
        2 => (number(), number(), 0..2 * CREATES).prop_map(|(from, to, at)| Step::Delete { from, to, at }),
        1 => (numbers(), numbers()).prop_map(|(live, numbers)| Step::Together { live, numbers }),
        1 => Just(Step::Settle),
        1 => Just(Step::Copied),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Model {
    /// Whether it was live, and how many deletes came before.
    keys: BTreeMap<u64, (bool, usize)>,
    parties: BTreeMap<u64, usize>,
    deletes: Vec<(Date, Date, Micros)>,
    live: u64,
    left_out: u64,
    history: u64,
}

impl Model {
    fn needed(&self, number: u64) -> usize {
        let (date, start) = (day(number), start(number));
        let meant = |(from, to, at): &(Date, Date, Micros)| *from < date && date < *to && start < *at;
        self.deletes.iter().rposition(meant).map_or(0, |place| place + 1)
    }

    fn append(&mut self, number: u64) {
        let known = self.keys.get(&number).copied();
        if known.is_some_and(|(live, epoch)| !live && epoch >= self.needed(number)) {
            self.left_out += 1;
            return;
        }
        self.keys.insert(number, (true, self.deletes.len()));
        self.parties.insert(party(number), self.deletes.len());
        self.live += 1;
    }

    fn import(&mut self, numbers: &[u64], explicit: bool, alone: bool) -> Imported {
        let mut done = Imported::default();
        for (place, number) in numbers.iter().enumerate() {
            let needed = self.needed(*number);
            let by_key = self.keys.get(number).is_some_and(|(_, epoch)| *epoch >= needed);
            let by_party = self.parties.get(&party(*number)).is_some_and(|epoch| *epoch >= needed);
            if by_key || (by_party && !alone) {
                done.known += 1;
            } else if needed > 0 && !explicit {
                done.deleted += 1;
            } else {
                self.keys.insert(*number, (false, self.deletes.len()));
                self.history += 1;
                done.appended.push(place);
            }
        }
        done
    }
}

async fn play(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_small(directory.path(), 8);
    let mut model = Model::default();
    let pasts = |numbers: &[u64], without: bool| -> Vec<Outgoing> {
        numbers.iter().map(|number| if without { alone(past(*number)) } else { past(*number) }).collect()
    };
    for step in steps {
        match step {
            Step::Live { number } => {
                append(&journal, create(number)).await;
                model.append(number);
            }
            Step::Import { numbers, explicit, alone } => {
                let done = journal.import(pasts(&numbers, alone), explicit).await.unwrap();
                assert_eq!(done, model.import(&numbers, explicit, alone));
            }
            Step::Delete { from, to, at } => {
                let (from, to, at) = (day(from.min(to)), day(from.max(to)), start(at));
                let days = DeletedDays { route: route("crm"), from, to };
                journal.note_deleted(&days, at).await.unwrap();
                model.deletes.push((from, to, at));
            }
            Step::Together { live, numbers } => {
                let outbox = live.iter().map(|number| create(*number)).collect();
                let batch = Batch { outbox, ..Batch::default() };
                let import = journal.import(pasts(&numbers, false), false);
                let (appended, done) = futures_util::future::join(journal.append(batch), import).await;
                appended.unwrap();
                live.iter().for_each(|number| model.append(*number));
                assert_eq!(done.unwrap(), model.import(&numbers, false, false));
            }
            Step::Settle => {
                drain(&journal).await;
            }
            Step::Copied => copied(&journal).await,
            Step::Reopen => {
                journal.close().await;
                let (again, recovered) = open_small(directory.path(), 8);
                assert!(recovered.quarantined.is_empty());
                journal = again;
            }
        }
        let (live, left_out) = counters(&journal, "crm").await;
        let (history, _) = counters(&journal, "crm/history").await;
        assert_eq!((live.accepted, left_out, history.accepted), (model.live, model.left_out, model.history));
        assert_eq!((live.difference(), history.difference()), (0, 0));
        assert_eq!(journal.pending(&route("crm/history")).await.unwrap(), history.pending);
    }
    journal.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CALLPOST_JOURNAL_IMPORTS").map_or(24, |text| text.parse().unwrap()),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_known_is_appended_twice_and_nothing_unknown_is_withheld(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(steps));
    }
}

/// Creates of many days, appended as history and copied.
async fn filled(directory: &Path, numbers: std::ops::Range<u64>) {
    let (journal, _) = open_small(directory, 50);
    for some in numbers.collect::<Vec<_>>().chunks(64) {
        let done =
            journal.import(some.iter().map(|number| alone(past(*number))).collect(), false).await.unwrap();
        assert_eq!(done.appended.len(), some.len());
    }
    copied(&journal).await;
    drain(&journal).await;
    journal.close().await;
}

/// What `journal verify` finds.
fn faults_of_months(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let offline = Offline::open(directory).unwrap();
    let months = offline.parts().unwrap().into_iter().filter(|part| part.kind == PartKind::Month);
    let found: Vec<_> = months.map(|part| offline.examine(&part).unwrap()).collect();
    assert_eq!(found.len(), 3);
    found
        .into_iter()
        .filter(|found| !found.faults.is_empty() || found.damaged > 0 || found.records == 0)
        .map(|found| (found.part.name, found.faults))
        .collect()
}

#[tokio::test]
async fn a_damaged_month_costs_that_month_alone() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 0..480).await;
    let months: Vec<_> = std::fs::read_dir(directory.path().join("keys")).unwrap().flatten().collect();
    assert_eq!(months.len(), 3, "{months:?}");
    assert_eq!(faults_of_months(directory.path()), BTreeMap::new());
    let damaged = directory.path().join("keys/2026-11/db");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5A);
    std::fs::write(&damaged, bytes).unwrap();
    let faults = faults_of_months(directory.path());
    assert_eq!(faults.keys().collect::<Vec<_>>(), ["2026-11"], "{faults:?}");

    let (journal, recovered) = open_small(directory.path(), 50);
    assert!(recovered.quarantined.is_empty());
    let done = journal.import((0..480).map(|number| alone(past(number))).collect(), false).await.unwrap();
    let again: BTreeSet<u64> = done.appended.iter().map(|place| *place as u64).collect();
    for number in 0..480 {
        let lost = day(number).strftime("%Y-%m").to_string() == "2026-11";
        // what the head still knew was never there
        assert!(lost || !again.contains(&number), "{number}");
    }
    assert!(again.len() > 200, "{}", again.len());
    let put = std::fs::read_dir(directory.path().join("quarantine")).unwrap().flatten();
    let put: Vec<_> = put.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(put.len() == 1 && put[0].starts_with("2026-11-"), "{put:?}");
    journal.close().await;
}

#[tokio::test]
async fn the_months_keep_within_their_share_and_the_oldest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let of_month = |month: i64, number: u64| {
        let mut create = alone(past(number));
        let date = jiff::civil::date(2020, 1, 5).saturating_add(jiff::Span::new().months(month));
        if let Payload::Nimbox { initiated, .. } = &mut create.payload {
            *initiated = format!("{date}T00:00:00Z");
        }
        create
    };
    let (journal, _) = open_small(directory.path(), 40);
    for month in 0..12 {
        journal.import((0..50).map(|number| of_month(month, number)).collect(), false).await.unwrap();
        drain(&journal).await;
    }
    journal.import((0..50).map(|number| alone(past(number))).collect(), false).await.unwrap();
    copied(&journal).await;
    drain(&journal).await;
    journal.close().await;
    let months = Months::new(directory.path());
    let before = months.list();
    assert_eq!(before.len(), 15, "{before:?}");
    let half = disk_use(&directory.path().join("keys")) / 2;
    months.keep_within(half * 8);
    assert!(disk_use(&directory.path().join("keys")) <= half);
    let left = months.list();
    assert!((4..12).contains(&left.len()) && before.ends_with(&left), "the oldest go: {left:?}");

    let (journal, _) = open_small(directory.path(), 40);
    let done = journal.import((0..50).map(|number| alone(past(number))).collect(), false).await.unwrap();
    assert_eq!(done.known, 50);
    let done = journal.import((0..50).map(|number| of_month(0, number)).collect(), false).await.unwrap();
    assert_eq!(done.appended.len(), 50, "the oldest is forgotten");
    journal.close().await;
}

#[tokio::test]
async fn a_history_that_was_sent_first_leaves_the_live_create_out() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 8);
    for round in 0..3 {
        assert_eq!(
            journal.import(vec![past(1)], false).await.unwrap().appended.len(),
            usize::from(round == 0)
        );
        append(&journal, create(1)).await;
        // seals what there is
        for number in 10 + 10 * round..20 + 10 * round {
            append(&journal, alone(create(number))).await;
        }
        copied(&journal).await;
    }
    let status = journal.status().await.unwrap();
    let crm = status.routes.iter().find(|found| *found.route.0 == *"crm").unwrap();
    assert_eq!(crm.skipped, [("sent before, with the history".to_owned(), 3)]);
    assert_eq!((crm.counters.accepted, crm.counters.difference()), (30, 0));
    journal.close().await;
}

/// A generation that is put aside takes along what it knew, which keeps its history from being sent.
#[tokio::test]
async fn what_a_damaged_generation_knew_is_salvaged() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 1000);
    for number in 0..30 {
        append(&journal, create(number)).await;
    }
    drain(&journal).await;
    journal.close().await;
    let generation = std::fs::read_dir(directory.path().join("outbox")).unwrap().next().unwrap().unwrap();
    // as it is put aside
    let name = generation.file_name().into_string().unwrap();
    std::fs::rename(generation.path(), directory.path().join(format!("quarantine/{name}-1"))).unwrap();

    let (journal, _) = open_small(directory.path(), 1000);
    let done = journal.import((0..30).map(past).collect(), false).await.unwrap();
    assert_eq!((done.known, done.appended.len()), (30, 0));
    journal.close().await;
}

/// The figures of one month: bytes on disk for each key, times, memory.
#[tokio::test]
async fn figures_of_a_month() {
    let Ok(keys) = std::env::var("CALLPOST_JOURNAL_KEYS") else { return };
    let keys: u64 = keys.parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(JournalOptions { max_size: 16 << 30, ..options(directory.path()) }).unwrap();
    let of = |number: u64| {
        let mut create = alone(past(number));
        if let Payload::Nimbox { initiated, .. } = &mut create.payload {
            *initiated = format!("2026-11-{:02}T09:19:27Z", 1 + number % 30);
        }
        create
    };
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = rss();
    let time = async |numbers: std::ops::Range<u64>| {
        let creates: Vec<_> = numbers.map(of).collect();
        let begin = Instant::now();
        let done = journal.import(creates, false).await.unwrap();
        (begin.elapsed(), done)
    };
    let mut slowest = Duration::ZERO;
    let mut peak = 0;
    let begin = Instant::now();
    for from in (0..keys).step_by(500) {
        let (took, done) = time(from..from + 500).await;
        assert_eq!(done.appended.len(), 500);
        slowest = slowest.max(took);
        drain(&journal).await;
        peak = peak.max(rss());
    }
    copied(&journal).await;
    let filled = begin.elapsed();
    let used = disk_use(&directory.path().join("keys"));
    println!(
        "{keys} keys in {filled:?}, slowest import {slowest:?}; RSS {before} -> {} KiB, at most {peak}",
        rss()
    );
    println!("months: {used} bytes, {:.1} a key", used as f64 / keys as f64);
    let step = keys / 40;
    let mut known: Vec<Duration> = Vec::new();
    let mut unknown: Vec<Duration> = Vec::new();
    for round in 0..20 {
        let (took, done) = time(round * step..round * step + 500).await;
        assert_eq!(done.known, 500);
        known.push(took);
        let (took, done) = time(keys + round * 500..keys + round * 500 + 500).await;
        assert_eq!(done.appended.len(), 500);
        unknown.push(took);
    }
    known.sort();
    unknown.sort();
    let ones = 200;
    let begin = Instant::now();
    for round in 0..ones {
        time(round * step / 10..round * step / 10 + 1).await;
    }
    let one = begin.elapsed() / u32::try_from(ones).unwrap();
    println!(
        "500 known {:?} (most {:?}); 500 unknown {:?} (most {:?}); one known, its round trip included {one:?}",
        known[10], known[19], unknown[10], unknown[19]
    );
    journal.close().await;
    let begin = Instant::now();
    let (journal, _) =
        Journal::open(JournalOptions { max_size: 16 << 30, ..options(directory.path()) }).unwrap();
    let (took, _) = (Instant::now(), journal.import(vec![of(7)], false).await.unwrap());
    println!(
        "opened and asked for the first time in {:?}, of which the month {:?}",
        begin.elapsed(),
        took.elapsed()
    );
    journal.close().await;
}
