//! cdr_manager.conf: Cdr events, with what callpost wants to know of each record.

use std::path::PathBuf;

use super::change::{Change, Owner};
use super::conf::Conf;
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
    let owner = Owner::like(&host.etc.join("manager.conf"))?;
    let mut changes: Vec<Change> = Vec::new();
    let mut edit = |path: PathBuf, edit: &dyn Fn(&str) -> String| -> Result<(), CliError> {
        match changes.iter_mut().find(|change| change.path == path) {
            Some(change) => change.edit(edit),
            None => changes.push(Change::edited(path, owner, edit)?),
        }
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
    Ok(changes)
}

fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
