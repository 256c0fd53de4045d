//! What was sent because of a call, and what the receivers said.

use std::fmt::Write;

use anstyle::Style;

use super::line::{Line, clean, wrap};
use crate::cli::style;
use crate::journal::{Payload, Settlement, TraceDelivery};

/// Made so long after what it tells of, a delivery says so, in microseconds.
const LATE: i64 = 2_000_000;
/// Lines of an answer.
const GOOD_ANSWER: usize = 1;
/// A failure is looked at more closely.
const BAD_ANSWER: usize = 4;

/// A delivery as lines of the column.
pub(super) fn lines(made: &TraceDelivery, held: bool, late: i64, width: usize) -> Vec<Line> {
    let (what, key) = match &made.payload {
        Payload::Webhook { event, .. } => (clean(event), None),
        Payload::Nimbox { initiated, source, destination, duration, .. } => {
            let talked = duration.map(|seconds| format!(", {seconds} s")).unwrap_or_default();
            ("create".to_owned(), Some(clean(&format!("{initiated} {source} → {destination}{talked}"))))
        }
    };
    let (mark, tone, outcome, answer) = outcome(made, held);
    let mut outcome = outcome;
    if made.attempts > 1 {
        let _ = write!(outcome, " ×{}", made.attempts);
    }
    if late > LATE {
        let _ = write!(outcome, ", {} late", millis(late));
    }
    let head = Line::new(tone, format!("{mark} "))
        .and(style::NAME, clean(&made.route.0))
        .text(format!(" {what} "))
        .and(tone, outcome.as_str());
    let mut lines = fitted(head, tone, &outcome, width);
    let indented = |text: &str, tone: Style, most: usize| {
        let wrapped = wrap(text, width.saturating_sub(2), most);
        wrapped.into_iter().map(move |text| Line::default().text("  ").and(tone, text)).collect::<Vec<_>>()
    };
    if let Some(key) = key {
        lines.extend(indented(&key, Style::new(), 2));
    }
    let good = tone == style::GOOD;
    let shown = !good || matches!(made.payload, Payload::Nimbox { .. });
    if shown && !answer.trim().is_empty() {
        let one_line = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        let (tone, most) = if good { (style::DIM, GOOD_ANSWER) } else { (tone, BAD_ANSWER) };
        lines.extend(indented(&clean(&one_line), tone, most));
    }
    lines
}

/// Too long a head has its outcome on a line of its own.
fn fitted(head: Line, tone: Style, outcome: &str, width: usize) -> Vec<Line> {
    if head.width() <= width {
        return vec![head];
    }
    let short = head.width() - Line::new(tone, outcome).width();
    vec![head.cut(short.min(width)), Line::default().text("  ").and(tone, outcome).cut(width)]
}

/// Mark, tone, outcome in words, and the answer or reason.
fn outcome(made: &TraceDelivery, held: bool) -> (char, Style, String, String) {
    let code = |status: &Option<u16>| status.map(|status| format!("{status} ")).unwrap_or_default();
    match &made.settled {
        Some((at, Settlement::Delivered { status, answer })) => {
            let took = millis(at.0.saturating_sub(made.accepted.0));
            ('✓', style::GOOD, format!("{}in {took}", code(status)), answer.clone())
        }
        Some((_, Settlement::Retry { status, why, .. })) => {
            ('…', style::WARN, format!("{}tries again", code(status)), why.clone())
        }
        Some((_, Settlement::Dead { status, why, answer })) => {
            // an answer that is its own reason is said once
            let said = if answer.is_empty() || why.contains(answer.as_str()) {
                why.clone()
            } else {
                format!("{why}: {answer}")
            };
            ('✗', style::BAD, format!("{}dead", code(status)), said)
        }
        Some((_, Settlement::Refused { why, .. })) => ('✗', style::WARN, "refused".to_owned(), why.clone()),
        Some((_, Settlement::Released)) | None if held => {
            ('…', style::DIM, "held by the one before it".to_owned(), String::new())
        }
        Some((_, Settlement::Released)) | None => ('…', style::DIM, "waits".to_owned(), String::new()),
    }
}

/// Those that wait for an earlier one of the call on their route.
pub(super) fn held(deliveries: &[TraceDelivery]) -> Vec<bool> {
    let is_open = |made: &TraceDelivery| {
        matches!(made.settled, None | Some((_, Settlement::Retry { .. } | Settlement::Released)))
    };
    let is_ordered = |made: &TraceDelivery| matches!(made.payload, Payload::Webhook { .. });
    let behind = |index: usize, made: &TraceDelivery| {
        deliveries.iter().take(index).any(|other| other.route == made.route && is_open(other))
    };
    deliveries
        .iter()
        .enumerate()
        .map(|(index, made)| is_ordered(made) && is_open(made) && behind(index, made))
        .collect()
}

/// `3 deliveries: 2 delivered, 1 dead`.
pub(super) fn summary(deliveries: &[TraceDelivery]) -> Line {
    let count = |is: fn(&Settlement) -> bool| {
        deliveries.iter().filter(|made| made.settled.as_ref().is_some_and(|(_, end)| is(end))).count()
    };
    let delivered = count(|end| matches!(end, Settlement::Delivered { .. }));
    let dead = count(|end| matches!(end, Settlement::Dead { .. }));
    let refused = count(|end| matches!(end, Settlement::Refused { .. }));
    let waiting = deliveries.len() - delivered - dead - refused;
    let mut line =
        Line::new(style::BOLD, crate::cli::out::plural(deliveries.len() as u64, "delivery", "deliveries"));
    let parts = [
        (delivered, style::GOOD, "delivered"),
        (waiting, style::WARN, "waiting"),
        (refused, style::WARN, "refused"),
        (dead, style::BAD, "dead"),
    ];
    let mut before = ": ";
    for (count, tone, word) in parts.into_iter().filter(|(count, ..)| *count > 0) {
        line = line.text(before).and(tone, format!("{count} {word}"));
        before = ", ";
    }
    line
}

/// `12 ms`, `1.5 s`, `3 min`, `2 h`.
fn millis(micros: i64) -> String {
    let millis = micros / 1000;
    match millis {
        ..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}
