//! A leg in words: who, and how it went.

use anstyle::Style;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parsers::Micros;

use super::ladder::{Line, clean};
use super::lines::named;
use super::style;
use crate::calls::{Context, Direction, EventName, LegState, LegUpdate, Party, TerminatedBy};

/// `in` or `out`.
pub(super) fn direction(leg: &LegUpdate) -> Line {
    match leg.direction {
        Direction::In => Line::new(style::DIM, "in"),
        Direction::Out => Line::new(style::DIM, "out"),
    }
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// What one has to know: users by name, others by number.
    Few,
    /// All.
    All,
}

pub(super) fn from(leg: &LegUpdate, words: Words) -> Line {
    Line::default().text(party(&leg.src, leg.direction == Direction::Out, words))
}

pub(super) fn to(leg: &LegUpdate, words: Words) -> Line {
    let to = party(&leg.dst, leg.direction == Direction::In, words);
    if leg.context != Context::Queue {
        return Line::default().text(to);
    }
    // once an agent has the caller, the queue's name is what `info` begins with
    let queue = leg.info.split("; ").next().filter(|name| leg.connected.is_some() && !name.is_empty());
    match queue {
        Some(queue) if words == Words::Few => Line::default().text(format!("queue {}", clean(queue))),
        Some(queue) => Line::default().text(format!("queue {}: {to}", clean(queue))),
        None => Line::default().text(format!("queue {to}")),
    }
}

fn party(party: &Party, user: bool, words: Words) -> String {
    let number = if words == Words::Few && user && !party.name.is_empty() { "" } else { &party.number };
    let name = if words == Words::Few && !user && !number.is_empty() { "" } else { &party.name };
    clean(&named(name, number))
}

/// How it stands, or how it ended: `missed: No answer`, `answered`, `talking`.
pub(super) fn outcome(leg: &LegUpdate, words: Words) -> Line {
    let elsewhere = leg.connected.is_none() && leg.cause.eq_ignore_ascii_case("answered elsewhere");
    let cause = if leg.cause.is_empty() { String::new() } else { format!(": {}", clean(&leg.cause)) };
    match (leg.state, leg.event) {
        (LegState::Initial, _) => Line::new(style::WARN, "being called"),
        (LegState::Accepted, _) => Line::new(style::WARN, "accepted"),
        (LegState::Ringing, _) => Line::new(style::WARN, "ringing"),
        (LegState::Connected, _) => Line::new(style::GOOD.bold(), "talking"),
        (LegState::OnHold, _) => Line::new(style::WARN, "on hold"),
        (LegState::Hangup, EventName::Missed) => Line::new(style::BAD, "missed").text(cause),
        (LegState::Hangup, _) if elsewhere => Line::new(style::DIM, "answered elsewhere"),
        (LegState::Hangup, _) if leg.connected.is_none() => Line::new(style::BAD, "not answered").text(cause),
        (LegState::Hangup, _) if words == Words::Few => Line::new(style::GOOD, "answered"),
        (LegState::Hangup, _) => Line::new(style::GOOD, "answered").text(ended_by(leg)),
        (LegState::Failed, _) => Line::new(style::BAD, "failed").text(cause),
    }
}

fn ended_by(leg: &LegUpdate) -> String {
    match leg.terminated_by {
        Some(TerminatedBy::Caller) => ", caller hung up".to_owned(),
        Some(TerminatedBy::Callee) => ", callee hung up".to_owned(),
        Some(TerminatedBy::System) => ", ended by the PBX".to_owned(),
        None => String::new(),
    }
}

/// Nothing of it is to come.
pub(super) fn is_over(leg: &LegUpdate) -> bool {
    matches!(leg.state, LegState::Hangup | LegState::Failed)
}

/// Time talked, `1:05`; empty if it never was, and until `now` where it still goes on.
pub(super) fn talked(leg: &LegUpdate, now: Micros) -> Line {
    let Some(connected) = leg.connected else { return Line::default() };
    let seconds =
        if is_over(leg) { leg.duration } else { u64::try_from(now.secs_since(connected)).unwrap_or(0) };
    Line::new(Style::new(), clock(seconds))
}

fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A time in that zone, as `strftime` has it.
pub(super) fn local(at: Micros, zone: &TimeZone, format: &str) -> String {
    let at = Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime(format).to_string()
}
