//! History into the journal: reads a span of the store, leaves what the live path still holds, puts the
//! creates that are not known into the low lanes, and waits while many wait there.

use std::collections::HashSet;
use std::task::Poll;
use std::time::Duration;

use parsers::Micros;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::DropReason;
use super::checkpoint::{self, Checkpoint};
use super::grouping::Complete;
use super::plan::{Reading, count};
use super::progress::Progress;
use super::store::{Span, Store, StoreError};
use crate::api::View;
use crate::calls::UpdateId;
use crate::config::Config;
use crate::ingest::{Asked, Question};
use crate::journal::{Journal, JournalError, Outgoing, RouteId};
use crate::routes::{Ended as Attempted, Report, Routes};

/// Creates that may wait in the low lanes: enough for the fastest receiver, little in the journal.
const MOST_WAITING: u64 = 1_000;
/// Calls that are folded, asked about and put into the journal at once.
const CALLS: usize = 100;
/// Rows between two notes of where a run is.
const CHECKPOINT: u64 = 1_000;
/// Between two looks at what waits.
const LOOK: Duration = Duration::from_millis(50);
/// Ingest's answer, which comes with its next commit.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A store that goes away in the middle is waited for so long.
const STORE_PATIENCE: Duration = Duration::from_secs(600);
const STORE_WAIT: Duration = Duration::from_secs(1);
const STORE_LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Creates that fail and of which the end is waited for; of more only that they fail is said.
const MOST_FAILING: usize = 10_000;
/// Reasons of NiMbox that are told apart.
const REASONS: usize = 10;
const OTHER_REASONS: &str = "other reasons";

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All was read and is in the journal.
    All,
    /// Whoever looks at it said so.
    Stopped,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("failed to read the CDR store: {0}")]
    Store(#[from] StoreError),
    #[error("the journal takes nothing: {0}")]
    Journal(#[from] JournalError),
    /// The agent ends.
    #[error("the agent stops")]
    Stopping,
}

/// What passes between the reader and one worker.
#[derive(Debug)]
pub(crate) struct Link {
    /// Creates of history a second at most.
    pub rate: watch::Sender<Option<f64>>,
    /// How attempts ended.
    pub reports: mpsc::Receiver<Report>,
}

/// What became of the creates that a run put into the journal.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// Of workers that are started.
    started: mpsc::UnboundedReceiver<Link>,
    links: Vec<Link>,
    /// Those that had no attempt.
    waiting: HashSet<(RouteId, UpdateId)>,
    /// Those whose attempts have failed.
    failing: HashSet<(RouteId, UpdateId)>,
}

impl Outcomes {
    pub fn new(started: mpsc::UnboundedReceiver<Link>) -> Self {
        Self { started, links: Vec::new(), waiting: HashSet::new(), failing: HashSet::new() }
    }

    /// For another run.
    pub fn clear(&mut self, rate: Option<f64>) {
        self.take(&mut Progress::default());
        (self.waiting, self.failing) = (HashSet::new(), HashSet::new());
        for link in &self.links {
            link.rate.send_if_modified(|known| std::mem::replace(known, rate) != rate);
        }
    }

    /// Waits for one that nobody asked for.
    pub async fn drain(&mut self) {
        std::future::poll_fn(|context| {
            while let Poll::Ready(Some(link)) = self.started.poll_recv(context) {
                self.links.push(link);
            }
            let ready = |link: &mut Link| matches!(link.reports.poll_recv(context), Poll::Ready(Some(_)));
            if self.links.iter_mut().any(ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn take(&mut self, progress: &mut Progress) {
        while let Ok(link) = self.started.try_recv() {
            self.links.push(link);
        }
        for link in &mut self.links {
            while let Ok(Report { route, id, ended, .. }) = link.reports.try_recv() {
                let create = (route.sink(), id);
                if self.failing.remove(&create) {
                    progress.failing = progress.failing.saturating_sub(1);
                } else if !self.waiting.remove(&create) {
                    continue;
                }
                match ended {
                    Attempted::Delivered => progress.delivered += 1,
                    Attempted::AlreadyThere => progress.there += 1,
                    Attempted::Dead { .. } => progress.dead += 1,
                    Attempted::Failing { .. } => {
                        progress.failing += 1;
                        if self.failing.len() < MOST_FAILING {
                            self.failing.insert(create);
                        }
                    }
                    Attempted::Refused { why } => {
                        let known = progress.refused.contains_key(&why) || progress.refused.len() < REASONS;
                        count(&mut progress.refused, if known { &why } else { OTHER_REASONS }, 1);
                    }
                }
            }
        }
        progress.waiting = self.waiting.len() as u64;
    }
}

/// What a run works with.
pub(super) struct Run<'a> {
    pub view: &'a (dyn Fn() -> View + Sync),
    pub journal: &'a Journal,
    pub questions: &'a mpsc::Sender<Question>,
    /// Those of which history goes into the low lanes.
    pub routes: &'a Routes,
    /// Where the store is, and whose it is.
    pub config: &'a Config,
    /// Somebody asked for it: what was deleted is sent again, and a store that goes away is waited for.
    pub explicit: bool,
    /// Calls that ended after this are left for another time.
    pub settled: Option<Micros>,
    /// Its name among the checkpoints.
    pub name: Option<&'a str>,
}

/// Who looks at a run: told how far it is, often; says whether it is to go on.
pub(super) type Tell<'a> = &'a mut (dyn FnMut(&Progress) -> bool + Send);

impl Run<'_> {
    /// Reads the span from `from` on, out of a store that is open.
    ///
    /// # Errors
    /// When the store or the journal cannot be used; what was read until then is in the journal.
    pub async fn read(
        &self,
        mut store: Store,
        from: Micros,
        outcomes: &mut Outcomes,
        progress: &mut Progress,
        tell: Tell<'_>,
    ) -> Result<Ended, RunError> {
        let mut from = from;
        let mut since = Instant::now();
        let mut wait = STORE_WAIT;
        loop {
            let before = from;
            let walked = self.walk(&mut store, &mut from, outcomes, progress, tell).await;
            let Err(RunError::Store(why)) = walked else { return walked };
            if from != before {
                (since, wait) = (Instant::now(), STORE_WAIT);
            }
            if !self.explicit {
                return Err(why.into());
            }
            store = loop {
                if since.elapsed() > STORE_PATIENCE {
                    return Err(why.into());
                }
                progress.hold = Some(format!("the CDR store: {}; it is tried again", why.what));
                let until = Instant::now() + wait;
                wait = (wait * 2).min(STORE_LONGEST_WAIT);
                while Instant::now() < until {
                    if !self.look(outcomes, progress, tell).await {
                        return Ok(Ended::Stopped);
                    }
                }
                if let Ok(store) = Store::open(&self.config.cdr, &self.config.pbx.timezone).await {
                    break store;
                }
            };
            progress.hold = None;
        }
    }

    async fn walk(
        &self,
        store: &mut Store,
        from: &mut Micros,
        outcomes: &mut Outcomes,
        progress: &mut Progress,
        tell: Tell<'_>,
    ) -> Result<Ended, RunError> {
        let span = Span { from: progress.from, to: progress.to };
        let mut reading = Reading::begin(store, span, *from, &self.config.pbx.name).await?;
        let mut unnoted = 0;
        while let Some(read) = reading.next().await? {
            progress.read += read.rows;
            unnoted += read.rows;
            count(&mut progress.left_out, DropReason::NoTime.text(), read.timeless);
            let mut calls = read.calls.into_iter().peekable();
            while calls.peek().is_some() {
                let some = calls.by_ref().take(CALLS).collect();
                if !self.take(some, outcomes, progress, tell).await? {
                    return Ok(Ended::Stopped);
                }
            }
            let place = reading.place();
            (progress.at, *from) = (place.reached, place.again);
            outcomes.take(progress);
            if let Some(name) = self.name.filter(|_| unnoted >= CHECKPOINT) {
                unnoted = 0;
                let checkpoint = Checkpoint { run: name.to_owned(), from: progress.from, again: *from };
                checkpoint::keep(self.journal, checkpoint).await?;
            }
            if !tell(progress) {
                return Ok(Ended::Stopped);
            }
        }
        progress.read_all = true;
        Ok(Ended::All)
    }

    /// Puts what these calls come to into the journal; false: it is to stop.
    async fn take(
        &self,
        calls: Vec<Complete>,
        outcomes: &mut Outcomes,
        progress: &mut Progress,
        tell: Tell<'_>,
    ) -> Result<bool, RunError> {
        progress.calls += calls.len() as u64;
        let calls: Vec<Complete> =
            calls.into_iter().filter(|call| self.settled.is_none_or(|at| call.last <= at)).collect();
        let held = self.held(&calls).await?;
        let mut creates: Vec<Outgoing> = Vec::new();
        for (call, held) in calls.iter().zip(held) {
            if held {
                progress.held += 1;
                continue;
            }
            let (made, skipped) = self.routes.past(&call.group);
            skipped.iter().for_each(|(_, why)| count(&mut progress.left_out, why, 1));
            creates.extend(made);
        }
        if creates.is_empty() {
            return Ok(true);
        }
        loop {
            let full = self.full(outcomes, progress).await?;
            if !creates.iter().any(|create| full.contains(&create.route)) {
                break;
            }
            progress.hold = full.iter().find_map(|route| self.hold(route));
            // who waits for it can see why; others go on, and look again another time
            if !self.explicit && full.iter().all(|route| self.hold(route).is_some()) {
                let before = creates.len();
                creates.retain(|create| !full.contains(&create.route));
                progress.put_off += (before - creates.len()) as u64;
                break;
            }
            if !self.look(outcomes, progress, tell).await {
                return Ok(false);
            }
        }
        if progress.put_off == 0 {
            progress.hold = None;
        }
        if creates.is_empty() {
            return Ok(true);
        }
        let ids: Vec<_> = creates.iter().map(|create| (create.route.clone(), create.id.clone())).collect();
        creates.iter_mut().for_each(|create| create.route = create.route.history());
        let imported = self.journal.import(creates, self.explicit).await?;
        progress.creates += ids.len() as u64;
        progress.known += imported.known;
        progress.deleted += imported.deleted;
        progress.added += imported.appended.len() as u64;
        let added = imported.appended.iter().filter_map(|place| ids.get(*place).cloned());
        outcomes.waiting.extend(added);
        Ok(true)
    }

    /// Which of these calls are the live path's still.
    async fn held(&self, calls: &[Complete]) -> Result<Vec<bool>, RunError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let asked = calls.iter().map(|call| asked(&call.group)).collect();
            let (reply, answer) = oneshot::channel();
            self.questions.send(Question { calls: asked, reply }).await.map_err(|_| RunError::Stopping)?;
            // no answer: its commit failed, and it begins anew
            if let Ok(Ok(held)) = timeout(ANSWER_WITHIN, answer).await {
                return Ok(held);
            }
            if self.questions.is_closed() {
                return Err(RunError::Stopping);
            }
            sleep(LOOK).await;
        }
    }

    /// The routes on which enough waits; what went another way counts no more.
    async fn full(&self, outcomes: &mut Outcomes, progress: &mut Progress) -> Result<Vec<RouteId>, RunError> {
        outcomes.take(progress);
        // what waits since an earlier look counts where nobody waits for this one
        if self.explicit && progress.waiting < MOST_WAITING {
            return Ok(Vec::new());
        }
        let mut full = Vec::new();
        for route in &self.routes.routes {
            if self.journal.pending(&route.id.history()).await? >= MOST_WAITING {
                full.push(route.id.clone());
            }
        }
        Ok(full)
    }

    /// Why nothing goes out on a route, as its worker has it.
    fn hold(&self, route: &RouteId) -> Option<String> {
        let view = (self.view)();
        let (id, _, _, health) = view.routes.iter().find(|(id, ..)| id == route)?;
        let health = health.borrow();
        if let Some(paused) = &health.paused {
            return Some(format!("{} is paused: {}", id.0, paused.why));
        }
        health.failing.as_ref().map(|failing| format!("the receiver of {} fails: {}", id.0, failing.why))
    }

    /// A moment later; false: it is to stop.
    async fn look(&self, outcomes: &mut Outcomes, progress: &mut Progress, tell: Tell<'_>) -> bool {
        sleep(LOOK).await;
        outcomes.take(progress);
        tell(progress)
    }

    /// Waits until each create had its first attempt.
    ///
    /// # Errors
    /// When the journal cannot be asked.
    pub async fn wait(
        &self,
        outcomes: &mut Outcomes,
        progress: &mut Progress,
        tell: Tell<'_>,
    ) -> Result<Ended, RunError> {
        loop {
            outcomes.take(progress);
            if progress.waiting > 0 && self.routes.waiting_history(self.journal).await? == 0 {
                // they have all gone, and more than were told of
                outcomes.take(progress);
                progress.unseen += std::mem::take(&mut progress.waiting);
                outcomes.waiting.clear();
            }
            if progress.waiting == 0 {
                progress.hold = None;
                return Ok(Ended::All);
            }
            progress.hold = self.routes.routes.iter().find_map(|route| self.hold(&route.id));
            if !self.look(outcomes, progress, tell).await {
                return Ok(Ended::Stopped);
            }
        }
    }
}

/// How ingest may know a call.
fn asked(group: &crate::calls::CdrGroup) -> Asked {
    let linkedids = group.rows.iter().filter_map(|row| row.cdr.linkedid.clone()).collect();
    let parties = group.rows.iter().filter_map(|row| row.cdr.uniqueid.clone()).collect();
    Asked { linkedids, parties }
}
