//! How a command ends.

use std::io;
use std::process::ExitCode;

use crate::agent::StartError;
use crate::api::ClientError;
use crate::config::Faults;

/// A command that did what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it: exit code 0.
    All,
    /// Some records were refused: exit code 3.
    Partly,
    /// It has reported itself what failed: exit code 1.
    Failed,
    /// It has reported itself what is wrong with the configuration: exit code 2.
    Misconfigured,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration: exit code 2, nothing was started.
    #[error("{0}")]
    Config(#[from] Faults),
    /// Something else in how it was called: exit code 2.
    #[error("{what}\n    -> {remedy}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// It could not be done: exit code 1.
    #[error("{what}\n    -> {remedy}")]
    Failed {
        /// What went wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The agent did not start: exit code 1.
    #[error("failed to start: {0}")]
    Start(#[from] StartError),
    /// The running agent did not answer: exit code 1.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// The reader of the output went away, or the disk behind it is full.
    #[error("failed to write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// It could not be done, and what to do.
    pub fn failed(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), remedy: remedy.into() }
    }

    /// It was asked for in a way that cannot be, and what to do.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), remedy: remedy.into() }
    }

    /// `| head` has seen enough: that is no failure.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage { .. } => 2,
            Self::Output(_) if self.is_closed_pipe() => 0,
            Self::Failed { .. } | Self::Start(_) | Self::Agent(_) | Self::Output(_) => 1,
        }
    }
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        Self::from(match done {
            Done::All => 0,
            Done::Failed => 1,
            Done::Misconfigured => 2,
            Done::Partly => 3,
        })
    }
}
