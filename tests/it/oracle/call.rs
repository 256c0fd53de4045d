//! One call to be played: its messages, and what receivers must be told of it.

use std::time::Duration;

use bytes::BytesMut;
use callpost::calls::{Input, Tracker};
use callpost::config::Config;
use callpost::demo::{Recording, SCENES, Shift};
use callpost::journal::Payload;
use callpost::routes::Routes;
use jiff::tz::TimeZone;
use parsers::Micros;
use parsers::ami::{Codec, Event, EventKind, Frame};
use sha1::{Digest, Sha1};
use tokio_util::codec::Decoder;

/// Uniqueids, channels and bridges of two calls are at least so far apart.
const APART: u32 = 1_000;
/// The text of the recorded message, in base64.
const TEXT: &str = "aG9sYSwgc2XDsW9yOiDCv3F1w6kgdGFsPwpsaW5lYTI=";
/// What Asterisk may still say of a call once its last channel is gone, and what the tracker waits for.
const REST: i64 = 600_000;

/// Recorded calls of a real Asterisk, and which outside number each has.
#[derive(Debug)]
pub struct Scenes(Vec<(Recording, &'static str)>);

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Until its first message.
    pub wait: Duration,
    /// Microseconds after its first message, and the message.
    pub messages: Vec<(u64, String)>,
    /// Whether the stand-in PBX can list its state whole: it has no queues to list.
    pub listed: bool,
    /// The number that no other call has.
    pub number: String,
    /// `src_hash`.
    pub hash: String,
    /// By route.
    pub owed: Vec<Owed>,
}

/// One delivery that a receiver must get.
#[derive(Debug)]
pub struct Owed {
    /// The route's name.
    pub route: String,
    /// A webhook's id, or a create's key.
    pub id: String,
    /// A webhook's body, or what a create has beside its key.
    pub content: String,
    /// Order counts.
    pub ordered: bool,
}

impl Scenes {
    pub fn new() -> Self {
        let number = |name: &str| match name {
            "blind_transfer" => "582863334455",
            "hold" => "34911234567",
            "inbound_missed" => "582125559876",
            "outbound_answered" => "92125551234",
            "ring_group" => "584261112233",
            "sms" => TEXT,
            _ => "584141234567",
        };
        Self(SCENES.iter().map(|scene| (Recording::new(scene.stream), number(scene.name))).collect())
    }

    /// The call of this number, from 1, that begins within a second from now.
    pub fn call(&self, index: u32, now: Micros, config: &Config, routes: &Routes) -> Call {
        let scene = index as usize % self.0.len();
        let (recording, outside) = &self.0[scene];
        let first = recording.first();
        // what is stamped is played when the stamp says
        let seconds = (now.0 - first.0).div_euclid(Micros::SECOND) + 1;
        let shift = Shift { seconds, offset: index * APART, zone: TimeZone::UTC };
        // as long as the recorded one, so that what depends on its length stays the same
        let number = match outside.len() {
            11 => format!("9{index:010}"),
            12 => format!("58{index:010}"),
            _ => base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("text number {index}"),
            ),
        };
        let played = |message: &str| shift.message(message).replace(outside, &number);
        let since = |at: Micros| u64::try_from(at.0 - first.0).unwrap_or(0);
        let messages: Vec<(u64, String)> =
            recording.messages.iter().map(|(at, message)| (since(*at), played(message))).collect();
        let linkedid = shift.uniqueid(&recording.linkedid).unwrap();
        let owed = truth(&messages, config, routes);
        Call {
            wait: Duration::from_micros(u64::try_from(shift.time(first).0 - now.0).unwrap()),
            messages,
            listed: SCENES[scene].name != "queue_answered",
            number,
            hash: hex(&Sha1::digest(format!("{}\0{linkedid}", config.pbx.name))),
            owed,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a tracker that sees this call alone makes of it.
fn truth(messages: &[(u64, String)], config: &Config, routes: &Routes) -> Vec<Owed> {
    let mut buffer = BytesMut::from(&b"Asterisk Call Manager/11.0.0\r\n"[..]);
    for (_, message) in messages {
        buffer.extend_from_slice(message.as_bytes());
    }
    let mut codec = Codec::default();
    let mut tracker = Tracker::new(config);
    let (mut owed, mut now) = (Vec::new(), Micros(0));
    while let Some(frame) = codec.decode(&mut buffer).unwrap() {
        let Frame::Message(message) = frame else { continue };
        let event = Event::parse(&message).unwrap();
        if matches!(event.kind, EventKind::Other(_)) {
            continue;
        }
        advance(&mut tracker, event.at.unwrap_or(now), &mut now, routes, &mut owed);
        take(tracker.handle(Input::Event(&event), now), routes, &mut owed);
    }
    advance(&mut tracker, now.plus_millis(REST), &mut now, routes, &mut owed);
    owed
}

/// Lets time pass, with a tick at each deadline.
fn advance(tracker: &mut Tracker, to: Micros, now: &mut Micros, routes: &Routes, owed: &mut Vec<Owed>) {
    while let Some(deadline) = tracker.deadline().filter(|deadline| *deadline <= to) {
        *now = (*now).max(deadline);
        take(tracker.handle(Input::Tick, *now), routes, owed);
    }
    *now = (*now).max(to);
}

fn take(step: callpost::calls::Step, routes: &Routes, owed: &mut Vec<Owed>) {
    let updates = step.updates.iter().flat_map(|update| routes.select(update));
    let creates = step.groups.iter().flat_map(|group| routes.creates(group).0);
    owed.extend(updates.chain(creates).map(|outgoing| {
        let (id, content) = match outgoing.payload {
            Payload::Webhook { body, .. } => (outgoing.id.0.to_string(), body),
            Payload::Nimbox { initiated, source, destination, duration, url } => {
                (create_key(&initiated, &source, &destination), create_content(duration, url.as_deref()))
            }
        };
        Owed { route: outgoing.route.0.to_string(), id, content, ordered: outgoing.ordered }
    }));
}

/// What NiMbox tells calls apart by, as one text.
pub fn create_key(initiated: &str, source: &str, destination: &str) -> String {
    format!("{initiated}|{source}|{destination}")
}

/// The rest of a create, as one text.
pub fn create_content(duration: Option<u64>, url: Option<&str>) -> String {
    format!("{}|{}", duration.map(|seconds| seconds.to_string()).unwrap_or_default(), url.unwrap_or_default())
}
