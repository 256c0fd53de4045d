//! A receiver that is away for longer than anybody is patient: what was given up meanwhile is kept,
//! and once it is put back the receiver has everything, in order, each once (R15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callpost::routes::BreakerState;
use tempfile::TempDir;

use crate::receiver::{Receiver, Reply};
use crate::workers::{Running, append, counters, open, posts, webhook};

const CALLS: usize = 40;
const OF_EACH: usize = 3;
const HOURS: usize = 80;

/// The real ladder and the real patience of 75 h, in a time that passes at once.
#[tokio::test]
async fn all_that_an_outage_longer_than_the_ladder_gave_up_arrives_once_put_back() {
    let directory = TempDir::new().unwrap();
    let away = Arc::new(AtomicBool::new(true));
    let script = Arc::clone(&away);
    let receiver = Receiver::start(move |_| {
        let away = script.load(Ordering::SeqCst);
        if away { Reply::status("503 Service Unavailable") } else { Reply::ok("") }
    })
    .await;
    let journal = open(directory.path());
    let config = webhook(&receiver.url("/"), "verify = false\nconcurrency = 16");
    let mut worker = Running::start(&config, &journal);
    append(&journal, posts("first", OF_EACH)).await;
    receiver.until(1).await;
    tokio::time::pause();
    // calls go on while nobody answers
    for call in 1..CALLS {
        append(&journal, posts(&format!("{call}"), OF_EACH)).await;
        tokio::time::sleep(Duration::from_secs((HOURS * 3600 / CALLS) as u64)).await;
    }
    let all = (CALLS * OF_EACH) as u64;
    let mut hours = 0;
    while counters(&journal).await.dead < all {
        assert!(hours < 4 * HOURS, "{:?}", counters(&journal).await);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        hours += 1;
    }
    tokio::time::resume();
    assert_eq!(counters(&journal).await.pending, 0);
    let refused = receiver.requests().len();

    away.store(false, Ordering::SeqCst);
    let letters = journal.dead(None, 1000).await.unwrap();
    assert!(letters.iter().all(|letter| letter.status == Some(503) && letter.why.contains("retry_for")));
    let keys = letters.iter().map(|letter| letter.key).collect();
    assert_eq!(journal.dead_retry(keys, callpost::clock::now()).await.unwrap(), all);
    // what the breaker still waits for, of the time that passed
    tokio::time::pause();
    worker.until(|health| health.breaker == BreakerState::Closed).await;
    tokio::time::resume();
    let back = std::time::Instant::now();
    while counters(&journal).await.delivered < all {
        assert!(back.elapsed() < Duration::from_secs(120), "{:?}", counters(&journal).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.stop().await;
    journal.close().await;

    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in &receiver.requests()[refused..] {
        let (call, n) = request.header("webhook-id").unwrap().rsplit_once('.').unwrap();
        taken.entry(call.to_owned()).or_default().push(n.to_owned());
    }
    assert_eq!(taken.len(), CALLS);
    assert!(taken.values().all(|order| order == &["0", "1", "2"]), "in order, each once: {taken:?}");
}
