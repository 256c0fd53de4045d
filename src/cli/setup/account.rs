//! The account on the manager interface: where it goes, and what it may.

use std::path::PathBuf;

use super::change::{Change, Owner};
use super::conf::{Section, bytes_of, decoded};
use super::edit;
use super::host::Host;
use super::scan::{Line, scan};
use crate::cli::exit::CliError;

pub(super) const USER: &str = "callpost";
/// In the first line of a file that is ours alone: what removes the package looks for it.
const OURS: &str = "; written by callpost setup";
const BEGIN: &str = "; >>> written by callpost setup; what stands until <<< is written anew by it";
const END: &str = "; <<< callpost setup";
/// The account as the package documents it.
const DOCUMENTED: &str = include_str!("../../../packaging/asterisk/manager.d/callpost.conf");
/// Where no other place is given: read by an #include that setup adds.
const OWN_FILE: &str = "manager_callpost.conf";
const DEFAULT_PORT: &str = "5038";

/// Where the account stands, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file of our own that an #include with a pattern takes in.
    DropIn(PathBuf),
    /// At the end of a file that the PBX leaves to people.
    Custom(PathBuf),
    /// A file of our own, and an #include for it at the end of manager.conf.
    Included(PathBuf),
}

impl Place {
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::DropIn(path) | Self::Custom(path) | Self::Included(path) => path,
        }
    }
}

/// The account that is there already.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// setup wrote it, so setup may write it anew.
    pub ours: bool,
    pub file: PathBuf,
    pub line: usize,
    pub secret: Option<String>,
    /// What is wrong with it for an agent.
    pub lacks: Vec<String>,
}

/// Where accounts go on this PBX, by what manager.conf includes.
pub(super) fn place(host: &Host) -> Place {
    let includes = &host.manager.includes;
    if let Some(custom) = includes.iter().find(|include| include.target.ends_with("manager_custom.conf")) {
        return Place::Custom(custom.path.clone());
    }
    let pattern = includes.iter().find_map(|include| {
        let name = include.path.file_name()?.to_str()?;
        let directory = include.path.parent()?;
        let (before, after) = name.split_once('*')?;
        let one =
            !after.contains(['*', '?', '[']) && !before.contains(['?', '[']) && after.ends_with(".conf");
        // VitalPBX numbers its files; 60 and above is people's
        let own = if before.ends_with("__") { "60-callpost" } else { "callpost" };
        one.then(|| directory.join(format!("{before}{own}{after}")))
    });
    pattern.map_or_else(|| Place::Included(host.etc.join(OWN_FILE)), Place::DropIn)
}

/// The account of that name, if there is one; the last counts.
pub(super) fn existing(host: &Host) -> Result<Option<Account>, CliError> {
    let Some(section) = host.manager.real().filter(|section| section.name == USER).last() else {
        return Ok(None);
    };
    let text = bytes_of(&section.file)?.map(decoded).unwrap_or_default();
    let ours = text.starts_with(OURS) || within_marks(&text, section.line);
    Ok(Some(Account {
        ours,
        file: section.file.clone(),
        line: section.line,
        secret: host.manager.told(section, "secret").map(str::to_owned),
        lacks: lacks(host, section),
    }))
}

fn within_marks(text: &str, line: usize) -> bool {
    let line_of = |mark: &str| text.lines().position(|found| found == mark).map(|n| n + 1);
    line_of(BEGIN).zip(line_of(END)).is_some_and(|(begin, end)| (begin..end).contains(&line))
}

fn lacks(host: &Host, section: &Section) -> Vec<String> {
    let given = |key: &str| host.manager.told(section, key);
    let mut lacks = Vec::new();
    for (key, wanted) in documented().into_iter().filter(|(key, _)| key == "read" || key == "write") {
        let have: Vec<_> = given(&key).unwrap_or_default().split(',').collect();
        let short: Vec<_> =
            wanted.split(',').filter(|class| !have.iter().any(|h| h == class || *h == "all")).collect();
        if !short.is_empty() {
            lacks.push(format!("{key} = ...,{}", short.join(",")));
        }
    }
    if given("writetimeout").and_then(|text| text.parse::<u32>().ok()).is_none_or(|ms| ms < 1_000) {
        lacks.push("writetimeout = 10000".to_owned());
    }
    if given("deny").is_none() && given("acl").is_none() {
        lacks.push("deny = 0.0.0.0/0.0.0.0".to_owned());
    }
    lacks
}

/// The documented account's keys and values, filters left out.
fn documented() -> Vec<(String, String)> {
    let lines = scan(DOCUMENTED).into_iter();
    lines
        .filter_map(|line| match line {
            Line::Value { key, value } if !key.starts_with("eventfilter") => Some((key, value)),
            _ => None,
        })
        .collect()
}

/// The account's section, with this secret, for this Asterisk.
pub(super) fn section(host: &Host, secret: &str) -> String {
    let mut text = format!("[{USER}]\n");
    for (key, value) in documented() {
        let value = match key.as_str() {
            "secret" => secret.to_owned(),
            "permit" => permitted(&address(host).0),
            _ => value,
        };
        text += &format!("{key} = {value}\n");
    }
    let filters = DOCUMENTED.lines().filter(|line| line.starts_with("eventfilter("));
    for filter in filters {
        if has_named_filters(host.version) {
            text += filter;
        } else {
            let event =
                filter.split("name(").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
            text += &format!("eventfilter = !Event: {event}");
        }
        text += "\n";
    }
    text
}

/// From these releases on; where the release is not known, the form that all have.
fn has_named_filters(version: Option<(u32, u32)>) -> bool {
    version.is_some_and(|(series, release)| match series {
        18 => release >= 26,
        20 => release >= 11,
        21 => release >= 6,
        22 => release >= 1,
        series => series > 22,
    })
}

/// The host and port that AMI is reached at from this host.
pub(super) fn address(host: &Host) -> (String, String) {
    let port = host.manager.last("general", "port").filter(|port| !port.is_empty()).unwrap_or(DEFAULT_PORT);
    let address = if is_open_to_all(host) { "127.0.0.1" } else { bound(host).trim_matches(['[', ']']) };
    (address.to_owned(), port.to_owned())
}

/// One address, as `permit` takes it.
fn permitted(address: &str) -> String {
    if address.contains(':') { format!("{address}/128") } else { format!("{address}/255.255.255.255") }
}

/// AMI answers on every address of this host.
pub(super) fn is_open_to_all(host: &Host) -> bool {
    matches!(bound(host), "" | "0.0.0.0" | "::" | "[::]")
}

fn bound(host: &Host) -> &str {
    host.manager.last("general", "bindaddr").unwrap_or("0.0.0.0")
}

/// The files that put the account there.
pub(super) fn changes(host: &Host, secret: &str, account: Option<&Account>) -> Result<Vec<Change>, CliError> {
    let mut main = switch_on(host)?;
    let place = match account {
        // where setup once put it, it stays
        Some(account) if host.manager.includes.iter().any(|include| include.path == account.file) => {
            if account.file.ends_with(OWN_FILE) {
                Place::Included(account.file.clone())
            } else {
                Place::Custom(account.file.clone())
            }
        }
        Some(account) => Place::DropIn(account.file.clone()),
        None => place(host),
    };
    let section = section(host, secret);
    let own = Change::edited(place.path().clone(), main.owner, |text| match &place {
        Place::DropIn(_) | Place::Included(_) => format!("{OURS}\n\n{section}"),
        Place::Custom(_) => {
            let block = format!("{BEGIN}\n{section}{END}\n");
            edit::replace_block(text, BEGIN, END, &block).unwrap_or_else(|| edit::append(text, &block))
        }
    })?;
    if matches!(place, Place::Included(_)) && !host.manager.includes.iter().any(|i| i.path == *place.path()) {
        // a file that is gone one day must not take the others along: tryinclude
        main.edit(|text| edit::append(text, &format!("#tryinclude \"{OWN_FILE}\"\n")));
    }
    Ok(vec![own, main])
}

/// manager.conf with AMI on; where a web interface writes that file, as it is.
pub(super) fn switch_on(host: &Host) -> Result<Change, CliError> {
    let path = host.etc.join("manager.conf");
    let owner = Owner::like(&path)?;
    let mut main = Change::edited(path, owner, str::to_owned)?;
    if host.manager.is_true("general", "enabled") != Some(true) && !host.platform.writes_files() {
        if is_open_to_all(host) {
            main.edit(|text| edit::set(text, "general", "bindaddr", "127.0.0.1"));
        }
        main.edit(|text| edit::set(text, "general", "enabled", "yes"));
    }
    Ok(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_name_are_for_releases_that_have_them() {
        for (version, has) in [
            (None, false),
            (Some((13, 38)), false),
            (Some((16, 28)), false),
            (Some((18, 25)), false),
            (Some((18, 26)), true),
            (Some((19, 8)), false),
            (Some((20, 10)), false),
            (Some((22, 1)), true),
            (Some((23, 0)), true),
        ] {
            assert_eq!(has_named_filters(version), has, "{version:?}");
        }
    }
}
