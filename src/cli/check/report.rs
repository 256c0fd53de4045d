//! The lines of a check.

use std::io;

use serde::Serialize;

use crate::cli::out::{Out, paint, style};
use crate::config::Fault;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// Good to know.
    Note,
    /// It works, not as well as it could.
    Warning,
    /// It does not work.
    Wrong,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do, or to know; may have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Prints lines as they come, and remembers the worst.
pub(super) struct Report {
    out: Out,
    wrong: u64,
    warnings: u64,
}

impl Report {
    pub fn new(out: Out) -> Self {
        Self { out, wrong: 0, warnings: 0 }
    }

    pub fn wrong(&self) -> bool {
        self.wrong > 0
    }

    pub fn ok(&mut self, subject: &str, found: impl Into<String>) -> io::Result<()> {
        self.add(Level::Ok, subject, found, None)
    }

    pub fn note(
        &mut self,
        subject: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> io::Result<()> {
        self.add(Level::Note, subject, found, Some(remedy.into()))
    }

    pub fn warning(
        &mut self,
        subject: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> io::Result<()> {
        self.add(Level::Warning, subject, found, Some(remedy.into()))
    }

    pub fn bad(
        &mut self,
        subject: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> io::Result<()> {
        self.add(Level::Wrong, subject, found, Some(remedy.into()))
    }

    /// A fault or warning of the configuration.
    pub fn fault(&mut self, level: Level, fault: &Fault) -> io::Result<()> {
        if self.out.json() {
            #[derive(Serialize)]
            struct Line<'a> {
                level: Level,
                subject: &'static str,
                #[serde(flatten)]
                fault: &'a Fault,
            }
            self.count(level);
            return self.out.value(&Line { level, subject: "configuration", fault });
        }
        let at = fault.line.map_or_else(|| fault.file.clone(), |line| format!("{}:{line}", fault.file));
        let key = if fault.key.is_empty() { String::new() } else { format!("{}: ", fault.key) };
        self.add(level, &at, format!("{key}{}", fault.problem), Some(fault.remedy.clone()))
    }

    fn add(
        &mut self,
        level: Level,
        subject: &str,
        found: impl Into<String>,
        remedy: Option<String>,
    ) -> io::Result<()> {
        self.count(level);
        let line = Line { level, subject: subject.to_owned(), found: found.into(), remedy };
        if self.out.json() {
            return self.out.value(&line);
        }
        let (mark, colour) = match level {
            Level::Ok => ("ok", style::GOOD),
            Level::Note => ("note", style::NAME),
            Level::Warning => ("warn", style::WARN.bold()),
            Level::Wrong => ("FAIL", style::BAD.bold()),
        };
        let mark = paint(colour, format!("{mark:<4}"));
        let found = line.found.trim_end().replace('\n', "\n        ");
        self.out.line(format!("{mark}  {}  {found}", paint(style::BOLD, &line.subject)))?;
        if let Some(remedy) = &line.remedy {
            for (n, text) in remedy.trim_end().lines().enumerate() {
                let arrow = if n == 0 { "->" } else { "  " };
                self.out.line(format!("      {} {text}", paint(colour, arrow)))?;
            }
        }
        Ok(())
    }

    fn count(&mut self, level: Level) {
        match level {
            Level::Ok | Level::Note => {}
            Level::Warning => self.warnings += 1,
            Level::Wrong => self.wrong += 1,
        }
    }

    /// The last line.
    pub fn end(&mut self) -> io::Result<()> {
        if self.out.json() {
            return Ok(());
        }
        let verdict = match (self.wrong, self.warnings) {
            (0, 0) => paint(style::GOOD.bold(), "all is well"),
            (0, warnings) => paint(style::WARN.bold(), format!("it works; {warnings} to look at")),
            (wrong, _) => paint(style::BAD.bold(), format!("{wrong} to put right")),
        };
        self.out.line(format!("\n{verdict}"))
    }
}
