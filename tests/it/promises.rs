//! What holds for the tracker whatever the stream does: events of different threads in another
//! order, streams cut, doubled, woven together, and events that nobody should send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use callpost::calls::{Context, EventName, LegUpdate, Snapshot, Update, UpdateBody};
use parsers::Micros;
use parsers::ami::EventKind;
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::replay::{Fed, Run, config, feed, fixture, names, replay};

type Stream = Vec<(Micros, Fed)>;

/// Every recording, by name.
static STREAMS: LazyLock<Vec<(String, Stream)>> = LazyLock::new(|| {
    let all = ["catalogue", "22", "16"].into_iter().flat_map(|directory| {
        names(directory)
            .into_iter()
            .map(move |name| (format!("{directory}/{name}"), feed(&fixture(directory, &name))))
    });
    // `Message/ast_msg_queue` is one channel for all of Asterisk's life, in several recordings
    all.filter(|(_, stream)| !stream.is_empty()).collect()
});

/// The recordings that have no list of channels within.
fn live() -> Vec<&'static (String, Stream)> {
    STREAMS.iter().filter(|(_, stream)| stream.iter().all(|(_, fed)| matches!(fed, Fed::Event(_)))).collect()
}

/// What is compared of an update: all but its times, which move with the stream.
fn without_times(update: &Update) -> String {
    match &update.body {
        UpdateBody::Leg(leg) => {
            let leg = LegUpdate {
                start: Micros(0),
                connected: leg.connected.map(|_| Micros(0)),
                ..(**leg).clone()
            };
            format!("{} {} {leg:?}", update.id.0, update.call.0)
        }
        UpdateBody::Sms(sms) => format!("{sms:?}"),
    }
}

/// Each leg's updates in order.
fn by_leg(updates: &[Update]) -> BTreeMap<u64, Vec<String>> {
    let mut legs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for update in updates {
        let id = match &update.body {
            UpdateBody::Leg(leg) => leg.call_id,
            UpdateBody::Sms(_) => 0,
        };
        legs.entry(id).or_default().push(without_times(update));
    }
    legs
}

fn group_rows(run: &Run) -> Vec<String> {
    let mut rows: Vec<String> = run
        .groups
        .iter()
        .flat_map(|group| group.rows.iter().map(|row| format!("{} {:?} {row:?}", group.call.0, group.source)))
        .collect();
    rows.sort();
    rows
}

/// One start, at most one end, nothing after it, no id twice; and nothing stays in memory.
pub fn check_invariants(run: &Run) -> Result<(), TestCaseError> {
    let mut ids = BTreeSet::new();
    let mut ended = BTreeSet::new();
    let mut begun = BTreeSet::new();
    for update in &run.updates {
        let UpdateBody::Leg(leg) = &update.body else { continue };
        prop_assert!(ids.insert(update.id.clone()), "id twice: {update:?}");
        prop_assert!(!ended.contains(&leg.call_id), "after the end: {update:?}");
        if leg.event == EventName::Initial {
            prop_assert!(begun.insert(leg.call_id), "begun twice: {update:?}");
        }
        prop_assert!(begun.contains(&leg.call_id), "not begun: {update:?}");
        if matches!(leg.event, EventName::Hangup | EventName::Missed | EventName::Failed) {
            ended.insert(leg.call_id);
            prop_assert!(leg.terminated_by.is_some());
        } else {
            prop_assert!(leg.terminated_by.is_none() && leg.cause.is_empty() && leg.duration == 0);
        }
        prop_assert!(leg.parent_id.is_none() || leg.context == Context::LocalUser);
    }
    prop_assert_eq!(&begun, &ended, "not ended");
    prop_assert_eq!(run.tracker.size(), 0);
    prop_assert!(run.objects.keys().all(|key| &*key.0 == "m"), "left: {:?}", run.objects.keys());
    Ok(())
}

/// All that was known is gone, says Asterisk; a while later.
fn end_with_nothing(run: &mut Run) {
    run.lose(run.now.plus_millis(1));
    let nothing = Snapshot { startup: "2026-11-21 09:34:36".to_owned(), ..Snapshot::default() };
    run.put(run.now.plus_millis(2_000), &Fed::Snapshot(Box::new(nothing)));
    run.rest();
}

fn channel_of(fed: &Fed) -> Option<&str> {
    let Fed::Event(event) = fed else { return None };
    let channel = match &event.kind {
        EventKind::Newstate(channel)
        | EventKind::NewCallerid(channel)
        | EventKind::NewConnectedLine(channel)
        | EventKind::HangupRequest { channel, .. }
        | EventKind::SoftHangupRequest { channel, .. }
        | EventKind::Hangup { channel, .. }
        | EventKind::BridgeEnter { channel, .. }
        | EventKind::BridgeLeave { channel, .. } => channel,
        _ => return None,
    };
    Some(channel.uniqueid.as_str())
}

#[test]
fn a_restart_after_every_single_event_changes_nothing() {
    for (name, stream) in STREAMS.iter() {
        let whole = replay(stream);
        let mut cut = Run::new();
        for (at, fed) in stream {
            cut.put(*at, fed);
            cut.restart();
        }
        cut.rest();
        assert_eq!(whole.updates, cut.updates, "{name}");
        assert_eq!(whole.groups, cut.groups, "{name}");
    }
}

#[test]
fn every_recording_leaves_nothing_behind() {
    for (name, stream) in STREAMS.iter() {
        if let Err(fault) = check_invariants(&replay(stream)) {
            panic!("{name}: {fault}");
        }
    }
}

#[test]
fn an_event_that_comes_twice_counts_once() {
    for (name, stream) in live() {
        let doubled: Stream = stream.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
        let (once, twice) = (replay(stream), replay(&doubled));
        let texts = |run: &Run| run.updates.iter().any(|update| matches!(update.body, UpdateBody::Sms(_)));
        let digits = |update: &&Update| match &update.body {
            UpdateBody::Leg(leg) => leg.event == EventName::Dtmf,
            UpdateBody::Sms(_) => false,
        };
        // texts and digits have no identity of their own: two events are two
        if texts(&once) || once.updates.iter().any(|update| digits(&update)) {
            continue;
        }
        assert_eq!(by_leg(&once.updates), by_leg(&twice.updates), "{name}");
        assert_eq!(group_rows(&once), group_rows(&twice), "{name}");
    }
}

/// Several recordings as if they happened at the same time: 16 and 22 have ids and bridges that do
/// not meet, and times are moved to a common beginning.
fn woven(chosen: &[(&'static (String, Stream), i64)]) -> Stream {
    let zero = Micros::from_secs(1_795_270_000);
    let mut all: Stream = Vec::new();
    for ((_, stream), delay) in chosen {
        let first = stream.first().map_or(Micros(0), |(at, _)| *at);
        for (at, fed) in stream {
            let moved = Micros(at.0 - first.0 + zero.0).plus_millis(*delay);
            let mut fed = fed.clone();
            if let Fed::Event(event) = &mut fed {
                event.at = event.at.map(|_| moved);
            }
            all.push((moved, fed));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

fn recordings(directory: &'static str) -> Vec<&'static (String, Stream)> {
    live().into_iter().filter(|(name, _)| name.starts_with(directory) && !name.contains("z01")).collect()
}

/// So many cases, unless `PROPTEST_CASES` says another number.
pub fn proptest_config(cases: u32) -> ProptestConfig {
    let long = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { long } else { ProptestConfig { cases, ..long } }
}

proptest! {
    #![proptest_config(proptest_config(1_000))]

    #[test]
    fn calls_at_the_same_time_do_not_touch_each_other(
        chosen in subsequence(recordings("22"), 2..8),
        delays in prop::collection::vec(0_i64..6_000, 8),
    ) {
        let chosen: Vec<_> = chosen.into_iter().zip(delays).collect();
        let together = replay(&woven(&chosen));
        let mut alone: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for one in &chosen {
            let run = replay(&woven(std::slice::from_ref(one)));
            for (id, updates) in by_leg(&run.updates) {
                alone.entry(id).or_default().extend(updates);
            }
        }
        // texts have no leg: compared as a set
        let texts = |legs: &mut BTreeMap<u64, Vec<String>>| legs.remove(&0).unwrap_or_default().len();
        let mut both = by_leg(&together.updates);
        prop_assert_eq!(texts(&mut both), texts(&mut alone));
        prop_assert_eq!(both, alone);
        check_invariants(&together)?;
    }

    #[test]
    fn threads_of_asterisk_may_overtake_each_other(
        one in prop::sample::select(live()),
        swaps in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let (name, stream) = one;
        let mut shuffled = stream.clone();
        for swap in swaps {
            let first = swap.index(shuffled.len());
            let (Some(a), Some(b)) = (shuffled.get(first), shuffled.get(first + 1)) else { continue };
            let near = b.0.0 - a.0.0 < 2_000;
            if near && channel_of(&a.1).is_some() && channel_of(&b.1).is_some() && channel_of(&a.1) != channel_of(&b.1) {
                let (at_a, at_b) = (a.0, b.0);
                shuffled.swap(first, first + 1);
                (shuffled[first].0, shuffled[first + 1].0) = (at_a, at_b);
            }
        }
        let run = replay(&shuffled);
        check_invariants(&run)?;
        let legs = |run: &Run| by_leg(&run.updates).into_keys().collect::<Vec<_>>();
        prop_assert_eq!(legs(&run), legs(&replay(stream)), "{}", name);
        prop_assert_eq!(group_rows(&run).len(), group_rows(&replay(stream)).len(), "{}", name);
    }

    #[test]
    fn whatever_is_lost_or_cut_every_leg_has_one_start_and_one_end(
        one in prop::sample::select(live()),
        lost in prop::collection::vec(prop::bool::weighted(0.15), 400),
        cut in 0.0_f64..1.0,
        restarts in prop::bool::ANY,
    ) {
        let (_, stream) = one;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
        let kept = (stream.len() as f64 * cut) as usize;
        let mut run = Run::new();
        for ((at, fed), lost) in stream.iter().take(kept).zip(lost.iter().cycle()) {
            if !lost {
                run.put(*at, fed);
            }
            if restarts {
                run.restart();
            }
        }
        end_with_nothing(&mut run);
        check_invariants(&run)?;
    }

    #[test]
    fn events_in_any_order_never_break_the_promises(
        chosen in subsequence(recordings("16"), 1..4),
        order in any::<u64>(),
        taken in 1_usize..300,
    ) {
        let delays: Vec<_> = chosen.into_iter().map(|one| (one, 0)).collect();
        let mut stream = woven(&delays);
        // a reproducible shuffle: the order of a multiplicative hash
        let mixed = |index: usize| (index as u64).wrapping_mul(order | 1).rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut indexed: Vec<(u64, (Micros, Fed))> = stream.drain(..).enumerate().map(|(i, one)| (mixed(i), one)).collect();
        indexed.sort_by_key(|(key, _)| *key);
        let mut run = Run::new();
        let start = Micros::from_secs(1_795_270_000);
        for (index, (_, (_, fed))) in indexed.into_iter().take(taken).enumerate() {
            run.put(start.plus_millis(i64::try_from(index).unwrap() * 40), &fed);
        }
        end_with_nothing(&mut run);
        check_invariants(&run)?;
    }
}

#[test]
fn a_channel_that_is_nobodys_makes_no_object() {
    let mut run = Run::new();
    for (_, stream) in live() {
        for (at, fed) in stream {
            let Fed::Event(event) = fed else { continue };
            // all but births: none of these channels was ever announced
            if !matches!(
                event.kind,
                EventKind::Newchannel(_) | EventKind::UserEvent { .. } | EventKind::ModemSms(_)
            ) {
                run.put(*at, fed);
            }
        }
    }
    assert_eq!(run.updates, Vec::new());
    assert_eq!(run.groups, Vec::new());
    assert_eq!(run.tracker.size(), 0);
    assert_eq!(config().pbx.name, "hq");
}
