//! The sinks as one enum, and what every attempt can mean.

use super::http::{Answer, Failure};
use super::nimbox::NimboxSink;
use super::webhook::WebhookSink;
use crate::journal::{Delivery, Payload};

/// A destination.
#[derive(Debug)]
pub enum Sink {
    /// A CRM's `phonecalls/create`.
    Nimbox(Box<NimboxSink>),
    /// A receiver of VoIPstudio's webhooks.
    Webhook(Box<WebhookSink>),
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it means.
    pub class: Class,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// One line for people; empty when delivered. No secrets, no URLs.
    pub why: String,
    /// The answer's first 1 KiB, secrets removed.
    pub answer: String,
    /// `Retry-After` as it came: seconds or a date (RFC 9110, 10.2.3).
    pub retry_after: Option<String>,
}

/// Every class of answer. What follows from each is `routes::retry`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 2xx; NiMbox also said `error: false`.
    Delivered,
    /// NiMbox has it already.
    Duplicate,
    /// NiMbox said `error: true` about this call.
    Refused,
    /// NiMbox answered 2xx with something else than its JSON, or with half of it.
    Unreadable,
    /// 3xx: never followed.
    Moved,
    /// 400, 422 and other 4xx that find fault with this one request.
    Invalid,
    /// 401, 403, 404, 405, and other 4xx that find fault with us; NiMbox refused the token.
    Unauthorized,
    /// 410: the receiver wants no more.
    Gone,
    /// 429.
    Throttled,
    /// 502, 503, 504: too much for it, or gone for a while.
    Overloaded,
    /// 408, 421, 423, 425, other 5xx.
    Unavailable,
    /// DNS, connect, TLS handshake, timeout, reset.
    Unreachable,
    /// The receiver's certificate is not accepted.
    Certificate,
    /// The address policy refuses.
    Forbidden,
    /// This sink cannot work as it is configured.
    Unusable,
    /// What waits is not of this sink's kind: the route's name was used for another before.
    Mismatch,
}

impl Class {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Moved => "moved",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Gone => "gone",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Forbidden => "forbidden",
            Self::Unusable => "unusable",
            Self::Mismatch => "mismatch",
        }
    }
}

/// Which rules an answer is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The status, then the body.
    Nimbox,
    /// The status alone.
    Webhook,
}

impl Sink {
    /// Makes one attempt. Ends within the sink's timeout.
    pub async fn send(&self, delivery: &Delivery) -> Outcome {
        match (self, &delivery.payload) {
            (Self::Nimbox(sink), Payload::Nimbox { initiated, source, destination, duration, url }) => {
                sink.create(initiated, source, destination, *duration, url.as_deref()).await
            }
            (Self::Webhook(sink), Payload::Webhook { body, .. }) => {
                sink.post(&delivery.id, Some(delivery.sequence), body).await
            }
            (Self::Nimbox(_), Payload::Webhook { .. }) | (Self::Webhook(_), Payload::Nimbox { .. }) => {
                Outcome {
                    class: Class::Mismatch,
                    status: None,
                    why: "this route's name belonged to another kind of sink when the delivery was made"
                        .to_owned(),
                    answer: String::new(),
                    retry_after: None,
                }
            }
        }
    }

    /// Host and port, for logs.
    pub fn host(&self) -> String {
        match self {
            Self::Nimbox(sink) => sink.host(),
            Self::Webhook(sink) => sink.host(),
        }
    }
}

/// Characters kept of a refusal's reasons.
const MAX_WHY: usize = 400;
/// Bytes kept of an answer.
const MAX_EXCERPT: usize = 1024;

/// What an exchange means. `redact` takes the sink's secrets out of a text.
pub fn classify(kind: Kind, exchange: Result<Answer, Failure>, redact: impl Fn(&str) -> String) -> Outcome {
    let answer = match exchange {
        Ok(answer) => answer,
        Err(failure) => {
            let (class, why) = match failure {
                Failure::Unusable(why) => (Class::Unusable, why),
                Failure::Forbidden(why) => (Class::Forbidden, why),
                Failure::Certificate(why) => (Class::Certificate, why),
                Failure::Unreachable(why) => (Class::Unreachable, why),
            };
            let why = redact(&why);
            return Outcome { class, status: None, why, answer: String::new(), retry_after: None };
        }
    };
    let (class, why) = match answer.status {
        200..=299 => match kind {
            Kind::Webhook => (Class::Delivered, String::new()),
            Kind::Nimbox => {
                let (class, why) = super::nimbox::read_answer(&answer);
                // Redacted before it is cut: half a secret would not be recognised.
                (class, redact(&why).chars().take(MAX_WHY).collect())
            }
        },
        status => by_status(status),
    };
    Outcome {
        class,
        status: Some(answer.status),
        why,
        answer: excerpt(&redact(&String::from_utf8_lossy(&answer.body))),
        retry_after: answer.retry_after,
    }
}

fn by_status(status: u16) -> (Class, String) {
    let (class, why) = match status {
        300..=399 => (Class::Moved, "the receiver sends us to another URL, which is not followed"),
        401 => (Class::Unauthorized, "the receiver does not accept our credentials"),
        403 => (Class::Unauthorized, "the receiver forbids us"),
        404 => (Class::Unauthorized, "there is nothing at this URL"),
        405 => (Class::Unauthorized, "this URL takes no such request"),
        402 | 407 | 451 => (Class::Unauthorized, "the receiver refuses us"),
        410 => (Class::Gone, "the receiver says that it wants no more"),
        408 | 421 | 423 | 425 => (Class::Unavailable, "the receiver could not take it now"),
        429 => (Class::Throttled, "the receiver asks us to slow down"),
        400..=499 => (Class::Invalid, "the receiver finds fault with this request"),
        502..=504 => (Class::Overloaded, "the receiver is overloaded or away"),
        _ => (Class::Unavailable, "the receiver failed"),
    };
    (class, format!("{why} (HTTP {status})"))
}

/// The first 1 KiB as text.
fn excerpt(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_EXCERPT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, Failure> {
        Ok(Answer { status, retry_after: None, body: body.into(), whole: true })
    }

    fn cut(status: u16, body: &str) -> Result<Answer, Failure> {
        Ok(Answer { status, retry_after: None, body: body.into(), whole: false })
    }

    #[test]
    fn the_table_of_answers() {
        use Class::*;
        let ok = r#"{"error": false, "contactId": 12334, "phonecallId": 3241}"#;
        let refused = r#"{"error": true, "errors": {"destination": "no se consiguió en la base de datos"}}"#;
        let no_such = r#"{"error": true, "errors": {"destination": "El contacto no existe"}}"#;
        let exists = r#"{"error": true, "errors": {"initiated": "La llamada ya existe"}}"#;
        let exists_en = r#"{"error":true,"errors":{"":"Phonecall already exists"}}"#;
        let named = r#"{"error":true,"phonecallId":3241,"errors":{}}"#;
        let token = r#"{"error": true, "errors": {"token": "invalid"}}"#;
        // exchange, NiMbox, webhook
        let table = [
            (answer(200, ok), Delivered, Delivered),
            (answer(201, ok), Delivered, Delivered),
            (answer(200, "\u{feff}\n{\"error\":false}\n"), Delivered, Delivered),
            (answer(200, exists), Duplicate, Delivered),
            (answer(200, exists_en), Duplicate, Delivered),
            (answer(200, named), Duplicate, Delivered),
            (answer(200, refused), Refused, Delivered),
            (answer(200, no_such), Refused, Delivered),
            (answer(200, r#"{"error":true,"errors":[]}"#), Refused, Delivered),
            (answer(200, r#"{"error":true}"#), Refused, Delivered),
            (answer(200, r#"{"error":true,"errors":"no"}"#), Refused, Delivered),
            (answer(200, token), Unauthorized, Delivered),
            (answer(200, ""), Unreadable, Delivered),
            (answer(204, ""), Unreadable, Delivered),
            (answer(200, "<html>login</html>"), Unreadable, Delivered),
            (answer(200, "{\"error\": fal"), Unreadable, Delivered),
            (answer(200, "{}"), Unreadable, Delivered),
            (answer(200, r#"{"error":"false"}"#), Unreadable, Delivered),
            (answer(200, "[1]"), Unreadable, Delivered),
            (cut(200, ok), Unreadable, Delivered),
            (cut(200, ""), Unreadable, Delivered),
            (answer(301, ""), Moved, Moved),
            (answer(302, ok), Moved, Moved),
            (answer(304, ""), Moved, Moved),
            (answer(308, ""), Moved, Moved),
            (answer(400, refused), Invalid, Invalid),
            (answer(409, ""), Invalid, Invalid),
            (answer(413, ""), Invalid, Invalid),
            (answer(422, ""), Invalid, Invalid),
            (answer(401, ""), Unauthorized, Unauthorized),
            (answer(402, ""), Unauthorized, Unauthorized),
            (answer(403, ""), Unauthorized, Unauthorized),
            (answer(404, ""), Unauthorized, Unauthorized),
            (answer(405, ""), Unauthorized, Unauthorized),
            (answer(407, ""), Unauthorized, Unauthorized),
            (answer(410, ""), Gone, Gone),
            (answer(408, ""), Unavailable, Unavailable),
            (answer(421, ""), Unavailable, Unavailable),
            (answer(425, ""), Unavailable, Unavailable),
            (answer(429, ""), Throttled, Throttled),
            (answer(500, ok), Unavailable, Unavailable),
            (answer(501, ""), Unavailable, Unavailable),
            (answer(502, ""), Overloaded, Overloaded),
            (answer(503, ""), Overloaded, Overloaded),
            (answer(504, ""), Overloaded, Overloaded),
            (cut(503, "x"), Overloaded, Overloaded),
            (answer(599, ""), Unavailable, Unavailable),
            (answer(999, ""), Unavailable, Unavailable),
            (answer(101, ""), Unavailable, Unavailable),
            (Err(Failure::Unreachable("reset".into())), Unreachable, Unreachable),
            (Err(Failure::Certificate("expired".into())), Certificate, Certificate),
            (Err(Failure::Forbidden("link-local".into())), Forbidden, Forbidden),
            (Err(Failure::Unusable("no roots".into())), Unusable, Unusable),
        ];
        for (exchange, nimbox, webhook) in table {
            let shown = format!("{exchange:?}");
            assert_eq!(
                classify(Kind::Nimbox, exchange.clone(), str::to_owned).class,
                nimbox,
                "NiMbox: {shown}"
            );
            let by_webhook = classify(Kind::Webhook, exchange, str::to_owned);
            assert_eq!(by_webhook.class, webhook, "webhook: {shown}");
            assert_eq!(
                by_webhook.why.is_empty(),
                webhook == Delivered,
                "only a failure has a reason: {shown}"
            );
        }
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_kept_without_it() {
        let outcome =
            classify(Kind::Nimbox, answer(200, "token=s3cret?"), |t| t.replace("s3cret", "[token]"));
        assert_eq!(outcome.answer, "token=[token]?");
    }

    #[test]
    fn an_answer_is_kept_up_to_a_kibibyte() {
        let outcome = classify(Kind::Webhook, answer(500, &"ñ".repeat(5000)), str::to_owned);
        assert!((1020..=1024).contains(&outcome.answer.len()), "{}", outcome.answer.len());
    }
}
