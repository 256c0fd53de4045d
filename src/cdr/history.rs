//! The one reader of the CDR store: backfills as they are asked for, and between them reconciliation.
//! Whatever the store does, nothing else waits for it.

use std::sync::Arc;
use std::time::Duration;

use parsers::Micros;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backfill::{Ended, Link, Outcomes, Run, RunError};
use super::checkpoint;
use super::progress::{Ask, Frame, Progress};
use super::reconcile::{Away, Kind, Reconciled, Reconciliation, Schedule};
use super::store::{Span, Store, StoreError};
use crate::api::{Live, View};
use crate::clock;
use crate::config::Config;
use crate::ingest::Question;
use crate::routes::Routes;

/// Lines that wait for whoever reads them; what does not fit is said a moment later.
const FRAMES: usize = 16;
/// Between two lines.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Where the journal keeps when the agent first ran.
const FIRST_START: &str = "cdr/first-start";
/// And up to when reconciliation has seen everything.
const RECONCILED: &str = "cdr/reconciled";

/// Why a backfill is not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// There is one.
    #[error("a backfill is under way already")]
    Busy,
    /// The agent ends.
    #[error("the agent stops")]
    Stopping,
}

/// What others may ask of the reader; cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    orders: mpsc::Sender<Order>,
    free: Arc<Semaphore>,
    reconciliation: watch::Receiver<Reconciliation>,
}

/// A backfill that somebody waits for.
#[derive(Debug)]
struct Order {
    ask: Ask,
    frames: mpsc::Sender<Frame>,
    _one: OwnedSemaphorePermit,
}

impl History {
    /// Begins a backfill; it ends when the receiver is dropped. What is in the journal then goes out.
    ///
    /// # Errors
    /// When there is one already.
    pub fn backfill(&self, ask: Ask) -> Result<mpsc::Receiver<Frame>, Refused> {
        let one = Arc::clone(&self.free).try_acquire_owned().map_err(|_| Refused::Busy)?;
        let (frames, lines) = mpsc::channel(FRAMES);
        self.orders.try_send(Order { ask, frames, _one: one }).map_err(|_| Refused::Stopping)?;
        Ok(lines)
    }

    /// How the reconciliation stands.
    pub fn reconciliation(&self) -> Reconciliation {
        self.reconciliation.borrow().clone()
    }
}

/// Whether a reader looks at the store on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconciles {
    /// As configured.
    Yes,
    /// It serves one backfill.
    Never,
}

/// The reader, not yet running.
#[derive(Debug)]
pub(crate) struct Reader {
    orders: mpsc::Receiver<Order>,
    reconciliation: watch::Sender<Reconciliation>,
    reconciles: Reconciles,
}

impl Reader {
    pub fn new(reconciles: Reconciles) -> (Self, History) {
        let (orders, asked) = mpsc::channel(1);
        let (tell, reconciliation) = watch::channel(Reconciliation::default());
        let free = Arc::new(Semaphore::new(1));
        (Self { orders: asked, reconciliation: tell, reconciles }, History { orders, free, reconciliation })
    }

    /// Reads when asked, and when it is time, until told to stop.
    pub async fn run(
        self,
        live: Live,
        questions: mpsc::Sender<Question>,
        started: mpsc::UnboundedReceiver<Link>,
        stop: CancellationToken,
    ) {
        let now = clock::now();
        let view = live.view();
        let off = match self.reconciles {
            Reconciles::Never => Some("this agent serves one backfill".to_owned()),
            Reconciles::Yes => off(&view.config),
        };
        let schedule =
            off.is_none().then(|| Schedule::new(&view.config.cdr.reconcile, &view.config.pbx.timezone, now));
        let Self { orders, reconciliation, reconciles } = self;
        let mut task =
            Task { live, questions, orders, reconciliation, outcomes: Outcomes::new(started), schedule };
        task.tell(|status| status.off = off);
        tokio::select! {
            () = stop.cancelled() => {}
            () = task.run(reconciles, now) => {}
        }
    }
}

/// Why there is no reconciliation by this configuration.
fn off(config: &Config) -> Option<String> {
    if config.cdr.source.is_none() {
        return Some("no [cdr] source is configured: what happens while callpost or its connection is down is not made up for".to_owned());
    }
    if !config.nimbox.iter().any(|sink| sink.delivery.enabled) {
        return Some("no [[nimbox]] is configured and enabled".to_owned());
    }
    let rules = &config.cdr.reconcile;
    (rules.every.is_none() && rules.full_at.is_none()).then(|| "switched off by [cdr] reconcile".to_owned())
}

struct Task {
    live: Live,
    questions: mpsc::Sender<Question>,
    orders: mpsc::Receiver<Order>,
    reconciliation: watch::Sender<Reconciliation>,
    outcomes: Outcomes,
    schedule: Option<Schedule>,
}

impl Task {
    async fn run(&mut self, reconciles: Reconciles, started: Micros) {
        let first = match reconciles {
            Reconciles::Yes => self.first_start(started).await,
            Reconciles::Never => started,
        };
        let mut ami = self.live.view().ami;
        let mut logins = 0;
        loop {
            let seen = ami.health();
            if seen.connected && seen.logins != logins {
                logins = seen.logins;
                if let Some(schedule) = &mut self.schedule {
                    schedule.connected(clock::now());
                }
            }
            let next = self.schedule.as_ref().and_then(Schedule::next);
            self.tell(|status| status.next = next.map(|(at, _)| at));
            let due = async {
                match next {
                    Some((at, _)) => tokio::time::sleep(clock::until(at, clock::now())).await,
                    None => std::future::pending().await,
                }
            };
            let connection = async {
                if ami.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.backfill(order).await,
                    None => return,
                },
                () = connection => {}
                () = self.outcomes.drain() => {}
                () = due => if let Some((_, kind)) = next {
                    self.reconcile(kind, first).await;
                },
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Reconciliation)) {
        self.reconciliation.send_modify(change);
    }

    /// When the agent first ran on this journal.
    async fn first_start(&self, now: Micros) -> Micros {
        let journal = self.live.view().journal;
        loop {
            match journal.note(FIRST_START).await {
                Ok(Some(text)) => return moment(&text).unwrap_or(now),
                Ok(None) => {
                    if journal.set_note(FIRST_START, Some(now.0.to_string().into_bytes())).await.is_ok() {
                        return now;
                    }
                }
                Err(why) => tracing::debug!(reason = %why, "cannot tell when the agent first ran"),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    async fn backfill(&mut self, order: Order) {
        let Order { ask, frames, _one } = order;
        let mut progress = Progress { from: ask.from, to: ask.to, at: ask.from, ..Progress::default() };
        let last = match self.serve(&ask, &frames, &mut progress).await {
            Ok(Ended::All) => Frame::Summary(progress),
            // nobody reads it
            Ok(Ended::Stopped) => return,
            Err((what, remedy)) => Frame::Failed { what, remedy, progress },
        };
        // who asked may have gone
        let _ = frames.send(last).await;
    }

    async fn serve(
        &mut self,
        ask: &Ask,
        frames: &mpsc::Sender<Frame>,
        progress: &mut Progress,
    ) -> Result<Ended, (String, String)> {
        let view = self.live.view();
        let mut config = Config::clone(&view.config);
        if let Some(source) = &ask.source {
            config.cdr.source = Some(SecretString::from(source.clone()));
        }
        let routes = Routes::history(&config, ask.route.as_deref())?;
        let source = config.cdr.source.as_ref().map(secrecy::ExposeSecret::expose_secret).unwrap_or_default();
        let mut parts = vec![source, config.cdr.table.as_str(), ask.arguments.as_str()];
        parts.extend(routes.routes.iter().map(|route| &*route.id.0));
        // what calls come to by other rules is another run
        let rules = format!(
            "{:?} {:?} {:?} {:?}",
            config.numbers, config.nimbox, config.pbx.timezone, config.cdr.timezone
        );
        parts.push(&rules);
        let name = checkpoint::name(&parts);
        let store = Store::open(&config.cdr, &config.pbx.timezone).await.map_err(unreadable)?;
        let known = checkpoint::find(&view.journal, &name).await;
        let known =
            known.filter(|known| known.from <= ask.from && ask.from < known.again && known.again <= ask.to);
        let from = known.as_ref().map_or(ask.from, |known| known.again);
        let about = store.about();
        let begin = Frame::Begin {
            from: ask.from,
            to: ask.to,
            resumed: known.as_ref().map(|known| known.again),
            paging: about.paging.clone(),
            zone: about.zone.clone(),
            warnings: about.warnings.clone(),
        };
        progress.at = from;
        if frames.send(begin).await.is_err() {
            return Ok(Ended::Stopped);
        }
        let live = self.live.clone();
        let run = Run {
            view: &|| live.view(),
            journal: &view.journal,
            questions: &self.questions,
            routes: &routes,
            config: &config,
            explicit: true,
            settled: None,
            name: Some(&name),
        };
        let mut told: Option<Instant> = None;
        let mut tell = |progress: &Progress| {
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                told = Some(Instant::now());
                // where one waits already, the next says as much
                let _ = frames.try_send(Frame::Progress(progress.clone()));
            }
            !frames.is_closed()
        };
        self.outcomes.clear(ask.rate);
        let outcomes = &mut self.outcomes;
        if run.read(store, from, outcomes, progress, &mut tell).await.map_err(explained)? == Ended::Stopped {
            return Ok(Ended::Stopped);
        }
        checkpoint::forget(&view.journal, &name).await.map_err(|why| explained(why.into()))?;
        let ended = run.wait(outcomes, progress, &mut tell).await.map_err(explained)?;
        // where it was ended early, what is left goes out no faster
        if ended == Ended::All {
            outcomes.clear(None);
        }
        Ok(ended)
    }

    async fn reconcile(&mut self, kind: Kind, first: Micros) {
        let began = clock::now();
        let view = self.live.view();
        let config = &view.config;
        let since = config.cdr.since.map(|since| Micros(since.as_microsecond()));
        let floor = since.unwrap_or(first);
        let last = view.journal.note(RECONCILED).await.ok().flatten().and_then(|text| moment(&text));
        let Some(schedule) = &self.schedule else { return };
        let span = schedule.span(kind, last, floor, began);
        let settled = schedule.settled(began);
        let mut progress = Progress { from: span.from, to: span.to, at: span.from, ..Progress::default() };
        let outcome = if span.from < settled {
            self.look(&view, span, settled, &mut progress).await
        } else {
            Ok(Ended::All)
        };
        self.tell(|status| status.running = None);
        let now = clock::now();
        let missing = progress.added;
        self.tell(|status| status.missing += missing);
        let Some(schedule) = &mut self.schedule else { return };
        match outcome {
            // it goes on after the backfill that somebody waits for
            Ok(Ended::Stopped) | Err(RunError::Stopping) => {}
            Ok(Ended::All) => {
                schedule.done(kind, began, now);
                let done = Reconciled::new(began, now, &progress);
                if missing > 0 {
                    tracing::info!(
                        missing,
                        known = done.known,
                        "calls of which NiMbox was not told were found in the CDR store"
                    );
                }
                let back = self.reconciliation.borrow().away.is_some();
                if back {
                    tracing::info!("the CDR store can be read again");
                }
                self.tell(|status| {
                    (status.away, status.last) = (None, Some(done));
                    status.runs += 1;
                });
                // what was put off is found again by a look that begins where this one did
                if progress.put_off > 0 {
                    return;
                }
                let note = Some(settled.0.to_string().into_bytes());
                if let Err(why) = view.journal.set_note(RECONCILED, note).await {
                    tracing::debug!(reason = %why, "cannot keep up to when the CDR store was looked at");
                }
            }
            Err(why) => {
                schedule.failed(kind, now);
                let (what, remedy) = explained(why);
                if self.reconciliation.borrow().away.is_none() {
                    tracing::warn!(%remedy, "{what}; what was missed meanwhile is looked for when it can be read again");
                }
                self.tell(|status| {
                    status.failed += 1;
                    let since = status.away.as_ref().map_or(began, |away| away.since);
                    status.away = Some(Away { since, what, remedy });
                });
            }
        }
    }

    async fn look(
        &mut self,
        view: &View,
        span: Span,
        settled: Micros,
        progress: &mut Progress,
    ) -> Result<Ended, RunError> {
        let config = &view.config;
        let routes = Routes::new(config).only_nimbox();
        let store = Store::open(&config.cdr, &config.pbx.timezone).await?;
        let live = self.live.clone();
        let run = Run {
            view: &|| live.view(),
            journal: &view.journal,
            questions: &self.questions,
            routes: &routes,
            config,
            explicit: false,
            settled: Some(settled),
            name: None,
        };
        let (orders, reconciliation) = (&self.orders, &self.reconciliation);
        let mut tell = |progress: &Progress| {
            reconciliation.send_modify(|status| status.running = Some(progress.at));
            orders.is_empty()
        };
        self.outcomes.clear(None);
        run.read(store, span.from, &mut self.outcomes, progress, &mut tell).await
    }
}

fn moment(text: &[u8]) -> Option<Micros> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Micros)
}

fn unreadable(why: StoreError) -> (String, String) {
    (format!("failed to read the CDR store: {}", why.what), why.remedy)
}

/// What is wrong, and what to do.
fn explained(why: RunError) -> (String, String) {
    match why {
        RunError::Store(why) => unreadable(why),
        RunError::Journal(why) => (
            format!("the journal takes nothing: {why}"),
            "see `callpost status`; run the same again: it goes on where it was".to_owned(),
        ),
        RunError::Stopping => {
            ("the agent stops".to_owned(), "run the same again: it goes on where it was".to_owned())
        }
    }
}
