//! What was received: the latest requests whole, all of them as counts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::received::{Received, Request};

/// Requests that are kept whole, about 100 MiB of the largest.
const KEPT: usize = 100_000;
/// Ids and calls that are remembered; what comes later is counted as new.
const REMEMBERED: usize = 2_000_000;

/// What a receiver can say for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub requests: u64,
    /// Answered with an error, as was asked.
    pub failed: u64,
    /// Different creates accepted.
    pub creates: u64,
    /// Creates accepted whose key was there already.
    pub creates_again: u64,
    /// Different webhooks accepted, test events left out.
    pub webhooks: u64,
    /// Webhooks accepted whose id was there already, with the same content.
    pub webhooks_again: u64,
    /// Webhooks whose id was there already, with other content: never right.
    pub conflicts: u64,
    /// First-time webhooks that came after a later one of their call: never right.
    pub out_of_order: u64,
    /// Test events accepted.
    pub tests: u64,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub counts: Counts,
    /// The latest requests.
    kept: VecDeque<Arc<Received>>,
    /// Webhooks' ids, and what their content was.
    ids: HashMap<String, [u8; 32]>,
    /// Each call's last sequence.
    calls: HashMap<String, u64>,
}

impl Store {
    /// Whether this webhook was accepted before.
    pub fn is_known(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// Remembers a request; `raw` is a webhook's exact body.
    pub fn add(&mut self, received: Received, raw: &[u8]) {
        self.counts.requests += 1;
        if (200..300).contains(&received.status) {
            self.accepted(&received, raw);
        } else {
            self.counts.failed += 1;
        }
        self.kept.push_back(Arc::new(received));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    fn accepted(&mut self, received: &Received, raw: &[u8]) {
        match &received.request {
            Request::Create { refused: Some(_), .. } | Request::Delete { .. } | Request::Other { .. } => {}
            Request::Create { .. } if received.again => self.counts.creates_again += 1,
            Request::Create { .. } => self.counts.creates += 1,
            Request::Webhook { event, .. } if event == "test" => self.counts.tests += 1,
            Request::Webhook { id, sequence, .. } => {
                let content: [u8; 32] = Sha256::digest(raw).into();
                match self.ids.get(id) {
                    Some(first) if *first == content => self.counts.webhooks_again += 1,
                    Some(_) => self.counts.conflicts += 1,
                    None => {
                        self.counts.webhooks += 1;
                        self.in_order(received.request.text("src_hash"), *sequence);
                        if self.ids.len() < REMEMBERED {
                            self.ids.insert(id.clone(), content);
                        }
                    }
                }
            }
        }
    }

    fn in_order(&mut self, call: &str, sequence: Option<u64>) {
        let Some(sequence) = sequence.filter(|_| !call.is_empty()) else { return };
        if let Some(last) = self.calls.get_mut(call) {
            if sequence < *last {
                self.counts.out_of_order += 1;
            }
            *last = sequence.max(*last);
        } else if self.calls.len() < REMEMBERED {
            self.calls.insert(call.to_owned(), sequence);
        }
    }

    /// The first kept request after number `after`.
    pub fn after(&self, after: u64) -> Option<Arc<Received>> {
        let first = self.kept.front()?.number;
        let index = usize::try_from((after + 1).saturating_sub(first)).ok()?;
        self.kept.get(index).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Received>> {
        self.kept.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use parsers::Micros;
    use serde_json::json;

    use super::*;

    fn webhook(number: u64, id: &str, sequence: u64, status: u16) -> Received {
        let request = Request::Webhook {
            event: "call.ringing".to_owned(),
            id: id.to_owned(),
            sequence: Some(sequence),
            body: json!({ "src_hash": "a" }),
        };
        Received { number, at: Micros(0), status, again: false, request }
    }

    #[test]
    fn doubles_conflicts_and_inversions_are_told_apart() {
        let mut store = Store::default();
        store.add(webhook(1, "x", 2, 200), b"1");
        store.add(webhook(2, "x", 2, 200), b"1");
        store.add(webhook(3, "x", 2, 200), b"2");
        store.add(webhook(4, "y", 1, 200), b"3");
        store.add(webhook(5, "z", 3, 503), b"3");
        let counts = store.counts;
        assert_eq!((counts.requests, counts.webhooks, counts.webhooks_again), (5, 2, 1));
        assert_eq!((counts.conflicts, counts.out_of_order, counts.failed), (1, 1, 1));
        assert_eq!(store.after(0).map(|received| received.number), Some(1));
        assert_eq!(store.after(4).map(|received| received.number), Some(5));
        assert!(store.after(5).is_none());
    }
}
