//! What the tracker makes of lists, of silence and of its options: audits, accounts that may not
//! list, phones known before their first call, and that every call ends.

use std::sync::Arc;

use callpost::calls::{
    Context, Direction, EventName, Input, LegUpdate, SmsUpdate, Snapshot, SnapshotEndpoint, UpdateBody,
};
use callpost::config::{self, Config};
use parsers::ami::EventKind;
use parsers::{Linkedid, Micros, Uniqueid};
use proptest::prelude::*;

use crate::replay::{Fed, Run, feed, fixture, names};
use crate::variants::{Stream, edited, legs, snapshot_after, stream, until};

/// Longer than any deadline after the last channel is gone.
const QUIET: i64 = 15 * 60_000;
/// Between two audits.
const AUDIT: i64 = 600_000;
const CALL: &str = "s01_in_answered_caller_hangs";

fn other(text: &str) -> &'static Config {
    let text = format!("[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\ntrunks = [\"PJSIP/trunk\"]\n{text}");
    let loaded = config::load_text(&text, "tracker.toml", &config::Environment::default());
    Box::leak(Box::new(loaded.unwrap_or_else(|faults| panic!("{faults:?}")).config))
}

fn listed(snapshot: &Snapshot) -> Vec<Uniqueid> {
    snapshot.channels.iter().map(|one| one.channel.uniqueid.clone()).collect()
}

fn play(run: &mut Run, stream: &[(Micros, Fed)]) {
    for (at, fed) in stream {
        run.put(*at, fed);
    }
}

fn audit(run: &mut Run, listed: &[Uniqueid], millis: i64) {
    run.give(run.now.plus_millis(millis), Input::Audit(listed));
}

fn said(run: &Run) -> Vec<EventName> {
    legs(run).into_iter().map(|leg| leg.event).collect()
}

fn bridged(stream: &Stream) -> usize {
    until(stream, |kind| matches!(kind, EventKind::BridgeEnter { .. }))
}

#[test]
fn a_call_whose_end_was_missed_ends_with_the_second_audit_that_does_not_list_it() {
    let stream = stream(CALL);
    let mut run = Run::new();
    play(&mut run, &stream[..bridged(&stream)]);
    audit(&mut run, &[], AUDIT);
    assert_eq!(said(&run).last(), Some(&EventName::Connected));
    run.restart();
    audit(&mut run, &[], AUDIT);
    let legs = legs(&run);
    let end = legs.last().unwrap();
    assert_eq!((end.event, end.info.as_str()), (EventName::Hangup, "recovered"));
    run.advance(run.now.plus_millis(QUIET));
    assert_eq!(run.tracker.size(), 0);
}

#[test]
fn an_audit_that_lists_a_channel_forgets_that_one_before_did_not() {
    let stream = stream(CALL);
    let cut = bridged(&stream);
    let there = listed(&snapshot_after(&stream[..cut], ""));
    let mut run = Run::new();
    play(&mut run, &stream[..cut]);
    for list in [&[][..], &there, &[], &there] {
        audit(&mut run, list, AUDIT);
    }
    assert_eq!(said(&run).last(), Some(&EventName::Connected));
    assert_eq!(run.resyncs, 0);
}

/// Asterisk reads the list while events wait in its queues: those before and after it may say
/// otherwise, and the recording must come out as if nobody had asked.
#[test]
fn an_audit_at_any_moment_changes_nothing() {
    for name in names("22") {
        let stream = stream(&name);
        if stream.iter().any(|(_, fed)| matches!(fed, Fed::Snapshot(_))) {
            continue;
        }
        let mut alone = Run::new();
        play(&mut alone, &stream);
        alone.rest();
        for late in [0, 1, 2] {
            let mut run = Run::new();
            for (index, (at, fed)) in stream.iter().enumerate() {
                run.put(*at, fed);
                // as it was a little before, or will be a little after
                let seen = (index + 2).saturating_sub(late).min(stream.len());
                if index % 7 == 3 {
                    run.give(*at, Input::Audit(&listed(&snapshot_after(&stream[..seen], ""))));
                }
            }
            run.rest();
            assert_eq!(run.updates, alone.updates, "{name}");
            assert_eq!(run.groups, alone.groups, "{name}");
        }
    }
}

#[test]
fn a_channel_that_two_audits_list_and_no_event_announced_asks_for_a_snapshot() {
    let stream = stream(CALL);
    let snapshot = snapshot_after(&stream[..bridged(&stream)], "");
    let mut strange = listed(&snapshot);
    strange.push(Uniqueid::new("\u{7f}"));
    let mut run = Run::new();
    run.put(stream[0].0, &Fed::Snapshot(Box::default()));
    audit(&mut run, &strange, AUDIT);
    assert_eq!((run.resyncs, run.tracker.size()), (0, 0));
    audit(&mut run, &strange, AUDIT);
    assert_eq!(run.resyncs, 1);
    let mut hostile = snapshot;
    let mut one = hostile.channels[0].clone();
    one.channel.uniqueid = Uniqueid::new("\u{7f}");
    hostile.channels.push(one);
    run.put(run.now.plus_millis(50), &Fed::Snapshot(Box::new(hostile)));
    assert!(run.tracker.size() > 0);
    // what the snapshot did not take in is not asked for again
    audit(&mut run, &strange, AUDIT);
    audit(&mut run, &strange, AUDIT);
    assert_eq!(run.resyncs, 1);
}

#[test]
fn a_list_that_came_in_part_ends_nothing_by_itself() {
    let stream = stream(CALL);
    let mut run = Run::new();
    play(&mut run, &stream[..bridged(&stream)]);
    run.lose(run.now.plus_millis(100));
    let partial = Snapshot { partial: true, ..Snapshot::default() };
    run.put(run.now.plus_millis(100), &Fed::Snapshot(Box::new(partial)));
    assert_eq!(said(&run).last(), Some(&EventName::Connected));
    audit(&mut run, &[], AUDIT);
    assert_eq!(said(&run).last(), Some(&EventName::Hangup));
}

#[test]
fn where_no_list_is_allowed_a_gap_clears_and_its_calls_end_when_nothing_is_heard_of_them() {
    let stream = stream(CALL);
    let cut = bridged(&stream);
    let mut run = Run::new();
    play(&mut run, &stream[..cut]);
    run.lose(run.now.plus_millis(100));
    run.give(run.now.plus_millis(1_000), Input::Blind);
    let blind = run.now;
    run.restart();
    run.give(run.now.plus_millis(1), Input::Blind);
    run.advance(blind.plus_millis(4 * 3_600_000 - 1));
    assert_eq!(said(&run).last(), Some(&EventName::Connected));
    run.advance(blind.plus_millis(4 * 3_600_000 + 1_000));
    let end = (*legs(&run).last().unwrap()).clone();
    assert_eq!((end.event, end.info.as_str()), (EventName::Hangup, "recovered"));
    run.rest();
    assert_eq!(run.tracker.size(), 0);

    // heard of: it ends as it ends
    let mut run = Run::new();
    play(&mut run, &stream[..cut]);
    run.lose(run.now.plus_millis(100));
    run.give(run.now.plus_millis(1_000), Input::Blind);
    let shift = 6 * 3_600_000;
    for (at, fed) in &stream[cut..] {
        let mut fed = fed.clone();
        let at = at.plus_millis(
            if matches!(&fed, Fed::Event(e) if matches!(e.kind, EventKind::Hangup { .. } | EventKind::Cdr(_)))
            {
                shift
            } else {
                1_500
            },
        );
        if let Fed::Event(event) = &mut fed {
            event.at = Some(at);
        }
        run.put(at, &fed);
    }
    run.rest();
    let end = (*legs(&run).last().unwrap()).clone();
    assert_eq!(
        (end.event, end.info.as_str(), end.cause.as_str()),
        (EventName::Hangup, "", "Normal Clearing")
    );
}

#[test]
fn recovered_marks_what_was_made_from_a_list_and_nothing_else() {
    let stream = stream(CALL);
    let cut = bridged(&stream);
    let mut run = Run::new();
    let snapshot = crate::replay::feed(&fixture("catalogue", "r01_resync"));
    play(&mut run, &snapshot);
    run.rest();
    for leg in legs(&run) {
        let live = matches!(leg.event, EventName::Hangup | EventName::Missed);
        let marked = leg.info.split("; ").any(|note| note == "recovered");
        assert_eq!(marked, !live, "{leg:?}");
    }
    // a leg that was there all the time has no mark of a gap in which nothing happened to it
    let mut run = Run::new();
    play(&mut run, &stream[..cut]);
    run.lose(run.now.plus_millis(10));
    run.put(run.now.plus_millis(10), &Fed::Snapshot(Box::new(snapshot_after(&stream[..cut], ""))));
    play(&mut run, &stream[cut..]);
    assert!(legs(&run).iter().all(|leg| leg.info.is_empty()));
}

#[test]
fn a_call_taken_in_from_a_list_has_the_number_that_was_dialled() {
    let mut run = Run::new();
    // while the list was read the dialplan had moved on
    let text = String::from_utf8(fixture("catalogue", "r01_resync")).unwrap();
    let moved =
        text.replace("Exten: 5551000\r\n", "Exten: s\r\n").replace("Exten: 5552000\r\n", "Exten: s\r\n");
    play(&mut run, &feed(moved.as_bytes()));
    let first = legs(&run).into_iter().find(|leg| leg.context == Context::LocalUser).unwrap();
    assert_eq!(first.dst.number, "5551000");
}

fn endpoints(names: &[(&str, bool)]) -> Box<Snapshot> {
    let endpoints =
        names.iter().map(|(name, phone)| SnapshotEndpoint { name: Arc::from(*name), phone: *phone });
    Box::new(Snapshot { endpoints: Some(endpoints.collect()), ..Snapshot::default() })
}

#[test]
fn a_phone_that_asterisk_lists_is_a_user_in_its_first_call() {
    let named = edited(CALL, |message| Some(message.replace("PJSIP/1001", "PJSIP/ana")));
    let directions = |list: Option<Box<Snapshot>>| {
        let mut run = Run::with(other(""));
        if let Some(list) = list {
            run.put(named[0].0, &Fed::Snapshot(list));
        }
        play(&mut run, &named);
        let legs: Vec<LegUpdate> = legs(&run).into_iter().cloned().collect();
        legs.iter().map(|leg| (leg.direction, leg.dst.id, leg.event)).collect::<Vec<_>>()
    };
    // nobody knows that it is a phone: a call from outside that reached no user
    assert_eq!(directions(None).iter().filter(|(_, _, event)| *event == EventName::Connected).count(), 0);
    assert_eq!(directions(Some(endpoints(&[("ana", false)]))), directions(None), "a carrier is no phone");
    let known = directions(Some(endpoints(&[("ana", true), ("trunk", true)])));
    let events: Vec<EventName> = known.iter().map(|(_, _, event)| *event).collect();
    assert_eq!(events, [EventName::Initial, EventName::Ringing, EventName::Connected, EventName::Hangup]);
    assert!(known.iter().all(|(direction, _, _)| *direction == Direction::In));
}

#[test]
fn a_text_to_a_phone_that_never_called_names_its_user() {
    let user = |list: Option<Box<Snapshot>>| {
        let mut run = Run::with(other(""));
        let stream = stream("m02_sip_message");
        if let Some(list) = list {
            run.put(stream[0].0, &Fed::Snapshot(list));
        }
        play(&mut run, &stream);
        run.updates.iter().find_map(|update| match &update.body {
            UpdateBody::Sms(sms) => Some(sms.user_id),
            UpdateBody::Leg(_) => None,
        })
    };
    assert_eq!(user(None), Some(None));
    assert_eq!(user(Some(endpoints(&[("1002", false)]))), Some(Some(1002)));
    assert_eq!(user(Some(endpoints(&[("1003", true)]))), Some(None));
}

#[test]
fn an_internal_call_has_its_callers_leg_where_that_is_asked_for() {
    let mut run = Run::with(other("[calls]\ninternal_caller_leg = true\n"));
    play(&mut run, &stream("s13_internal"));
    run.rest();
    let of = |direction| {
        let legs = legs(&run).into_iter().filter(move |leg| leg.direction == direction);
        legs.map(|leg| (leg.event, leg.src.number.clone(), leg.dst.number.clone())).collect::<Vec<_>>()
    };
    let whole = [EventName::Initial, EventName::Ringing, EventName::Connected, EventName::Hangup];
    let expected: Vec<_> = whole.iter().map(|event| (*event, "1001".to_owned(), "1002".to_owned())).collect();
    assert_eq!((of(Direction::In), of(Direction::Out)), (expected.clone(), expected));
    assert_eq!(run.tracker.size(), 0);
}

#[test]
fn users_in_a_conference_have_legs_where_that_is_asked_for() {
    let mut run = Run::with(other("[calls]\nconference_legs = true\n"));
    play(&mut run, &stream("c01_confbridge"));
    run.rest();
    let mut users: Vec<(u64, Vec<EventName>)> = Vec::new();
    for leg in legs(&run) {
        match users.iter_mut().find(|(id, _)| *id == leg.call_id) {
            Some((_, events)) => events.push(leg.event),
            None => users.push((leg.call_id, vec![leg.event])),
        }
    }
    assert!(users.len() >= 2, "{users:?}");
    for (_, events) in users {
        assert_eq!(events, [EventName::Initial, EventName::Connected, EventName::Hangup]);
    }
    assert_eq!(run.tracker.size(), 0);
}

fn texts(run: &Run) -> Vec<&SmsUpdate> {
    run.updates
        .iter()
        .filter_map(|update| match &update.body {
            UpdateBody::Sms(sms) => Some(sms),
            UpdateBody::Leg(_) => None,
        })
        .collect()
}

/// `asterisk.md`'s forms of both drivers, the stray blank line and the phantom channels included.
#[test]
fn a_modems_text_is_one_text_and_its_channels_are_no_call() {
    for driver in ["Dongle", "Quectel"] {
        let lines = format!(
            "Event: {driver}NewSMS\r\nPrivilege: call,all\r\nDevice: sim0\r\nFrom: +584140000009\r\nLineCount: 3\r\nMessageLine0: hola, mundo\r\nMessageLine1: \r\nMessageLine2: adiós: ¿sí?\r\n\r\n\r\n"
        );
        let half = |half: u8, state: u8| {
            format!(
                "Event: Newchannel\r\nPrivilege: call,all\r\nChannel: Local/sms@from-gsm-00000001;{half}\r\nChannelState: {state}\r\nCallerIDNum: +584140000009\r\nContext: from-gsm\r\nExten: sms\r\nUniqueid: 1795252767.{half}\r\nLinkedid: 1795252767.1\r\n\r\n"
            )
        };
        let gone = |half: u8| half_gone(half);
        let base64 = format!(
            "Event: {driver}NewSMSBase64\r\nPrivilege: call,all\r\nDevice: sim0\r\nFrom: +584140000009\r\nMessage: aG9sYQpvdHJhIGzDrW5lYQ==\r\n\r\n"
        );
        let text = format!("{lines}{base64}{}{}{}{}", half(1, 0), half(2, 4), gone(1), gone(2));
        let mut run = Run::with(other("[sms]\ncustomer_id = 7\ndevices = { sim0 = \"584240000001\" }\n"));
        play(&mut run, &feed(text.as_bytes()));
        run.rest();
        let found: Vec<(&str, &str, &str, u64)> = texts(&run)
            .into_iter()
            .map(|sms| (sms.from.as_str(), sms.to.as_str(), sms.text.as_str(), sms.customer_id))
            .collect();
        assert_eq!(
            found,
            [
                ("+584140000009", "584240000001", "hola, mundo\n\nadiós: ¿sí?", 7),
                ("+584140000009", "584240000001", "hola\notra línea", 7)
            ],
            "{driver}"
        );
        assert_eq!((legs(&run).len(), run.groups.len(), run.tracker.size()), (0, 0, 0), "{driver}");
    }
}

fn half_gone(half: u8) -> String {
    format!(
        "Event: Hangup\r\nPrivilege: call,all\r\nChannel: Local/sms@from-gsm-00000001;{half}\r\nChannelState: 6\r\nUniqueid: 1795252767.{half}\r\nLinkedid: 1795252767.1\r\nCause: 16\r\nCause-txt: Normal Clearing\r\n\r\n"
    )
}

/// The agent starts while a call is parked: its retrieval and its return need no list of parked calls.
#[test]
fn a_call_that_was_parked_before_the_agent_came_is_fetched_and_comes_back() {
    for (name, answered) in
        [("s27_park_retrieve", true), ("s28_park_timeout_comeback", true), ("s29_park_giveup", false)]
    {
        let stream = stream(name);
        let parked = until(&stream, |kind| matches!(kind, EventKind::ParkedCall(_)));
        let mut run = Run::new();
        let mut snapshot = snapshot_after(&stream[..parked], "");
        for one in &mut snapshot.channels {
            if one.channel.name.as_str().starts_with("PJSIP/trunk") {
                one.did = Some("5551000".into());
                one.application = Some("Park".into());
            }
        }
        run.put(stream[parked - 1].0, &Fed::Snapshot(Box::new(snapshot)));
        play(&mut run, &stream[parked..]);
        run.rest();
        let taken: Vec<_> = legs(&run)
            .into_iter()
            .filter(|leg| leg.event == EventName::Connected && leg.info != "recovered")
            .map(|leg| (leg.src.number.clone(), leg.dst.number.clone()))
            .collect();
        let expected = if answered { vec![("trunk".to_owned(), "5551000".to_owned())] } else { Vec::new() };
        assert_eq!(taken, expected, "{name}");
        assert_eq!(run.tracker.size(), 0);
    }
}

#[test]
fn a_call_whose_channels_cannot_be_read_after_a_restart_ends() {
    let stream = stream(CALL);
    let mut run = Run::new();
    play(&mut run, &stream[..bridged(&stream)]);
    run.objects.retain(|key, _| !key.0.starts_with("c."));
    run.restart();
    run.advance(run.now.plus_millis(QUIET));
    assert_eq!(said(&run).last(), Some(&EventName::Hangup));
    assert_eq!(run.tracker.size(), 0);
}

/// An attended transfer into a queue: who was transferred waits there from then on, under his own
/// name and id, and the transferer's channel is gone.
#[test]
fn a_caller_who_is_transferred_into_a_queue_keeps_the_place_in_it() {
    let text = String::from_utf8(fixture("22", "q01_queue_answered_caller_hangs")).unwrap();
    let second = text.replace("PJSIP/trunk-00000076", "PJSIP/1003-00000076");
    let channel = |prefix: &str, name: &str, number: &str, id: &str, exten: &str| {
        format!(
            "{prefix}Channel: {name}\r\n{prefix}ChannelState: 4\r\n{prefix}CallerIDNum: {number}\r\n{prefix}Context: from-trunk\r\n{prefix}Exten: {exten}\r\n{prefix}Uniqueid: {id}\r\n{prefix}Linkedid: {id}\r\n"
        )
    };
    let event = |name: &str, body: &str| format!("Event: {name}\r\nPrivilege: call,all\r\n{body}\r\n");
    let (outside, first) = ("1795263331.230", "1795263331.231");
    let trunk = |prefix| channel(prefix, "PJSIP/trunk-00000070", "584140000001", outside, "5551000");
    let one = |prefix| channel(prefix, "PJSIP/1003-00000071", "1003", first, "s");
    let two = |prefix| channel(prefix, "PJSIP/1003-00000076", "1003", "1795263331.237", "602");
    let transfer = event(
        "AttendedTransfer",
        &format!(
            "Result: Success\r\n{}{}{}DestType: App\r\nDestApp: Queue\r\n",
            one("OrigTransferer"),
            two("SecondTransferer"),
            trunk("Transferee")
        ),
    );
    let gone = |body: String| event("Hangup", &format!("{body}Cause: 16\r\nCause-txt: Normal Clearing\r\n"));
    let mut stream = event("Newchannel", &trunk("")) + &event("Newchannel", &one(""));
    let mut transferred = false;
    for message in second.split_inclusive("\r\n\r\n") {
        if message.starts_with("Event: DialEnd") && !transferred {
            transferred = true;
            stream += &(transfer.clone() + &gone(one("")) + &gone(two("")));
        }
        let now =
            message.replace("PJSIP/1003-00000076", "PJSIP/trunk-00000070").replace("1795263331.237", outside);
        stream += if transferred { &now } else { message };
    }
    let mut run = Run::new();
    play(&mut run, &feed(stream.as_bytes()));
    run.rest();
    let visit: Vec<&LegUpdate> = legs(&run).into_iter().filter(|leg| leg.context == Context::Queue).collect();
    let events: Vec<EventName> = visit.iter().map(|leg| leg.event).collect();
    assert_eq!(events, [EventName::Initial, EventName::Ringing, EventName::Connected, EventName::Hangup]);
    assert!(visit.iter().all(|leg| leg.call_id == visit[0].call_id));
    assert_eq!((visit[0].src.number.as_str(), visit[3].src.number.as_str()), ("1003", "584140000001"));
    assert_eq!(run.tracker.size(), 0);
}

/// Programs that choose uniqueids use them again; so does Asterisk after a restart in one second.
#[test]
fn an_id_that_is_used_again_is_another_call_with_other_ids() {
    for name in [CALL, "s08_out_answered", "q01_queue_answered_caller_hangs"] {
        let stream = stream(name);
        let once = {
            let mut run = Run::new();
            play(&mut run, &stream);
            run.rest();
            run
        };
        // at once, while the rows are waited for, after they left, and when all is forgotten
        for pause in [0, 1_000, 60_000, 3_600_000] {
            let mut run = Run::new();
            let length = stream[stream.len() - 1].0.0 - stream[0].0.0;
            for round in 0..3 {
                let shift = round * (length + pause * 1_000);
                for (at, fed) in &stream {
                    let at = Micros(at.0 + shift);
                    let mut fed = fed.clone();
                    if let Fed::Event(event) = &mut fed {
                        event.at = Some(at);
                    }
                    run.put(at, &fed);
                    run.restart();
                }
            }
            run.rest();
            crate::promises::check_invariants(&run).unwrap_or_else(|fault| panic!("{name} {pause}: {fault}"));
            assert_eq!(run.updates.len(), once.updates.len() * 3, "{name} {pause}");
            let rows = |run: &Run| run.groups.iter().map(|group| group.rows.len()).sum::<usize>();
            assert_eq!(rows(&run), rows(&once) * 3, "{name} {pause}");
        }
    }
}

/// A linkedid that cannot join its call any more makes no call that nobody ends.
#[test]
fn linkedids_without_end_make_no_calls_without_end() {
    let stream = stream(CALL);
    let mut run = Run::new();
    play(&mut run, &stream[..1]);
    let Fed::Event(birth) = &stream[0].1 else { panic!() };
    for n in 0..300 {
        let mut event = birth.clone();
        let EventKind::Newchannel(channel) = event.kind.clone() else { panic!() };
        let mut channel = channel;
        channel.linkedid = Linkedid::new(format!("{}-{}.{n}", "x".repeat(130), 1_795_000_000 + n));
        event.kind = EventKind::Newstate(channel);
        run.put(stream[0].0.plus_millis(n), &Fed::Event(event));
    }
    audit(&mut run, &[], AUDIT);
    assert!(run.tracker.size() < 4, "{}", run.tracker.size());
    audit(&mut run, &[], AUDIT);
    run.advance(run.now.plus_millis(QUIET));
    assert_eq!(run.tracker.size(), 0);
}

/// Every event of every recording, by which channels it names.
fn all_events() -> &'static [Fed] {
    static ALL: std::sync::LazyLock<Vec<Fed>> = std::sync::LazyLock::new(|| {
        let one = |name: String| feed(&fixture("22", &name)).into_iter().map(|(_, fed)| fed);
        names("22").into_iter().flat_map(one).filter(|fed| matches!(fed, Fed::Event(_))).collect()
    });
    &ALL
}

/// Gives the channels of an event ids out of a few, so that events of different calls meet.
fn forge(kind: &mut EventKind, pick: &mut impl FnMut() -> usize) {
    let mut id = |channel: &mut parsers::ami::Channel| {
        channel.uniqueid = Uniqueid::new(format!("1795252767.{}", pick() % 12));
        channel.linkedid = Linkedid::new(format!("1795252767.{}", pick() % 12));
    };
    match kind {
        EventKind::Newchannel(channel)
        | EventKind::Newstate(channel)
        | EventKind::NewCallerid(channel)
        | EventKind::NewConnectedLine(channel)
        | EventKind::Hold(channel)
        | EventKind::Unhold(channel)
        | EventKind::HangupRequest { channel, .. }
        | EventKind::Hangup { channel, .. }
        | EventKind::BridgeEnter { channel, .. }
        | EventKind::BridgeLeave { channel, .. }
        | EventKind::ConfbridgeJoin { channel, .. }
        | EventKind::ConfbridgeLeave { channel, .. }
        | EventKind::DtmfEnd { channel, .. } => id(channel),
        EventKind::DialBegin(dial) | EventKind::DialState(dial) | EventKind::DialEnd(dial) => {
            dial.caller.iter_mut().for_each(&mut id);
            id(&mut dial.dest);
        }
        EventKind::Pickup { picker: one, target: two } | EventKind::LocalBridge { one, two } => {
            id(one);
            id(two);
        }
        EventKind::BlindTransfer { transferer, .. } => id(transferer),
        EventKind::AttendedTransfer { orig, second, transferee, .. } => {
            id(orig);
            id(second);
            transferee.iter_mut().for_each(id);
        }
        EventKind::ParkedCall(parked) | EventKind::UnParkedCall(parked) => {
            id(&mut parked.parkee);
            parked.retriever.iter_mut().for_each(id);
        }
        EventKind::QueueCallerJoin(event)
        | EventKind::QueueCallerLeave(event)
        | EventKind::QueueCallerAbandon(event)
        | EventKind::AgentCalled(event)
        | EventKind::AgentConnect(event)
        | EventKind::AgentComplete(event)
        | EventKind::AgentRingNoAnswer(event) => {
            event.caller.iter_mut().chain(event.dest.iter_mut()).for_each(id);
        }
        EventKind::Cdr(cdr) => {
            cdr.uniqueid = Some(Uniqueid::new(format!("1795252767.{}", pick() % 12)));
            cdr.linkedid = Some(Linkedid::new(format!("1795252767.{}", pick() % 12)));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(crate::promises::proptest_config(1_000))]

    #[test]
    fn whatever_is_forged_every_call_ends_and_nothing_stays(
        seed in any::<u64>(),
        count in 20_usize..250,
        births in 0_usize..3,
        restarts in any::<bool>(),
    ) {
        let mut state = seed | 1;
        let mut pick = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap()
        };
        let all = all_events();
        let newborn: Vec<&Fed> =
            all.iter().filter(|fed| matches!(fed, Fed::Event(event) if matches!(event.kind, EventKind::Newchannel(_)))).collect();
        let mut run = Run::new();
        let mut now = Micros::from_secs(1_795_270_000);
        for _ in 0..count {
            let Fed::Event(event) = (if pick() % 3 < births { newborn[pick() % newborn.len()] } else { &all[pick() % all.len()] }) else { continue };
            let mut event = event.clone();
            forge(&mut event.kind, &mut pick);
            event.at = None;
            now = now.plus_millis(i64::try_from(pick() % 700).unwrap());
            run.put(now, &Fed::Event(event));
            if restarts && pick() % 20 == 0 {
                run.restart();
            }
        }
        audit(&mut run, &[], AUDIT);
        audit(&mut run, &[], AUDIT);
        run.advance(run.now.plus_millis(QUIET));
        crate::promises::check_invariants(&run)?;
    }
}
