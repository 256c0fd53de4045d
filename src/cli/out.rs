//! Where output goes: colour and tables on a terminal, plain text in a pipe, JSON when asked.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::ladder::Line;

/// The styles, few and always the same.
pub mod style {
    use anstyle::{AnsiColor, Style};

    /// Headings.
    pub const BOLD: Style = Style::new().bold();
    /// What can be overlooked.
    pub const DIM: Style = Style::new().dimmed();
    /// Done, connected.
    pub const GOOD: Style = AnsiColor::Green.on_default();
    /// Look at it.
    pub const WARN: Style = AnsiColor::Yellow.on_default();
    /// Wrong, missed, lost.
    pub const BAD: Style = AnsiColor::Red.on_default();
    /// Names: routes, calls.
    pub const NAME: Style = AnsiColor::Cyan.on_default();
}

/// Columns of a picture that goes into a pipe or a file.
const PIPE_WIDTH: u16 = 120;

/// To the line's beginning, and all of it cleared (ECMA-48, CR and EL).
const LINE_AGAIN: &str = "\r\u{1b}[2K";

/// One command's output.
#[derive(Debug)]
pub struct Out {
    stream: anstream::Stdout,
    terminal: bool,
    json: bool,
}

impl Out {
    /// To stdout; as JSON lines if so.
    pub fn new(json: bool) -> Self {
        Self { stream: anstream::stdout(), terminal: io::stdout().is_terminal(), json }
    }

    /// JSON is wanted.
    pub fn json(&self) -> bool {
        self.json
    }

    /// A person looks at it.
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// One line, at once.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.stream, "{text}")?;
        self.stream.flush()
    }

    /// One line for a person: to stderr where the output is read by a program.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub(super) fn note(&mut self, text: impl Display) -> io::Result<()> {
        if self.json { writeln!(anstream::stderr(), "{text}") } else { self.line(text) }
    }

    /// Styled lines; in ASCII alone where that is asked for, or where the locale has no more.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub(super) fn lines(&mut self, lines: Vec<Line>, ascii: bool) -> io::Result<()> {
        let ascii = ascii || !is_utf8(|name| std::env::var(name).ok());
        for line in lines {
            self.line(if ascii { line.ascii() } else { line })?;
        }
        Ok(())
    }

    /// Columns there are: the terminal's; else what `COLUMNS` says, or enough to read well.
    pub(super) fn width(&self) -> usize {
        let terminal = if self.terminal { Table::new().width() } else { None };
        let asked = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        usize::from(terminal.or_else(asked).unwrap_or(PIPE_WIDTH))
    }

    /// A line that the next one takes the place of, cut to the terminal's width.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub(super) fn redraw(&mut self, text: &str) -> io::Result<()> {
        let width = self.width().saturating_sub(1);
        let mut taken = 0;
        let fits = |character: &char| {
            taken += unicode_width::UnicodeWidthChar::width(*character).unwrap_or(0);
            taken <= width
        };
        let text: String = text.chars().take_while(fits).collect();
        write!(self.stream, "{LINE_AGAIN}{text}")?;
        self.stream.flush()
    }

    /// One value as a JSON line.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_string(value)?;
        self.line(line)
    }

    /// A table: with rules on a terminal, columns alone in a pipe.
    ///
    /// # Errors
    /// When the reader has gone away.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        if self.terminal {
            table
                .load_preset(presets::UTF8_HORIZONTAL_ONLY)
                .set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_preset(presets::NOTHING);
        }
        table.set_header(header).add_rows(rows);
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// Whether the locale has more than ASCII, as setlocale(3) finds it. Where nothing says, it has:
/// pipes and minimal containers set none.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

/// `1 event`, `2 events`.
pub(super) fn plural(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// Styled text: `paint(style::GOOD, "connected")`.
pub fn paint(style: anstyle::Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_locale_variables_that_is_set_decides() {
        let is = |set: &[(&str, &str)]| {
            is_utf8(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(is(&[]) && is(&[("LANG", "")]));
        assert!(is(&[("LANG", "es_VE.UTF-8")]) && is(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(!is(&[("LANG", "C")]) && !is(&[("LC_CTYPE", "es_VE.ISO-8859-1"), ("LANG", "C.UTF-8")]));
    }
}
