//! Events: each kind's shape, and what becomes of those that lack something.

use std::sync::Arc;

use parsers::ami::event::{ModemSms, Parked, QueueEvent};
use parsers::ami::{Bridge, Channel, ChannelState, Dial, DialStatus, Event, EventKind, Message};
use parsers::cdr::{Cdr, Disposition};
use parsers::{CallerId, ChannelName, Linkedid, Micros, Uniqueid};

use crate::wire::{event, kind, message};

/// A channel block as Asterisk 22 writes it, of channel number `n`.
fn block(prefix: &str, n: u32) -> String {
    [
        format!("Channel: PJSIP/{n}-0000002a"),
        "ChannelState: 6".to_owned(),
        "ChannelStateDesc: Up".to_owned(),
        format!("CallerIDNum: {n}"),
        r"CallerIDName: Ana O\'Hara".to_owned(),
        "ConnectedLineNum: 584141234567".to_owned(),
        "ConnectedLineName: <unknown>".to_owned(),
        "Language: en".to_owned(),
        "AccountCode: ".to_owned(),
        "Context: from-internal".to_owned(),
        "Exten: 5551000".to_owned(),
        "Priority: 1".to_owned(),
        format!("Uniqueid: 1795252767.{n}"),
        "Linkedid: 1795252767.1".to_owned(),
        r"ChanVariable: CPDIR=in\?".to_owned(),
        "ChanVariable: CPTEST=a=b".to_owned(),
    ]
    .map(|line| format!("{prefix}{line}\n"))
    .concat()
}

/// What [`block`] says.
fn channel(n: u32) -> Channel {
    Channel {
        name: ChannelName::new(format!("PJSIP/{n}-0000002a")),
        state: ChannelState::Up,
        caller: CallerId { num: Some(n.to_string().into()), name: Some("Ana O'Hara".into()) },
        connected: CallerId { num: Some("584141234567".into()), name: None },
        accountcode: None,
        context: Some("from-internal".into()),
        exten: Some("5551000".into()),
        uniqueid: Uniqueid::new(format!("1795252767.{n}")),
        linkedid: Linkedid::new("1795252767.1"),
        variables: vec![("CPDIR".into(), "in?".into()), ("CPTEST".into(), "a=b".into())],
    }
}

fn bridge_block(prefix: &str, id: &str) -> String {
    format!(
        "{prefix}BridgeUniqueid: {id}\n{prefix}BridgeType: basic\n{prefix}BridgeTechnology: simple_bridge\n{prefix}BridgeNumChannels: 2\n"
    )
}

fn bridge(id: &str) -> Bridge {
    Bridge { id: id.into(), kind: "basic".into() }
}

fn text(value: &str) -> Option<Arc<str>> {
    Some(value.into())
}

/// An event of this name with these blocks.
fn read(name: &str, rest: &[&str]) -> EventKind {
    kind(&format!("Event: {name}\nPrivilege: call,all\nTimestamp: 1795252767.935415\n{}", rest.concat()))
}

fn other(name: &str) -> EventKind {
    EventKind::Other(name.into())
}

#[test]
fn what_stands_before_every_event_is_read() {
    let got = event(
        "Event: Newstate\nPrivilege: call,all\nTimestamp: 1795252767.935415\nSequenceNumber: 7\nFile: x.c\nLine: 1\nFunc: f\nSystemName: pbx-1\nX: y\n",
    );
    assert_eq!((got.at, got.privileged), (Some(Micros(1_795_252_767_935_415)), true));
    assert_eq!((got.system_name, got.action_id), (text("pbx-1"), None));
    let item = event("Event: QueueParams\nQueue: a\nActionID: a51\n");
    assert_eq!((item.at, item.privileged, item.action_id), (None, false, text("a51")));
    let forged = event("Event: Hangup\nChannel: x\nPrivilege: call,all\n");
    assert!(!forged.privileged, "only as second header");
}

#[test]
fn noise_is_other_by_its_name() {
    for name in
        ["VarSet", "Newexten", "TestEvent", "BridgeCreate", "CEL", "QueueMemberStatus", "NotYetInvented"]
    {
        assert_eq!(read(name, &[&block("", 1)]), other(name));
    }
}

#[test]
fn an_answer_is_no_event() {
    assert_eq!(Event::parse(&message("Response: Success\nEvent: Hangup\n")), None);
}

#[test]
fn channel_life_is_read() {
    let own = block("", 1001);
    for (name, wanted) in [
        ("Newchannel", EventKind::Newchannel(channel(1001))),
        ("Newstate", EventKind::Newstate(channel(1001))),
        ("NewCallerid", EventKind::NewCallerid(channel(1001))),
        ("NewConnectedLine", EventKind::NewConnectedLine(channel(1001))),
        ("Hold", EventKind::Hold(channel(1001))),
        ("Unhold", EventKind::Unhold(channel(1001))),
        ("HangupRequest", EventKind::HangupRequest { channel: channel(1001), cause: None }),
        ("SoftHangupRequest", EventKind::SoftHangupRequest { channel: channel(1001), cause: None }),
    ] {
        assert_eq!(read(name, &[&own]), wanted);
        assert_eq!(read(name, &[&own.replace("Uniqueid", "Nothing")]), other(name), "without Uniqueid");
        assert_eq!(read(name, &[&own.replace("Channel: ", "Nothing: ")]), other(name), "without Channel");
    }
    assert_eq!(
        read("SoftHangupRequest", &[&own, "Cause: 16\n"]),
        EventKind::SoftHangupRequest { channel: channel(1001), cause: Some(16) }
    );
    assert_eq!(
        read("Hangup", &[&own, "Cause: 17\nCause-txt: User busy\nTechCause: 486\n"]),
        EventKind::Hangup {
            channel: channel(1001),
            cause: 17,
            cause_txt: text("User busy"),
            tech_cause: text("486")
        }
    );
    assert_eq!(
        read("Rename", &["Channel: SIP/a-1\nNewname: SIP/a-2\nUniqueid: 1.5\n"]),
        EventKind::Rename { uniqueid: Uniqueid::new("1.5"), newname: ChannelName::new("SIP/a-2") }
    );
}

#[test]
fn every_channel_state_is_read() {
    use ChannelState::*;
    let states =
        [Down, Reserved, OffHook, Dialing, Ring, Ringing, Up, Busy, DialingOffHook, PreRing, Unknown];
    for (digit, wanted) in states.into_iter().enumerate() {
        let own = block("", 1).replace("ChannelState: 6", &format!("ChannelState: {digit}"));
        assert_eq!(read("Newstate", &[&own]), EventKind::Newstate(Channel { state: wanted, ..channel(1) }));
    }
}

#[test]
fn a_channel_needs_only_its_name_and_id() {
    assert_eq!(
        read("Newchannel", &["Channel: SIP/a-1\nUniqueid: 1.5\n"]),
        EventKind::Newchannel(Channel {
            name: ChannelName::new("SIP/a-1"),
            state: ChannelState::Unknown,
            caller: CallerId::default(),
            connected: CallerId::default(),
            accountcode: None,
            context: None,
            exten: None,
            uniqueid: Uniqueid::new("1.5"),
            linkedid: Linkedid::new("1.5"),
            variables: vec![],
        })
    );
}

#[test]
fn a_trunks_own_unknown_stays() {
    let own = block("", 1).replace("CallerIDNum: 1\n", "CallerIDNum: unknown\n");
    let caller = CallerId { num: text("unknown"), ..channel(1).caller };
    assert_eq!(read("Newstate", &[&own]), EventKind::Newstate(Channel { caller, ..channel(1) }));
}

#[test]
fn dials_are_read() {
    let (own, dest) = (block("", 1), block("Dest", 2));
    let dial =
        Dial { caller: Some(channel(1)), dest: channel(2), dial_string: None, status: None, forward: None };
    let begin = Dial { dial_string: text("1001"), ..dial.clone() };
    assert_eq!(read("DialBegin", &[&own, &dest, "DialString: 1001\n"]), EventKind::DialBegin(begin));
    let originated = Dial { caller: None, ..dial.clone() };
    assert_eq!(read("DialBegin", &[&dest]), EventKind::DialBegin(originated));
    assert_eq!(read("DialBegin", &[&own]), other("DialBegin"), "without a destination");
    let state = Dial { status: Some(DialStatus::Ringing), ..dial.clone() };
    assert_eq!(read("DialState", &[&own, &dest, "DialStatus: RINGING\n"]), EventKind::DialState(state));
    for (word, status) in [
        ("ANSWER", DialStatus::Answer),
        ("BUSY", DialStatus::Busy),
        ("CANCEL", DialStatus::Cancel),
        ("CHANUNAVAIL", DialStatus::ChanUnavail),
        ("CONGESTION", DialStatus::Congestion),
        ("NOANSWER", DialStatus::NoAnswer),
        ("PROGRESS", DialStatus::Progress),
        ("PROCEEDING", DialStatus::Proceeding),
        ("GOTO:a^b^1", DialStatus::Other("GOTO:a^b^1".into())),
        ("DONTCALL", DialStatus::Other("DONTCALL".into())),
    ] {
        let end = Dial { status: Some(status), forward: text("1002"), ..dial.clone() };
        let tail = format!("Forward: 1002\nDialStatus: {word}\n");
        assert_eq!(read("DialEnd", &[&own, &dest, &tail]), EventKind::DialEnd(end));
    }
}

#[test]
fn bridges_are_read() {
    let (own, bridged) = (block("", 1), bridge_block("", "b1"));
    assert_eq!(
        read("BridgeEnter", &[&bridged, &own, "SwapUniqueid: 1.7\n"]),
        EventKind::BridgeEnter {
            bridge: bridge("b1"),
            channel: channel(1),
            swap: Some(Uniqueid::new("1.7"))
        }
    );
    assert_eq!(
        read("BridgeEnter", &[&bridged, &own]),
        EventKind::BridgeEnter { bridge: bridge("b1"), channel: channel(1), swap: None }
    );
    assert_eq!(
        read("BridgeLeave", &[&bridged, &own]),
        EventKind::BridgeLeave { bridge: bridge("b1"), channel: channel(1) }
    );
    assert_eq!(
        read("BridgeMerge", &[&bridge_block("To", "b1"), &bridge_block("From", "b2")]),
        EventKind::BridgeMerge { to: bridge("b1"), from: bridge("b2") }
    );
    assert_eq!(read("BridgeDestroy", &[&bridged]), EventKind::BridgeDestroy(bridge("b1")));
    assert_eq!(read("BridgeListItem", &[&bridged]), EventKind::BridgeListItem(bridge("b1")));
    assert_eq!(read("BridgeLeave", &[&own]), other("BridgeLeave"), "without a bridge");
}

#[test]
fn digits_are_read() {
    let own = block("", 1);
    for (direction, received) in [("Received", true), ("Sent", false)] {
        assert_eq!(
            read("DTMFEnd", &[&own, &format!("Digit: #\nDurationMs: 160\nDirection: {direction}\n")]),
            EventKind::DtmfEnd { channel: channel(1), digit: '#', received, millis: Some(160) }
        );
    }
}

#[test]
fn transfers_are_read() {
    let rest = "IsExternal: Yes\nContext: c\nExtension: 1002\n";
    let (extension, context) = (text("1002"), text("c"));
    let blind = |transferee| EventKind::BlindTransfer {
        success: true,
        transferer: channel(1),
        transferee,
        extension: extension.clone(),
        context: context.clone(),
    };
    let (transferer, transferee) = (block("Transferer", 1), block("Transferee", 2));
    assert_eq!(
        read("BlindTransfer", &["Result: Success\n", &transferer, &transferee, rest]),
        blind(Some(channel(2)))
    );
    assert_eq!(read("BlindTransfer", &["Result: Success\n", &transferer, rest]), blind(None));
    let (orig, second) = (block("OrigTransferer", 1), block("SecondTransferer", 2));
    let (transferee, target) = (block("Transferee", 3), block("TransferTarget", 4));
    assert_eq!(
        read(
            "AttendedTransfer",
            &["Result: Fail\n", &orig, &second, &transferee, &target, "DestType: Bridge\n"]
        ),
        EventKind::AttendedTransfer {
            success: false,
            orig: channel(1),
            second: channel(2),
            transferee: Some(channel(3)),
            target: Some(channel(4)),
            dest_type: text("Bridge"),
        }
    );
    assert_eq!(
        read("Pickup", &[&block("", 1), &block("Target", 2)]),
        EventKind::Pickup { picker: channel(1), target: channel(2) }
    );
    assert_eq!(
        read("LocalBridge", &[&block("LocalOne", 1), &block("LocalTwo", 2), "Context: c\n"]),
        EventKind::LocalBridge { one: channel(1), two: channel(2) }
    );
}

#[test]
fn parking_and_conferences_are_read() {
    let (parkee, rest) =
        (block("Parkee", 1), "ParkerDialString: PJSIP/1001\nParkinglot: default\nParkingSpace: 701\n");
    let parked =
        Parked { parkee: channel(1), retriever: None, parker: text("PJSIP/1001"), space: text("701") };
    for (name, wanted) in [
        ("ParkedCall", EventKind::ParkedCall(parked.clone())),
        ("ParkedCallTimeOut", EventKind::ParkedCallTimeOut(parked.clone())),
        ("ParkedCallGiveUp", EventKind::ParkedCallGiveUp(parked.clone())),
    ] {
        assert_eq!(read(name, &[&parkee, rest]), wanted);
    }
    let fetched = Parked { retriever: Some(channel(2)), ..parked };
    assert_eq!(
        read("UnParkedCall", &[&parkee, &block("Retriever", 2), rest]),
        EventKind::UnParkedCall(fetched)
    );
    let (channel, conference) = (channel(1), Arc::<str>::from("900"));
    let block = block("", 1);
    assert_eq!(
        read("ConfbridgeJoin", &["Conference: 900\n", &block]),
        EventKind::ConfbridgeJoin { channel: channel.clone(), conference: conference.clone() }
    );
    assert_eq!(
        read("ConfbridgeLeave", &["Conference: 900\n", &block]),
        EventKind::ConfbridgeLeave { channel, conference }
    );
}

#[test]
fn queues_are_read() {
    let none = QueueEvent {
        caller: Some(channel(1)),
        dest: None,
        queue: "support".into(),
        interface: None,
        member: None,
        position: None,
        hold_time: None,
        talk_time: None,
        reason: None,
    };
    let (own, dest) = (block("", 1), block("Dest", 2));
    let waiting = QueueEvent { position: Some(1), ..none.clone() };
    for (name, wanted) in [
        ("QueueCallerJoin", EventKind::QueueCallerJoin(waiting.clone())),
        ("QueueCallerLeave", EventKind::QueueCallerLeave(waiting.clone())),
        ("QueueCallerAbandon", EventKind::QueueCallerAbandon(waiting)),
    ] {
        assert_eq!(read(name, &[&own, "Queue: support\nPosition: 1\n"]), wanted);
        assert_eq!(read(name, &[&own, "Position: 1\n"]), other(name), "without a queue");
        assert_eq!(read(name, &["Queue: support\n"]), other(name), "without a caller");
    }
    let agent = QueueEvent {
        dest: Some(channel(2)),
        interface: text("PJSIP/1001"),
        member: text("Ana"),
        hold_time: Some(2),
        talk_time: Some(1),
        reason: text("caller"),
        ..none
    };
    let rest =
        "Queue: support\nInterface: PJSIP/1001\nMemberName: Ana\nHoldTime: 2\nTalkTime: 1\nReason: caller\n";
    for (name, wanted) in [
        ("AgentCalled", EventKind::AgentCalled(agent.clone())),
        ("AgentConnect", EventKind::AgentConnect(agent.clone())),
        ("AgentComplete", EventKind::AgentComplete(agent.clone())),
        ("AgentRingNoAnswer", EventKind::AgentRingNoAnswer(agent.clone())),
        ("AgentDump", EventKind::AgentDump(agent.clone())),
    ] {
        assert_eq!(read(name, &[&own, &dest, rest]), wanted);
        assert_eq!(read(name, &[rest]), other(name), "without any channel");
    }
    // after some transfers one of the two is gone
    let without_dest = QueueEvent { dest: None, ..agent.clone() };
    assert_eq!(read("AgentComplete", &[&own, rest]), EventKind::AgentComplete(without_dest));
    let without_caller = QueueEvent { caller: None, ..agent };
    assert_eq!(read("AgentComplete", &[&dest, rest]), EventKind::AgentComplete(without_caller));
}

#[test]
fn an_originates_result_is_read() {
    assert_eq!(
        read("OriginateResponse", &["ActionID: a27\nResponse: Failure\nReason: 0\nUniqueid: <unknown>\n"]),
        EventKind::OriginateResponse {
            action_id: text("a27"),
            success: false,
            uniqueid: None,
            reason: Some(0)
        }
    );
    assert_eq!(
        read(
            "OriginateResponse",
            &[
                "ActionID: a23\nResponse: Success\nReason: 4\nUniqueid: callpost-c2c-1\nChanVariable(PJSIP/1001-00000019): CPDIR=out\n"
            ]
        ),
        EventKind::OriginateResponse {
            action_id: text("a23"),
            success: true,
            uniqueid: Some(Uniqueid::new("callpost-c2c-1")),
            reason: Some(4)
        }
    );
}

const CDR: &str = "AccountCode: \nSource: 1001\nDestination: 800\nDestinationContext: from-internal\nCallerID: \"Ana O'Hara\" <1001>\nChannel: PJSIP/1001-0000003f\nDestinationChannel: PJSIP/1002-00000040\nLastApplication: ConfBridge\nLastData: 900\nStartTime: 2026-11-21 09:27:43\nAnswerTime: \nEndTime: 2026-11-21 09:27:45\nDuration: 2\nBillableSeconds: 0\nDisposition: NO ANSWER\nAMAFlags: DOCUMENTATION\nUniqueID: 1795253263.193\nUserField: \n";

#[test]
fn cdrs_are_read_with_and_without_mapped_headers() {
    let plain = Cdr {
        uniqueid: Some(Uniqueid::new("1795253263.193")),
        linkedid: None,
        sequence: None,
        src: text("1001"),
        dst: text("800"),
        dcontext: text("from-internal"),
        clid: text("\"Ana O'Hara\" <1001>"),
        channel: Some(ChannelName::new("PJSIP/1001-0000003f")),
        dstchannel: Some(ChannelName::new("PJSIP/1002-00000040")),
        lastapp: text("ConfBridge"),
        lastdata: text("900"),
        start: text("2026-11-21 09:27:43"),
        answer: None,
        end: text("2026-11-21 09:27:45"),
        start_epoch: None,
        answer_epoch: None,
        end_epoch: None,
        duration: 2,
        billsec: 0,
        disposition: Disposition::NoAnswer,
        did: None,
        recordingfile: None,
        accountcode: None,
        peeraccount: None,
        userfield: None,
    };
    assert_eq!(read("Cdr", &[CDR]), EventKind::Cdr(Box::new(plain.clone())));
    let mapped = Cdr {
        linkedid: Some(Linkedid::new("1795253263.190")),
        sequence: Some(106),
        start_epoch: Some(Micros(1_795_253_263_320_184)),
        end_epoch: Some(Micros(1_795_253_265_844_685)),
        did: text("5551000"),
        recordingfile: text("in-1.wav"),
        peeraccount: text("p"),
        ..plain
    };
    let never = "LinkedID: 1795253263.190\nSequence: 106\nPeerAccount: p\nStartEpoch: 1795253263.320184\nAnswerEpoch: 0.000000\nEndEpoch: 1795253265.844685\nRecordingFile: in-1.wav\nDID: 5551000\n";
    assert_eq!(read("Cdr", &[CDR, never]), EventKind::Cdr(Box::new(mapped.clone())));
    let empty = never.replace("0.000000", "");
    assert_eq!(read("Cdr", &[CDR, &empty]), EventKind::Cdr(Box::new(mapped)));
    assert_eq!(read("Cdr", &["Source: 1001\n"]), other("Cdr"));
}

#[test]
fn user_events_keep_every_header_of_the_speaker() {
    let said = "UserEvent: CallpostSMS\nFrom: <sip:1001@127.0.0.1>\nTo: 1002\nTo: again\nTextB64: aG9sYQ==\nCallerIDName: a\\'b\n";
    let headers: Vec<(Arc<str>, Arc<str>)> = [
        ("From", "<sip:1001@127.0.0.1>"),
        ("To", "1002"),
        ("To", "again"),
        ("TextB64", "aG9sYQ=="),
        ("CallerIDName", "a\\'b"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .into();
    for own in [Some(channel(1)), None] {
        let blocks = if own.is_some() { block("", 1) } else { String::new() };
        assert_eq!(
            read("UserEvent", &[&blocks, said]),
            EventKind::UserEvent { name: "CallpostSMS".into(), channel: own, headers: headers.clone() }
        );
    }
}

#[test]
fn modem_messages_are_read() {
    let sms = |text: &str| {
        EventKind::ModemSms(ModemSms {
            device: "dongle0".into(),
            from: "+584141234567".into(),
            text: text.to_owned(),
        })
    };
    let head = "Device: dongle0\nFrom: +584141234567\n";
    for name in ["DongleNewSMS", "QuectelNewSMS"] {
        let lines = "LineCount: 3\nMessageLine0: hola: ¿qué tal?\nMessageLine1: \nMessageLine2: adiós\n";
        assert_eq!(read(name, &[head, lines]), sms("hola: ¿qué tal?\n\nadiós"));
        assert_eq!(read(name, &["From: 1\nMessageLine0: x\n"]), other(name), "without a device");
    }
    for name in ["DongleNewSMSBase64", "QuectelNewSMSBase64"] {
        assert_eq!(
            read(name, &[head, "Message: aG9sYSwgc2XDsW9yOiDCv3F1w6kgdGFsPwpsaW5lYTI=\n"]),
            sms("hola, señor: ¿qué tal?\nlinea2")
        );
        assert_eq!(read(name, &[head, "Message: Sm9z6Q==\n"]), sms("José"));
        assert_eq!(read(name, &[head, "Message: \n"]), sms(""));
        for bad in ["aG9sYQ", "aG9s YQ==", "aG9sYQ=", "añb=", "aG9sYR=="] {
            assert_eq!(read(name, &[head, &format!("Message: {bad}\n")]), other(name), "{bad} is no base64");
        }
    }
}

#[test]
fn asterisks_own_life_is_read() {
    assert_eq!(
        read("FullyBooted", &["Uptime: 12\nStatus: Fully Booted\n"]),
        EventKind::FullyBooted { uptime: Some(12) }
    );
    // Asterisk 13
    assert_eq!(read("FullyBooted", &["Status: Fully Booted\n"]), EventKind::FullyBooted { uptime: None });
    assert_eq!(
        read("Shutdown", &["Shutdown: Cleanly\nRestart: False\n"]),
        EventKind::Shutdown { restart: false }
    );
    assert_eq!(
        read("Shutdown", &["Shutdown: Cleanly\nRestart: True\n"]),
        EventKind::Shutdown { restart: true }
    );
    assert_eq!(read("Reload", &["Module: All\nStatus: 0\n"]), EventKind::Reload { module: text("All") });
}

#[test]
fn list_items_are_read() {
    let own = block("", 1);
    for (duration, seconds) in
        [("00:00:14", 14), ("01:02:03", 3723), ("123:00:01", 442_801), ("junk", 0), ("00:61:00", 0)]
    {
        let rest = format!(
            "Application: Dial\nApplicationData: PJSIP/1001,8,tT\nDuration: {duration}\nBridgeId: b1\n"
        );
        let wanted = EventKind::CoreShowChannel {
            channel: channel(1),
            application: text("Dial"),
            application_data: text("PJSIP/1001,8,tT"),
            duration: seconds,
            bridge: text("b1"),
        };
        assert_eq!(kind(&format!("Event: CoreShowChannel\nActionID: a\n{own}{rest}")), wanted);
    }
    assert_eq!(
        kind(&format!(
            "Event: Status\nPrivilege: Call\n{own}BridgeID: \nVariable: CDR(start,u)=1795253688.963035\nVariable: FROM_DID=(null)\nVariable: EMPTY=\nActionID: a\n"
        )),
        EventKind::Status {
            channel: channel(1),
            bridge: None,
            variables: vec![("CDR(start,u)".into(), "1795253688.963035".into()), ("EMPTY".into(), "".into())],
        }
    );
    assert_eq!(
        kind(
            "Event: QueueEntry\nQueue: support\nPosition: 1\nChannel: PJSIP/trunk-00000004\nUniqueid: 1795253690.9\nCallerIDNum: 584141234567\nConnectedLineNum: unknown\nWait: 2\nActionID: a\n"
        ),
        EventKind::QueueEntry {
            queue: "support".into(),
            uniqueid: Uniqueid::new("1795253690.9"),
            channel: Some(ChannelName::new("PJSIP/trunk-00000004")),
            wait: 2,
            position: Some(1),
        }
    );
    assert_eq!(
        kind(
            "Event: EndpointList\nActionID: a\nObjectType: endpoint\nObjectName: 1001\nAuths: auth1001\nOutboundAuths: \n"
        ),
        EventKind::EndpointList { name: "1001".into(), auths: Some("auth1001".into()), outbound_auths: None }
    );
}

#[test]
fn the_end_of_a_list_is_read() {
    for (block, items) in [
        ("Event: StatusComplete\nActionID: a\nEventList: Complete\nListItems: 4\nItems: 4\n", Some(4)),
        ("Event: StatusComplete\nActionID: a\nEventList: cancelled\nListItems: 0\n", Some(0)),
        // Asterisk 11
        ("Event: StatusComplete\nActionID: a\nItems: 4\n", None),
    ] {
        let wanted = EventKind::ListComplete { name: "StatusComplete".into(), items };
        assert_eq!(kind(block), wanted);
        assert_eq!(event(block).action_id, text("a"));
    }
    assert_eq!(kind("Event: SomethingComplete\nPrivilege: call,all\n"), other("SomethingComplete"));
}

#[test]
fn a_name_in_latin_1_arrives() {
    let block = b"Event: Newchannel\r\nPrivilege: call,all\r\nChannel: SIP/a-1\r\nCallerIDName: Jos\xe9 N\xfa\xf1ez\\?\r\nContext: caf\xe9\r\nUniqueid: 1.5\r\nChanVariable: a=\xe9\r\n";
    let event = Event::parse(&Message::parse(&block[..]).expect("a message")).expect("an event");
    let EventKind::Newchannel(channel) = event.kind else { panic!("{event:?}") };
    assert_eq!(channel.caller.name.as_deref(), Some("José Núñez?"));
    assert_eq!(channel.context.as_deref(), Some("café"));
    assert_eq!(channel.variables, [("a".into(), "é".into())]);
}

#[test]
fn an_event_of_asterisk_11_gives_no_half_call() {
    for block in [
        "Event: Dial\nPrivilege: call,all\nSubEvent: Begin\nChannel: SIP/a-1\nUniqueID: 1.1\nDestUniqueID: 1.2\n",
        "Event: Bridge\nPrivilege: call,all\nBridgestate: Link\nChannel1: SIP/a-1\nUniqueid1: 1.1\n",
        "Event: LocalBridge\nPrivilege: call,all\nChannel1: Local/a;1\nUniqueid1: 1.1\n",
        "Event: ParkedCall\nPrivilege: call,all\nExten: 701\nChannel: SIP/a-1\nUniqueid: 1.1\n",
    ] {
        assert!(matches!(kind(block), EventKind::Other(_)), "{block}");
    }
}
