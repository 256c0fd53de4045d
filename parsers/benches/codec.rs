//! How fast bytes become events: `cargo bench -p parsers`.
//!
//! Two references run beside it: only finding empty lines, which is the limit, and borrowed key and value
//! slices found by memchr, which is the yardstick. `codec and events` is the agent's path: a read buffer in
//! chunks of 64 KiB, messages, and typed events that own their texts.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memchr::{memchr, memmem};
use parsers::ami::{Codec, Event, Frame};
use tokio_util::codec::Decoder;

const CHUNK: usize = 64 * 1024;

fn benches(c: &mut Criterion) {
    let mut streams = vec![("mix", mix(40_000))];
    streams.extend(recorded().map(|stream| ("recorded", stream)));
    for (name, stream) in &streams {
        let events = empty_lines(stream);
        let mut group = c.benchmark_group(*name);
        group.sample_size(20);
        group.throughput(Throughput::ElementsAndBytes { elements: events, bytes: stream.len() as u64 });
        group.bench_function(BenchmarkId::from_parameter("empty lines only"), |b| {
            b.iter(|| empty_lines(stream))
        });
        group.bench_function(BenchmarkId::from_parameter("borrowed slices"), |b| b.iter(|| slices(stream)));
        group.bench_function(BenchmarkId::from_parameter("codec"), |b| b.iter(|| codec(stream, false)));
        group.bench_function(BenchmarkId::from_parameter("codec and events"), |b| {
            b.iter(|| codec(stream, true))
        });
        group.finish();
    }
}

/// The limit: where messages end, and nothing else.
fn empty_lines(stream: &[u8]) -> u64 {
    memmem::find_iter(stream, b"\r\n\r\n").count() as u64
}

/// The yardstick: every header as a pair of slices into the stream, in a list that is used again.
fn slices(stream: &[u8]) -> u64 {
    let (mut messages, mut rest) = (0, stream);
    let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
    while let Some(lf) = memchr(b'\n', rest) {
        let line = &rest[..lf.saturating_sub(1)];
        rest = &rest[lf + 1..];
        if line.is_empty() {
            black_box(&headers);
            headers.clear();
            messages += 1;
        } else if let Some(colon) = memchr(b':', line) {
            headers.push((&line[..colon], line.get(colon + 2..).unwrap_or_default()));
        }
    }
    messages
}

/// The agent's way: a read buffer, frames out of it, and what they mean.
fn codec(stream: &[u8], events: bool) -> u64 {
    let (mut codec, mut buffer, mut messages) = (Codec::after_banner(), BytesMut::with_capacity(CHUNK), 0);
    for chunk in stream.chunks(CHUNK) {
        buffer.extend_from_slice(chunk);
        while let Ok(Some(frame)) = codec.decode(&mut buffer) {
            let Frame::Message(message) = frame else { continue };
            messages += 1;
            if events {
                black_box(Event::parse(&message));
            }
            black_box(message);
        }
    }
    messages
}

/// Recorded streams, over and over up to some 16 MB; nothing where there are none.
fn recorded() -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/ami/catalogue");
    let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ami"));
    files.sort();
    let once: Vec<u8> = files.iter().filter_map(|path| std::fs::read(path).ok()).flatten().collect();
    if once.is_empty() { None } else { Some(once.repeat(16_000_000 / once.len() + 1)) }
}

/// Events as a busy Asterisk 20 with class dialplan sends them: the kinds in the shares of 200,000 events
/// that were counted, some 40 calls interleaved, 465 bytes an event.
fn mix(events: u64) -> Vec<u8> {
    const SHARES: [(u64, &str); 7] = [
        (109_113, "VarSet"),
        (27_270, "Newstate"),
        (18_211, "Newchannel"),
        (18_150, "Hangup"),
        (9_094, "DialBegin"),
        (9_089, "DialEnd"),
        (9_073, "Cdr"),
    ];
    let mut stream = String::new();
    for at in 0..events {
        // a fixed walk through the shares, so that every run has the same stream
        let mut draw = at.wrapping_mul(7_919).wrapping_add(at / 97) % 200_000;
        let kind = SHARES.iter().find(|(share, _)| {
            let here = draw < *share;
            draw = draw.wrapping_sub(*share);
            here
        });
        event(&mut stream, kind.map_or("VarSet", |(_, kind)| kind), at);
    }
    stream.into_bytes()
}

fn event(out: &mut String, kind: &str, at: u64) {
    let class = match kind {
        "VarSet" => "dialplan",
        "Cdr" => "cdr",
        _ => "call",
    };
    let _ = write!(
        out,
        "Event: {kind}\r\nPrivilege: {class},all\r\nTimestamp: {}.{:06}\r\n",
        1_795_252_767 + at / 50,
        at % 1_000_000
    );
    if kind != "Cdr" {
        channel(out, "", at);
    }
    let _ = match kind {
        "VarSet" => write!(out, "Variable: MACRO_DEPTH\r\nValue: {}\r\n", at % 9),
        "Hangup" => write!(out, "Cause: 16\r\nCause-txt: Normal Clearing\r\n"),
        "DialBegin" => {
            channel(out, "Dest", at + 1);
            write!(out, "DialString: 1001\r\n")
        }
        "DialEnd" => {
            channel(out, "Dest", at + 1);
            write!(out, "DialStatus: ANSWER\r\n")
        }
        "Cdr" => cdr(out, at),
        _ => Ok(()),
    };
    out.push_str("\r\n");
}

fn channel(out: &mut String, prefix: &str, at: u64) {
    let call = at % 40;
    let name = if call.is_multiple_of(5) { "José Núñez" } else { "Ana O\\'Hara" };
    for (key, value) in [
        ("Channel", format!("PJSIP/{}-{at:08x}", 1000 + call)),
        ("ChannelState", "6".to_owned()),
        ("ChannelStateDesc", "Up".to_owned()),
        ("CallerIDNum", format!("58414{:07}", 1_234_567 + call)),
        ("CallerIDName", name.to_owned()),
        ("ConnectedLineNum", format!("{}", 1000 + call)),
        ("ConnectedLineName", "<unknown>".to_owned()),
        ("Language", "en".to_owned()),
        ("AccountCode", String::new()),
        ("Context", "from-internal".to_owned()),
        ("Exten", "5551000".to_owned()),
        ("Priority", "5".to_owned()),
        ("Uniqueid", format!("1795252767.{at}")),
        ("Linkedid", format!("1795252767.{call}")),
    ] {
        let _ = write!(out, "{prefix}{key}: {value}\r\n");
    }
}

fn cdr(out: &mut String, at: u64) -> std::fmt::Result {
    for (key, value) in [
        ("AccountCode", ""),
        ("Source", "584141234567"),
        ("Destination", "5551000"),
        ("DestinationContext", "from-trunk"),
        ("CallerID", "\"Ana O'Hara\" <1001>"),
        ("Channel", "PJSIP/trunk-0000003c"),
        ("DestinationChannel", "PJSIP/1001-0000003d"),
        ("LastApplication", "Dial"),
        ("LastData", "PJSIP/1001,20,tTkK"),
        ("StartTime", "2026-11-21 09:27:43"),
        ("AnswerTime", "2026-11-21 09:27:43"),
        ("EndTime", "2026-11-21 09:27:45"),
        ("Duration", "2"),
        ("BillableSeconds", "2"),
        ("Disposition", "ANSWERED"),
        ("AMAFlags", "DOCUMENTATION"),
    ] {
        write!(out, "{key}: {value}\r\n")?;
    }
    write!(out, "UniqueID: 1795252767.{at}\r\nUserField: \r\n")
}

criterion_group!(all, benches);
criterion_main!(all);
