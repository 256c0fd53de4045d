//! What a replay sends again, and what not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use super::support::{batch, body_of, now, open_small, route, update};
use crate::calls::{LegState, UpdateId};
use crate::journal::{Counters, Delivery, Journal, Payload, Replayed, Selection, Settlement};

async fn settle_all(
    journal: &Journal,
    name: &str,
    how: impl Fn(&Delivery) -> Option<Settlement>,
) -> Vec<String> {
    let mut order = Vec::new();
    let mut kept = Vec::new();
    loop {
        let (due, _) = journal.due(&route(name), now(), 64).await.unwrap();
        if due.is_empty() {
            break;
        }
        let mut settling = Vec::new();
        for delivery in due {
            let Payload::Webhook { body, .. } = &delivery.payload else { panic!("a webhook") };
            assert_eq!(*body, body_of(&delivery.id.0));
            match how(&delivery) {
                Some(settlement) => {
                    order.push(delivery.id.0.to_string());
                    settling.push(journal.settle(delivery.key, settlement, now()));
                }
                None => kept.push(delivery.key),
            }
        }
        for settled in futures_util::future::join_all(settling).await {
            settled.unwrap();
        }
    }
    for key in kept {
        journal.settle(key, Settlement::Released, now()).await.unwrap();
    }
    order
}

fn delivered(_: &Delivery) -> Option<Settlement> {
    Some(Settlement::Delivered { status: Some(200), answer: String::new() })
}

fn of(name: &str) -> Selection {
    Selection { route: Some(route(name)), ..Selection::default() }
}

#[tokio::test]
async fn a_replay_sends_every_settled_delivery_once_with_its_id_and_in_the_order_of_its_call() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_small(directory.path(), 400);
    let began = now();
    for n in 0..3 {
        for number in 0..100 {
            journal
                .append(batch(update(number, n, LegState::Ringing, now()), &["desk", "other"]))
                .await
                .unwrap();
        }
    }
    let dead = |delivery: &Delivery| match delivery.id.0.contains("5.") {
        true => Some(Settlement::Dead { why: "old".to_owned(), status: None, answer: String::new() }),
        false => delivered(delivery),
    };
    assert_eq!(settle_all(&journal, "desk", dead).await.len(), 300);
    // the older half becomes history, the rest waits on the other route
    let first_half =
        |delivery: &Delivery| if delivery.id.0.ends_with(".0") { delivered(delivery) } else { None };
    settle_all(&journal, "other", first_half).await;
    for _ in 0..500 {
        if journal.status().await.unwrap().days > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(journal.status().await.unwrap().days > 0, "some of it is history");
    let ended = now();

    let counted = journal.replay_count(&of("desk"), ended).await.unwrap();
    assert_eq!(counted, Replayed { settled: 282, dead: 18, waiting: 0 });
    let other = journal.replay_count(&of("other"), ended).await.unwrap();
    assert_eq!(other, Replayed { settled: 100, dead: 0, waiting: 200 });
    let before = Selection { to: Some(began), ..Selection::default() };
    assert_eq!(journal.replay_count(&before, ended).await.unwrap(), Replayed::default());
    let one = Selection { id: Some(UpdateId("hq.00000000000007.1".into())), ..of("desk") };
    assert_eq!(journal.replay_count(&one, ended).await.unwrap().settled, 1);
    assert!(journal.due(&route("desk"), now(), 1).await.unwrap().0.is_empty(), "counting sends nothing");

    assert_eq!(journal.replay(&of("desk"), ended).await.unwrap(), counted);
    assert!(journal.dead(None, 10).await.unwrap().is_empty());
    let order = settle_all(&journal, "desk", delivered).await;
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for id in &order {
        let (call, n) = id.rsplit_once('.').unwrap();
        let n: u64 = n.parse().unwrap();
        assert!(last.insert(call, n).is_none_or(|before| before < n), "{id} out of order");
    }
    assert_eq!((order.len(), last.len()), (300, 100));
    let status = journal.status().await.unwrap();
    let line = status.routes.iter().find(|found| *found.route.0 == *"desk").unwrap().counters;
    assert_eq!(line, Counters { accepted: 582, delivered: 582, ..Counters::default() });

    let again = journal.replay(&Selection { from: Some(began), ..of("desk") }, ended).await.unwrap();
    assert_eq!(
        again,
        Replayed { settled: 300, dead: 0, waiting: 0 },
        "what a replay appended is not found by it"
    );
    journal.close().await;
}
