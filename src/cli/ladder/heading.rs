//! What stands above a ladder and below it: parties, times, outcome; CDR rows.

use std::collections::HashMap;

use anstyle::Style;
use jiff::tz::TimeZone;
use parsers::{Cdr, Micros};

use super::line::{Line, clean, columns, heading, natural_width};
use super::story::short;
use crate::calls::{LegUpdate, UpdateBody};
use crate::cli::leg::{self, Words};
use crate::cli::style;
use crate::journal::Trace;

/// Most CDR rows shown.
const MOST_ROWS: usize = 50;

/// The call in a few lines.
pub(super) fn head(call: &str, trace: &Trace, zone: &TimeZone, width: usize) -> Vec<Line> {
    let legs = legs(trace);
    let (first, last) = span(trace);
    let day = leg::local(first, zone, "%Y-%m-%d %H:%M:%S");
    let zone_name = leg::local(first, zone, "%Z");
    let over = legs.iter().all(|leg| leg::is_over(leg));
    let mut times = Line::default().text(format!("{day} to "));
    if over {
        let seconds = last.0.saturating_sub(first.0) as f64 / 1e6;
        times = times.text(format!("{}, {seconds:.1} s ({zone_name})", leg::local(last, zone, "%H:%M:%S")));
    } else {
        times = times.and(style::GOOD.bold(), "now").text(format!(", it goes on ({zone_name})"));
    }
    let mut lines = vec![Line::new(style::BOLD, "call ").and(style::BOLD, clean(call))];
    if !trace.merged.is_empty() {
        let others: Vec<String> = trace.merged.iter().map(|other| clean(&other.0)).collect();
        lines.push(Line::new(style::DIM, format!("with {}", others.join(", "))));
    }
    lines.push(times);
    if !legs.is_empty() {
        let all = legs_table(&legs, last, Words::All);
        let rows = if natural_width(&all) <= width { all } else { legs_table(&legs, last, Words::Few) };
        lines.extend(columns(rows, Some(width), &[1, 2, 3, 6]));
    }
    for update in &trace.updates {
        if let UpdateBody::Sms(sms) = &update.body {
            let parties = format!("text {} → {}: ", clean(&sms.from), clean(&sms.to));
            lines.push(Line::default().text(parties).text(clean(&sms.text)));
        }
    }
    lines
}

fn legs_table(legs: &[&LegUpdate], now: Micros, words: Words) -> Vec<Vec<Line>> {
    let infos: Vec<String> = legs.iter().map(|one| info(one)).collect();
    let with_info = infos.iter().any(|info| !info.is_empty());
    let titles = ["", "from", "to", "outcome", "talked", "call_id", "info"];
    let mut rows = vec![heading(if with_info { &titles } else { &titles[..6] })];
    rows.extend(legs.iter().zip(infos).map(|(one, info)| {
        vec![
            leg::direction(one),
            leg::from(one, words),
            leg::to(one, words),
            leg::outcome(one, words),
            leg::talked(one, now),
            Line::new(style::NAME, one.call_id.to_string()),
            Line::new(style::DIM, info),
        ]
    }));
    rows
}

/// What the outcome does not say already.
fn info(leg: &LegUpdate) -> String {
    if leg.info.eq_ignore_ascii_case(&leg.cause) { String::new() } else { clean(&leg.info) }
}

/// The last word on each leg, in order of their beginning.
fn legs(trace: &Trace) -> Vec<&LegUpdate> {
    let mut order = Vec::new();
    let mut last: HashMap<(u64, Micros), &LegUpdate> = HashMap::new();
    for update in &trace.updates {
        let UpdateBody::Leg(leg) = &update.body else { continue };
        if last.insert((leg.call_id, leg.start), leg).is_none() {
            order.push((leg.call_id, leg.start));
        }
    }
    order.iter().filter_map(|key| last.get(key).copied()).collect()
}

/// From the first to the last that Asterisk said.
pub(super) fn span(trace: &Trace) -> (Micros, Micros) {
    let messages = trace.messages.iter().map(|message| message.at);
    let updates = trace.updates.iter().map(|update| update.at);
    let rows = trace.cdrs.iter().flat_map(|row| [row.start_epoch, row.end_epoch]).flatten();
    let times: Vec<Micros> = messages.chain(updates).chain(rows).collect();
    let first = times.iter().min().copied().unwrap_or_default();
    (first, times.iter().max().copied().unwrap_or(first))
}

/// The CDR rows as a table.
pub(super) fn cdrs(rows: &[Cdr], zone: &TimeZone, width: usize) -> Vec<Line> {
    if rows.is_empty() {
        return Vec::new();
    }
    let all = cdrs_table(rows, zone, false);
    let few = natural_width(&all) > width;
    let table = if few { cdrs_table(rows, zone, true) } else { all };
    let mut lines = columns(table, Some(width), &[1, 2, 3, 4]);
    if rows.len() > MOST_ROWS {
        lines.push(Line::new(style::DIM, format!("and {} more", rows.len() - MOST_ROWS)));
    }
    lines
}

fn cdrs_table(rows: &[Cdr], zone: &TimeZone, few: bool) -> Vec<Vec<Line>> {
    let titles: &[&str] = if few {
        &["CDR start", "src", "dst", "channel", "dstchannel", "disposition", "seconds"]
    } else {
        &[
            "CDR start",
            "src",
            "dst",
            "channel",
            "dstchannel",
            "last app",
            "disposition",
            "duration",
            "billsec",
        ]
    };
    let mut table = vec![heading(titles)];
    table.extend(rows.iter().take(MOST_ROWS).map(|row| cdr(row, zone, few)));
    table
}

/// With few columns the seconds stand as `duration/billsec`.
fn cdr(row: &Cdr, zone: &TimeZone, few: bool) -> Vec<Line> {
    let text = |text: Option<&str>| Line::default().text(clean(text.unwrap_or_default()));
    let start = match row.start_epoch {
        Some(at) => leg::local(at, zone, "%H:%M:%S"),
        None => row.start.as_deref().map(clean).unwrap_or_default(),
    };
    let answered = row.disposition == parsers::cdr::Disposition::Answered;
    let channel = |name: Option<&parsers::ChannelName>| name.map(|name| short(name.as_str()));
    let mut cells = vec![
        Line::new(style::DIM, start),
        text(row.src.as_deref()),
        text(row.dst.as_deref()),
        text(channel(row.channel.as_ref()).as_deref()),
        text(channel(row.dstchannel.as_ref()).as_deref()),
    ];
    let disposition = Line::new(if answered { style::GOOD } else { style::WARN }, row.disposition.as_str());
    if few {
        cells.extend([disposition, Line::default().text(format!("{}/{}", row.duration, row.billsec))]);
    } else {
        cells.extend([
            text(row.lastapp.as_deref()),
            disposition,
            Line::new(Style::new(), format!("{} s", row.duration)),
            Line::new(Style::new(), format!("{} s", row.billsec)),
        ]);
    }
    cells
}
