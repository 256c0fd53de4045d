//! What a receiver was told of one number's calls.

use std::time::Duration;

use callpost::receiver::{Received, Receiver, Request};
use tokio::time::timeout;

/// A delivery comes within milliseconds, except that an agent may first have to come back.
const PATIENCE: Duration = Duration::from_secs(40);

/// One webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `event_name` without `call.`
    pub event: String,
    /// `call_id`
    pub call: u64,
    /// `src_hash`
    pub hash: String,
    /// `Callpost-Sequence`
    pub sequence: u64,
    /// `event_time`, seconds since the epoch.
    pub at: i64,
    /// `connected_at`, seconds since the epoch.
    pub connected: Option<i64>,
    /// `duration`
    pub duration: u64,
    /// `info`
    pub info: String,
    /// `t_cause`
    pub cause: String,
    /// `terminated_by`
    pub by: String,
}

/// A create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Seconds since the epoch.
    pub initiated: i64,
    /// Seconds.
    pub duration: u64,
}

/// The webhooks of this number's legs in order of arrival, each once: who was killed may repeat.
pub fn told(receiver: &Receiver, number: &str) -> Vec<Told> {
    receiver.received().iter().filter(|one| !one.again).filter_map(|one| tells(one, number)).collect()
}

/// The creates of this number's calls, each once.
pub fn created(receiver: &Receiver, number: &str) -> Vec<Created> {
    let all = receiver.received();
    let first = all.iter().filter(|one| !one.again);
    first
        .filter_map(|one| match &one.request {
            Request::Create { initiated, source, destination, duration, .. }
                if source == number || destination == number =>
            {
                Some(Created { initiated: utc(initiated).unwrap(), duration: duration.unwrap_or_default() })
            }
            _ => None,
        })
        .collect()
}

/// Waits for an event of this number.
pub async fn until_told(receiver: &Receiver, number: &str, event: &str) -> Told {
    until_any(receiver, number, &[event]).await
}

/// Waits for the end of this number's leg.
pub async fn until_over(receiver: &Receiver, number: &str) -> Told {
    until_any(receiver, number, &["hangup", "missed", "failed"]).await
}

async fn until_any(receiver: &Receiver, number: &str, events: &[&str]) -> Told {
    let mut last = 0;
    let found = async {
        loop {
            let next = receiver.next(last).await;
            last = next.number;
            if let Some(told) = tells(&next, number).filter(|told| events.contains(&told.event.as_str())) {
                return told;
            }
        }
    };
    let found = timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("{number}: none of {events:?}, only {:#?}", told(receiver, number)))
}

/// Waits for a create of this number.
pub async fn until_created(receiver: &Receiver, number: &str) {
    until_created_within(receiver, number, PATIENCE).await;
}

/// The same with another patience.
pub async fn until_created_within(receiver: &Receiver, number: &str, patience: Duration) {
    let mut last = 0;
    let found = async {
        while created(receiver, number).is_empty() {
            last = receiver.next(last).await.number;
        }
    };
    let found = timeout(patience, found).await;
    found.unwrap_or_else(|_| panic!("{number}: no create, only {:#?}", told(receiver, number)));
}

/// These events came, in this order, of one call, each with a sequence above the one before, and
/// with one time of answer that never changes.
pub fn is_whole(told: &[Told], events: &[&str]) {
    let names: Vec<&str> = told.iter().map(|told| told.event.as_str()).collect();
    assert_eq!(names, events, "{told:#?}");
    is_one_call(told);
}

/// The same for whatever events came.
pub fn is_one_call(told: &[Told]) {
    for pair in told.windows(2) {
        assert_eq!((pair[0].call, &pair[0].hash), (pair[1].call, &pair[1].hash), "{told:#?}");
        assert!(pair[0].sequence < pair[1].sequence, "{told:#?}");
        assert!(pair[0].at <= pair[1].at, "{told:#?}");
        assert!(pair[0].connected.is_none() || pair[0].connected == pair[1].connected, "{told:#?}");
    }
}

fn tells(received: &Received, number: &str) -> Option<Told> {
    let request = &received.request;
    let Request::Webhook { event, sequence, body, .. } = request else { return None };
    if request.text("src") != number && request.text("dst") != number {
        return None;
    }
    Some(Told {
        event: event.strip_prefix("call.").unwrap_or(event).to_owned(),
        call: request.number("call_id").unwrap(),
        hash: request.text("src_hash").to_owned(),
        sequence: sequence.unwrap(),
        at: utc(request.text("event_time")).unwrap(),
        connected: body.get("connected_at").and_then(|at| utc(at.as_str()?)),
        duration: request.number("duration").unwrap(),
        info: request.text("info").to_owned(),
        cause: request.text("t_cause").to_owned(),
        by: request.text("terminated_by").to_owned(),
    })
}

/// `2026-11-21 09:34:48` or `2026-11-21T09:34:48Z`, as seconds since the epoch.
pub fn utc(text: &str) -> Option<i64> {
    let text = text.replace(' ', "T");
    let text = text.strip_suffix('Z').unwrap_or(&text);
    format!("{text}Z").parse::<jiff::Timestamp>().ok().map(|at| at.as_second())
}
