//! What differs between two configurations, by key. Values are not repeated: a URL may be secret.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::types::{
    Ami, Api, Calls, CdrStore, Config, Delivery, Journal, Nimbox, Numbers, Pbx, Reconcile, Recordings, Sms,
    Webhook,
};
use crate::hex::hex;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// `webhook.helpdesk.url`; of a table that came or went its name alone, `webhook.helpdesk`.
    pub key: String,
    /// What became of it.
    pub what: Became,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    /// It was not there before.
    Added,
    /// It is there no more.
    Removed,
    /// It has another value.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Became::Added => "added",
            Became::Removed => "removed",
            Became::Changed => "changed",
        };
        write!(f, "{} {what}", self.key)
    }
}

impl Change {
    /// Whether it is this key or one below it.
    pub fn is_of(&self, table: &str) -> bool {
        self.key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// A configuration as it was when this was made, with the files that it names: each key with a text
/// that differs where the value does.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, Keys>);

type Keys = BTreeMap<&'static str, String>;

impl Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").finish_non_exhaustive()
    }
}

impl Facts {
    /// Taken now.
    pub fn of(config: &Config) -> Self {
        Self(tables(config))
    }

    /// Everything that differs in the other, in the order of keys.
    pub fn difference(&self, other: &Self) -> Vec<Change> {
        difference(&self.0, &other.0)
    }

    /// A digest of each key that goes into what NiMbox tells calls apart by, for a later run to
    /// compare.
    pub fn of_nimbox_keys(&self) -> BTreeMap<String, String> {
        let mut digests = BTreeMap::new();
        for (table, keys) in &self.0 {
            for (key, value) in keys {
                let key = format!("{table}.{key}");
                if goes_into_nimbox_keys(&key) {
                    digests.insert(key, hex(&Sha256::digest(value)[..8]));
                }
            }
        }
        digests
    }
}

/// Whether `initiated`, `source` or `destination` of a create depend on that key: calls made after a
/// change of it are other calls to NiMbox than before.
pub fn goes_into_nimbox_keys(key: &str) -> bool {
    const OF_SINK: [&str; 5] = ["initiated", "mode", "inbound_destination", "withheld_source", "numbers"];
    match key.split_once('.') {
        Some(("pbx", "timezone")) | Some(("numbers", _)) => true,
        Some(("nimbox", rest)) => rest.rsplit_once('.').is_some_and(|(_, key)| OF_SINK.contains(&key)),
        Some(_) | None => false,
    }
}

fn difference(old: &BTreeMap<String, Keys>, new: &BTreeMap<String, Keys>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (table, facts) in old {
        match new.get(table) {
            None => changes.push(Change { key: table.clone(), what: Became::Removed }),
            Some(others) => {
                let keys = facts.iter().filter(|(key, value)| others.get(*key) != Some(*value));
                changes.extend(
                    keys.map(|(key, _)| Change { key: format!("{table}.{key}"), what: Became::Changed }),
                );
            }
        }
    }
    let added = new.keys().filter(|table| !old.contains_key(*table));
    changes.extend(added.map(|table| Change { key: table.clone(), what: Became::Added }));
    changes.sort();
    changes
}

/// Every structure is taken apart without `..`, so that a new key cannot be forgotten here.
fn tables(config: &Config) -> BTreeMap<String, Keys> {
    let Config { pbx, ami, journal, cdr, numbers, recordings, calls, sms, queues, nimbox, webhooks, api } =
        config;
    let mut tables = BTreeMap::new();
    tables.insert("pbx".to_owned(), of_pbx(pbx));
    tables.extend(ami.as_ref().map(|ami| ("ami".to_owned(), of_ami(ami))));
    let Journal { directory, max_size, keep } = journal;
    tables.insert(
        "journal".to_owned(),
        Keys::from([("directory", text(directory)), ("max_size", text(max_size)), ("keep", text(keep))]),
    );
    let CdrStore { timezone, source, table, since, reconcile } = cdr;
    let Reconcile { every, since: reconcile_since, full_at, settle } = reconcile;
    tables.insert(
        "cdr".to_owned(),
        Keys::from([
            ("timezone", text(timezone)),
            ("source", secret(source.as_ref())),
            ("table", text(table)),
            ("since", text(since)),
            ("reconcile", text(every)),
            ("reconcile_since", text(reconcile_since)),
            ("full_at", text(full_at)),
            ("reconcile_after", text(settle)),
        ]),
    );
    tables.insert("numbers".to_owned(), of_numbers(numbers));
    let Recordings { directory, url } = recordings;
    tables.insert("recordings".to_owned(), Keys::from([("directory", text(directory)), ("url", text(url))]));
    // the hold is no key
    let Calls { report_unreached, internal_caller_leg, conference_legs, transfer_context, cdr_hold: _ } =
        calls;
    tables.insert(
        "calls".to_owned(),
        Keys::from([
            ("report_unreached", text(report_unreached)),
            ("internal_caller_leg", text(internal_caller_leg)),
            ("conference_legs", text(conference_legs)),
            ("transfer_context", text(transfer_context)),
        ]),
    );
    let Sms { customer_id, devices } = sms;
    tables.insert(
        "sms".to_owned(),
        Keys::from([("customer_id", text(customer_id)), ("devices", text(devices))]),
    );
    for queue in queues {
        let super::types::Queue { name, id } = queue;
        tables.insert(format!("queue.{name}"), Keys::from([("id", text(id))]));
    }
    tables.extend(nimbox.iter().map(|sink| (format!("nimbox.{}", sink.name), of_nimbox(sink))));
    tables.extend(webhooks.iter().map(|sink| (format!("webhook.{}", sink.name), of_webhook(sink))));
    let Api { socket, listen, token } = api;
    tables.insert(
        "api".to_owned(),
        Keys::from([("socket", text(socket)), ("listen", text(listen)), ("token", secret(token.as_ref()))]),
    );
    tables
}

fn of_pbx(pbx: &Pbx) -> Keys {
    let Pbx { name, timezone, trunks, inbound_contexts, extensions, users } = pbx;
    Keys::from([
        ("name", text(name)),
        ("timezone", text(timezone)),
        ("trunks", text(trunks)),
        ("inbound_contexts", text(inbound_contexts)),
        ("extensions", text(extensions.as_str())),
        ("users", text(users)),
    ])
}

fn of_ami(ami: &Ami) -> Keys {
    let Ami { address, username, secret: word, tls, ca_file, server_name } = ami;
    Keys::from([
        ("address", text(address)),
        ("username", text(username)),
        ("secret", secret(Some(word))),
        ("tls", text(tls)),
        ("ca_file", file(ca_file.as_deref())),
        ("server_name", text(server_name)),
    ])
}

fn of_numbers(numbers: &Numbers) -> Keys {
    let Numbers { min_length, rules } = numbers;
    let mut written = String::new();
    for super::types::NumberRule { pattern, replace } in rules {
        let _ = write!(written, "{:?} {replace:?} ", pattern.as_str());
    }
    Keys::from([("min_length", text(min_length)), ("rules", written)])
}

fn of_delivery(delivery: &Delivery) -> Keys {
    let Delivery {
        enabled,
        url,
        concurrency,
        timeout,
        retry_for,
        rate,
        ca_file,
        pin,
        public_only,
        allow_http,
        headers,
    } = delivery;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name, secret(Some(value)))).collect();
    Keys::from([
        ("enabled", text(enabled)),
        ("url", text(url.as_str())),
        ("concurrency", text(concurrency)),
        ("timeout", text(timeout)),
        ("retry_for", text(retry_for)),
        ("rate", text(rate)),
        ("ca_file", file(ca_file.as_deref())),
        ("pin", text(pin)),
        ("public_only", text(public_only)),
        ("allow_http", text(allow_http)),
        ("headers", text(headers)),
    ])
}

fn of_nimbox(sink: &Nimbox) -> Keys {
    let Nimbox {
        name: _,
        delivery,
        token,
        username,
        password,
        initiated,
        mode,
        inbound_destination,
        withheld_source,
        numbers,
    } = sink;
    let mut facts = of_delivery(delivery);
    facts.extend([
        ("token", secret(Some(token))),
        ("username", text(username)),
        ("password", secret(password.as_ref())),
        ("initiated", text(initiated)),
        ("mode", text(mode)),
        ("inbound_destination", text(inbound_destination)),
        ("withheld_source", text(withheld_source)),
        ("numbers", text(numbers.as_ref().map(of_numbers))),
    ]);
    facts
}

fn of_webhook(sink: &Webhook) -> Keys {
    let Webhook {
        name: _,
        delivery,
        events,
        secret: key,
        secret_previous,
        dtmf_mask,
        verify,
        client_cert_file,
        client_key_file,
    } = sink;
    let mut facts = of_delivery(delivery);
    facts.extend([
        ("events", text(events)),
        ("secret", secret(key.as_ref())),
        ("secret_previous", secret(secret_previous.as_ref())),
        ("dtmf_mask", text(dtmf_mask)),
        ("verify", text(verify)),
        ("client_cert_file", file(client_cert_file.as_deref())),
        ("client_key_file", file(client_key_file.as_deref())),
    ]);
    facts
}

fn text(value: impl Debug) -> String {
    format!("{value:?}")
}

/// Its digest: this text is held in memory only, yet a secret is not copied without need.
fn secret(value: Option<&SecretString>) -> String {
    value.map_or_else(String::new, |value| hex(&Sha256::digest(value.expose_secret().as_bytes())))
}

/// A renewed certificate has the old name: what the file holds counts as well.
fn file(path: Option<&std::path::Path>) -> String {
    let Some(path) = path else { return String::new() };
    let about = std::fs::metadata(path).ok();
    let changed = about.and_then(|about| Some((about.len(), about.modified().ok()?)));
    format!("{path:?} {changed:?}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::super::load::{Environment, load_text};
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\n{text}");
        load_text(&text, "test", &Environment::default()).unwrap().config
    }

    const HOOK: &str =
        "[[webhook]]\nname = \"desk\"\nurl = \"https://a.example/SEGRETO\"\nevents = [\"call.state\"]\n";

    #[test]
    fn what_is_the_same_does_not_differ() {
        assert_eq!(Facts::of(&config(HOOK)).difference(&Facts::of(&config(HOOK))), []);
    }

    #[test]
    fn each_difference_is_named_by_its_key_and_never_by_its_value() {
        let nimbox = "[[nimbox]]\nname = \"crm\"\nurl = \"https://b.example\"\ntoken = \"TESORO\"\n";
        let rows: &[(&str, &str, &[&str])] = &[
            ("", HOOK, &["webhook.desk added"]),
            (HOOK, "", &["webhook.desk removed"]),
            (HOOK, &HOOK.replace("SEGRETO", "OTRO"), &["webhook.desk.url changed"]),
            (HOOK, &format!("{HOOK}rate = 3\n"), &["webhook.desk.rate changed"]),
            (HOOK, &format!("{HOOK}enabled = false\n"), &["webhook.desk.enabled changed"]),
            (nimbox, &nimbox.replace("TESORO", "PLATA"), &["nimbox.crm.token changed"]),
            (nimbox, HOOK, &["nimbox.crm removed", "webhook.desk added"]),
            ("[numbers]\nmin_length = 7\n", "[numbers]\nmin_length = 6\n", &["numbers.min_length changed"]),
            (
                "[ami]\nsecret = \"TESORO\"\n",
                "[ami]\nsecret = \"PLATA\"\naddress = \"127.0.0.1:1\"\n",
                &["ami.address changed", "ami.secret changed"],
            ),
        ];
        for (old, new, expected) in rows {
            let changes: Vec<_> = Facts::of(&config(old))
                .difference(&Facts::of(&config(new)))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(changes, *expected, "{old} -> {new}");
        }
    }

    #[test]
    fn a_key_is_of_its_table_and_of_no_other() {
        let change = Change { key: "webhook.desk.url".to_owned(), what: Became::Changed };
        assert!(change.is_of("webhook.desk") && change.is_of("webhook") && change.is_of("webhook.desk.url"));
        assert!(!change.is_of("webhook.de") && !change.is_of("nimbox"));
    }

    #[test]
    fn a_renewed_certificate_is_a_difference() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "one").unwrap();
        let before = file(Some(&path));
        assert_eq!(before, file(Some(&path)));
        std::fs::write(&path, "another").unwrap();
        assert_ne!(before, file(Some(&path)));
    }
}
