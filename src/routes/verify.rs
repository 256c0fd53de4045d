//! A webhook's URL answers a test event before anything is delivered to it.

use std::sync::Arc;

use parsers::Micros;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::gate::Gate;
use super::retry::{Pause, jittered};
use super::worker::{Left, Worker, chance, ordered};
use crate::calls::UpdateId;
use crate::digest;
use crate::hex::hex;
use crate::sinks::{Class, Sink, test_body};

/// Test events: seconds to the second one, doubling.
const VERIFY_WAIT: i64 = 5;
const VERIFY_LONGEST_WAIT: i64 = 300;
/// Why a route waits that has not answered a test event, in a word.
const UNVERIFIED: &str = "unverified";

impl Worker {
    /// Posts test events until one is answered, unless this URL answered one before.
    pub(super) async fn verified(&mut self, gate: &mut Gate, stop: &CancellationToken) -> Result<(), Left> {
        let setup = Arc::clone(&self.setup);
        let (Some(url), Sink::Webhook(sink)) = (&setup.verify, &*setup.sink) else {
            gate.resume_from(UNVERIFIED, self.clock.now());
            return Ok(());
        };
        let route = self.route.clone();
        let (route, host) = (&*route.0, sink.host());
        let name = self.note_name("verified");
        // the URL itself may be secret
        let fingerprint = hex(&Sha256::digest(url.as_str().as_bytes()));
        let known = self.journal.note(&name).await.ok().flatten();
        if known.as_deref() == Some(fingerprint.as_bytes()) {
            gate.resume_from(UNVERIFIED, self.clock.now());
            return Ok(());
        }
        let first = self.clock.now();
        let id = test_id(&setup.pbx, route, first);
        let body = test_body(&id, first);
        let mut wait = VERIFY_WAIT;
        let mut why = "the receiver has not answered the test event yet".to_owned();
        loop {
            let now = self.clock.now();
            let next = Micros(now.0.saturating_add(jittered(wait * Micros::SECOND, chance())));
            let remedy = "make the receiver answer a POST at this URL with 2xx, or set verify = false; `callpost check` shows the address to admit";
            gate.pause(Pause { reason: UNVERIFIED, why: why.clone(), remedy, probe: Some(next) }, now);
            self.publish(gate).await;
            let outcome = tokio::select! {
                () = stop.cancelled() => return Err(Left::Stopped),
                () = ordered(&mut self.orders) => return Err(Left::Ordered),
                outcome = sink.post(&id, None, &body) => outcome,
            };
            if outcome.class == Class::Delivered {
                if let Err(error) = self.journal.set_note(&name, Some(fingerprint.into_bytes())).await {
                    debug!(route, %error, "cannot keep that the URL is verified");
                }
                gate.resume(self.clock.now());
                self.publish(gate).await;
                info!(route, host, "webhook verified by a test event");
                return Ok(());
            }
            warn!(route, host, why = outcome.why, "test event not accepted, the route waits");
            why = format!("the receiver did not accept the test event: {}", outcome.why);
            gate.pause(Pause { reason: UNVERIFIED, why: why.clone(), remedy, probe: Some(next) }, now);
            self.publish(gate).await;
            wait = (wait * 2).min(VERIFY_LONGEST_WAIT);
            tokio::select! {
                () = stop.cancelled() => return Err(Left::Stopped),
                () = ordered(&mut self.orders) => return Err(Left::Ordered),
                () = sleep(self.clock.until(Some(next))) => {}
            }
        }
    }
}

/// As an update's id, from what a test event is about.
fn test_id(pbx: &str, route: &str, at: Micros) -> UpdateId {
    let hash = digest::of_texts(&[pbx, "test", route, &at.0.to_string()]);
    UpdateId(format!("{pbx}.{}.0", hex(&hash[..7])).into())
}
