//! Webhooks: VoIPstudio's JSON by POST, signed by Standard Webhooks.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use parsers::Micros;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest, Sha256};

use super::http::Http;
use super::signature::{self, KeyError, SigningKey};
use super::sink::{Class, Kind, Outcome, classify};
use crate::calls::UpdateId;
use crate::config::Webhook;
use crate::hex::hex;

/// One receiver.
pub struct WebhookSink {
    http: Http,
    url: url::Url,
    keys: Result<Keys, KeyError>,
    /// Until when the previous secret signs too, microseconds since 1970.
    previous_until: AtomicI64,
}

struct Keys {
    current: Option<SigningKey>,
    /// With a name that tells it from others and does not tell what it is.
    previous: Option<(SigningKey, String)>,
}

impl Keys {
    fn new(config: &Webhook) -> Result<Self, KeyError> {
        let parse = |secret: &SecretString| SigningKey::parse(secret.expose_secret());
        let name = |secret: &SecretString| hex(&Sha256::digest(secret.expose_secret().as_bytes())[..8]);
        Ok(Self {
            current: config.secret.as_ref().map(parse).transpose()?,
            previous: match &config.secret_previous {
                Some(secret) => Some((parse(secret)?, name(secret))),
                None => None,
            },
        })
    }
}

impl fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the URL may be secret
        f.debug_struct("WebhookSink").field("host", &self.host()).finish_non_exhaustive()
    }
}

impl WebhookSink {
    /// From the configuration; nothing is connected yet. A secret that is none shows at each send.
    pub fn new(config: &Webhook) -> Self {
        let client = config.client_cert_file.clone().zip(config.client_key_file.clone());
        Self {
            http: Http::for_webhook(config.delivery.clone(), client),
            url: config.delivery.url.clone(),
            keys: Keys::new(config),
            previous_until: AtomicI64::new(i64::MAX),
        }
    }

    /// What `secret_previous` is remembered by, where there is one.
    pub fn previous_key(&self) -> Option<&str> {
        let (_, name) = self.keys.as_ref().ok()?.previous.as_ref()?;
        Some(name)
    }

    /// From then on the previous secret signs no more.
    pub fn end_previous_at(&self, at: Micros) {
        self.previous_until.store(at.0, Ordering::Relaxed);
    }

    /// What the receiver verifies `v1a` signatures by.
    pub fn public_key(&self) -> Option<String> {
        self.keys.as_ref().ok()?.current.as_ref()?.public()
    }

    /// Host and port, for logs.
    pub fn host(&self) -> String {
        self.http.host()
    }

    /// Whether anybody answers there: a HEAD request, which brings nothing.
    pub async fn probe(&self) -> Outcome {
        let exchange = self.http.exchange(|client| client.head(self.url.clone())).await;
        classify(Kind::Webhook, exchange, |text| text.to_owned())
    }

    /// Posts one body. The id is the same at every attempt; the timestamp is the attempt's.
    /// `sequence` rises within a call; a test event has none.
    pub async fn post(&self, id: &UpdateId, sequence: Option<u64>, body: &str) -> Outcome {
        let keys = match &self.keys {
            Ok(keys) => keys,
            Err(error) => {
                return Outcome {
                    class: Class::Unusable,
                    status: None,
                    why: error.to_string(),
                    answer: String::new(),
                    retry_after: None,
                };
            }
        };
        let now = crate::clock::now();
        let timestamp = now.secs();
        let rotating = now.0 < self.previous_until.load(Ordering::Relaxed);
        let previous = keys.previous.as_ref().filter(|_| rotating).map(|(key, _)| key);
        let keys: Vec<&SigningKey> = keys.current.iter().chain(previous).collect();
        let exchange = self
            .http
            .exchange(|client| {
                let mut request = client
                    .post(self.url.clone())
                    .header(CONTENT_TYPE, "application/json")
                    .header("webhook-id", &*id.0)
                    .header("webhook-timestamp", timestamp);
                if !keys.is_empty() {
                    let signatures = signature::header(keys, &id.0, timestamp, body.as_bytes());
                    request = request.header("webhook-signature", signatures);
                }
                if let Some(sequence) = sequence {
                    request = request.header("callpost-sequence", sequence);
                }
                request.body(body.to_owned())
            })
            .await;
        classify(Kind::Webhook, exchange, |text| self.http.redact(text))
    }
}
