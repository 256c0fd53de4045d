//! The commands' side of the socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::dead::{DeadDone, DeadPage, DeadQuery, PendingDone, PendingQuery};
use super::past::{CallName, CallTrace, LegsQuery};
use super::replay::ReplayAnswer;
use super::types::{AgentStatus, Reloaded};
use crate::calls::Update;
use crate::cdr::{Ask, Frame};
use crate::journal::{DeletedDays, LegRecord, Selection};

/// One answer's size. A status is a few KiB, a leg 1 KiB, and a long trace a few MiB.
const MAX_ANSWER: u64 = 64 << 20;
/// A status takes milliseconds; an agent that hangs is to be told from one that is busy.
const STATUS_WITHIN: Duration = Duration::from_secs(10);
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
    /// It was understood, but there is no such thing, or not one alone.
    #[error("{0}")]
    NotFound(String),
    /// Anything else.
    #[error("the agent at {path} did not answer as expected: {why}")]
    Failed {
        /// `api.socket`.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

/// What a backfill says of itself.
#[derive(Debug)]
pub struct Frames {
    client: Client,
    body: BufReader<UnixStream>,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Frames {
    /// The next line; `None` when the agent has ended it. May be given up and asked again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            let room = MAX_LINE.saturating_sub(self.line.len() as u64);
            let mut bounded = (&mut self.body).take(room);
            // what was read stays in `line` when this is given up
            let read = bounded.read_until(b'\n', &mut self.line).await;
            let read = read.map_err(|why| self.client.failed(why))?;
            if read == 0 {
                return Ok(None);
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                return serde_json::from_slice(&line).map(Some).map_err(|why| self.client.failed(why));
            }
        }
    }
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
        match timeout(STATUS_WITHIN, self.value("/status")).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(format!(
                "nothing for {} s: it hangs; see its log, then `systemctl restart callpost`",
                STATUS_WITHIN.as_secs()
            ))),
        }
    }

    /// Asks for the configuration to be read again.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.read(self.ask("POST", "/reload", "", "").await?).await
    }

    /// Legs, live or past, newest first.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked.
    pub async fn legs(&self, query: &LegsQuery) -> Result<Vec<LegRecord>, ClientError> {
        self.value(&format!("/legs?{}", query.text())).await
    }

    /// All that is known of one call.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked; [`ClientError::NotFound`] when no call, or not
    /// one alone, has that name.
    pub async fn trace(&self, call: &CallName) -> Result<CallTrace, ClientError> {
        self.value(&format!("/trace/{call}")).await
    }

    /// A page of dead letters.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked.
    pub async fn dead(&self, query: &DeadQuery) -> Result<DeadPage, ClientError> {
        self.post("/dead", query).await
    }

    /// Makes deliveries of a page of dead letters again.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked; some may have been put back.
    pub async fn dead_retry(&self, query: &DeadQuery) -> Result<DeadDone, ClientError> {
        self.post("/dead/retry", query).await
    }

    /// Drops a page of dead letters for good.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked; some may have been dropped.
    pub async fn dead_drop(&self, query: &DeadQuery) -> Result<DeadDone, ClientError> {
        self.post("/dead/drop", query).await
    }

    /// Gives up some of what waits on a route that is not configured.
    ///
    /// # Errors
    /// When no agent runs, it may not be asked, or the route is configured.
    pub async fn pending_drop(&self, query: &PendingQuery) -> Result<PendingDone, ClientError> {
        self.post("/pending/drop", query).await
    }

    /// Counts what a replay would send.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked.
    pub async fn replay_count(&self, what: &Selection) -> Result<ReplayAnswer, ClientError> {
        self.post("/replay/count", what).await
    }

    /// Sends again what the journal still holds of it.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked; a part may have been put back.
    pub async fn replay(&self, what: &Selection) -> Result<ReplayAnswer, ClientError> {
        self.post("/replay", what).await
    }

    /// Says that days were deleted from a NiMbox.
    ///
    /// # Errors
    /// When no agent runs, or it may not be asked, or could not write it down.
    pub async fn deleted(&self, days: &DeletedDays) -> Result<(), ClientError> {
        self.post("/deleted", days).await
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

    /// Begins a backfill and follows it until its end, or until `each` says no.
    ///
    /// # Errors
    /// When none runs, or it may not be asked; [`ClientError::NotFound`] when there is one already.
    pub async fn backfill(&self, ask: &Ask) -> Result<Frames, ClientError> {
        let text = serde_json::to_string(ask).map_err(|why| self.failed(why))?;
        let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", text.len());
        let body = self.ask("POST", "/backfill", &head, &text).await?;
        Ok(Frames { client: self.clone(), body, line: Vec::new() })
    }

    async fn value<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(self.get(path).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_string(body).map_err(|why| self.failed(why))?;
        let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.read(self.ask("POST", path, &head, &body).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, body: BufReader<UnixStream>) -> Result<T, ClientError> {
        let mut text = Vec::new();
        body.take(MAX_ANSWER).read_to_end(&mut text).await.map_err(|why| self.failed(why))?;
        serde_json::from_slice(&text).map_err(|why| self.failed(why))
    }

    async fn get(&self, path: &str) -> Result<BufReader<UnixStream>, ClientError> {
        self.ask("GET", path, "", "").await
    }

    /// Asks in HTTP/1.0, whose answers end with the connection and come unchunked: all that a
    /// local socket needs.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &str,
    ) -> Result<BufReader<UnixStream>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| self.refused(&why))?;
        let mut stream = BufReader::new(stream);
        let request = format!("{method} {path} HTTP/1.0\r\nHost: callpost\r\n{head}\r\n{body}");
        stream.write_all(request.as_bytes()).await.map_err(|why| self.failed(why))?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read =
                (&mut stream).take(MAX_LINE).read_line(&mut head).await.map_err(|why| self.failed(why))?;
            if read == 0 {
                return Err(self.failed("the answer was cut off"));
            }
        }
        let status = head.split(' ').nth(1);
        if status == Some("200") {
            return Ok(stream);
        }
        let mut why = String::new();
        stream.take(MAX_LINE).read_to_string(&mut why).await.map_err(|why| self.failed(why))?;
        if status == Some("403") {
            return Err(ClientError::Denied(self.socket.clone()));
        }
        // an agent of another version answers an unknown path with nothing
        let found = !matches!(status, Some("404" | "409")) || why.is_empty();
        Err(if found { self.failed(why) } else { ClientError::NotFound(why) })
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
