//! The commands' side of the socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::types::AgentStatus;
use crate::calls::Update;

/// One answer's size; a status is a few KiB.
const MAX_ANSWER: u64 = 16 << 20;
/// One line of a stream.
const MAX_LINE: u64 = 64 << 10;

/// Asks a running agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent runs here ({0} does not answer); start it with `systemctl start callpost` or `callpost run`"
    )]
    NotRunning(PathBuf),
    /// The socket's mode says no.
    #[error(
        "permission denied for {0}: run this as root, or as a member of the group callpost (`adduser USER callpost`, then log in again)"
    )]
    Denied(PathBuf),
    /// Anything else.
    #[error("the agent at {path} did not answer as expected: {why}")]
    Failed {
        /// `api.socket`.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

impl Client {
    /// For the agent that listens at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// How the agent stands.
    ///
    /// # Errors
    /// When none runs, or it may not be asked.
    pub async fn status(&self) -> Result<AgentStatus, ClientError> {
        let mut text = Vec::new();
        let body = self.get("/status").await?;
        body.take(MAX_ANSWER).read_to_end(&mut text).await.map_err(|why| self.failed(why))?;
        serde_json::from_slice(&text).map_err(|why| self.failed(why))
    }

    /// Updates as they happen, until the agent stops or `each` says no.
    ///
    /// # Errors
    /// When none runs, or it may not be asked.
    pub async fn tail(&self, mut each: impl FnMut(Update) -> bool) -> Result<(), ClientError> {
        let mut body = self.get("/tail").await?;
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut body).take(MAX_LINE);
            let read = bounded.read_until(b'\n', &mut line).await.map_err(|why| self.failed(why))?;
            if read == 0 {
                return Ok(());
            }
            let update = serde_json::from_slice(&line).map_err(|why| self.failed(why))?;
            if !each(update) {
                return Ok(());
            }
        }
    }

    /// Asks in HTTP/1.0, whose answers end with the connection and come unchunked: all that a
    /// local socket needs.
    async fn get(&self, path: &str) -> Result<BufReader<UnixStream>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| self.refused(&why))?;
        let mut stream = BufReader::new(stream);
        let request = format!("GET {path} HTTP/1.0\r\nHost: callpost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|why| self.failed(why))?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read =
                (&mut stream).take(MAX_LINE).read_line(&mut head).await.map_err(|why| self.failed(why))?;
            if read == 0 {
                return Err(self.failed("the answer was cut off"));
            }
        }
        if head.split(' ').nth(1) == Some("200") {
            return Ok(stream);
        }
        let mut why = String::new();
        stream.take(MAX_LINE).read_to_string(&mut why).await.map_err(|why| self.failed(why))?;
        Err(self.failed(why))
    }

    fn refused(&self, why: &std::io::Error) -> ClientError {
        if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            ClientError::NotRunning(self.socket.clone())
        } else if why.kind() == ErrorKind::PermissionDenied {
            ClientError::Denied(self.socket.clone())
        } else {
            self.failed(why)
        }
    }

    fn failed(&self, why: impl ToString) -> ClientError {
        ClientError::Failed { path: self.socket.clone(), why: why.to_string() }
    }
}
