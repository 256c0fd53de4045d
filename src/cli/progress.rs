//! A backfill as it goes on: a bar on a terminal, a line now and then in a pipe, JSON when asked; and
//! what it came to.

use std::io;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::leg::local;
use super::out::{Out, paint, plural, style};
use super::status::ago;
use crate::cdr::{Frame, Progress};

/// Between two lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two JSON lines.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Characters of the bar.
const BAR: usize = 24;
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// Shows it.
pub(super) struct Show {
    out: Out,
    zone: TimeZone,
    /// What is sent: one, many.
    what: (&'static str, &'static str),
    began: Instant,
    /// Where this run began: rows, and part of the span.
    first: Option<(u64, f64)>,
    last: Option<Instant>,
    /// Why nothing moves, as it was last said.
    hold: Option<String>,
    /// A bar stands on the terminal's line.
    drawn: bool,
}

impl Show {
    pub fn new(json: bool, zone: TimeZone, what: (&'static str, &'static str)) -> Self {
        let out = Out::new(json);
        Self { out, zone, what, began: Instant::now(), first: None, last: None, hold: None, drawn: false }
    }

    pub fn json(&self) -> bool {
        self.out.json()
    }

    pub fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// One line of the agent.
    pub fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        if self.out.json() {
            return match frame {
                Frame::Progress(_) if !self.is_time(JSON_EVERY) => Ok(()),
                Frame::Failed { .. } | Frame::Begin { .. } | Frame::Progress(_) | Frame::Summary(_) => {
                    self.out.value(frame)
                }
            };
        }
        match frame {
            Frame::Begin { from, to, resumed, paging, zone, warnings } => {
                let time = |at| local(at, &self.zone, TIME);
                let span = format!("calls from {} to {}", time(*from), time(*to));
                let resumed = resumed
                    .map(|at| format!("a run before this one was cut off: it goes on from {}", time(at)));
                self.out.line(format!("{span}; rows are found by {paging}, times are in {zone}"))?;
                for (what, remedy) in warnings {
                    self.out.line(format!("{} {what}\n    -> {remedy}", paint(style::WARN, "warning:")))?;
                }
                resumed.map_or(Ok(()), |resumed| self.out.line(paint(style::BOLD, resumed)))
            }
            Frame::Progress(progress) => self.progress(progress),
            Frame::Summary(progress) => {
                self.end()?;
                self.summary(progress)
            }
            Frame::Failed { progress, .. } => {
                self.end()?;
                self.summary(progress)
            }
        }
    }

    /// Leaves the bar's line.
    pub fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.drawn) { self.out.redraw("") } else { Ok(()) }
    }

    fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        let (rows, part) = *self.first.get_or_insert((progress.read, progress.part()));
        if progress.hold != self.hold {
            self.hold.clone_from(&progress.hold);
            self.end()?;
            match &progress.hold {
                Some(why) => self.out.line(paint(style::WARN, format!("waiting: {why}")))?,
                None => self.out.line("it goes on")?,
            }
        }
        let every = if self.out.terminal() { Duration::ZERO } else { LINE_EVERY };
        if !self.is_time(every) {
            return Ok(());
        }
        let line = line(progress, progress.read - rows.min(progress.read), part, self.began.elapsed());
        if self.out.terminal() {
            self.drawn = true;
            self.out.redraw(&format!("{} {line}", bar(progress.part())))
        } else {
            self.out.line(line)
        }
    }

    fn is_time(&mut self, every: Duration) -> bool {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < every) {
            return false;
        }
        self.last = Some(now);
        true
    }

    fn summary(&mut self, progress: &Progress) -> io::Result<()> {
        let took = ago(i64::try_from(self.began.elapsed().as_secs()).unwrap_or(0));
        self.out.line(paint(
            style::BOLD,
            format!(
                "{}, {}, {} in {took}",
                plural(progress.read, "row read", "rows read"),
                plural(progress.calls, "call", "calls"),
                plural(progress.creates, self.what.0, self.what.1)
            ),
        ))?;
        let mut rows = Vec::new();
        let mut row = |count: u64, what: &str| {
            if count > 0 {
                rows.push(vec![count.to_string(), what.to_owned()]);
            }
        };
        row(progress.delivered, "sent");
        row(progress.there, "already there, as NiMbox says");
        row(progress.known, "already there: sent before, or on their way");
        for (why, count) in &progress.refused {
            row(*count, &format!("refused: {why}; offered again each night"));
        }
        row(progress.failing, "failing: tried again, see `callpost status`");
        row(progress.dead, "given up: see `callpost dead list`");
        row(progress.waiting, "wait in the journal");
        row(progress.unseen, "put into the journal, and gone from it unseen");
        row(progress.held, "calls that are not over, left to the live path");
        for (why, count) in &progress.left_out {
            row(*count, &format!("left out: {why}"));
        }
        if rows.is_empty() {
            return self.out.line("nothing to send");
        }
        self.out.table(&["count", "what"], rows)
    }
}

/// `43 %  12345 rows, 812/s  3412 new, 8001 known, 1000 wait  2 min left`.
fn line(progress: &Progress, rows: u64, began: f64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs().max(1);
    let part = progress.part();
    let mut text = format!(
        "{} %  {}, {}/s  {} new, {} known, {} sent, {} wait",
        percent(part),
        plural(progress.read, "row", "rows"),
        rows / seconds,
        progress.added,
        progress.known,
        progress.delivered + progress.there,
        progress.waiting
    );
    if progress.read_all {
        text.push_str("  all was read");
    } else if part > began && elapsed > Duration::from_secs(2) {
        let left = elapsed.as_secs_f64() / (part - began) * (1.0 - part);
        text.push_str(&format!("  {} left", ago(whole(left))));
    }
    text
}

fn bar(part: f64) -> String {
    let full = usize::try_from(percent(part)).unwrap_or(0) * BAR / 100;
    format!("[{}{}]", "=".repeat(full), " ".repeat(BAR - full.min(BAR)))
}

#[expect(clippy::cast_possible_truncation, reason = "0 to 100")]
fn percent(part: f64) -> i64 {
    (part.clamp(0.0, 1.0) * 100.0) as i64
}

#[expect(clippy::cast_possible_truncation, reason = "years fit")]
fn whole(seconds: f64) -> i64 {
    seconds.clamp(0.0, 1e9) as i64
}

#[cfg(test)]
mod tests {
    use parsers::Micros;

    use super::*;

    #[test]
    fn the_time_left_is_by_the_position_in_the_span() {
        let at = |seconds| Micros::from_secs(seconds);
        let progress = Progress { from: at(0), to: at(1_000), at: at(250), read: 500, ..Progress::default() };
        let shown = line(&progress, 500, 0.0, Duration::from_secs(10));
        assert_eq!(shown, "25 %  500 rows, 50/s  0 new, 0 known, 0 sent, 0 wait  30 s left");
        let resumed = line(&progress, 100, 0.2, Duration::from_secs(10));
        assert!(resumed.ends_with("10/s  0 new, 0 known, 0 sent, 0 wait  2 min left"), "{resumed}");
        let done = Progress { at: at(1_000), read_all: true, ..progress };
        assert!(line(&done, 500, 0.0, Duration::from_secs(10)).ends_with("all was read"));
        assert_eq!(bar(0.5), format!("[{}{}]", "=".repeat(12), " ".repeat(12)));
        assert_eq!((bar(1.0).len(), bar(0.0).len()), (BAR + 2, BAR + 2));
    }
}
