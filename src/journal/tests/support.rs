//! Updates, batches and journals to test with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use parsers::Micros;

use crate::calls::{
    CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, Update, UpdateBody, UpdateId,
};
use crate::journal::{
    Batch, Journal, JournalOptions, Outgoing, Payload, Recovered, RouteId, TraceMessage, Traced,
};

pub(super) const DAY: i64 = 24 * 3600 * Micros::SECOND;

pub(super) fn options(directory: &Path) -> JournalOptions {
    JournalOptions::of_tests(directory)
}

pub(super) fn open(directory: &Path) -> (Journal, Recovered) {
    Journal::open(options(directory)).unwrap()
}

/// Opens with generations of a few records.
pub(super) fn open_small(directory: &Path, generation_records: u64) -> (Journal, Recovered) {
    Journal::open(JournalOptions { generation_records, ..options(directory) }).unwrap()
}

pub(super) fn route(name: &str) -> RouteId {
    RouteId(name.into())
}

pub(super) fn call(number: u64) -> CallKey {
    CallKey(format!("{number:040x}").into())
}

pub(super) fn now() -> Micros {
    crate::clock::now()
}

/// A create of a call's.
pub(super) fn create_of(
    update: &Update,
    number: u64,
    duration: Option<u64>,
    url: Option<String>,
) -> Outgoing {
    Outgoing {
        route: route("crm"),
        id: update.id.clone(),
        call: call(number),
        ordered: false,
        party: None,
        start: None,
        payload: Payload::Nimbox {
            initiated: "2026-01-02T03:04:05Z".to_owned(),
            source: format!("0212{number:07}"),
            destination: "1001".to_owned(),
            duration,
            url,
        },
    }
}

/// An update of the one leg of a call; `call_id` is the call's number.
pub(super) fn update(call_number: u64, n: u64, state: LegState, start: Micros) -> Update {
    let leg = LegUpdate {
        event: EventName::Ringing,
        call_id: call_number,
        parent_id: None,
        state,
        context: Context::LocalUser,
        direction: Direction::In,
        start,
        connected: None,
        duration: 0,
        cause: String::new(),
        clid: format!("\"Caller {call_number}\" <0212{call_number:07}>"),
        src: Party { number: format!("0212{call_number:07}"), id: 0, name: String::new() },
        dst: Party { number: format!("{}", 1000 + call_number % 50), id: 7, name: "Ana".to_owned() },
        info: String::new(),
        terminated_by: None,
        digit: None,
    };
    Update {
        id: UpdateId(format!("hq.{call_number:014x}.{n}").into()),
        call: call(call_number),
        at: Micros(start.0 + i64::try_from(n).unwrap() * Micros::SECOND),
        body: UpdateBody::Leg(Box::new(leg)),
    }
}

pub(super) fn outgoing(route_name: &str, update: &Update, ordered: bool) -> Outgoing {
    Outgoing {
        route: route(route_name),
        id: update.id.clone(),
        call: update.call.clone(),
        ordered,
        party: None,
        start: None,
        payload: Payload::Webhook { event: "call.ringing".to_owned(), body: body_of(&update.id.0) },
    }
}

/// The payload that belongs to an id, so that a wrong one is noticed.
pub(super) fn body_of(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"check\":{}}}", crc32c::crc32c(id.as_bytes()))
}

/// One update with its message, owed to these routes.
pub(super) fn batch(update: Update, routes: &[&str]) -> Batch {
    Batch {
        messages: vec![Traced {
            calls: vec![update.call.clone()],
            message: TraceMessage {
                at: update.at,
                name: "Newstate".to_owned(),
                headers: vec![("Uniqueid".to_owned(), "1700000000.1".to_owned())],
            },
        }],
        outbox: routes.iter().map(|name| outgoing(name, &update, true)).collect(),
        updates: vec![update],
        ..Batch::default()
    }
}
