//! Saves a live AMI stream as a fixture: events as they come, byte for byte, without secrets and
//! without the digits that people pressed.

use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::session::{action, feed, login};
use super::{AmiError, Feed};
use crate::config;

/// Why a capture ended early.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No session.
    #[error(transparent)]
    Ami(#[from] AmiError),
    /// The file cannot be written.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        why: String,
    },
}

/// Writes events to `path` until `stop`, and says how many. The file must not exist.
///
/// # Errors
/// When there is no session, it ends, or the file cannot be written.
pub async fn capture(
    config: &config::Ami,
    path: &Path,
    stop: CancellationToken,
) -> Result<u64, CaptureError> {
    let failed =
        |why: std::io::Error| CaptureError::File { path: path.display().to_string(), why: why.to_string() };
    let (hub, mut events) = feed();
    let mut connection = Connection::open(config, hub.sender()).await?;
    login(&mut connection, config).await?;
    let mut file = BufWriter::new(File::create_new(path).await.map_err(failed)?);
    connection.ask(action("Events", &[("EventMask", "on")])?).await?;
    let mut count = 0;
    let end = loop {
        let item = tokio::select! {
            () = stop.cancelled() => break Ok(count),
            why = connection.ended() => break Err(why.into()),
            item = events.recv() => item,
        };
        let Some(Feed::Event { message, .. }) = item else { continue };
        for (key, value) in message.headers() {
            if is_secret(key) {
                continue;
            }
            let value = if key.eq_ignore_ascii_case(b"Digit") { b"*" } else { value };
            for part in [key, b": ", value, b"\r\n"] {
                file.write_all(part).await.map_err(failed)?;
            }
        }
        file.write_all(b"\r\n").await.map_err(failed)?;
        count += 1;
    };
    file.flush().await.map_err(failed)?;
    end
}

/// Headers that can carry a credential (Challenge, security events, SIP authentication variables).
fn is_secret(key: &[u8]) -> bool {
    [&b"Secret"[..], b"Key", b"Challenge", b"Password", b"ReceivedHash", b"ExpectedResponse", b"Response-Key"]
        .iter()
        .any(|secret| key.eq_ignore_ascii_case(secret))
}
