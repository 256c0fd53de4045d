//! The tracker's objects, each of which is one small JSON value in the journal, and their limits.

use std::sync::Arc;

use parsers::ami::ChannelState;
use parsers::{CallerId, ChannelName, Linkedid, Micros, Uniqueid};
use serde::{Deserialize, Serialize};

use super::call::{CdrRow, Direction, LegState, Party};
use super::direction::Side;

/// Live channels at most: a large PBX holds a few thousand, so more is somebody who invents them.
pub(super) const MAX_CHANNELS: usize = 10_000;
/// Channels at most, ended ones whose call waits for its CDR rows among them.
pub(super) const MAX_HELD: usize = 20_000;
/// Open legs and queue visits of all calls at most.
pub(super) const MAX_OPEN: usize = 10_000;
/// Queues that one caller can be in: one, unless an event was lost.
pub(super) const MAX_VISITS: usize = 8;
/// Phones learned from Asterisk's list at most, about 100 bytes each.
pub(super) const MAX_ENDPOINTS: usize = 20_000;
/// Ended channels kept for one call: a queue that retries busy agents makes them without end.
pub(super) const MAX_DEAD: usize = 256;
/// Open legs of one call at most: no ring group is larger.
pub(super) const MAX_LEGS: usize = 512;
/// Linkedids merged into one call at most.
pub(super) const MAX_LINKS: usize = 64;
/// Bytes of one list of ids in a call's object, which has four and stays below the journal's 16 KiB.
pub(super) const MAX_LIST: usize = 1792;
/// CDR rows of one call at most; a queue visit of hours makes some thousands.
pub(super) const MAX_ROWS: usize = 4096;
/// CDR rows of all calls at most.
pub(super) const MAX_ALL_ROWS: usize = 8192;
/// Ended calls remembered for late CDR rows at most.
pub(super) const MAX_DONE: usize = 20_000;
/// Bytes kept of any text from outside; Asterisk's own names, extensions and CDR fields are shorter.
pub(super) const MAX_TEXT: usize = 256;
/// Entries of a leg's `info`, and channels that hold it, at most: real calls have two or three.
pub(super) const MAX_NOTES: usize = 8;
/// Asterisk's own limit of a uniqueid (`AST_MAX_PUBLIC_UNIQUEID`); a longer one is not Asterisk's.
const MAX_ID: usize = 149;
/// A channel without an end after this time lost it: longer than any call, shorter than for ever.
pub(super) const MAX_AGE: i64 = 7 * 24 * 3600 * 1000;

/// The latest end of a dial attempt, `DialStatus` of DialEnd; the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    #[serde(rename = "a")]
    Answer,
    #[serde(rename = "b")]
    Busy,
    #[serde(rename = "c")]
    Cancel,
    #[serde(rename = "f")]
    Failed,
    #[serde(rename = "n")]
    NoAnswer,
    #[serde(rename = "o")]
    Other,
}

/// How a channel was dialled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Dialled {
    /// By whom; `None`: originated.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Uniqueid>,
    /// Since when.
    #[serde(rename = "t")]
    pub at: Micros,
    /// It rang, or early media came.
    #[serde(rename = "r", default, skip_serializing_if = "is_false")]
    pub rang: bool,
    /// How it ended.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When it ended.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Micros>,
    /// 302: where to.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Arc<str>>,
    /// The calling leg whose destination it is.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<LegKey>,
}

impl Dialled {
    /// Just begun.
    pub(super) const fn new(by: Option<Uniqueid>, at: Micros) -> Self {
        Self { by, at, rang: false, outcome: None, end: None, forward: None, leg: None }
    }
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chan {
    #[serde(rename = "i")]
    pub id: Uniqueid,
    #[serde(rename = "n")]
    pub name: ChannelName,
    /// The whole call it belongs to.
    #[serde(rename = "c")]
    pub call: Linkedid,
    /// Its linkedid, as last seen.
    #[serde(rename = "l")]
    pub linked: Linkedid,
    #[serde(rename = "w")]
    pub side: Side,
    #[serde(rename = "s")]
    pub state: ChannelState,
    /// Born in state Ring: it called us.
    #[serde(rename = "r", default, skip_serializing_if = "is_false")]
    pub incoming: bool,
    #[serde(rename = "t")]
    pub start: Micros,
    /// First seen Up.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Micros>,
    #[serde(rename = "a", default)]
    pub caller: CallerId,
    /// Connected line's name.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Arc<str>>,
    /// Its first extension and context: both move on later.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub exten: Option<Arc<str>>,
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Arc<str>>,
    /// The number that was called from outside.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub did: Option<Arc<str>>,
    /// The other half of a Local channel.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<Uniqueid>,
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    pub dial: Option<Dialled>,
    /// It dialled somebody.
    #[serde(rename = "z", default, skip_serializing_if = "is_false")]
    pub dials: bool,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Arc<str>>,
    /// First HangupRequest from outside, not one that Asterisk's own refusal caused.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub hangup_request: Option<Micros>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Micros>,
    /// Hangup's cause and text.
    #[serde(rename = "e", default, skip_serializing_if = "is_zero")]
    pub cause: u32,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub cause_txt: Option<Arc<str>>,
    /// It picks up this ringing channel.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub picks: Option<Uniqueid>,
    /// Another one picked it up.
    #[serde(rename = "v", default, skip_serializing_if = "is_false")]
    pub picked: bool,
    /// Legs and queue visits that were anchored here.
    #[serde(rename = "m", default, skip_serializing_if = "is_zero")]
    pub legs: u32,
    #[serde(rename = "j", default, skip_serializing_if = "is_zero")]
    pub visits: u32,
    /// Ordinals of the first leg and the first visit: above 0 where the id was used before, or may be.
    #[serde(rename = "ac", default, skip_serializing_if = "is_zero")]
    pub first_leg: u32,
    #[serde(rename = "ad", default, skip_serializing_if = "is_zero")]
    pub first_visit: u32,
    /// Audits in a row that did not list it.
    #[serde(rename = "aa", default, skip_serializing_if = "is_zero")]
    pub missed: u32,
    /// It was there before a gap that no list bridges: given up then, unless it is heard of.
    #[serde(rename = "ab", default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Micros>,
}

impl Chan {
    pub(super) fn alive(&self) -> bool {
        self.gone.is_none()
    }

    /// Party A of a CDR: it called, or dialled, or was originated.
    pub(super) fn party_a(&self) -> bool {
        self.dials || self.dial.as_ref().is_none_or(|dial| dial.by.is_none())
    }
}

/// What a leg is a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LegKind {
    /// A user's phone is called.
    #[serde(rename = "d")]
    Called,
    /// A user calls out.
    #[serde(rename = "g")]
    Calling,
    /// Originated: the user's phone first, then the destination.
    #[serde(rename = "o")]
    Click,
    /// A user in a conference.
    #[serde(rename = "f")]
    Conference,
    /// A caller in a queue.
    #[serde(rename = "q")]
    Queue,
}

/// Names a leg: its first channel, and which of that channel's legs (or visits) it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LegKey {
    #[serde(rename = "q", default, skip_serializing_if = "is_false")]
    pub queue: bool,
    #[serde(rename = "a")]
    pub anchor: Uniqueid,
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub n: u32,
}

/// An open leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Leg {
    #[serde(rename = "k")]
    pub key: LegKey,
    #[serde(rename = "y")]
    pub kind: LegKind,
    /// The whole call now, and the hash that was published for it.
    #[serde(rename = "c")]
    pub call: Linkedid,
    #[serde(rename = "h")]
    pub hash: Arc<str>,
    /// The channel that carries it: the anchor, or a queue's later attempt at the same phone.
    #[serde(rename = "i")]
    pub cur: Uniqueid,
    /// Updates so far.
    #[serde(rename = "n")]
    pub count: u64,
    #[serde(rename = "s")]
    pub state: LegState,
    #[serde(rename = "t")]
    pub start: Micros,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Micros>,
    /// The last time it was heard of.
    #[serde(rename = "l")]
    pub last: Micros,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<LegKey>,
    /// The originator's channel.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Uniqueid>,
    /// The other party's channel: last bridged, else last dialled.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Uniqueid>,
    #[serde(rename = "w")]
    pub direction: Direction,
    #[serde(rename = "a")]
    pub src: Party,
    #[serde(rename = "b")]
    pub dst: Party,
    #[serde(rename = "d", default)]
    pub clid: String,
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Arc<str>>,
    /// Who holds.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Uniqueid>,
    /// Its own user transferred or parked the other party.
    #[serde(rename = "x", default, skip_serializing_if = "is_false")]
    pub transferred: bool,
    /// Its channel is gone, or its caller left the queue: the end is decided at `due`.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Micros>,
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Micros>,
}

/// Where a whole call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Some channel is there.
    #[serde(rename = "l")]
    Live,
    /// All are gone; CDR rows may come.
    #[serde(rename = "w")]
    Waiting,
    /// Its CDR group was closed; kept for rows that come late.
    #[serde(rename = "d")]
    Done,
}

/// A whole call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    /// Its oldest linkedid.
    #[serde(rename = "k")]
    pub key: Linkedid,
    #[serde(rename = "h")]
    pub hash: Arc<str>,
    /// Hashes of calls that were merged into it.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Arc<str>>,
    /// Every linkedid of it, its own left out.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Linkedid>,
    #[serde(rename = "p")]
    pub phase: Phase,
    #[serde(rename = "t")]
    pub began: Micros,
    /// When its last channel went.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Micros>,
    /// Some leg or visit of it was reported.
    #[serde(rename = "r", default, skip_serializing_if = "is_false")]
    pub reported: bool,
    /// It went with an Asterisk that died: no CDR will come.
    #[serde(rename = "x", default, skip_serializing_if = "is_false")]
    pub lost: bool,
    /// The next CDR row's number.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub next_row: u32,
    /// Parties A whose rows left already.
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Uniqueid>,
    /// Once done: parties A with their DID.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub parties: Vec<(Uniqueid, Option<Arc<str>>)>,
    /// Channels that had legs and are not kept any more.
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub anchors: Vec<Anchor>,
    #[serde(rename = "z")]
    pub due: Micros,
}

/// What is left of a channel that had legs: ordinals that its id must not use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Anchor {
    #[serde(rename = "i")]
    pub id: Uniqueid,
    /// The next leg's, and the next visit's.
    #[serde(rename = "m", default, skip_serializing_if = "is_zero")]
    pub legs: u32,
    #[serde(rename = "j", default, skip_serializing_if = "is_zero")]
    pub visits: u32,
}

/// One CDR row that waits for its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "c")]
    pub call: Linkedid,
    #[serde(rename = "n")]
    pub n: u32,
    #[serde(rename = "r")]
    pub row: CdrRow,
}

/// What is known of the Cdr events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CdrFeed {
    /// Nothing yet.
    #[default]
    #[serde(rename = "u")]
    Unknown,
    /// They come.
    #[serde(rename = "e")]
    Events,
    /// An answered call had none.
    #[serde(rename = "s")]
    Silent,
}

/// What is known of Asterisk as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// `CoreStartupDate` and time, as text.
    #[serde(rename = "s", default)]
    pub startup: String,
    /// The connection was lost at that time.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Micros>,
    #[serde(rename = "c", default)]
    pub feed: CdrFeed,
    /// Lateness of Cdr events in batch mode, microseconds, and when it was last seen.
    #[serde(rename = "d", default)]
    pub delay: i64,
    #[serde(rename = "e", default)]
    pub delay_seen: Micros,
    /// The last Cdr event, to the minute.
    #[serde(rename = "f", default)]
    pub feed_seen: Micros,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A text from outside: cut to [`MAX_TEXT`] bytes, and without control characters, which would
/// swell in JSON.
pub(super) fn clip(text: &Arc<str>) -> Arc<str> {
    if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
        return text.clone();
    }
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().replace(char::is_control, " ").into()
}

/// Whether this id or name can be one: others may choose it, but nothing that swells in JSON.
pub(super) fn is_sane(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && !id.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_are_cut_at_characters_and_lose_controls() {
        let long: Arc<str> = "é".repeat(200).into();
        assert_eq!(&*clip(&long), "é".repeat(128));
        assert_eq!(&*clip(&"a\r\nb\u{7f}c".into()), "a  b c");
        assert_eq!(&*clip(&"Ana O'Hara".into()), "Ana O'Hara");
        assert!(!is_sane("1\"") && !is_sane("1\\"));
        assert!(is_sane("1795252767.1") && !is_sane("") && !is_sane("1\n") && !is_sane(&"1".repeat(150)));
    }
}
