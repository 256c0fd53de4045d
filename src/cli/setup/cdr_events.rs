//! cdr_manager.conf: Cdr events, with what callpost wants to know of each record.

use super::change::{Change, Owner};
use super::conf::{Conf, bytes_of, decoded};
use super::edit;
use super::host::Host;
use super::scan::{Line, scan};
use crate::cli::exit::CliError;

/// The lines that the package ships.
const WANTED: &str = include_str!("../../../packaging/asterisk/cdr_manager.conf");
const FILE: &str = "cdr_manager.conf";

/// Every mapping: CDR variable and header.
fn mappings() -> impl Iterator<Item = (String, String)> {
    let lines = scan(WANTED).into_iter();
    lines.filter_map(|line| match line {
        Line::Value { key, value } if key != "enabled" => Some((key, value)),
        _ => None,
    })
}

/// Cdr events are on, and say all that callpost wants.
pub(super) fn are_on(host: &Host) -> Result<bool, CliError> {
    let conf = host.conf(FILE)?.unwrap_or_default();
    Ok(conf.is_true("general", "enabled") == Some(true) && missing(&conf).is_empty())
}

fn missing(conf: &Conf) -> Vec<String> {
    let there = |header: &str| {
        let sections = conf.sections.iter().filter(|s| s.name.eq_ignore_ascii_case("mappings"));
        sections.flat_map(|s| &s.values).any(|value| value.value.eq_ignore_ascii_case(header))
    };
    mappings()
        .filter(|(_, header)| !there(header))
        .map(|(key, header)| format!("{key} => {header}"))
        .collect()
}

/// The files to change: the generated ones of FreePBX leave their `_custom` ones alone, so those are taken
/// where they are included.
pub(super) fn changes(host: &Host) -> Result<Vec<Change>, CliError> {
    let main = host.etc.join(FILE);
    let conf = host.conf(FILE)?.unwrap_or_default();
    let off = conf.is_true("general", "enabled") != Some(true);
    let missing = missing(&conf);
    let custom = |section: &str| {
        let mut of_section = conf.includes.iter().filter(|i| i.section.eq_ignore_ascii_case(section));
        of_section
            .find(|include| include.target.ends_with("_custom.conf"))
            .map(|include| include.path.clone())
    };
    let (general, mapped) = (custom("general"), custom("mappings"));
    let mut files: Vec<(std::path::PathBuf, String, Option<Vec<u8>>)> = Vec::new();
    let mut edit = |path: std::path::PathBuf, edit: &dyn Fn(&str) -> String| -> Result<(), CliError> {
        if let Some((_, text, _)) = files.iter_mut().find(|(known, ..)| *known == path) {
            *text = edit(text);
            return Ok(());
        }
        let before = bytes_of(&path)?;
        let text = before.clone().map(decoded).unwrap_or_default();
        files.push((path, edit(&text), before));
        Ok(())
    };
    if off {
        match general {
            // it is read within [general]
            Some(path) => edit(path, &|text| ended(text) + "enabled = yes\n")?,
            None => edit(main.clone(), &|text| edit::set(text, "general", "enabled", "yes"))?,
        }
    }
    if !missing.is_empty() {
        match mapped {
            Some(path) => edit(path, &|text| ended(text) + &missing.join("\n") + "\n")?,
            None => edit(main, &|text| edit::add(text, "mappings", &missing))?,
        }
    }
    let owner = Owner::like(&host.etc.join("manager.conf"))?;
    let made = files.into_iter().map(|(path, text, before)| {
        let after = encoded(text, before.as_deref());
        Change { path, before, after, owner, secret: false }
    });
    Ok(made.collect())
}

fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// In the encoding that the file had.
pub(super) fn encoded(text: String, before: Option<&[u8]>) -> Vec<u8> {
    if before.is_some_and(|bytes| std::str::from_utf8(bytes).is_err()) {
        // each character came from one byte, or is ASCII of ours
        return text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    }
    text.into_bytes()
}
