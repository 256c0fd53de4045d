//! Recordings edited into what was not recorded: CDRs early, late, in batches, without mappings or
//! not at all; other versions and names; the agent or Asterisk away for a while.
#![expect(clippy::wildcard_enum_match_arm, reason = "a stream holds more than is looked at")]

use std::collections::BTreeSet;

use callpost::calls::{
    CdrSource, EventName, LegState, LegUpdate, Snapshot, SnapshotChannel, Update, UpdateBody,
};
use parsers::Micros;
use parsers::ami::EventKind;

use crate::expect::Tolerance;
use crate::replay::{Fed, Run, config, creates, faults, feed, fixture, replay};
use callpost::routes::Routes;

pub type Stream = Vec<(Micros, Fed)>;

const EXACT: Tolerance = Tolerance { duration: 1, start: 1 };

pub fn stream(name: &str) -> Stream {
    feed(&fixture("22", name))
}

/// The recording with each of its messages changed, or left out.
pub fn edited(name: &str, edit: impl Fn(&str) -> Option<String>) -> Stream {
    let text = String::from_utf8(fixture("22", name)).unwrap();
    let messages = text.split_inclusive("\r\n\r\n").filter_map(edit).collect::<String>();
    feed(messages.as_bytes())
}

fn is_cdr(fed: &Fed) -> bool {
    matches!(fed, Fed::Event(event) if matches!(event.kind, EventKind::Cdr(_)))
}

fn without_cdrs(name: &str) -> Stream {
    stream(name).into_iter().filter(|(_, fed)| !is_cdr(fed)).collect()
}

/// The recording with its Cdr events at another time.
fn cdrs_at(name: &str, at: impl Fn(Micros, Micros) -> Micros) -> Stream {
    let stream = stream(name);
    let (first, last) = (stream[0].0, stream[stream.len() - 1].0);
    let mut moved: Stream = stream
        .into_iter()
        .map(|(when, mut fed)| {
            if !is_cdr(&fed) {
                return (when, fed);
            }
            let when = at(first, last);
            if let Fed::Event(event) = &mut fed {
                event.at = Some(when);
            }
            (when, fed)
        })
        .collect();
    moved.sort_by_key(|(at, _)| *at);
    moved
}

pub fn legs(run: &Run) -> Vec<&LegUpdate> {
    fn leg(update: &Update) -> Option<&LegUpdate> {
        match &update.body {
            UpdateBody::Leg(leg) => Some(leg),
            UpdateBody::Sms(_) => None,
        }
    }
    run.updates.iter().filter_map(leg).collect()
}

fn sources(run: &Run) -> BTreeSet<&'static str> {
    run.groups
        .iter()
        .map(|group| match group.source {
            CdrSource::Events => "events",
            CdrSource::Store => "store",
            CdrSource::Tracker => "tracker",
        })
        .collect()
}

fn assert_as_expected(name: &str, run: &Run) {
    assert_eq!(faults("22", name, run, EXACT), "", "{name}");
}

#[test]
fn a_cdr_may_come_before_the_hangups_or_five_minutes_after() {
    let name = "s17_forked_answered";
    assert_as_expected(name, &replay(&cdrs_at(name, |first, _| first.plus_millis(300))));
    let late = replay(&cdrs_at(name, |_, last| last.plus_millis(300_000)));
    assert_as_expected(name, &late);
    assert_eq!((late.groups.len(), sources(&late)), (1, BTreeSet::from(["events"])));
}

#[test]
fn rows_of_an_unanswered_call_that_come_late_open_its_group_again() {
    let name = "s04_in_noanswer_timeout";
    let late = replay(&cdrs_at(name, |_, last| last.plus_millis(200_000)));
    assert_as_expected(name, &late);
    assert_eq!(late.groups.len(), 1);
}

#[test]
fn a_row_that_comes_after_its_part_was_sent_makes_no_second_create() {
    let name = "s17_forked_answered";
    let mut stream = stream(name);
    let cdrs: Vec<usize> = (0..stream.len()).filter(|index| is_cdr(&stream[*index].1)).collect();
    assert_eq!(cdrs.len(), 2);
    let (_, straggler) = stream.remove(cdrs[0]);
    let late = stream[stream.len() - 1].0.plus_millis(30_000);
    stream.push((late, straggler));
    let run = replay(&stream);
    assert_as_expected(name, &run);
    assert_eq!((run.groups.len(), run.groups[0].rows.len()), (1, 1));
    assert!(run.skipped.contains(&"CDR that came after its part of the call was sent"));
}

#[test]
fn after_a_batch_was_seen_groups_wait_for_the_next_one() {
    let mut run = Run::new();
    for (at, fed) in cdrs_at("s01_in_answered_caller_hangs", |_, last| last.plus_millis(120_000)) {
        run.put(at, &fed);
    }
    run.advance(run.now.plus_millis(5_000));
    assert_eq!(run.groups.len(), 1);
    // the loser's row comes with the hangup, the winner's in the batch 100 s later
    let mut next = stream("s17_forked_answered");
    let shift = run.now.0 - next[0].0.0 + 5_000_000;
    let last = next[next.len() - 1].0;
    let winner = next.iter().rposition(|(_, fed)| is_cdr(fed)).unwrap();
    let (_, row) = next.remove(winner);
    next.push((last.plus_millis(100_000), row));
    for (at, mut fed) in next {
        let at = Micros(at.0 + shift);
        if let Fed::Event(event) = &mut fed {
            event.at = Some(at);
        }
        run.put(at, &fed);
    }
    run.rest();
    assert_eq!((run.groups.len(), run.groups[1].rows.len()), (2, 2));
}

#[test]
fn a_burst_of_rows_is_sorted_by_call_not_by_neighbourhood() {
    let names = [
        "s01_in_answered_caller_hangs",
        "s17_forked_answered",
        "s08_out_answered",
        "q01_queue_answered_caller_hangs",
    ];
    let mut run = Run::new();
    let mut rows: Vec<Vec<Fed>> = Vec::new();
    for name in names {
        let (cdrs, events): (Stream, Stream) = stream(name).into_iter().partition(|(_, fed)| is_cdr(fed));
        for (at, fed) in events {
            run.put(at, &fed);
        }
        rows.push(cdrs.into_iter().map(|(_, fed)| fed).collect());
    }
    let burst = run.now.plus_millis(60_000);
    for round in 0..2 {
        for call in &rows {
            if let Some(Fed::Event(event)) = call.get(round) {
                let mut event = event.clone();
                event.at = Some(burst);
                run.put(burst, &Fed::Event(event));
            }
        }
    }
    run.rest();
    let sizes: Vec<usize> = run.groups.iter().map(|group| group.rows.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 1 + 2 + 1 + 2);
    assert_eq!(sizes.len(), names.len());
    assert_eq!(sources(&run), BTreeSet::from(["events"]));
}

#[test]
fn rows_without_mappings_are_grouped_by_their_channel() {
    for name in [
        "s01_in_answered_caller_hangs",
        "s17_forked_answered",
        "l04_ringgroup_local_inbound",
        "s21_attended_by_callee",
    ] {
        let mapped = [
            "LinkedID:",
            "Sequence:",
            "StartEpoch:",
            "AnswerEpoch:",
            "EndEpoch:",
            "PeerAccount:",
            "RecordingFile:",
        ];
        let bare = edited(name, |message| {
            let keep = |line: &&str| {
                !message.starts_with("Event: Cdr") || !mapped.iter().any(|key| line.starts_with(key))
            };
            Some(message.split_inclusive("\r\n").filter(keep).collect())
        });
        let (bare, mapped) = (replay(&bare), replay(&stream(name)));
        assert_eq!(bare.groups.len(), mapped.groups.len(), "{name}");
        assert_eq!(bare.groups[0].call, mapped.groups[0].call, "{name}");
        let routes = Routes::new(config());
        assert_eq!(creates(&routes, &bare.groups).0, creates(&routes, &mapped.groups).0, "{name}");
    }
}

#[test]
fn without_cdr_events_answered_calls_make_the_same_creates_from_what_was_seen() {
    for name in [
        "s01_in_answered_caller_hangs",
        "s02_in_answered_callee_hangs",
        "s08_out_answered",
        "y01_out_early_media_183",
        "s14_hold_unhold",
        "s15_hangup_while_held",
        "y08_both_hold",
        "s16_dtmf",
        "s17_forked_answered",
        "n84_trunk_failover",
        "i01_ivr_then_ext",
        "i02_ivr_hangup",
        "q07_queue_linear_rna_then_answer",
    ] {
        let run = replay(&without_cdrs(name));
        assert_as_expected(name, &run);
        assert_eq!(sources(&run), BTreeSet::from(["tracker"]), "{name}");
        assert_eq!(run.tracker.cdr_source(), Some(CdrSource::Tracker), "{name}");
    }
}

#[test]
fn without_cdr_events_unanswered_calls_make_no_create_and_are_counted() {
    for name in ["s03_in_caller_cancels_ringing", "s05_in_busy", "s09_out_busy", "y02_unregistered_ext"] {
        let run = replay(&without_cdrs(name));
        assert_eq!(run.groups, Vec::new(), "{name}");
        assert!(run.skipped.contains(&"unanswered call without a CDR"), "{name}");
    }
}

#[test]
fn the_fallback_waits_310_s_until_the_source_is_known_to_be_silent() {
    let mut run = Run::new();
    for (at, fed) in without_cdrs("s01_in_answered_caller_hangs") {
        run.put(at, &fed);
    }
    assert_eq!(run.tracker.cdr_source(), None);
    let over = run.now;
    run.advance(over.plus_millis(309_000));
    assert_eq!(run.groups.len(), 0);
    run.advance(over.plus_millis(311_000));
    assert_eq!(run.groups.len(), 1);
    assert_eq!(run.tracker.cdr_source(), Some(CdrSource::Tracker));
    // known now: the next call's create comes at once
    let next = without_cdrs("s08_out_answered");
    let shift = run.now.0 - next[0].0.0 + 1_000_000;
    for (at, mut fed) in next {
        let at = Micros(at.0 + shift);
        if let Fed::Event(event) = &mut fed {
            event.at = Some(at);
        }
        run.put(at, &fed);
    }
    run.advance(run.now.plus_millis(3_000));
    assert_eq!(run.groups.len(), 2);
}

#[test]
fn a_stuck_channel_holds_its_calls_creates_back_for_ten_minutes_only() {
    let name = "s01_in_answered_caller_hangs";
    let mut run = Run::new();
    for (at, fed) in stream(name) {
        let phone_hangs_up = matches!(&fed, Fed::Event(event) if matches!(&event.kind,
            EventKind::Hangup { channel, .. } if channel.name.as_str().starts_with("PJSIP/1001")));
        if !phone_hangs_up {
            run.put(at, &fed);
        }
    }
    let over = run.now;
    run.advance(over.plus_millis(590_000));
    assert_eq!(run.groups.len(), 0);
    run.advance(over.plus_millis(601_000));
    assert_eq!((run.groups.len(), sources(&run)), (1, BTreeSet::from(["events"])));
    run.advance(over.plus_millis(8 * 24 * 3_600_000));
    assert_eq!((run.groups.len(), run.tracker.size()), (1, 0));
    assert_eq!(legs(&run).last().unwrap().info, "recovered");
}

/// A fork's loser may be gone before anything says that another one won.
#[test]
fn who_lost_a_fork_is_known_a_moment_after_the_loser_hung_up() {
    let name = "s17_forked_answered";
    let mut stream = edited(name, |message| Some(message.replace("Cause: 26", "Cause: 16")));
    let phone = |kind: &EventKind| match kind {
        EventKind::Hangup { channel, .. } => channel.name.as_str().starts_with("PJSIP/1001"),
        _ => false,
    };
    let hangup =
        stream.iter().position(|(_, fed)| matches!(fed, Fed::Event(event) if phone(&event.kind))).unwrap();
    let first_end = stream
        .iter()
        .position(|(_, fed)| matches!(fed, Fed::Event(event) if matches!(event.kind, EventKind::DialEnd(_))));
    let first_end = first_end.unwrap();
    let (_, gone) = stream.remove(hangup);
    stream.insert(first_end, (stream[first_end].0, gone));
    assert_as_expected(name, &replay(&stream));
}

/// Asterisk publishes `Pickup` after the picker has the channel that is dialled (`main/pickup.c`): the
/// dialler's thread may have said everything by then.
#[test]
fn a_pickup_may_be_told_after_the_picker_is_in_the_bridge() {
    let name = "s26_pickup";
    let recorded = stream(name);
    let at = |kind: fn(&EventKind) -> bool| {
        recorded.iter().position(|(_, fed)| matches!(fed, Fed::Event(event) if kind(&event.kind))).unwrap()
    };
    let pickup = at(|kind| matches!(kind, EventKind::Pickup { .. }));
    let gone = at(|kind| matches!(kind, EventKind::Hangup { .. }));
    let end = at(|kind| matches!(kind, EventKind::HangupRequest { .. }));
    assert!(pickup < gone, "the same thread says both");
    for place in pickup..end - 2 {
        for hangup in place + 1..end - 1 {
            let mut stream = recorded.clone();
            let (_, hung_up) = stream.remove(gone);
            let (_, picked) = stream.remove(pickup);
            stream.insert(place, (stream[place - 1].0, picked));
            stream.insert(hangup, (stream[hangup - 1].0, hung_up));
            assert_eq!(faults("22", name, &replay(&stream), EXACT), "", "Pickup {place}, Hangup {hangup}");
        }
    }
}

#[test]
fn who_is_called_only_after_a_phone_was_given_up_did_not_answer_in_its_place() {
    let mut stream = stream("y05_queue_exit_with_key");
    let gone = stream.iter().position(|(_, fed)| {
        matches!(fed, Fed::Event(event) if matches!(&event.kind,
            EventKind::Hangup { channel, .. } if channel.name.as_str().starts_with("PJSIP/1001")))
    });
    let gone = gone.unwrap();
    let mut now = stream[gone].0;
    for (at, fed) in &mut stream[gone + 1..] {
        now = now.plus_millis(5);
        *at = now;
        if let Fed::Event(event) = fed {
            event.at = Some(now);
        }
    }
    let run = replay(&stream);
    let ends: Vec<EventName> =
        legs(&run).into_iter().filter(|leg| leg.dst.id == 10001).map(|leg| leg.event).collect();
    assert_eq!(ends.last(), Some(&EventName::Missed));
}

#[test]
fn asterisk_13_without_dial_state_rings_by_newstate() {
    for name in
        ["s01_in_answered_caller_hangs", "l04_ringgroup_local_inbound", "q01_queue_answered_caller_hangs"]
    {
        let old = edited(name, |message| {
            let line =
                |line: &&str| !line.starts_with("TechCause") && !line.starts_with("BridgeVideoSourceMode");
            (!message.starts_with("Event: DialState"))
                .then(|| message.split_inclusive("\r\n").filter(line).collect())
        });
        assert_as_expected(name, &replay(&old));
    }
}

/// How the streams of these versions differ from a recorded one of 22: `TechCause` came with 20.17,
/// `Tenantid` with 18.25 and 20.10, `BridgeVideoSourceMode` with 13.13, the classes of Newexten with
/// 14. What else differs is no event of a call.
#[test]
fn asterisk_16_18_and_20_say_the_same_with_fewer_or_more_headers() {
    let newexten = |class: &str| {
        format!(
            "Event: Newexten\r\nPrivilege: {class},all\r\nChannel: PJSIP/trunk-00000000\r\nChannelState: 4\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\nExtension: s\r\nApplication: Dial\r\nAppData: PJSIP/1001\r\n\r\n"
        )
    };
    for (version, tech_cause, tenant, class) in [
        ("16", false, false, "call"),
        ("18", false, true, "dialplan"),
        ("20.16", false, true, "dialplan"),
        ("20.17", true, true, "dialplan"),
    ] {
        for name in crate::replay::names("22") {
            // not text
            if name == "z03_latin1_name" {
                continue;
            }
            let other = edited(&name, |message| {
                let line = |line: &str| match line.split_once(": ") {
                    Some(("TechCause", _)) if !tech_cause => String::new(),
                    Some((key, _)) if tenant && key.ends_with("Linkedid") => {
                        format!("{line}{}Tenantid: acme\r\n", key.trim_end_matches("Linkedid"))
                    }
                    _ => line.to_owned(),
                };
                let text: String = message.split_inclusive("\r\n").map(line).collect();
                Some(
                    text + &if message.starts_with("Event: DialBegin") {
                        newexten(class)
                    } else {
                        String::new()
                    },
                )
            });
            let (other, plain) = (replay(&other), replay(&stream(&name)));
            assert_eq!(other.updates, plain.updates, "{version} {name}");
            assert_eq!(other.groups, plain.groups, "{version} {name}");
        }
    }
}

#[test]
fn ids_with_a_system_name_or_chosen_by_others_work_as_any() {
    let name = "s01_in_answered_caller_hangs";
    let plain = replay(&stream(name));
    for (from, to) in [("17952", "pbx2-17952"), ("17952", "abc-17952x")] {
        let renamed = edited(name, |message| {
            let id = |line: &str| {
                let key = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
                if key.ends_with("uniqueid") || key.ends_with("linkedid") {
                    line.replace(from, to)
                } else {
                    line.to_owned()
                }
            };
            Some(message.split_inclusive("\r\n").map(id).collect())
        });
        let run = replay(&renamed);
        assert_as_expected(name, &run);
        assert_ne!(legs(&run)[0].call_id, legs(&plain)[0].call_id);
    }
}

/// The channels of a call as a list would show them after these events.
pub fn snapshot_after(events: &[(Micros, Fed)], startup: &str) -> Snapshot {
    let mut channels: Vec<SnapshotChannel> = Vec::new();
    for (_, fed) in events {
        let Fed::Event(event) = fed else { continue };
        match &event.kind {
            EventKind::Newchannel(channel) => channels.push(SnapshotChannel {
                channel: channel.clone(),
                application: None,
                application_data: None,
                bridge: None,
                start: None,
                answer: None,
                did: None,
            }),
            EventKind::Newstate(channel) => {
                if let Some(known) = channels.iter_mut().find(|one| one.channel.uniqueid == channel.uniqueid)
                {
                    known.channel = channel.clone();
                }
            }
            EventKind::BridgeEnter { bridge, channel, .. } => {
                if let Some(known) = channels.iter_mut().find(|one| one.channel.uniqueid == channel.uniqueid)
                {
                    known.bridge = Some(bridge.id.clone());
                }
            }
            EventKind::Hangup { channel, .. } => {
                channels.retain(|one| one.channel.uniqueid != channel.uniqueid);
            }
            _ => {}
        }
    }
    Snapshot { startup: startup.to_owned(), channels, ..Snapshot::default() }
}

pub fn until(stream: &Stream, last: impl Fn(&EventKind) -> bool) -> usize {
    let found = stream.iter().rposition(|(_, fed)| matches!(fed, Fed::Event(event) if last(&event.kind)));
    found.unwrap() + 1
}

#[test]
fn an_agent_that_restarts_in_a_call_goes_on_with_the_same_ids() {
    let name = "s01_in_answered_caller_hangs";
    let stream = stream(name);
    let cut = until(&stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }));
    let mut run = Run::new();
    run.put(stream[0].0, &Fed::Snapshot(Box::new(snapshot_after(&[], "run 1"))));
    for (at, fed) in &stream[..cut] {
        run.put(*at, fed);
    }
    run.restart();
    let now = stream[cut - 1].0.plus_millis(500);
    run.put(now, &Fed::Snapshot(Box::new(snapshot_after(&stream[..cut], "run 1"))));
    for (at, fed) in &stream[cut..] {
        run.put(*at, fed);
    }
    run.rest();
    assert_eq!(run.updates, replay(&stream).updates);
    assert_as_expected(name, &run);
}

#[test]
fn what_happened_in_a_gap_is_said_when_asterisk_shows_it() {
    let name = "s01_in_answered_caller_hangs";
    let stream = stream(name);
    let rings = until(&stream, |kind| matches!(kind, EventKind::DialState(_)));
    let bridged = until(&stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }));
    let mut run = Run::new();
    for (at, fed) in &stream[..rings] {
        run.put(*at, fed);
    }
    run.lose(stream[rings].0);
    let mut snapshot = snapshot_after(&stream[..bridged], "");
    let answered = stream[bridged - 1].0;
    for one in &mut snapshot.channels {
        one.answer = Some(answered);
    }
    run.put(answered.plus_millis(800), &Fed::Snapshot(Box::new(snapshot)));
    for (at, fed) in &stream[bridged..] {
        run.put(*at, fed);
    }
    run.rest();
    let said: Vec<_> = legs(&run).into_iter().map(|leg| (leg.event, leg.info.as_str())).collect();
    assert_eq!(
        said,
        [
            (EventName::Initial, ""),
            (EventName::Ringing, ""),
            (EventName::Connected, "recovered"),
            (EventName::Hangup, "")
        ]
    );
    assert_eq!(legs(&run)[2].connected, Some(answered));
}

#[test]
fn a_call_that_ended_in_a_gap_ends_honestly() {
    let stream = stream("s01_in_answered_caller_hangs");
    let bridged = until(&stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }));
    let mut run = Run::new();
    for (at, fed) in &stream[..bridged] {
        run.put(*at, fed);
    }
    run.lose(stream[bridged - 1].0.plus_millis(1_500));
    run.put(stream[bridged - 1].0.plus_millis(60_000), &Fed::Snapshot(Box::default()));
    run.rest();
    let said = legs(&run);
    let end = said.last().unwrap();
    assert_eq!(said.len(), 4);
    assert_eq!((end.event, end.info.as_str()), (EventName::Hangup, "recovered"));
    assert_eq!(end.cause, "Unknown (agent was disconnected)");
    assert_eq!(end.duration, 1, "it was last known to talk when the connection went");
    assert_eq!(run.tracker.size(), 0);
}

#[test]
fn an_asterisk_that_died_takes_its_calls_along() {
    let stream = stream("s01_in_answered_caller_hangs");
    let bridged = until(&stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }));
    let mut run = Run::new();
    run.put(stream[0].0, &Fed::Snapshot(Box::new(snapshot_after(&[], "run 1"))));
    for (at, fed) in &stream[..bridged] {
        run.put(*at, fed);
    }
    run.lose(stream[bridged - 1].0.plus_millis(1_500));
    run.put(stream[bridged - 1].0.plus_millis(9_000), &Fed::Snapshot(Box::new(snapshot_after(&[], "run 2"))));
    run.rest();
    let said = legs(&run);
    let end = said.last().unwrap();
    assert_eq!(
        (end.state, end.cause.as_str(), end.info.as_str()),
        (LegState::Hangup, "Lost (PBX restart)", "recovered")
    );
    assert_eq!(run.groups, Vec::new(), "a dead Asterisk writes no CDR");
    assert!(run.skipped.contains(&"call lost with Asterisk, without a CDR"));
}

#[test]
fn a_list_without_a_gap_must_miss_a_channel_twice() {
    let stream = stream("s01_in_answered_caller_hangs");
    let bridged = until(&stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }));
    let mut run = Run::new();
    run.put(stream[0].0, &Fed::Snapshot(Box::default()));
    for (at, fed) in &stream[..bridged] {
        run.put(*at, fed);
    }
    run.put(run.now.plus_millis(100), &Fed::Snapshot(Box::default()));
    assert_eq!(legs(&run).last().unwrap().event, EventName::Connected);
    run.put(run.now.plus_millis(600_000), &Fed::Snapshot(Box::default()));
    assert_eq!(legs(&run).last().unwrap().event, EventName::Hangup);
}

/// `Run` refuses objects above the journal's limit of a record.
#[test]
fn texts_of_any_length_fit_into_the_journals_records() {
    let hostile = "\u{1}\"\\é".repeat(10_000);
    let keys = [
        "CallerIDName",
        "ConnectedLineName",
        "Extension",
        "Source",
        "CallerID",
        "LastData",
        "UserField",
        "TextB64",
        "From",
        "Exten",
    ];
    for name in [
        "s01_in_answered_caller_hangs",
        "s19_blind_by_callee",
        "q01_queue_answered_caller_hangs",
        "m01_userevent",
    ] {
        let swollen = edited(name, |message| {
            let line = |line: &str| match line.split_once(": ") {
                Some((key, _)) if keys.iter().any(|known| key.ends_with(known)) && key != "TextB64" => {
                    format!("{key}: {hostile}\r\n")
                }
                Some(("TextB64", _)) => format!("TextB64: {}\r\n", "QUJD".repeat(15_000)),
                _ => line.to_owned(),
            };
            Some(message.split_inclusive("\r\n").map(line).collect())
        });
        let run = replay(&swollen);
        assert!(!run.updates.is_empty(), "{name}");
        for update in &run.updates {
            assert!(serde_json::to_vec(update).unwrap().len() < 12 * 1024, "{name}");
        }
    }
}

#[test]
fn a_queue_that_retries_for_hours_stays_small_and_makes_few_objects() {
    let name = "q05_queue_agents_busy_abandon";
    let stream = stream(name);
    let joined = until(&stream, |kind| matches!(kind, EventKind::QueueCallerJoin(_)));
    let left = stream.iter().position(|(_, fed)| {
        matches!(fed, Fed::Event(event) if matches!(&event.kind,
            EventKind::HangupRequest { channel, .. } if channel.name.as_str().starts_with("PJSIP/trunk")))
    });
    let (attempts, left) = (&stream[joined..left.unwrap()], left.unwrap());
    let mut run = Run::new();
    for (at, fed) in &stream[..joined] {
        run.put(*at, fed);
    }
    let (mut most, mut shift) = (0, 0);
    let length = attempts[attempts.len() - 1].0.0 - attempts[0].0.0 + 1_000_000;
    for round in 0..120 {
        let text = |id: &str| format!("{id}{round}");
        for (at, fed) in attempts {
            let Fed::Event(event) = fed else { continue };
            let mut event = event.clone();
            let at = Micros(at.0 + shift);
            event.at = Some(at);
            renumber(&mut event.kind, &text);
            run.put(at, &Fed::Event(event));
        }
        shift += length;
        most = most.max(run.tracker.size());
    }
    for (at, fed) in &stream[left..] {
        let Fed::Event(event) = fed else { continue };
        let mut event = event.clone();
        event.at = Some(Micros(at.0 + shift));
        run.put(Micros(at.0 + shift), &Fed::Event(event));
    }
    run.rest();
    assert!(most < 350, "{most} objects for one caller");
    assert_eq!(legs(&run).iter().filter(|leg| leg.event == EventName::Initial).count(), 3);
    assert_eq!(run.tracker.size(), 0);
}

/// Gives the phones' channels of an attempt other ids.
fn renumber(kind: &mut EventKind, text: &impl Fn(&str) -> String) {
    let rename = |channel: &mut parsers::ami::Channel| {
        if channel.name.as_str().starts_with("PJSIP/100") {
            channel.uniqueid = parsers::Uniqueid::new(text(channel.uniqueid.as_str()));
        }
    };
    match kind {
        EventKind::Newchannel(channel)
        | EventKind::Newstate(channel)
        | EventKind::NewConnectedLine(channel) => rename(channel),
        EventKind::HangupRequest { channel, .. } | EventKind::Hangup { channel, .. } => rename(channel),
        EventKind::DialBegin(dial) | EventKind::DialState(dial) | EventKind::DialEnd(dial) => {
            rename(&mut dial.dest)
        }
        EventKind::AgentCalled(event) | EventKind::AgentRingNoAnswer(event) => {
            if let Some(dest) = &mut event.dest {
                rename(dest);
            }
        }
        _ => {}
    }
}
