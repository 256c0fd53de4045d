//! The columns of a row: lifelines, marks, arrows, and words on top of them.

use anstyle::Style;
use unicode_width::UnicodeWidthChar;

use super::line::{Line, cut};
use crate::cli::style;

/// One row of cells.
#[derive(Debug)]
pub(super) struct Canvas {
    cells: Vec<(char, Style)>,
}

impl Canvas {
    pub(super) fn new(width: usize) -> Self {
        Self { cells: vec![(' ', Style::new()); width] }
    }

    pub(super) fn put(&mut self, x: usize, char: char, style: Style) {
        if let Some(cell) = self.cells.get_mut(x) {
            *cell = (char, style);
        }
    }

    /// Words from a cell on, as far as there is room.
    pub(super) fn write(&mut self, x: usize, text: &str, style: Style) {
        let room = self.cells.len().saturating_sub(x);
        for (offset, char) in cut(text, room).chars().enumerate() {
            self.put(x + offset, if char.width() == Some(1) { char } else { '?' }, style);
        }
    }

    /// Words beside a mark: to its right, else to its left, else cut.
    pub(super) fn beside(&mut self, x: usize, text: &str, style: Style) {
        let long = text.chars().count();
        if x + 2 + long <= self.cells.len() || long + 2 > x {
            self.write(x + 1, &format!(" {text} "), style);
        } else {
            self.write(x - 2 - long, &format!(" {text} "), style);
        }
    }

    /// A line between two columns, with a head at `to` if it is an arrow, and words on it.
    pub(super) fn line(&mut self, from: usize, to: usize, stroke: char, arrow: bool, style: Style) {
        let (left, right) = (from.min(to), from.max(to));
        for x in left + 1..right {
            self.put(x, stroke, style);
        }
        if arrow && from < to {
            self.put(right - 1, '▶', style);
        } else if arrow {
            self.put(left + 1, '◀', style);
        }
    }

    /// Words in the middle between two columns; beside them where there is no room.
    pub(super) fn between(&mut self, a: usize, b: usize, text: &str, style: Style) {
        let (left, right) = (a.min(b), a.max(b));
        let room = (right - left).saturating_sub(5);
        let long = text.chars().count();
        if long <= room {
            self.write(left + 2 + (room - long) / 2, &format!(" {text} "), style);
        } else if right + 3 + long <= self.cells.len() {
            self.write(right + 1, &format!(" {text} "), style);
        } else {
            self.write(left + 2, &format!(" {} ", cut(text, room)), style);
        }
    }

    pub(super) fn into_line(self) -> Line {
        let mut line = Line::default();
        let mut run = (Style::new(), String::new());
        for (char, style) in self.cells {
            if style != run.0 {
                line.push(run.0, std::mem::take(&mut run.1));
                run.0 = style;
            }
            run.1.push(char);
        }
        line.push(run.0, run.1);
        line
    }
}

/// How a channel's life is drawn.
pub(super) fn lifeline(local: bool) -> Style {
    if local { style::DIM } else { style::NAME }
}
