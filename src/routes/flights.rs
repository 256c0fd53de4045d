//! What a worker has out: requests, and settlements on their way to the disk. Each is a task of its
//! own, so that an answer is read when it comes, whatever the worker waits for; all end with the
//! worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parsers::Micros;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::gate::Attempt;
use crate::journal::{Delivery, DeliveryKey, Journal, JournalError, Settlement};
use crate::sinks::{Outcome, Sink};

/// A journal that cannot be read or written is tried again after this, doubling.
pub(super) const JOURNAL_WAIT: Duration = Duration::from_secs(1);
pub(super) const JOURNAL_LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Deliveries out or being settled.
#[derive(Debug, Default)]
pub(super) struct Flights {
    tasks: JoinSet<Step>,
    /// By number, not by delivery: one that is due again at once may go out before the worker has
    /// heard that its last attempt is settled.
    out: HashMap<u64, (DeliveryKey, Attempt)>,
    number: u64,
}

/// How far a delivery got.
#[derive(Debug)]
pub(super) enum Step {
    /// The receiver has answered, or has not in time.
    Answered(Box<Answered>),
    /// It is on disk how the flight of this number ended.
    Settled(u64),
}

/// An attempt that has ended.
#[derive(Debug)]
pub(super) struct Answered {
    pub flight: u64,
    pub delivery: Delivery,
    pub attempt: Attempt,
    pub outcome: Outcome,
}

impl Flights {
    /// Makes one attempt.
    pub fn request(&mut self, sink: Arc<Sink>, delivery: Delivery, attempt: Attempt) {
        self.number += 1;
        let flight = self.number;
        self.out.insert(flight, (delivery.key, attempt));
        self.tasks.spawn(async move {
            let outcome = sink.send(&delivery).await;
            Step::Answered(Box::new(Answered { flight, delivery, attempt, outcome }))
        });
    }

    /// Writes down how it ended, until that is on disk or the agent stops: a delivery that is made but
    /// not settled would be made again. `patient`: a success may wait a moment for company.
    pub fn settle(
        &mut self,
        flight: u64,
        journal: Journal,
        settlement: Settlement,
        now: Micros,
        patient: bool,
        stop: CancellationToken,
    ) {
        let Some((key, _)) = self.out.get(&flight).copied() else { return };
        self.tasks.spawn(async move {
            settle(&journal, key, settlement, now, patient, &stop).await;
            Step::Settled(flight)
        });
    }

    /// The next that gets further; at once `None` where nothing is out.
    pub async fn next(&mut self) -> Option<Step> {
        let step = match self.tasks.join_next().await? {
            Ok(step) => step,
            Err(failed) => match failed.try_into_panic() {
                // the worker fails with it, as if it had made the request itself
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return std::future::pending().await,
            },
        };
        Some(step)
    }

    /// One is settled; what it was.
    pub fn landed(&mut self, flight: u64) -> Option<Attempt> {
        self.out.remove(&flight).map(|(_, attempt)| attempt)
    }

    /// Breaks off whatever is out; what it was.
    pub async fn break_off(&mut self) -> Vec<(DeliveryKey, Attempt)> {
        self.tasks.shutdown().await;
        std::mem::take(&mut self.out).into_values().collect()
    }
}

async fn settle(
    journal: &Journal,
    key: DeliveryKey,
    settlement: Settlement,
    now: Micros,
    patient: bool,
    stop: &CancellationToken,
) {
    let mut wait = JOURNAL_WAIT;
    let mut patient = patient && matches!(settlement, Settlement::Delivered { .. });
    loop {
        let settled = if std::mem::replace(&mut patient, false) {
            journal.settle_soon(key, settlement.clone(), now).await
        } else {
            journal.settle(key, settlement.clone(), now).await
        };
        match settled {
            Ok(()) | Err(JournalError::Closed) => return,
            Err(error) => warn!(%error, "cannot keep how a delivery ended"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        wait = (wait * 2).min(JOURNAL_LONGEST_WAIT);
    }
}
