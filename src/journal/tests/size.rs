//! How much what waits takes, and that nobody notices that it was written anew. The long form, with
//! memory and times: `CALLPOST_BENCH=backlog CALLPOST_BENCH_PENDING=1000000 cargo bench --bench journal`.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::support::{batch, call, now, open_small, route, update};
use crate::calls::LegState;
use crate::journal::space::disk_use;
use crate::journal::{Batch, HistoryFilter, Journal, Payload, Settlement, Trace};

const UPDATES: u64 = 6000;
const OF_A_CALL: u64 = 5;
const GENERATION: u64 = 4000;

/// When all calls began.
fn began() -> parsers::Micros {
    static BEGAN: std::sync::OnceLock<parsers::Micros> = std::sync::OnceLock::new();
    *BEGAN.get_or_init(now)
}

/// As a webhook's body is.
fn body(number: u64, n: u64) -> String {
    format!(
        r#"{{"event_name":"call.ringing","event_time":"2026-01-02 03:04:05","call_id":"{number}","state":"RINGING","context":"LOCAL_USER","destination":"in","start_time":"2026-01-02 03:03:02","connected_at":null,"duration":{n},"t_cause":"","src_hash":"{:x}","src_number":"0212{number:07}","src_id":"0","src_name":"Caller {number}","dst_number":"{}","dst_id":"10001","dst_name":"Ana","info":"","terminated_by":null,"parent_id":null}}"#,
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        1000 + number % 50
    )
}

fn owing(number: u64, n: u64) -> Batch {
    let state = if n + 1 == OF_A_CALL { LegState::Hangup } else { LegState::Ringing };
    let mut batch = batch(update(number, n, state, began()), &["desk", "stopped"]);
    for outgoing in &mut batch.outbox {
        outgoing.payload = Payload::Webhook { event: "call.ringing".to_owned(), body: body(number, n) };
    }
    if n + 1 == OF_A_CALL {
        batch.ended.push(call(number));
    }
    batch
}

async fn fill(directory: &Path) -> Journal {
    let (journal, _) = open_small(directory, GENERATION);
    // twenty calls at a time
    for first in (0..UPDATES / OF_A_CALL).step_by(20) {
        for n in 0..OF_A_CALL {
            let appends = (first..first + 20).map(|number| journal.append(owing(number, n)));
            for done in futures_util::future::join_all(appends).await {
                done.unwrap();
            }
        }
    }
    journal
}

/// Until so many generations are small.
async fn rewritten(directory: &Path, count: usize) {
    let begun = Instant::now();
    let small = |path: &Path| disk_use(path) < 2_000_000;
    loop {
        let stores = std::fs::read_dir(directory.join("outbox")).unwrap().flatten();
        if stores.filter(|entry| small(&entry.path())).count() >= count {
            return;
        }
        let sizes = || {
            let stores = std::fs::read_dir(directory.join("outbox")).unwrap().flatten();
            stores.map(|entry| disk_use(&entry.path())).collect::<Vec<_>>()
        };
        assert!(begun.elapsed() < Duration::from_secs(60), "they stay as they are: {:?}", sizes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn traces(journal: &Journal) -> Vec<Trace> {
    let mut found = Vec::new();
    for number in (0..UPDATES / OF_A_CALL).step_by(97) {
        found.push(journal.trace(&call(number)).await.unwrap());
    }
    found
}

#[tokio::test]
async fn what_waits_long_takes_a_fraction_and_is_delivered_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let journal = fill(directory.path()).await;
    let generations = usize::try_from(journal.status().await.unwrap().generations).unwrap();
    assert!(generations >= 6, "{generations}");
    let before = traces(&journal).await;
    rewritten(directory.path(), generations - 2).await;
    let oldest = disk_use(&directory.path().join("outbox").join(format!("{:020}", 1)));
    // an update of a thousandth of a generation's records, four of which are its own, owes two
    let each = oldest / (GENERATION / 4) / 2;
    println!("{generations} generations, {each} bytes for a delivery that waits");
    assert!(each < 1000, "{each}");
    let text = |traces: &[Trace]| format!("{traces:?}");
    assert_eq!(text(&traces(&journal).await), text(&before));
    let number = Some("02120000007".to_owned());
    let by_number = HistoryFilter { number, limit: 10, ..HistoryFilter::default() };
    assert_eq!(journal.legs(by_number).await.unwrap().len(), 1);
    journal.close().await;

    let (journal, recovered) = open_small(directory.path(), GENERATION);
    assert!(recovered.quarantined.is_empty() && recovered.lost == 0, "{recovered:?}");
    assert_eq!(recovered.pending, [(route("desk"), UPDATES), (route("stopped"), UPDATES)]);
    for name in ["desk", "stopped"] {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut made = 0;
        loop {
            let (due, _) = journal.due(&route(name), now(), 128).await.unwrap();
            if due.is_empty() {
                break;
            }
            let mut settling = Vec::new();
            for delivery in due {
                let mut parts = delivery.id.0.split('.').skip(1);
                let number = u64::from_str_radix(parts.next().unwrap(), 16).unwrap();
                let n: u64 = parts.next().unwrap().parse().unwrap();
                let Payload::Webhook { body: sent, .. } = &delivery.payload else { panic!("a webhook") };
                assert_eq!(*sent, body(number, n));
                let expected = next.entry(number).or_default();
                assert_eq!(*expected, n, "in the order of its call");
                *expected += 1;
                made += 1;
                let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
                settling.push(journal.settle(delivery.key, settlement, now()));
            }
            for settled in futures_util::future::join_all(settling).await {
                settled.unwrap();
            }
        }
        assert_eq!(made, UPDATES, "{name}");
    }
    let begun = Instant::now();
    while journal.status().await.unwrap().generations > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", journal.status().await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for trace in traces(&journal).await {
        let made = |delivery: &crate::journal::TraceDelivery| {
            matches!(delivery.settled, Some((_, Settlement::Delivered { .. })))
        };
        assert_eq!((trace.updates.len(), trace.deliveries.len()), (5, 10));
        assert!(trace.deliveries.iter().all(made));
    }
    journal.close().await;
}

#[tokio::test]
async fn a_generation_of_which_all_is_delivered_is_never_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let watched = directory.path().join("outbox");
    let copies = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&copies);
    let _watch = crate::journal::fault_point::Injected::under(&watched, move |store, _| {
        let is_copy = store.extension().is_some_and(|end| end == "new");
        counted.fetch_add(u32::from(is_copy), std::sync::atomic::Ordering::Relaxed);
        false
    });
    let (journal, _) = open_small(directory.path(), 40);
    for number in 0..200 {
        journal.append(batch(update(number, 0, LegState::Hangup, now()), &["desk"])).await.unwrap();
        let (due, _) = journal.due(&route("desk"), now(), 8).await.unwrap();
        for delivery in due {
            let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
            journal.settle(delivery.key, settlement, now()).await.unwrap();
        }
    }
    assert_eq!(copies.load(std::sync::atomic::Ordering::Relaxed), 0);
    journal.close().await;
}
