//! What passes over the socket, as JSON.

use std::sync::Arc;

use parsers::Micros;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ami::{AmiHealth, AmiWatch};
use crate::config::Config;
use crate::ingest::IngestHealth;
use crate::journal::{Journal, JournalError, JournalStatus, RouteId};
use crate::routes::RouteHealth;

/// Everything `callpost status` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentStatus {
    /// callpost's version.
    pub version: String,
    /// `pbx.name`.
    pub pbx: String,
    /// When the agent started.
    pub started: Micros,
    /// When this was said.
    pub at: Micros,
    /// Whether there is an `[ami]` table.
    pub configured: bool,
    /// The connection to Asterisk.
    pub ami: AmiHealth,
    /// The tracker's way to the disk.
    pub ingest: IngestHealth,
    /// The journal.
    pub journal: JournalStatus,
    /// Each route's worker.
    pub routes: Vec<RouteView>,
}

/// One route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// Its name.
    pub route: RouteId,
    /// `nimbox` or `webhook`.
    pub kind: String,
    /// Where to, without secrets: scheme, host and port.
    pub to: String,
    /// How it fares.
    pub health: RouteHealth,
}

/// What the API may look at: handles and watches, never the tracker.
#[derive(Clone, Debug)]
pub struct View {
    /// The configuration.
    pub config: Arc<Config>,
    /// When the agent started.
    pub started: Micros,
    /// The journal.
    pub journal: Journal,
    /// The connection.
    pub ami: AmiWatch,
    /// The tracker's way to the disk.
    pub ingest: watch::Receiver<IngestHealth>,
    /// Each route: name, kind, where to, health.
    pub routes: Vec<(RouteId, &'static str, String, watch::Receiver<RouteHealth>)>,
}

impl View {
    /// How everything stands.
    ///
    /// # Errors
    /// When the journal has stopped.
    pub async fn status(&self) -> Result<AgentStatus, JournalError> {
        let journal = self.journal.status().await?;
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pbx: self.config.pbx.name.clone(),
            started: self.started,
            at: crate::clock::now(),
            configured: self.config.ami.is_some(),
            ami: self.ami.health(),
            ingest: self.ingest.borrow().clone(),
            journal,
            routes: self.routes.iter().map(route).collect(),
        })
    }
}

fn route(
    (route, kind, to, health): &(RouteId, &'static str, String, watch::Receiver<RouteHealth>),
) -> RouteView {
    RouteView {
        route: route.clone(),
        kind: (*kind).to_owned(),
        to: to.clone(),
        health: health.borrow().clone(),
    }
}
