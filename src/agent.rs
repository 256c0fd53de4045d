//! The agent as a whole, and the only spawner: each task has an owner here that awaits it.
//!
//! Start, in order: journal, routes, the tracker as the journal has it, the command socket, the
//! connection. Stop, in order: the connection, so that nothing comes in; ingest, once all that came
//! is on disk; the workers, within 5 s; the journal.

mod reload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ami;
use crate::api::{self, ApiError, Live, Reloaded, View};
use crate::cdr::{History, Link, Reader, Reconciles};
use crate::config::{self, Change, Config, Facts};
use crate::ingest::{Ingest, IngestHealth, Rules};
use crate::journal::{Journal, JournalError, JournalOptions, RouteId};
use crate::pulse::{self, Pulse};
use crate::routes::{HistoryLink, Orders, Route, RouteHealth, Routes, Worker};
use crate::{clock, systemd};

/// Records after which a generation of the outbox is sealed (`delivery.md` section 5).
const GENERATION_RECORDS: u64 = 32_768;
/// What workers get to finish requests under way, a little above their own limit.
const WORKERS_STOP: Duration = Duration::from_secs(7);
/// What commands get that are being answered.
const OTHERS_STOP: Duration = Duration::from_secs(2);

/// How often systemd hears that the journal is being opened, which may take long after a crash; and
/// how much longer it shall wait then.
const OPENING_TOLD: Duration = Duration::from_secs(20);
const OPENING_MORE: Duration = Duration::from_secs(60);
/// How often systemd is told how the routes stand.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Attempts at imported creates that wait to be counted; while it is full none is made.
const REPORTS: usize = 1024;
/// Questions to ingest that wait.
const QUESTIONS: usize = 4;

/// Where the journal keeps what goes into the keys of NiMbox.
const NIMBOX_KEYS: &str = "config/nimbox-keys";

/// Why the agent cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The command socket.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A task ended that should run as long as the agent.
    #[error("a part of the agent ended unexpectedly; the log says which")]
    Ended,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    view: watch::Sender<View>,
    /// What the configuration in force was when it was read.
    facts: Facts,
    /// Rises with each reload.
    number: u64,
    rules: watch::Sender<Rules>,
    /// The number of the rules that ingest goes by.
    followed: watch::Receiver<u64>,
    ami_settings: watch::Sender<Option<config::Ami>>,
    ami_stop: CancellationToken,
    stop: CancellationToken,
    ami: JoinHandle<()>,
    ingest: JoinHandle<()>,
    routes: Vec<RouteTask>,
    /// Tells the reader of the CDR store of workers.
    links: mpsc::UnboundedSender<Link>,
    others: Vec<JoinHandle<()>>,
}

/// A route's worker. One whose sink is configured no more holds what waits for it.
#[derive(Debug)]
struct RouteTask {
    id: RouteId,
    orders: watch::Sender<Orders>,
    health: watch::Receiver<RouteHealth>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts everything.
    ///
    /// # Errors
    /// When the journal or the socket cannot be opened; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // nobody will answer requests to reload
        Ok(Self::start_asked(config, Reconciles::Yes).await?.0)
    }

    /// Starts what a backfill needs: neither Asterisk nor HTTP, nor reconciliation.
    pub(crate) async fn start_for_backfill(mut config: Config) -> Result<Self, StartError> {
        config.ami = None;
        (config.api.listen, config.api.token) = (None, None);
        Ok(Self::start_asked(config, Reconciles::Never).await?.0)
    }

    /// The reader of the CDR store.
    pub fn history(&self) -> History {
        self.view.borrow().history.clone()
    }

    /// Starts everything; requests to reload come to the caller.
    async fn start_asked(
        config: Config,
        reconciles: Reconciles,
    ) -> Result<(Self, mpsc::Receiver<oneshot::Sender<Reloaded>>), StartError> {
        let facts = Facts::of(&config);
        let config = Arc::new(config);
        let (journal, recovered) = open_telling(&config).await?;
        for (path, why) in &recovered.quarantined {
            tracing::error!(path = %path.display(), reason = %why, "a part of the journal would not open and was put aside");
        }
        let routes = Arc::new(Routes::new(&config));
        let stop = CancellationToken::new();
        let (hub, feed) = ami::feed();
        let (ingest_health, ingest_watch) = watch::channel(IngestHealth::default());
        let server = match api::Server::bind(&config.api).await {
            Ok(server) => server,
            Err(why) => {
                journal.close().await;
                return Err(why.into());
            }
        };
        let (pulse, felt) = watch::channel(Pulse::default());
        let (reader, history) = Reader::new(reconciles);
        let (view, seen) = watch::channel(View {
            config: Arc::clone(&config),
            started: clock::now(),
            journal: journal.clone(),
            ami: hub.watch(),
            ingest: ingest_watch,
            routes: Vec::new(),
            listen: server.address(),
            pulse: felt,
            history,
        });
        let (request, reloads) = mpsc::channel(1);
        let live = Live::new(seen, request);
        let ami_stop = CancellationToken::new();
        let (ami_settings, settings) = watch::channel(config.ami.clone());
        let (rules, latest) = watch::channel(Rules { number: 0, config, routes: Arc::clone(&routes) });
        let (asks, questions) = mpsc::channel(QUESTIONS);
        let (ingest, followed) =
            Ingest::new(latest, questions, journal.clone(), recovered.objects, ingest_health);
        let (links, told) = mpsc::unbounded_channel();
        let others = vec![
            tokio::spawn(server.run(live.clone(), stop.clone())),
            tokio::spawn(pulse::watch(journal, hub.watch(), pulse, stop.clone())),
            tokio::spawn(reader.run(live.clone(), asks, told, stop.clone())),
            tokio::spawn(tell_systemd(live, stop.clone())),
        ];
        let mut agent = Self {
            view,
            facts,
            number: 0,
            rules,
            followed,
            ami_settings,
            ingest: tokio::spawn(ingest.run(feed)),
            ami: tokio::spawn(hub.run(settings, ami_stop.clone())),
            routes: Vec::new(),
            links,
            ami_stop,
            stop,
            others,
        };
        for route in &routes.routes {
            agent.start_worker(route);
        }
        let views = agent.views(&routes);
        agent.view.send_modify(|view| view.routes = views);
        agent.keep_keys().await;
        Ok((agent, reloads))
    }

    fn start_worker(&mut self, route: &Route) {
        let (worker, orders, health) = Worker::new(route, self.view.borrow().journal.clone());
        let (rate, told) = watch::channel(None);
        let (tells, reports) = mpsc::channel(REPORTS);
        let worker = worker.with_history(HistoryLink { rate: told, reports: tells });
        // the reader ends with the agent alone
        let _ = self.links.send(Link { rate, reports });
        let task = tokio::spawn(worker.run(self.stop.clone()));
        self.routes.push(RouteTask { id: route.id.clone(), orders, health, task });
    }

    /// How each configured route is seen.
    fn views(&self, routes: &Routes) -> Vec<(RouteId, &'static str, String, watch::Receiver<RouteHealth>)> {
        let view = |route: &Route| {
            let task = self.routes.iter().find(|task| task.id == route.id)?;
            Some((route.id.clone(), route.kind(), route.to(), task.health.clone()))
        };
        routes.routes.iter().filter_map(view).collect()
    }

    /// Remembers what goes into the keys of NiMbox, and says what is another than at the last start.
    async fn keep_keys(&self) {
        let journal = self.view().journal;
        let now = self.facts.of_nimbox_keys();
        let stored = journal.note(NIMBOX_KEYS).await.ok().flatten();
        let stored: BTreeMap<String, String> =
            stored.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let has_nimbox = !self.view().config.nimbox.is_empty();
        for (key, value) in now.iter().filter(|_| has_nimbox) {
            if stored.get(key).is_some_and(|before| before != value) {
                tracing::warn!("{}", reload::about_keys(key));
            }
        }
        if stored != now
            && let Ok(text) = serde_json::to_vec(&now)
            && let Err(why) = journal.set_note(NIMBOX_KEYS, Some(text)).await
        {
            tracing::debug!(reason = %why, "cannot keep what goes into the keys of NiMbox");
        }
    }

    /// What may be looked at while it runs.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits until a part ends that should not; the process is then better started anew.
    pub async fn failed(&mut self) {
        let worker = async {
            match self.routes.is_empty() {
                true => std::future::pending().await,
                false => {
                    futures_util::future::select_all(self.routes.iter_mut().map(|route| &mut route.task))
                        .await
                }
            }
        };
        tokio::select! {
            ended = &mut self.ingest => report("ingest", ended),
            (ended, index, _) = worker => {
                report("worker", ended);
                drop(self.routes.swap_remove(index));
            }
        }
    }

    /// Stops in order; nothing that was accepted is lost.
    pub async fn stop(mut self) {
        self.ami_stop.cancel();
        report("connection", self.ami.await);
        if !self.ingest.is_finished() {
            report("ingest", (&mut self.ingest).await);
        }
        self.stop.cancel();
        for route in self.routes {
            match timeout(WORKERS_STOP, route.task).await {
                Ok(ended) => report("worker", ended),
                Err(_) => tracing::warn!("a route did not stop in time; its deliveries are made again"),
            }
        }
        for other in self.others {
            match timeout(OTHERS_STOP, other).await {
                Ok(ended) => report("service", ended),
                Err(_) => tracing::warn!("a command is still being answered; it is cut off"),
            }
        }
        let journal = self.view.borrow().journal.clone();
        journal.close().await;
    }
}

/// Runs until SIGTERM or SIGINT. SIGHUP and `callpost reload` read the file again.
///
/// # Errors
/// When it cannot start, or when a part of it ended by itself.
pub async fn run(config: Config, file: PathBuf) -> Result<(), StartError> {
    // from the first moment: who sees the socket may send a signal
    let mut stop = std::pin::pin!(asked_to_stop());
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    let (mut agent, mut reloads) = Agent::start_asked(config, Reconciles::Yes).await?;
    systemd::ready(&summary(&agent.view()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "callpost is running");
    let failed = loop {
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let reply = tokio::select! {
            () = &mut stop => break false,
            () = agent.failed() => break true,
            _ = asked => None,
            Some(reply) = reloads.recv() => Some(reply),
        };
        systemd::reloading();
        let (reloaded, anew) = read_again(&mut agent, &file).await;
        if let Some(reply) = reply {
            // who asked may have gone
            let _ = reply.send(reloaded);
        }
        if let Some(config) = anew {
            agent.stop().await;
            (agent, reloads) = Agent::start_asked(config, Reconciles::Yes).await?;
        }
        systemd::ready(&summary(&agent.view()));
    };
    systemd::stopping();
    if failed {
        tracing::error!("a part of the agent ended unexpectedly; stopping so that it is started anew");
    }
    agent.stop().await;
    tracing::info!("callpost has stopped");
    if failed { Err(StartError::Ended) } else { Ok(()) }
}

/// Reads the file again and goes on with it, unless it may not be. With a configuration in the answer
/// the agent is to be started anew.
async fn read_again(agent: &mut Agent, file: &Path) -> (Reloaded, Option<Config>) {
    let mut anew = None;
    let reloaded = match reload::read(file.to_path_buf()).await {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                tracing::warn!(file = %warning.file, line = warning.line, key = %warning.key, remedy = %warning.remedy, "{}", warning.problem);
            }
            match agent.first_configuration(&loaded.config).await {
                Some(changes) => {
                    anew = Some(loaded.config);
                    Reloaded::Applied { changes, restart: Vec::new(), warnings: Vec::new() }
                }
                None => agent.reload(loaded.config).await,
            }
        }
        Err(faults) => Reloaded::Invalid { faults },
    };
    match &reloaded {
        Reloaded::Applied { changes, restart, warnings } => {
            let list =
                |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!(changes = list(changes), "configuration read again");
            if !restart.is_empty() {
                tracing::warn!(changes = list(restart), "these take effect after a restart");
            }
            for warning in warnings {
                tracing::warn!("{warning}");
            }
        }
        Reloaded::Invalid { faults } => {
            for fault in faults {
                tracing::error!(file = %fault.file, line = fault.line, key = %fault.key, remedy = %fault.remedy, "{}", fault.problem);
            }
            tracing::error!("the configuration has faults; the one before goes on");
        }
        Reloaded::Refused { key, why, remedy } => {
            tracing::error!(%key, %remedy, "the configuration is refused, the one before goes on: {why}");
        }
    }
    (reloaded, anew)
}

/// Waits for SIGTERM or SIGINT, those that come before anybody waits included.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};

    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Opens the journal of this configuration.
pub(crate) async fn open_journal(
    config: &Config,
) -> Result<(Journal, crate::journal::Recovered), JournalError> {
    let options = JournalOptions {
        directory: config.journal.directory.clone(),
        max_size: config.journal.max_size,
        keep: config.journal.keep,
        pbx: config.pbx.name.clone(),
        generation_records: GENERATION_RECORDS,
    };
    tokio::task::spawn_blocking(move || Journal::open(options)).await.map_err(|_| JournalError::Closed)?
}

/// The same; systemd waits for it, however long it takes.
async fn open_telling(config: &Config) -> Result<(Journal, crate::journal::Recovered), JournalError> {
    let mut opened = std::pin::pin!(open_journal(config));
    loop {
        tokio::select! {
            opened = &mut opened => return opened,
            () = tokio::time::sleep(OPENING_TOLD) => systemd::opening(OPENING_MORE),
        }
    }
}

/// Tells it what a person would want to read first, when it changes.
async fn tell_systemd(live: Live, stop: CancellationToken) {
    let mut ami = live.view().ami;
    let mut told = String::new();
    loop {
        let line = summary(&live.view());
        if line != told {
            systemd::status(&line);
            told = line;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = ami.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
        // A connection that flaps is told once a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn summary(view: &View) -> String {
    let mut parts = vec![asterisk(view)];
    for (route, _, _, health) in &view.routes {
        let health = health.borrow();
        if let Some(paused) = &health.paused {
            parts.push(format!("route {} is paused: {}", route.0, paused.why));
        } else if let Some(failing) = &health.failing {
            parts.push(format!("the receiver of route {} fails: {}", route.0, failing.why));
        }
    }
    parts.join("; ")
}

fn asterisk(view: &View) -> String {
    if view.config.ami.is_none() {
        return "not configured: write [ami] into a file in /etc/callpost/conf.d, then reload".to_owned();
    }
    let ami = view.ami.health();
    match &ami.error {
        None if ami.connected => format!("connected to Asterisk {} at {}", ami.asterisk, ami.address),
        None => format!("connecting to Asterisk at {}", ami.address),
        Some(why) => why.clone(),
    }
}

fn report(part: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(why) = ended
        && !why.is_cancelled()
    {
        tracing::error!(part, reason = %why, "a part of the agent failed");
    }
}
