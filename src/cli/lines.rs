//! One line for each request that a receiver got, in columns, each call with a letter and colour of
//! its own.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parsers::Micros;

use super::out::{paint, style};
use crate::receiver::{Received, Request};

const CALL_COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
];

/// Letters are given to this many calls, then anew.
const MAX_CALLS: usize = 10_000;
const EVENT_WIDTH: usize = 9;
const PARTIES_WIDTH: usize = 44;

/// Remembers which call has which letter.
#[derive(Debug)]
pub struct Lines {
    zone: TimeZone,
    calls: HashMap<String, usize>,
    /// Creates by time and source: the calls they are of.
    creates: HashMap<(String, String), usize>,
}

impl Lines {
    /// Times are shown in that zone.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, calls: HashMap::new(), creates: HashMap::new() }
    }

    /// Says which letter a call has, by its `src_hash`; without it, letters are given in order.
    pub fn call(&mut self, src_hash: &str, index: usize) {
        self.calls.insert(src_hash.to_owned(), index);
    }

    /// Says which letter a create has.
    pub fn create(&mut self, initiated: &str, source: &str, index: usize) {
        self.creates.insert((initiated.to_owned(), source.to_owned()), index);
    }

    /// `A`, in its colour.
    pub fn letter(index: usize) -> String {
        let letter = char::from(b'A' + u8::try_from(index % 26).unwrap_or_default());
        let colour = CALL_COLOURS[index % CALL_COLOURS.len()];
        paint(colour.on_default().bold(), letter)
    }

    /// The line, coloured.
    pub fn line(&mut self, received: &Received) -> String {
        let time = paint(style::DIM, self.time(received.at));
        let letter = self.index(&received.request).map_or_else(|| " ".to_owned(), Self::letter);
        let (kind, event, colour) = heading(&received.request);
        let parties = parties(&received.request);
        let mut detail = vec![detail(&received.request)];
        if received.again {
            detail.push("again".to_owned());
        }
        if !(200..300).contains(&received.status) {
            detail.push(paint(style::BAD, format!("answered {}", received.status)));
        }
        detail.retain(|part| !part.is_empty());
        let event = paint(colour, format!("{event:<EVENT_WIDTH$}"));
        let line =
            format!("{time}  {letter}  {kind:<7} {event}  {parties:<PARTIES_WIDTH$}  {}", detail.join(", "));
        line.trim_end().to_owned()
    }

    /// `12:31:02.145`.
    pub fn time(&self, at: Micros) -> String {
        let at = Timestamp::from_microsecond(at.0).unwrap_or_default().to_zoned(self.zone.clone());
        at.strftime("%H:%M:%S%.3f").to_string()
    }

    fn index(&mut self, request: &Request) -> Option<usize> {
        if let Request::Create { initiated, source, .. } = request {
            return self.creates.get(&(initiated.trim_end_matches('Z').to_owned(), source.clone())).copied();
        }
        let call = request.text("src_hash");
        if call.is_empty() {
            return None;
        }
        if self.calls.len() >= MAX_CALLS {
            self.calls.clear();
        }
        let next = self.calls.len();
        Some(*self.calls.entry(call.to_owned()).or_insert(next))
    }
}

fn heading(request: &Request) -> (&'static str, String, Style) {
    match request {
        Request::Create { refused: None, .. } => ("NiMbox", "create".to_owned(), style::GOOD.bold()),
        Request::Create { .. } => ("NiMbox", "refused".to_owned(), style::BAD),
        Request::Delete { .. } => ("NiMbox", "delete".to_owned(), style::WARN),
        Request::Other { .. } => ("other", String::new(), style::DIM),
        Request::Webhook { event, .. } => {
            let short = event.split('.').next_back().unwrap_or_default();
            let colour = match short {
                "connected" => style::GOOD,
                "missed" | "failed" => style::BAD,
                "hold" | "unhold" => style::WARN,
                "received" => style::NAME,
                "initial" | "ringing" | "test" => style::DIM,
                _ => Style::new(),
            };
            let shown = if event == "sms.received" { "sms" } else { short };
            ("webhook", shown.to_owned(), colour)
        }
    }
}

fn parties(request: &Request) -> String {
    match request {
        Request::Create { source, destination, .. } => format!("{source} → {destination}"),
        Request::Delete { from, to, .. } => format!("after {from}, before {to}"),
        Request::Other { method, path } => format!("{method} {path}"),
        Request::Webhook { event, .. } if event == "sms.received" => {
            format!("{} → {}", request.text("from_no"), request.text("to_no"))
        }
        Request::Webhook { .. } => {
            let queue = if request.text("context") == "QUEUE" { "queue " } else { "" };
            format!("{} → {queue}{}", party(request, "src"), party(request, "dst"))
        }
    }
}

/// `Ana Pérez 1001`: users by name, others by number, and by name where they gave one.
fn party(request: &Request, side: &str) -> String {
    let number = request.text(side);
    let name = request.text(&format!("{side}_name"));
    let name = name.split(" <").next().unwrap_or(name).trim_matches('"');
    match (name, number) {
        ("", "") => "?".to_owned(),
        ("", number) => number.to_owned(),
        (name, number) if name == number || number.is_empty() => name.to_owned(),
        (name, number) => format!("{name} {number}"),
    }
}

fn detail(request: &Request) -> String {
    match request {
        Request::Create { duration, refused, url, .. } => {
            let duration = duration.map(|seconds| format!("{seconds} s"));
            let refused = refused.as_ref().map(|field| format!("for its {field}"));
            let url = url.as_ref().map(|_| "with a link".to_owned());
            duration.into_iter().chain(url).chain(refused).collect::<Vec<_>>().join(", ")
        }
        Request::Delete { count, .. } => format!("{count} deleted"),
        Request::Other { .. } => String::new(),
        Request::Webhook { event, .. } => match event.as_str() {
            "call.hangup" => {
                let by = request.text("terminated_by");
                let by = if by.is_empty() { String::new() } else { format!(", by {by}") };
                format!("{} s, {}{by}", request.number("duration").unwrap_or(0), request.text("t_cause"))
            }
            "call.missed" | "call.failed" => request.text("t_cause").to_owned(),
            "call.dtmf" => format!("{} by {}", request.text("digit"), request.text("digit_by")),
            "sms.received" => format!("{:?}", request.text("text")),
            _ => String::new(),
        },
    }
}
