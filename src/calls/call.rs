//! What the tracker says: updates of legs and queue visits, texts received, CDR groups complete,
//! and the open objects as they now stand.

use std::sync::Arc;

use parsers::{Cdr, Micros};
use serde::{Deserialize, Serialize};

/// Stands for a digit that was pressed, as with `dtmf_mask`.
pub(crate) const CONCEALED: char = '*';

/// A whole call: the `src_hash` of its legs, 40 lowercase hex digits. Order is kept per call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallKey(pub Arc<str>);

/// `<pbx>.<14 hex digits>.<n>`: unique per update, the same on every retry, restart and replay.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateId(pub Arc<str>);

/// One change of a leg, of a queue visit, or a text received, with the full state after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The stable id.
    pub id: UpdateId,
    /// The whole call.
    pub call: CallKey,
    /// When it happened: the AMI event's time, else its arrival.
    pub at: Micros,
    /// What changed.
    pub body: UpdateBody,
}

impl Update {
    /// Without the digit that was pressed, which may be part of a card's number or of a PIN: it is for
    /// the receivers that asked for digits, and for nobody else's eyes or disk.
    pub fn conceal(&mut self) {
        if let UpdateBody::Leg(leg) = &mut self.body
            && let Some((digit, _)) = &mut leg.digit
        {
            *digit = CONCEALED;
        }
    }
}

/// What an update is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpdateBody {
    /// A leg or a queue visit.
    Leg(Box<LegUpdate>),
    /// A text received.
    Sms(SmsUpdate),
}

/// The webhook's event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventName {
    /// `call.initial`
    #[serde(rename = "call.initial")]
    Initial,
    /// `call.ringing`
    #[serde(rename = "call.ringing")]
    Ringing,
    /// `call.missed`
    #[serde(rename = "call.missed")]
    Missed,
    /// `call.connected`
    #[serde(rename = "call.connected")]
    Connected,
    /// `call.failed`
    #[serde(rename = "call.failed")]
    Failed,
    /// `call.hangup`
    #[serde(rename = "call.hangup")]
    Hangup,
    /// `call.hold`
    #[serde(rename = "call.hold")]
    Hold,
    /// `call.unhold`
    #[serde(rename = "call.unhold")]
    Unhold,
    /// `call.dtmf`, ours.
    #[serde(rename = "call.dtmf")]
    Dtmf,
    /// No webhook: the leg's ACCEPTED state, seen in `GET /calls` alone.
    #[serde(rename = "call.accepted")]
    Accepted,
}

/// The webhook's `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LegState {
    /// Being called.
    Initial,
    /// Click to call: the user's phone was taken.
    Accepted,
    /// It rings.
    Ringing,
    /// Talking.
    Connected,
    /// Paused.
    OnHold,
    /// Over.
    Hangup,
    /// Over, never connected, outgoing.
    Failed,
}

/// The webhook's `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Context {
    /// A leg to or from a user.
    LocalUser,
    /// A caller in a queue.
    Queue,
}

/// The webhook's `destination`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To a user.
    In,
    /// From a user to the outside.
    Out,
}

/// The webhook's `terminated_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TerminatedBy {
    /// The originator's side.
    Caller,
    /// The destination's side.
    Callee,
    /// Asterisk, the dialplan, or an action.
    System,
}

/// One side of a leg; empty text is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Number as presented; `""` when withheld.
    pub number: String,
    /// Numeric id of a local user or queue; 0 for anyone else.
    pub id: u64,
    /// Plain name.
    pub name: String,
}

/// A leg's or queue visit's full state after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LegUpdate {
    /// What happened.
    pub event: EventName,
    /// Top 53 bits of the leg's hash.
    pub call_id: u64,
    /// A queue visit's `call_id`, on the legs of its agents.
    pub parent_id: Option<u64>,
    /// State after the change.
    pub state: LegState,
    /// LOCAL_USER or QUEUE.
    pub context: Context,
    /// In or out.
    pub direction: Direction,
    /// When it began.
    pub start: Micros,
    /// When it was answered.
    pub connected: Option<Micros>,
    /// Talk time in whole seconds, once over.
    pub duration: u64,
    /// Reason for the end.
    pub cause: String,
    /// Caller as presented, `"Name" <number>`.
    pub clid: String,
    /// Origin.
    pub src: Party,
    /// Destination.
    pub dst: Party,
    /// What nothing else says, joined by `; `.
    pub info: String,
    /// Who ended it.
    pub terminated_by: Option<TerminatedBy>,
    /// `call.dtmf`: the digit, or `*` where it was concealed, and which side pressed it.
    pub digit: Option<(char, TerminatedBy)>,
}

/// A text received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmsUpdate {
    /// From the configuration.
    pub customer_id: u64,
    /// The receiving user, if known.
    pub user_id: Option<u64>,
    /// Sender's number.
    pub from: String,
    /// Receiver's number.
    pub to: String,
    /// The text.
    pub text: String,
}

/// All CDR rows of one call, complete, with what only the live tracker knows about them.
/// Folded per route into creates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CdrGroup {
    /// The whole call.
    pub call: CallKey,
    /// Rows in order of arrival.
    pub rows: Vec<CdrRow>,
    /// Where the rows come from.
    pub source: CdrSource,
}

/// Where CDR rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CdrSource {
    /// AMI's Cdr events.
    Events,
    /// The CDR store.
    Store,
    /// Made from what the tracker saw.
    Tracker,
}

/// A call became part of another: a consultation, a pickup, a call taken from its park. What is said
/// later is said of the other; the ids of its legs stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merger {
    /// When.
    pub at: Micros,
    /// The call that is none of its own any more.
    pub from: CallKey,
    /// The older one, which goes on.
    pub into: CallKey,
}

/// One row and what the tracker knows of its party A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CdrRow {
    /// The row.
    pub cdr: Cdr,
    /// The number that was called from outside: party A's first `Exten`, or the trunk's own number.
    pub did: Option<Arc<str>>,
}

/// Names one of the tracker's open objects in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectKey(pub Arc<str>);

/// What one input led to.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Calls that the input belongs to: its message goes into their traces.
    pub calls: Vec<CallKey>,
    /// Changes, in order.
    pub updates: Vec<Update>,
    /// CDR groups that are complete.
    pub groups: Vec<CdrGroup>,
    /// Open objects that changed: their new value as JSON, or `None` when they are gone.
    pub objects: Vec<(ObjectKey, Option<Vec<u8>>)>,
    /// Calls that became one.
    pub mergers: Vec<Merger>,
    /// Calls of which nothing is open any more.
    pub ended: Vec<CallKey>,
    /// Things left out on purpose, with the reason, for the counters.
    pub skipped: Vec<&'static str>,
    /// Asterisk holds a channel that no event announced: a new snapshot is wanted.
    pub resync: bool,
}
