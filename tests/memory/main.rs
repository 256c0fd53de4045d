//! What the tracker holds of a flood, in bytes of the heap: hundreds of thousands of events that
//! nobody should send, with values as long and as odd as AMI carries them, and one real call among
//! them. Its own binary, because it counts every allocation.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets what it did not expect has failed")]

use std::fmt::Write;

use bytes::BytesMut;
use callpost::calls::{EventName, Input, LegUpdate, Step, Tracker, UpdateBody};
use callpost::config::{self, Config};
use parsers::Micros;
use parsers::ami::{Codec, Event, Frame};
use peak_alloc::PeakAlloc;
use tokio_util::codec::Decoder;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What the tracker may hold, whatever it is fed; with texts of a usual length it is a third.
const LIMIT: usize = 128 << 20;
/// Rounds of one flood. Each of some that show their limit has as many as it takes; `CALLPOST_FLOOD`
/// says another number for all, and `CALLPOST_FLOOD_ONLY` a part of a name.
const ROUNDS: usize = 400;

fn config() -> Config {
    let text = "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\ntrunks = [\"PJSIP/trunk\"]\n[calls]\nconference_legs = true\ninternal_caller_leg = true\n";
    config::load_text(text, "flood.toml", &config::Environment::default())
        .unwrap_or_else(|faults| panic!("{faults:?}"))
        .config
}

fn events(stream: &str) -> Vec<Event> {
    let mut buffer = BytesMut::from(format!("Asterisk Call Manager/11.0.0\r\n{stream}").as_bytes());
    let mut codec = Codec::default();
    let mut events = Vec::new();
    while let Some(frame) = codec.decode(&mut buffer).unwrap() {
        if let Frame::Message(message) = frame {
            events.extend(Event::parse(&message));
        }
    }
    events
}

/// A value that swells wherever it is copied, escaped or cut.
fn hostile(n: usize, length: usize) -> String {
    let mut text = format!("{n} \"\\é\u{7f}");
    while text.len() < length {
        text.push_str("\\\"ñ'<> ");
    }
    text
}

/// An id of the length that Asterisk allows.
fn id(n: usize) -> String {
    let tail = format!("-1795{:06}.{n}", n % 1_000_000);
    format!("{}{tail}", "x".repeat(149 - tail.len()))
}

fn block(prefix: &str, channel: &str, n: usize, linked: usize, state: u8) -> String {
    let text = hostile(n, 300);
    format!(
        "{prefix}Channel: {channel}\r\n{prefix}ChannelState: {state}\r\n{prefix}CallerIDNum: {text}\r\n{prefix}CallerIDName: {text}\r\n{prefix}ConnectedLineNum: {text}\r\n{prefix}ConnectedLineName: {text}\r\n{prefix}AccountCode: {text}\r\n{prefix}Context: {text}\r\n{prefix}Exten: {text}\r\n{prefix}Uniqueid: {}\r\n{prefix}Linkedid: {}\r\n{prefix}ChanVariable: FROM_DID={text}\r\n",
        id(n),
        id(linked)
    )
}

fn event(name: &str, class: &str, body: &str) -> String {
    format!("Event: {name}\r\nPrivilege: {class},all\r\n{body}\r\n")
}

fn trunk(n: usize) -> String {
    format!("PJSIP/trunk{}-{n:08x}", "t".repeat(100))
}

fn phone(n: usize) -> String {
    format!("PJSIP/{}-{n:08x}", 1000 + n % 9000)
}

fn born(n: usize) -> String {
    event("Newchannel", "call", &block("", &trunk(n), n, n, 4))
}

fn born_phone(n: usize, linked: usize) -> String {
    event("Newchannel", "call", &block("", &phone(n), n, linked, 0))
}

fn gone(n: usize) -> String {
    event(
        "Hangup",
        "call",
        &format!("{}Cause: 16\r\nCause-txt: {}\r\n", block("", &trunk(n), n, n, 6), hostile(n, 300)),
    )
}

fn cdr(party: usize, n: usize) -> String {
    let text = hostile(n, 300);
    event(
        "Cdr",
        "cdr",
        &format!(
            "AccountCode: {text}\r\nSource: {text}\r\nDestination: {text}\r\nDestinationContext: {text}\r\nCallerID: {text}\r\nChannel: {}\r\nDestinationChannel: {}\r\nLastApplication: {text}\r\nLastData: {text}\r\nStartTime: {text}\r\nAnswerTime: {text}\r\nEndTime: {text}\r\nDuration: {n}\r\nBillableSeconds: {n}\r\nDisposition: ANSWERED\r\nUniqueID: {}\r\nUserField: {text}\r\nLinkedID: {}\r\nRecordingFile: {text}\r\nDID: {text}\r\n",
            trunk(party),
            phone(n),
            id(party),
            id(party)
        ),
    )
}

fn bridged(n: usize, bridge: usize) -> String {
    let bridge = format!("BridgeUniqueid: {}\r\nBridgeType: basic\r\n", hostile(bridge, 300));
    event("BridgeEnter", "call", &format!("{bridge}{}", block("", &trunk(n), n, n, 6)))
}

fn queue(name: &str, caller: usize, queue: usize) -> String {
    event(
        name,
        "agent",
        &format!(
            "{}Queue: {}\r\nPosition: 1\r\nHoldTime: {queue}\r\n",
            block("", &trunk(caller), caller, caller, 6),
            hostile(queue, 300)
        ),
    )
}

/// The n-th part of a flood, each of which makes the tracker remember as much as it can.
type Flood = fn(usize) -> String;

const FLOODS: [(&str, usize, Flood); 13] = [
    ("channels that never hang up", 11_000, born),
    ("channels that hang up at once", ROUNDS, |n| born(n) + &gone(n)),
    ("channels whose rows come late", ROUNDS, |n| {
        born(n) + &gone(n) + &if n % 50 == 0 { cdr(n, n) } else { String::new() }
    }),
    ("phones that ring for ever", ROUNDS, |n| {
        born(n * 2)
            + &born_phone(n * 2 + 1, n * 2)
            + &event(
                "DialBegin",
                "call",
                &(block("", &trunk(n * 2), n * 2, n * 2, 4)
                    + &block("Dest", &phone(n * 2 + 1), n * 2 + 1, n * 2, 0)),
            )
    }),
    ("one caller in a queue of every name", ROUNDS, |n| {
        if n == 0 { born(0) } else { queue("QueueCallerJoin", 0, n) }
    }),
    ("callers in many queues", ROUNDS, |n| {
        born(n)
            + &queue("QueueCallerJoin", n, 1)
            + &queue("QueueCallerJoin", n, 2)
            + &queue("QueueCallerJoin", n, 3)
    }),
    ("rows of one channel", ROUNDS, |n| if n == 0 { born(0) } else { cdr(0, n) }),
    ("rows of every channel", 3_000, |n| born(n) + &cdr(n, n) + &cdr(n, n + 1) + &cdr(n, n + 2)),
    ("bridges without end", ROUNDS, |n| born(n) + &bridged(n, n) + &bridged(n / 2, n)),
    ("linkedids that change with every event", ROUNDS, |n| {
        if n == 0 { born(0) } else { event("Newstate", "call", &block("", &trunk(0), 0, n + 1, 6)) }
    }),
    ("ids that repeat", ROUNDS, |n| {
        let n = n % 100;
        born(n) + &gone(n) + &born_phone(n, (n * 7) % 100) + &cdr(n, n)
    }),
    ("texts and digits", ROUNDS, |n| {
        let who = block("", &trunk(0), 0, 0, 6);
        let sms = event(
            "UserEvent",
            "user",
            &format!(
                "UserEvent: CallpostSMS\r\nFrom: {n}\r\nTo: {}\r\nTextB64: {}\r\n",
                hostile(n, 300),
                "QUJD".repeat(100)
            ),
        );
        let digit =
            event("DTMFEnd", "dtmf", &format!("{who}Digit: 5\r\nDirection: Received\r\nDurationMs: 80\r\n"));
        born(0)
            + &sms
            + &digit
            + &event("VarSet", "dialplan", &format!("{who}Variable: X\r\nValue: {}\r\n", hostile(n, 300)))
    }),
    ("conferences, parks, pickups, halves", ROUNDS, |n| {
        let (a, b) = (n * 2, n * 2 + 1);
        let who = block("", &phone(a), a, a, 6);
        let mut text = born_phone(a, a) + &born_phone(b, b);
        text += &event(
            "ConfbridgeJoin",
            "call",
            &format!("Conference: {}\r\nBridgeUniqueid: b\r\nBridgeType: base\r\n{who}", hostile(n, 300)),
        );
        text += &event(
            "ParkedCall",
            "call",
            &format!(
                "{}ParkerDialString: PJSIP/1001\r\nParkingSpace: {}\r\n",
                block("Parkee", &phone(b), b, b, 6),
                hostile(n, 300)
            ),
        );
        text += &event("Pickup", "call", &(who.clone() + &block("Target", &phone(b), b, b, 5)));
        text += &event(
            "BlindTransfer",
            "call",
            &format!(
                "Result: Success\r\nExtension: {}\r\nContext: x\r\n{}",
                hostile(n, 300),
                block("Transferer", &phone(a), a, a, 6)
            ),
        );
        text + &event(
            "LocalBridge",
            "call",
            &(block("LocalOne", &phone(a), a, a, 6) + &block("LocalTwo", &phone(b), b, b, 6)),
        )
    }),
];

/// A tracker under flood; what it says is looked at and dropped, as after a commit.
struct Flooded {
    tracker: Tracker,
    now: Micros,
    real: Vec<EventName>,
    groups: usize,
    largest: usize,
}

impl Flooded {
    fn new(config: &Config) -> Self {
        Self {
            tracker: Tracker::new(config),
            now: Micros::from_secs(1_795_253_000),
            real: Vec::new(),
            groups: 0,
            largest: 0,
        }
    }

    fn put(&mut self, event: &Event) {
        let step = self.tracker.handle(Input::Event(event), self.now);
        self.keep(step);
    }

    fn keep(&mut self, step: Step) {
        for (key, value) in &step.objects {
            let size = value.as_ref().map_or(0, Vec::len);
            assert!(size <= 16 * 1024, "{} has {size} bytes", key.0);
            self.largest = self.largest.max(size);
        }
        for update in step.updates {
            if let UpdateBody::Leg(leg) = update.body
                && is_real(&leg)
            {
                self.real.push(leg.event);
            }
        }
        let real = |group: &&callpost::calls::CdrGroup| {
            group
                .rows
                .iter()
                .any(|row| row.did.as_deref() == Some("5551000") && row.cdr.src.as_deref() == Some("trunk"))
        };
        self.groups += step.groups.iter().filter(real).count();
    }

    fn advance(&mut self, millis: i64) {
        let to = self.now.plus_millis(millis);
        while let Some(deadline) = self.tracker.deadline().filter(|deadline| *deadline <= to) {
            self.now = self.now.max(deadline);
            let step = self.tracker.handle(Input::Tick, self.now);
            self.keep(step);
        }
        self.now = to;
    }
}

fn is_real(leg: &LegUpdate) -> bool {
    leg.src.number == "trunk"
}

/// A call as recorded, its events without times, so that they are of the flood's.
fn real_call() -> Vec<Event> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ami/22/s01_in_answered_caller_hangs.ami");
    let mut events = events(&std::fs::read_to_string(path).unwrap());
    for event in &mut events {
        event.at = None;
    }
    events
}

#[test]
fn a_flood_of_forged_events_is_bounded_and_a_real_call_in_it_comes_out_right() {
    let config = config();
    let rounds: Option<usize> = std::env::var("CALLPOST_FLOOD").ok().and_then(|text| text.parse().ok());
    let only = std::env::var("CALLPOST_FLOOD_ONLY").unwrap_or_default();
    let real = real_call();
    let whole = [EventName::Initial, EventName::Ringing, EventName::Connected, EventName::Hangup];
    let mut faults = String::new();
    for (name, quick, flood) in FLOODS.iter().filter(|(name, ..)| name.contains(&only)) {
        let rounds = rounds.unwrap_or(*quick);
        let before = HEAP.current_usage();
        let mut flooded = Flooded::new(&config);
        let spread = |index: usize| rounds * (index + 1) / (real.len() + 1);
        let mut waiting = real.iter().enumerate().map(|(index, event)| (spread(index), event)).peekable();
        let (mut most, mut fed) = (0, 0);
        for n in 0..rounds {
            for event in events(&flood(n)) {
                flooded.put(&event);
                fed += 1;
            }
            flooded.advance(1);
            while let Some((_, event)) = waiting.next_if(|(at, _)| *at <= n) {
                flooded.put(event);
            }
            if n % 50 == 0 {
                most = most.max(HEAP.current_usage().saturating_sub(before));
            }
        }
        // all is over some time
        flooded.advance(8 * 24 * 3_600_000);
        let left = flooded.tracker.size();
        let figures = format!(
            "{name}: {fed} events, {} KiB at most, objects of up to {} bytes",
            most >> 10,
            flooded.largest
        );
        println!("{figures}");
        if most > LIMIT || left > 0 || flooded.real != whole || flooded.groups != 1 {
            let _ = writeln!(
                faults,
                "{figures}; {left} objects are left, the real call is {:?} with {} group(s)",
                flooded.real, flooded.groups
            );
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
