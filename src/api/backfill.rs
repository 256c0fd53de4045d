//! A backfill, asked for over the socket and followed line by line.

use axum::body::Body;
use axum::extract::{Extension, Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::connections::Never;
use super::types::View;
use crate::cdr::{Ask, Frame, Refused};

/// Begins one and says how far it is, one JSON text a line; it ends with whoever reads.
pub(super) async fn backfill(
    State(view): State<View>,
    Extension(stop): Extension<CancellationToken>,
    Json(ask): Json<Ask>,
) -> Response {
    let frames = match view.history.backfill(ask) {
        Ok(frames) => frames,
        Err(why) => {
            let status = match why {
                Refused::Busy => StatusCode::CONFLICT,
                Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            return (status, why.to_string()).into_response();
        }
    };
    let lines = stream::unfold(frames, |mut frames| async move {
        let frame = frames.recv().await?;
        Some((Ok::<_, Never>(line(&frame)), frames))
    });
    let lines = lines.take_until(stop.cancelled_owned());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(frame: &Frame) -> Bytes {
    let mut text = serde_json::to_vec(frame).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
