//! Whether it lives, whether it is ready, and its metrics.
//!
//! `/livez` and `/readyz` ask for no token: what looks at health (systemd, Kubernetes, a load
//! balancer, Zabbix) has none to give, and is told no more than good or bad and a reason without
//! names or addresses. Who has a token, or is on the socket, reads the whole reason. `/metrics` names
//! routes, so it asks for the token; Prometheus has `authorization: { credentials_file: ... }`.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use serde::Serialize;
use tokio::time::timeout;

use super::types::{Live, View};
use crate::{clock, metrics};

/// A probe waits no longer for the journal's thread.
const JOURNAL_WITHIN: Duration = Duration::from_secs(2);

/// Who asks may read reasons with names and addresses in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted;

#[derive(Debug, Serialize)]
struct Livez {
    alive: bool,
    journal: Part,
    reader: Part,
}

#[derive(Debug, Serialize)]
struct Readyz {
    ready: bool,
    ami: Part,
    journal: Part,
}

/// One part, and what is wrong with it.
#[derive(Debug, Serialize)]
struct Part {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Part {
    fn new(reason: Option<String>) -> Self {
        Self { ok: reason.is_none(), reason }
    }
}

/// `/livez`, `/readyz`.
pub(super) fn open() -> Router<Live> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// `/metrics`.
pub(super) fn closed() -> Router<Live> {
    Router::new().route("/metrics", get(metrics))
}

/// 200 while nothing hangs; 503 when only a restart would help.
async fn livez(State(view): State<View>) -> Response {
    let pulse = *view.pulse.borrow();
    let part = |moves: bool, why: &str| Part::new((!moves).then(|| why.to_owned()));
    let live = Livez {
        alive: pulse.is_alive(),
        journal: part(pulse.journal, "the journal's thread does not answer"),
        reader: part(pulse.reader, "the reader of Asterisk's events does not move"),
    };
    answer(live.alive, live)
}

/// 200 while calls are seen and can be kept: Asterisk is connected and the journal can be written.
async fn readyz(State(view): State<View>, trusted: Option<Extension<Trusted>>) -> Response {
    let told = |whole: String, short: &str| if trusted.is_some() { whole } else { short.to_owned() };
    let health = view.ami.health();
    let ami = if view.config.ami.is_none() {
        Some("[ami] is not configured".to_owned())
    } else if health.connected {
        None
    } else {
        let seconds = health.since.map_or(0, |since| clock::now().secs_since(since));
        let short = format!("not connected to Asterisk for {seconds} s");
        let whole = health.error.as_ref().map_or_else(|| short.clone(), |why| format!("{short}: {why}"));
        Some(told(whole, &short))
    };
    let journal = match timeout(JOURNAL_WITHIN, view.journal.fault()).await {
        Ok(Ok(None)) => None,
        Ok(Ok(Some(why))) => Some(told(why, "the journal cannot be written")),
        Ok(Err(why)) => Some(told(why.to_string(), "the journal is closed")),
        Err(_) => Some("the journal's thread does not answer".to_owned()),
    };
    let ready = Readyz {
        ready: ami.is_none() && journal.is_none(),
        ami: Part::new(ami),
        journal: Part::new(journal),
    };
    answer(ready.ready, ready)
}

fn answer(good: bool, body: impl Serialize) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn metrics(State(view): State<View>) -> Response {
    match view.status().await {
        Ok(status) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&status)).into_response()
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_string()).into_response(),
    }
}
