//! What is wrong with a configuration, where, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The file, or the environment variable's name.
    pub file: String,
    /// Line in the file, from 1; `None` where the fault is of no line (a variable, a whole file).
    pub line: Option<usize>,
    /// The key with its tables, `webhook.helpdesk.url`; empty where the text cannot be read at all.
    pub key: String,
    /// What is wrong, a fragment.
    pub problem: String,
    /// What to do, a sentence without its full stop.
    pub remedy: String,
}

impl fmt::Display for Fault {
    /// Two lines: `file:line: key: problem`, and the remedy, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", indented(&self.problem))?;
        write!(f, "\n    -> {}", indented(&self.remedy))
    }
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

/// Every fault of a configuration, in the order of files and lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
