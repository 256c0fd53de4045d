//! Styled lines of known width, and text from outside made fit for a terminal.

use std::fmt;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::style;

/// Narrower, a column says nothing.
const LEAST_COLUMN: usize = 6;

/// One line of styled text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    spans: Vec<(Style, String)>,
}

impl Line {
    /// A line of one style.
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().and(style, text)
    }

    /// And more of it.
    #[must_use]
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    /// And plain text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.and(Style::new(), text)
    }

    pub(super) fn push(&mut self, style: Style, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.spans.push((style, text));
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.spans.extend(other.spans);
    }

    /// Columns it takes.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(_, text)| text.width()).sum()
    }

    /// Fills up with blanks to that many columns.
    pub(super) fn pad(&mut self, to: usize) {
        let missing = to.saturating_sub(self.width());
        self.push(Style::new(), " ".repeat(missing));
    }

    /// Cut to that many columns.
    #[must_use]
    pub(super) fn cut(self, to: usize) -> Self {
        if self.width() <= to {
            return self;
        }
        let mut line = Self::default();
        for (style, text) in self.spans {
            let left = to.saturating_sub(line.width());
            let whole = text.width() < left;
            line.push(style, cut(&text, left));
            if !whole {
                break;
            }
        }
        line
    }

    /// With nothing but ASCII, for terminals that have no more.
    #[must_use]
    pub fn ascii(mut self) -> Self {
        for (_, text) in &mut self.spans {
            *text = text.chars().map(in_ascii).collect();
        }
        self
    }

    /// Without style.
    pub fn plain(&self) -> String {
        let text: String = self.spans.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.spans.iter().rposition(|(_, text)| !text.trim().is_empty());
        for (index, (style, text)) in self.spans.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
            let text = if Some(index) == last { text.trim_end() } else { text };
            if *style == Style::new() {
                f.write_str(text)?;
            } else {
                write!(f, "{style}{text}{style:#}")?;
            }
        }
        Ok(())
    }
}

fn in_ascii(char: char) -> char {
    match char {
        '│' | '┌' | '└' | '├' | '┤' => '|',
        '─' | '–' => '-',
        '═' => '=',
        '▶' | '→' => '>',
        '◀' | '←' => '<',
        '●' => '*',
        '✓' => '+',
        '✗' => 'x',
        '…' => '~',
        '×' => 'x',
        '·' => '.',
        char if char.is_ascii() => char,
        _ => '?',
    }
}

/// Text from outside without what moves a terminal's cursor, colours it or turns its direction.
pub(crate) fn clean(text: &str) -> String {
    let turns =
        |char| matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let safe = |char: char| if char.is_control() || turns(char) { '·' } else { char };
    text.chars().map(safe).collect()
}

/// At most so many columns; what was more ends in `…`.
pub(super) fn cut(text: &str, to: usize) -> String {
    if text.width() <= to {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut taken = 0;
    for char in text.chars() {
        taken += char.width().unwrap_or(0);
        if taken + 1 > to {
            break;
        }
        kept.push(char);
    }
    if to > 0 {
        kept.push('…');
    }
    kept
}

/// Lines of at most `width` columns, at most `most` of them; broken at blanks where it can be.
pub(super) fn wrap(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && lines.len() < most {
        if lines.len() + 1 == most || rest.width() <= width {
            lines.push(cut(rest, width));
            break;
        }
        let mut taken = 0;
        let fits = rest.char_indices().find(|(_, char)| {
            taken += char.width().unwrap_or(0);
            taken > width
        });
        let end = fits.map_or(rest.len(), |(at, _)| at).max(1);
        let end = (end..=rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
        let (head, _) = rest.split_at(end);
        let at = head.rfind(' ').filter(|at| *at > width / 3).unwrap_or(end);
        let (line, more) = rest.split_at(at);
        lines.push(line.trim_end().to_owned());
        rest = more.trim_start();
    }
    lines
}

/// Columns that a table without rules takes if nothing gives way.
pub(crate) fn natural_width(rows: &[Vec<Line>]) -> usize {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Line::width).max();
    (0..count).filter_map(widest).sum::<usize>() + 2 * count.saturating_sub(1)
}

/// A table without rules. Where a width is given and it is wider, the widest of the columns that may
/// give way do.
pub(crate) fn columns(rows: Vec<Vec<Line>>, width: Option<usize>, giving: &[usize]) -> Vec<Line> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let natural = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Line::width).max();
    let mut widths: Vec<usize> = (0..count).map(|column| natural(column).unwrap_or(0)).collect();
    let gaps = 2 * count.saturating_sub(1);
    while let Some(width) = width
        && widths.iter().sum::<usize>() + gaps > width
    {
        let widest =
            giving.iter().copied().filter(|column| *column < count).max_by_key(|column| widths[*column]);
        match widest {
            Some(column) if widths[column] > LEAST_COLUMN => widths[column] -= 1,
            _ => break,
        }
    }
    let line = |row: Vec<Line>| {
        let mut line = Line::default();
        let mut to = 0;
        for (cell, width) in row.into_iter().zip(&widths) {
            line.pad(to);
            line.append(cell.cut(*width));
            to += width + 2;
        }
        line
    };
    rows.into_iter().map(line).map(|line| width.map_or(line.clone(), |width| line.cut(width))).collect()
}

/// A heading's cells.
pub(crate) fn heading(cells: &[&str]) -> Vec<Line> {
    cells.iter().map(|cell| Line::new(style::DIM, *cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\n\u{202e}c Pérez 東"), "a·[2Jb···c Pérez 東");
    }

    #[test]
    fn cutting_and_wrapping_count_columns() {
        assert_eq!(cut("東京都", 5), "東京…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 0), "");
        assert_eq!(wrap("one two three", 8, 5), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4, 2), ["abcd", "efg…"]);
        assert_eq!(wrap("東京都", 1, 9).len(), 3, "it always ends");
    }

    #[test]
    fn a_wide_table_gives_way_where_it_may() {
        let row = |a: &str, b: &str| {
            vec![Line::default().text(a), Line::default().text(b), Line::default().text("z")]
        };
        let table = |width| -> Vec<String> {
            let rows = vec![row("aaaaaaaaaaaa", "bbbbbbbb"), row("c", "d")];
            columns(rows, width, &[1]).iter().map(Line::plain).collect()
        };
        assert_eq!(table(None), ["aaaaaaaaaaaa  bbbbbbbb  z", "c             d         z"]);
        assert_eq!(table(Some(23)), ["aaaaaaaaaaaa  bbbbb…  z", "c             d       z"]);
    }
}
