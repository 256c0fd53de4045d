//! Typed events for those that make a call; [`EventKind::Other`] for the rest.
//! Fields and their blocks: `main/manager_channels.c`, `main/manager_bridges.c`, `apps/app_queue.c`.

use std::sync::Arc;

use crate::cdr::Cdr;
use crate::ident::{CallerId, ChannelName, Linkedid, Micros, Uniqueid};

/// One event or list item.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `Timestamp`, only with `timestampevents=yes`, never on list items.
    pub at: Option<Micros>,
    /// `Privilege` as second header: real events have it, list items and forgeries often do not.
    pub privileged: bool,
    /// `ActionID`, for list items.
    pub action_id: Option<Arc<str>>,
    /// `SystemName`, when Asterisk has one.
    pub system_name: Option<Arc<str>>,
    /// What happened.
    pub kind: EventKind,
}

/// A channel's state at the time of the event (`ChannelState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ChannelState {
    /// 0.
    Down,
    /// 1.
    Reserved,
    /// 2.
    OffHook,
    /// 3.
    Dialing,
    /// 4: a calling channel.
    Ring,
    /// 5: a called channel.
    Ringing,
    /// 6.
    Up,
    /// 7.
    Busy,
    /// 8.
    DialingOffHook,
    /// 9.
    PreRing,
    /// Any other number.
    Unknown,
}

/// The channel block: a snapshot at the time of the event.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// `Channel`.
    pub name: ChannelName,
    /// `ChannelState`.
    pub state: ChannelState,
    /// `CallerIDNum`, `CallerIDName`.
    pub caller: CallerId,
    /// `ConnectedLineNum`, `ConnectedLineName`.
    pub connected: CallerId,
    /// `AccountCode`.
    pub accountcode: Option<Arc<str>>,
    /// `Context`: moves on as the dialplan runs.
    pub context: Option<Arc<str>>,
    /// `Exten`: the DID only in a trunk channel's first Newchannel.
    pub exten: Option<Arc<str>>,
    /// `Uniqueid`.
    pub uniqueid: Uniqueid,
    /// `Linkedid`; the uniqueid itself where the event has none.
    pub linkedid: Linkedid,
    /// `ChanVariable: n=v`, unescaped, in order.
    pub variables: Vec<(Arc<str>, Arc<str>)>,
}

/// The bridge block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// `BridgeUniqueid`.
    pub id: Arc<str>,
    /// `BridgeType`: `basic`, `base`, `parking`, `stasis`, `agent hold`.
    pub kind: Arc<str>,
}

/// `DialStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialStatus {
    /// Really accepted, after screening.
    Answer,
    /// 486 and the like.
    Busy,
    /// The caller gave up, or another leg won.
    Cancel,
    /// No channel could be made.
    ChanUnavail,
    /// 503 and the like.
    Congestion,
    /// Timeout, decline, 404, 480.
    NoAnswer,
    /// DialState: it rings.
    Ringing,
    /// DialState: early media.
    Progress,
    /// DialState.
    Proceeding,
    /// `ABORT`, `CONTINUE`, `GOTO:…`, `DONTCALL`, `TORTURE`, or a word yet to come.
    Other(Arc<str>),
}

/// DialBegin, DialState, DialEnd.
#[derive(Clone, Debug, PartialEq)]
pub struct Dial {
    /// Absent when originated.
    pub caller: Option<Channel>,
    /// The `Dest…` block.
    pub dest: Channel,
    /// `DialString`, on DialBegin.
    pub dial_string: Option<Arc<str>>,
    /// `DialStatus`, on DialState and DialEnd.
    pub status: Option<DialStatus>,
    /// `Forward`, on DialEnd: the diverting target.
    pub forward: Option<Arc<str>>,
}

/// What a caller does in a queue, and what its members do.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueEvent {
    /// The caller; absent on AgentComplete after some transfers.
    pub caller: Option<Channel>,
    /// The member's channel, where the event has one.
    pub dest: Option<Channel>,
    /// `Queue`.
    pub queue: Arc<str>,
    /// `Interface`.
    pub interface: Option<Arc<str>>,
    /// `MemberName`.
    pub member: Option<Arc<str>>,
    /// `Position`.
    pub position: Option<u32>,
    /// `HoldTime`, seconds.
    pub hold_time: Option<u64>,
    /// `TalkTime`, seconds.
    pub talk_time: Option<u64>,
    /// AgentComplete's `Reason`: `caller`, `agent`, `transfer`.
    pub reason: Option<Arc<str>>,
}

/// ParkedCall and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// The parked channel.
    pub parkee: Channel,
    /// UnParkedCall: who fetched it.
    pub retriever: Option<Channel>,
    /// `ParkerDialString`.
    pub parker: Option<Arc<str>>,
    /// `ParkingSpace`.
    pub space: Option<Arc<str>>,
}

/// A text message of a GSM modem (chan_dongle, chan_quectel).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModemSms {
    /// `Device`.
    pub device: Arc<str>,
    /// `From`.
    pub from: Arc<str>,
    /// The text: lines joined by LF, or base64 decoded.
    pub text: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is read and folded; a box would cost each event"
)]
pub enum EventKind {
    /// A channel's first snapshot.
    Newchannel(Channel),
    /// Its ChannelState changed.
    Newstate(Channel),
    /// Its caller id changed.
    NewCallerid(Channel),
    /// Its connected line changed.
    NewConnectedLine(Channel),
    /// `Rename`: a channel's new name.
    Rename {
        /** Whose. */
        uniqueid: Uniqueid,
        /** The new name. */
        newname: ChannelName,
    },
    /// Somebody outside asked to hang up.
    HangupRequest {
        /** Whose. */
        channel: Channel,
        /** `Cause`. */
        cause: Option<u32>,
    },
    /// Asterisk itself asked.
    SoftHangupRequest {
        /** Whose. */
        channel: Channel,
        /** `Cause`. */
        cause: Option<u32>,
    },
    /// The channel is gone.
    Hangup {
        /** Which. */
        channel: Channel,
        /** `Cause`, an ISDN cause as SIP mapped it. */
        cause: u32,
        /** `Cause-txt`. */
        cause_txt: Option<Arc<str>>,
        /** `TechCause`, the SIP code; 20.17, 22.7 and later. */
        tech_cause: Option<Arc<str>>,
    },
    /// A destination is being dialled.
    DialBegin(Dial),
    /// It rings or has early media (14 and later).
    DialState(Dial),
    /// One destination's end.
    DialEnd(Dial),
    /// A channel came into a bridge, perhaps in another's place (`SwapUniqueid`).
    BridgeEnter {
        /** Which. */
        bridge: Bridge,
        /** Who. */
        channel: Channel,
        /** In whose place. */
        swap: Option<Uniqueid>,
    },
    /// A channel left a bridge.
    BridgeLeave {
        /** Which. */
        bridge: Bridge,
        /** Who. */
        channel: Channel,
    },
    /// All of `from` go to `to`.
    BridgeMerge {
        /** Where to. */
        to: Bridge,
        /** Where from. */
        from: Bridge,
    },
    /// A bridge is gone.
    BridgeDestroy(Bridge),
    /// The device pressed hold.
    Hold(Channel),
    /// The device ended hold, or a transfer did so without one.
    Unhold(Channel),
    /// A digit's end; `received` when it came from that channel's device.
    DtmfEnd {
        /** Whose. */
        channel: Channel,
        /** `Digit`. */
        digit: char,
        /** `Direction: Received`. */
        received: bool,
        /** `DurationMs`; 0 for a digit that an action played, not a key. */
        millis: Option<u32>,
    },
    /// REFER, feature code or AMI.
    BlindTransfer {
        /** `Result: Success`. */
        success: bool,
        /** Who transferred. */
        transferer: Channel,
        /** Who was sent on; absent if more than one. */
        transferee: Option<Channel>,
        /** Where to. */
        extension: Option<Arc<str>>,
        /** In which context. */
        context: Option<Arc<str>>,
    },
    /// An attended transfer, completed or blonde.
    AttendedTransfer {
        /** `Result: Success`. */
        success: bool,
        /** The transferer's first channel. */
        orig: Channel,
        /** The transferer's second channel. */
        second: Channel,
        /** Who was sent on. */
        transferee: Option<Channel>,
        /** Who receives. */
        target: Option<Channel>,
        /** `DestType`: Bridge, App, Link, Threeway, Fail. */
        dest_type: Option<Arc<str>>,
    },
    /// One took another's ringing call.
    Pickup {
        /** Who took it. */
        picker: Channel,
        /** Who was ringing. */
        target: Channel,
    },
    /// The halves of a Local channel are joined.
    LocalBridge {
        /** `;1`. */
        one: Channel,
        /** `;2`. */
        two: Channel,
    },
    /// Parked.
    ParkedCall(Parked),
    /// Nobody fetched it in time.
    ParkedCallTimeOut(Parked),
    /// The parked party hung up.
    ParkedCallGiveUp(Parked),
    /// Somebody fetched it.
    UnParkedCall(Parked),
    /// A channel joined a conference.
    ConfbridgeJoin {
        /** Who. */
        channel: Channel,
        /** Which. */
        conference: Arc<str>,
    },
    /// A channel left a conference.
    ConfbridgeLeave {
        /** Who. */
        channel: Channel,
        /** Which. */
        conference: Arc<str>,
    },
    /// A caller entered a queue.
    QueueCallerJoin(QueueEvent),
    /// A caller left it, answered or not.
    QueueCallerLeave(QueueEvent),
    /// A caller gave up or was given up.
    QueueCallerAbandon(QueueEvent),
    /// A member is being rung.
    AgentCalled(QueueEvent),
    /// A member took the call.
    AgentConnect(QueueEvent),
    /// A member's call is over.
    AgentComplete(QueueEvent),
    /// A member did not answer.
    AgentRingNoAnswer(QueueEvent),
    /// A member dropped the caller.
    AgentDump(QueueEvent),
    /// The late result of an Originate.
    OriginateResponse {
        /** Which action. */
        action_id: Option<Arc<str>>,
        /** `Response: Success`. */
        success: bool,
        /** The channel, unless it failed. */
        uniqueid: Option<Uniqueid>,
        /** `Reason`, an AST_CONTROL number. */
        reason: Option<u32>,
    },
    /// A call detail record.
    Cdr(Box<Cdr>),
    /// The dialplan or another program says something.
    UserEvent {
        /** `UserEvent`, its name. */
        name: Arc<str>,
        /** The channel that said it. */
        channel: Option<Channel>,
        /** Every other header, as text. */
        headers: Vec<(Arc<str>, Arc<str>)>,
    },
    /// A text message by a modem.
    ModemSms(ModemSms),
    /// Asterisk is up.
    FullyBooted {
        /** Seconds, from 16 on. */
        uptime: Option<u64>,
    },
    /// Asterisk goes down.
    Shutdown {
        /** Comes back. */
        restart: bool,
    },
    /// Something was re-read.
    Reload {
        /** Which module, `All` for all. */
        module: Option<Arc<str>>,
    },
    /// CoreShowChannels' item.
    CoreShowChannel {
        /** Which. */
        channel: Channel,
        /** What it runs. */
        application: Option<Arc<str>>,
        /** With what. */
        application_data: Option<Arc<str>>,
        /** Seconds since it was made. */
        duration: u64,
        /** The bridge it is in. */
        bridge: Option<Arc<str>>,
    },
    /// Status' item: the variables that were asked for, `CDR(start,u)` and so on.
    Status {
        /** Which. */
        channel: Channel,
        /** The bridge it is in. */
        bridge: Option<Arc<str>>,
        /** `DNID`: what a channel that called us dialled. */
        dnid: Option<Arc<str>>,
        /** `Variable: name=value`; `(null)` is left out. */
        variables: Vec<(Arc<str>, Arc<str>)>,
    },
    /// BridgeList's item.
    BridgeListItem(Bridge),
    /// QueueStatus' item: a caller that waits.
    QueueEntry {
        /** Which queue. */
        queue: Arc<str>,
        /** The caller. */
        uniqueid: Uniqueid,
        /** The caller's channel. */
        channel: Option<ChannelName>,
        /** Seconds it waits. */
        wait: u64,
        /** Its place. */
        position: Option<u32>,
    },
    /// PJSIPShowEndpoints' item.
    EndpointList {
        /** `ObjectName`. */
        name: Arc<str>,
        /** `Auths`: it proves who it is, as a phone does. */
        auths: Option<Arc<str>>,
        /** `OutboundAuths`: we prove who we are, as to a carrier. */
        outbound_auths: Option<Arc<str>>,
    },
    /// The end of a list (`EventList: Complete` or `cancelled`).
    ListComplete {
        /** The event's name. */
        name: Arc<str>,
        /** `ListItems`. */
        items: Option<u64>,
    },
    /// Anything else, by name.
    Other(Arc<str>),
}
