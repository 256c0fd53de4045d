//! Where answers about calls come from: a running agent, or the journal itself where none runs (root takes its
//! owner's identity first).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::exit::CliError;
use super::status::client;
use crate::agent::open_journal;
use crate::api::{CallName, CallTrace, ClientError, FindError, LegsQuery, find};
use crate::config::Config;
use crate::journal::{Journal, JournalError, LegRecord};

/// Legs, newest first.
pub(super) async fn legs(config: &Config, query: &LegsQuery) -> Result<Vec<LegRecord>, CliError> {
    match client(config).legs(query).await {
        Err(ClientError::NotRunning(socket)) => {
            let journal = journal(config, ClientError::NotRunning(socket)).await?;
            let legs = query.ask(&journal).await;
            journal.close().await;
            legs.map_err(|why| unreadable(&why))
        }
        answer => Ok(answer?),
    }
}

/// All that is known of one call.
pub(super) async fn trace(config: &Config, name: &CallName) -> Result<CallTrace, CliError> {
    match client(config).trace(name).await {
        Err(ClientError::NotRunning(socket)) => {
            let journal = journal(config, ClientError::NotRunning(socket)).await?;
            let trace = find(&journal, name).await;
            journal.close().await;
            trace.map_err(|why| match why {
                FindError::Journal(why) => unreadable(&why),
                FindError::Unknown(_) | FindError::Several { .. } => {
                    CliError::Agent(ClientError::NotFound(why.to_string()))
                }
            })
        }
        answer => Ok(answer?),
    }
}

/// Opens the journal that is there; makes none.
pub(super) async fn journal(config: &Config, not_running: ClientError) -> Result<Journal, CliError> {
    let directory = &config.journal.directory;
    match std::fs::metadata(directory.join("outbox")) {
        Ok(_) => as_owner(directory)?,
        Err(why) if why.kind() == ErrorKind::PermissionDenied => {
            return Err(ClientError::Denied(directory.clone()).into());
        }
        Err(_) => {
            let what = format!("{not_running}, and there is no journal in {}", directory.display());
            return Err(CliError::failed(what, "name another configuration with --config"));
        }
    }
    let (journal, _) = open_journal(config).await.map_err(|why| unreadable(&why))?;
    Ok(journal)
}

/// Root becomes the journal's owner: this program is run again with that user and group. Files of
/// root in the journal would keep the agent from starting.
pub(super) fn as_owner(directory: &Path) -> Result<(), CliError> {
    let Ok(found) = std::fs::metadata(directory) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    let failed = |why: std::io::Error| {
        let what = format!("failed to become the journal's owner, user id {}: {why}", found.uid());
        CliError::failed(what, "run it as that user")
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).uid(found.uid()).gid(found.gid());
    Err(failed(command.exec()))
}

pub(super) fn unreadable(why: &JournalError) -> CliError {
    let remedy = match why {
        JournalError::InUse(_) => "ask the agent that has it: give its api.socket in the configuration",
        JournalError::Owner { .. } => {
            "ask as its owner: `runuser -u callpost -- callpost ...`, or start the agent"
        }
        JournalError::OtherPbx { .. } => "give the configuration that the agent has",
        JournalError::Damaged { .. } => "see `callpost journal verify`",
        JournalError::Io { .. } | JournalError::TooLarge(_) | JournalError::Closed => {
            "see the directory's owner and free space"
        }
    };
    CliError::failed(why.to_string(), remedy)
}
