//! The HTTP server of the receiver.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::nimbox::Nimbox;
use super::received::{Received, Request};
use super::store::{Counts, Store};
use crate::clock;

/// A webhook is below 16 KiB.
const MAX_BODY: usize = 1 << 20;

/// How a receiver is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How it fails.
    pub misbehaviour: Misbehaviour,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), misbehaviour: Misbehaviour::default() }
    }
}

/// How a receiver fails on request.
#[derive(Clone, Debug, Default)]
pub struct Misbehaviour {
    /// This HTTP status in place of success.
    pub fail: Option<u16>,
    /// Of so many of the requests, 0 to 1; without it all of them.
    pub fail_rate: Option<f64>,
    /// Before each answer.
    pub delay: Duration,
    /// NiMbox refuses each create for this field, with this text.
    pub nimbox_error: Option<(String, String)>,
}

/// A running receiver; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug)]
struct Inner {
    misbehaviour: Misbehaviour,
    nimbox: Nimbox,
    store: Store,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Listens and answers from now on.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let state = Mutex::new(Inner {
            misbehaviour: options.misbehaviour,
            nimbox: Nimbox::default(),
            store: Store::default(),
        });
        let shared = Arc::new(Shared { state, news: Notify::new() });
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            if let Err(why) = axum::serve(listener, router).await {
                tracing::error!(reason = %why, "the receiver failed");
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first request after number `after`, waiting for it if need be. Begin with 0.
    pub async fn next(&self, after: u64) -> Arc<Received> {
        loop {
            let news = self.shared.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(received) = self.shared.lock().store.after(after) {
                return received;
            }
            news.await;
        }
    }

    /// Every request that is still kept.
    pub fn received(&self) -> Vec<Arc<Received>> {
        self.shared.lock().store.all()
    }

    /// What came so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().store.counts
    }

    /// Fails otherwise from now on.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.shared.lock().misbehaviour = misbehaviour;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let delay = shared.lock().misbehaviour.delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let response = answer(&mut shared.lock(), &parts, &body);
    shared.news.notify_waiters();
    response
}

fn answer(inner: &mut Inner, parts: &Parts, body: &Bytes) -> Response {
    let mut request = describe(parts, body);
    let (status, answer, again) = match failure(&inner.misbehaviour) {
        Some(status) => (status, json!({ "error": "asked to fail" }), false),
        None => accept(inner, parts, &mut request),
    };
    let number = inner.store.counts.requests + 1;
    inner.store.add(Received { number, at: clock::now(), status, again, request }, body);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(answer)).into_response()
}

fn failure(misbehaviour: &Misbehaviour) -> Option<u16> {
    let fail = misbehaviour.fail.or(misbehaviour.fail_rate.map(|_| 503))?;
    let draw = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    misbehaviour.fail_rate.is_none_or(|rate| draw < rate).then_some(fail)
}

/// Status, answer, and whether the same was accepted before.
fn accept(inner: &mut Inner, parts: &Parts, request: &mut Request) -> (u16, Value, bool) {
    let unauthorized = !query(parts).contains_key("token");
    match request {
        Request::Create { .. } | Request::Delete { .. } if unauthorized => {
            (401, json!({ "error": true, "errors": { "token": "is required" } }), false)
        }
        Request::Create { initiated, source, destination, refused, .. } => {
            let refuse = inner.misbehaviour.nimbox_error.as_ref();
            let created = inner.nimbox.create([initiated, source, destination], refuse);
            *refused = created.refused;
            (200, created.body, created.again)
        }
        Request::Delete { from, to, count } => {
            let (body, deleted) = inner.nimbox.delete(from, to);
            *count = deleted;
            (200, body, false)
        }
        Request::Webhook { id, .. } => (200, json!({ "ok": true }), inner.store.is_known(id)),
        // who looks whether somebody is there
        Request::Other { method, path } if method == "HEAD" || path == "/" && method != "POST" => {
            (200, json!({ "ok": true }), false)
        }
        Request::Other { .. } => (404, json!({ "error": "neither NiMbox nor a webhook" }), false),
    }
}

/// `create` or `delete` of NiMbox's phone calls, else nothing.
fn path(parts: &Parts) -> &str {
    if !matches!(parts.method, Method::GET | Method::POST) {
        return "";
    }
    parts.uri.path().strip_prefix("/direct/items/phonecalls/").unwrap_or_default()
}

fn query(parts: &Parts) -> BTreeMap<String, String> {
    let query = parts.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// What a request is, whatever becomes of it.
fn describe(parts: &Parts, body: &Bytes) -> Request {
    let query = query(parts);
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    if path(parts) == "create" {
        return Request::Create {
            initiated: text("initiated"),
            source: text("source"),
            destination: text("destination"),
            duration: query.get("duration").and_then(|seconds| seconds.parse().ok()),
            url: query.get("url").cloned(),
            refused: None,
        };
    }
    if path(parts) == "delete" {
        return Request::Delete { from: text("from"), to: text("to"), count: 0 };
    }
    let header = |name: &str| parts.headers.get(name)?.to_str().ok();
    let json = header(header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/json"));
    let parsed = serde_json::from_slice::<Value>(body).ok().filter(|_| json && parts.method == Method::POST);
    let Some(body) = parsed else {
        return Request::Other { method: parts.method.to_string(), path: parts.uri.path().to_owned() };
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Request::Webhook {
        event: text("event_name"),
        id: text("id"),
        sequence: header("callpost-sequence").and_then(|number| number.parse().ok()),
        body,
    }
}
