//! How much what waits takes.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use super::support::{batch, call, now, open_small, update};
use crate::calls::{LegState, UpdateBody};
use crate::journal::engine::Store;
use crate::journal::rewrite::Rewrite;
use crate::journal::space::disk_use;
use crate::journal::{Batch, Payload};

fn real(number: u64, n: u64, routes: &[&str]) -> Batch {
    let mut batch = batch(update(number, n, LegState::Ringing, now()), routes);
    let UpdateBody::Leg(leg) = &batch.updates[0].body else { return batch };
    let body = format!(
        "{{\"event_name\":\"call.hangup\",\"event_time\":\"2026-01-02 03:04:05\",\"call_id\":\"{}\",\"state\":\"HANGUP\",\
         \"context\":\"LOCAL_USER\",\"destination\":\"in\",\"start_time\":\"2026-01-02 03:03:02\",\
         \"connected_at\":\"2026-01-02 03:03:04\",\"duration\":61,\"t_cause\":\"Normal Clearing\",\"src_hash\":\"{}\",\
         \"src_number\":\"{}\",\"src_id\":\"0\",\"src_name\":\"\\\"Caller\\\" <{}>\",\"dst_number\":\"{}\",\
         \"dst_id\":\"10001\",\"dst_name\":\"Ana\",\"clid\":\"\\\"Caller\\\" <{}>\",\"info\":\"\",\
         \"terminated_by\":null,\"parent_id\":null}}",
        leg.call_id,
        crc32c::crc32c(&number.to_le_bytes()),
        leg.src.number,
        leg.src.number,
        leg.dst.number,
        leg.src.number
    );
    for outgoing in &mut batch.outbox {
        outgoing.payload = Payload::Webhook { event: "call.hangup".to_owned(), body: body.clone() };
    }
    batch
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    for (routes, per) in [(&["desk"][..], 1), (&["desk", "stopped"][..], 1), (&["desk", "stopped"][..], 5)] {
        let directory = tempfile::tempdir().unwrap();
        let updates: u64 = 16_000;
        let (journal, _) = open_small(directory.path(), 1_000_000_000);
        for chunk in 0..updates / 100 {
            let appends = (0..100).map(|at| {
                let one = chunk * 100 + at;
                // five calls of a time
                let number = one / (20 * per) * 20 + one % 20;
                let mut batch = real(number, one / 20 % per, routes);
                if one / 20 % per == per - 1 {
                    batch.ended.push(call(number));
                }
                journal.append(batch)
            });
            for done in futures_util::future::join_all(appends).await {
                done.unwrap();
            }
        }
        journal.close().await;
        let path = directory.path().join("outbox/00000000000000000001");
        let file = disk_use(&path);
        let pool = crate::journal::pool::Pool::new(directory.path().join("outbox"));
        let store = pool.get(1).unwrap();
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut all = Vec::new();
        store
            .range(&[0], &[255], |key, payload| {
                let payload = payload.unwrap();
                let mut name = char::from(key[0]).to_string();
                if key[0] == b'R' {
                    name.push(char::from(key[9]));
                }
                let sum = sums.entry(name).or_default();
                sum.0 += 1;
                sum.1 += (2 * key.len() + 12 + payload.len()) as u64;
                all.push((key.to_vec(), payload));
                true
            })
            .unwrap();
        let total: u64 = sums.values().map(|(_, bytes)| bytes).sum();
        println!(
            "{} routes, {per} updates a call: file {} an update, records {} {:?}",
            routes.len(),
            file / updates,
            total / updates,
            sums.iter()
                .map(|(name, (count, bytes))| format!(
                    "{name}: {:.2} x {}",
                    *count as f64 / updates as f64,
                    bytes / count
                ))
                .collect::<Vec<_>>()
        );
        drop(store);
        for (size, chunk) in [(64, "64"), (1024, "1024")] {
            let to = directory.path().join(format!("copy{chunk}"));
            let copy = Store::open(&to).unwrap();
            for some in all.chunks(size) {
                let mut batch = sled::Batch::default();
                for (key, payload) in some {
                    batch.insert(key.as_slice(), crate::journal::format::seal(key, payload));
                }
                copy.apply(batch).unwrap();
            }
            copy.sync().unwrap();
            let now = disk_use(&to) / updates;
            std::thread::sleep(std::time::Duration::from_secs(3));
            let waited = disk_use(&to) / updates;
            drop(copy);
            println!("  verbatim by {chunk}: {now}, 3 s later {waited}, closed {}", disk_use(&to) / updates);
        }
        let begun = std::time::Instant::now();
        let mut rewrite = Rewrite::begin(&pool, 1, false).unwrap().unwrap();
        while rewrite.step(&pool).unwrap() {}
        let took = begun.elapsed();
        let to = directory.path().join("outbox/00000000000000000001.new");
        let now = disk_use(&to) / updates;
        std::thread::sleep(std::time::Duration::from_secs(3));
        let waited = disk_use(&to) / updates;
        let store = rewrite.into_store();
        let mut count = 0;
        let mut bundle = 0;
        store
            .range(&[0], &[255], |key, payload| {
                let (known, value) = &all[count];
                assert_eq!(known, key);
                count += 1;
                if key[0] != b'R' {
                    assert_eq!(*value, payload.unwrap());
                }
                bundle += 0;
                true
            })
            .unwrap();
        assert_eq!(count, all.len());
        drop(store);
        println!("  bundles: {now}, 3 s later {waited}, closed {}, took {took:?}", disk_use(&to) / updates);
    }
}
