//! What passes into and out of the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use parsers::{Cdr, Micros, Uniqueid};
use serde::{Deserialize, Serialize};

use crate::calls::{CONCEALED, CallKey, Merger, ObjectKey, Update, UpdateId};
use crate::metrics::Histogram;

/// A route's name, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteId(pub Arc<str>);

impl RouteId {
    /// The low lane of a NiMbox route, for its history: a route of its own in the journal. Configured
    /// names cannot hold the slash.
    pub fn history(&self) -> Self {
        Self(format!("{}{HISTORY}", self.sink().0).into())
    }

    /// The route as configured, whose sink serves both lanes.
    pub fn sink(&self) -> Self {
        self.0.strip_suffix(HISTORY).map_or_else(|| self.clone(), |sink| Self(sink.into()))
    }

    /// Whether it is a low lane.
    pub fn is_history(&self) -> bool {
        self.0.ends_with(HISTORY)
    }

    /// Whether a delivery on that route is meant where this one is named: a sink means both lanes.
    pub fn covers(&self, route: &Self) -> bool {
        self == route || (route.is_history() && *self == route.sink())
    }
}

/// Ends the name of a low lane.
const HISTORY: &str = "/history";

/// One atomic append: all of it is on disk after the acknowledgement, or none.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// AMI messages that mattered, for the traces.
    pub messages: Vec<Traced>,
    /// Updates, in order.
    pub updates: Vec<Update>,
    /// CDR rows of complete groups, for the history.
    pub cdrs: Vec<(CallKey, Cdr)>,
    /// One entry for each route that wants each update; in order per call and route.
    pub outbox: Vec<Outgoing>,
    /// The tracker's open objects that changed; `None`: gone.
    pub objects: Vec<(ObjectKey, Option<Vec<u8>>)>,
    /// Calls that became one: the trace of each has both.
    pub mergers: Vec<Merger>,
    /// Calls of which nothing is open any more.
    pub ended: Vec<CallKey>,
    /// Left out on purpose: route (or `""`), reason; counted.
    pub skipped: Vec<(RouteId, String)>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records() == 0 && self.ended.is_empty() && self.skipped.is_empty()
    }

    /// Records it will make, about.
    pub fn records(&self) -> usize {
        self.messages.len()
            + self.updates.len()
            + self.cdrs.len()
            + self.outbox.len()
            + self.objects.len()
            + self.mergers.len()
    }
}

/// One AMI message in the traces of its calls.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The calls it belongs to.
    pub calls: Vec<CallKey>,
    /// What is kept of it.
    pub message: TraceMessage,
}

/// What is kept of an AMI message: only headers that the tracker or the ladder reads, each value
/// cut at 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceMessage {
    /// Event time, else arrival.
    pub at: Micros,
    /// The event's name.
    pub name: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
}

/// One delivery to be made.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which route.
    pub route: RouteId,
    /// The id that goes with every attempt.
    pub id: UpdateId,
    /// Whose order it keeps; routes without order (nimbox) ignore it.
    pub call: CallKey,
    /// Holds later deliveries of this call on this route until it is settled.
    pub ordered: bool,
    /// Of a create: party A, where it is known.
    pub party: Option<Uniqueid>,
    /// Of a create: when what it tells of began.
    pub start: Option<Micros>,
    /// What is sent, computed once.
    pub payload: Payload,
}

/// What is sent: the exact strings, never computed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Payload {
    /// A webhook's body.
    Webhook {
        /// `call.initial`, `sms.received`, `test`…
        event: String,
        /// The JSON text.
        body: String,
    },
    /// A NiMbox create, without its token.
    Nimbox {
        /// Key, part 1.
        initiated: String,
        /// Key, part 2.
        source: String,
        /// Key, part 3.
        destination: String,
        /// Seconds.
        duration: Option<u64>,
        /// Link shown with the call.
        url: Option<String>,
    },
}

impl Payload {
    /// For eyes and for the history: without the digit of a `call.dtmf`, which is for its receiver
    /// alone. Says whether there was one.
    pub fn conceal(&mut self) -> bool {
        let Self::Webhook { event, body } = self else { return false };
        if event != "call.dtmf" {
            return false;
        }
        // within a text a quote follows a backslash, so this is the attribute
        if let Some(start) = body.rfind(DIGIT).map(|at| at + DIGIT.len())
            && let Some(length) = body[start..].find('"')
        {
            body.replace_range(start..start + length, CONCEALED.encode_utf8(&mut [0; 4]));
        }
        true
    }
}

/// Before a digit in a webhook's body.
const DIGIT: &str = r#","digit":""#;

/// Where a delivery stands in the outbox: generation and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryKey {
    /// The generation's number.
    pub generation: u64,
    /// The record's number in it.
    pub sequence: u64,
}

/// One delivery handed to a worker; it stays the worker's until settled or until a restart.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it stands.
    pub key: DeliveryKey,
    /// Which route.
    pub route: RouteId,
    /// The id that goes with every attempt.
    pub id: UpdateId,
    /// The whole call.
    pub call: CallKey,
    /// `Callpost-Sequence`: rises within a call on a route.
    pub sequence: u64,
    /// Attempts made so far.
    pub attempts: u32,
    /// How the last of them ended, those that did not count included.
    pub last: Option<Settlement>,
    /// When it was appended.
    pub accepted: Micros,
    /// What is sent.
    pub payload: Payload,
}

/// How an attempt ended, for the journal. `status` is the HTTP status, `answer` at most its first
/// 1 KiB, secrets removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Settlement {
    /// Done.
    Delivered {
        /** HTTP status. */
        status: Option<u16>,
        /** Start of the answer. */
        answer: String,
    },
    /// Try again at that time. `costs`: counts as an attempt (not behind an open breaker).
    Retry {
        /** When. */
        at: Micros,
        /** Why. */
        why: String,
        /** HTTP status. */
        status: Option<u16>,
        /** Counts. */
        costs: bool,
    },
    /// A dead letter, kept with its reason until someone decides.
    Dead {
        /** Why. */
        why: String,
        /** HTTP status. */
        status: Option<u16>,
        /** Start of the answer. */
        answer: String,
    },
    /// A business refusal that is settled for good: counted, no alarm.
    Refused {
        /** Why. */
        why: String,
        /** Start of the answer. */
        answer: String,
    },
    /// Given back untouched: the route paused or the agent stops.
    Released,
}

impl Settlement {
    /// Without what the receiver answered: some say back what they got.
    pub(super) fn conceal(&mut self) {
        match self {
            Self::Delivered { answer, .. } | Self::Dead { answer, .. } | Self::Refused { answer, .. } => {
                answer.clear();
            }
            Self::Retry { .. } | Self::Released => {}
        }
    }
}

/// A delivery given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stood.
    pub key: DeliveryKey,
    /// Which route.
    pub route: RouteId,
    /// Its id.
    pub id: UpdateId,
    /// The whole call.
    pub call: CallKey,
    /// It keeps the order of its call.
    pub ordered: bool,
    /// Of a create: party A, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<Uniqueid>,
    /// What was to be sent.
    pub payload: Payload,
    /// Why it was given up.
    pub why: String,
    /// HTTP status of the last attempt.
    pub status: Option<u16>,
    /// Start of the last answer.
    pub answer: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it was appended.
    pub accepted: Micros,
    /// When it was given up.
    pub died: Micros,
}

/// How the journal is opened.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Where.
    pub directory: PathBuf,
    /// Hard limit, bytes.
    pub max_size: u64,
    /// How long history stays.
    pub keep: Duration,
    /// `pbx.name`: stored; another name is refused while anything is open.
    pub pbx: String,
    /// Records after which a generation is sealed; smaller in tests.
    pub generation_records: u64,
}

#[cfg(test)]
impl JournalOptions {
    /// What most tests open one with.
    pub(crate) fn of_tests(directory: &std::path::Path) -> Self {
        Self {
            directory: directory.to_owned(),
            max_size: 1 << 30,
            keep: Duration::from_secs(30 * 24 * 3600),
            pbx: "hq".to_owned(),
            generation_records: 131_072,
        }
    }
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The tracker's open objects.
    pub objects: Vec<(ObjectKey, Vec<u8>)>,
    /// Generations put aside because they would not open: path and reason.
    pub quarantined: Vec<(PathBuf, String)>,
    /// Acknowledged records that a damaged file has lost, without its generation being put aside. As
    /// after a quarantine of the newest generation, `objects` is empty then: what was lost is not
    /// known, so live calls must be read back from Asterisk.
    pub lost: u64,
    /// Deliveries that wait, per route.
    pub pending: Vec<(RouteId, u64)>,
}

/// The conservation line, since the journal was made:
/// accepted = delivered + pending + dead + refused + dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Appended.
    pub accepted: u64,
    /// Done.
    pub delivered: u64,
    /// Waiting, in flight included.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Settled refusals.
    pub refused: u64,
    /// Given up on purpose, dead letters dropped included.
    pub dropped: u64,
}

impl Counters {
    /// accepted - (delivered + pending + dead + refused + dropped): 0, or something is wrong.
    pub fn difference(&self) -> i128 {
        let settled = [self.delivered, self.pending, self.dead, self.refused, self.dropped];
        i128::from(self.accepted) - settled.into_iter().map(i128::from).sum::<i128>()
    }

    /// One that waited is settled. Counters that a damaged file set back may not know of it: it was
    /// accepted all the same, and the line holds.
    pub(super) fn leave(&mut self) {
        if self.pending == 0 {
            self.accepted += 1;
        } else {
            self.pending -= 1;
        }
    }
}

/// Why an accepted delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Near the limit of the journal, in this order.
    Ringing,
    /// Any other webhook.
    Webhook,
    /// A dead letter that nobody decided on.
    Dead,
    /// The last to go.
    Create,
    /// Somebody gave up what waits for a route that is gone.
    Unconfigured,
    /// Somebody gave up a dead letter.
    Letter,
    /// The record cannot be read any more.
    Damaged,
    /// A dead letter's record cannot be read any more.
    Unreadable,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ringing,
        Self::Webhook,
        Self::Dead,
        Self::Create,
        Self::Unconfigured,
        Self::Letter,
        Self::Damaged,
        Self::Unreadable,
    ];

    /// As it is stored, and shown.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ringing => "no room: webhook about ringing or digits",
            Self::Webhook => "no room: webhook",
            Self::Dead => "no room: dead letter",
            Self::Create => "no room: create",
            Self::Unconfigured => "its route is not configured any more",
            Self::Letter => "dead letter dropped",
            Self::Damaged => "record damaged",
            Self::Unreadable => "dead letter unreadable",
        }
    }
}

/// One route as the journal sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Which.
    pub route: RouteId,
    /// The conservation line.
    pub counters: Counters,
    /// When the oldest waiting delivery was appended.
    pub oldest: Option<Micros>,
    /// Left out on purpose, by reason.
    pub skipped: Vec<(String, u64)>,
    /// What was accepted and then given up, by reason ([`Dropped`]): `counters.dropped` in its parts.
    #[serde(default)]
    pub dropped: Vec<(String, u64)>,
}

/// The journal as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Bytes on disk.
    pub bytes: u64,
    /// Outbox generations.
    pub generations: u64,
    /// History days.
    pub days: u64,
    /// Months of delivered keys.
    #[serde(default)]
    pub key_months: u64,
    /// Generations put aside since the start.
    pub quarantined: u64,
    /// Acknowledged records found missing since the start.
    #[serde(default)]
    pub lost: u64,
    /// Records of the head generation.
    pub head_records: u64,
    /// Open objects of the tracker.
    pub objects: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Median time of the last commits, microseconds.
    pub commit_p50: u64,
    /// Their 99th percentile, microseconds.
    pub commit_p99: u64,
    /// Times of all commits since the start.
    #[serde(default)]
    pub commit_times: Histogram,
    /// Calls of which a leg is live.
    #[serde(default)]
    pub live_calls: u64,
    /// Live legs.
    #[serde(default)]
    pub live_legs: u64,
    /// Each route.
    pub routes: Vec<RouteStatus>,
    /// The error that keeps it from writing now, if any.
    pub fault: Option<String>,
    /// `[journal] max_size`, bytes.
    #[serde(default)]
    pub max_size: u64,
    /// Times in which it took nothing, since it was made.
    #[serde(default)]
    pub gaps: u64,
    /// Records refused in them; whoever offered them may have offered them again.
    #[serde(default)]
    pub gap_records: u64,
}

/// Which legs to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// Only live ones.
    pub live: bool,
    /// Only missed ones.
    pub missed: bool,
    /// Of this call.
    pub call: Option<CallKey>,
    /// With this `call_id`.
    pub call_id: Option<u64>,
    /// From or to this number, exactly.
    pub number: Option<String>,
    /// Started at or after.
    pub from: Option<Micros>,
    /// Started before.
    pub to: Option<Micros>,
    /// At most so many.
    pub limit: usize,
}

/// Which deliveries: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Accepted at or after.
    pub from: Option<Micros>,
    /// Accepted before.
    pub to: Option<Micros>,
    /// Of this route, its history included.
    pub route: Option<RouteId>,
    /// With this id.
    pub id: Option<UpdateId>,
}

impl Selection {
    /// Whether a delivery is meant.
    pub fn matches(&self, route: &RouteId, id: &UpdateId, accepted: Micros) -> bool {
        self.from.is_none_or(|from| accepted >= from)
            && self.to.is_none_or(|to| accepted < to)
            && self.route.as_ref().is_none_or(|wanted| wanted.covers(route))
            && self.id.as_ref().is_none_or(|wanted| wanted == id)
    }
}

/// What became of creates that were imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Their places in what was given: these wait now.
    pub appended: Vec<usize>,
    /// Known to have been appended before, by their key or by party A.
    pub known: u64,
    /// Not known since their day was deleted, and only an explicit import sends them again.
    pub deleted: u64,
}

/// Days that were deleted from a NiMbox; both dates themselves were left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletedDays {
    /// Which NiMbox.
    pub route: RouteId,
    /// The day before the first.
    #[serde(with = "date")]
    pub from: Date,
    /// The day after the last.
    #[serde(with = "date")]
    pub to: Date,
}

/// A date as `YYYY-MM-DD`.
mod date {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(date)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a replay sends again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Deliveries that had been made, refused or dropped.
    pub settled: u64,
    /// Dead letters.
    pub dead: u64,
    /// Matched but left alone: they wait still.
    pub waiting: u64,
}

/// A leg as it stands or ended: the last update of it.
pub type LegRecord = Update;

/// All that is known of one call, in order of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trace {
    /// AMI messages.
    pub messages: Vec<TraceMessage>,
    /// Updates.
    pub updates: Vec<Update>,
    /// CDR rows.
    pub cdrs: Vec<Cdr>,
    /// Deliveries with their answers.
    pub deliveries: Vec<TraceDelivery>,
    /// Calls that were merged with this one, whose part is in the lists above.
    #[serde(default)]
    pub merged: Vec<CallKey>,
}

/// A delivery in a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TraceDelivery {
    /// Which route.
    pub route: RouteId,
    /// Its id.
    pub id: UpdateId,
    /// When it was appended.
    pub accepted: Micros,
    /// What is sent.
    pub payload: Payload,
    /// Attempts made.
    pub attempts: u32,
    /// When it last changed, and how; `None` while it waits for its first attempt.
    pub settled: Option<(Micros, Settlement)>,
}

/// Why the journal could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent has it.
    #[error("the journal in {0} is in use by another callpost")]
    InUse(PathBuf),
    /// Files belong to another user.
    #[error(
        "files in {path} belong to user id {owner}, not to this process (user id {me}): run as that user, or chown them"
    )]
    Owner {
        /** Where. */
        path: PathBuf,
        /** Whose. */
        owner: u32,
        /** Ours. */
        me: u32,
    },
    /// `pbx.name` changed while something is open.
    #[error(
        "the journal belongs to pbx.name = \"{stored}\", the configuration says \"{configured}\", and calls or deliveries are open"
    )]
    OtherPbx {
        /** In the journal. */
        stored: String,
        /** In the configuration. */
        configured: String,
    },
    /// The disk refused; nothing of the batch counts.
    #[error("the journal cannot write to {path}: {why}")]
    Io {
        /** Where. */
        path: PathBuf,
        /** What the system said. */
        why: String,
    },
    /// A store's bytes are not what was written.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /** Where. */
        path: PathBuf,
        /** How it shows. */
        why: String,
    },
    /// A record above 16 KiB.
    #[error("a record of {0} bytes is above the journal's limit")]
    TooLarge(usize),
    /// The writer has stopped.
    #[error("the journal is closed")]
    Closed,
}
