//! What may be asked, on the socket and over TCP, and what is answered. What is added later comes
//! into [`closed`], and is then behind the token and on the socket by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path as UrlPath, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::backfill::backfill;
use super::connections::{self, Never};
use super::dead::{DeadQuery, PendingQuery};
use super::listen::{self, Token};
use super::past::{CallName, FindError, LegsQuery, find};
use super::probes::{self, Trusted};
use super::replay::replay;
use super::socket::Socket;
use super::types::{Live, View};
use crate::calls::Update;
use crate::cdr::note_deleted;
use crate::journal::{DeletedDays, JournalError, Selection};
use crate::{clock, config};

/// A request's body: a thousand ids and some.
const LARGEST_BODY: usize = 128 << 10;
/// A body must be there so soon after its head.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Why the API could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Another agent answers there.
    #[error("{0} is in use by another callpost")]
    InUse(PathBuf),
    /// Something else stands where the socket should.
    #[error("{0} is there and is no socket; it is left alone: correct api.socket, or remove it")]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("the socket {path} cannot be opened: {why}; correct api.socket or the directory's owner")]
    Io {
        /// `api.socket`.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The address cannot be had.
    #[error(
        "[api] listen = \"{address}\" cannot be opened: {why}; choose another port, or an address of this host"
    )]
    Listen {
        /// `api.listen`.
        address: String,
        /// What the system said.
        why: String,
    },
}

/// The API, bound but not yet answering.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    tcp: Option<(TcpListener, SocketAddr, Token)>,
}

impl Server {
    /// Opens the socket, and the address if there is one.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub async fn bind(api: &config::Api) -> Result<Self, ApiError> {
        let socket = Socket::bind(&api.socket).await?;
        let tcp = match (&api.listen, &api.token) {
            (Some(address), Some(token)) => {
                let (listener, address) = listen::bind(address).await?;
                tracing::info!(%address, "HTTP is answered");
                Some((listener, address, Token::new(token)))
            }
            (Some(_), None) | (None, _) => None,
        };
        Ok(Self { socket, tcp })
    }

    /// Where HTTP is answered; with port 0, the one that was free.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address, _)| *address)
    }

    /// Answers until told to stop.
    pub async fn run(self, live: Live, stop: CancellationToken) {
        let whole = closed(&stop)
            .merge(local(&stop))
            .merge(probes::open())
            .layer(Extension(Trusted))
            .with_state(live.clone());
        let socket = &self.socket;
        let accept = || async {
            let (stream, _) = socket.listener.accept().await?;
            let router = match socket.admit(&stream) {
                Ok(()) => whole.clone(),
                Err(why) => {
                    tracing::warn!(reason = why, "a command was refused");
                    Router::new().fallback(async move || (StatusCode::FORBIDDEN, why))
                }
            };
            Ok((stream, router))
        };
        let on_socket = connections::serve(accept, stop.clone());
        let Some((listener, _, token)) = self.tcp else { return on_socket.await };
        let router =
            listen::guarded(probes::open().with_state(live.clone()), closed(&stop).with_state(live), token);
        let accept = || async {
            let (stream, _) = listener.accept().await?;
            Ok((stream, router.clone()))
        };
        tokio::join!(on_socket, connections::serve(accept, stop.clone()));
    }
}

/// What takes a token, or a place in the socket's group.
fn closed(stop: &CancellationToken) -> Router<Live> {
    Router::new()
        .route("/status", get(status))
        .route("/tail", get(tail))
        .route("/reload", post(reload))
        .route("/legs", get(legs))
        .route("/trace/{call}", get(trace))
        .route("/dead", post(dead))
        .route("/dead/retry", post(dead_retry))
        .route("/dead/drop", post(dead_drop))
        .route("/pending/drop", post(pending_drop))
        .route("/replay", post(send_again))
        .route("/replay/count", post(count_again))
        .route("/deleted", post(deleted))
        .merge(probes::closed())
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(timely))
        .layer(Extension(stop.clone()))
}

/// What only takes a place in the socket's group: it names files and hosts to read from.
fn local(stop: &CancellationToken) -> Router<Live> {
    Router::new()
        .route("/backfill", post(backfill))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(timely))
        .layer(Extension(stop.clone()))
}

/// Reads a body before anything else, within its time: nobody holds a request open with half of one.
async fn timely(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, LARGEST_BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// A page of dead letters.
async fn dead(State(view): State<View>, Json(query): Json<DeadQuery>) -> Response {
    json(query.page(&view.journal).await)
}

/// Makes deliveries of a page of dead letters again.
async fn dead_retry(State(view): State<View>, Json(query): Json<DeadQuery>) -> Response {
    json(query.retry(&view.journal).await)
}

/// Drops a page of dead letters for good.
async fn dead_drop(State(view): State<View>, Json(query): Json<DeadQuery>) -> Response {
    json(query.drop(&view.journal).await)
}

/// Gives up some of what waits on a route that is not configured.
async fn pending_drop(State(view): State<View>, Json(query): Json<PendingQuery>) -> Response {
    if view.routes.iter().any(|(route, ..)| *route == query.route.sink()) {
        let why = format!(
            "route {} is configured, so that what waits on it is delivered: remove or disable it first, then `callpost reload`",
            query.route.0
        );
        return (StatusCode::CONFLICT, why).into_response();
    }
    json(query.drop(&view.journal).await)
}

/// Sends again what is selected.
async fn send_again(State(view): State<View>, Json(what): Json<Selection>) -> Response {
    json(replay(&view.journal, &what, true, clock::now()).await)
}

/// Counts what would be sent again.
async fn count_again(State(view): State<View>, Json(what): Json<Selection>) -> Response {
    json(replay(&view.journal, &what, false, clock::now()).await)
}

/// Days were deleted from a NiMbox.
async fn deleted(State(view): State<View>, Json(days): Json<DeletedDays>) -> Response {
    json(note_deleted(&view.journal, &days, clock::now()).await)
}

fn json(answer: Result<impl Serialize, JournalError>) -> Response {
    match answer {
        Ok(value) => Json(value).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_string()).into_response(),
    }
}

async fn status(State(view): State<View>) -> Response {
    json(view.status().await)
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
    json(query.ask(&view.journal).await)
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
                Ok(batch) => return Some((Ok::<_, Never>(lines(&batch)), updates)),
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
