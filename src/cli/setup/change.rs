//! Files as they are to be: planned as values, written through what is there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use super::conf::{bytes_of, decoded, encoded};
use crate::cli::exit::CliError;

/// open(2): a symbolic link is refused. Asterisk's user often owns /etc/asterisk, and must not be able
/// to point root at another file.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Whose a new file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub user: u32,
    pub group: u32,
    pub mode: u32,
}

impl Owner {
    /// As another file is, never readable by all.
    pub fn like(path: &Path) -> Result<Self, CliError> {
        let about = path.metadata().map_err(|why| {
            CliError::failed(format!("failed to look at {}: {why}", path.display()), "run this as root")
        })?;
        Ok(Self { user: about.uid(), group: about.gid(), mode: 0o640 })
    }
}

/// One file. No Debug: some are secrets.
pub(super) struct Change {
    pub path: PathBuf,
    /// What it holds; `None`: it is new.
    pub before: Option<Vec<u8>>,
    pub after: Vec<u8>,
    /// Of a new file.
    pub owner: Owner,
    /// Its text is never shown.
    pub secret: bool,
}

impl Change {
    /// A file of Asterisk's with its text changed; one that is not there begins empty.
    pub fn edited(path: PathBuf, owner: Owner, edit: impl FnOnce(&str) -> String) -> Result<Self, CliError> {
        let before = bytes_of(&path)?;
        let mut change =
            Self { path, after: before.clone().unwrap_or_default(), before, owner, secret: false };
        change.edit(edit);
        Ok(change)
    }

    /// Changes its text further.
    pub fn edit(&mut self, edit: impl FnOnce(&str) -> String) {
        let text = edit(&decoded(std::mem::take(&mut self.after)));
        self.after = encoded(text, self.before.as_deref());
    }

    pub fn is_needed(&self) -> bool {
        self.before.as_deref() != Some(&self.after)
    }

    /// Gives back the path of the backup, if there was something to keep.
    pub fn write(&self, stamp: &str, directory: Owner) -> Result<Option<PathBuf>, CliError> {
        let failed = |why: io::Error| {
            let what = format!("failed to write {}: {why}", self.path.display());
            let remedy = if why.kind() == io::ErrorKind::PermissionDenied {
                "run this as root: sudo callpost setup"
            } else if why.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                "it is a symbolic link: make it a file, or write by hand what is shown"
            } else {
                "put this right and run this again: what is written already stays as it is"
            };
            CliError::failed(what, remedy)
        };
        match &self.before {
            None => self.create(directory).map(|()| None).map_err(failed),
            Some(before) => self.overwrite(before, stamp).map(Some).map_err(failed),
        }
    }

    fn create(&self, directory: Owner) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            make_directory(parent, directory)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(&self.after)?;
        own(&file, self.owner)?;
        file.sync_all()
    }

    /// Through the inode: owner, mode and links stay.
    fn overwrite(&self, before: &[u8], stamp: &str) -> io::Result<PathBuf> {
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(NO_FOLLOW).open(&self.path)?;
        let mut now = Vec::new();
        (&file).take(before.len() as u64 + 1).read_to_end(&mut now)?;
        if now != before {
            return Err(io::Error::other("it was changed since it was looked at"));
        }
        let about = file.metadata()?;
        let backup = backup_path(&self.path, stamp);
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&backup)?;
        copy.write_all(before)?;
        own(&copy, Owner { user: about.uid(), group: about.gid(), mode: about.mode() & 0o7777 })?;
        copy.sync_all()?;
        file.rewind()?;
        file.write_all(&self.after)?;
        file.set_len(self.after.len() as u64)?;
        file.sync_all()?;
        Ok(backup)
    }
}

/// Its name ends as no pattern of an `#include` or of conf.d does.
fn backup_path(path: &Path, stamp: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".callpost-{stamp}.bak"));
    path.with_file_name(name)
}

fn make_directory(path: &Path, owner: Owner) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent, Owner { mode: 0o755, ..owner })?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    own_path(path, owner)
}

/// Only root gives files away; others keep what they make.
fn own(file: &File, owner: Owner) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        fchown(file, Some(owner.user), Some(owner.group))?;
    }
    file.set_permissions(PermissionsExt::from_mode(owner.mode))
}

fn own_path(path: &Path, owner: Owner) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(owner.user), Some(owner.group))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(owner.mode))
}
