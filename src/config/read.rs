//! Reads keys out of the merged tree, each by its type; what was not asked for is unknown.
//!
//! Every reader answers `None` both where the key is absent and where it is faulty: the fault is
//! noted, reading goes on, and so all faults are found in one pass.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Fault;
use super::merge::{Node, Place, Tree, Value};
use super::secret::Stores;
use super::units;

static EMPTY: Tree = Tree::new();

/// What one reading gathers.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub faults: RefCell<Vec<Fault>>,
    /// Worth saying, yet no reason not to start.
    pub warnings: RefCell<Vec<Fault>>,
    /// Every key that was asked for, `webhook.url`.
    pub known: RefCell<BTreeSet<String>>,
    /// Where named secrets may be.
    pub stores: Stores,
}

/// One table being read.
pub(super) struct Section<'a> {
    pub reader: &'a Reader,
    /// As in the documentation: `webhook`.
    schema: String,
    /// As in a fault: `webhook.helpdesk`.
    path: String,
    tree: &'a Tree,
    place: Place,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    pub fn root(reader: &'a Reader, tree: &'a Tree, place: Place) -> Self {
        Self { reader, schema: String::new(), path: String::new(), tree, place, asked: RefCell::default() }
    }

    /// The table of that name; `None` if it is absent. Its keys count as known either way, once
    /// they are asked for: see [`Section::table_or_empty`].
    pub fn table(&self, key: &str) -> Option<Section<'a>> {
        let node = self.node(key)?;
        let Some(tree) = node.value.table() else {
            self.wrong(key, "a table", &node.value);
            return None;
        };
        Some(self.inner(key, key, tree, node.place.clone()))
    }

    /// The table of that name, or one without keys.
    pub fn table_or_empty(&self, key: &str) -> Section<'a> {
        self.table(key).unwrap_or_else(|| self.inner(key, key, &EMPTY, self.place.clone()))
    }

    /// The tables of an array, each named in faults by its `name_key`, else by its number.
    pub fn tables(&self, key: &str, name_key: &str) -> Vec<Section<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Some(list) = node.value.list() else {
            self.wrong(key, &format!("an array of tables, each written [[{key}]]"), &node.value);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (n, item) in list.iter().enumerate() {
            let numbered = format!("{key}[{}]", n + 1);
            let Some(tree) = item.value.table() else {
                let problem = format!("expected a table, found {}", item.value.kind());
                let fault = item.place.fault(&self.path_of(&numbered), problem, "write { key = value, ... }");
                self.reader.faults.borrow_mut().push(fault);
                continue;
            };
            let named =
                tree.get(name_key).and_then(|node| node.value.text()).map(|name| format!("{key}.{name}"));
            // the element's own span starts at its header only in inline tables
            let place = tree.values().map(|node| &node.place).min_by_key(|place| place.line);
            let place = place.unwrap_or(&item.place).clone();
            sections.push(self.inner(key, &named.unwrap_or(numbered), tree, place));
        }
        sections
    }

    /// One element of a list, named by the list.
    pub fn inside(&self, key: &str, tree: &'a Tree, place: Place) -> Section<'a> {
        self.inner(key, key, tree, place)
    }

    fn inner(&self, key: &str, shown: &str, tree: &'a Tree, place: Place) -> Section<'a> {
        Section {
            reader: self.reader,
            schema: join(&self.schema, key),
            path: join(&self.path, shown),
            tree,
            place,
            asked: RefCell::default(),
        }
    }

    /// The raw value; marks the key as known.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key.to_owned());
        self.reader.known.borrow_mut().insert(join(&self.schema, key));
        self.tree.get(key)
    }

    /// Keys of a table that are names, not ours: headers, devices.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.tree.iter()
    }

    pub fn has(&self, key: &str) -> bool {
        self.tree.contains_key(key)
    }

    pub fn text(&self, key: &str) -> Option<String> {
        self.read(key, "a text in quotes", |value| value.text().map(str::to_owned))
    }

    /// A text that is not empty.
    pub fn word(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.fault(key, "is empty", "give it a value or remove the line");
            return None;
        }
        Some(text)
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Value::flag)
    }

    /// A whole number within bounds.
    pub fn count(&self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let number = self.read(key, "a whole number", Value::integer)?;
        let within = u64::try_from(number).ok().filter(|number| bounds.contains(number));
        if within.is_none() {
            let problem = format!("{number} is out of bounds");
            self.fault(key, problem, format!("give a number from {} to {}", bounds.start(), bounds.end()));
        }
        within
    }

    /// A number above zero.
    pub fn rate(&self, key: &str) -> Option<f64> {
        let number = self.read(key, "a number", Value::float)?;
        if !(number.is_finite() && (0.001..=100_000.0).contains(&number)) {
            self.fault(key, format!("{number} is out of bounds"), "give a number from 0.001 to 100000");
            return None;
        }
        Some(number)
    }

    pub fn duration(&self, key: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.unit_text(key, "a duration with its unit, as \"30 s\", \"75 h\", \"30 days\"")?;
        let Some(duration) = units::duration(&text) else {
            let problem = format!("{text:?} is not a duration");
            self.fault(
                key,
                problem,
                "write a number and a unit: ms, s, min, h, days, weeks; for example \"30 s\"",
            );
            return None;
        };
        if !bounds.contains(&duration) {
            let (least, most) = (units::duration_text(*bounds.start()), units::duration_text(*bounds.end()));
            self.fault(
                key,
                format!("{text:?} is out of bounds"),
                format!("give something from {least} to {most}"),
            );
            return None;
        }
        Some(duration)
    }

    pub fn size(&self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let text = self.unit_text(key, "a size with its unit, as \"1 GiB\"")?;
        let Some(size) = units::size(&text) else {
            let problem = format!("{text:?} is not a size");
            self.fault(
                key,
                problem,
                "write a number and a unit: KiB, MiB, GiB, kB, MB, GB; for example \"1 GiB\"",
            );
            return None;
        };
        if !bounds.contains(&size) {
            let (least, most) = (units::size_text(*bounds.start()), units::size_text(*bounds.end()));
            self.fault(
                key,
                format!("{text:?} is out of bounds"),
                format!("give something from {least} to {most}"),
            );
            return None;
        }
        Some(size)
    }

    /// A bare number there most likely lacks its unit.
    fn unit_text(&self, key: &str, expected: &str) -> Option<String> {
        self.read(key, expected, |value| value.text().map(str::to_owned))
    }

    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let list =
            self.read(key, "a list of texts, as [\"a\", \"b\"]", |value| value.list().map(<[Node]>::to_vec))?;
        let mut texts = Vec::new();
        for item in list {
            let Some(text) = item.value.text() else {
                let problem = format!("expected texts in the list, found {}", item.value.kind());
                let fault = item.place.fault(&self.path_of(key), problem, "put each item in quotes");
                self.reader.faults.borrow_mut().push(fault);
                return None;
            };
            texts.push(text.to_owned());
        }
        Some(texts)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let remedy = match suggestion(&text, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}? It can be {}", names.join(", ")),
            None => format!("it can be {}", names.join(", ")),
        };
        self.fault(key, format!("{text:?} is not known here"), remedy);
        None
    }

    /// A path; a relative one starts at the directory of the file it is written in.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.word(key)?);
        let directory = self.place_of(key).origin.directory.clone().unwrap_or_default();
        Some(directory.join(path))
    }

    /// A file that must be there and readable.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if let Err(error) = std::fs::File::open(&path) {
            self.fault(
                key,
                format!("cannot read {}: {error}", path.display()),
                "correct the path or its permissions",
            );
            return None;
        }
        Some(path)
    }

    fn read<T>(&self, key: &str, expected: &str, take: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = &self.node(key)?.value;
        let taken = take(value);
        if taken.is_none() {
            self.wrong(key, expected, value);
        }
        taken
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) {
        self.fault(key, format!("expected {expected}, found {}", found.kind()), "correct the value");
    }

    /// Notes what is wrong with a key, at its line, or at the table's where it is absent.
    pub fn fault(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let fault = self.place_of(key).fault(&self.path_of(key), problem, remedy);
        self.reader.faults.borrow_mut().push(fault);
    }

    /// As [`Section::fault`], yet no reason not to start.
    pub fn warn(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let fault = self.place_of(key).fault(&self.path_of(key), problem, remedy);
        self.reader.warnings.borrow_mut().push(fault);
    }

    /// A required key that is absent; a faulty one was reported already.
    pub fn missing(&self, key: &str, remedy: impl Into<String>) {
        if !self.has(key) && !self.has(&format!("{key}_file")) {
            self.fault(key, "is missing", remedy);
        }
    }

    pub fn place_of(&self, key: &str) -> Place {
        self.tree.get(key).map_or(&self.place, |node| &node.place).clone()
    }

    pub fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.tree.keys().filter(|key| !asked.contains(key)) {
            let remedy = match suggestion(key, asked.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if self.path.is_empty() => format!("remove it; tables here are {}", asked.join(", ")),
                None => format!("remove it; keys here are {}", asked.join(", ")),
            };
            self.fault(key, "unknown key", remedy);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

/// The nearest of the known words, if one is near enough to be a slip of the fingers.
pub(super) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |near: &str| strsim::damerau_levenshtein(&word.to_lowercase().replace('-', "_"), near);
    known
        .map(|near| (distance(near), near))
        .filter(|(distance, near)| *distance <= 1 + near.len().min(word.len()) / 4)
        .min_by_key(|(distance, near)| (*distance, std::cmp::Reverse(near.len())))
        .map(|(_, near)| near)
}
