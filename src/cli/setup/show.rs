//! The plan, before anything is written.

use std::io;

use serde::Serialize;

use super::change::Change;
use super::conf::decoded;
use super::diff::diff;
use super::host::Host;
use super::language::{Language, say};
use super::plan::{Level, Plan};
use crate::cli::out::{Out, paint, style};

#[derive(Serialize)]
struct Shown<'a> {
    platform: &'static str,
    because: &'a [String],
    notes: Vec<Note<'a>>,
    files: Vec<File>,
    next: &'a [String],
}

#[derive(Serialize)]
struct Note<'a> {
    level: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct File {
    path: String,
    /// `new`, `changed`.
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Nothing for a secret.
    diff: Vec<String>,
}

pub(super) fn show(plan: &Plan, host: &Host, language: Language, out: &mut Out) -> io::Result<()> {
    if out.json() {
        let note = |(level, text): &'_ (Level, String)| (mark(*level).trim(), text.clone());
        let notes: Vec<_> = plan.notes.iter().map(note).collect();
        let notes = notes.iter().map(|(level, text)| Note { level, text }).collect();
        let files = plan.changes.iter().map(|change| file(change, host)).collect();
        let (platform, because, next) = (host.platform.name(), &host.why[..], &plan.next[..]);
        return out.value(&Shown { platform, because, notes, files, next });
    }
    for (level, text) in &plan.notes {
        let colour = match level {
            Level::Ok => style::GOOD,
            Level::Note => style::NAME,
            Level::Warning => style::WARN.bold(),
        };
        out.line(format!("{}  {text}", paint(colour, mark(*level))))?;
    }
    if plan.changes.is_empty() {
        return Ok(());
    }
    out.line(paint(style::BOLD, language.say("\nTo be written:", "\nPor escribir:")))?;
    for change in &plan.changes {
        let File { path, mode, diff, .. } = file(change, host);
        let what = match (&mode, change.secret) {
            (Some(mode), true) => {
                say!(language, "new, mode {mode}, a secret", "nuevo, modo {mode}, un secreto")
            }
            (Some(mode), false) => say!(language, "new, mode {mode}", "nuevo, modo {mode}"),
            (None, _) => language
                .say(
                    "changed; owner and mode stay, a backup goes beside it",
                    "cambiado; dueño y modo quedan, con una copia al lado",
                )
                .to_owned(),
        };
        out.line(format!("\n{}  {what}", paint(style::NAME, path)))?;
        for line in diff {
            let colour = match line.chars().next() {
                Some('+') => style::GOOD,
                Some('-') => style::BAD,
                _ => style::DIM,
            };
            out.line(format!("  {}", paint(colour, line)))?;
        }
    }
    Ok(())
}

fn mark(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok  ",
        Level::Note => "note",
        Level::Warning => "warn",
    }
}

fn file(change: &Change, host: &Host) -> File {
    let text = |bytes: &[u8]| decoded(bytes.to_vec());
    let before = change.before.as_deref().map(text).unwrap_or_default();
    File {
        path: host.shown(&change.path),
        action: if change.before.is_some() { "changed" } else { "new" },
        mode: change.before.is_none().then(|| format!("{:04o}", change.owner.mode)),
        diff: if change.secret { Vec::new() } else { diff(&before, &text(&change.after)) },
    }
}
