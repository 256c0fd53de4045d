//! What came, as it is remembered and shown.

use parsers::Micros;
use serde::Serialize;
use serde_json::Value;

/// One request and how it was answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Received {
    /// Number of the request, from 1.
    pub number: u64,
    /// When it had come in whole, microseconds since the epoch.
    pub at: Micros,
    /// The HTTP status it was answered with.
    pub status: u16,
    /// The same key or id was accepted before.
    pub again: bool,
    /// What it was.
    #[serde(flatten)]
    pub request: Request,
}

/// What a request was. Tokens are not kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Request {
    /// NiMbox: create.
    Create {
        /// Key, part 1.
        initiated: String,
        /// Key, part 2.
        source: String,
        /// Key, part 3.
        destination: String,
        /// Seconds.
        duration: Option<u64>,
        /// Link shown with the call.
        url: Option<String>,
        /// The field it was refused for.
        refused: Option<String>,
    },
    /// NiMbox: delete.
    Delete {
        /// First day, exclusive.
        from: String,
        /// Last day, exclusive.
        to: String,
        /// Calls deleted.
        count: u64,
    },
    /// A webhook.
    Webhook {
        /// `event_name`.
        event: String,
        /// `id`.
        id: String,
        /// `Callpost-Sequence`.
        sequence: Option<u64>,
        /// The body.
        body: Value,
    },
    /// Anything else.
    Other {
        /// Its method.
        method: String,
        /// Its path, without the query.
        path: String,
    },
}

impl Request {
    /// A text of a webhook's body.
    pub fn text(&self, key: &str) -> &str {
        match self {
            Self::Webhook { body, .. } => body.get(key).and_then(Value::as_str).unwrap_or_default(),
            Self::Create { .. } | Self::Delete { .. } | Self::Other { .. } => "",
        }
    }

    /// A number of a webhook's body.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self {
            Self::Webhook { body, .. } => body.get(key).and_then(Value::as_u64),
            Self::Create { .. } | Self::Delete { .. } | Self::Other { .. } => None,
        }
    }
}
