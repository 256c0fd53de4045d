//! From a message to a typed event: one match on the event's name, one small reader a kind.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::block::{Block, variable};
use super::event::{ModemSms, Parked, QueueEvent};
use super::text::decode;
use super::{Channel, Dial, DialStatus, Event, EventKind, Message, grammar};
use crate::cdr::{Cdr, Disposition};
use crate::ident::{ChannelName, Linkedid, Micros};

impl Event {
    /// Reads a message that begins with `Event:`; `None` for any other. An event that lacks what
    /// its kind needs is `Other`.
    pub fn parse(message: &Message) -> Option<Self> {
        let mut headers = message.headers();
        let (_, name) = headers.next().filter(|(key, _)| key.eq_ignore_ascii_case(b"Event"))?;
        let head = head(headers);
        let (action_id, kind) = if head.privileged && is_noise(name) {
            (None, None)
        } else {
            let own = Block::own(message);
            (own.text("ActionID"), kind(name, message, own))
        };
        let kind = kind.unwrap_or_else(|| EventKind::Other(Arc::from(decode(name))));
        Some(Self {
            at: head.at,
            privileged: head.privileged,
            action_id,
            system_name: head.system_name,
            kind,
        })
    }
}

/// What `main/manager.c` itself writes, before what the event's maker adds.
#[derive(Default)]
struct Head {
    at: Option<Micros>,
    privileged: bool,
    system_name: Option<Arc<str>>,
}

/// Reads what follows the event's name.
fn head<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Head {
    let mut head = Head::default();
    for (nth, (key, value)) in headers.enumerate() {
        match key {
            b"Privilege" if nth == 0 => head.privileged = true,
            b"Timestamp" => head.at = Micros::parse(&decode(value)),
            b"SystemName" if !value.is_empty() => head.system_name = Some(Arc::from(decode(value))),
            // with debug=on
            b"SystemName" | b"SequenceNumber" | b"File" | b"Line" | b"Func" => {}
            _ => break,
        }
    }
    head
}

/// Events that come often and say nothing about calls: not worth finding their headers. As items of a
/// list, without Privilege, they are looked at.
fn is_noise(name: &[u8]) -> bool {
    matches!(
        name,
        b"VarSet"
            | b"Newexten"
            | b"TestEvent"
            | b"CEL"
            | b"RTCPSent"
            | b"RTCPReceived"
            | b"DTMFBegin"
            | b"DeviceStateChange"
            | b"ExtensionStatus"
            | b"PresenceStateChange"
            | b"ContactStatus"
            | b"PeerStatus"
            | b"QueueMemberStatus"
            | b"MusicOnHoldStart"
            | b"MusicOnHoldStop"
            | b"BridgeCreate"
    )
}

/// What happened; `None` for a name that is not ours, and when the kind's needs are not met.
fn kind(name: &[u8], message: &Message, own: Block<'_>) -> Option<EventKind> {
    let of = |prefix| own.of(prefix);
    Some(match name {
        b"Newchannel" => EventKind::Newchannel(own.channel()?),
        b"Newstate" => EventKind::Newstate(own.channel()?),
        b"NewCallerid" => EventKind::NewCallerid(own.channel()?),
        b"NewConnectedLine" => EventKind::NewConnectedLine(own.channel()?),
        b"Rename" => EventKind::Rename {
            uniqueid: own.uniqueid("Uniqueid")?,
            newname: ChannelName::new(own.text("Newname")?),
        },
        b"HangupRequest" => EventKind::HangupRequest { channel: own.channel()?, cause: own.number("Cause") },
        b"SoftHangupRequest" => {
            EventKind::SoftHangupRequest { channel: own.channel()?, cause: own.number("Cause") }
        }
        b"Hangup" => hangup(own)?,
        b"DialBegin" => EventKind::DialBegin(dial(own, of("Dest"))?),
        b"DialState" => EventKind::DialState(dial(own, of("Dest"))?),
        b"DialEnd" => EventKind::DialEnd(dial(own, of("Dest"))?),
        b"BridgeEnter" => EventKind::BridgeEnter {
            bridge: own.bridge()?,
            channel: own.channel()?,
            swap: own.uniqueid("SwapUniqueid"),
        },
        b"BridgeLeave" => EventKind::BridgeLeave { bridge: own.bridge()?, channel: own.channel()? },
        b"BridgeMerge" => EventKind::BridgeMerge { to: of("To").bridge()?, from: of("From").bridge()? },
        b"BridgeDestroy" => EventKind::BridgeDestroy(own.bridge()?),
        b"Hold" => EventKind::Hold(own.channel()?),
        b"Unhold" => EventKind::Unhold(own.channel()?),
        b"DTMFEnd" => dtmf_end(own)?,
        b"BlindTransfer" => blind_transfer(own, of("Transferer"), of("Transferee"))?,
        b"AttendedTransfer" => attended_transfer(own)?,
        b"Pickup" => EventKind::Pickup { picker: own.channel()?, target: of("Target").channel()? },
        b"LocalBridge" => {
            EventKind::LocalBridge { one: of("LocalOne").channel()?, two: of("LocalTwo").channel()? }
        }
        b"ParkedCall" => EventKind::ParkedCall(parked(own)?),
        b"ParkedCallTimeOut" => EventKind::ParkedCallTimeOut(parked(own)?),
        b"ParkedCallGiveUp" => EventKind::ParkedCallGiveUp(parked(own)?),
        b"UnParkedCall" => EventKind::UnParkedCall(parked(own)?),
        b"ConfbridgeJoin" => {
            EventKind::ConfbridgeJoin { channel: own.channel()?, conference: own.text("Conference")? }
        }
        b"ConfbridgeLeave" => {
            EventKind::ConfbridgeLeave { channel: own.channel()?, conference: own.text("Conference")? }
        }
        b"QueueCallerJoin" => EventKind::QueueCallerJoin(queue_caller(own)?),
        b"QueueCallerLeave" => EventKind::QueueCallerLeave(queue_caller(own)?),
        b"QueueCallerAbandon" => EventKind::QueueCallerAbandon(queue_caller(own)?),
        b"AgentCalled" => EventKind::AgentCalled(queue_agent(own, of("Dest"))?),
        b"AgentConnect" => EventKind::AgentConnect(queue_agent(own, of("Dest"))?),
        b"AgentComplete" => EventKind::AgentComplete(queue_agent(own, of("Dest"))?),
        b"AgentRingNoAnswer" => EventKind::AgentRingNoAnswer(queue_agent(own, of("Dest"))?),
        b"AgentDump" => EventKind::AgentDump(queue_agent(own, of("Dest"))?),
        b"OriginateResponse" => EventKind::OriginateResponse {
            action_id: own.text("ActionID"),
            success: own.is("Response", "Success"),
            uniqueid: own.uniqueid("Uniqueid"),
            reason: own.number("Reason"),
        },
        b"Cdr" => EventKind::Cdr(Box::new(cdr(own)?)),
        b"UserEvent" => user_event(message, own)?,
        b"DongleNewSMS" | b"QuectelNewSMS" => EventKind::ModemSms(sms_of_lines(message, own)?),
        b"DongleNewSMSBase64" | b"QuectelNewSMSBase64" => EventKind::ModemSms(sms_of_base64(own)?),
        b"FullyBooted" => EventKind::FullyBooted { uptime: own.number("Uptime") },
        b"Shutdown" => EventKind::Shutdown { restart: own.is("Restart", "True") },
        b"Reload" => EventKind::Reload { module: own.text("Module") },
        b"CoreShowChannel" => core_show_channel(own)?,
        b"Status" => status(own)?,
        b"BridgeListItem" => EventKind::BridgeListItem(own.bridge()?),
        b"QueueEntry" => EventKind::QueueEntry {
            queue: own.text("Queue")?,
            uniqueid: own.uniqueid("Uniqueid")?,
            channel: own.text("Channel").map(ChannelName::new),
            wait: own.number("Wait").unwrap_or(0),
            position: own.number("Position"),
        },
        b"EndpointList" => EventKind::EndpointList {
            name: own.text("ObjectName")?,
            auths: own.text("Auths"),
            outbound_auths: own.text("OutboundAuths"),
        },
        name => list_complete(name, own)?,
    })
}

fn hangup(own: Block<'_>) -> Option<EventKind> {
    Some(EventKind::Hangup {
        channel: own.channel()?,
        cause: own.number("Cause").unwrap_or(0),
        cause_txt: own.text("Cause-txt"),
        tech_cause: own.text("TechCause"),
    })
}

fn dial(own: Block<'_>, dest: Block<'_>) -> Option<Dial> {
    Some(Dial {
        caller: own.channel(),
        dest: dest.channel()?,
        dial_string: own.text("DialString"),
        status: own.get("DialStatus").map(dial_status),
        forward: own.text("Forward"),
    })
}

fn dial_status(word: Cow<'_, str>) -> DialStatus {
    match &*word {
        "ANSWER" => DialStatus::Answer,
        "BUSY" => DialStatus::Busy,
        "CANCEL" => DialStatus::Cancel,
        "CHANUNAVAIL" => DialStatus::ChanUnavail,
        "CONGESTION" => DialStatus::Congestion,
        "NOANSWER" => DialStatus::NoAnswer,
        "RINGING" => DialStatus::Ringing,
        "PROGRESS" => DialStatus::Progress,
        "PROCEEDING" => DialStatus::Proceeding,
        _ => DialStatus::Other(Arc::from(word)),
    }
}

fn dtmf_end(own: Block<'_>) -> Option<EventKind> {
    Some(EventKind::DtmfEnd {
        channel: own.channel()?,
        digit: own.get("Digit")?.chars().next()?,
        received: own.is("Direction", "Received"),
        millis: own.number("DurationMs"),
    })
}

fn blind_transfer(own: Block<'_>, transferer: Block<'_>, transferee: Block<'_>) -> Option<EventKind> {
    Some(EventKind::BlindTransfer {
        success: own.is("Result", "Success"),
        transferer: transferer.channel()?,
        transferee: transferee.channel(),
        extension: own.text("Extension"),
        context: own.text("Context"),
    })
}

fn attended_transfer(own: Block<'_>) -> Option<EventKind> {
    let channel = |prefix| own.of(prefix).channel();
    Some(EventKind::AttendedTransfer {
        success: own.is("Result", "Success"),
        orig: channel("OrigTransferer")?,
        second: channel("SecondTransferer")?,
        transferee: channel("Transferee"),
        target: channel("TransferTarget"),
        dest_type: own.text("DestType"),
    })
}

fn parked(own: Block<'_>) -> Option<Parked> {
    Some(Parked {
        parkee: own.of("Parkee").channel()?,
        retriever: own.of("Retriever").channel(),
        parker: own.text("ParkerDialString"),
        space: own.text("ParkingSpace"),
    })
}

/// A queue event about a caller; needs the caller.
fn queue_caller(own: Block<'_>) -> Option<QueueEvent> {
    queue_event(own, Some(own.channel()?), None)
}

/// A queue event about a member; needs one of the two channels.
fn queue_agent(own: Block<'_>, dest: Block<'_>) -> Option<QueueEvent> {
    let (caller, dest) = (own.channel(), dest.channel());
    if caller.is_none() && dest.is_none() { None } else { queue_event(own, caller, dest) }
}

fn queue_event(own: Block<'_>, caller: Option<Channel>, dest: Option<Channel>) -> Option<QueueEvent> {
    Some(QueueEvent {
        caller,
        dest,
        queue: own.text("Queue")?,
        interface: own.text("Interface"),
        member: own.text("MemberName"),
        position: own.number("Position"),
        hold_time: own.number("HoldTime"),
        talk_time: own.number("TalkTime"),
        reason: own.text("Reason"),
    })
}

/// `cdr/cdr_manager.c`, and the mapped headers that callpost asks for. Needs party A's id or channel.
fn cdr(own: Block<'_>) -> Option<Cdr> {
    let uniqueid = own.uniqueid("UniqueID");
    let channel = own.text("Channel").map(ChannelName::new);
    if uniqueid.is_none() && channel.is_none() {
        return None;
    }
    Some(Cdr {
        uniqueid,
        linkedid: own.text("LinkedID").map(Linkedid::new),
        sequence: own.number("Sequence"),
        src: own.text("Source"),
        dst: own.text("Destination"),
        dcontext: own.text("DestinationContext"),
        clid: own.text("CallerID"),
        channel,
        dstchannel: own.text("DestinationChannel").map(ChannelName::new),
        lastapp: own.text("LastApplication"),
        lastdata: own.text("LastData"),
        start: own.text("StartTime"),
        answer: own.text("AnswerTime"),
        end: own.text("EndTime"),
        start_epoch: epoch(own, "StartEpoch"),
        answer_epoch: epoch(own, "AnswerEpoch"),
        end_epoch: epoch(own, "EndEpoch"),
        duration: own.number("Duration").unwrap_or(0),
        billsec: own.number("BillableSeconds").unwrap_or(0),
        disposition: Disposition::parse(&own.get("Disposition").unwrap_or_default()),
        did: own.text("DID"),
        recordingfile: own.text("RecordingFile"),
        accountcode: own.text("AccountCode"),
        peeraccount: own.text("PeerAccount"),
        userfield: own.text("UserField"),
    })
}

/// `CDR(answer,u)` and its like: `0.000000` where it never happened.
fn epoch(own: Block<'_>, key: &str) -> Option<Micros> {
    Micros::parse(&own.get(key)?).filter(|time| time.0 != 0)
}

/// The speaker's headers are those after `UserEvent`; the channel's stand before.
fn user_event(message: &Message, own: Block<'_>) -> Option<EventKind> {
    let mut headers = message.headers();
    let (_, name) = headers.find(|(key, _)| key.eq_ignore_ascii_case(b"UserEvent"))?;
    Some(EventKind::UserEvent {
        name: Arc::from(decode(name)),
        channel: own.channel(),
        headers: headers.map(|(key, value)| (decode(key).into(), decode(value).into())).collect(),
    })
}

/// `MessageLine0` and so on: the text's lines.
fn sms_of_lines(message: &Message, own: Block<'_>) -> Option<ModemSms> {
    let is_line = |key: &[u8]| key.get(..11).is_some_and(|start| start.eq_ignore_ascii_case(b"MessageLine"));
    let lines: Vec<_> =
        message.headers().filter(|(key, _)| is_line(key)).map(|(_, line)| decode(line)).collect();
    modem_sms(own, lines.join("\n"))
}

/// `Message` in base64; the event is [`EventKind::Other`] where it is not.
fn sms_of_base64(own: Block<'_>) -> Option<ModemSms> {
    let text = STANDARD.decode(own.get("Message").unwrap_or_default().as_bytes()).ok()?;
    modem_sms(own, decode(&text).into_owned())
}

fn modem_sms(own: Block<'_>, text: String) -> Option<ModemSms> {
    Some(ModemSms { device: own.text("Device")?, from: own.text("From")?, text })
}

fn core_show_channel(own: Block<'_>) -> Option<EventKind> {
    let duration = own.get("Duration").unwrap_or_default();
    Some(EventKind::CoreShowChannel {
        channel: own.channel()?,
        application: own.text("Application"),
        application_data: own.text("ApplicationData"),
        duration: grammar::duration(&duration).map_or(0, |(_, seconds)| seconds),
        bridge: own.text("BridgeId"),
    })
}

fn status(own: Block<'_>) -> Option<EventKind> {
    let known = |(_, value): &(Arc<str>, Arc<str>)| &**value != "(null)";
    Some(EventKind::Status {
        channel: own.channel()?,
        bridge: own.text("BridgeID"),
        dnid: own.text("DNID"),
        variables: own.all("Variable").filter_map(|value| variable(&value)).filter(known).collect(),
    })
}

/// `EventList: Complete` or `cancelled`; by its name where Asterisk 11 writes no EventList.
fn list_complete(name: &[u8], own: Block<'_>) -> Option<EventKind> {
    let ended = own.is("EventList", "Complete") || own.is("EventList", "cancelled");
    let named = name.ends_with(b"Complete") && own.get("ActionID").is_some();
    (ended || named)
        .then(|| EventKind::ListComplete { name: Arc::from(decode(name)), items: own.number("ListItems") })
}
