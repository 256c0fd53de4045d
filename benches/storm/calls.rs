//! Recorded calls, many times over: each with ids and a caller of its own.

use callpost::clock;
use callpost::demo::{Recording, Shift};
use jiff::tz::TimeZone;

/// Answered and hung up by the caller, by the phone, and cancelled while it rang.
const RECORDED: [&[u8]; 3] = [
    include_bytes!("../../fixtures/ami/22/s01_in_answered_caller_hangs.ami"),
    include_bytes!("../../fixtures/ami/22/s02_in_answered_callee_hangs.ami"),
    include_bytes!("../../fixtures/ami/22/s03_in_caller_cancels_ringing.ami"),
];
/// Calls that are set up, or hung up, at one moment.
const AT_ONCE: usize = 32;
/// Between the numbers of two calls' channels: those of the recordings are below it.
const CHANNELS: u32 = 64;

/// What is played.
pub struct Storm {
    /// Calls that begin and end.
    pub calls: u32,
    /// Calls that begin before and stay up.
    pub live: u32,
    /// What sets those up.
    pub before: Vec<String>,
    /// The storm's events, whole messages with their empty line.
    pub messages: Vec<String>,
    /// Webhooks that the calls that stay up make.
    pub webhooks_before: u64,
    /// Webhooks that the storm makes.
    pub webhooks: u64,
}

impl Storm {
    /// So many calls that begin and end, beside so many that are up.
    pub fn new(calls: u32, live: u32) -> Self {
        let recordings = RECORDED.map(Recording::new);
        let up = |number: u32| &recordings[number as usize % 2];
        let kind = |number: u32| if number % 10 == 9 { &recordings[2] } else { up(number) };
        let mut before: Vec<String> = Vec::new();
        for number in 0..live {
            before.extend(messages(up(number), calls + number).0);
        }
        let (begins, ends): (Vec<_>, Vec<_>) =
            (0..calls).map(|number| messages(kind(number), number)).unzip();
        let messages = interleaved(begins).chain(interleaved(ends)).collect();
        let cancelled = u64::from(calls / 10);
        let webhooks = u64::from(calls) * 4 - cancelled;
        Self { calls, live, before, messages, webhooks_before: u64::from(live) * 3, webhooks }
    }
}

/// The messages of one call: until somebody hangs up, and from there on.
fn messages(recording: &Recording, number: u32) -> (Vec<String>, Vec<String>) {
    let seconds = clock::now().secs_since(recording.first());
    let shift = Shift { seconds, offset: number * CHANNELS, zone: TimeZone::UTC };
    let caller = format!("584149{number:06}");
    let message = |message: &str| {
        let message = shift.message(message);
        message
            .replace("Num: trunk\r", &format!("Num: {caller}\r"))
            .replace("Source: trunk\r", &format!("Source: {caller}\r"))
    };
    let all = recording.messages.iter().map(|(_, text)| message(text));
    let mut over = false;
    all.partition(|message| {
        over |= message.contains("HangupRequest");
        !over
    })
}

/// As many calls at once take their steps in turns.
fn interleaved(calls: Vec<Vec<String>>) -> impl Iterator<Item = String> {
    let mut out = Vec::new();
    let mut calls = calls.into_iter().map(Vec::into_iter).collect::<Vec<_>>();
    for group in calls.chunks_mut(AT_ONCE) {
        loop {
            let before = out.len();
            out.extend(group.iter_mut().filter_map(Iterator::next));
            if out.len() == before {
                break;
            }
        }
    }
    out.into_iter()
}
