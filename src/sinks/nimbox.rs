//! NiMbox: one GET per call to `/direct/items/phonecalls/create`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::http::{Answer, Http, without};
use super::sink::{Class, Kind, Outcome, classify};
use crate::config::Nimbox;

/// One NiMbox account.
#[derive(Debug)]
pub struct NimboxSink {
    http: Http,
    create: Url,
    delete: Url,
    token: SecretString,
    credentials: Option<(String, SecretString)>,
}

/// What a delete said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// How many calls are gone.
    Count(u64),
    /// Nothing was deleted, or nobody knows.
    Failed(Outcome),
}

impl NimboxSink {
    /// From the configuration; nothing is connected yet.
    pub fn new(config: &Nimbox) -> Self {
        let credentials = config
            .username
            .clone()
            .map(|name| (name, config.password.clone().unwrap_or_else(|| SecretString::from(String::new()))));
        Self {
            http: Http::for_nimbox(config.delivery.clone(), credentials.is_some()),
            create: endpoint(&config.delivery.url, "create"),
            delete: endpoint(&config.delivery.url, "delete"),
            token: config.token.clone(),
            credentials,
        }
    }

    /// Host and port, for logs.
    pub fn host(&self) -> String {
        self.http.host()
    }

    /// Whether anybody answers there: a HEAD request to the host's root, which makes no call.
    pub async fn probe(&self) -> Outcome {
        let mut root = self.create.clone();
        root.set_path("/");
        let exchange = self.http.exchange(|client| client.head(root)).await;
        classify(Kind::Webhook, exchange, |text| self.redact(text))
    }

    /// Creates one call; the strings go out as they are, percent-encoded.
    pub async fn create(
        &self,
        initiated: &str,
        source: &str,
        destination: &str,
        duration: Option<u64>,
        url: Option<&str>,
    ) -> Outcome {
        let duration = duration.map(|seconds| seconds.to_string());
        let mut parameters = vec![
            ("token", self.token.expose_secret()),
            ("initiated", initiated),
            ("source", source),
            ("destination", destination),
        ];
        parameters.extend(duration.as_deref().map(|duration| ("duration", duration)));
        parameters.extend(url.map(|url| ("url", url)));
        let exchange = self.get(&self.create, &parameters).await;
        classify(Kind::Nimbox, exchange, |text| self.redact(text))
    }

    /// Deletes the calls between two dates, `YYYY-MM-DD`, **both exclusive**.
    pub async fn delete(&self, from: &str, to: &str) -> Deleted {
        let parameters = [("token", self.token.expose_secret()), ("from", from), ("to", to)];
        let exchange = self.get(&self.delete, &parameters).await;
        let count = exchange.as_ref().ok().and_then(|answer| Some(parse(&answer.body)?.count));
        let outcome = classify(Kind::Nimbox, exchange, |text| self.redact(text));
        match (outcome.class, count.flatten()) {
            (Class::Delivered, Some(count)) => Deleted::Count(count),
            _ => Deleted::Failed(outcome),
        }
    }

    async fn get(&self, endpoint: &Url, parameters: &[(&str, &str)]) -> Result<Answer, super::http::Failure> {
        let mut url = endpoint.clone();
        url.set_query(Some(&query(parameters)));
        self.http
            .exchange(|client| {
                let request = client.get(url).header(reqwest::header::ACCEPT, "application/json");
                match &self.credentials {
                    Some((name, password)) => request.basic_auth(name, Some(password.expose_secret())),
                    None => request,
                }
            })
            .await
    }

    /// Whatever a receiver or an error repeats of our secrets stays here.
    fn redact(&self, text: &str) -> String {
        let mut text = self.http.redact(text);
        let password = self.credentials.as_ref().map(|(_, password)| password.expose_secret());
        for (secret, shown) in [(Some(self.token.expose_secret()), "[token]"), (password, "[password]")] {
            let Some(secret) = secret else { continue };
            text = without(&without(&text, secret, shown), &encode(secret), shown);
        }
        if let Some((name, password)) = &self.credentials {
            // as the Authorization header has it
            let basic = STANDARD_NO_PAD.encode(format!("{name}:{}", password.expose_secret()));
            text = without(&text, &basic, "[password]");
        }
        text
    }
}

/// The URL of an operation below the configured one, which may be the host alone, carry a prefix of
/// the site's, end in a slash, or name the operation already.
fn endpoint(configured: &Url, operation: &str) -> Url {
    const STEPS: [&str; 4] = ["direct", "items", "phonecalls", "create"];
    let path = configured.path().trim_end_matches('/');
    let path = path.strip_suffix("/direct/items/phonecalls/delete").unwrap_or(path);
    let prefix = (1..=STEPS.len())
        .rev()
        .find_map(|steps| path.strip_suffix(&format!("/{}", STEPS[..steps].join("/"))))
        .unwrap_or(path);
    let mut url = configured.clone();
    url.set_path(&format!("{prefix}/direct/items/phonecalls/{operation}"));
    url.set_query(None);
    url.set_fragment(None);
    url
}

fn query(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters: every decoder reads that alike, while
/// a `+` for a space is read as a plus by some.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    error: bool,
    #[serde(default)]
    errors: serde_json::Value,
    #[serde(default)]
    phonecall_id: Option<u64>,
    #[serde(default)]
    count: Option<u64>,
}

fn parse(body: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str(text.trim_start_matches('\u{feff}').trim()).ok()
}

/// What a successful HTTP answer of NiMbox means.
pub(super) fn read_answer(answer: &Answer) -> (Class, String) {
    if !answer.whole {
        return (Class::Unreadable, "NiMbox's answer broke off or is longer than 16 KiB".to_owned());
    }
    let Some(said) = parse(&answer.body) else {
        return (
            Class::Unreadable,
            "the answer is not the JSON that NiMbox sends: is this NiMbox?".to_owned(),
        );
    };
    if !said.error {
        return (Class::Delivered, String::new());
    }
    let messages = messages(&said.errors);
    if said.errors.get("token").is_some() {
        return (Class::Unauthorized, format!("NiMbox does not accept the token: {messages}"));
    }
    if said.phonecall_id.is_some_and(|id| id > 0) || says_it_exists(&messages) {
        return (Class::Duplicate, String::new());
    }
    let messages = if messages.is_empty() { "NiMbox gave no reason".to_owned() } else { messages };
    (Class::Refused, messages)
}

/// `field: message` for each, as one line.
fn messages(errors: &serde_json::Value) -> String {
    use serde_json::Value;
    let line = match errors {
        Value::Object(fields) => {
            let each: Vec<_> = fields
                .iter()
                .map(|(field, message)| match message {
                    Value::String(text) => format!("{field}: {text}"),
                    other @ (Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::Array(_)
                    | Value::Object(_)) => format!("{field}: {other}"),
                })
                .collect();
            each.join("; ")
        }
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => other.to_string(),
    };
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// NiMbox's documentation says that a second create is not made, not how it answers one. These say
/// so in words; "no existe", which is a refusal, is none of them.
fn says_it_exists(messages: &str) -> bool {
    let text = messages.to_lowercase();
    ["ya existe", "ya está regist", "ya esta regist", "duplicad", "duplicate", "already exist"]
        .iter()
        .any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    #[test]
    fn the_operation_is_found_below_any_way_to_write_the_url() {
        for (configured, expected) in [
            ("https://crm.example.com", "https://crm.example.com/direct/items/phonecalls/create"),
            ("https://crm.example.com/", "https://crm.example.com/direct/items/phonecalls/create"),
            ("https://crm.example.com:8443/", "https://crm.example.com:8443/direct/items/phonecalls/create"),
            ("https://x.example.com/crm", "https://x.example.com/crm/direct/items/phonecalls/create"),
            ("https://x.example.com/crm//", "https://x.example.com/crm/direct/items/phonecalls/create"),
            ("https://x.example.com/crm/direct/", "https://x.example.com/crm/direct/items/phonecalls/create"),
            ("https://x.example.com/direct/items", "https://x.example.com/direct/items/phonecalls/create"),
            (
                "https://x.example.com/direct/items/phonecalls",
                "https://x.example.com/direct/items/phonecalls/create",
            ),
            (
                "https://x.example.com/direct/items/phonecalls/create?token=no#x",
                "https://x.example.com/direct/items/phonecalls/create",
            ),
            (
                "https://x.example.com/direct/items/phonecalls/delete",
                "https://x.example.com/direct/items/phonecalls/create",
            ),
            (
                "https://x.example.com/redirect",
                "https://x.example.com/redirect/direct/items/phonecalls/create",
            ),
        ] {
            assert_eq!(endpoint(&configured.parse().unwrap(), "create").as_str(), expected, "{configured}");
        }
    }

    #[test]
    fn every_character_outside_the_unreserved_is_encoded() {
        assert_eq!(encode("+58 414-555.01_00~"), "%2B58%20414-555.01_00~");
        assert_eq!(encode("ñ&=?#/:;%'\"<>"), "%C3%B1%26%3D%3F%23%2F%3A%3B%25%27%22%3C%3E");
    }

    #[test]
    fn what_is_encoded_stays_so_in_the_url() {
        let mut url: Url = "https://x/".parse().unwrap();
        let text: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        url.set_query(Some(&query(&[("a", &text)])));
        assert_eq!(url.query().unwrap(), format!("a={}", encode(&text)));
        assert_eq!(url.query_pairs().next().unwrap().1, text);
    }
}
