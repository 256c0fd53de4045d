//! This host: the journal's disk, the clock, recordings.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::report::Report;
use crate::config::{Config, size_text};

pub(super) fn check(config: &Config, running: bool, report: &mut Report) -> io::Result<()> {
    journal(config, running, report)?;
    clock(config, report)?;
    if let Some(directory) = &config.recordings.directory
        && let Err(error) = std::fs::read_dir(directory)
    {
        let found = format!("{} cannot be read: {error}", directory.display());
        report.warning("recordings", found, "let the user callpost read it: adduser callpost asterisk")?;
    }
    Ok(())
}

fn journal(config: &Config, running: bool, report: &mut Report) -> io::Result<()> {
    let directory = &config.journal.directory;
    let shown = directory.display();
    if running {
        report.ok("journal", format!("an agent runs on it ({shown})"))?;
    } else {
        match std::fs::metadata(directory) {
            Ok(about) if !about.is_dir() => {
                report.bad(
                    "journal",
                    format!("{shown} is not a directory"),
                    "name another with [journal] directory",
                )?;
            }
            Ok(about) => match tempfile::tempfile_in(directory) {
                Ok(_) => report.ok("journal", format!("{shown} can be written"))?,
                Err(error) => {
                    let found =
                        format!("{shown} cannot be written: {error} (it belongs to user id {})", about.uid());
                    report.bad(
                        "journal",
                        found,
                        format!("run this as its owner, or: chown callpost:callpost {shown}"),
                    )?;
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let remedy = format!(
                    "the agent makes it if it may; otherwise: install -d -o callpost -g callpost -m 0750 {shown}"
                );
                report.note("journal", format!("{shown} is not there yet"), remedy)?;
            }
            Err(error) => {
                report.bad("journal", format!("{shown}: {error}"), "run this as its owner")?;
            }
        }
    }
    let Some(free) = free_space(directory) else { return Ok(()) };
    let (free_text, most) = (size_text(free >> 20 << 20), config.journal.max_size);
    if free < most {
        let found = format!("{free_text} are free there, max_size is {}", size_text(most));
        return report.warning("disk", found, "make room, or set [journal] max_size below what is free");
    }
    report.ok("disk", format!("{free_text} are free"))
}

/// Bytes that are free where that directory is or will be, as df(1) says.
fn free_space(directory: &Path) -> Option<u64> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let df = Command::new("df").args(["-B1", "--output=avail"]).arg(existing).output().ok()?;
    String::from_utf8(df.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}

fn clock(config: &Config, report: &mut Report) -> io::Result<()> {
    let zone = &config.pbx.timezone;
    let name = zone.iana_name().unwrap_or("of this host");
    let now = jiff::Timestamp::now().to_zoned(zone.clone());
    report.ok("zone", format!("{name}: it is {} there", now.strftime("%Y-%m-%d %H:%M:%S %:z")))?;
    // where there is no systemd, nobody says
    let asked = Command::new("timedatectl").args(["show", "-p", "NTPSynchronized", "--value"]).output();
    match asked.ok().and_then(|output| String::from_utf8(output.stdout).ok()).as_deref().map(str::trim) {
        Some("yes") => report.ok("clock", "is synchronized"),
        Some("no") => report.warning(
            "clock",
            "is not synchronized, and times of calls are as good as it",
            "timedatectl set-ntp true, or install chrony",
        ),
        _ => report.note(
            "clock",
            "nothing here says whether it is synchronized",
            "see chronyc tracking or ntpq -p",
        ),
    }
}
