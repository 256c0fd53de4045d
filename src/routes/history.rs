//! What whoever sends history and the worker of its sink tell each other.

use tokio::sync::{mpsc, watch};

use crate::calls::UpdateId;
use crate::journal::{Delivery, RouteId, Settlement};
use crate::sinks::{Class, Outcome};

/// A worker's end of it.
#[derive(Debug)]
pub struct HistoryLink {
    /// Creates of history a second, at most, on top of the sink's own limits.
    pub rate: watch::Receiver<Option<f64>>,
    /// How each attempt ended. This worker alone sends into it; while it is full no history goes out.
    pub reports: mpsc::Sender<Report>,
}

/// How an attempt at a delivery of history ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sink's route.
    pub route: RouteId,
    /// The delivery's id.
    pub id: UpdateId,
    /// Whether it was the first attempt.
    pub first: bool,
    /// How.
    pub ended: Ended,
}

/// The end of an attempt, as a summary counts it. `why`: one line for people, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Made.
    Delivered,
    /// The receiver had it.
    AlreadyThere,
    /// Refused for a business reason; offered again at night.
    Refused {
        /// What the receiver said.
        why: String,
    },
    /// Tried again later, or with everything else of its route once that goes on.
    Failing {
        /// What happened.
        why: String,
    },
    /// Given up, among the dead letters.
    Dead {
        /// What happened.
        why: String,
    },
}

/// The link, where there is one.
#[derive(Debug, Default)]
pub(super) struct History(Option<HistoryLink>);

impl History {
    pub fn new(link: HistoryLink) -> Self {
        Self(Some(link))
    }

    /// Creates a second, at most.
    pub fn rate(&self) -> Option<f64> {
        let rate = self.0.as_ref().and_then(|link| *link.rate.borrow());
        rate.filter(|rate| *rate > 0.0)
    }

    /// Waits for another rate; for ever where nobody sets one.
    pub async fn another_rate(&mut self) -> Option<f64> {
        let changed = match &mut self.0 {
            Some(link) => link.rate.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
        self.rate()
    }

    /// How many ends can be told; any number where nobody listens.
    pub fn room(&self) -> usize {
        let reports = self.0.as_ref().map(|link| &link.reports).filter(|reports| !reports.is_closed());
        reports.map_or(usize::MAX, mpsc::Sender::capacity)
    }

    /// Tells how an attempt ended.
    pub fn report(&self, route: &RouteId, delivery: &Delivery, outcome: &Outcome, settlement: &Settlement) {
        let Some(link) = &self.0 else { return };
        let report = Report {
            route: route.clone(),
            id: delivery.id.clone(),
            first: delivery.attempts == 0,
            ended: Ended::new(outcome.class, &outcome.why, settlement),
        };
        // there was room when it went out, so what fails is that nobody listens any more
        let _ = link.reports.try_send(report);
    }
}

impl Ended {
    fn new(class: Class, why: &str, settlement: &Settlement) -> Self {
        let why = || why.to_owned();
        match settlement {
            Settlement::Delivered { .. } if class == Class::Duplicate => Self::AlreadyThere,
            Settlement::Delivered { .. } => Self::Delivered,
            Settlement::Refused { .. } => Self::Refused { why: why() },
            Settlement::Retry { .. } if class == Class::Refused => Self::Refused { why: why() },
            Settlement::Retry { .. } | Settlement::Released => Self::Failing { why: why() },
            Settlement::Dead { .. } => Self::Dead { why: why() },
        }
    }
}
