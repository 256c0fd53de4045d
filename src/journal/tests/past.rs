//! Searches over generations and days against a plain list: what is found is what was last said.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use parsers::Micros;

use super::support::{DAY, call, now, open_small, outgoing, route, update};
use crate::calls::{EventName, LegState, LegUpdate, Update, UpdateBody};
use crate::journal::{Batch, HistoryFilter, Journal, Settlement};

const CALLS: u64 = 120;

fn leg(update: &Update) -> &LegUpdate {
    match &update.body {
        UpdateBody::Leg(leg) => leg,
        UpdateBody::Sms(_) => unreachable!("none was made"),
    }
}

fn random(state: &mut u32, below: u64) -> u64 {
    *state = crc32c::crc32c(&state.to_le_bytes()) ^ 0x5bd1_e995;
    u64::from(*state) % below
}

/// Calls of one or two legs around two midnights, several words on each, some legs never ended.
fn words(seed: u32) -> Vec<Update> {
    let mut state = seed;
    let midnight = Micros(now().0 / DAY * DAY - DAY);
    let mut words: Vec<(u64, Update)> = Vec::new();
    for number in 0..CALLS {
        // some begin in the same second
        let began = i64::try_from(random(&mut state, 3600)).unwrap() * Micros::SECOND;
        let day = i64::try_from(random(&mut state, 2)).unwrap() * DAY;
        let start = Micros(midnight.0 - 1800 * Micros::SECOND + began + day);
        let turn = number * 4 + random(&mut state, 40);
        for second in 0..=random(&mut state, 2) {
            // the second leg of a call may begin after midnight
            let start = Micros(start.0 + i64::try_from(second * 1200).unwrap() * Micros::SECOND);
            let count = 1 + random(&mut state, 3);
            let ends = random(&mut state, 6) > 0;
            for n in 0..count {
                let ended = ends && n + 1 == count;
                let leg_state = if ended { LegState::Hangup } else { LegState::Ringing };
                let mut word = update(number, second * 10 + n, leg_state, start);
                let UpdateBody::Leg(leg) = &mut word.body else { continue };
                leg.call_id += second * 10_000;
                leg.src.number = format!("55{}", random(&mut state, 12));
                leg.dst.number = format!("2{}", random(&mut state, 6));
                if ended && random(&mut state, 3) == 0 {
                    leg.event = EventName::Missed;
                }
                words.push((turn + second * 60 + n * 90, word));
            }
        }
    }
    words.sort_by_key(|(turn, _)| *turn);
    words.into_iter().map(|(_, word)| word).collect()
}

/// The last word on each leg that matches, those that began last first.
fn expected(words: &[Update], matches: impl Fn(&Update, &LegUpdate) -> bool) -> Vec<Update> {
    let mut last: BTreeMap<(u64, Micros), &Update> = BTreeMap::new();
    for word in words {
        last.insert((leg(word).call_id, leg(word).start), word);
    }
    last.into_values().filter(|word| matches(word, leg(word))).cloned().collect()
}

async fn check(journal: &Journal, words: &[Update]) {
    let ask = async |filter: HistoryFilter, matches: &dyn Fn(&Update, &LegUpdate) -> bool| {
        let mut wanted = expected(words, matches);
        let mut found = journal.legs(HistoryFilter { limit: 1000, ..filter.clone() }).await.unwrap();
        assert!(found.is_sorted_by_key(|word| std::cmp::Reverse(leg(word).start)), "newest first");
        let newest: Vec<Micros> = found.iter().take(7).map(|word| leg(word).start).collect();
        let by_name = |word: &Update| (leg(word).call_id, leg(word).start);
        wanted.sort_by_key(by_name);
        found.sort_by_key(by_name);
        assert_eq!(found, wanted, "{filter:?}");
        let page = journal.legs(HistoryFilter { limit: 7, ..filter }).await.unwrap();
        assert!(page.iter().all(|word| wanted.contains(word)), "a page holds last words as well");
        assert_eq!(page.iter().map(|word| leg(word).start).collect::<Vec<_>>(), newest);
    };
    let any = HistoryFilter::default;
    ask(any(), &|_, _| true).await;
    ask(HistoryFilter { missed: true, ..any() }, &|_, leg| leg.event == EventName::Missed).await;
    for index in 0..12 {
        let number = format!("55{index}");
        let filter = HistoryFilter { number: Some(number.clone()), ..any() };
        ask(filter, &|_, leg| leg.src.number == number).await;
    }
    for number in (0..CALLS).step_by(11) {
        ask(HistoryFilter { call: Some(call(number)), ..any() }, &|word, _| word.call == call(number)).await;
        let call_id = Some(number + 10_000);
        ask(HistoryFilter { call_id, ..any() }, &|_, leg| Some(leg.call_id) == call_id).await;
    }
    for index in 0..5 {
        let from = Micros(now().0 / DAY * DAY - DAY + index * 600 * Micros::SECOND);
        let to = Micros(from.0 + DAY);
        let filter = HistoryFilter { from: Some(from), to: Some(to), ..any() };
        ask(filter, &|_, leg| leg.start >= from && leg.start < to).await;
    }
    for number in (0..CALLS).step_by(7) {
        let trace = journal.trace(&call(number)).await.unwrap();
        let mut wanted: Vec<&Update> = words.iter().filter(|word| word.call == call(number)).collect();
        wanted.sort_by_key(|word| word.at);
        assert_eq!(trace.updates.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(trace.deliveries.len(), wanted.len());
    }
}

#[tokio::test]
async fn a_search_finds_the_last_word_on_each_leg_wherever_its_words_are_kept() {
    for seed in 1..3 {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open_small(directory.path(), 60);
        let words = words(seed);
        for word in &words {
            let outbox = vec![outgoing("desk", word, false)];
            journal.append(Batch { outbox, updates: vec![word.clone()], ..Batch::default() }).await.unwrap();
        }
        assert!(journal.status().await.unwrap().generations > 5);
        let (half, _) = journal.due(&route("desk"), now(), words.len() / 2).await.unwrap();
        let settle = async |due: Vec<crate::journal::Delivery>| {
            for delivery in due {
                let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
                journal.settle(delivery.key, settlement, now()).await.unwrap();
            }
        };
        settle(half).await;
        loop {
            let (due, _) = journal.due(&route("desk"), now(), 64).await.unwrap();
            if due.is_empty() {
                break;
            }
            settle(due).await;
        }
        let waited = tokio::time::Instant::now();
        while journal.status().await.unwrap().generations > 1 {
            assert!(waited.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        check(&journal, &words).await;
        journal.close().await;
    }
}
