//! The agent as a whole, and the only spawner: each task has an owner here that awaits it.
//!
//! Start, in order: journal, routes, the tracker as the journal has it, the command socket, the
//! connection. Stop, in order: the connection, so that nothing comes in; ingest, once all that came
//! is on disk; the workers, within 5 s; the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ami;
use crate::api::{self, ApiError, View};
use crate::config::Config;
use crate::ingest::{Ingest, IngestHealth};
use crate::journal::{Journal, JournalError, JournalOptions};
use crate::pulse::{self, Pulse};
use crate::routes::{Routes, Worker};
use crate::{clock, systemd};

/// Records after which a generation of the outbox is sealed (`delivery.md` section 5).
const GENERATION_RECORDS: u64 = 131_072;
/// What workers get to finish requests under way, a little above their own limit.
const WORKERS_STOP: Duration = Duration::from_secs(7);
/// What commands get that are being answered.
const OTHERS_STOP: Duration = Duration::from_secs(2);

/// How often systemd is told how the routes stand.
const TELL_EVERY: Duration = Duration::from_secs(10);

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
    view: View,
    ami_stop: CancellationToken,
    stop: CancellationToken,
    ami: Option<JoinHandle<()>>,
    ingest: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// Kept while there is no `[ami]`: its end would end ingest.
    idle: Option<ami::Hub>,
}

impl Agent {
    /// Starts everything.
    ///
    /// # Errors
    /// When the journal or the socket cannot be opened; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let (journal, recovered) = open_journal(&config).await?;
        for (path, why) in &recovered.quarantined {
            tracing::error!(path = %path.display(), reason = %why, "a part of the journal would not open and was put aside");
        }
        let routes = Arc::new(Routes::new(&config));
        let stop = CancellationToken::new();
        let (hub, feed) = ami::feed();
        let (ingest_health, ingest_watch) = watch::channel(IngestHealth::default());
        let mut workers = Vec::new();
        let mut views = Vec::new();
        for route in &routes.routes {
            let (worker, health) = Worker::new(route, &config, journal.clone());
            views.push((route.id.clone(), route.kind(), route.to(), health));
            workers.push(worker);
        }
        let server = match api::Server::bind(&config.api).await {
            Ok(server) => server,
            Err(why) => {
                journal.close().await;
                return Err(why.into());
            }
        };
        let (pulse, felt) = watch::channel(Pulse::default());
        let view = View {
            config: Arc::clone(&config),
            started: clock::now(),
            journal: journal.clone(),
            ami: hub.watch(),
            ingest: ingest_watch,
            routes: views,
            listen: server.address(),
            pulse: felt,
        };
        let ami_stop = CancellationToken::new();
        let (ami, idle) = match config.ami.clone() {
            Some(ami) => (Some(tokio::spawn(hub.run(ami, ami_stop.clone()))), None),
            None => (None, Some(hub)),
        };
        let ingest =
            Ingest::new(Arc::clone(&config), journal.clone(), routes, recovered.objects, ingest_health);
        let others = vec![
            tokio::spawn(server.run(view.clone(), stop.clone())),
            tokio::spawn(pulse::watch(
                journal,
                config.ami.is_some().then(|| view.ami.clone()),
                pulse,
                stop.clone(),
            )),
            tokio::spawn(tell_systemd(view.clone(), stop.clone())),
        ];
        Ok(Self {
            view,
            ingest: tokio::spawn(ingest.run(feed)),
            workers: workers.into_iter().map(|worker| tokio::spawn(worker.run(stop.clone()))).collect(),
            ami_stop,
            stop,
            ami,
            others,
            idle,
        })
    }

    /// What may be looked at while it runs.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Waits until a part ends that should not; the process is then better started anew.
    pub async fn failed(&mut self) {
        let worker = async {
            match self.workers.is_empty() {
                true => std::future::pending().await,
                false => futures_util::future::select_all(self.workers.iter_mut()).await,
            }
        };
        tokio::select! {
            ended = &mut self.ingest => report("ingest", ended),
            (ended, index, _) = worker => {
                report("worker", ended);
                drop(self.workers.swap_remove(index));
            }
        }
    }

    /// Stops in order; nothing that was accepted is lost.
    pub async fn stop(mut self) {
        systemd::stopping();
        self.ami_stop.cancel();
        if let Some(ami) = self.ami.take() {
            report("connection", ami.await);
        }
        drop(self.idle.take());
        if !self.ingest.is_finished() {
            report("ingest", (&mut self.ingest).await);
        }
        self.stop.cancel();
        for worker in self.workers {
            match timeout(WORKERS_STOP, worker).await {
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
        self.view.journal.close().await;
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or when a part of it ended by itself.
pub async fn run(config: Config) -> Result<(), StartError> {
    let mut agent = Agent::start(config).await?;
    systemd::ready(&summary(agent.view()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "callpost is running");
    let failed = tokio::select! {
        () = asked_to_stop() => false,
        () = agent.failed() => true,
    };
    if failed {
        tracing::error!("a part of the agent ended unexpectedly; stopping so that it is started anew");
    }
    agent.stop().await;
    tracing::info!("callpost has stopped");
    if failed { Err(StartError::Ended) } else { Ok(()) }
}

/// Waits for SIGTERM or SIGINT.
pub async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
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

/// Tells it what a person would want to read first, when it changes.
async fn tell_systemd(view: View, stop: CancellationToken) {
    let mut ami = view.ami.clone();
    let mut told = String::new();
    loop {
        let line = summary(&view);
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
        return "not configured: write [ami] into a file in conf.d, and see packaging/callpost.toml"
            .to_owned();
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
