//! A file of Asterisk's configuration with all that it includes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::scan::{Line, scan};
use crate::cli::exit::CliError;

/// A configuration of ten thousand extensions is below this.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// As Asterisk's own MAX_INCLUDE_LEVEL.
const MAX_DEPTH: usize = 10;
/// A PBX with a file for each of its tenants has hundreds.
const MAX_FILES: usize = 5_000;

/// One `key = value`.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub key: String,
    pub value: String,
}

/// One `[name]`, as often as it stands.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub name: String,
    /// Of its header: templates, `!`, `+`.
    options: Vec<String>,
    pub values: Vec<Value>,
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

/// One `#include`, as it is written, and where it leads.
#[derive(Clone, Debug)]
pub(super) struct Include {
    pub target: String,
    pub path: PathBuf,
    /// The section that it stands in.
    pub section: String,
}

/// The file and all that it includes, in the order in which Asterisk reads them.
#[derive(Debug, Default)]
pub(super) struct Conf {
    pub sections: Vec<Section>,
    pub includes: Vec<Include>,
    /// Included, not there, and Asterisk refuses the whole for it.
    pub missing: Vec<PathBuf>,
    files: usize,
}

/// Where reading is.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: &'a Path,
    etc: &'a Path,
    depth: usize,
    section: Option<usize>,
}

impl Conf {
    /// `None` where there is no such file.
    ///
    /// # Errors
    /// What cannot be read, and what Asterisk would refuse: file, line, what to do.
    pub fn read(root: &Path, etc: &Path, name: &str) -> Result<Option<Self>, CliError> {
        let path = etc.join(name);
        let mut conf = Self::default();
        let Some(text) = text_of(&path)? else { return Ok(None) };
        conf.add(Place { root, etc, depth: 0, section: None }, &path, &text)?;
        Ok(Some(conf))
    }

    fn add(&mut self, mut place: Place<'_>, path: &Path, text: &str) -> Result<(), CliError> {
        self.files += 1;
        if place.depth > MAX_DEPTH || self.files > MAX_FILES {
            let what = format!("{} is included too deeply, or in a circle", path.display());
            return Err(CliError::failed(what, "Asterisk does not read that either: put its #include right"));
        }
        for (n, line) in scan(text).into_iter().enumerate() {
            let number = n + 1;
            match line {
                Line::Header { name, options } => {
                    place.section = Some(self.sections.len());
                    self.sections.push(Section {
                        name,
                        options,
                        values: Vec::new(),
                        file: path.to_path_buf(),
                        line: number,
                    });
                }
                Line::Value { key, value } => {
                    match place.section.and_then(|section| self.sections.get_mut(section)) {
                        Some(section) => section.values.push(Value { key, value }),
                        None => {
                            return Err(broken(path, number, "a value stands before the first [section]"));
                        }
                    }
                }
                Line::Include { target, optional } => self.include(place, target, optional)?,
                Line::Broken(why) => return Err(broken(path, number, why)),
                Line::Nothing => {}
            }
        }
        Ok(())
    }

    /// What is included begins in the section that its #include stands in, which goes on after it.
    fn include(&mut self, place: Place<'_>, target: String, optional: bool) -> Result<(), CliError> {
        let path = match target.strip_prefix('/') {
            Some(inside) => place.root.join(inside),
            None => place.etc.join(&target),
        };
        let section = place.section.and_then(|n| self.sections.get(n)).map(|section| section.name.clone());
        let glob = target.contains(['*', '?', '[']);
        let files = if glob { matching(&path) } else { vec![path.clone()] };
        if files.is_empty() && !optional {
            self.missing.push(path.clone());
        }
        self.includes.push(Include { target, path, section: section.unwrap_or_default() });
        for file in files {
            match text_of(&file)? {
                Some(text) => self.add(Place { depth: place.depth + 1, ..place }, &file, &text)?,
                None if glob || optional => {}
                None => self.missing.push(file),
            }
        }
        Ok(())
    }

    /// The last value of a key in the sections of that name: the one that counts.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        let of_name = self.sections.iter().filter(|s| s.name.eq_ignore_ascii_case(section));
        of_name
            .flat_map(|s| &s.values)
            .filter(|v| v.key.eq_ignore_ascii_case(key))
            .map(|v| v.value.as_str())
            .next_back()
    }

    /// `enabled = yes` in all its forms (ast_true of Asterisk).
    pub fn is_true(&self, section: &str, key: &str) -> Option<bool> {
        self.last(section, key).map(is_true)
    }

    /// The sections that are no templates.
    pub fn real(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| !section.options.iter().any(|option| option == "!"))
    }

    /// The last value of a key in a section, or else in its templates: the one that counts there.
    pub fn told<'a>(&'a self, section: &'a Section, key: &str) -> Option<&'a str> {
        let templates = section.options.iter().filter(|option| !matches!(option.as_str(), "!" | "+"));
        let inherited = templates.filter_map(|name| self.sections.iter().find(|s| s.name == **name));
        // a template of a template: one step is what dialplans of people have
        let values = inherited.flat_map(|s| &s.values).chain(&section.values);
        values.filter(|v| v.key.eq_ignore_ascii_case(key)).map(|v| v.value.as_str()).next_back()
    }
}

pub(super) fn is_true(text: &str) -> bool {
    ["yes", "true", "y", "t", "1", "on"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn broken(path: &Path, line: usize, why: &str) -> CliError {
    let what = format!("{}:{line}: {why}", path.display());
    CliError::failed(
        what,
        "Asterisk does not read this file as it is: put the line right, then run this again",
    )
}

/// Old files are in Latin-1 as often as in UTF-8. `None`: there is none.
pub(super) fn text_of(path: &Path) -> Result<Option<String>, CliError> {
    let Some(bytes) = bytes_of(path)? else { return Ok(None) };
    Ok(Some(decoded(bytes)))
}

pub(super) fn decoded(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| error.as_bytes().iter().map(|b| char::from(*b)).collect())
}

/// The other way round, in the encoding that the file had.
pub(super) fn encoded(text: String, before: Option<&[u8]>) -> Vec<u8> {
    if before.is_some_and(|bytes| std::str::from_utf8(bytes).is_err()) {
        // each character came from one byte, or is ASCII of ours
        return text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    }
    text.into_bytes()
}

/// A file's bytes, if there is one. A directory in its place is an error like any other.
pub(super) fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    let failed = |why: io::Error| {
        let remedy = if why.kind() == io::ErrorKind::PermissionDenied {
            "run this as root: sudo callpost setup"
        } else {
            "look at this file, then run this again"
        };
        CliError::failed(format!("failed to read {}: {why}", path.display()), remedy)
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(why) => return Err(failed(why)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::other(format!("it is longer than {} MiB", MAX_FILE >> 20))));
    }
    Ok(Some(bytes))
}

/// Files whose names match the last part of a pattern, in name order.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let name = name.to_string_lossy();
    let mut files: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| wild(name.as_bytes(), entry.file_name().to_string_lossy().as_bytes()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// glob(7) without classes; a leading dot is not matched by `*`.
fn wild(pattern: &[u8], name: &[u8]) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', after)), None) => rest(after, name),
            (Some((b'*', after)), Some((_, tail))) => rest(after, name) || rest(pattern, tail),
            (Some((b'?', after)), Some((_, tail))) => rest(after, tail),
            (Some((p, after)), Some((n, tail))) => p == n && rest(after, tail),
            _ => false,
        }
    }
    !(name.first() == Some(&b'.') && pattern.first() != Some(&b'.')) && rest(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_shell_has_them() {
        assert!(wild(b"*.conf", b"callpost.conf") && wild(b"manager__*.conf", b"manager__60-x.conf"));
        assert!(wild(b"a?c", b"abc") && !wild(b"*.conf", b"callpost.conf.bak"));
        assert!(!wild(b"*.conf", b".hidden.conf") && !wild(b"a*b", b"ba"));
    }
}
