//! Recorded streams of a real Asterisk through codec, events and tracker, in virtual time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics fails"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use bytes::BytesMut;
use callpost::calls::{
    CdrGroup, Input, ObjectKey, Snapshot, SnapshotChannel, SnapshotEntry, Step, TerminatedBy, Tracker,
    Update, UpdateBody,
};
use callpost::config::{self, Config};
use parsers::Micros;
use parsers::ami::{Codec, Event, EventKind, Frame};
use serde_json::{Value, json};
use tokio_util::codec::Decoder;

use crate::expect::{Expectation, Tolerance};

/// The reference configuration of the catalogue.
pub fn config() -> Config {
    let user = |number: u64| config::User {
        channel: format!("PJSIP/{number}"),
        id: number + 9000,
        name: None,
        numbers: vec![number.to_string()],
    };
    Config {
        pbx: config::Pbx {
            name: "hq".to_owned(),
            timezone: jiff::tz::TimeZone::UTC,
            trunks: vec![config::Trunk { channel: "PJSIP/trunk".to_owned(), number: None }],
            inbound_contexts: vec!["from-trunk".to_owned()],
            extensions: regex::Regex::new(r"^\d{2,6}$").unwrap(),
            users: (1001..=1003).map(user).collect(),
        },
        ami: None,
        journal: config::Journal {
            directory: PathBuf::new(),
            max_size: 1 << 30,
            keep: std::time::Duration::from_secs(86_400),
        },
        cdr: config::CdrStore { timezone: None, source: None, table: "cdr".to_owned(), since: None },
        numbers: config::Numbers { min_length: 7, rules: Vec::new() },
        recordings: config::Recordings::default(),
        calls: config::Calls {
            report_unreached: true,
            internal_caller_leg: false,
            conference_legs: false,
            transfer_context: "from-internal".to_owned(),
        },
        sms: config::Sms::default(),
        queues: Vec::new(),
        nimbox: Vec::new(),
        webhooks: Vec::new(),
        api: config::Api { socket: PathBuf::new(), listen: None, token: None },
    }
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/ami/catalogue/{name}.ami", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every scenario that was recorded.
pub fn names() -> Vec<String> {
    let directory = format!("{}/fixtures/ami/catalogue", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".ami").map(str::to_owned))
        .collect();
    names.sort();
    names
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
        EventKind::Status { channel, variables, .. } => {
            let known = lists.channels.iter_mut().find(|one| one.channel.uniqueid == channel.uniqueid);
            let get =
                |name: &str| variables.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone());
            if let Some(known) = known {
                known.start = get("CDR(start,u)").and_then(|text| Micros::parse(&text));
                known.answer = get("CDR(answer,u)").and_then(|text| Micros::parse(&text));
                known.did = get("FROM_DID");
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
    pub tracker: Tracker,
    pub objects: BTreeMap<ObjectKey, Vec<u8>>,
    pub updates: Vec<Update>,
    pub groups: Vec<CdrGroup>,
    pub skipped: Vec<&'static str>,
    pub now: Micros,
}

impl Run {
    pub fn new() -> Self {
        Self {
            tracker: Tracker::new(&config()),
            objects: BTreeMap::new(),
            updates: Vec::new(),
            groups: Vec::new(),
            skipped: Vec::new(),
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
        self.advance(at);
        let step = self.tracker.handle(Input::Lost, self.now);
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
        let (tracker, faults) = Tracker::restore(&config(), objects, self.now);
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
    }

    /// Long after the last event.
    pub fn rest(&mut self) {
        self.advance(self.now.plus_millis(3_600_000));
    }
}

/// A whole stream, and an hour after it.
pub fn replay(fed: &[(Micros, Fed)]) -> Run {
    let mut run = Run::new();
    for (at, fed) in fed {
        run.put(*at, fed);
    }
    run.rest();
    run
}

/// An update as a receiver gets it, by the documented attributes.
pub fn as_body(update: &Update) -> Value {
    let time = |at: Micros| {
        jiff::Timestamp::from_microsecond(at.0).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    let by = |by: TerminatedBy| serde_json::to_value(by).unwrap();
    match &update.body {
        UpdateBody::Leg(leg) => {
            let mut body = json!({
                "id": update.id, "event_time": time(update.at), "event_name": leg.event, "call_id": leg.call_id,
                "state": leg.state, "connected_at": leg.connected.map(time), "start_time": time(leg.start),
                "context": leg.context, "destination": leg.direction, "duration": leg.duration, "t_cause": leg.cause,
                "src": leg.src.number, "src_id": leg.src.id.to_string(), "src_name": leg.src.name,
                "src_hash": update.call, "dst": leg.dst.number, "dst_id": leg.dst.id.to_string(),
                "dst_name": leg.dst.name, "clid": leg.clid, "info": leg.info,
                "terminated_by": leg.terminated_by.map_or(json!(""), by), "parent_id": leg.parent_id,
            });
            if let Some((digit, pressed_by)) = leg.digit {
                body["digit"] = json!(digit);
                body["digit_by"] = by(pressed_by);
            }
            body
        }
        UpdateBody::Sms(sms) => json!({
            "id": update.id, "event_time": time(update.at), "event_name": "sms.received",
            "customer_id": sms.customer_id, "user_id": sms.user_id,
            "from_no": sms.from, "to_no": sms.to, "text": sms.text,
        }),
    }
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

#[test]
fn every_recorded_scenario_comes_out_as_the_catalogue_says() {
    let mut faults = String::new();
    for name in names() {
        let path = format!("{}/fixtures/expected/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let expected = Expectation::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let run = replay(&feed(&fixture(&name)));
        let bodies: Vec<Value> = run.updates.iter().map(as_body).collect();
        if let Err(differences) = expected.check_webhooks(&bodies, Tolerance::default()) {
            let _ = writeln!(faults, "{name}\n{differences}");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_recorded_scenario_gives_the_same_updates_as_before() {
    for name in names() {
        let fed = feed(&fixture(&name));
        let zero = fed.first().map_or(Micros(0), |(at, _)| *at);
        insta::assert_snapshot!(name, listing(&replay(&fed), zero));
    }
}
