//! What passes over the socket, as JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsers::Micros;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ami::{AmiHealth, AmiWatch};
use crate::cdr::{History, Reconciliation};
use crate::config::{Change, Config, Fault};
use crate::ingest::IngestHealth;
use crate::journal::{Journal, JournalError, JournalStatus, RouteId, RouteStatus};
use crate::metrics::Process;
use crate::pulse::Pulse;
use crate::routes::{Paused, RouteHealth};

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
    /// How the CDR store is looked through for what was missed.
    #[serde(default)]
    pub reconciliation: Reconciliation,
}

/// One route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// Its name.
    pub route: RouteId,
    /// `nimbox` or `webhook`; `none` where something is left of a sink that is not configured now.
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
    /// The reader of the CDR store.
    pub history: History,
}

/// The view as a reload last made it, and the way to ask for a reload.
#[derive(Clone, Debug)]
pub struct Live {
    view: watch::Receiver<View>,
    reload: mpsc::Sender<oneshot::Sender<Reloaded>>,
}

/// What came of a request to read the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Reloaded {
    /// It is in force.
    Applied {
        /// What is another now.
        changes: Vec<Change>,
        /// What will be after a restart.
        restart: Vec<Change>,
        /// What follows from it and should be known.
        warnings: Vec<String>,
    },
    /// It has faults; the one before goes on.
    Invalid {
        /// All of them.
        faults: Vec<Fault>,
    },
    /// It has no faults, but may not take the place of the one before, which goes on.
    Refused {
        /// The key.
        key: String,
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
}

impl Live {
    /// With where requests to reload go.
    pub const fn new(view: watch::Receiver<View>, reload: mpsc::Sender<oneshot::Sender<Reloaded>>) -> Self {
        Self { view, reload }
    }

    /// As of now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Asks for the configuration to be read again; `None` when nobody here can.
    pub async fn reload(&self) -> Option<Reloaded> {
        let (reply, answer) = oneshot::channel();
        self.reload.send(reply).await.ok()?;
        answer.await.ok()
    }
}

impl axum::extract::FromRef<Live> for View {
    fn from_ref(live: &Live) -> Self {
        live.view()
    }
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
        let left = journal.routes.iter().filter_map(|route| self.left_over(route));
        let routes = self.routes.iter().map(|known| route(known, at)).chain(left).collect();
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
            routes,
            max_size: self.config.journal.max_size,
            quarantine: put_aside(&self.config.journal.directory),
            listen: self.listen,
            process: Process::now(),
            reconciliation: self.history.reconciliation(),
        })
    }

    /// What is left of a sink that the configuration does not have now, or has not enabled.
    fn left_over(&self, left: &RouteStatus) -> Option<RouteView> {
        let counters = left.counters;
        // the low lane of a route is served with it
        let sink = left.route.sink();
        let known = left.route.0.is_empty() || self.routes.iter().any(|(route, ..)| *route == sink);
        if known || counters.pending + counters.dead == 0 {
            return None;
        }
        let reason = "unconfigured".to_owned();
        let why = format!("no sink of this name is configured and enabled; {} wait", counters.pending);
        let remedy = format!(
            "configure it again and `callpost reload`: they go out then, in order; or `callpost dead drop --pending --route {}` gives them up",
            left.route.0
        );
        let paused = Paused { since: self.started, reason, why, remedy, probe: None };
        Some(RouteView {
            route: left.route.clone(),
            kind: "none".to_owned(),
            to: String::new(),
            health: RouteHealth { paused: Some(paused), ..RouteHealth::default() },
            delivered_minute: 0,
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
