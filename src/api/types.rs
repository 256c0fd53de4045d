//! What passes over the socket, as JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsers::Micros;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ami::{AmiHealth, AmiWatch};
use crate::config::Config;
use crate::ingest::IngestHealth;
use crate::journal::{Journal, JournalError, JournalStatus, RouteId};
use crate::metrics::Process;
use crate::pulse::Pulse;
use crate::routes::RouteHealth;

/// More is not listed: somebody should long have looked.
const MOST_PUT_ASIDE: usize = 100;

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
    /// `journal.max_size`, bytes.
    #[serde(default)]
    pub max_size: u64,
    /// Parts of the journal that would not open and were put aside, since whenever.
    #[serde(default)]
    pub quarantine: Vec<PathBuf>,
    /// Where HTTP is answered, with a token.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Events of the last minute that a call was concerned by.
    #[serde(default)]
    pub events_minute: u64,
    /// What the agent takes of the host.
    #[serde(default)]
    pub process: Process,
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
    /// Deliveries accepted in the last minute.
    #[serde(default)]
    pub delivered_minute: u64,
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
    /// Where HTTP is answered, if anywhere.
    pub listen: Option<SocketAddr>,
    /// Whether what must not hang moves.
    pub(crate) pulse: watch::Receiver<Pulse>,
}

impl View {
    /// How everything stands.
    ///
    /// # Errors
    /// When the journal has stopped.
    pub async fn status(&self) -> Result<AgentStatus, JournalError> {
        let journal = self.journal.status().await?;
        let at = crate::clock::now();
        let ingest = self.ingest.borrow().clone();
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pbx: self.config.pbx.name.clone(),
            started: self.started,
            at,
            configured: self.config.ami.is_some(),
            ami: self.ami.health(),
            events_minute: ingest.minute.count(at),
            ingest,
            journal,
            routes: self.routes.iter().map(|known| route(known, at)).collect(),
            max_size: self.config.journal.max_size,
            quarantine: put_aside(&self.config.journal.directory),
            listen: self.listen,
            process: Process::now(),
        })
    }
}

fn route(
    (route, kind, to, health): &(RouteId, &'static str, String, watch::Receiver<RouteHealth>),
    at: Micros,
) -> RouteView {
    let health = health.borrow().clone();
    RouteView {
        route: route.clone(),
        kind: (*kind).to_owned(),
        to: to.clone(),
        delivered_minute: health.minute.count(at),
        health,
    }
}

/// What stands in the journal's quarantine, by name.
fn put_aside(journal: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(journal.join("quarantine")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(MOST_PUT_ASIDE).collect();
    paths.sort_unstable();
    paths
}
