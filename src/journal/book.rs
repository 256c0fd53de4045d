//! The head's state in memory: a mirror of what is on disk and of what is staged. Nothing here
//! decides what anybody sees; after a failed commit it is thrown away and read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::deletes::Deletes;
use super::encode::{Entry, Prepared, PreparedEntry};
use super::engine::{Fault, Store};
use super::format::{self, Next, Pending, key, kind};
use super::known::{Create, Tag, Word};
use super::schedule::Scan;
use super::staged::Staged;
use super::types::{Counters, DeliveryKey, Dropped, RouteId};
use crate::calls::{CallKey, LegState, LegUpdate, ObjectKey, Update, UpdateBody};

/// Begins the reasons for giving up what was accepted, among those for leaving something out.
pub(super) const DROPPED: &str = "dropped: ";
/// Most different reasons for leaving something out.
const MOST_REASONS: usize = 1000;

/// Everything the writer must know to place a batch.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The head's number.
    pub(super) head: u64,
    pub(super) next: Next,
    pub(super) routes: RouteTable,
    pub(super) chains: HashMap<CallKey, Chain>,
    /// Calls with records in the head, until they end.
    pub(super) calls: HashMap<CallKey, CallState>,
    /// Live legs by call.
    pub(super) live: HashMap<CallKey, Vec<LiveLeg>>,
    /// Open objects: parts of each.
    pub(super) objects: HashMap<ObjectKey, u16>,
    pub(super) skipped: BTreeMap<(u16, String), u64>,
    /// Times in which nothing could be appended.
    pub(super) gap: Gap,
    /// Where the deliveries of emptied generations are.
    pub(super) homes: BTreeMap<u64, u64>,
    /// Counters of generations that are gone, by route.
    pub(super) carried: Vec<Counters>,
    /// Generations that are in the history and counted; their directories may still be there.
    pub(super) folded: BTreeSet<u64>,
    /// Days that were deleted, by sink.
    pub(super) deletes: Deletes,
    /// Generations on disk, the head among them.
    pub(super) generations: BTreeMap<u64, Generation>,
}

/// When the journal could not be written, since it was made.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Gap {
    /// How often.
    pub(super) gaps: u64,
    /// Records that were refused meanwhile; whoever offered them may have offered them again.
    pub(super) records: u64,
    /// The last one, microseconds.
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Route names and their numbers; 0 is `""`.
#[derive(Debug)]
pub(super) struct RouteTable {
    names: Vec<RouteId>,
    numbers: HashMap<RouteId, u16>,
}

/// The last deliveries of an open call, one for each route.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Chain {
    /// When one was last appended; old chains of calls that never end are let go.
    pub(super) touched: i64,
    pub(super) links: Vec<Link>,
}

/// One route's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) route: u16,
    pub(super) last: DeliveryKey,
    /// `Callpost-Sequence` of the last.
    pub(super) sequence: u64,
}

/// A leg that lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveLeg {
    pub(super) call_id: u64,
    /// Where its updates are, if in the head: else its record holds the last one.
    pub(super) generation: u64,
}

/// A call in the head.
#[derive(Debug, Default)]
pub(super) struct CallState {
    number: u64,
    /// Legs whose index keys are written: call_id, start, numbers.
    legs: Vec<(u64, i64, String, String)>,
    ended: bool,
}

/// One generation.
#[derive(Debug, Default)]
pub(super) struct Generation {
    /// By route number.
    pub(super) routes: Vec<GenerationRoute>,
    pub(super) created: i64,
    /// The next record's number when it was sealed; 0 for the head.
    pub(super) sequence: u64,
    pub(super) sealed: bool,
    /// Its counters were read from itself, not from its summary.
    pub(super) exact: bool,
    /// The head says that its summary there is behind.
    pub(super) behind: bool,
    /// What it knows of creates is in their months.
    pub(super) keys: bool,
    /// It is being copied into the history.
    pub(super) archiving: bool,
    /// It was written anew: it takes as little as it can.
    pub(super) rewritten: bool,
}

/// One route in one generation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GenerationRoute {
    pub(super) counters: Counters,
    pub(super) scan: Scan,
}

/// What the head keeps of a sealed generation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) created: i64,
    pub(super) routes: Vec<(u16, Counters)>,
    /// The next record's number when it was sealed.
    #[serde(default)]
    pub(super) sequence: u64,
    /// Something was settled since: the counters must be read from the generation itself.
    #[serde(default)]
    pub(super) behind: bool,
    /// What it knows of creates is in their months.
    #[serde(default)]
    pub(super) keys: bool,
    /// It was written anew.
    #[serde(default)]
    pub(super) rewritten: bool,
}

impl Default for RouteTable {
    fn default() -> Self {
        let mut table = Self { names: Vec::new(), numbers: HashMap::new() };
        table.add(RouteId("".into()));
        table
    }
}

impl RouteTable {
    pub(super) fn number(&self, route: &RouteId) -> Option<u16> {
        self.numbers.get(route).copied()
    }

    pub(super) fn name(&self, number: u16) -> Option<&RouteId> {
        self.names.get(usize::from(number))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &RouteId)> {
        (0u16..).zip(&self.names)
    }

    /// `None` when there are 65,536.
    pub(super) fn add(&mut self, route: RouteId) -> Option<u16> {
        let number = u16::try_from(self.names.len()).ok()?;
        self.numbers.insert(route.clone(), number);
        self.names.push(route);
        Some(number)
    }

    /// Puts a route where it stood; gaps are routes whose record was damaged.
    pub(super) fn restore(&mut self, number: u16, route: RouteId) {
        while self.names.len() <= usize::from(number) {
            self.names.push(RouteId(format!("lost-{}", self.names.len()).into()));
        }
        self.names[usize::from(number)] = route.clone();
        self.numbers.insert(route, number);
    }
}

impl Generation {
    pub(super) fn route(&mut self, route: u16) -> &mut GenerationRoute {
        let index = usize::from(route);
        if self.routes.len() <= index {
            self.routes.resize(index + 1, GenerationRoute::default());
        }
        &mut self.routes[index]
    }

    pub(super) fn counters(&self, route: u16) -> Counters {
        self.routes.get(usize::from(route)).map(|route| route.counters).unwrap_or_default()
    }

    pub(super) fn pending(&self) -> u64 {
        self.routes.iter().map(|route| route.counters.pending).sum()
    }

    pub(super) fn dead(&self) -> u64 {
        self.routes.iter().map(|route| route.counters.dead).sum()
    }

    pub(super) fn summary(&self) -> Summary {
        let routes = (0u16..).zip(&self.routes).map(|(number, route)| (number, route.counters)).collect();
        let Self { created, sequence, behind, keys, rewritten, .. } = *self;
        Summary { created, routes, sequence, behind, keys, rewritten }
    }
}

impl Book {
    /// Places a batch in the head. Answers the routes that got something.
    pub(super) fn append(
        &mut self,
        staged: &mut Staged,
        head: &Store,
        batch: &Prepared,
        now: i64,
    ) -> Result<Vec<u16>, Fault> {
        for (calls, payload) in &batch.messages {
            for call in calls {
                let number = self.call(staged, head, call)?;
                self.record(staged, number, kind::MESSAGE, payload);
            }
        }
        for (update, payload) in batch.updates.iter().zip(&batch.update_payloads) {
            let number = self.call(staged, head, &update.call)?;
            self.record(staged, number, kind::UPDATE, payload);
            if let UpdateBody::Leg(leg) = &update.body {
                self.index_leg(staged, update, leg, number);
            }
        }
        for (call, payload) in &batch.cdrs {
            let number = self.call(staged, head, call)?;
            self.record(staged, number, kind::CDR, payload);
        }
        for (call, payload) in &batch.mergers {
            let number = self.call(staged, head, call)?;
            self.record(staged, number, kind::MERGER, payload);
        }
        let routes = self.append_entries(staged, head, &batch.outbox, now)?;
        self.place_objects(staged, batch);
        for call in &batch.ended {
            self.end(staged, call);
        }
        for (route, reason) in &batch.skipped {
            self.skip(staged, route, reason);
        }
        staged.moved = true;
        Ok(routes)
    }

    /// Places deliveries in the head, in order. Answers their routes.
    pub(super) fn append_entries(
        &mut self,
        staged: &mut Staged,
        head: &Store,
        entries: &[PreparedEntry],
        now: i64,
    ) -> Result<Vec<u16>, Fault> {
        let mut routes = Vec::new();
        let mut chained = Vec::new();
        for entry in entries {
            let route = self.route(staged, &entry.route)?;
            let (sequence, before) = if entry.ordered {
                chained.push(&entry.call);
                self.link(head, &entry.call, route)?
            } else {
                (1, None)
            };
            let number = self.call(staged, head, &entry.call)?;
            let at = self.place_entry(staged, route, number, &entry.payload(sequence, now), now, before);
            if entry.ordered {
                self.extend_chain(&entry.call, Link { route, last: at, sequence }, now);
            }
            if let Some(create) = &entry.create {
                self.learn(staged, create, create.tag);
            }
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
        for call in chained {
            if let Some(chain) = self.chains.get(call) {
                let json = serde_json::to_vec(chain).map_err(|error| Fault::Io(error.to_string()))?;
                staged.put(self.head, key::of_call(key::CHAIN, call), &json);
            }
        }
        Ok(routes)
    }

    /// From now on this is known of a create.
    pub(super) fn learn(&self, staged: &mut Staged, create: &Create, tag: Tag) {
        let word = Word { tag, epoch: self.deletes.epoch(&create.sink) };
        for name in create.names() {
            staged.learn(self.head, name, word);
        }
    }

    /// What was given up undelivered may come again.
    pub(super) fn unlearn(&self, staged: &mut Staged, entry: &Entry) {
        if let Some(create) = Create::of(entry) {
            self.learn(staged, &create, Tag::Forgotten);
        }
    }

    /// The generation that a delivery is in: its own, or the one it was moved to.
    pub(super) fn home(&self, at: DeliveryKey) -> u64 {
        self.homes.get(&at.generation).copied().unwrap_or(at.generation)
    }

    /// What waits in a generation is in the head from now on.
    pub(super) fn move_home(&mut self, staged: &mut Staged, number: u64) {
        let head = self.head;
        self.homes.insert(number, head);
        for (of, home) in &mut self.homes {
            if *home == number || *of == number {
                *home = head;
                staged.put(head, key::moved(*of), &head.to_be_bytes());
            }
        }
    }

    /// Places one delivery and counts it.
    pub(super) fn place_entry(
        &mut self,
        staged: &mut Staged,
        route: u16,
        call: u64,
        payload: &[u8],
        now: i64,
        before: Option<DeliveryKey>,
    ) -> DeliveryKey {
        let at = DeliveryKey { generation: self.head, sequence: self.take_sequence(payload.len()) };
        staged.put(self.head, key::delivery(call, kind::ENTRY, at), payload);
        let state = Pending { attempts: 0, next: 0, accepted: now, call, before };
        staged.put(self.head, key::pending(route, at), &state.encode());
        let counted = self.count(staged, self.head, route);
        counted.counters.accepted += 1;
        counted.counters.pending += 1;
        counted.scan.fresh_done = false;
        staged.moved = true;
        at
    }

    /// Adds a gone generation's counters. They count nothing that waits.
    pub(super) fn carry(&mut self, route: u16, counters: Counters) -> Counters {
        let index = usize::from(route);
        if self.carried.len() <= index {
            self.carried.resize(index + 1, Counters::default());
        }
        add(&mut self.carried[index], counters);
        self.carried[index]
    }

    /// The conservation line of a route over all generations.
    pub(super) fn total(&self, route: u16) -> Counters {
        let mut total = self.carried.get(usize::from(route)).copied().unwrap_or_default();
        for generation in self.generations.values() {
            add(&mut total, generation.counters(route));
        }
        total
    }

    /// The counters of a route in a generation, to be written with this group.
    pub(super) fn count(&mut self, staged: &mut Staged, generation: u64, route: u16) -> &mut GenerationRoute {
        staged.counted.insert((generation, route));
        self.generations.entry(generation).or_default().route(route)
    }

    /// Writes the summary of a sealed generation into the head.
    pub(super) fn summarize(&mut self, staged: &mut Staged, number: u64, behind: bool) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.behind = behind;
        if let Ok(json) = serde_json::to_vec(&generation.summary()) {
            staged.put(self.head, key::summary(number), &json);
        }
    }

    /// Writes what the group changed in counters and in the head's place, and that the summaries of
    /// sealed generations it touches are behind.
    pub(super) fn close_group(&mut self, staged: &mut Staged) {
        let head = self.head;
        let touched: Vec<u64> = staged.counted.iter().map(|(generation, _)| *generation).collect();
        for number in touched {
            let known = self.generations.get(&number);
            if number != head && known.is_some_and(|generation| !generation.behind) {
                self.summarize(staged, number, true);
            }
        }
        for (generation, route) in std::mem::take(&mut staged.counted) {
            let counters = self.generations.entry(generation).or_default().counters(route);
            staged.put(generation, key::route(key::COUNTERS, route), &format::encode_counters(&counters));
        }
        if std::mem::take(&mut staged.moved) {
            staged.put(self.head, key::about("next"), &self.next.encode());
        }
    }

    /// A route's number, given to it now if it is new.
    pub(super) fn route(&mut self, staged: &mut Staged, route: &RouteId) -> Result<u16, Fault> {
        if let Some(number) = self.routes.number(route) {
            return Ok(number);
        }
        let number = self.routes.add(route.clone()).ok_or_else(|| Fault::Io("too many routes".to_owned()))?;
        staged.put(self.head, key::route(key::ROUTE, number), route.0.as_bytes());
        Ok(number)
    }

    /// A call's number in the head, given to it now if it is new there.
    pub(super) fn call(&mut self, staged: &mut Staged, head: &Store, call: &CallKey) -> Result<u64, Fault> {
        if let Some(state) = self.calls.get_mut(call) {
            state.ended = false;
            return Ok(state.number);
        }
        let key = key::of_call(key::CALL, call);
        let known = match head.get(&key)? {
            Some(Ok(bytes)) => format::Reader(&bytes).u64(),
            Some(Err(_)) | None => None,
        };
        let number = match known {
            Some(number) => number,
            None => {
                let number = self.next.call;
                self.next.call += 1;
                staged.put(self.head, key, &number.to_be_bytes());
                number
            }
        };
        self.calls.insert(call.clone(), CallState { number, ..CallState::default() });
        Ok(number)
    }

    /// Whether a call has records in the head and has not ended.
    pub(super) fn is_known(&self, call: &CallKey) -> bool {
        self.calls.contains_key(call)
    }

    /// Forgets calls that are in the head for their deliveries alone.
    pub(super) fn forget<'a>(&mut self, calls: impl IntoIterator<Item = &'a CallKey>) {
        for call in calls {
            self.calls.remove(call);
        }
    }

    /// Forgets the calls that ended, once their end is on disk.
    pub(super) fn forget_ended(&mut self, calls: &[CallKey]) {
        for call in calls {
            if self.calls.get(call).is_some_and(|state| state.ended) {
                self.calls.remove(call);
            }
        }
    }

    fn record(&mut self, staged: &mut Staged, call: u64, kind: u8, payload: &[u8]) {
        let sequence = self.take_sequence(payload.len());
        staged.put(self.head, key::record(call, kind, sequence), payload);
    }

    pub(super) fn take_sequence(&mut self, bytes: usize) -> u64 {
        let sequence = self.next.sequence;
        self.next.sequence += 1;
        self.next.bytes += u64::try_from(bytes).unwrap_or(0);
        sequence
    }

    /// Index keys are written once for a leg, not with each of its updates.
    fn index_leg(&mut self, staged: &mut Staged, update: &Update, leg: &LegUpdate, number: u64) {
        self.mark_live(staged, update, leg);
        let Some(state) = self.calls.get_mut(&update.call) else { return };
        let known = (leg.call_id, leg.start.0, leg.src.number.clone(), leg.dst.number.clone());
        if state.legs.contains(&known) {
            return;
        }
        state.legs.push(known);
        staged.put(self.head, key::leg(leg.start, leg.call_id), &number.to_be_bytes());
        for number in [&leg.src.number, &leg.dst.number] {
            if !number.is_empty() {
                staged.put(self.head, key::number_of(number, leg.start, leg.call_id), &[]);
            }
        }
    }

    fn mark_live(&mut self, staged: &mut Staged, update: &Update, leg: &LegUpdate) {
        let ended = matches!(leg.state, LegState::Hangup | LegState::Failed);
        let live = self.live.entry(update.call.clone()).or_default();
        let known = live.iter().position(|known| known.call_id == leg.call_id);
        match known {
            Some(at) if ended => {
                live.remove(at);
                staged.remove(self.head, key::live(leg.call_id));
            }
            // its record is of the head and says where its updates are
            Some(at) if live[at].generation == self.head => {}
            None if ended => {}
            Some(_) | None => {
                live.retain(|known| known.call_id != leg.call_id);
                live.push(LiveLeg { call_id: leg.call_id, generation: self.head });
                let mut reference = vec![b'@'];
                reference.extend_from_slice(&leg.start.0.max(0).to_be_bytes());
                staged.put(self.head, key::live(leg.call_id), &reference);
            }
        }
        if live.is_empty() {
            self.live.remove(&update.call);
        }
    }

    /// What a new delivery of this call on this route follows. A call that had ended is looked up
    /// in the head, so that what comes late still waits for what came before.
    pub(super) fn link(
        &mut self,
        head: &Store,
        call: &CallKey,
        route: u16,
    ) -> Result<(u64, Option<DeliveryKey>), Fault> {
        let linked =
            self.chains.get(call).and_then(|chain| chain.links.iter().find(|link| link.route == route));
        if let Some(link) = linked {
            return Ok((link.sequence + 1, Some(link.last)));
        }
        let number = match head.get(&key::of_call(key::CALL, call))? {
            Some(Ok(bytes)) => format::Reader(&bytes).u64(),
            Some(Err(_)) | None => None,
        };
        let (Some(number), Some(route)) = (number, self.routes.name(route)) else { return Ok((1, None)) };
        let mut last = None;
        head.scan_back(&key::records_of(number, kind::ENTRY), |key, payload| {
            let entry = payload.ok().and_then(|payload| super::encode::StoredEntry::decode(&payload));
            if let Some(entry) = entry.filter(|found| found.entry.ordered && found.entry.route == *route) {
                last = key.get(10..).and_then(format::decode_before).map(|at| (entry.sequence + 1, Some(at)));
            }
            last.is_none()
        })?;
        Ok(last.unwrap_or((1, None)))
    }

    fn extend_chain(&mut self, call: &CallKey, link: Link, now: i64) {
        let chain = self.chains.entry(call.clone()).or_default();
        chain.touched = now;
        chain.links.retain(|known| known.route != link.route);
        chain.links.push(link);
    }

    fn place_objects(&mut self, staged: &mut Staged, batch: &Prepared) {
        for (name, parts) in &batch.objects {
            let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
            for (part, payload) in (0u16..).zip(parts) {
                staged.put(self.head, key::object_part(&name.0, part), payload);
            }
            let before =
                if count == 0 { self.objects.remove(name) } else { self.objects.insert(name.clone(), count) };
            for part in count..before.unwrap_or(0) {
                staged.remove(self.head, key::object_part(&name.0, part));
            }
        }
    }

    fn end(&mut self, staged: &mut Staged, call: &CallKey) {
        if self.chains.remove(call).is_some() {
            staged.remove(self.head, key::of_call(key::CHAIN, call));
        }
        for leg in self.live.remove(call).unwrap_or_default() {
            staged.remove(self.head, key::live(leg.call_id));
        }
        if let Some(state) = self.calls.get_mut(call) {
            state.ended = true;
        }
    }

    pub(super) fn skip(&mut self, staged: &mut Staged, route: &RouteId, reason: &str) {
        let Ok(route) = self.route(staged, route) else { return };
        self.count_reason(staged, route, reason.to_owned(), "other".to_owned(), 1);
    }

    /// Says why so many accepted deliveries were given up; who calls this counts them.
    pub(super) fn skip_dropped(&mut self, staged: &mut Staged, route: u16, reason: Dropped, count: u64) {
        let reason = reason.reason();
        if count > 0 {
            self.count_reason(staged, route, format!("{DROPPED}{reason}"), format!("{DROPPED}other"), count);
        }
    }

    fn count_reason(&mut self, staged: &mut Staged, route: u16, reason: String, other: String, more: u64) {
        let known = (route, reason);
        let is_room = self.skipped.len() < MOST_REASONS || self.skipped.contains_key(&known);
        let known = if is_room { known } else { (route, other) };
        let count = self.skipped.entry(known.clone()).or_default();
        *count += more;
        staged.put(self.head, key::skipped(route, &known.1), &count.to_be_bytes());
    }
}

fn add(to: &mut Counters, more: Counters) {
    to.accepted += more.accepted;
    to.delivered += more.delivered;
    to.pending += more.pending;
    to.dead += more.dead;
    to.refused += more.refused;
    to.dropped += more.dropped;
}
