//! From files and variables to a checked configuration.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check;
use super::fault::{Fault, Faults};
use super::merge::{self, Node, Origin, Place, Tree, Value};
use super::read::{Reader, suggestion};
use super::secret::Stores;
use super::types::Config;

/// Read where no other file is named.
pub const DEFAULT_FILE: &str = "/etc/callpost/callpost.toml";

/// Where systemd keeps what the service has in its `$CREDENTIALS_DIRECTORY`, for root's commands.
const SERVICE_CREDENTIALS: &str = "/run/credentials/callpost.service";

/// A configuration of ten thousand users is below this.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Tables that stand once, so that a variable can name their keys.
const TABLES: [&str; 9] = ["pbx", "ami", "journal", "cdr", "numbers", "recordings", "calls", "sms", "api"];
/// Tables that stand once for each name.
const NAMED_TABLES: [&str; 2] = ["nimbox", "webhook"];
/// Variables of the program that are no keys.
const NOT_KEYS: [&str; 2] = ["CALLPOST_LOG", "CALLPOST_CONFIG"];

/// The environment that a configuration is read in.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Variables by name.
    pub variables: BTreeMap<String, String>,
    /// Where named secrets are, in place of `/etc/callpost/secrets`.
    pub secrets: Option<PathBuf>,
}

impl Environment {
    /// This process's; variables that are not UTF-8 are none of ours.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect(), secrets: None }
    }

    pub(super) fn directory(&self, name: &str) -> Option<PathBuf> {
        // systemd gives several directories with colons between them
        let first = self.variables.get(name)?.split(':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(first))
    }
}

/// A configuration without faults.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Worth saying, yet no reason not to start.
    pub warnings: Vec<Fault>,
    /// The files it was read from, in order.
    pub files: Vec<PathBuf>,
    /// Every key that is known, `webhook.url`; of arrays within tables only where one was given.
    pub known: Vec<String>,
}

/// Reads the file, `conf.d/*.toml` beside it in name order, and the variables.
///
/// # Errors
/// All faults at once.
pub fn load(file: &Path, environment: &Environment) -> Result<Loaded, Faults> {
    let mut layers = Layers::default();
    layers.add(file);
    for path in drop_ins(file, &mut layers.faults) {
        layers.add(&path);
    }
    layers.check(environment)
}

/// Reads one text as if it stood in a file of that name which only its owner can read.
///
/// # Errors
/// All faults at once.
pub fn load_text(text: &str, name: &str, environment: &Environment) -> Result<Loaded, Faults> {
    let mut layers = Layers::default();
    let directory = Path::new(name).parent().map(Path::to_path_buf);
    layers.add_text(text, Origin { name: name.to_owned(), directory, world_readable: false });
    layers.check(environment)
}

fn drop_ins(file: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            faults.push(unreadable(&directory, &error));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let remedy = if error.kind() == std::io::ErrorKind::NotFound {
        "name another file with --config, or make this one; `callpost demo` needs none"
    } else if error.kind() == std::io::ErrorKind::PermissionDenied {
        "run this as root or as a member of the file's group"
    } else {
        "make it readable"
    };
    let place = Place { origin: Arc::new(origin(path, false)), line: None };
    place.fault("", format!("cannot be read: {error}"), remedy)
}

fn origin(path: &Path, world_readable: bool) -> Origin {
    Origin {
        name: path.display().to_string(),
        directory: Some(path.parent().unwrap_or(Path::new("")).to_path_buf()),
        world_readable,
    }
}

/// The files so far, laid over each other.
#[derive(Default)]
struct Layers {
    tree: Tree,
    files: Vec<PathBuf>,
    faults: Vec<Fault>,
    first: Place,
}

impl Layers {
    fn add(&mut self, path: &Path) {
        match read(path) {
            Ok((text, mode)) => {
                self.files.push(path.to_path_buf());
                self.add_text(&text, origin(path, mode & 0o004 != 0));
            }
            Err(error) => self.faults.push(unreadable(path, &error)),
        }
    }

    fn add_text(&mut self, text: &str, origin: Origin) {
        let origin = Arc::new(origin);
        if self.first.origin.name.is_empty() {
            self.first.origin = Arc::clone(&origin);
        }
        let (tree, faults) = merge::parse(text, &origin);
        self.faults.extend(faults);
        merge::merge(&mut self.tree, tree);
    }

    fn check(mut self, environment: &Environment) -> Result<Loaded, Faults> {
        let credentials = environment
            .directory("CREDENTIALS_DIRECTORY")
            .or_else(|| Some(PathBuf::from(SERVICE_CREDENTIALS)).filter(|path| path.is_dir()));
        let secrets = environment.secrets.clone().unwrap_or(Stores::default().secrets);
        let reader = Reader { stores: Stores { credentials, secrets }, ..Reader::default() };
        *reader.warnings.borrow_mut() = apply_variables(&mut self.tree, environment);
        let config = check::config(&reader, &self.tree, &self.first, environment);
        let mut faults = reader.faults.into_inner();
        if !self.faults.is_empty() {
            // what could not be read must not be reported as missing
            let broken = |fault: &Fault| {
                fault.problem == "is missing"
                    || self.faults.iter().any(|f| f.line == fault.line && f.file == fault.file)
            };
            faults.retain(|fault| !broken(fault));
        }
        faults.splice(0..0, self.faults);
        if faults.is_empty()
            && let Some(config) = config
        {
            let known = reader.known.into_inner().into_iter().collect();
            return Ok(Loaded { config, warnings: reader.warnings.into_inner(), files: self.files, known });
        }
        let order = |fault: &Fault| {
            let file = self.files.iter().position(|path| path.display().to_string() == fault.file);
            (file.unwrap_or(usize::MAX), fault.line)
        };
        faults.sort_by_key(order);
        faults.dedup();
        Err(Faults(faults))
    }
}

fn read(path: &Path) -> std::io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("longer than {MAX_FILE} bytes")));
    }
    Ok((text, mode))
}

/// `CALLPOST_AMI_ADDRESS` is `ami.address`; `CALLPOST_WEBHOOK_HELPDESK_URL` is the `url` of the
/// webhook `helpdesk`. A variable takes the place of both `X` and `X_file`.
fn apply_variables(tree: &mut Tree, environment: &Environment) -> Vec<Fault> {
    let mut warnings = Vec::new();
    for (name, text) in &environment.variables {
        let Some(rest) = name.strip_prefix("CALLPOST_").filter(|_| !NOT_KEYS.contains(&name.as_str())) else {
            continue;
        };
        let origin = Origin { name: name.clone(), directory: None, world_readable: false };
        let place = Place { origin: Arc::new(origin), line: None };
        match target(tree, &rest.to_lowercase(), &place) {
            Some((table, key)) => {
                let base = key.strip_suffix("_file").unwrap_or(&key).to_owned();
                table.remove(&format!("{base}_file"));
                table.remove(&base);
                table.insert(key, Node { value: Value::Variable(text.clone()), place });
            }
            None => {
                let word = rest.split('_').next().unwrap_or_default().to_lowercase();
                let remedy = match suggestion(&word, TABLES.into_iter().chain(NAMED_TABLES)) {
                    Some(near) => format!("did you mean CALLPOST_{}_...?", near.to_uppercase()),
                    None => "name a table and a key, as in CALLPOST_AMI_ADDRESS".to_owned(),
                };
                warnings.push(place.fault("", "names no key of the configuration; it is left aside", remedy));
            }
        }
    }
    warnings
}

/// The table that a variable means, and the key in it.
fn target<'a>(tree: &'a mut Tree, rest: &str, place: &Place) -> Option<(&'a mut Tree, String)> {
    if let Some((table, key)) = TABLES.iter().find_map(|table| Some((*table, keyed(rest, table)?))) {
        let empty = || Node { value: Value::Table(Tree::new()), place: place.clone() };
        let node = tree.entry(table.to_owned()).or_insert_with(empty);
        let Value::Table(tree) = &mut node.value else { return None };
        return Some((tree, key.to_owned()));
    }
    let (table, rest) = NAMED_TABLES.iter().find_map(|table| Some((*table, keyed(rest, table)?)))?;
    let Value::List(list) = &mut tree.get_mut(table)?.value else { return None };
    list.iter_mut().find_map(|node| {
        let Value::Table(tree) = &mut node.value else { return None };
        let name =
            tree.get("name")?.value.text()?.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let key = keyed(rest, &name)?.to_owned();
        Some((tree, key))
    })
}

fn keyed<'a>(rest: &'a str, table: &str) -> Option<&'a str> {
    rest.strip_prefix(table)?.strip_prefix('_').filter(|key| !key.is_empty())
}
