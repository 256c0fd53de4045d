//! Where output goes: colour and tables on a terminal, plain text in a pipe, JSON when asked.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

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

/// `1 event`, `2 events`.
pub(super) fn plural(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// Styled text: `paint(style::GOOD, "connected")`.
pub fn paint(style: anstyle::Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
