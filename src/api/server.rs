//! The socket's server. Only those who may open the socket get here: mode 0660, the agent's group.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::past::{CallName, FindError, LegsQuery, find};
use super::types::{Live, View};
use crate::calls::Update;

/// What answers under way get when the agent stops; a client that does not read gets no more.
const GRACE: Duration = Duration::from_secs(1);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Another agent answers there.
    #[error("{0} is in use by another callpost")]
    InUse(PathBuf),
    /// The system refused.
    #[error("the socket {path} cannot be opened: {why}; correct api.socket or the directory's owner")]
    Io {
        /// `api.socket`.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// Opens the socket at once, then answers until told to stop.
///
/// # Errors
/// When the socket cannot be opened.
pub async fn serve(
    path: PathBuf,
    live: Live,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()>, ApiError> {
    let listener = bind(&path).await?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/tail", get(tail))
        .route("/reload", post(reload))
        .route("/legs", get(legs))
        .route("/trace/{call}", get(trace))
        .layer(Extension(stop.clone()))
        .with_state(live);
    Ok(async move {
        let stopped = stop.clone();
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = served.into_future() => if let Err(why) = served {
                tracing::error!(reason = %why, "the command socket failed");
            },
            () = overdue => {}
        }
        // A stale socket would only be removed by the next start.
        let _ = std::fs::remove_file(path);
    })
}

async fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let failed = |why: std::io::Error| ApiError::Io { path: path.to_owned(), why: why.to_string() };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ApiError::InUse(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

async fn status(State(view): State<View>) -> Response {
    match view.status().await {
        Ok(status) => Json(status).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_string()).into_response(),
    }
}

/// Reads the configuration again; a refusal is an answer as well.
async fn reload(State(live): State<Live>) -> Response {
    match live.reload().await {
        Some(reloaded) => Json(reloaded).into_response(),
        None => (StatusCode::NOT_FOUND, "this agent has no configuration file to read again").into_response(),
    }
}

/// Legs, newest first, as a JSON array.
async fn legs(State(view): State<View>, Query(query): Query<LegsQuery>) -> Response {
    match query.ask(&view.journal).await {
        Ok(legs) => Json(legs).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_string()).into_response(),
    }
}

/// All that is known of one call.
async fn trace(State(view): State<View>, UrlPath(call): UrlPath<String>) -> Response {
    let name = match call.parse::<CallName>() {
        Ok(name) => name,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    match find(&view.journal, &name).await {
        Ok(trace) => Json(trace).into_response(),
        Err(why) => {
            let status = match why {
                FindError::Unknown(_) => StatusCode::NOT_FOUND,
                FindError::Several { .. } => StatusCode::CONFLICT,
                FindError::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, why.to_string()).into_response()
        }
    }
}

/// Updates as they become durable, one JSON text a line. A reader that lags loses some: it looks,
/// it is not a sink. It ends when the agent stops.
async fn tail(State(view): State<View>, Extension(stop): Extension<CancellationToken>) -> Response {
    let lines = stream::unfold(view.journal.subscribe(), |mut updates| async move {
        loop {
            match updates.recv().await {
                Ok(batch) => return Some((Ok::<_, Infallible>(lines(&batch)), updates)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let lines = lines.take_until(stop.cancelled_owned());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn lines(batch: &Arc<Vec<Update>>) -> Bytes {
    let mut text = Vec::new();
    for update in batch.iter() {
        if serde_json::to_writer(&mut text, update).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}
