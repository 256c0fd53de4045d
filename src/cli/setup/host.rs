//! Which PBX this is, by the files that each has.

use std::path::{Path, PathBuf};

use super::conf::{Conf, text_of};
use super::console::Console;
use crate::cli::exit::CliError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Asterisk,
    FreePbx,
    Issabel,
    VitalPbx,
}

/// Where whose files are; the first that is found decides, so those that have FreePBX's as well go first.
const SIGNS: [(Platform, &[&str]); 3] = [
    (Platform::VitalPbx, &["etc/asterisk/vitalpbx", "usr/share/vitalpbx", "etc/asterisk/ombutel"]),
    (Platform::Issabel, &["etc/issabel.conf", "etc/issabelpbx.conf", "etc/issabel-release"]),
    (Platform::FreePbx, &["etc/freepbx.conf", "etc/amportal.conf", "usr/sbin/fwconsole"]),
];

impl Platform {
    pub fn name(self) -> &'static str {
        match self {
            Self::Asterisk => "Asterisk",
            Self::FreePbx => "FreePBX",
            Self::Issabel => "Issabel",
            Self::VitalPbx => "VitalPBX",
        }
    }

    /// It writes manager.conf and cdr_manager.conf anew when its web interface saves.
    pub fn writes_files(self) -> bool {
        self != Self::Asterisk
    }
}

/// What was found on the host.
#[derive(Debug)]
pub(super) struct Host {
    pub root: PathBuf,
    pub platform: Platform,
    /// The files by which it was told, as users name them.
    pub why: Vec<String>,
    /// Asterisk's configuration, below the root.
    pub etc: PathBuf,
    /// Its logs, below the root.
    pub logs: PathBuf,
    pub console: Option<Console>,
    pub version: Option<(u32, u32)>,
    pub manager: Conf,
}

impl Host {
    /// # Errors
    /// No Asterisk there, or its files cannot be read.
    pub fn look(root: &Path) -> Result<Self, CliError> {
        let main = text_of(&root.join("etc/asterisk/asterisk.conf"))?;
        let directory = |key: &str, usual: &str| {
            let text = main.as_deref().unwrap_or_default();
            let named = super::scan::scan(text).into_iter().find_map(|line| match line {
                super::scan::Line::Value { key: found, value } if found == key => Some(value),
                _ => None,
            });
            let path = named.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned());
            root.join(path.trim_start_matches('/'))
        };
        let etc = directory("astetcdir", "/etc/asterisk");
        let logs = directory("astlogdir", "/var/log/asterisk");
        let Some(manager) = Conf::read(root, &etc, "manager.conf")? else {
            let what =
                format!("there is no Asterisk here: {} is not there", etc.join("manager.conf").display());
            let remedy = "run this on the PBX host, beside Asterisk; where Asterisk has no manager.conf yet, \
                          make it: printf '[general]\\nenabled = no\\n' >/etc/asterisk/manager.conf";
            return Err(CliError::failed(what, remedy));
        };
        let signs = SIGNS.iter().find_map(|(platform, files)| {
            let there: Vec<_> = files.iter().filter(|file| root.join(file).exists()).collect();
            (!there.is_empty()).then(|| (*platform, there.iter().map(|file| format!("/{file}")).collect()))
        });
        let (platform, why) =
            signs.unwrap_or_else(|| (Platform::Asterisk, vec![user_path(root, &etc.join("manager.conf"))]));
        let console = Console::find(root);
        let version = console.as_ref().and_then(Console::version);
        Ok(Self { root: root.to_path_buf(), platform, why, etc, logs, console, version, manager })
    }

    /// A path as users of the host name it.
    pub fn shown(&self, path: &Path) -> String {
        user_path(&self.root, path)
    }

    pub fn conf(&self, name: &str) -> Result<Option<Conf>, CliError> {
        Conf::read(&self.root, &self.etc, name)
    }
}

fn user_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).map_or_else(|_| path.display().to_string(), |path| format!("/{}", path.display()))
}
