//! The storm stage by stage, each alone, as far as a batch that is on disk.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use callpost::calls::{Input, Step, Tracker};
use callpost::config::{self, Environment};
use callpost::ingest::trace_message;
use callpost::journal::{Batch, Journal, JournalOptions, Traced};
use callpost::routes::Routes;
use parsers::Micros;
use parsers::ami::{Codec, Event, Frame, Message};
use tokio_util::codec::Decoder;

use crate::calls::Storm;
use crate::process::Used;

/// Runs of each stage, of which the best counts.
const RUNS: usize = 5;
/// Events of one commit, about as many as gather while another one is on its way.
const EVENTS: usize = 8;

const CONFIG: &str = r#"
[pbx]
name = "hq"
timezone = "UTC"
trunks = ["PJSIP/trunk"]
users = [
  { channel = "PJSIP/1001", id = 10001, numbers = ["1001"] },
  { channel = "PJSIP/1002", id = 10002, numbers = ["1002"] },
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

/// Prints what each costs.
pub fn run(storm: &Storm) {
    let config = config::load_text(CONFIG, "storm.toml", &Environment::default()).unwrap().config;
    let before = storm.before.concat().into_bytes();
    let stream = storm.messages.concat().into_bytes();
    let events = storm.messages.len() as f64;
    let print = |name: &str, seconds: f64| println!("  {name}: {:.2} us an event", seconds * 1e6 / events);

    print("codec", best(|| (), |()| drop(black_box(messages(&stream)))));
    let (known, messages) = (messages(&before), messages(&stream));
    let parse = |messages: &[Message]| messages.iter().filter_map(Event::parse).collect::<Vec<_>>();
    print("typed events", best(|| (), |()| drop(black_box(parse(&messages)))));
    let (known, events) = (parse(&known), parse(&messages));

    let fresh = || {
        let mut tracker = Tracker::new(&config);
        handle(&mut tracker, &known);
        tracker
    };
    print("tracker", best(fresh, |mut tracker| drop(black_box(handle(&mut tracker, &events)))));
    let steps = handle(&mut fresh(), &events);
    let objects = steps.iter().flat_map(|step| &step.objects);
    let bytes = objects.clone().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    println!(
        "    {:.2} objects an event, {:.0} bytes of them, {:.2} updates",
        objects.count() as f64 / events.len() as f64,
        bytes as f64 / events.len() as f64,
        steps.iter().map(|step| step.updates.len()).sum::<usize>() as f64 / events.len() as f64
    );

    let trace = || messages.iter().map(|message| trace_message(message, Micros(0))).collect::<Vec<_>>();
    print("traces", best(|| (), |()| drop(black_box(trace()))));
    let routes = Routes::new(&config);
    let render = || steps.iter().map(|step| rendered(step, &routes)).collect::<Vec<_>>();
    print("bodies", best(|| (), |()| drop(black_box(render()))));
    journal(&steps, &routes, &messages);
}

fn best<T>(mut prepare: impl FnMut() -> T, mut stage: impl FnMut(T)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let prepared = prepare();
        let started = Instant::now();
        stage(prepared);
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

fn messages(stream: &[u8]) -> Vec<Message> {
    let (mut codec, mut buffer, mut messages) = (Codec::after_banner(), BytesMut::new(), Vec::new());
    for chunk in stream.chunks(8 << 10) {
        buffer.extend_from_slice(chunk);
        while let Ok(Some(frame)) = codec.decode(&mut buffer) {
            if let Frame::Message(message) = frame {
                messages.push(message);
            }
        }
    }
    messages
}

fn handle(tracker: &mut Tracker, events: &[Event]) -> Vec<Step> {
    let handle = |event: &Event| tracker.handle(Input::Event(event), event.at.unwrap_or_default());
    events.iter().map(handle).collect()
}

fn rendered(step: &Step, routes: &Routes) -> Batch {
    let mut batch = Batch::default();
    for update in &step.updates {
        batch.outbox.extend(routes.select(update));
    }
    for group in &step.groups {
        batch.outbox.extend(routes.creates(group).0);
    }
    batch
}

/// As ingest appends it; what the threads used, by name.
fn journal(steps: &[Step], routes: &Routes, messages: &[Message]) {
    let directory = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        directory: directory.path().to_owned(),
        max_size: 1 << 30,
        keep: std::time::Duration::from_secs(30 * 24 * 3600),
        pbx: "hq".to_owned(),
        generation_records: 131_072,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let batches: Vec<Batch> = steps
        .chunks(EVENTS)
        .zip(messages.chunks(EVENTS))
        .map(|(steps, messages)| {
            let mut batch = Batch::default();
            for (step, message) in steps.iter().zip(messages) {
                let message = trace_message(message, Micros(0));
                batch.messages.push(Traced { calls: step.calls.clone(), message });
                batch.outbox.extend(rendered(step, routes).outbox);
                batch.updates.extend(step.updates.iter().cloned());
                for (key, value) in &step.objects {
                    batch.objects.retain(|(known, _)| known != key);
                    batch.objects.push((key.clone(), value.clone()));
                }
                batch.ended.extend(step.ended.iter().cloned());
            }
            batch
        })
        .collect();
    let (used, took) = runtime.block_on(async {
        let (journal, _) = Journal::open(options).unwrap();
        journal.append(Batch::default()).await.unwrap();
        let (before, started) = (Used::of(std::process::id()), Instant::now());
        for batch in batches {
            journal.append(batch).await.unwrap();
        }
        let took = started.elapsed();
        let used = Used::of(std::process::id()).since(&before);
        journal.close().await;
        (used, took)
    });
    let events = steps.len() as f64;
    let threads = used.threads.iter().filter(|(_, cpu)| **cpu > 0.0005);
    let threads: Vec<_> = threads.map(|(name, cpu)| format!("{name} {:.1}", cpu * 1e6 / events)).collect();
    println!(
        "  journal, {EVENTS} events a commit: {:.1} us an event ({}), {:.0} bytes written an event; {:.1} us with the disk",
        used.cpu() * 1e6 / events,
        threads.join(", "),
        used.written / events,
        took.as_secs_f64() * 1e6 / events
    );
}
