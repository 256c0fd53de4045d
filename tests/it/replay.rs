//! Recorded streams of a real Asterisk through codec, events and tracker, in virtual time.

#![expect(clippy::wildcard_enum_match_arm, reason = "a stream holds more than is looked at")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

use bytes::BytesMut;
use callpost::calls::{
    CdrGroup, EventName, Input, ObjectKey, Snapshot, SnapshotChannel, SnapshotEntry, Step, Tracker, Update,
    UpdateBody,
};
use callpost::config::{self, Config};
use callpost::journal::Payload;
use callpost::routes::Routes;
use parsers::Micros;
use parsers::ami::{Codec, Event, EventKind, Frame};
use serde_json::{Value, json};
use tokio_util::codec::Decoder;

use crate::expect::{Create, Expectation, Tolerance};

/// The reference configuration of the catalogue.
pub const CONFIG: &str = r#"
[pbx]
name = "hq"
timezone = "UTC"
trunks = ["PJSIP/trunk"]
users = [
  { channel = "PJSIP/1001", id = 10001, numbers = ["1001"] },
  { channel = "PJSIP/1002", id = 10002, numbers = ["1002"] },
  { channel = "PJSIP/1003", id = 10003, numbers = ["1003"] },
]

[[nimbox]]
name = "crm"
url = "https://nimbox.example.com"
token = "t"
initiated = "utc-z"

[[webhook]]
name = "all"
url = "https://hooks.example.com/pbx"
events = ["call.state", "call.dtmf", "sms.received"]
"#;

pub fn config() -> &'static Config {
    static LOADED: LazyLock<Config> = LazyLock::new(|| {
        let loaded = config::load_text(CONFIG, "replay.toml", &config::Environment::default());
        loaded.unwrap_or_else(|faults| panic!("{faults:?}")).config
    });
    &LOADED
}

/// Where recordings are, and how exactly they keep the times of the catalogue.
const RECORDINGS: [(&str, Tolerance); 3] = [
    ("catalogue", Tolerance { duration: 0, start: 0 }),
    ("22", Tolerance { duration: 1, start: 1 }),
    ("16", Tolerance { duration: 1, start: 1 }),
];

/// The recording of a scenario in one of them.
pub fn fixture(directory: &str, name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/ami/{directory}/{name}.ami", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every scenario that was recorded in one of them.
pub fn names(directory: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ami").join(directory);
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".ami").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// What a scenario must come out as: `NAME.txt`, or `NAME.DIRECTORY.txt` where recordings differ.
pub fn expected(directory: &str, name: &str) -> Expectation {
    let expectations = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/expected");
    let own = expectations.join(format!("{name}.{directory}.txt"));
    let path = if own.exists() { own } else { expectations.join(format!("{name}.txt")) };
    let path = path.display();
    let text = std::fs::read_to_string(path.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
    Expectation::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What the tracker is fed, owned.
#[derive(Clone, Debug)]
pub enum Fed {
    Event(Box<Event>),
    Snapshot(Box<Snapshot>),
}

/// A stream as the tracker is fed: real events in order, lists gathered into a snapshot.
pub fn feed(stream: &[u8]) -> Vec<(Micros, Fed)> {
    let mut buffer = BytesMut::from(&b"Asterisk Call Manager/11.0.0\r\n"[..]);
    buffer.extend_from_slice(stream);
    let mut codec = Codec::default();
    let mut fed = Vec::new();
    let mut now = None;
    let mut lists = Snapshot { startup: "2026-11-21 09:34:36".to_owned(), ..Snapshot::default() };
    while let Some(frame) = codec.decode(&mut buffer).unwrap() {
        let Frame::Message(message) = frame else { continue };
        let Some(event) = Event::parse(&message) else { continue };
        now = event.at.or(now);
        match &event.kind {
            EventKind::ListComplete { name, .. } if &**name == "QueueStatusComplete" => {
                fed.push((now, Fed::Snapshot(Box::new(std::mem::take(&mut lists)))));
            }
            _ if gather(&mut lists, &event) => {}
            _ => fed.push((now, Fed::Event(Box::new(event)))),
        }
    }
    assert!(buffer.is_empty(), "the stream ends within a message");
    let first = fed.iter().find_map(|(at, _)| *at).unwrap_or_default();
    fed.into_iter().map(|(at, fed)| (at.unwrap_or(first), fed)).collect()
}

/// List items become the snapshot.
fn gather(lists: &mut Snapshot, event: &Event) -> bool {
    match &event.kind {
        EventKind::CoreShowChannel { channel, application, application_data, bridge, .. } => {
            lists.channels.push(SnapshotChannel {
                channel: channel.clone(),
                application: application.clone(),
                application_data: application_data.clone(),
                bridge: bridge.clone(),
                start: None,
                answer: None,
                did: None,
            });
        }
        EventKind::Status { channel, variables, dnid, .. } => {
            let known = lists.channels.iter_mut().find(|one| one.channel.uniqueid == channel.uniqueid);
            let get =
                |name: &str| variables.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone());
            if let Some(known) = known {
                known.start = get("CDR(start,u)").and_then(|text| Micros::parse(&text));
                known.answer = get("CDR(answer,u)").and_then(|text| Micros::parse(&text));
                known.did = get("FROM_DID").or_else(|| dnid.clone());
            }
        }
        EventKind::BridgeListItem(bridge) => lists.bridges.push(bridge.clone()),
        EventKind::QueueEntry { queue, uniqueid, wait, .. } => {
            lists.waiting.push(SnapshotEntry {
                queue: queue.clone(),
                uniqueid: uniqueid.clone(),
                wait: *wait,
            });
        }
        EventKind::ListComplete { .. } => {}
        _ => return false,
    }
    true
}

/// A tracker, its journal of objects, and all that it said.
pub struct Run {
    config: Config,
    pub tracker: Tracker,
    pub objects: BTreeMap<ObjectKey, Vec<u8>>,
    pub updates: Vec<Update>,
    pub groups: Vec<CdrGroup>,
    pub skipped: Vec<&'static str>,
    pub resyncs: usize,
    pub now: Micros,
}

impl Run {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: &Config) -> Self {
        Self {
            config: config.clone(),
            tracker: Tracker::new(config),
            objects: BTreeMap::new(),
            updates: Vec::new(),
            groups: Vec::new(),
            skipped: Vec::new(),
            resyncs: 0,
            now: Micros(0),
        }
    }

    /// One input, at its time; deadlines before it first.
    pub fn put(&mut self, at: Micros, fed: &Fed) {
        self.advance(at);
        let step = match fed {
            Fed::Event(event) => self.tracker.handle(Input::Event(event), self.now),
            Fed::Snapshot(snapshot) => self.tracker.handle(Input::Snapshot(snapshot), self.now),
        };
        self.keep(step);
    }

    pub fn lose(&mut self, at: Micros) {
        self.give(at, Input::Lost);
    }

    /// Any input, at its time.
    pub fn give(&mut self, at: Micros, input: Input<'_>) {
        self.advance(at);
        let step = self.tracker.handle(input, self.now);
        self.keep(step);
    }

    /// Lets time pass, with a tick at each deadline.
    pub fn advance(&mut self, to: Micros) {
        while let Some(deadline) = self.tracker.deadline().filter(|deadline| *deadline <= to) {
            self.now = self.now.max(deadline);
            let step = self.tracker.handle(Input::Tick, self.now);
            self.keep(step);
        }
        self.now = self.now.max(to);
    }

    /// The agent stops and starts again: a tracker from the objects.
    pub fn restart(&mut self) {
        let objects = self.objects.iter().map(|(key, value)| (key.clone(), value.clone()));
        let (tracker, faults) = Tracker::restore(&self.config, objects, self.now);
        assert_eq!(faults, Vec::<String>::new());
        self.tracker = tracker;
    }

    pub fn keep(&mut self, step: Step) {
        for (key, value) in step.objects {
            match value {
                Some(value) => {
                    assert!(value.len() < 16 * 1024, "{} has {} bytes", key.0, value.len());
                    self.objects.insert(key, value);
                }
                None => drop(self.objects.remove(&key)),
            }
        }
        self.updates.extend(step.updates);
        self.groups.extend(step.groups);
        self.skipped.extend(step.skipped);
        self.resyncs += usize::from(step.resync);
    }

    /// Long after the last event.
    pub fn rest(&mut self) {
        self.advance(self.now.plus_millis(3_600_000));
    }
}

/// A whole stream, and an hour after it.
pub fn replay(fed: &[(Micros, Fed)]) -> Run {
    replay_in(config(), fed)
}

/// The same with another configuration.
pub fn replay_in(config: &Config, fed: &[(Micros, Fed)]) -> Run {
    let mut run = Run::with(config);
    for (at, fed) in fed {
        run.put(*at, fed);
    }
    run.rest();
    run
}

/// The bodies that a receiver of everything gets, and ACCEPTED, which has no webhook.
pub fn bodies(routes: &Routes, updates: &[Update]) -> Vec<Value> {
    let body = |update: &Update| match &update.body {
        UpdateBody::Leg(leg) if leg.event == EventName::Accepted => vec![json!({
            "event_name": leg.event, "call_id": leg.call_id, "state": leg.state,
            "src": leg.src.number, "src_id": leg.src.id.to_string(),
        })],
        _ => routes
            .select(update)
            .into_iter()
            .map(|outgoing| match outgoing.payload {
                Payload::Webhook { body, .. } => serde_json::from_str(&body).unwrap(),
                Payload::Nimbox { .. } => panic!("a create of an update"),
            })
            .collect(),
    };
    updates.iter().flat_map(body).collect()
}

/// The creates of complete groups, and the second of the earliest row.
pub fn creates(routes: &Routes, groups: &[CdrGroup]) -> (Vec<Create>, Option<i64>) {
    let rows = groups.iter().flat_map(|group| &group.rows);
    let base = rows.filter_map(|row| row.cdr.start_epoch).map(Micros::secs).min();
    let create = |payload| match payload {
        Payload::Nimbox { initiated, source, destination, duration, .. } => Create {
            initiated: initiated.parse::<jiff::Timestamp>().unwrap().as_second(),
            source,
            destination,
            duration: i64::try_from(duration.unwrap_or_default()).unwrap(),
        },
        Payload::Webhook { .. } => panic!("a webhook of a group"),
    };
    let creates =
        groups.iter().flat_map(|group| routes.creates(group).0).map(|outgoing| create(outgoing.payload));
    (creates.collect(), base)
}

/// Everything that came out, one line each, times relative to the first event.
fn listing(run: &Run, zero: Micros) -> String {
    let mut text = String::new();
    let since = |at: Micros| format!("{:+.3}", (at.0 - zero.0) as f64 / 1e6);
    for update in &run.updates {
        let _ = write!(text, "{} {} ", since(update.at), update.id.0);
        let _ = match &update.body {
            UpdateBody::Sms(sms) => writeln!(text, "{sms:?}"),
            UpdateBody::Leg(leg) => writeln!(
                text,
                "{:?} {:?} {:?} id={} parent={:?} start={} up={} {}s src={:?} dst={:?} clid={:?} cause={:?} info={:?} by={:?} digit={:?} call={}",
                leg.context,
                leg.direction,
                leg.event,
                leg.call_id,
                leg.parent_id,
                since(leg.start),
                leg.connected.map(since).unwrap_or_default(),
                leg.duration,
                (&leg.src.number, leg.src.id, &leg.src.name),
                (&leg.dst.number, leg.dst.id, &leg.dst.name),
                leg.clid,
                leg.cause,
                leg.info,
                leg.terminated_by,
                leg.digit,
                &update.call.0[..8],
            ),
        };
    }
    for group in &run.groups {
        let _ = writeln!(text, "CDRs by {:?} of {}", group.source, &group.call.0[..8]);
        for row in &group.rows {
            let cdr = &row.cdr;
            let name = |name: &Option<parsers::ChannelName>| {
                name.as_ref().map_or("-".to_owned(), ToString::to_string)
            };
            let _ = writeln!(
                text,
                "  {} {}>{} {} > {} {}/{} {} did={:?}",
                cdr.start_epoch.map(since).unwrap_or_default(),
                cdr.src.as_deref().unwrap_or_default(),
                cdr.dst.as_deref().unwrap_or_default(),
                name(&cdr.channel),
                name(&cdr.dstchannel),
                cdr.duration,
                cdr.billsec,
                cdr.disposition.as_str(),
                row.did,
            );
        }
    }
    for reason in &run.skipped {
        let _ = writeln!(text, "skipped: {reason}");
    }
    text
}

/// What is not as the catalogue says, or nothing.
pub fn faults(directory: &str, name: &str, run: &Run, tolerance: Tolerance) -> String {
    let routes = Routes::new(config());
    let expected = expected(directory, name);
    let (creates, base) = creates(&routes, &run.groups);
    let mut faults = String::new();
    for result in [
        expected.check_webhooks(&bodies(&routes, &run.updates), tolerance),
        expected.check_creates(&creates, base, tolerance),
    ] {
        if let Err(differences) = result {
            let _ = write!(faults, "{differences}");
        }
    }
    faults
}

#[test]
fn every_recorded_scenario_comes_out_as_the_catalogue_says() {
    let mut all = String::new();
    for (directory, tolerance) in RECORDINGS {
        for name in names(directory) {
            let faults = faults(directory, &name, &replay(&feed(&fixture(directory, &name))), tolerance);
            if !faults.is_empty() {
                let _ = writeln!(all, "{directory}/{name}\n{faults}");
            }
        }
    }
    assert!(all.is_empty(), "\n{all}");
}

#[test]
fn every_recorded_scenario_gives_the_same_updates_as_before() {
    for (directory, _) in RECORDINGS {
        for name in names(directory) {
            let fed = feed(&fixture(directory, &name));
            let zero = fed.first().map_or(Micros(0), |(at, _)| *at);
            insta::assert_snapshot!(format!("{directory}_{name}"), listing(&replay(&fed), zero));
        }
    }
}
