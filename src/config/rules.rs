//! Readers of values with rules of their own: patterns, zones, URLs, names.

use jiff::tz::TimeZone;
use regex::Regex;
use url::{Host, Url};

use super::read::{Section, suggestion};

/// What `events` of a webhook can name.
const EVENTS: [&str; 11] = [
    "call.state",
    "call.initial",
    "call.ringing",
    "call.missed",
    "call.connected",
    "call.failed",
    "call.hangup",
    "call.hold",
    "call.unhold",
    "call.dtmf",
    "sms.received",
];

/// Where plain http is allowed once `allow_http` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    /// NiMbox, on a network of one's own.
    Anywhere,
    /// Webhooks, for trying things.
    LoopbackAddress,
}

impl Section<'_> {
    pub fn regex(&self, key: &str) -> Option<Regex> {
        let pattern = self.text(key)?;
        match Regex::new(&pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                // the engine's own text shows where, with a caret
                self.fault(
                    key,
                    error.to_string(),
                    "correct the regular expression; single quotes keep backslashes",
                );
                None
            }
        }
    }

    /// A replacement in which each `$group` exists in the pattern.
    pub fn replacement(&self, key: &str, pattern: Option<&Regex>) -> Option<String> {
        let text = self.text(key)?;
        let Some(pattern) = pattern else { return Some(text) };
        for name in groups(&text) {
            let exists = name.parse::<usize>().map_or_else(
                |_| pattern.capture_names().flatten().any(|known| known == name),
                |number| number < pattern.captures_len(),
            );
            if !exists {
                let remedy = format!("the pattern has the groups $0 to ${}", pattern.captures_len() - 1);
                self.fault(key, format!("the pattern has no group {name:?}"), remedy);
                return None;
            }
        }
        Some(text)
    }

    pub fn zone(&self, key: &str) -> Option<TimeZone> {
        let name = self.text(key)?;
        if name == "UTC" {
            return Some(TimeZone::UTC);
        }
        let zone = TimeZone::get(&name).ok();
        if zone.is_none() {
            let problem = format!("{name:?} is not a time zone of this host");
            let remedy = match jiff::tz::db().available().find(|known| known.as_str().eq_ignore_ascii_case(&name)) {
                Some(known) => format!("did you mean {:?}?", known.as_str()),
                None => "write an IANA name, as \"America/Caracas\" (`timedatectl list-timezones`; package tzdata)".to_owned(),
            };
            self.fault(key, problem, remedy);
        }
        zone
    }

    /// The address of a sink.
    pub fn sink_url(&self, key: &str, allow_http: bool, plain: PlainHttp) -> Option<Url> {
        let text = self.word(key)?;
        // the URL itself may hold a secret: a fault does not repeat it
        let url = match Url::parse(&text) {
            Ok(url) => url,
            Err(error) => {
                self.fault(key, format!("is not a URL: {error}"), "write https://HOST/PATH");
                return None;
            }
        };
        let before = self.reader.faults.borrow().len();
        match url.scheme() {
            "https" => {}
            "http" if !allow_http => {
                let remedy = match plain {
                    PlainHttp::Anywhere => "use https; on a network of your own, set allow_http = true",
                    PlainHttp::LoopbackAddress => {
                        "use https; only http://127.0.0.1 can be had, with allow_http = true"
                    }
                };
                self.fault(key, "is http, so everybody on the way can read and change it", remedy);
            }
            "http" if plain == PlainHttp::LoopbackAddress && !is_loopback_address(&url) => {
                let problem =
                    "is http to another host; a webhook's allow_http is for this host's own address alone";
                self.fault(key, problem, "use https; for trying things, http://127.0.0.1:PORT/");
            }
            "http" => {}
            other => self.fault(
                key,
                format!("{other} is not a scheme that can be delivered to"),
                "write https://HOST/PATH",
            ),
        }
        if url.host().is_none() {
            self.fault(key, "has no host", "write https://HOST/PATH");
        }
        if !url.username().is_empty() || url.password().is_some() {
            let remedy = match plain {
                PlainHttp::Anywhere => "remove it; use the keys `username` and `password_file`",
                PlainHttp::LoopbackAddress => "remove it; use `headers` with Authorization_file",
            };
            self.fault(key, "has a user or password in it", remedy);
        }
        if url.fragment().is_some() {
            self.fault(key, "has a fragment, which no server ever sees", "remove `#` and what follows it");
        }
        if plain == PlainHttp::Anywhere && url.query().is_some() {
            self.fault(key, "has a query", "write only https://HOST; the token has its own key");
        }
        (self.reader.faults.borrow().len() == before).then_some(url)
    }

    /// The events of a webhook.
    pub fn events(&self, key: &str) -> Option<Vec<String>> {
        let events = self.texts(key)?;
        if events.is_empty() {
            self.fault(
                key,
                "is empty, so nothing would be sent",
                "name events, or [\"call.state\"] for every state",
            );
            return None;
        }
        let mut right = true;
        for event in &events {
            if EVENTS.contains(&event.as_str()) {
                continue;
            }
            right = false;
            let by_word = || EVENTS.into_iter().find(|known| known.split('.').nth(1) == Some(event.as_str()));
            let remedy = match suggestion(event, EVENTS.into_iter()).or_else(by_word) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("events are {}", EVENTS.join(", ")),
            };
            self.fault(key, format!("{event:?} is not an event"), remedy);
        }
        right.then_some(events)
    }

    /// `pbx.name`.
    pub fn pbx_name(&self, key: &str) -> Option<String> {
        let name = self.text(key)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let near = pbx_name_like(&name);
            let remedy = if near.is_empty() {
                "for example \"hq\"".to_owned()
            } else {
                format!("for example {near:?}")
            };
            let problem = format!("{name:?} is not 1 to 32 of a-z, 0-9 and -");
            self.fault(key, problem, remedy);
            return None;
        }
        Some(name)
    }

    /// A route's name: short, and safe in files, metrics and commands.
    pub fn route_name(&self, key: &str) -> Option<String> {
        let name = self.text(key)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let problem = format!("{name:?} is not 1 to 32 letters, digits, or - _ .");
            self.fault(key, problem, "give it a short name, as \"crm\"");
            return None;
        }
        Some(name)
    }
}

/// The nearest valid `pbx.name`.
fn pbx_name_like(text: &str) -> String {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(32)
        .collect();
    plain.trim_matches('-').to_owned()
}

fn is_loopback_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

/// The group names of a replacement text.
fn groups(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some(braced) = rest.strip_prefix('{') {
            if let Some(end) = braced.find('}') {
                names.push(braced[..end].to_owned());
                rest = &braced[end..];
            }
        } else {
            // a number is one digit, as in Perl: `$10212` is group 1 and the text 0212
            let digit = rest.chars().next().filter(char::is_ascii_digit).map(String::from);
            let word = || rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            names.extend(Some(digit.unwrap_or_else(word)).filter(|name: &String| !name.is_empty()));
        }
    }
    names
}
