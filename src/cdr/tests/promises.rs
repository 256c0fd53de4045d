//! What the fold promises of any rows.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::catalogue::scenarios;
use super::{CdrRow, Disposition, group, pbx, row};
use crate::cdr::{DropReason, Part, fold, instant};
use crate::config::{Mode, Trunk};

const CHANNELS: [&str; 11] = [
    "PJSIP/trunk-00000001",
    "PJSIP/trunk-00000002",
    "PJSIP/1001-00000003",
    "PJSIP/1002-00000004",
    "Local/1001@from-queue-00000005;1",
    "Local/1001@from-queue-00000005;2",
    "Local/92125551234@from-internal-00000006;1",
    "Local/92125551234@from-internal-00000006;2",
    "Message/ast_msg_queue",
    "DAHDI/i1/5551000-3",
    "",
];

fn any_row() -> impl Strategy<Value = CdrRow> {
    let channel = prop::sample::select(&CHANNELS[..]);
    let a = prop::sample::select(&CHANNELS[..]);
    let start = (0..4_i64, prop::sample::select(vec![0, 1, 400_000, 999_999]));
    let text = prop::sample::select(vec!["", "5551000", "92125551234", "1001", "s", "anonymous"]);
    let dst = prop::sample::select(vec!["", "5551000", "92125551234", "1001", "s"]);
    let app = prop::sample::select(vec!["Dial", "Queue", "Hangup", "AppDial", "ConfBridge", "Park", ""]);
    let disposition = prop::sample::select(vec!["ANSWERED", "NO ANSWER", "BUSY", "FAILED"]);
    let which = (any::<bool>(), any::<bool>(), any::<bool>());
    (a, channel, start, text, dst, app, disposition, 0..4_u64, 0..4_u64, which, 0..6_u32).prop_map(
        |(a, b, (secs, micros), src, dst, app, disposition, duration, billsec, (mapped, id, did), sequence)| {
            let place = CHANNELS.iter().position(|channel| *channel == a).unwrap();
            let (at, billsec) = (1_795_252_767 + secs, billsec.min(duration));
            let uniqueid = if id { format!("1795252767.{place}") } else { String::new() };
            let start = format!("2026-11-21 09:19:{:02}", 27 + secs);
            let epoch = if mapped { format!("{at}.{micros:06}") } else { String::new() };
            let sequence = if mapped { sequence.to_string() } else { String::new() };
            let mut row = row(&format!(
                "{uniqueid}||{sequence}|{src}|{dst}|{a}|{b}|{app}|{start}|{epoch}|||{duration}|{billsec}|{disposition}|"
            ));
            row.did = did.then(|| "5559000".into());
            row
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::PerCdr, Mode::PerCall, Mode::Raw])
}

fn key(part: &Part) -> (i64, Option<String>, Option<String>) {
    let to = part.did.as_ref().or(part.destination.as_ref());
    (part.start.secs(), part.source.as_deref().map(str::to_owned), to.map(|to| to.to_string()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_parts_have_one_key_and_no_two_one_place(rows in prop::collection::vec(any_row(), 0..9), mode in mode()) {
        let parts = fold(&group(rows), mode, &pbx()).parts;
        let keys: BTreeSet<_> = parts.iter().map(key).collect();
        prop_assert_eq!(keys.len(), parts.len());
        let places: BTreeSet<_> = parts.iter().filter(|part| part.uniqueid.is_some()).map(|part| (&part.uniqueid, part.part)).collect();
        prop_assert_eq!(places.len(), parts.iter().filter(|part| part.uniqueid.is_some()).count());
    }

    #[test]
    fn nothing_is_invented(rows in prop::collection::vec(any_row(), 0..9), mode in mode()) {
        let begun = |row: &CdrRow| instant(row.cdr.start.as_deref().unwrap(), &pbx().timezone, None).unwrap().secs();
        let end = |row: &CdrRow| begun(row) + i64::try_from(row.cdr.duration).unwrap() + 1;
        let last = rows.iter().map(end).max().unwrap_or(0);
        for part in fold(&group(rows.clone()), mode, &pbx()).parts {
            let from = rows.iter().any(|row| {
                let cdr = &row.cdr;
                (&cdr.uniqueid, &cdr.channel) == (&part.uniqueid, &part.channel)
                    && (part.source.is_none() || cdr.src == part.source)
                    && (part.destination.is_none() || cdr.dst == part.destination)
            });
            prop_assert!(from, "{:?}", part);
            prop_assert!(rows.iter().any(|row| row.cdr.start == part.start_local), "{:?}", part);
            prop_assert!(rows.iter().any(|row| row.cdr.disposition == part.disposition), "{:?}", part);
            prop_assert!(part.did.is_none() || rows.iter().any(|row| row.did == part.did), "{:?}", part);
            prop_assert!(part.billsec <= part.duration, "{:?}", part);
            prop_assert!(part.start.secs() + i64::try_from(part.duration).unwrap() <= last, "{:?}", part);
        }
    }

    #[test]
    fn every_row_is_accounted_for_once(rows in prop::collection::vec(any_row(), 0..9), mode in mode()) {
        let folded = fold(&group(rows.clone()), mode, &pbx());
        let dropped: BTreeSet<_> = folded.dropped.iter().map(|(row, _)| *row).collect();
        prop_assert_eq!(dropped.len(), folded.dropped.len());
        prop_assert!(dropped.iter().all(|row| *row < rows.len()));
        prop_assert_eq!(dropped.len() + folded.parts.len(), rows.len());
    }

    #[test]
    fn the_order_of_rows_does_not_matter(
        (rows, shuffled) in prop::collection::vec(any_row(), 0..9)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        mode in mode(),
    ) {
        prop_assert_eq!(fold(&group(rows), mode, &pbx()).parts, fold(&group(shuffled), mode, &pbx()).parts);
    }

    #[test]
    fn rows_that_come_twice_change_nothing(rows in prop::collection::vec(any_row(), 0..9), mode in mode()) {
        // Rows with neither id nor channel cannot be told from another call's.
        let named = |row: &CdrRow| row.cdr.uniqueid.is_some() || row.cdr.channel.is_some();
        let rows: Vec<_> = rows.into_iter().filter(named).collect();
        let twice: Vec<_> = rows.iter().chain(&rows).cloned().collect();
        prop_assert_eq!(fold(&group(rows), mode, &pbx()).parts, fold(&group(twice), mode, &pbx()).parts);
    }
}

#[test]
fn the_rows_of_a_call_fold_alike_from_the_events_and_from_a_store_read_later() {
    for scenario in scenarios() {
        let store = |row: &CdrRow| {
            let mut row = row.clone();
            (row.cdr.start_epoch, row.cdr.answer_epoch, row.cdr.end_epoch) = (None, None, None);
            row
        };
        let both: Vec<_> = scenario.rows.iter().map(store).chain(scenario.rows.clone()).collect();
        let live = fold(&group(scenario.rows), Mode::PerCdr, &pbx());
        assert_eq!(
            fold(&group(both), Mode::PerCdr, &pbx()).parts,
            live.parts,
            "scenario {}",
            scenario.number
        );
    }
}

const CALLER: &str = "1795252767.0|1795252767.0";

/// Seconds after the caller's first, destination, duration, outbound.
type Brief = (i64, String, u64, bool);

fn parts(rows: Vec<CdrRow>) -> (Vec<Brief>, Vec<DropReason>) {
    let folded = fold(&group(rows), Mode::PerCdr, &pbx());
    let part = |part: &Part| {
        let to = part.did.as_ref().or(part.destination.as_ref()).unwrap();
        (part.start.secs() - 1_795_252_767, to.to_string(), part.duration, part.outbound)
    };
    (folded.parts.iter().map(part).collect(), folded.dropped.iter().map(|(_, why)| *why).collect())
}

#[test]
fn a_transfer_by_an_agent_behind_a_local_channel_stays_two_parts() {
    let local = "Local/1001@from-queue-00000005";
    let (parts, dropped) = parts(vec![
        row(&format!(
            "{CALLER}|0|58414|5552000|PJSIP/trunk-00000001|{local};1|Queue||1795252767.0|1795252768.0|1795252770.0|3|2|ANSWERED|"
        )),
        row(&format!(
            "{CALLER}|2|58414|5552000|PJSIP/trunk-00000001|PJSIP/1003-00000009|Dial||1795252770.1|1795252770.1|1795252775.2|5|5|ANSWERED|"
        )),
        row(&format!(
            "1795252767.2|1795252767.0|1|58414|1001|{local};2|PJSIP/1001-00000003|Dial||1795252767.1|1795252768.0|1795252770.0|2|2|ANSWERED|"
        )),
    ]);
    assert_eq!(parts, [(0, "5552000".to_owned(), 3, false), (3, "5552000".to_owned(), 5, false)]);
    assert_eq!(dropped, [DropReason::LocalHalf]);
}

/// A host under load ends the first phone's record a moment after an answer that it makes up.
#[test]
fn a_phone_whose_call_was_picked_up_makes_no_create_of_its_own() {
    for (answer, end, billed) in [
        ("1795252767.1", "1795252767.1", 0),
        ("1795252767.2", "1795252767.263", 0),
        ("1795252769.65", "1795252769.65", 0),
        ("1795252769.5", "1795252769.65", 1),
        ("1795252769.3", "1795252769.65", 0),
    ] {
        let (parts, dropped) = parts(vec![
            row(&format!(
                "{CALLER}|0|58414|5551000|PJSIP/trunk-00000001|PJSIP/1001-00000002|Dial||1795252767.1|{answer}|{end}|1|{billed}|ANSWERED|"
            )),
            row(&format!(
                "{CALLER}|2|58414|5551000|PJSIP/trunk-00000001|PJSIP/1002-00000003|Dial||1795252769.66|1795252769.66|1795252771.7|2|2|ANSWERED|"
            )),
        ]);
        assert_eq!(parts, [(2, "5551000".to_owned(), 2, false)], "ended at {end}");
        assert_eq!(dropped, [DropReason::OtherAnswered]);
    }
}

#[test]
fn a_mobile_that_rang_with_the_phones_makes_no_call_once_a_phone_answered() {
    let local = "Local/92125551234@from-internal-00000006";
    let (parts, dropped) = parts(vec![
        row(&format!(
            "{CALLER}|0|58414|5551000|PJSIP/trunk-00000001|PJSIP/1001-00000003|Dial||1795252767.0|1795252768.0|1795252770.0|3|2|ANSWERED|"
        )),
        row(&format!(
            "{CALLER}|1|58414|5551000|PJSIP/trunk-00000001|{local};1|Dial||1795252767.0||1795252768.0|1|0|NO ANSWER|"
        )),
        row(&format!(
            "1795252767.3|1795252767.0|2|58414|92125551234|{local};2|PJSIP/trunk-00000004|Dial||1795252767.0||1795252768.0|1|0|NO ANSWER|"
        )),
    ]);
    assert_eq!(parts, [(0, "5551000".to_owned(), 3, false)]);
    assert_eq!(dropped, [DropReason::OtherAnswered, DropReason::OtherAnswered]);
}

#[test]
fn a_mobile_and_a_phone_that_nobody_took_are_one_inbound_call() {
    let local = "Local/92125551234@from-internal-00000006";
    let (parts, _) = parts(vec![
        row(&format!(
            "{CALLER}|0|58414|5551000|PJSIP/trunk-00000001|PJSIP/1001-00000003|Dial||1795252767.0||1795252770.0|3|0|NO ANSWER|"
        )),
        row(&format!(
            "1795252767.3|1795252767.0|2|58414|92125551234|{local};2|PJSIP/trunk-00000004|Dial||1795252767.0||1795252773.0|6|0|NO ANSWER|"
        )),
        row(&format!(
            "{CALLER}|1|58414|5551000|PJSIP/trunk-00000001|{local};1|Dial||1795252767.0||1795252772.0|5|0|NO ANSWER|"
        )),
    ]);
    assert_eq!(parts, [(0, "5551000".to_owned(), 5, false)]);
}

#[test]
fn an_outside_caller_who_is_later_connected_to_an_older_channel_is_still_a_caller() {
    let (parts, _) = parts(vec![
        row(
            "1795252768.5|1795252767.1|3|58414|5551000|PJSIP/trunk-00000005|PJSIP/1001-00000006|Dial||1795252768.0|1795252769.0|1795252775.0|7|6|ANSWERED|",
        ),
        row(
            "1795252767.2|1795252767.1|4|1002||PJSIP/1002-00000002|PJSIP/trunk-00000005|AppDial||1795252775.0|1795252775.0|1795252779.0|4|4|ANSWERED|",
        ),
        row(
            "1795252767.1|1795252767.1|2|1001|1002|PJSIP/1001-00000001|PJSIP/1002-00000002|Dial||1795252767.0|1795252767.5|1795252775.0|8|7|ANSWERED|",
        ),
    ]);
    assert_eq!(parts, [(1, "5551000".to_owned(), 7, false)]);
}

#[test]
fn an_outside_party_in_a_conference_was_not_called_by_who_was_there_first() {
    let (parts, dropped) = parts(vec![row(&format!(
        "{CALLER}|0|1001|8000000|PJSIP/1001-00000001|PJSIP/trunk-00000002|ConfBridge||1795252767.0|1795252767.0|1795252770.0|3|3|ANSWERED|"
    ))]);
    assert_eq!((parts, dropped), (vec![], vec![DropReason::Internal]));
}

#[test]
fn a_tail_that_is_all_there_is_of_an_outside_call_stays() {
    let tail = row(&format!(
        "{CALLER}|0|58414|5551000|PJSIP/trunk-00000001||Hangup||1795252767.0|1795252767.0|1795252767.1|0|0|ANSWERED|"
    ));
    assert_eq!(parts(vec![tail]), (vec![(0, "5551000".to_owned(), 0, false)], vec![]));
}

#[test]
fn the_did_is_freepbx_s_column_from_any_row_of_the_caller_then_the_tracker_s_then_the_line_s() {
    let rows = || {
        let mut first = row(&format!(
            "{CALLER}|0|58414|1001|PJSIP/trunk-00000001|PJSIP/1001-00000002|Dial||1795252767.0|1795252767.5|1795252769.0|2|1|ANSWERED|"
        ));
        let mut second = row(&format!(
            "{CALLER}|1|58414|s|PJSIP/trunk-00000001|PJSIP/1002-00000003|Dial||1795252770.0|1795252770.0|1795252775.0|5|5|ANSWERED|"
        ));
        first.did = Some("5551000".into());
        second.cdr.did = Some("2125551000".into());
        vec![first, second]
    };
    let dids = |rows: Vec<CdrRow>, number: Option<&str>| {
        let mut pbx = pbx();
        pbx.trunks = vec![Trunk { channel: "PJSIP/trunk".to_owned(), number: number.map(str::to_owned) }];
        let parts = fold(&group(rows), Mode::PerCdr, &pbx).parts;
        parts.iter().map(|part| part.did.as_deref().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(dids(rows(), Some("7")), vec![Some("2125551000".to_owned()); 2]);
    let mut tracked = rows();
    tracked[1].cdr.did = None;
    assert_eq!(dids(tracked.clone(), Some("7")), vec![Some("5551000".to_owned()); 2]);
    tracked[0].did = Some("s".into());
    assert_eq!(dids(tracked.clone(), Some("7")), vec![Some("7".to_owned()); 2]);
    assert_eq!(dids(tracked, None), vec![None; 2]);
}

#[test]
fn a_table_without_channels_is_read_by_its_numbers() {
    let bare = |src: &str, dst: &str| {
        row(&format!("1795252767.0|||{src}|{dst}||||2026-11-21 09:19:27||||9|3|ANSWERED|"))
    };
    assert_eq!(parts(vec![bare("1001", "92125551234")]).0, [(0, "92125551234".to_owned(), 9, true)]);
    assert_eq!(parts(vec![bare("584141234567", "912345678")]).0, [(0, "912345678".to_owned(), 9, false)]);
    assert_eq!(parts(vec![bare("1001", "1002")]), (vec![], vec![DropReason::Internal]));
}

#[test]
fn a_trunk_that_is_named_like_an_extension_is_told_by_how_its_call_came_in() {
    let text = format!(
        "{CALLER}|0|58414|5551000|PJSIP/2125-00000001|PJSIP/1001-00000002|Dial||1795252767.0|1795252768.0|1795252770.0|3|2|ANSWERED|"
    );
    assert_eq!(parts(vec![row(&text)]), (vec![], vec![DropReason::Internal]));
    let mut context = row(&text);
    context.cdr.dcontext = Some("from-trunk".into());
    let mut tracked = row(&text);
    tracked.did = Some("5551000".into());
    let mut column = row(&text);
    column.cdr.did = Some("5551000".into());
    for row in [context, tracked, column] {
        assert_eq!(parts(vec![row]).0, [(0, "5551000".to_owned(), 3, false)]);
    }
}

#[test]
fn a_dialled_line_whose_caller_is_in_no_row_is_no_caller() {
    let mut rest = row(&format!(
        "{CALLER}|0|92125551234||PJSIP/trunk-00000001|PJSIP/1001-00000002|AppDial||1795252767.0|1795252767.0|1795252770.0|3|3|ANSWERED|"
    ));
    rest.did = Some("5551000".into());
    assert_eq!(parts(vec![rest]), (vec![], vec![DropReason::Dialled]));
}

#[test]
fn a_withheld_number_is_no_source() {
    for src in ["", "anonymous", "Anonymous", "<unknown>", "unknown", "Restricted"] {
        let row = row(&format!(
            "{CALLER}|0|{src}|5551000|PJSIP/trunk-00000001|PJSIP/1001-00000002|Dial||1795252767.0||1795252769.0|2|0|NO ANSWER|"
        ));
        assert_eq!(fold(&group(vec![row]), Mode::PerCdr, &pbx()).parts[0].source, None, "{src}");
    }
}

#[test]
fn of_equal_keys_the_answered_row_stays_whatever_rang_longer() {
    let vain = |id: &str, disposition: &str, duration: u64, billsec: u64| {
        row(&format!(
            "{id}|1795252767.0|0|58414|5551000|PJSIP/trunk-{id}|PJSIP/1001-00000002|Dial||1795252767.0|||{duration}|{billsec}|{disposition}|"
        ))
    };
    let (first, second) = (vain("1795252767.0", "NO ANSWER", 60, 60), vain("1795252767.4", "ANSWERED", 9, 3));
    let mut announcement = vain("1795252767.5", "ANSWERED", 8, 8);
    announcement.cdr.dstchannel = None;
    let folded = fold(&group(vec![first, second, announcement]), Mode::PerCdr, &pbx());
    assert_eq!(folded.parts.len(), 1);
    assert_eq!((folded.parts[0].disposition, folded.parts[0].duration), (Disposition::Answered, 9));
    assert_eq!(folded.dropped, [(0, DropReason::SameKey), (2, DropReason::SameKey)]);
}

#[test]
fn a_row_without_any_time_is_counted_not_guessed() {
    let lost = row(
        "|||58414|5551000|PJSIP/trunk-00000001|PJSIP/1001-00000002|Dial|0000-00-00 00:00:00||||2|0|NO ANSWER|",
    );
    let folded = fold(&group(vec![lost]), Mode::PerCdr, &pbx());
    assert_eq!((folded.parts.len(), folded.dropped), (0, vec![(0, DropReason::NoTime)]));
}
