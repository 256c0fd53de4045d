//! The command: reads the script, writes the configuration and the files with its secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Zoned;

use super::find::find;
use super::write::{Secret, Written, write};
use crate::cli::args;
use crate::cli::exit::{CliError, Done};
use crate::cli::out::{Out, paint, plural, style};

/// The script has some hundred lines; this is no script.
const MAX_SCRIPT: u64 = 512 * 1024;

pub(in crate::cli) fn import_script(args: &args::ImportScript) -> Result<Done, CliError> {
    let script = read(&args.file)?;
    let settings = find(&script);
    if settings.base.is_none() && settings.token.is_none() && settings.source.is_none() {
        let what =
            format!("nothing in {} looks like the script that sends calls to NiMbox", args.file.display());
        return Err(CliError::failed(what, "give the edited copy that cron runs (`crontab -l` names it)"));
    }
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let written = write(&settings, &name, &Zoned::now().with_time_zone(jiff::tz::TimeZone::system()));
    let Some(file) = &args.output else {
        let mut out = Out::new(false);
        out.line(written.text.trim_end())?;
        return to_stdout(&written);
    };
    let files = store(file, &written)?;
    let mut out = Out::new(false);
    for file in files {
        out.line(format!("wrote {}", file.display()))?;
    }
    match settings.review.0.len() {
        0 => out.line("read it, then: callpost check")?,
        count => {
            let count = plural(count as u64, "thing", "things");
            out.line(paint(style::WARN, format!("{count} could not be taken over: see its first lines")))?;
        }
    }
    Ok(Done::All)
}

/// Secrets never go to a terminal, nor through a pipe into who knows what.
fn to_stdout(written: &Written) -> Result<Done, CliError> {
    let mut stream = anstream::stderr();
    for Secret { file, line, .. } in &written.secrets {
        writeln!(stream, "the script's line {line} holds what belongs into the file {file} (mode 0600)")?;
    }
    if !written.secrets.is_empty() {
        writeln!(stream, "with --output FILE these are written too, beside it")?;
    }
    Ok(Done::All)
}

/// Writes all or nothing: each file must be new.
fn store(file: &Path, written: &Written) -> Result<Vec<PathBuf>, CliError> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let secrets = written.secrets.iter().map(|secret| (directory.join(secret.file), &secret.text));
    let all: Vec<_> = secrets.chain([(file.to_path_buf(), &written.text)]).collect();
    if let Some((there, _)) = all.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        let what = format!("{} is there already, and nothing is overwritten", there.display());
        return Err(CliError::usage(what, "name a file in another directory, or move that one away"));
    }
    let mut made = Vec::new();
    for (path, text) in all {
        if let Err(why) = create(&path, text) {
            for made in &made {
                // what is left of an attempt that failed is secrets: best gone
                let _ = std::fs::remove_file(made);
            }
            let what = format!("failed to write {}: {why}", path.display());
            return Err(CliError::failed(what, "choose a directory that you can write to"));
        }
        made.push(path);
    }
    Ok(made)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    file.sync_all()
}

/// Old scripts are in Latin-1 as often as in UTF-8.
fn read(path: &Path) -> Result<String, CliError> {
    let failed = |why: &dyn std::fmt::Display| {
        CliError::failed(format!("failed to read {}: {why}", path.display()), "name the script's file")
    };
    let file = File::open(path).map_err(|why| failed(&why))?;
    let mut bytes = Vec::new();
    file.take(MAX_SCRIPT + 1).read_to_end(&mut bytes).map_err(|why| failed(&why))?;
    if bytes.len() as u64 > MAX_SCRIPT {
        return Err(failed(&format!("it is longer than {} KiB", MAX_SCRIPT / 1024)));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().map(|b| char::from(*b)).collect()))
}
