//! What is given up at the limit, in which order; what is moved on before its files pin the disk; and
//! counters that damage has set back.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use parsers::Micros;

use super::support::{DAY, batch, call, create_of, now, open_small, options, outgoing, route, update};
use crate::calls::LegState;
use crate::journal::engine::Store;
use crate::journal::format::{self, decode_counters, encode_counters, key};
use crate::journal::{Batch, Journal, JournalOptions, Outgoing, Payload, RouteStatus, Settlement};

const HOUR: i64 = DAY / 24;

/// What no deflating makes small.
fn noise(seed: u64, length: usize) -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(LETTERS[usize::try_from(state >> 58).unwrap()])
        })
        .collect()
}

fn webhook(number: u64, n: u64, event: &str) -> Outgoing {
    let mut made = outgoing("desk", &update(number, n, LegState::Hangup, now()), true);
    made.payload = Payload::Webhook { event: event.to_owned(), body: noise(number * 10 + n, 8000) };
    made
}

/// A call that owes a webhook about ringing, one about its end, and a create.
fn owing(number: u64) -> Batch {
    let update = update(number, 0, LegState::Hangup, now());
    let create = create_of(&update, number, None, Some(noise(number, 8000)));
    let outbox = vec![webhook(number, 0, "call.ringing"), webhook(number, 1, "call.hangup"), create];
    Batch { updates: vec![update], outbox, ended: vec![call(number)], ..Batch::default() }
}

async fn of(journal: &Journal, name: &str) -> RouteStatus {
    let status = journal.status().await.unwrap();
    status.routes.into_iter().find(|found| *found.route.0 == *name).unwrap()
}

fn small(directory: &Path) -> JournalOptions {
    JournalOptions { max_size: 24 << 20, ..options(directory) }
}

async fn settle_some(journal: &Journal, name: &str, count: usize, settlement: &Settlement) {
    let (due, _) = journal.due(&route(name), now(), count).await.unwrap();
    assert_eq!(due.len(), count);
    for delivery in due {
        journal.settle(delivery.key, settlement.clone(), now()).await.unwrap();
    }
}

#[tokio::test]
async fn creates_go_last_after_ringing_other_webhooks_and_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(directory.path())).unwrap();
    let dead = Settlement::Dead { why: "gone".to_owned(), status: Some(410), answer: String::new() };
    let order = ["webhook about ringing or digits", "webhook", "dead letter", "create"];
    let order = order.map(|text| format!("no room: {text}"));
    let mut seen: Vec<String> = Vec::new();
    let mut letters = 0;
    for number in 0..20_000u64 {
        // refused for a moment where the flood is faster than what is given up
        while journal.append(owing(number)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if number == 40 {
            settle_some(&journal, "desk", 30, &dead).await;
            letters = 30;
        }
        if number % 4 == 0 {
            let (desk, crm) = (of(&journal, "desk").await, of(&journal, "crm").await);
            // several may have been given up since the last look
            let given_up =
                |reason: &&String| desk.dropped.iter().chain(&crm.dropped).any(|(known, _)| known == *reason);
            for reason in order.iter().filter(given_up) {
                if !seen.contains(reason) {
                    println!("at {number}: {reason}");
                    seen.push(reason.clone());
                }
            }
            assert_eq!((desk.counters.difference(), crm.counters.difference()), (0, 0));
            if crm.counters.dropped > 0 {
                assert_eq!(crm.dropped.len(), 1, "{crm:?}");
                assert_eq!(desk.counters.dead, 0, "no dead letter outlives a create");
                break;
            }
        }
    }
    assert_eq!(letters, 30);
    assert_eq!(seen, order);
    let (desk, crm) = (of(&journal, "desk").await, of(&journal, "crm").await);
    let sum = |found: &RouteStatus| found.dropped.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!((sum(&desk), sum(&crm)), (desk.counters.dropped, crm.counters.dropped));
    journal.close().await;
}

#[tokio::test]
async fn the_oldest_day_of_the_history_goes_before_anything_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(JournalOptions { generation_records: 400, ..small(directory.path()) }).unwrap();
    let delivered = Settlement::Delivered { status: Some(200), answer: String::new() };
    for number in 0..600u64 {
        let start = Micros(now().0 - DAY * (3 - i64::try_from(number / 200).unwrap()));
        let mut one = batch(update(number, 0, LegState::Hangup, start), &["past"]);
        one.outbox[0].payload =
            Payload::Webhook { event: "call.hangup".to_owned(), body: noise(number, 9000) };
        one.ended.push(call(number));
        journal.append(one).await.unwrap();
        settle_some(&journal, "past", 1, &delivered).await;
    }
    for _ in 0..500 {
        if journal.status().await.unwrap().generations == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let days = || {
        let entries = std::fs::read_dir(directory.path().join("history")).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
    };
    let mut before = days();
    assert_eq!(before.len(), 3, "{before:?}");
    for number in 1000..20_000 {
        while journal.append(owing(number)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = days();
        if left != before {
            let oldest: BTreeSet<_> = before.iter().skip(before.len() - left.len()).cloned().collect();
            assert_eq!(left, oldest, "the oldest goes");
            before = left;
        }
        let desk = of(&journal, "desk").await.counters;
        if desk.dropped > 0 {
            assert!(before.is_empty(), "{before:?} is left, and a delivery was given up: {desk:?}");
            break;
        }
    }
    assert!(before.is_empty(), "the limit is never reached");
    journal.close().await;
}

#[tokio::test]
async fn what_is_left_of_a_generation_after_a_day_moves_on_and_keeps_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 240);
    for number in 0..100 {
        journal.append(batch(update(number, 0, LegState::Hangup, now()), &["desk"])).await.unwrap();
    }
    journal.append(batch(update(7, 1, LegState::Hangup, now()), &["desk"])).await.unwrap();
    let sealed = journal.status().await.unwrap().generations;
    assert!(sealed > 1);
    let (due, _) = journal.due(&route("desk"), now(), 200).await.unwrap();
    assert_eq!(due.len(), 100, "the second of call 7 waits for its first");
    let mut held = Vec::new();
    for delivery in due {
        let number = u64::from_str_radix(delivery.id.0.split('.').nth(1).unwrap(), 16).unwrap();
        let settlement = match [3, 7].contains(&number) {
            true => {
                held.push(delivery.key);
                let at = Micros(now().0 + HOUR);
                Settlement::Retry { at, why: "down".to_owned(), status: None, costs: true }
            }
            false => Settlement::Delivered { status: Some(200), answer: String::new() },
        };
        journal.settle(delivery.key, settlement, now()).await.unwrap();
    }
    journal.stragglers(Micros(now().0 + 23 * HOUR)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(journal.status().await.unwrap().generations > 1, "not before a day is over");
    journal.stragglers(Micros(now().0 + 25 * HOUR)).await.unwrap();
    for _ in 0..500 {
        if journal.status().await.unwrap().generations == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(journal.status().await.unwrap().generations, 1);
    let later = Micros(now().0 + 2 * HOUR);
    let (due, _) = journal.due(&route("desk"), later, 10).await.unwrap();
    assert_eq!(due.iter().map(|delivery| delivery.key).collect::<Vec<_>>(), held);
    assert!(due.iter().all(|delivery| delivery.attempts == 1));
    for delivery in due {
        let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
        journal.settle(delivery.key, settlement, later).await.unwrap();
    }
    let (due, _) = journal.due(&route("desk"), later, 10).await.unwrap();
    assert_eq!(&*due[0].id.0, "hq.00000000000007.1");
    let line = of(&journal, "desk").await.counters;
    assert_eq!((line.accepted, line.delivered, line.pending), (101, 100, 1));
    journal.close().await;
}

#[tokio::test]
async fn deliveries_that_counters_set_back_by_damage_do_not_know_of_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 100);
    for number in 0..60 {
        journal.append(batch(update(number, 0, LegState::Hangup, now()), &["desk"])).await.unwrap();
    }
    assert!(journal.status().await.unwrap().generations > 1);
    journal.close().await;
    {
        let store = Store::open(&directory.path().join("outbox").join(format!("{:020}", 1))).unwrap();
        let key = key::route(key::COUNTERS, 1);
        let mut counters = decode_counters(&store.get(&key).unwrap().unwrap().unwrap()).unwrap();
        assert!(counters.pending > 5);
        counters.accepted = 5;
        counters.pending = 5;
        let mut damage = sled::Batch::default();
        damage.insert(key.as_slice(), format::seal(&key, &encode_counters(&counters)));
        store.apply(damage).unwrap();
        store.sync().unwrap();
    }
    let (journal, _) = open_small(directory.path(), 100);
    let mut made = BTreeSet::new();
    for _ in 0..200 {
        // one at a time, so that the counter comes to nothing while some wait
        let (due, _) = journal.due(&route("desk"), now(), 1).await.unwrap();
        let Some(delivery) = due.into_iter().next() else { break };
        assert!(made.insert(delivery.id.0.to_string()));
        let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
        journal.settle(delivery.key, settlement, now()).await.unwrap();
    }
    assert_eq!(made.len(), 60);
    let line = of(&journal, "desk").await.counters;
    assert_eq!((line.pending, line.difference()), (0, 0), "{line:?}");
    journal.close().await;
}
