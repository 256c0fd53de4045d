//! The ladder of `callpost trace`, drawn from recorded streams of a real Asterisk.

use bytes::BytesMut;
use callpost::calls::{CallKey, CdrGroup, Input, Merger, Step, Tracker, Update};
use callpost::cli::{Line, Look, ladder};
use callpost::ingest::trace_message;
use callpost::journal::{Outgoing, Settlement, Trace, TraceDelivery, TraceMessage};
use callpost::routes::Routes;
use jiff::tz::TimeZone;
use parsers::Micros;
use parsers::ami::{Codec, Event, Frame};
use tokio_util::codec::Decoder;

use crate::replay::{config, fixture};

/// All that the tracker said of a recording.
#[derive(Default)]
struct Said {
    messages: Vec<(Vec<CallKey>, TraceMessage)>,
    updates: Vec<Update>,
    groups: Vec<CdrGroup>,
    mergers: Vec<Merger>,
    /// With the time at which each was made.
    outgoing: Vec<(Micros, Outgoing)>,
}

impl Said {
    fn keep(&mut self, step: Step, routes: &Routes, now: Micros) {
        for update in step.updates {
            self.outgoing.extend(routes.select(&update).into_iter().map(|made| (now, made)));
            self.updates.push(update);
        }
        for group in step.groups {
            self.outgoing.extend(routes.creates(&group).0.into_iter().map(|made| (now, made)));
            self.groups.push(group);
        }
        self.mergers.extend(step.mergers);
    }

    fn of(directory: &str, name: &str) -> Self {
        let mut buffer = BytesMut::from(&b"Asterisk Call Manager/11.0.0\r\n"[..]);
        buffer.extend_from_slice(&fixture(directory, name));
        let routes = Routes::new(config());
        let mut tracker = Tracker::new(config());
        let mut said = Self::default();
        let mut now = Micros(0);
        let mut codec = Codec::default();
        while let Some(frame) = codec.decode(&mut buffer).unwrap() {
            let Frame::Message(message) = frame else { continue };
            let Some(event) = Event::parse(&message) else { continue };
            now = event.at.unwrap_or(now);
            while let Some(deadline) = tracker.deadline().filter(|deadline| *deadline <= now) {
                let step = tracker.handle(Input::Tick, deadline);
                said.keep(step, &routes, deadline);
            }
            let step = tracker.handle(Input::Event(&event), now);
            if !step.calls.is_empty() {
                said.messages.push((step.calls.clone(), trace_message(&message, now)));
            }
            said.keep(step, &routes, now);
        }
        let rest = now.plus_millis(3_600_000);
        while let Some(deadline) = tracker.deadline().filter(|deadline| *deadline <= rest) {
            let step = tracker.handle(Input::Tick, deadline);
            said.keep(step, &routes, deadline);
        }
        said
    }

    /// The first call, and those that became one with it.
    fn calls(&self) -> Vec<CallKey> {
        let first = self.messages.iter().flat_map(|(calls, _)| calls).next();
        let mut calls: Vec<CallKey> =
            first.or(self.updates.first().map(|update| &update.call)).cloned().into_iter().collect();
        for merger in self.mergers.iter().chain(&self.mergers) {
            for (one, other) in [(&merger.from, &merger.into), (&merger.into, &merger.from)] {
                if calls.contains(one) && !calls.contains(other) {
                    calls.push(other.clone());
                }
            }
        }
        calls
    }
}

/// What the journal would hold of the first call of a recording; each delivery is settled as told.
fn trace(
    directory: &str,
    name: &str,
    settle: impl Fn(usize) -> Option<Settlement>,
) -> Option<(CallKey, Trace)> {
    let said = Said::of(directory, name);
    let mut calls = said.calls();
    let ours = said.outgoing.into_iter().filter(|(_, made)| calls.contains(&made.call)).enumerate();
    let delivery = |(index, (now, made)): (usize, (Micros, Outgoing))| {
        let accepted = now.plus_millis(1);
        let settled = settle(index).map(|end| (accepted.plus_millis(35), end));
        TraceDelivery {
            route: made.route,
            id: made.id,
            accepted,
            payload: made.payload,
            attempts: if matches!(settled, Some((_, Settlement::Dead { .. }))) { 4 } else { 1 },
            settled,
        }
    };
    let deliveries = ours.map(delivery).collect();
    let is_ours = |of: &[CallKey]| of.iter().any(|call| calls.contains(call));
    let messages = said.messages.into_iter().filter(|(of, _)| is_ours(of)).map(|(_, message)| message);
    let updates = said.updates.into_iter().filter(|update| calls.contains(&update.call)).collect();
    let groups = said.groups.into_iter().filter(|group| calls.contains(&group.call));
    let rows = groups.flat_map(|group| group.rows).map(|row| row.cdr).collect();
    let messages = messages.collect();
    if calls.is_empty() {
        return None;
    }
    let first = calls.remove(0);
    Some((first, Trace { messages, updates, cdrs: rows, deliveries, merged: calls }))
}

fn good(_: usize) -> Option<Settlement> {
    let answer = r#"{"error":false,"phonecallId":"77"}"#.to_owned();
    Some(Settlement::Delivered { status: Some(200), answer })
}

/// The second delivery is dead, the third is tried again, the others wait.
fn bad(index: usize) -> Option<Settlement> {
    match index {
        0 => good(0),
        1 => Some(Settlement::Dead {
            why: "HTTP 410".to_owned(),
            status: Some(410),
            answer: "<html>\r\n<h1>Gone\u{1b}[31m</h1>\r\n<p>This hook was removed, ask the administrator of the help desk for a new one</p>".to_owned(),
        }),
        2 => Some(Settlement::Retry {
            at: Micros(0),
            why: "connection refused".to_owned(),
            status: None,
            costs: true,
        }),
        _ => None,
    }
}

fn drawn(directory: &str, name: &str, width: usize, settle: fn(usize) -> Option<Settlement>) -> String {
    let (call, trace) = trace(directory, name, settle).unwrap();
    let lines = ladder(&call, &trace, &Look { width, zone: TimeZone::UTC });
    let text: Vec<String> = lines.iter().map(Line::plain).collect();
    text.join("\n")
}

#[test]
fn a_call_is_drawn_with_words_on_its_arrows() {
    insta::assert_snapshot!(drawn("16", "s14_hold_unhold", 110, good));
}

#[test]
fn a_ring_group_over_local_channels_is_drawn_with_narrow_columns() {
    insta::assert_snapshot!(drawn("16", "l04_ringgroup_local_inbound", 100, good));
}

#[test]
fn a_queue_with_its_agents_is_drawn() {
    insta::assert_snapshot!(drawn("16", "q07_queue_linear_rna_then_answer", 140, good));
}

#[test]
fn transfers_are_drawn() {
    insta::assert_snapshot!("blind", drawn("16", "s19_blind_by_callee", 130, good));
    insta::assert_snapshot!("attended", drawn("16", "s21_attended_by_callee", 130, good));
}

#[test]
fn deliveries_that_failed_show_why_and_what_they_hold_up() {
    insta::assert_snapshot!(drawn("16", "s01_in_answered_caller_hangs", 100, bad));
}

/// Whatever was recorded, at whatever width: every line fits, nothing steers the terminal, and ASCII
/// is enough where it is asked for.
#[test]
fn every_recording_fits_every_width() {
    for directory in ["16", "22", "catalogue"] {
        for name in crate::replay::names(directory) {
            // some recordings hold nothing that is a call
            let Some((call, trace)) = trace(directory, &name, bad) else { continue };
            for width in [60, 80, 100, 200] {
                let lines = ladder(&call, &trace, &Look { width, zone: TimeZone::UTC });
                for line in &lines {
                    assert!(line.width() <= width, "{directory}/{name} at {width}: {:?}", line.plain());
                    assert!(line.plain().chars().all(|char| !char.is_control()), "{:?}", line.plain());
                    assert!(line.clone().ascii().plain().is_ascii());
                }
                let text: Vec<String> = lines.iter().map(Line::plain).collect();
                let drawn = text.iter().any(|line| line.contains('●') || line.starts_with("text "));
                assert!(drawn, "{directory}/{name}: nothing is drawn\n{}", text.join("\n"));
            }
        }
    }
}
