//! The tracker's memory: its objects by kind, which of them changed since the last step, and what
//! is derived from them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use parsers::{Linkedid, Micros, Uniqueid};
use serde::{Serialize, de::DeserializeOwned};

use super::call::{ObjectKey, Step};
use super::direction::Who;
use super::objects::{Call, Chan, Leg, LegKey, Meta, Phase, Row};

/// Objects of one kind, and which of them changed.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    map: HashMap<K, V>,
    /// Since the last step.
    dirty: BTreeSet<K>,
    /// Since they were last asked for.
    unsaved: HashSet<K>,
}

impl<K: Ord + Hash + Clone, V: Clone + PartialEq> Table<K, V> {
    fn new() -> Self {
        Self { map: HashMap::new(), dirty: BTreeSet::new(), unsaved: HashSet::new() }
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

    /// All of them, in order of their keys.
    pub(super) fn sorted(&self) -> Vec<&V> {
        let mut all: Vec<(&K, &V)> = self.map.iter().collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all.into_iter().map(|(_, value)| value).collect()
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

    fn touch_all(&mut self) {
        self.unsaved.extend(self.map.keys().cloned());
    }

    /// What changed since the last step; it is to be saved.
    fn take_dirty(&mut self) -> BTreeSet<K> {
        self.unsaved.extend(self.dirty.iter().cloned());
        std::mem::take(&mut self.dirty)
    }

    /// What is to be saved, each with its value as JSON, or none when it is gone.
    fn take_unsaved(&mut self, name: impl Fn(&K) -> String, into: &mut Vec<(ObjectKey, Option<Vec<u8>>)>)
    where
        V: Serialize,
    {
        let unsaved = self.unsaved.drain();
        into.extend(unsaved.map(|key| (ObjectKey(name(&key).into()), json(self.map.get(&key)))));
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
    /// Derived: how many legs and visits a channel had that is not kept any more.
    pub anchors: HashMap<Uniqueid, (u32, u32)>,
    /// Derived: the calls that are done, and how many channels are alive.
    pub done: BTreeSet<(Micros, Linkedid)>,
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
    /// Listed by the last audit, announced by no event; listed, and left out on purpose.
    pub strangers: HashSet<Uniqueid>,
    pub left_out: HashSet<Uniqueid>,
    /// There was no room for more, and until then no call to make some.
    pub full_until: Micros,
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
            anchors: HashMap::new(),
            done: BTreeSet::new(),
            alive: 0,
            timers: BTreeSet::new(),
            due: HashMap::new(),
            now: Micros(0),
            at: Micros(0),
            fresh: true,
            recovering: false,
            strangers: HashSet::new(),
            left_out: HashSet::new(),
            full_until: Micros(0),
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
        let channels: Vec<Chan> = self.channels.sorted().into_iter().cloned().collect();
        for chan in channels {
            self.call_or_new(&chan.call);
            self.alive += usize::from(chan.alive());
            self.join(&chan.call, |members| members.channels.insert(chan.id.clone()));
            if let Some(bridge) = &chan.bridge {
                self.bridges.entry(bridge.clone()).or_default().insert(chan.id.clone());
            }
        }
        let legs: Vec<Leg> = self.legs.sorted().into_iter().cloned().collect();
        for leg in legs {
            self.call_or_new(&leg.call);
            self.join(&leg.call, |members| members.legs.insert(leg.key.clone()));
            self.arm(Timer::Leg(leg.key.clone()), leg.due);
        }
        let rows: Vec<Row> = self.rows.sorted().into_iter().cloned().collect();
        for Row { call, n, .. } in rows {
            self.call_or_new(&call);
            self.join(&call, |members| members.rows.insert(n));
        }
        let calls: Vec<Call> = self.calls.sorted().into_iter().cloned().collect();
        for call in calls {
            // its channels could not be read
            self.over_if_empty(&call.key);
            let Some(call) = self.calls.get(&call.key).cloned() else { continue };
            self.anchors.extend(call.anchors.iter().map(|one| (one.id.clone(), (one.legs, one.visits))));
            self.links.insert(call.key.clone(), call.key.clone());
            for link in &call.links {
                self.links.insert(link.clone(), call.key.clone());
            }
            if call.phase == Phase::Done {
                self.done.insert((call.due, call.key.clone()));
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

    /// All is to be written, changed or not.
    pub(super) fn touch_all(&mut self) {
        self.channels.touch_all();
        self.legs.touch_all();
        self.calls.touch_all();
        self.rows.touch_all();
        self.meta.touch_all();
    }

    /// Takes the step; deadlines follow their objects, which are to be saved.
    pub(super) fn flush(&mut self) -> Step {
        let changed: Vec<Linkedid> = self.calls.dirty.iter().cloned().collect();
        for key in changed {
            self.over_if_empty(&key);
        }
        self.channels.take_dirty();
        for key in self.legs.take_dirty() {
            let due = self.legs.get(&key).and_then(|leg| leg.due);
            self.arm(Timer::Leg(key), due);
        }
        for key in self.calls.take_dirty() {
            let due = self.calls.get(&key).map(|call| call.due);
            self.arm(Timer::Call(key), due);
        }
        self.rows.take_dirty();
        self.meta.take_dirty();
        std::mem::take(&mut self.out)
    }

    /// What changed since it was last asked, as the journal keeps it.
    pub(super) fn take_unsaved(&mut self) -> Vec<(ObjectKey, Option<Vec<u8>>)> {
        let mut objects = Vec::new();
        self.channels.take_unsaved(|id| format!("c.{id}"), &mut objects);
        let leg = |key: &LegKey| {
            let kind = if key.queue { 'q' } else { 'l' };
            format!("{kind}.{}.{}", key.anchor, key.n)
        };
        self.legs.take_unsaved(leg, &mut objects);
        self.calls.take_unsaved(|key| format!("g.{key}"), &mut objects);
        self.rows.take_unsaved(|(call, n)| format!("r.{call}.{n}"), &mut objects);
        self.meta.take_unsaved(|()| "m".to_owned(), &mut objects);
        objects
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
