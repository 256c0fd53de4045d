//! What a call must come out as, in plain text, and whether what came out is that.
//!
//! ```text
//! # a comment
//! LU 1001 in (dst=5551000): initial, ringing, connected, hangup(t_cause=Normal Clearing, duration=2)
//! LU - in: initial, missed                        # nobody of ours: an inbound call that reached no one
//! Q support: initial, ringing, connected(dst_id=10001), hangup(terminated_by=caller)
//! SMS from=1001 to=1002 text="hola"
//! NIMBOX +0 584141234567 -> 5551000 3s ANSWERED   # seconds since the call's first CDR
//! ```
//! A line is one `call_id`; its events are all of them, in order. Attributes that are named are
//! compared as text: those after the head on every event, those after an event on that one.
//! `accepted` has no webhook and counts only where updates are compared. The word after a create
//! is the disposition of its row, for the reader. Users are 1001 to 1009 with ids 10001 to 10009.

use std::fmt::{self, Write};

use serde_json::Value;

/// One file of `fixtures/expected/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectation {
    /// Legs and queue visits, each with one `call_id`.
    pub legs: Vec<Leg>,
    /// Texts.
    pub texts: Vec<Text>,
    /// Creates, in order of time.
    pub creates: Vec<Create>,
}

/// What one `call_id` goes through.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    /// Who it is.
    pub who: Who,
    /// Attributes of every event.
    pub attributes: Attributes,
    /// `initial`, `ringing`… with their own attributes.
    pub events: Vec<(String, Attributes)>,
}

/// Attribute and value, as text.
pub type Attributes = Vec<(String, String)>;

/// Whose leg it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// A user (`None`: nobody of ours) and the direction.
    User(Option<String>, String),
    /// A queue by name.
    Queue(String),
}

/// A text received.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// `from_no`.
    pub from: String,
    /// `to_no`.
    pub to: String,
    /// `text`.
    pub text: String,
}

/// A NiMbox create.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// Seconds: since the call's first CDR when expected, since any epoch when got.
    pub initiated: i64,
    /// `source`.
    pub source: String,
    /// `destination`.
    pub destination: String,
    /// `duration`, seconds.
    pub duration: i64,
}

/// How exactly times are compared; live runs vary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// Seconds that a duration may differ.
    pub duration: i64,
    /// Seconds that a create's start may differ.
    pub start: i64,
}

impl Expectation {
    /// Reads the notation.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut expectation = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            expectation.line(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
        }
        Ok(expectation)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (kind, rest) = line.split_once(' ').ok_or("nothing after the first word")?;
        match kind {
            "LU" | "Q" => self.legs.push(leg(kind, rest)?),
            "SMS" => self.texts.push(text(rest)?),
            "NIMBOX" => self.creates.push(create(rest)?),
            _ => return Err("begins with none of LU, Q, SMS, NIMBOX".to_owned()),
        }
        Ok(())
    }

    /// Compares with the webhooks that came, in the order in which they came.
    pub fn check_webhooks(&self, bodies: &[Value], tolerance: Tolerance) -> Result<(), Differences> {
        let mut differences = Differences::default();
        let mut sequences: Vec<Vec<&Value>> = Vec::new();
        let mut texts: Vec<&Value> = Vec::new();
        for body in bodies {
            if body["event_name"] == "sms.received" {
                texts.push(body);
                continue;
            }
            match sequences
                .iter_mut()
                .find(|known| known.first().is_some_and(|first| first["call_id"] == body["call_id"]))
            {
                Some(known) => known.push(body),
                None => sequences.push(vec![body]),
            }
        }
        // webhooks have no `accepted`: it is expected only where some came or could
        let with_accepted = bodies.iter().any(|body| body["event_name"] == "call.accepted");
        for leg in &self.legs {
            // Calls do not wait for each other, so two legs of one user may come in either order.
            let candidates = sequences.iter().enumerate().filter(|(_, sequence)| leg.is(sequence));
            let compared = candidates.map(|(index, sequence)| {
                let mut found = Differences::default();
                leg.compare(sequence, with_accepted, tolerance, &mut found);
                (index, found)
            });
            match compared.min_by_key(|(_, found)| found.0.len()) {
                Some((index, found)) => {
                    sequences.remove(index);
                    differences.0.extend(found.0);
                }
                None => differences.add(format_args!("missing: {}", leg.describe())),
            }
        }
        for sequence in sequences {
            differences.add(format_args!("not expected: {}", describe(&sequence)));
        }
        for text in &self.texts {
            let found = texts.iter().position(|body| {
                body["from_no"] == *text.from && body["to_no"] == *text.to && body["text"] == *text.text
            });
            match found {
                Some(found) => drop(texts.remove(found)),
                None => differences.add(format_args!("missing: {text:?}")),
            }
        }
        for body in texts {
            differences.add(format_args!("not expected: {body}"));
        }
        differences.into_result()
    }

    /// Compares with the creates that were made. `base` is the call's first CDR in the same epoch as
    /// `initiated`; without it the first create is where it is expected.
    pub fn check_creates(
        &self,
        got: &[Create],
        base: Option<i64>,
        tolerance: Tolerance,
    ) -> Result<(), Differences> {
        let mut differences = Differences::default();
        let mut got = got.to_vec();
        got.sort_by_key(|create| create.initiated);
        let first = got.iter().map(|create| create.initiated).min().unwrap_or(0);
        let expected_first = self.creates.iter().map(|create| create.initiated).min().unwrap_or(0);
        let base = base.unwrap_or(first - expected_first);
        for expected in &self.creates {
            let found = got.iter().position(|create| {
                create.source == expected.source
                    && create.destination == expected.destination
                    && (create.initiated - base - expected.initiated).abs() <= tolerance.start
                    && (create.duration - expected.duration).abs() <= tolerance.duration
            });
            match found {
                Some(found) => drop(got.remove(found)),
                None => differences.add(format_args!("missing: {expected}")),
            }
        }
        for mut create in got {
            create.initiated -= base;
            differences.add(format_args!("not expected: {create}"));
        }
        differences.into_result()
    }
}

impl Leg {
    fn is(&self, sequence: &[&Value]) -> bool {
        let Some(first) = sequence.first() else { return false };
        match &self.who {
            Who::Queue(name) => first["context"] == "QUEUE" && first["dst_name"] == **name,
            Who::User(user, direction) => {
                let id = if direction == "in" { &first["dst_id"] } else { &first["src_id"] };
                first["context"] == "LOCAL_USER"
                    && first["destination"] == **direction
                    && *id == *user.as_deref().map_or("0".to_owned(), user_id)
            }
        }
    }

    fn compare(
        &self,
        got: &[&Value],
        with_accepted: bool,
        tolerance: Tolerance,
        differences: &mut Differences,
    ) {
        let names: Vec<&str> = got.iter().map(|body| short_name(body)).collect();
        let wanted: Vec<&(String, Attributes)> =
            self.events.iter().filter(|(name, _)| with_accepted || name != "accepted").collect();
        let wanted_names: Vec<&str> = wanted.iter().map(|(name, _)| &**name).collect();
        if names != wanted_names {
            return differences.add(format_args!(
                "{}: expected {}, got {}",
                self.head(),
                wanted_names.join(", "),
                names.join(", ")
            ));
        }
        for (body, (name, own)) in got.iter().zip(wanted) {
            for (attribute, expected) in self.attributes.iter().chain(own) {
                let value = as_text(&body[&**attribute]);
                let close = matches!(
                    (seconds(attribute, &value), seconds(attribute, expected)),
                    (Some(got), Some(expected)) if (got - expected).abs() <= tolerance.duration
                );
                if value != *expected && !close {
                    differences.add(format_args!(
                        "{}: {name}: {attribute} is {value:?}, expected {expected:?}",
                        self.head()
                    ));
                }
            }
        }
    }

    fn head(&self) -> String {
        match &self.who {
            Who::Queue(name) => format!("Q {name}"),
            Who::User(user, direction) => format!("LU {} {direction}", user.as_deref().unwrap_or("-")),
        }
    }

    fn describe(&self) -> String {
        let events: Vec<&str> = self.events.iter().map(|(name, _)| &**name).collect();
        format!("{}: {}", self.head(), events.join(", "))
    }
}

/// What is not as expected, one line each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, line: fmt::Arguments<'_>) {
        self.0.push(line.to_string());
    }

    fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl fmt::Display for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NIMBOX +{} {} -> {} {}s", self.initiated, self.source, self.destination, self.duration)
    }
}

/// `10001` for `1001`.
fn user_id(number: &str) -> String {
    number.parse::<u64>().map_or_else(|_| number.to_owned(), |number| (number + 9000).to_string())
}

/// Attributes that vary as calls do.
fn seconds(attribute: &str, value: &str) -> Option<i64> {
    match attribute {
        "duration" => value.parse().ok(),
        "info" => value.strip_prefix("holdtime=")?.parse().ok(),
        _ => None,
    }
}

fn short_name(body: &Value) -> &str {
    body["event_name"].as_str().unwrap_or_default().trim_start_matches("call.")
}

fn describe(sequence: &[&Value]) -> String {
    let mut line = String::new();
    if let Some(first) = sequence.first() {
        let _ = write!(
            line,
            "{} {} src={}/{} dst={}/{}: ",
            as_text(&first["context"]),
            as_text(&first["destination"]),
            as_text(&first["src"]),
            as_text(&first["src_id"]),
            as_text(&first["dst"]),
            as_text(&first["dst_id"])
        );
    }
    let names: Vec<&str> = sequence.iter().map(|body| short_name(body)).collect();
    line + &names.join(", ")
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn leg(kind: &str, rest: &str) -> Result<Leg, String> {
    let colon = top_level(rest, ':').ok_or("no colon after who it is")?;
    let (head, events) = (rest[..colon].trim(), rest[colon + 1..].trim());
    let (head, attributes) = with_attributes(head)?;
    let who = match kind {
        "Q" => Who::Queue(head.to_owned()),
        _ => {
            let (user, direction) = head.split_once(' ').ok_or("no direction")?;
            Who::User((user != "-").then(|| user.to_owned()), direction.trim().to_owned())
        }
    };
    let mut parsed = Vec::new();
    let mut left = events;
    while !left.is_empty() {
        let end = top_level(left, ',').unwrap_or(left.len());
        let (name, own) = with_attributes(left[..end].trim())?;
        parsed.push((name.to_owned(), own));
        left = left.get(end + 1..).unwrap_or_default().trim();
    }
    Ok(Leg { who, attributes, events: parsed })
}

/// Where `wanted` first stands outside parentheses.
fn top_level(text: &str, wanted: char) -> Option<usize> {
    let mut depth = 0_i32;
    text.char_indices().find_map(|(index, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0 && c == wanted).then_some(index)
    })
}

/// `name (a=b, c=d)`; a comma within a value is one that no `key=` follows.
fn with_attributes(text: &str) -> Result<(&str, Attributes), String> {
    let Some((name, rest)) = text.split_once('(') else { return Ok((text, Vec::new())) };
    let inner = rest.strip_suffix(')').ok_or("a parenthesis is not closed")?;
    let mut attributes: Attributes = Vec::new();
    for part in inner.split(", ") {
        let key =
            part.split_once('=').filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        match (key, attributes.last_mut()) {
            (Some((key, value)), _) => attributes.push((key.to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                value.push_str(", ");
                value.push_str(part);
            }
            (None, None) => return Err("attributes are key=value".to_owned()),
        }
    }
    Ok((name.trim(), attributes))
}

fn text(rest: &str) -> Result<Text, String> {
    let rest = rest.strip_prefix("from=").ok_or("no from=")?;
    let (from, rest) = rest.split_once(" to=").ok_or("no to=")?;
    let (to, text) = rest.split_once(" text=").ok_or("no text=")?;
    let text = serde_json::from_str(text).map_err(|error| format!("text is no JSON string: {error}"))?;
    Ok(Text { from: from.to_owned(), to: to.to_owned(), text })
}

fn create(rest: &str) -> Result<Create, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [offset, source, "->", destination, seconds, ..] = words.as_slice() else {
        return Err("is not +N SOURCE -> DESTINATION Ns".to_owned());
    };
    let number = |text: &str| text.parse::<i64>().map_err(|error| format!("{text}: {error}"));
    Ok(Create {
        initiated: number(offset.trim_start_matches('+'))?,
        source: (*source).to_owned(),
        destination: (*destination).to_owned(),
        duration: number(seconds.trim_end_matches('s'))?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;
    use serde_json::json;

    fn body(call_id: u64, event: &str, more: Value) -> Value {
        let mut body = json!({
            "call_id": call_id, "event_name": event, "context": "LOCAL_USER", "destination": "in",
            "src": "trunk", "src_id": "0", "dst": "5551000", "dst_id": "10001", "duration": 0,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        body
    }

    const CALL: &str =
        "LU 1001 in (dst=5551000): initial, missed(t_cause=User alerting, no answer, duration=2)";

    #[test]
    fn every_difference_is_found_and_named() {
        let expected = Expectation::parse(CALL).unwrap();
        let missed = |more| body(7, "call.missed", more);
        let good = [
            body(7, "call.initial", json!({})),
            missed(json!({"t_cause": "User alerting, no answer", "duration": 3})),
        ];
        let lenient = Tolerance { duration: 1, start: 1 };
        assert_eq!(expected.check_webhooks(&good, lenient), Ok(()));

        let check =
            |bodies: &[Value]| expected.check_webhooks(bodies, Tolerance::default()).unwrap_err().to_string();
        assert!(check(&good).contains("duration is \"3\", expected \"2\""));
        assert!(check(&[]).contains("missing: LU 1001 in: initial, missed"));
        assert!(check(&good[..1]).contains("expected initial, missed, got initial"));
        let doubled = [good[0].clone(), good[0].clone(), good[1].clone()];
        assert!(check(&doubled).contains("got initial, initial, missed"));
        let phantom = [good[0].clone(), good[1].clone(), body(8, "call.initial", json!({"dst_id": "10002"}))];
        assert!(
            check(&phantom).contains("not expected: LOCAL_USER in src=trunk/0 dst=5551000/10002: initial")
        );
    }

    #[test]
    fn creates_are_compared_by_key_and_duration() {
        let expected =
            Expectation::parse("NIMBOX +0 12 -> 5551000 3s ANSWERED\nNIMBOX +4 12 -> 5551000 1s ANSWERED")
                .unwrap();
        let create = |initiated, duration| Create {
            initiated,
            source: "12".into(),
            destination: "5551000".into(),
            duration,
        };
        assert_eq!(
            expected.check_creates(&[create(104, 1), create(100, 3)], None, Tolerance::default()),
            Ok(())
        );
        assert_eq!(
            expected.check_creates(&[create(104, 1), create(100, 3)], Some(100), Tolerance::default()),
            Ok(())
        );
        let wrong = expected.check_creates(&[create(100, 3)], None, Tolerance::default()).unwrap_err();
        assert!(wrong.to_string().contains("missing: NIMBOX +4 12 -> 5551000 1s"));
        let wrong = expected.check_creates(
            &[create(100, 3), create(103, 1), create(104, 1)],
            None,
            Tolerance::default(),
        );
        assert!(wrong.unwrap_err().to_string().contains("not expected: NIMBOX +3"));
        assert!(
            expected
                .check_creates(
                    &[create(101, 3), create(104, 1)],
                    Some(100),
                    Tolerance { duration: 0, start: 1 }
                )
                .is_ok()
        );
    }

    #[test]
    fn texts_and_faults_of_the_notation() {
        let expected = Expectation::parse("SMS from=1 to=2 text=\"a\\nb\"").unwrap();
        assert_eq!(expected.texts[0].text, "a\nb");
        for wrong in
            ["LU 1001: initial", "LU 1001 in initial", "XX a", "SMS from=1", "NIMBOX +0 a b 1s", "Q s: a(b"]
        {
            assert!(Expectation::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(user_id("1001"), "10001");
        assert_eq!(user_id("1009"), "10009");
    }
}
