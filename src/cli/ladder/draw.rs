//! Puts a story and its deliveries side by side.

use std::collections::HashMap;

use anstyle::Style;
use jiff::tz::TimeZone;
use parsers::Micros;
use unicode_width::UnicodeWidthStr;

use super::canvas::{Canvas, lifeline};
use super::line::{Line, columns, wrap};
use super::story::{Channel, Mark, Row, Story};
use super::{deliveries, heading};
use crate::calls::{CallKey, UpdateId};
use crate::cli::style;
use crate::journal::Trace;

/// Columns at least this wide carry the words themselves; narrower ones have them beside.
const WIDE: usize = 18;
/// Wider, the eye gets lost.
const WIDEST: usize = 40;
/// Columns that do not carry words: as wide as there is room for.
const NARROW: std::ops::RangeInclusive<usize> = 2..=5;
/// The words beside narrow columns.
const WORDS: usize = 26;
/// A narrower terminal cuts lines.
const LEAST_WIDTH: usize = 60;
/// A delivery made within this time stands beside what it tells of; one made again later, as by a
/// replay, where it was made.
const BESIDE: i64 = 60_000_000;
/// A create tells of a whole call: it stands where it was made, or beside what happened just before.
const JUST: i64 = 1_000_000;
/// Headings of narrow columns.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How it is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Columns that the terminal has.
    pub width: usize,
    /// The zone of the times.
    pub zone: TimeZone,
}

/// The ladder of one call: its lines from top to bottom, at most `width` columns each.
pub fn ladder(call: &CallKey, trace: &Trace, look: &Look) -> Vec<Line> {
    let width = look.width.max(LEAST_WIDTH);
    let mut lines = heading::head(&call.0, trace, &look.zone, width);
    lines.push(Line::default());
    let story = Story::of(&trace.messages);
    lines.extend(body(&story, trace, width));
    let rows = heading::cdrs(&trace.cdrs, &look.zone, width);
    if !rows.is_empty() {
        lines.push(Line::default());
        lines.extend(rows);
    }
    lines.push(Line::default());
    lines.push(deliveries::summary(&trace.deliveries));
    lines.into_iter().map(|line| line.cut(width)).collect()
}

/// Where everything stands.
struct Layout {
    /// Of the time column.
    time: usize,
    /// Of one channel.
    lane: usize,
    /// How many lanes there are; later channels share the last.
    lanes: usize,
    /// Of all lanes, and of what may stand to their right.
    canvas: usize,
    /// Of the words beside narrow lanes; 0 where lanes carry them.
    words: usize,
    /// Of the deliveries.
    sent: usize,
}

impl Layout {
    fn new(channels: usize, time: usize, has_deliveries: bool, width: usize) -> Self {
        let sent = if has_deliveries { (width * 36 / 100).clamp(24, 56) } else { 0 };
        let gap = if has_deliveries { 2 } else { 0 };
        let room = width.saturating_sub(time + 1 + sent + gap);
        let lane = room / channels.max(1);
        if lane >= WIDE {
            return Self { time, lane: lane.min(WIDEST), lanes: channels, canvas: room, words: 0, sent };
        }
        let room_for_lanes = room.saturating_sub(WORDS);
        let lane = (room_for_lanes / channels.max(1)).clamp(*NARROW.start(), *NARROW.end());
        let lanes = channels.min(room_for_lanes / lane).min(LETTERS.len()).max(1);
        Self { time, lane, lanes, canvas: lanes * lane, words: room.saturating_sub(lanes * lane + 1), sent }
    }

    fn x(&self, channel: usize) -> usize {
        channel.min(self.lanes.saturating_sub(1)) * self.lane
            + if self.words == 0 { self.lane / 3 } else { 1 }
    }

    fn canvas(&self) -> Canvas {
        Canvas::new(self.canvas)
    }
}

fn body(story: &Story, trace: &Trace, width: usize) -> Vec<Line> {
    let zero = heading::span(trace).0;
    let rows = join(story, trace);
    let offsets: Vec<String> = rows.iter().map(|row| offset(row.at.0 - zero.0)).collect();
    let time = offsets.iter().map(String::len).max().unwrap_or(0).max(7);
    let layout = Layout::new(story.channels.len(), time, !trace.deliveries.is_empty(), width);
    let held = deliveries::held(&trace.deliveries);
    let mut lines = top(story, &layout, width);
    for (row, offset) in rows.iter().zip(offsets) {
        let told = row.story.and_then(|index| Some((index, story.rows.get(index)?)));
        let mut sent = Vec::new();
        for (index, late) in &row.deliveries {
            if let Some(made) = trace.deliveries.get(*index) {
                let held = held.get(*index).copied().unwrap_or(false);
                sent.extend(deliveries::lines(made, held, *late, layout.sent));
            }
        }
        let words = told.map(|(_, told)| words(told, &layout)).unwrap_or_default();
        for line in 0..sent.len().max(words.len()).max(1) {
            let mut drawn =
                if line == 0 { Line::new(style::DIM, format!("{offset:>time$} ")) } else { Line::default() };
            drawn.pad(time + 1);
            let first = told.filter(|_| line == 0).map(|(_, told)| told);
            drawn.append(lanes(story, &layout, row.position, first, first.is_none()));
            if layout.words > 0 {
                drawn.pad(time + 2 + layout.lanes * layout.lane);
                if let (Some((_, told)), Some(words)) = (told, words.get(line)) {
                    drawn.push(told.style, words.clone());
                }
            }
            if let Some(sent) = sent.get(line) {
                drawn.pad(width - layout.sent);
                drawn.append(sent.clone());
            }
            lines.push(drawn);
        }
    }
    lines
}

/// One row of the picture: something told, deliveries beside it, or deliveries alone.
struct Joined {
    at: Micros,
    story: Option<usize>,
    /// Rows of the story up to and with this one.
    position: usize,
    /// Which, and how long after what they tell of they were made.
    deliveries: Vec<(usize, i64)>,
}

/// Deliveries go beside what they tell of; those made later have rows of their own.
fn join(story: &Story, trace: &Trace) -> Vec<Joined> {
    let row = |(index, row): (usize, &Row)| Joined {
        at: row.at,
        story: Some(index),
        position: index,
        deliveries: Vec::new(),
    };
    let mut rows: Vec<Joined> = story.rows.iter().enumerate().map(row).collect();
    let told: HashMap<&UpdateId, Micros> =
        trace.updates.iter().map(|update| (&update.id, update.at)).collect();
    for (index, made) in trace.deliveries.iter().enumerate() {
        let (at, near) = match told.get(&made.id) {
            Some(at) if made.accepted.0 - at.0 < BESIDE => (*at, BESIDE),
            _ => (made.accepted, JUST),
        };
        let late = made.accepted.0 - at.0;
        let after = rows.partition_point(|row| row.at <= at);
        let before = after.checked_sub(1).and_then(|before| rows.get_mut(before));
        let position = before.as_ref().map_or(0, |row| row.position);
        match before {
            Some(row) if at.0 - row.at.0 < near => row.deliveries.push((index, late)),
            _ => rows.insert(after, Joined { at, story: None, position, deliveries: vec![(index, late)] }),
        }
    }
    rows
}

/// The columns' headings; with narrow ones, what their letters mean.
fn top(story: &Story, layout: &Layout, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let shown = |channel: &Channel| if channel.local { style::DIM } else { style::NAME.bold() };
    if layout.words > 0 {
        let cells: Vec<Line> = story
            .channels
            .iter()
            .enumerate()
            .map(|(index, channel)| {
                let who = if channel.who.is_empty() { String::new() } else { format!(" {}", channel.who) };
                Line::new(shown(channel), format!("{} ", letter(index)))
                    .and(lifeline(channel.local), &channel.name)
                    .text(who)
            })
            .collect();
        let widest = cells.iter().map(Line::width).max().unwrap_or(1);
        let across = (width / (widest + 2)).max(1);
        lines.extend(columns(cells.chunks(across).map(<[Line]>::to_vec).collect(), Some(width), &[]));
        if story.channels.len() > layout.lanes {
            let last = letter(layout.lanes - 1);
            lines.push(Line::new(style::DIM, format!("{last} and those after it share a column")));
        }
        lines.push(Line::default());
    }
    let mut canvas = layout.canvas();
    for (index, channel) in story.channels.iter().enumerate().take(layout.lanes) {
        let x = layout.x(index);
        if layout.words > 0 {
            canvas.write(x, &letter(index), shown(channel));
        } else {
            centred(&mut canvas, layout, index, &channel.short, shown(channel));
        }
    }
    let mut head = Line::new(style::DIM, format!("{:>1$} ", "time", layout.time));
    head.append(canvas.into_line());
    if layout.sent > 0 {
        head.pad(width - layout.sent);
        head.push(style::DIM, "deliveries");
    }
    lines.push(head);
    if layout.words == 0 && story.channels.iter().any(|channel| !channel.who.is_empty()) {
        let mut canvas = layout.canvas();
        for (index, channel) in story.channels.iter().enumerate() {
            centred(&mut canvas, layout, index, &channel.who, Style::new());
        }
        let mut whose = Line::default();
        whose.pad(layout.time + 1);
        whose.append(canvas.into_line());
        lines.push(whose);
    }
    lines
}

/// Words above a column, around its lifeline.
fn centred(canvas: &mut Canvas, layout: &Layout, index: usize, text: &str, style: Style) {
    let long = text.width();
    let room = layout.lane.saturating_sub(1);
    let start = layout.x(index).saturating_sub(long.min(room) / 2).max(index * layout.lane);
    canvas.write(start, &super::line::cut(text, room), style);
}

/// The cells of one line: lifelines, and the mark if it is the row's first.
fn lanes(story: &Story, layout: &Layout, position: usize, told: Option<&Row>, below: bool) -> Line {
    let mut canvas = layout.canvas();
    for (index, channel) in story.channels.iter().enumerate() {
        // a lifeline ends with the row in which the channel hangs up
        let ended = channel.last.is_some_and(|last| position > last || (below && position == last));
        if channel.first <= position && !ended {
            canvas.put(layout.x(index), '│', lifeline(channel.local));
        }
    }
    let Some(row) = told else { return canvas.into_line() };
    let wide = layout.words == 0;
    match &row.mark {
        Mark::Arrow(from, to) if layout.x(*from) != layout.x(*to) => {
            let (from, to) = (layout.x(*from), layout.x(*to));
            canvas.line(from, to, '─', true, row.style);
            canvas.put(from, if from < to { '├' } else { '┤' }, row.style);
            if wide {
                canvas.between(from, to, &row.text, row.style);
            }
        }
        Mark::At(channel) | Mark::Arrow(channel, _) => {
            let x = layout.x(*channel);
            let ends = story.channels.get(*channel).is_some_and(|channel| channel.last == Some(position));
            canvas.put(x, if ends { '×' } else { '●' }, row.style);
            if wide {
                canvas.beside(x, &row.text, row.style);
            }
        }
        Mark::Link(members) => {
            let xs: Vec<usize> = members.iter().map(|member| layout.x(*member)).collect();
            let (Some(left), Some(right)) = (xs.iter().min(), xs.iter().max()) else {
                return canvas.into_line();
            };
            canvas.line(*left, *right, '═', false, row.style);
            if wide && xs.len() > 2 {
                canvas.beside(*right, &row.text, row.style);
            } else if wide {
                canvas.between(*left, *right, &row.text, row.style);
            }
            for x in xs {
                canvas.put(x, '●', row.style);
            }
        }
    }
    canvas.into_line()
}

/// What stands beside narrow columns.
fn words(row: &Row, layout: &Layout) -> Vec<String> {
    if layout.words == 0 {
        return Vec::new();
    }
    let shared = |channel: usize| channel + 1 >= layout.lanes;
    let who = match &row.mark {
        Mark::At(channel) => format!("{} ", letter(*channel)),
        Mark::Arrow(from, to) => format!("{}→{} ", letter(*from), letter(*to)),
        Mark::Link(members) if members.len() <= 4 || members.iter().any(|member| shared(*member)) => {
            let letters: Vec<String> = members.iter().take(6).map(|member| letter(*member)).collect();
            format!("{} ", letters.join("="))
        }
        Mark::Link(_) => String::new(),
    };
    wrap(&format!("{who}{}", row.text), layout.words, 3)
}

/// `A`; beyond the letters there are, a number.
fn letter(index: usize) -> String {
    LETTERS.get(index).map_or_else(|| index.to_string(), |letter| char::from(*letter).to_string())
}

/// `+3.120`, `+2:03.120`, `+1:02:03.120`.
fn offset(micros: i64) -> String {
    let sign = if micros < 0 { '-' } else { '+' };
    let millis = micros.unsigned_abs() / 1000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}.{millis:03}"),
        (0, _) => format!("{sign}{minutes}:{rest:02}.{millis:03}"),
        _ => format!("{sign}{hours}:{minutes:02}:{rest:02}.{millis:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_read_as_a_clock() {
        for (micros, text) in [
            (0, "+0.000"),
            (-1_500_000, "-1.500"),
            (61_002_000, "+1:01.002"),
            (3_723_004_000, "+1:02:03.004"),
        ] {
            assert_eq!(offset(micros), text);
        }
    }
}
