//! One line for each request that a receiver got, in columns, each call with a letter and colour of
//! its own.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parsers::Micros;

use super::ladder::clean;
use super::out::{paint, style};
use crate::calls::{Context, EventName, TerminatedBy, Update, UpdateBody};
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
    /// The letter of texts, which have no call.
    texts: Option<usize>,
    /// Creates by time and source: the calls they are of.
    creates: HashMap<(String, String), usize>,
}

impl Lines {
    /// Times are shown in that zone.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, calls: HashMap::new(), texts: None, creates: HashMap::new() }
    }

    /// Says which letter a call has, by its `src_hash`; without it, letters are given in order.
    pub fn call(&mut self, src_hash: &str, index: usize) {
        self.calls.insert(src_hash.to_owned(), index);
    }

    /// Says which letter the next texts have.
    pub fn text(&mut self, index: usize) {
        self.texts = Some(index);
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
        let request = &received.request;
        let (kind, event, colour) = heading(request);
        let mut details = vec![clean(&detail(request))];
        if received.again {
            details.push("again".to_owned());
        }
        if !(200..300).contains(&received.status) {
            details.push(paint(style::BAD, format!("answered {}", received.status)));
        }
        let index = self.index(request);
        self.row(
            received.at,
            index,
            kind,
            paint(colour, format!("{event:<EVENT_WIDTH$}")),
            &clean(&parties(request)),
            &details,
        )
    }

    /// The line of an update, as `tail` shows it.
    pub fn update(&mut self, update: &Update) -> String {
        let index = self.letter_of(&update.call.0);
        let (event, parties, detail) = match &update.body {
            UpdateBody::Leg(leg) => {
                let name = serde_json::to_value(leg.event).ok();
                let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
                let detail = match leg.event {
                    EventName::Hangup => format!("{} s, {}", leg.duration, leg.cause),
                    EventName::Missed | EventName::Failed => leg.cause.clone(),
                    EventName::Dtmf => leg.digit.map(|(_, by)| pressed_by(by)).unwrap_or_default(),
                    EventName::Initial
                    | EventName::Ringing
                    | EventName::Connected
                    | EventName::Hold
                    | EventName::Unhold
                    | EventName::Accepted => String::new(),
                };
                let queue = if leg.context == Context::Queue { "queue " } else { "" };
                let parties = format!(
                    "{} → {queue}{}",
                    named(&leg.src.name, &leg.src.number),
                    named(&leg.dst.name, &leg.dst.number)
                );
                (name.to_owned(), parties, detail)
            }
            UpdateBody::Sms(sms) => {
                ("sms.received".to_owned(), format!("{} → {}", sms.from, sms.to), format!("{:?}", sms.text))
            }
        };
        let (short, colour) = event_style(&event);
        self.row(
            update.at,
            Some(index),
            "update",
            paint(colour, format!("{short:<EVENT_WIDTH$}")),
            &clean(&parties),
            &[clean(&detail)],
        )
    }

    fn row(
        &self,
        at: Micros,
        index: Option<usize>,
        kind: &str,
        event: String,
        parties: &str,
        details: &[String],
    ) -> String {
        let time = paint(style::DIM, self.time(at));
        let letter = index.map_or_else(|| " ".to_owned(), Self::letter);
        let details: Vec<&str> =
            details.iter().map(String::as_str).filter(|detail| !detail.is_empty()).collect();
        let line =
            format!("{time}  {letter}  {kind:<7} {event}  {parties:<PARTIES_WIDTH$}  {}", details.join(", "));
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
        if matches!(request, Request::Webhook { event, .. } if event == "sms.received") {
            return self.texts;
        }
        let call = request.text("src_hash");
        let test = matches!(request, Request::Webhook { event, .. } if event == "test");
        (!call.is_empty() && !test).then(|| self.letter_of(call))
    }

    fn letter_of(&mut self, call: &str) -> usize {
        if self.calls.len() >= MAX_CALLS {
            self.calls.clear();
        }
        let next = self.calls.len();
        *self.calls.entry(call.to_owned()).or_insert(next)
    }
}

fn heading(request: &Request) -> (&'static str, String, Style) {
    match request {
        Request::Create { refused: None, .. } => ("NiMbox", "create".to_owned(), style::GOOD.bold()),
        Request::Create { .. } => ("NiMbox", "refused".to_owned(), style::BAD),
        Request::Delete { .. } => ("NiMbox", "delete".to_owned(), style::WARN),
        Request::Other { .. } => ("other", String::new(), style::DIM),
        Request::Webhook { event, .. } => {
            let (short, colour) = event_style(event);
            ("webhook", short.to_owned(), colour)
        }
    }
}

fn event_style(event: &str) -> (&str, Style) {
    match event.split('.').next_back().unwrap_or_default() {
        short @ "connected" => (short, style::GOOD),
        short @ ("missed" | "failed") => (short, style::BAD),
        short @ ("hold" | "unhold") => (short, style::WARN),
        short @ ("initial" | "ringing" | "test") => (short, style::DIM),
        "received" => ("sms", style::NAME),
        short => (short, Style::new()),
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

/// `Ana Pérez (1001)`: users by name, others by number, and by name where they gave one.
fn party(request: &Request, side: &str) -> String {
    let number = request.text(side);
    named(request.text(&format!("{side}_name")), number)
}

fn pressed_by(side: TerminatedBy) -> String {
    let side = match side {
        TerminatedBy::Caller => "caller",
        TerminatedBy::Callee => "callee",
        TerminatedBy::System => "PBX",
    };
    format!("a digit by the {side}")
}

pub(super) fn named(name: &str, number: &str) -> String {
    let name = name.split(" <").next().unwrap_or(name).trim_matches('"');
    match (name, number) {
        ("", "") => "?".to_owned(),
        ("", number) => number.to_owned(),
        (name, number) if name == number || number.is_empty() => name.to_owned(),
        (name, number) => format!("{name} ({number})"),
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
