//! One promise a test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use parsers::Micros;

use super::support::{DAY, batch, call, now, open, open_small, options, outgoing, route, update};
use crate::calls::{LegState, Merger, ObjectKey, UpdateBody};
use crate::journal::{
    Batch, Counters, Delivery, HistoryFilter, Journal, JournalError, JournalOptions, Payload, Settlement,
};

fn delivered() -> Settlement {
    Settlement::Delivered { status: Some(200), answer: "ok".to_owned() }
}

fn dead() -> Settlement {
    Settlement::Dead { why: "too old".to_owned(), status: Some(500), answer: String::new() }
}

async fn take(journal: &Journal, name: &str, limit: usize) -> Vec<Delivery> {
    journal.due(&route(name), now(), limit).await.unwrap().0
}

async fn counters(journal: &Journal, name: &str) -> Counters {
    let status = journal.status().await.unwrap();
    status.routes.into_iter().find(|found| *found.route.0 == *name).unwrap().counters
}

async fn until(journal: &Journal, done: impl Fn(&crate::journal::JournalStatus) -> bool) {
    for _ in 0..2000 {
        if done(&journal.status().await.unwrap()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("not within ten seconds: {:?}", journal.status().await.unwrap());
}

#[tokio::test]
async fn a_call_is_delivered_in_order_and_once_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for n in 0..3 {
        journal.append(batch(update(1, n, LegState::Ringing, now()), &["desk"])).await.unwrap();
    }
    let first = take(&journal, "desk", 10).await;
    assert_eq!(first.len(), 1, "the later two wait for the first");
    assert_eq!((first[0].sequence, first[0].attempts), (1, 0));
    assert!(take(&journal, "desk", 10).await.is_empty(), "a lease is one worker's");
    journal.settle(first[0].key, delivered(), now()).await.unwrap();
    journal.close().await;

    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.pending, [(route("desk"), 2)]);
    for sequence in [2, 3] {
        let next = take(&journal, "desk", 10).await;
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].sequence, sequence);
        journal.settle(next[0].key, delivered(), now()).await.unwrap();
    }
    assert!(take(&journal, "desk", 10).await.is_empty());
    assert_eq!(
        counters(&journal, "desk").await,
        Counters { accepted: 3, delivered: 3, ..Counters::default() }
    );
}

#[tokio::test]
async fn a_lease_dies_with_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    journal.append(batch(update(1, 0, LegState::Ringing, now()), &["desk"])).await.unwrap();
    assert_eq!(take(&journal, "desk", 1).await.len(), 1);
    journal.close().await;
    let (journal, _) = open(directory.path());
    assert_eq!(take(&journal, "desk", 1).await.len(), 1);
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_holds_its_call_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for (of, n) in [(1, 0), (1, 1), (2, 0)] {
        journal.append(batch(update(of, n, LegState::Ringing, now()), &["desk"])).await.unwrap();
    }
    let due = take(&journal, "desk", 10).await;
    assert_eq!(due.len(), 2);
    let at = Micros(now().0 + DAY);
    let retry = Settlement::Retry { at, why: "busy".to_owned(), status: Some(503), costs: true };
    journal.settle(due[0].key, retry, now()).await.unwrap();
    journal.settle(due[1].key, delivered(), now()).await.unwrap();
    let (none, next) = journal.due(&route("desk"), now(), 10).await.unwrap();
    assert!(none.is_empty());
    assert_eq!(next, Some(at));
    let (again, _) = journal.due(&route("desk"), at, 10).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].key, again[0].attempts), (due[0].key, 1));
    journal.settle(again[0].key, delivered(), at).await.unwrap();
    assert_eq!(take(&journal, "desk", 10).await.len(), 1, "the one behind it goes now");
}

#[tokio::test]
async fn a_delivery_released_is_due_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    journal.append(batch(update(1, 0, LegState::Ringing, now()), &["desk"])).await.unwrap();
    let due = take(&journal, "desk", 1).await;
    journal.settle(due[0].key, Settlement::Released, now()).await.unwrap();
    let again = take(&journal, "desk", 1).await;
    assert_eq!((again[0].key, again[0].attempts), (due[0].key, 0));
}

#[tokio::test]
async fn dead_letters_wait_for_a_decision_even_when_their_generation_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 4);
    for n in 0..4 {
        journal.append(batch(update(n, 0, LegState::Hangup, now()), &["desk"])).await.unwrap();
    }
    while let Some(delivery) = take(&journal, "desk", 1).await.first() {
        journal.settle(delivery.key, dead(), now()).await.unwrap();
    }
    until(&journal, |status| status.generations == 1).await;
    let letters = journal.dead(Some(&route("desk")), 10).await.unwrap();
    assert_eq!(letters.len(), 4);
    assert_eq!(journal.dead(None, 2).await.unwrap().len(), 2);
    assert_eq!(journal.dead(Some(&route("other")), 10).await.unwrap().len(), 0);
    assert_eq!(counters(&journal, "desk").await, Counters { accepted: 4, dead: 4, ..Counters::default() });
    assert_eq!(journal.dead_drop(vec![letters[0].key]).await.unwrap(), 1);
    assert_eq!(journal.dead_drop(vec![letters[0].key]).await.unwrap(), 0);
    assert_eq!(journal.dead_retry(vec![letters[1].key], now()).await.unwrap(), 1);
    let again = take(&journal, "desk", 10).await;
    assert_eq!(again.len(), 1);
    assert_eq!((&again[0].id, &again[0].payload), (&letters[1].id, &letters[1].payload));
    journal.settle(again[0].key, delivered(), now()).await.unwrap();
    let line = Counters { accepted: 4, delivered: 1, dead: 2, dropped: 1, ..Counters::default() };
    assert_eq!(counters(&journal, "desk").await, line);
    journal.close().await;
    let (journal, _) = open(directory.path());
    assert_eq!(journal.dead(None, 10).await.unwrap().len(), 2);
    assert_eq!(counters(&journal, "desk").await, line);
}

#[tokio::test]
async fn a_dead_letter_shows_no_digit_and_is_sent_again_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let mut pressed = batch(update(1, 0, LegState::Connected, now()), &["desk"]);
    let body = r#"{"id":"hq.1.0","digit":"7","digit_by":"caller"}"#.to_owned();
    let sent = Payload::Webhook { event: "call.dtmf".to_owned(), body };
    pressed.outbox[0].payload = sent.clone();
    journal.append(pressed).await.unwrap();
    let due = take(&journal, "desk", 1).await;
    let echo = Settlement::Dead { why: "refused".to_owned(), status: Some(400), answer: "no 7".to_owned() };
    journal.settle(due[0].key, echo, now()).await.unwrap();
    let letters = journal.dead(None, 10).await.unwrap();
    let trace = journal.trace(&call(1)).await.unwrap();
    let Payload::Webhook { body, .. } = &letters[0].payload else { panic!("a webhook") };
    assert_eq!(body, r#"{"id":"hq.1.0","digit":"*","digit_by":"caller"}"#);
    assert_eq!((letters[0].answer.as_str(), &trace.deliveries[0].payload), ("", &letters[0].payload));
    assert_eq!(journal.dead_retry(vec![letters[0].key], now()).await.unwrap(), 1);
    assert_eq!(take(&journal, "desk", 1).await[0].payload, sent);
}

#[tokio::test]
async fn open_objects_and_notes_outlive_restarts_and_generations() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 3);
    let large = vec![b'x'; 200 * 1024];
    let name = |text: &str| ObjectKey(text.into());
    let objects = |list: Vec<(&str, Option<Vec<u8>>)>| Batch {
        objects: list.into_iter().map(|(text, value)| (name(text), value)).collect(),
        ..Batch::default()
    };
    journal
        .append(objects(vec![("a", Some(large.clone())), ("b", Some(vec![])), ("c", Some(vec![1]))]))
        .await
        .unwrap();
    journal.append(objects(vec![("a", Some(large[..5000].to_vec())), ("c", None)])).await.unwrap();
    journal.set_note("verified", Some(b"url".to_vec())).await.unwrap();
    journal.set_note("gone", Some(b"1".to_vec())).await.unwrap();
    journal.set_note("gone", None).await.unwrap();
    for n in 0..20 {
        journal.append(batch(update(n, 0, LegState::Hangup, now()), &[])).await.unwrap();
    }
    let expected = vec![(name("a"), large[..5000].to_vec()), (name("b"), vec![])];
    assert_eq!(journal.objects().await.unwrap(), expected);
    journal.close().await;
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.objects, expected);
    assert_eq!(journal.note("verified").await.unwrap(), Some(b"url".to_vec()));
    assert_eq!(journal.note("gone").await.unwrap(), None);
    let huge = journal.append(objects(vec![("d", Some(vec![0; 300 * 1024]))])).await;
    assert!(matches!(huge, Err(JournalError::TooLarge(_))), "{huge:?}");
}

#[tokio::test]
async fn a_settled_generation_moves_to_the_history_and_its_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 10);
    let start = Micros(now().0 - 2 * DAY);
    for number in 0..40 {
        for n in 0..2 {
            let state = if n == 0 { LegState::Ringing } else { LegState::Hangup };
            let mut batch = batch(update(number, n, state, start), &["desk"]);
            if n == 1 {
                batch.ended.push(call(number));
            }
            journal.append(batch).await.unwrap();
        }
    }
    assert!(journal.status().await.unwrap().generations > 5);
    let before = journal.trace(&call(3)).await.unwrap();
    assert_eq!((before.messages.len(), before.updates.len(), before.deliveries.len()), (2, 2, 2));
    loop {
        let due = take(&journal, "desk", 16).await;
        if due.is_empty() {
            break;
        }
        for delivery in due {
            journal.settle(delivery.key, delivered(), now()).await.unwrap();
        }
    }
    until(&journal, |status| status.generations == 1 && status.days == 1).await;
    let outbox = std::fs::read_dir(directory.path().join("outbox")).unwrap().count();
    assert!(outbox <= 2, "{outbox} directories are left");

    let after = journal.trace(&call(3)).await.unwrap();
    assert_eq!(after.messages, before.messages);
    assert_eq!(after.updates, before.updates);
    assert!(
        after
            .deliveries
            .iter()
            .all(|made| matches!(made.settled, Some((_, Settlement::Delivered { status: Some(200), .. }))))
    );
    assert_eq!(
        counters(&journal, "desk").await,
        Counters { accepted: 80, delivered: 80, ..Counters::default() }
    );
    let by = |filter: HistoryFilter| journal.legs(HistoryFilter { limit: 100, ..filter });
    assert_eq!(by(HistoryFilter::default()).await.unwrap().len(), 40);
    let number = Some("02120000007".to_owned());
    let found = by(HistoryFilter { number, ..HistoryFilter::default() }).await.unwrap();
    assert_eq!(found.len(), 1);
    let UpdateBody::Leg(leg) = &found[0].body else { panic!("a leg") };
    assert_eq!(leg.state, LegState::Hangup, "the last word on the leg");
    assert_eq!(by(HistoryFilter { call_id: Some(9), ..HistoryFilter::default() }).await.unwrap().len(), 1);
    assert_eq!(by(HistoryFilter { call: Some(call(9)), ..HistoryFilter::default() }).await.unwrap().len(), 1);
    assert_eq!(by(HistoryFilter { live: true, ..HistoryFilter::default() }).await.unwrap().len(), 0);
    let later = Some(Micros(start.0 + 1));
    assert_eq!(by(HistoryFilter { from: later, ..HistoryFilter::default() }).await.unwrap().len(), 0);
}

#[tokio::test]
async fn calls_that_were_merged_have_one_trace_wherever_each_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 8);
    let start = Micros(now().0 - 2 * DAY);
    let one = |number, n| {
        let mut batch = batch(update(number, n, LegState::Ringing, start), &["desk"]);
        batch.messages[0].message.headers.push(("Channel".to_owned(), format!("PJSIP/{number}")));
        batch
    };
    let merger = |from, into| Merger { at: start, from: call(from), into: call(into) };
    // 1 and 2 become one, then 3 comes to them, of which 1 has nothing else; 4 is another
    journal.append(one(1, 0)).await.unwrap();
    journal.append(one(2, 0)).await.unwrap();
    let mut merging = one(1, 1);
    merging.messages[0].calls.push(call(2));
    merging.mergers = vec![merger(2, 1)];
    journal.append(merging).await.unwrap();
    journal.append(Batch { mergers: vec![merger(3, 1)], ..one(3, 0) }).await.unwrap();
    journal.append(one(4, 0)).await.unwrap();
    let whole = async |journal: &Journal| {
        for number in [1, 2, 3] {
            let trace = journal.trace(&call(number)).await.unwrap();
            let updates: Vec<_> = trace.updates.iter().map(|update| update.call.clone()).collect();
            assert_eq!(trace.messages.len(), 4, "said once, though both calls have it");
            assert_eq!(updates.len(), 4, "{number}: {updates:?}");
            assert_eq!((trace.deliveries.len(), trace.merged.len()), (4, 2), "{number}: {:?}", trace.merged);
        }
        let other = journal.trace(&call(4)).await.unwrap();
        assert_eq!((other.updates.len(), other.merged), (1, vec![]));
    };
    whole(&journal).await;
    loop {
        let due = take(&journal, "desk", 16).await;
        if due.is_empty() {
            break;
        }
        for delivery in due {
            journal.settle(delivery.key, delivered(), now()).await.unwrap();
        }
    }
    for number in 5..15 {
        journal.append(batch(update(number, 0, LegState::Hangup, start), &[])).await.unwrap();
    }
    until(&journal, |status| status.generations == 1 && status.days == 1).await;
    whole(&journal).await;
    journal.close().await;
    let (journal, _) = open(directory.path());
    whole(&journal).await;
}

#[tokio::test]
async fn a_long_call_stays_live_through_many_generations() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 5);
    journal.append(batch(update(77, 0, LegState::Connected, now()), &[])).await.unwrap();
    for number in 0..30 {
        journal.append(batch(update(number, 0, LegState::Hangup, now()), &[])).await.unwrap();
    }
    until(&journal, |status| status.generations == 1).await;
    let live = || journal.legs(HistoryFilter { live: true, limit: 10, ..HistoryFilter::default() });
    assert_eq!(live().await.unwrap().len(), 1);
    journal.append(batch(update(77, 1, LegState::Hangup, now()), &[])).await.unwrap();
    assert_eq!(live().await.unwrap().len(), 0);
}

#[tokio::test]
async fn another_name_is_refused_only_while_something_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let other = JournalOptions { pbx: "branch".to_owned(), ..options(directory.path()) };
    let (journal, _) = open(directory.path());
    journal.append(batch(update(1, 0, LegState::Ringing, now()), &["desk"])).await.unwrap();
    journal.close().await;
    assert!(matches!(Journal::open(other.clone()), Err(JournalError::OtherPbx { .. })));
    let (journal, _) = open(directory.path());
    let due = take(&journal, "desk", 1).await;
    journal.settle(due[0].key, delivered(), now()).await.unwrap();
    journal.close().await;
    let (journal, _) = Journal::open(other).unwrap();
    journal.append(batch(update(1, 1, LegState::Ringing, now()), &["desk"])).await.unwrap();
    journal.close().await;
    assert!(matches!(Journal::open(options(directory.path())), Err(JournalError::OtherPbx { .. })));
}

#[tokio::test]
async fn one_process_has_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    assert!(matches!(Journal::open(options(directory.path())), Err(JournalError::InUse(_))));
    journal.close().await;
    assert!(matches!(journal.round_trip().await, Err(JournalError::Closed)));
    open(directory.path());
}

#[tokio::test]
async fn work_and_updates_are_announced() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let mut updates = journal.subscribe();
    let desk = route("desk");
    let waiting = journal.wait_for_work(&desk);
    let appending = async {
        tokio::task::yield_now().await;
        journal.append(batch(update(1, 0, LegState::Ringing, now()), &["desk"])).await.unwrap();
        journal.append(batch(update(1, 1, LegState::Ringing, now()), &["desk"])).await.unwrap();
    };
    tokio::join!(waiting, appending);
    assert_eq!(updates.recv().await.unwrap()[0].call, call(1));
    journal.wait_for_work(&desk).await;
    let due = take(&journal, "desk", 1).await;
    journal.settle(due[0].key, delivered(), now()).await.unwrap();
    journal.wait_for_work(&desk).await;
    assert_eq!(take(&journal, "desk", 1).await.len(), 1);
}

#[tokio::test]
async fn what_is_left_out_is_counted_by_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 2);
    for _ in 0..3 {
        let mut batch = batch(update(1, 0, LegState::Hangup, now()), &[]);
        batch.skipped = vec![(route("crm"), "too short".to_owned()), (route(""), "no cdr".to_owned())];
        journal.append(batch).await.unwrap();
    }
    journal.close().await;
    let (journal, _) = open(directory.path());
    let status = journal.status().await.unwrap();
    let skipped: Vec<_> = status.routes.iter().flat_map(|found| found.skipped.clone()).collect();
    assert_eq!(skipped, [("no cdr".to_owned(), 3), ("too short".to_owned(), 3)]);
}

#[tokio::test]
async fn a_record_too_large_is_refused_and_nothing_of_its_batch_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let mut large = batch(update(1, 0, LegState::Ringing, now()), &["desk"]);
    if let UpdateBody::Leg(leg) = &mut large.updates[0].body {
        leg.info = "x".repeat(17_000);
    }
    assert!(matches!(journal.append(large).await, Err(JournalError::TooLarge(_))));
    assert!(take(&journal, "desk", 1).await.is_empty());
    let unordered = outgoing("crm", &update(1, 0, LegState::Ringing, now()), false);
    let both = vec![unordered.clone(), unordered];
    journal.append(Batch { outbox: both, ..Batch::default() }).await.unwrap();
    assert_eq!(take(&journal, "crm", 5).await.len(), 2, "without order nothing waits");
}

#[tokio::test]
async fn a_settlement_that_may_wait_goes_with_the_next_commit_or_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let commits = async || journal.status().await.unwrap().commits;
    let append = |number, n| journal.append(batch(update(number, n, LegState::Ringing, now()), &["desk"]));
    append(1, 0).await.unwrap();
    let first = take(&journal, "desk", 5).await.remove(0).key;
    let before = commits().await;
    let (settled, appended) = tokio::join!(journal.settle_soon(first, delivered(), now()), append(2, 0));
    settled.unwrap();
    appended.unwrap();
    assert_eq!(commits().await, before + 1, "both in one");

    let second = take(&journal, "desk", 5).await.remove(0).key;
    journal.settle_soon(second, delivered(), now()).await.unwrap();
    assert_eq!(commits().await, before + 2, "nothing else came");
    assert_eq!(counters(&journal, "desk").await.pending, 0);

    append(3, 0).await.unwrap();
    append(3, 1).await.unwrap();
    let (third, waiting) = (take(&journal, "desk", 5).await.remove(0).key, take(&journal, "desk", 5).await);
    assert!(waiting.is_empty(), "it comes after the third");
    journal.settle_soon(third, delivered(), now()).await.unwrap();
    assert_eq!(take(&journal, "desk", 5).await.len(), 1);
}

#[tokio::test]
async fn what_makes_no_record_is_answered_too() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    journal.append(Batch::default()).await.unwrap();
    journal.append(Batch { ended: vec![call(1)], ..Batch::default() }).await.unwrap();
    let skipped = vec![(route("crm"), "too short".to_owned())];
    journal.append(Batch { skipped, ..Batch::default() }).await.unwrap();
}

#[tokio::test]
async fn messages_of_one_call_come_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let mut all = Batch::default();
    for n in 0..300 {
        let mut one = batch(update(n % 2, n, LegState::Ringing, now()), &[]);
        one.messages[0].message.at = Micros(i64::try_from(n).unwrap());
        one.messages[0].message.headers.push(("CallerIDName".to_owned(), "é".repeat(200)));
        all.messages.append(&mut one.messages);
    }
    let expected: Vec<_> = all.messages.iter().step_by(2).map(|traced| traced.message.clone()).collect();
    journal.append(all).await.unwrap();
    assert_eq!(journal.trace(&call(0)).await.unwrap().messages, expected);
}
