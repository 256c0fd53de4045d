//! Webhooks: VoIPstudio's JSON by POST, signed by Standard Webhooks.

use std::fmt;

use reqwest::header::CONTENT_TYPE;
use secrecy::ExposeSecret as _;

use super::http::Http;
use super::signature::{self, KeyError, SigningKey};
use super::sink::{Class, Kind, Outcome, classify};
use crate::calls::UpdateId;
use crate::config::Webhook;

/// One receiver.
pub struct WebhookSink {
    http: Http,
    url: url::Url,
    /// The current secret, then the previous one.
    keys: Result<Vec<SigningKey>, KeyError>,
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
        let secrets = [&config.secret, &config.secret_previous];
        Self {
            http: Http::for_webhook(config.delivery.clone(), client),
            url: config.delivery.url.clone(),
            keys: secrets.into_iter().flatten().map(|s| SigningKey::parse(s.expose_secret())).collect(),
        }
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
        let timestamp = crate::clock::now().secs();
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
