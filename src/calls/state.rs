//! What the tracker remembers: channels, legs (queue visits among them), whole calls, CDR rows.
//! Each is one small JSON object in the journal; everything else here is derived from them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parsers::ami::ChannelState;
use parsers::{CallerId, ChannelName, Linkedid, Micros, Uniqueid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::call::{CdrRow, Direction, LegState, ObjectKey, Party, Step};
use super::direction::{Side, Who};

/// Live channels at most: a large PBX holds a few thousand, so more is somebody who invents them.
pub(super) const MAX_CHANNELS: usize = 50_000;
/// Ended channels kept for one call: a queue that retries busy agents makes them without end.
pub(super) const MAX_DEAD: usize = 256;
/// Open legs of one call at most: no ring group is larger.
pub(super) const MAX_LEGS: usize = 512;
/// Linkedids merged into one call at most.
pub(super) const MAX_LINKS: usize = 64;
/// Bytes of one list of ids in a call's object, which has to stay below the journal's 16 KiB.
pub(super) const MAX_LIST: usize = 3072;
/// CDR rows of one call at most; a queue visit of hours makes some thousands.
pub(super) const MAX_ROWS: usize = 4096;
/// Ended calls remembered for late CDR rows at most.
pub(super) const MAX_DONE: usize = 20_000;
/// Bytes kept of any text from outside; Asterisk's own names, extensions and CDR fields are shorter.
pub(super) const MAX_TEXT: usize = 256;
/// Entries of a leg's `info`, and channels that hold it, at most: real calls have two or three.
pub(super) const MAX_NOTES: usize = 16;
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
    /// Audits in a row that did not list it.
    #[serde(rename = "aa", default, skip_serializing_if = "is_zero")]
    pub missed: u32,
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
    #[serde(rename = "z")]
    pub due: Micros,
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

/// Objects of one kind, and which of them changed since the last step.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    map: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Table<K, V> {
    fn new() -> Self {
        Self { map: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.map.values()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.dirty.insert(key.clone());
        self.map.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.map.remove(key)?;
        self.dirty.insert(key.clone());
        Some(value)
    }

    /// Changes one object; it is written only if it is another afterwards.
    pub(super) fn edit<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let value = self.map.get_mut(key)?;
        let before = value.clone();
        let result = change(value);
        if *value != before {
            self.dirty.insert(key.clone());
        }
        Some(result)
    }

    /// What changed since the last call.
    fn take_dirty(&mut self) -> Vec<K> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }
}

/// What belongs to one whole call; derived.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub channels: BTreeSet<Uniqueid>,
    pub legs: BTreeSet<LegKey>,
    pub rows: BTreeSet<u32>,
}

/// Whose deadline it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    Leg(LegKey),
    Call(Linkedid),
}

/// Everything the tracker knows; the rules are in the files beside this one.
#[derive(Debug)]
pub(super) struct State {
    pub who: Who,
    pub channels: Table<Uniqueid, Chan>,
    pub legs: Table<LegKey, Leg>,
    pub calls: Table<Linkedid, Call>,
    pub rows: Table<(Linkedid, u32), Row>,
    pub meta: Table<(), Meta>,
    /// Derived: linkedid to call, call to its parts, bridge to its channels.
    pub links: HashMap<Linkedid, Linkedid>,
    pub members: HashMap<Linkedid, Members>,
    pub bridges: HashMap<Arc<str>, BTreeSet<Uniqueid>>,
    /// Derived: party A of a done call to that call.
    pub parties: HashMap<Uniqueid, Linkedid>,
    /// Derived: how many calls are done, and how many channels alive.
    pub done: usize,
    pub alive: usize,
    timers: BTreeSet<(Micros, Timer)>,
    due: HashMap<Timer, Micros>,
    /// The input's arrival, and its own time.
    pub now: Micros,
    pub at: Micros,
    /// Restarted, and nothing read back from Asterisk yet.
    pub fresh: bool,
    /// What is made now was not seen as it happened.
    pub recovering: bool,
    /// What the input led to so far.
    pub out: Step,
}

impl State {
    pub(super) fn new(who: Who) -> Self {
        let mut state = Self {
            who,
            channels: Table::new(),
            legs: Table::new(),
            calls: Table::new(),
            rows: Table::new(),
            meta: Table::new(),
            links: HashMap::new(),
            members: HashMap::new(),
            bridges: HashMap::new(),
            parties: HashMap::new(),
            done: 0,
            alive: 0,
            timers: BTreeSet::new(),
            due: HashMap::new(),
            now: Micros(0),
            at: Micros(0),
            fresh: true,
            recovering: false,
            out: Step::default(),
        };
        state.meta.map.insert((), Meta::default());
        state
    }

    /// The state as its objects say; what cannot be read is named.
    pub(super) fn restore(
        who: Who,
        objects: impl IntoIterator<Item = (ObjectKey, Vec<u8>)>,
        now: Micros,
    ) -> (Self, Vec<String>) {
        let mut state = Self::new(who);
        let mut faults = Vec::new();
        for (key, json) in objects {
            if let Err(error) = state.restore_one(&key, &json) {
                faults.push(format!("{}: {error}", key.0));
            }
        }
        state.derive(now);
        (state, faults)
    }

    fn restore_one(&mut self, key: &ObjectKey, json: &[u8]) -> Result<(), String> {
        fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
            serde_json::from_slice(json).map_err(|error| error.to_string())
        }
        match key.0.split('.').next() {
            Some("c") => {
                let chan: Chan = read(json)?;
                self.channels.map.insert(chan.id.clone(), chan);
            }
            Some("l" | "q") => {
                let leg: Leg = read(json)?;
                self.legs.map.insert(leg.key.clone(), leg);
            }
            Some("g") => {
                let call: Call = read(json)?;
                self.calls.map.insert(call.key.clone(), call);
            }
            Some("r") => {
                let row: Row = read(json)?;
                self.rows.map.insert((row.call.clone(), row.n), row);
            }
            Some("m") => {
                self.meta.map.insert((), read(json)?);
            }
            _ => return Err("is no object of the tracker".to_owned()),
        }
        Ok(())
    }

    /// Builds what is derived. A call whose own object was unreadable is made anew from its parts;
    /// deadlines that passed while nobody ran start again.
    fn derive(&mut self, now: Micros) {
        self.now = now;
        let channels: Vec<Chan> = self.channels.map.values().cloned().collect();
        for chan in channels {
            self.call_or_new(&chan.call);
            self.alive += usize::from(chan.alive());
            self.join(&chan.call, |members| members.channels.insert(chan.id.clone()));
            if let Some(bridge) = &chan.bridge {
                self.bridges.entry(bridge.clone()).or_default().insert(chan.id.clone());
            }
        }
        let legs: Vec<Leg> = self.legs.map.values().cloned().collect();
        for leg in legs {
            self.call_or_new(&leg.call);
            self.join(&leg.call, |members| members.legs.insert(leg.key.clone()));
            self.arm(Timer::Leg(leg.key.clone()), leg.due);
        }
        let rows: Vec<(Linkedid, u32)> = self.rows.map.keys().cloned().collect();
        for (call, n) in rows {
            self.call_or_new(&call);
            self.join(&call, |members| members.rows.insert(n));
        }
        let calls: Vec<Call> = self.calls.map.values().cloned().collect();
        for call in calls {
            self.links.insert(call.key.clone(), call.key.clone());
            for link in &call.links {
                self.links.insert(link.clone(), call.key.clone());
            }
            if call.phase == Phase::Done {
                self.done += 1;
                for (party, _) in &call.parties {
                    self.parties.insert(party.clone(), call.key.clone());
                }
            }
            let due = if call.phase == Phase::Waiting && call.due < now {
                now.plus_millis(super::cdr_group::GROUP_WAIT)
            } else {
                call.due
            };
            self.arm(Timer::Call(call.key.clone()), Some(due));
        }
    }

    pub(super) fn join<R>(&mut self, call: &Linkedid, change: impl FnOnce(&mut Members) -> R) -> R {
        change(self.members.entry(call.clone()).or_default())
    }

    /// Channels of a call, in order.
    pub(super) fn channels_of(&self, call: &Linkedid) -> Vec<Chan> {
        let Some(members) = self.members.get(call) else { return Vec::new() };
        members.channels.iter().filter_map(|id| self.channels.get(id)).cloned().collect()
    }

    /// Open legs and visits of a call, in order.
    pub(super) fn legs_of(&self, call: &Linkedid) -> Vec<Leg> {
        let Some(members) = self.members.get(call) else { return Vec::new() };
        members.legs.iter().filter_map(|key| self.legs.get(key)).cloned().collect()
    }

    pub(super) fn meta(&self) -> Meta {
        self.meta.get(&()).cloned().unwrap_or_default()
    }

    /// Sets or clears a deadline.
    pub(super) fn arm(&mut self, timer: Timer, due: Option<Micros>) {
        if let Some(old) = self.due.remove(&timer) {
            self.timers.remove(&(old, timer.clone()));
        }
        if let Some(due) = due {
            self.timers.insert((due, timer.clone()));
            self.due.insert(timer, due);
        }
    }

    pub(super) fn deadline(&self) -> Option<Micros> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes the next deadline that passed.
    pub(super) fn pop_due(&mut self) -> Option<Timer> {
        let (due, timer) = self.timers.first()?.clone();
        if due > self.now {
            return None;
        }
        self.arm(timer.clone(), None);
        Some(timer)
    }

    /// Writes what changed into the step and takes it; deadlines follow their objects.
    pub(super) fn flush(&mut self) -> Step {
        let mut objects = Vec::new();
        for id in self.channels.take_dirty() {
            objects.push((ObjectKey(format!("c.{id}").into()), json(self.channels.get(&id))));
        }
        for key in self.legs.take_dirty() {
            let leg = self.legs.get(&key);
            let due = leg.and_then(|leg| leg.due);
            let kind = if key.queue { 'q' } else { 'l' };
            objects.push((ObjectKey(format!("{kind}.{}.{}", key.anchor, key.n).into()), json(leg)));
            self.arm(Timer::Leg(key), due);
        }
        for key in self.calls.take_dirty() {
            let call = self.calls.get(&key);
            let due = call.map(|call| call.due);
            objects.push((ObjectKey(format!("g.{key}").into()), json(call)));
            self.arm(Timer::Call(key), due);
        }
        for key in self.rows.take_dirty() {
            objects.push((ObjectKey(format!("r.{}.{}", key.0, key.1).into()), json(self.rows.get(&key))));
        }
        for () in self.meta.take_dirty() {
            objects.push((ObjectKey("m".into()), json(self.meta.get(&()))));
        }
        let mut step = std::mem::take(&mut self.out);
        step.objects = objects;
        step
    }

    /// Deadlines of what changed, so that the next one is seen within the same step.
    pub(super) fn rearm(&mut self) {
        let legs: Vec<_> =
            self.legs.dirty.iter().map(|k| (k.clone(), self.legs.get(k).and_then(|l| l.due))).collect();
        for (key, due) in legs {
            self.arm(Timer::Leg(key), due);
        }
        let calls: Vec<_> =
            self.calls.dirty.iter().map(|k| (k.clone(), self.calls.get(k).map(|c| c.due))).collect();
        for (key, due) in calls {
            self.arm(Timer::Call(key), due);
        }
    }
}

fn json<T: Serialize>(value: Option<&T>) -> Option<Vec<u8>> {
    // a value made of texts and numbers always has a JSON form
    value.and_then(|value| serde_json::to_vec(value).ok())
}

/// A text from outside: cut to [`MAX_TEXT`] bytes, and without control characters, which would
/// swell in JSON.
pub(super) fn clip(text: &Arc<str>) -> Arc<str> {
    if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
        return text.clone();
    }
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().replace(char::is_control, " ").into()
}

/// Whether Asterisk itself can have given this id or name.
pub(super) fn is_sane(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && !id.contains(char::is_control)
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
        assert!(is_sane("1795252767.1") && !is_sane("") && !is_sane("1\n") && !is_sane(&"1".repeat(150)));
    }
}
