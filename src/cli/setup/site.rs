//! callpost's own configuration: what it says already, and the file that setup writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::change::Owner;
use super::conf::{bytes_of, text_of};
use super::host::Host;
use crate::cli::exit::CliError;
use crate::cli::import_script::quoted;

pub(super) const FILE: &str = "50-setup.toml";
const GROUP: &str = "callpost";

/// What the file of setup says; a key that is not here was written by somebody else.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    pub pbx: Option<Pbx>,
    pub ami: Option<Ami>,
    pub cdr: Option<Cdr>,
    pub nimbox: Vec<Nimbox>,
    pub webhook: Vec<Webhook>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Pbx {
    pub name: String,
    #[serde(default)]
    pub trunks: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Ami {
    pub address: String,
    pub username: String,
    pub secret_file: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Cdr {
    pub source: Option<String>,
    pub source_file: Option<String>,
    pub table: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Nimbox {
    pub name: String,
    pub url: String,
    pub allow_http: Option<bool>,
    pub token_file: String,
    pub inbound_destination: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub name: String,
    pub url: String,
    pub allow_http: Option<bool>,
    pub events: Vec<String>,
    pub secret_file: String,
}

impl Settings {
    /// As TOML; the same settings give the same text.
    pub fn text(&self) -> String {
        let mut text =
            "# Written by `callpost setup`, and written anew by it. Put what is your own into another file\n\
                        # of this directory; callpost.toml(5) explains every key.\n"
                .to_owned();
        let mut table = |header: &str, keys: &[(&str, Option<String>)]| {
            text += &format!("\n{header}\n");
            for (key, value) in keys {
                if let Some(value) = value {
                    text += &format!("{key} = {value}\n");
                }
            }
        };
        let q = |value: &String| Some(quoted(value));
        if let Some(pbx) = &self.pbx {
            let trunks = (!pbx.trunks.is_empty()).then(|| list(&pbx.trunks));
            table("[pbx]", &[("name", q(&pbx.name)), ("trunks", trunks)]);
        }
        if let Some(ami) = &self.ami {
            let keys = [
                ("address", q(&ami.address)),
                ("username", q(&ami.username)),
                ("secret_file", q(&ami.secret_file)),
            ];
            table("[ami]", &keys);
        }
        if let Some(cdr) = &self.cdr {
            let keys = [
                ("source", cdr.source.as_ref().and_then(q)),
                ("source_file", cdr.source_file.as_ref().and_then(q)),
                ("table", cdr.table.as_ref().and_then(q)),
            ];
            table("[cdr]", &keys);
        }
        for sink in &self.nimbox {
            let keys = [
                ("name", q(&sink.name)),
                ("url", q(&sink.url)),
                ("allow_http", sink.allow_http.map(|flag| flag.to_string())),
                ("token_file", q(&sink.token_file)),
                ("inbound_destination", q(&sink.inbound_destination)),
            ];
            table("[[nimbox]]", &keys);
        }
        for sink in &self.webhook {
            let keys = [
                ("name", q(&sink.name)),
                ("url", q(&sink.url)),
                ("allow_http", sink.allow_http.map(|flag| flag.to_string())),
                ("events", Some(list(&sink.events))),
                ("secret_file", q(&sink.secret_file)),
            ];
            table("[[webhook]]", &keys);
        }
        text
    }
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// What is configured already.
#[derive(Debug)]
pub(super) struct Site {
    /// The main file; conf.d and secrets are beside it.
    pub file: PathBuf,
    /// setup's own, from before.
    pub earlier: Settings,
    /// Tables that other files have, and which does: they stay as they are.
    pub elsewhere: BTreeMap<String, PathBuf>,
    /// Whose new files are.
    pub owner: Owner,
    /// There is a group of that name.
    pub has_group: bool,
}

impl Site {
    /// # Errors
    /// A file that is no TOML, or setup's own with keys that are not its own.
    pub fn look(host: &Host, file: &Path) -> Result<Self, CliError> {
        let own = conf_d(file).join(FILE);
        let earlier = match text_of(&own)? {
            None => Settings::default(),
            Some(text) => toml::from_str(&text).map_err(|why| {
                let line = why
                    .span()
                    .map_or(1, |span| 1 + text.get(..span.start).unwrap_or("").matches('\n').count());
                let what = format!("{}:{line}: {}", host.shown(&own), why.message().trim_end());
                let remedy = format!(
                    "setup writes this file anew: move what is your own to {}",
                    "conf.d/60-site.toml"
                );
                CliError::usage(what, remedy)
            })?,
        };
        let mut elsewhere = BTreeMap::new();
        for path in others(file, &own) {
            let Some(text) = text_of(&path)? else { continue };
            let table: toml::Table = text.parse().map_err(|why: toml::de::Error| {
                let what = format!("{}: {}", host.shown(&path), why.message().trim_end());
                CliError::usage(what, "callpost check says more: put it right, then run this again")
            })?;
            for key in table.keys() {
                elsewhere.entry(key.clone()).or_insert_with(|| path.clone());
            }
        }
        let group = group_id(&host.root, GROUP)?;
        let user = rustix::process::geteuid().as_raw();
        let owner = Owner {
            user,
            group: group.unwrap_or_else(|| rustix::process::getegid().as_raw()),
            mode: if group.is_some() { 0o640 } else { 0o600 },
        };
        Ok(Self { file: file.to_path_buf(), earlier, elsewhere, owner, has_group: group.is_some() })
    }

    pub fn own_file(&self) -> PathBuf {
        conf_d(&self.file).join(FILE)
    }

    pub fn secrets(&self) -> PathBuf {
        self.file.with_file_name("secrets")
    }

    /// A secret that is there already.
    pub fn secret(&self, name: &str) -> Result<Option<String>, CliError> {
        let bytes = bytes_of(&self.secrets().join(name))?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// The name of a secret in the configuration: where programs look for it by itself, or its path.
    pub fn secret_name(&self, host: &Host, name: &str) -> String {
        let path = host.shown(&self.secrets().join(name));
        if path == format!("/etc/callpost/secrets/{name}") { name.to_owned() } else { path }
    }
}

fn conf_d(file: &Path) -> PathBuf {
    file.with_file_name("conf.d")
}

fn others(file: &Path, own: &Path) -> Vec<PathBuf> {
    let mut paths = vec![file.to_path_buf()];
    let entries = std::fs::read_dir(conf_d(file)).into_iter().flatten().filter_map(Result::ok);
    let mut rest: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path != own).collect();
    rest.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    rest.sort();
    paths.append(&mut rest);
    paths
}

fn group_id(root: &Path, name: &str) -> Result<Option<u32>, CliError> {
    let groups = text_of(&root.join("etc/group"))?.unwrap_or_default();
    let line = groups.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.and_then(|line| line.split(':').nth(2)?.parse().ok()))
}
