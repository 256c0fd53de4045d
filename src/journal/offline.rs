//! Looking at a journal without an agent, for `callpost journal`. Nothing in the journal's directory
//! is written: one store at a time is copied elsewhere and opened there, because opening a store
//! writes to it. Beside a running agent a copy may be torn; what looks damaged is then copied again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parsers::Micros;
use serde::Serialize;
use serde_json::{Value, json};

use super::book::DROPPED;
use super::bundle::Bundle;
use super::day;
use super::encode::{StoredEntry, StoredOutcome};
use super::engine::{Fault, Store};
use super::format::{self, Next, Pending, Reader, key, kind};
use super::head;
use super::known::Bucket;
use super::open::try_lock;
use super::outbox::place_in;
use super::pack;
use super::pool::generation_of;
use super::rewrite;
use super::salvage::{self, Plan};
use super::space::disk_use;
use super::types::{Counters, DeadLetter, DeliveryKey, JournalError, JournalStatus, RouteStatus, Settlement};

/// Faults of a store that are told one by one.
const MOST_FAULTS: usize = 20;
/// Copies of a store beside a running agent before it is believed to be damaged.
const COPIES: u32 = 3;

/// A journal's directory, looked at from outside.
#[derive(Debug)]
pub struct Offline {
    directory: PathBuf,
    work: tempfile::TempDir,
    /// Held while nobody else has the journal.
    lock: Option<File>,
}

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// Deliveries that wait, and the calls they belong to.
    Generation,
    /// One day of the past.
    Day,
    /// What is known of a month's delivered creates.
    Month,
    /// Put aside.
    Quarantined,
}

/// One store of a journal.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its directory's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    #[serde(skip)]
    path: PathBuf,
}

/// What was found in a store.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Which.
    #[serde(flatten)]
    pub part: Part,
    /// Records that are whole.
    pub records: u64,
    /// Records that are not.
    pub damaged: u64,
    /// Deliveries that wait.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// What is wrong, the first twenty.
    pub faults: Vec<String>,
}

/// What can be taken from a store that was put aside.
#[derive(Clone, Debug, Serialize)]
pub struct Salvageable {
    /// Which.
    #[serde(flatten)]
    pub part: Part,
    /// It was done before.
    pub done: bool,
    /// Deliveries without an end.
    pub deliveries: u64,
    /// Dead letters.
    pub letters: u64,
    /// Records of the past.
    pub history: u64,
}

impl Offline {
    /// Takes a look at the journal in this directory.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or no copy can be made in the temporary directory.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let error = io_error(directory);
        fs::read_dir(directory.join("outbox")).map_err(&error)?;
        let lock = try_lock(directory).map_err(&error)?;
        let work = tempfile::Builder::new().prefix("callpost-journal-").tempdir().map_err(&error)?;
        fs::create_dir(work.path().join("outbox")).map_err(&error)?;
        Ok(Self { directory: directory.to_owned(), work, lock })
    }

    /// Whether an agent has it.
    pub fn is_live(&self) -> bool {
        self.lock.is_none()
    }

    /// Its stores, generations first, oldest first.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn parts(&self) -> Result<Vec<Part>, JournalError> {
        let rooms = [
            ("outbox", PartKind::Generation),
            ("history", PartKind::Day),
            ("keys", PartKind::Month),
            ("quarantine", PartKind::Quarantined),
        ];
        let mut parts = Vec::new();
        for (room, kind) in rooms {
            let room = self.directory.join(room);
            let Ok(entries) = fs::read_dir(&room) else { continue };
            let names: Vec<String> = entries
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            for name in names {
                let path = room.join(&name);
                let name = match kind {
                    PartKind::Generation => rewrite::stands_for(&room, &name).map(str::to_owned),
                    PartKind::Day | PartKind::Month | PartKind::Quarantined => Some(name),
                };
                if let Some(name) = name {
                    parts.push(Part { kind, name, bytes: disk_use(&path), path });
                }
            }
        }
        parts.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        Ok(parts)
    }

    /// How it stands, as its newest generation says.
    ///
    /// # Errors
    /// When no generation can be read.
    pub fn status(&self) -> Result<JournalStatus, JournalError> {
        let parts = self.parts()?;
        let of = |kind: PartKind| parts.iter().filter(move |part| part.kind == kind);
        let mut newest = of(PartKind::Generation).collect::<Vec<_>>();
        let mut status = JournalStatus {
            bytes: disk_use(&self.directory),
            generations: newest.len() as u64,
            days: of(PartKind::Day).count() as u64,
            key_months: of(PartKind::Month).count() as u64,
            quarantined: of(PartKind::Quarantined).count() as u64,
            ..JournalStatus::default()
        };
        let mut found = None;
        while let (None, Some(part)) = (&found, newest.pop()) {
            let Some(number) = generation_of(&part.name) else { continue };
            found = self.on_copy(part, |store| head::read_store(store, number))?;
        }
        let Some(mut book) = found.map(|found| found.book) else { return Ok(status) };
        for (number, generation) in &mut book.generations {
            let name = super::pool::directory_name(*number);
            if let Some(part) = of(PartKind::Generation).find(|part| part.name == name)
                && generation.behind
            {
                self.on_copy(part, |store| head::read_counters(store, generation).map(Some))?;
            }
        }
        book.generations.retain(|number, _| {
            let name = super::pool::directory_name(*number);
            of(PartKind::Generation).any(|part| part.name == name)
        });
        status.head_records = book.next.sequence.saturating_sub(1);
        status.objects = book.objects.len() as u64;
        (status.gaps, status.gap_records) = (book.gap.gaps, book.gap.records);
        let reasons = |number: u16| {
            let mut lists = (Vec::new(), Vec::new());
            for ((_, reason), count) in book.skipped.iter().filter(|((of, _), _)| *of == number) {
                match reason.strip_prefix(DROPPED) {
                    Some(reason) => lists.1.push((reason.to_owned(), *count)),
                    None => lists.0.push((reason.clone(), *count)),
                }
            }
            lists
        };
        status.routes = book
            .routes
            .iter()
            .map(|(number, name)| {
                let (skipped, dropped) = reasons(number);
                let counters = book.total(number);
                RouteStatus { route: name.clone(), counters, oldest: None, skipped, dropped }
            })
            .filter(|route| !route.route.0.is_empty() || !route.skipped.is_empty())
            .collect();
        Ok(status)
    }

    /// Reads every record of a store and holds them against each other.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn examine(&self, part: &Part) -> Result<Findings, JournalError> {
        let empty =
            Findings { part: part.clone(), records: 0, damaged: 0, pending: 0, dead: 0, faults: Vec::new() };
        if part.kind == PartKind::Quarantined {
            return Ok(Findings {
                faults: vec!["it was put aside: see journal salvage".to_owned()],
                ..empty
            });
        }
        let examined = self.on_copy(part, |store| {
            let mut findings = empty.clone();
            match part.kind {
                PartKind::Generation => examine_generation(store, &mut findings)?,
                PartKind::Month => examine_month(store, &mut findings)?,
                PartKind::Day | PartKind::Quarantined => examine_day(store, &mut findings)?,
            }
            match self.is_live() && findings.damaged > 0 {
                true => Err(Fault::Damaged("a torn copy".to_owned())),
                false => Ok(Some(findings)),
            }
        });
        match examined {
            Ok(found) => Ok(found.unwrap_or(empty)),
            Err(JournalError::Damaged { why, .. }) => {
                Ok(Findings { faults: vec![format!("it does not open: {why}")], ..empty })
            }
            Err(error) => Err(error),
        }
    }

    /// Visits every record of a store that tells of calls, as JSON, from one time to another.
    ///
    /// # Errors
    /// When it cannot be copied or opened, or the visitor's.
    pub fn export(
        &self,
        part: &Part,
        time: (Option<Micros>, Option<Micros>),
        mut visit: impl FnMut(Value) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, JournalError> {
        let mut result = Ok(());
        let mut emit = |kind: &str, call: &str, value: Value| {
            let at = ["at", "accepted", "start_epoch"].iter().find_map(|name| value.get(name)?.as_i64());
            let wanted = time.0.is_none_or(|from| at.is_none_or(|at| at >= from.0))
                && time.1.is_none_or(|to| at.is_none_or(|at| at < to.0));
            if wanted && result.is_ok() {
                result = visit(json!({ "kind": kind, "call": call, "part": part.name, "value": value }));
            }
            result.is_ok()
        };
        self.on_copy(part, |store| {
            match part.kind {
                PartKind::Generation => export_generation(store, &mut emit)?,
                PartKind::Day => export_day(store, &mut emit)?,
                PartKind::Month | PartKind::Quarantined => {}
            }
            Ok(Some(()))
        })?;
        Ok(result)
    }

    /// What could be taken from the stores that were put aside.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn salvageable(&self) -> Result<Vec<Salvageable>, JournalError> {
        let parts = self.parts()?.into_iter().filter(|part| part.kind == PartKind::Quarantined);
        parts
            .map(|part| {
                let Plan { deliveries, letters, history } =
                    salvage::plan(&part.path).map_err(io_error(&part.path))?;
                let done = part.path.join("salvaged").exists();
                Ok(Salvageable { part, done, deliveries, letters, history })
            })
            .collect()
    }

    /// Puts the past that was put aside back into its days. What waits is put back by
    /// [`super::Journal::open`], as at each start of the agent. Answers how many records.
    ///
    /// # Errors
    /// When an agent has the journal, or a day cannot be written.
    pub fn salvage_days(&self) -> Result<u64, JournalError> {
        if self.is_live() {
            return Err(JournalError::InUse(self.directory.clone()));
        }
        let mut put = 0;
        for found in self.salvageable()?.into_iter().filter(|found| !found.done && found.history > 0) {
            let path = &found.part.path;
            put += salvage::put_day_back(path, &self.directory.join("history"))
                .map_err(|fault| JournalError::Io { path: path.clone(), why: fault.why().to_owned() })?;
        }
        Ok(put)
    }

    /// Works on a store's copy; a store that looks damaged beside a running agent is copied again.
    fn on_copy<T>(
        &self,
        part: &Part,
        mut work: impl FnMut(&Store) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, JournalError> {
        let copy = self.work.path().join("outbox").join(&part.name);
        let mut tries = if self.is_live() { COPIES } else { 1 };
        loop {
            tries -= 1;
            let _ = fs::remove_dir_all(&copy);
            let copied = copy_store(&part.path, &copy);
            let worked = match copied {
                Ok(()) => Store::open(&copy).and_then(|store| work(&store)),
                // it was moved into the history meanwhile
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_live() => {
                    return Ok(None);
                }
                Err(error) => return Err(io_error(&part.path)(error)),
            };
            match worked {
                Ok(done) => {
                    let _ = fs::remove_dir_all(&copy);
                    return Ok(done);
                }
                Err(_) if tries > 0 => {}
                Err(Fault::Damaged(why)) => {
                    return Err(JournalError::Damaged { path: part.path.clone(), why });
                }
                Err(Fault::Io(why)) => return Err(JournalError::Io { path: part.path.clone(), why }),
            }
        }
    }
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |error| JournalError::Io { path: path.clone(), why: error.to_string() }
}

fn copy_store(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_store(&entry.path(), &target)?;
        } else {
            match fs::copy(entry.path(), target) {
                // a snapshot that was just replaced
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => {
                    copied?;
                }
            }
        }
    }
    Ok(())
}

impl Findings {
    fn fault(&mut self, text: impl FnOnce() -> String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(text());
        }
    }

    fn take<T>(&mut self, key: &[u8], payload: Result<T, format::Damaged>) -> Option<T> {
        match payload {
            Ok(payload) => {
                self.records += 1;
                Some(payload)
            }
            Err(damage) => {
                self.damaged += 1;
                self.fault(|| {
                    format!("the record {:?} is damaged: {}", String::from_utf8_lossy(key), damage.0)
                });
                None
            }
        }
    }
}

/// What a generation's records say of each other.
#[derive(Default)]
struct Links {
    calls: HashSet<u64>,
    clusters: HashSet<u64>,
    entries: HashMap<DeliveryKey, u64>,
    ended: HashSet<DeliveryKey>,
    waiting: HashMap<DeliveryKey, (u16, Option<Pending>)>,
    scheduled: HashSet<(DeliveryKey, i64)>,
    counters: BTreeMap<u16, Counters>,
    highest: u64,
}

fn examine_generation(store: &Store, findings: &mut Findings) -> Result<(), Fault> {
    let mut links = Links::default();
    let mut next = None;
    let number = generation_of(&findings.part.name).unwrap_or(0);
    store.range(&[0], &[0xFF], |key, payload| {
        let Some(payload) = findings.take(key, payload) else { return true };
        match key[0] {
            b'a' if key == key::about("next") => next = Next::decode(&payload),
            key::CALL => links.calls.extend(Reader(&payload).u64()),
            key::COUNTERS => {
                links.counters.extend(Reader(&key[1..]).u16().zip(format::decode_counters(&payload)))
            }
            key::DEAD => findings.dead += 1,
            key::PENDING => {
                if let (Some(route), Some(at)) = (Reader(&key[1..]).u16(), place_in(key)) {
                    links.waiting.insert(at, (route, Pending::decode(&payload)));
                }
            }
            key::DUE => {
                if let (Some(time), Some(at)) =
                    (key.get(3..).and_then(|rest| Reader(rest).i64()), place_in(key))
                {
                    links.scheduled.insert((at, time));
                }
            }
            key::RECORD => record(&mut links, findings, number, key, &payload),
            _ => {}
        }
        true
    })?;
    findings.pending = links.waiting.len() as u64;
    hold_against(&links, next, findings);
    Ok(())
}

fn record(links: &mut Links, findings: &mut Findings, generation: u64, key: &[u8], payload: &[u8]) {
    let (Some(call), Some(kind)) = (Reader(&key[1..]).u64(), key.get(9)) else {
        return findings.fault(|| "a record's key is too short".to_owned());
    };
    links.clusters.insert(call);
    let readable = match *kind {
        kind::ENTRY | kind::OUTCOME => {
            let Some(at) = place_in(key) else { return };
            if at.generation == generation {
                links.highest = links.highest.max(at.sequence);
            }
            if *kind == kind::ENTRY {
                links.entries.insert(at, call);
                StoredEntry::decode(payload).is_some()
            } else {
                let outcome = serde_json::from_slice::<StoredOutcome>(payload);
                if outcome.as_ref().is_ok_and(|found| !matches!(found.settlement, Settlement::Retry { .. })) {
                    links.ended.insert(at);
                }
                outcome.is_ok()
            }
        }
        kind::MESSAGE => !pack::messages(payload).is_empty(),
        _ => pack::read::<Value>(payload).is_some(),
    };
    if !readable {
        findings.fault(|| format!("a record of kind {} of call {call} cannot be read", char::from(*kind)));
    }
}

fn hold_against(links: &Links, next: Option<Next>, findings: &mut Findings) {
    for (at, (route, state)) in &links.waiting {
        let who = || format!("delivery {}/{} of route {route}", at.generation, at.sequence);
        match state {
            None => findings.fault(|| format!("the state of {} cannot be read", who())),
            Some(state) => {
                if links.entries.get(at) != Some(&state.call) {
                    findings.fault(|| format!("{} waits, but its record is not there", who()));
                }
                if state.next > 0 && !links.scheduled.contains(&(*at, state.next)) {
                    findings.fault(|| format!("{} waits for its time, but is not in the schedule", who()));
                }
            }
        }
        if links.ended.contains(at) {
            findings.fault(|| format!("{} has ended and waits", who()));
        }
    }
    for (at, _) in links.scheduled.iter().filter(|(at, _)| !links.waiting.contains_key(at)) {
        findings.fault(|| {
            format!("delivery {}/{} is in the schedule, but does not wait", at.generation, at.sequence)
        });
    }
    for call in links.clusters.difference(&links.calls) {
        findings.fault(|| format!("call {call} has records, but no name"));
    }
    let mut waiting: BTreeMap<u16, u64> = BTreeMap::new();
    links.waiting.values().for_each(|(route, _)| *waiting.entry(*route).or_default() += 1);
    let routes: HashSet<u16> = waiting.keys().chain(links.counters.keys()).copied().collect();
    let mut dead = 0;
    for route in routes {
        let counters = links.counters.get(&route).copied().unwrap_or_default();
        let found = waiting.get(&route).copied().unwrap_or(0);
        dead += counters.dead;
        if counters.pending != found {
            findings.fault(|| {
                format!("route {route} counts {} that wait, but there are {found}", counters.pending)
            });
        }
        let c = counters;
        if c.accepted != c.delivered + c.pending + c.dead + c.refused + c.dropped {
            findings.fault(|| format!("the counters of route {route} do not add up: {c:?}"));
        }
    }
    if dead != findings.dead {
        let there = findings.dead;
        findings.fault(|| format!("the counters know of {dead} dead letters, but there are {there}"));
    }
    match next {
        Some(next) if next.sequence <= links.highest => {
            findings.fault(|| format!("record {} is beyond the end, {}", links.highest, next.sequence));
        }
        Some(_) => {}
        None => findings.fault(|| "it does not say how far it had come".to_owned()),
    }
}

fn examine_month(store: &Store, findings: &mut Findings) -> Result<(), Fault> {
    store.range(&[0], &[0xFF], |key, payload| {
        let Some(payload) = findings.take(key, payload) else { return true };
        let bucket = Reader(&key[1..]).u16();
        if !Bucket::decode(&payload).is_some_and(|bucket| bucket.is_sorted()) {
            findings.fault(|| format!("the keys of bucket {bucket:?} cannot be read"));
        }
        true
    })
}

fn examine_day(store: &Store, findings: &mut Findings) -> Result<(), Fault> {
    let mut there = HashSet::new();
    let mut named = HashSet::new();
    store.range(&[0], &[0xFF], |key, payload| {
        let Some(payload) = findings.take(key, payload) else { return true };
        match key[0] {
            key::PAST => {
                there.extend(day::place_of(key));
                if !Bundle::read(&payload).is_some_and(|bundle| is_readable(&bundle)) {
                    findings.fault(|| "a bundle of calls cannot be read".to_owned());
                }
            }
            key::PAST_INDEX => named.extend(day::place_of(key)),
            _ => {}
        }
        true
    })?;
    let (lost, hidden) = (named.difference(&there).count(), there.difference(&named).count());
    if lost > 0 {
        findings.fault(|| format!("{lost} bundles of calls are not there"));
    }
    if hidden > 0 {
        findings.fault(|| format!("{hidden} bundles of calls are not found by searches"));
    }
    Ok(())
}

fn is_readable(bundle: &Bundle) -> bool {
    let is_json = |json: &[u8]| serde_json::from_slice::<Value>(json).is_ok();
    bundle.iter().all(|(key, payload)| {
        let mut sound = key.first() == Some(&key::CALL) || is_json(payload);
        if key.first() == Some(&key::CALL) {
            day::lines(payload, |_, json| sound &= is_json(json));
        }
        sound
    })
}

/// Takes kind, call and value; answers whether to go on.
type Emit<'a> = &'a mut dyn FnMut(&str, &str, Value) -> bool;

fn export_generation(store: &Store, emit: Emit<'_>) -> Result<(), Fault> {
    let mut names = HashMap::new();
    store.scan(&[key::CALL], |key, payload| {
        let number = payload.ok().and_then(|payload| Reader(&payload).u64());
        names.extend(number.zip(std::str::from_utf8(&key[1..]).ok().map(str::to_owned)));
        true
    })?;
    let mut failed = Ok(());
    store.scan(&[key::RECORD], |key, payload| {
        let (Some(call), Some(kind), Ok(payload)) = (Reader(&key[1..]).u64(), key.get(9), payload) else {
            return true;
        };
        let name = names.get(&call).map_or("", String::as_str);
        let known = |text: &'static str, value: Option<Value>| value.map(|value| (text, value));
        let found = match *kind {
            kind::MESSAGE => {
                return pack::messages(&payload)
                    .into_iter()
                    .filter_map(|message| serde_json::to_value(message).ok())
                    .all(|value| emit("message", name, value));
            }
            kind::UPDATE => known("update", pack::read(&payload)),
            kind::CDR => known("cdr", pack::read(&payload)),
            kind::MERGER => known("merger", pack::read(&payload)),
            kind::ENTRY => match delivery(store, call, key, &payload) {
                Ok(value) => known("delivery", value),
                Err(fault) => {
                    failed = Err(fault);
                    return false;
                }
            },
            _ => None,
        };
        found.is_none_or(|(kind, value)| emit(kind, name, value))
    })?;
    failed?;
    store.scan(&[key::DEAD], |_, payload| {
        let letter = payload.ok().and_then(|json| serde_json::from_slice::<DeadLetter>(&json).ok());
        let value = letter.as_ref().and_then(|letter| Some((letter, serde_json::to_value(letter).ok()?)));
        value.is_none_or(|(letter, value)| emit("dead", &letter.call.0, value))
    })
}

fn delivery(store: &Store, call: u64, key: &[u8], payload: &[u8]) -> Result<Option<Value>, Fault> {
    let (Some(at), Some(stored)) = (place_in(key), StoredEntry::decode(payload)) else { return Ok(None) };
    let outcome = store.get(&key::delivery(call, kind::OUTCOME, at))?;
    let outcome = outcome.and_then(Result::ok).and_then(|json| serde_json::from_slice(&json).ok());
    let mut outcomes = outcome.map(|outcome: StoredOutcome| (at, outcome)).into_iter().collect();
    let made = super::archive::deliveries(BTreeMap::from([(at, stored)]), &mut outcomes);
    Ok(made.first().and_then(|made| serde_json::to_value(made).ok()))
}

fn export_day(store: &Store, emit: Emit<'_>) -> Result<(), Fault> {
    store.scan(&[key::PAST], |_, payload| {
        let bundle = payload.ok().and_then(|payload| Bundle::read(&payload));
        let mut more = true;
        for (key, run) in bundle.iter().flat_map(Bundle::iter) {
            // a leg alone stands with its call on another day
            let Some(call) = super::replay::call_of_run(key) else { continue };
            day::lines(run, |letter, json| {
                let kind = match letter {
                    b'm' => "message",
                    b'u' => "update",
                    b'd' => "cdr",
                    b'l' => "merger",
                    _ => "delivery",
                };
                if let (true, Ok(value)) = (more, serde_json::from_slice(json)) {
                    more = emit(kind, &call.0, value);
                }
            });
        }
        more
    })
}
