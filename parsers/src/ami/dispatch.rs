//! From a message to a typed event: one match on the event's name, one small reader a kind.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::block::{Block, shared, variable};
use super::event::{ModemSms, Parked, QueueEvent};
use super::text::decode;
use super::{Channel, Dial, DialStatus, Event, EventKind, Kind, Message, grammar};
use crate::cdr::{Cdr, Disposition};
use crate::ident::{ChannelName, Linkedid, Micros};

impl Event {
    /// Reads a message that begins with `Event:`; `None` for any other. An event that lacks what
    /// its kind needs is `Other`.
    pub fn parse(message: &Message) -> Option<Self> {
        if message.kind() != Kind::Event {
            return None;
        }
        let own = Block::new(message, "");
        Some(Self {
            at: own.raw("Timestamp").and_then(micros),
            privileged: message
                .headers()
                .nth(1)
                .is_some_and(|(key, _)| key.eq_ignore_ascii_case(b"Privilege")),
            action_id: own.text("ActionID"),
            system_name: own.text("SystemName"),
            kind: kind(message, own).unwrap_or_else(|| EventKind::Other(shared(message.raw_name()))),
        })
    }
}

/// What happened; `None` for a name that is not ours, and when the kind's needs are not met.
fn kind(message: &Message, own: Block<'_>) -> Option<EventKind> {
    let of = |prefix| Block::new(message, prefix);
    Some(match message.raw_name() {
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
        b"AttendedTransfer" => attended_transfer(message, own)?,
        b"Pickup" => EventKind::Pickup { picker: own.channel()?, target: of("Target").channel()? },
        b"LocalBridge" => {
            EventKind::LocalBridge { one: of("LocalOne").channel()?, two: of("LocalTwo").channel()? }
        }
        b"ParkedCall" => EventKind::ParkedCall(parked(message)?),
        b"ParkedCallTimeOut" => EventKind::ParkedCallTimeOut(parked(message)?),
        b"ParkedCallGiveUp" => EventKind::ParkedCallGiveUp(parked(message)?),
        b"UnParkedCall" => EventKind::UnParkedCall(parked(message)?),
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
        b"Status" => status(message, own)?,
        b"BridgeListItem" => EventKind::BridgeListItem(own.bridge()?),
        b"QueueEntry" => EventKind::QueueEntry {
            queue: own.text("Queue")?,
            uniqueid: own.uniqueid("Uniqueid")?,
            channel: own.text("Channel").map(ChannelName::new),
            wait: own.number("Wait").unwrap_or(0),
            position: own.number("Position"),
        },
        b"EndpointList" => EventKind::EndpointList { name: own.text("ObjectName")? },
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
        status: own.raw("DialStatus").map(dial_status),
        forward: own.text("Forward"),
    })
}

fn dial_status(word: &[u8]) -> DialStatus {
    match word {
        b"ANSWER" => DialStatus::Answer,
        b"BUSY" => DialStatus::Busy,
        b"CANCEL" => DialStatus::Cancel,
        b"CHANUNAVAIL" => DialStatus::ChanUnavail,
        b"CONGESTION" => DialStatus::Congestion,
        b"NOANSWER" => DialStatus::NoAnswer,
        b"RINGING" => DialStatus::Ringing,
        b"PROGRESS" => DialStatus::Progress,
        b"PROCEEDING" => DialStatus::Proceeding,
        other => DialStatus::Other(shared(other)),
    }
}

fn dtmf_end(own: Block<'_>) -> Option<EventKind> {
    let digit = decode(own.raw("Digit")?).chars().next()?;
    Some(EventKind::DtmfEnd {
        channel: own.channel()?,
        digit,
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

fn attended_transfer(message: &Message, own: Block<'_>) -> Option<EventKind> {
    let channel = |prefix| Block::new(message, prefix).channel();
    Some(EventKind::AttendedTransfer {
        success: own.is("Result", "Success"),
        orig: channel("OrigTransferer")?,
        second: channel("SecondTransferer")?,
        transferee: channel("Transferee"),
        target: channel("TransferTarget"),
        dest_type: own.text("DestType"),
    })
}

fn parked(message: &Message) -> Option<Parked> {
    let own = Block::new(message, "");
    Some(Parked {
        parkee: Block::new(message, "Parkee").channel()?,
        retriever: Block::new(message, "Retriever").channel(),
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
        disposition: Disposition::parse(&decode(own.raw("Disposition").unwrap_or_default())),
        did: own.text("DID"),
        recordingfile: own.text("RecordingFile"),
        accountcode: own.text("AccountCode"),
        peeraccount: own.text("PeerAccount"),
        userfield: own.text("UserField"),
    })
}

/// `CDR(answer,u)` and its like: `0.000000` where it never happened.
fn epoch(own: Block<'_>, key: &str) -> Option<Micros> {
    own.raw(key).and_then(micros).filter(|time| time.0 != 0)
}

fn micros(raw: &[u8]) -> Option<Micros> {
    Micros::parse(std::str::from_utf8(raw).ok()?)
}

/// The speaker's headers are those after `UserEvent`; the channel's stand before.
fn user_event(message: &Message, own: Block<'_>) -> Option<EventKind> {
    let mut headers = message.headers();
    let (_, name) = headers.find(|(key, _)| key.eq_ignore_ascii_case(b"UserEvent"))?;
    Some(EventKind::UserEvent {
        name: shared(name),
        channel: own.channel(),
        headers: headers.map(|(key, value)| (shared(key), shared(value))).collect(),
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
    let text = STANDARD.decode(own.raw("Message").unwrap_or_default()).ok()?;
    modem_sms(own, decode(&text).into_owned())
}

fn modem_sms(own: Block<'_>, text: String) -> Option<ModemSms> {
    Some(ModemSms { device: own.text("Device")?, from: own.text("From")?, text })
}

fn core_show_channel(own: Block<'_>) -> Option<EventKind> {
    let duration = decode(own.raw("Duration").unwrap_or_default());
    Some(EventKind::CoreShowChannel {
        channel: own.channel()?,
        application: own.text("Application"),
        application_data: own.text("ApplicationData"),
        duration: grammar::duration(&duration).map_or(0, |(_, seconds)| seconds),
        bridge: own.text("BridgeId"),
    })
}

fn status(message: &Message, own: Block<'_>) -> Option<EventKind> {
    let known = |(_, value): &(Arc<str>, Arc<str>)| &**value != "(null)";
    Some(EventKind::Status {
        channel: own.channel()?,
        bridge: own.text("BridgeID"),
        variables: message
            .get_all("Variable")
            .filter_map(|raw| variable(&decode(raw)))
            .filter(known)
            .collect(),
    })
}

/// `EventList: Complete` or `cancelled`; by its name where Asterisk 11 writes no EventList.
fn list_complete(name: &[u8], own: Block<'_>) -> Option<EventKind> {
    let ended = own.is("EventList", "Complete") || own.is("EventList", "cancelled");
    let named = name.ends_with(b"Complete") && own.raw("ActionID").is_some();
    (ended || named).then(|| EventKind::ListComplete { name: shared(name), items: own.number("ListItems") })
}
