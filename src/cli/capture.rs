//! `callpost capture`: a live AMI stream into a file, for a bug report.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::args;
use super::exit::{CliError, Done};
use super::out::Out;
use crate::agent::asked_to_stop;
use crate::ami::{CaptureError, capture as save};
use crate::config::Config;

#[derive(Serialize)]
struct Saved<'a> {
    file: &'a str,
    events: u64,
}

pub(super) async fn capture(config: &Config, args: &args::Capture) -> Result<Done, CliError> {
    let Some(ami) = &config.ami else { return Err(unconfigured()) };
    let mut out = Out::new(args.output.json);
    if out.terminal() && !out.json() {
        out.line(format!("saving events from {} to {}; Ctrl-C ends it", ami.address, args.file.display()))?;
    }
    let stop = CancellationToken::new();
    let until = stop.clone();
    let watcher = tokio::spawn(async move {
        asked_to_stop().await;
        until.cancel();
    });
    let saved = save(ami, &args.file, stop).await;
    watcher.abort();
    let events = saved.map_err(|error| match error {
        CaptureError::Ami(error) => {
            CliError::failed(format!("failed to read events: {error}"), "see `callpost check`")
        }
        CaptureError::File { .. } => {
            CliError::failed(format!("failed to write {error}"), "name a file that does not exist yet")
        }
    })?;
    let file = args.file.display().to_string();
    if out.json() {
        out.value(&Saved { file: &file, events })?;
    } else {
        out.line(format!(
            "{events} events in {file}; they hold phone numbers and names, so mind who gets it"
        ))?;
    }
    Ok(Done::All)
}

/// No `[ami]`.
pub(super) fn unconfigured() -> CliError {
    CliError::usage("no [ami] is configured", "write it into a file in conf.d; callpost.toml(5) explains it")
}
