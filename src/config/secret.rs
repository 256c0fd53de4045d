//! Secrets: inline or in a file of their own, never where others can read them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::merge::Node;
use super::read::Section;

/// A token or password is short; more than this is the wrong file.
const MAX_SECRET: u64 = 16 * 1024;

/// The directories in which `X_file = "NAME"` is looked up, before it is taken as a path.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    /// systemd's `$CREDENTIALS_DIRECTORY`, which only the service has, or where it points for it; there
    /// also as `s_NAME`, from `LoadCredential=s:DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// `/etc/callpost/secrets`.
    pub secrets: PathBuf,
}

impl Default for Stores {
    fn default() -> Self {
        Self { credentials: None, secrets: PathBuf::from("/etc/callpost/secrets") }
    }
}

impl Stores {
    /// Every place where that name may be, the first that exists counts.
    fn candidates(&self, name: &str, directory: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if !name.contains('/') {
            if let Some(credentials) = &self.credentials {
                paths.push(credentials.join(name));
                paths.push(credentials.join(format!("s_{name}")));
            }
            paths.push(self.secrets.join(name));
        }
        paths.push(directory.join(name));
        paths
    }
}

impl Section<'_> {
    /// The secret at `key`, or in the file named by `key_file`.
    pub fn secret(&self, key: &str) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let (inline, file) = (self.node(key), self.node(&file_key));
        if let (Some(inline), Some(_)) = (inline, file) {
            let problem = format!("is given twice: `{key}` is also at {}", inline.place.mention());
            self.fault(&file_key, problem, format!("keep either `{key}` or `{file_key}`"));
            return None;
        }
        match (inline, file) {
            (Some(node), _) => self.inline_secret(key, node),
            (_, Some(node)) => self.secret_in_file(&file_key, node),
            (None, None) => None,
        }
    }

    /// A secret written into the configuration: the file must not be open to all.
    pub fn inline_secret(&self, key: &str, node: &Node) -> Option<SecretString> {
        let Some(text) = node.value.text() else {
            let problem = format!("expected a text in quotes, found {}", node.value.kind());
            self.fault(key, problem, "correct the value");
            return None;
        };
        if text.is_empty() {
            self.fault(key, "is empty", "give it a value or remove the line");
            return None;
        }
        if node.place.origin.world_readable {
            let file = &node.place.origin.name;
            let problem = "is a secret in a file that every user of this host can read";
            self.fault(key, problem, format!("chmod 0640 {file}, or move the secret out with `{key}_file`"));
            return None;
        }
        Some(SecretString::from(text.to_owned()))
    }

    /// A secret in a file of its own.
    pub fn secret_in_file(&self, key: &str, node: &Node) -> Option<SecretString> {
        let Some(name) = node.value.text() else {
            let problem = format!("expected the name of a file, found {}", node.value.kind());
            self.fault(key, problem, "correct the value");
            return None;
        };
        let directory = node.place.origin.directory.clone().unwrap_or_default();
        let candidates = self.reader.stores.candidates(name, &directory);
        let Some(path) = candidates.iter().find(|path| path.exists()) else {
            let list =
                candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            self.fault(
                key,
                format!("no file {name:?} for the secret"),
                format!("make one of {list} (mode 0640)"),
            );
            return None;
        };
        match read(path) {
            Ok(secret) => Some(secret),
            Err((problem, remedy)) => {
                self.fault(key, problem, remedy);
                None
            }
        }
    }
}

/// The file's content without its trailing newline.
fn read(path: &Path) -> Result<SecretString, (String, String)> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        let remedy = "let the user callpost read it: chgrp callpost, chmod 0640".to_owned();
        (format!("cannot read {shown}: {error}"), remedy)
    };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err((format!("{shown} is not a file"), "name a file that holds the secret alone".to_owned()));
    }
    if about.permissions().mode() & 0o004 != 0 {
        let problem = format!("every user of this host can read {shown}");
        return Err((problem, format!("chmod 0640 {shown}")));
    }
    let mut text = String::new();
    file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_SECRET {
        let problem = format!("{shown} is longer than a secret can be ({MAX_SECRET} bytes)");
        return Err((problem, "name a file that holds the secret alone".to_owned()));
    }
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err((format!("{shown} is empty"), "write the secret into it".to_owned()));
    }
    if secret.contains(['\n', '\r', '\0']) {
        let problem = format!("{shown} holds more than one line");
        return Err((problem, "name a file that holds the secret alone".to_owned()));
    }
    Ok(SecretString::from(secret.to_owned()))
}
