//! From connection to connection: login, snapshot, pings, and the way back after a loss.
//!
//! ```text
//! connect --> banner --> login (Events: system) --> CoreSettings, CoreStatus
//!    ^                      --> hold events, Events: on --> lists --> Up{snapshot}, held events
//!    |                      --> events as they come, a ping every 20 s
//!    '---- backoff with jitter <---- any error, Lost if it was up
//! ```
//! Events that come while the lists are read wait behind the snapshot, so that the tracker sees
//! what is before what changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use md5::{Digest, Md5};
use parsers::ami::{Action, Event, EventKind, Message, Response, Status};
use parsers::{Micros, Uniqueid};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AmiError;
use super::connection::Connection;
use crate::calls::{Snapshot, SnapshotChannel, SnapshotEndpoint, SnapshotEntry};
use crate::clock::now;
use crate::config;
use crate::hex::hex;

/// Between pings; a pong is waited for as long as any answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Pongs missed in a row before the connection is given up.
const PINGS_MISSED: u32 = 2;
/// First wait after a loss, doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a loss.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Events that wait to be journalled, in bytes of AMI text (in memory about three times that).
/// Above, the connection is dropped and the truth read back: memory stays bounded.
const MAX_BEHIND: usize = 16 << 20;
/// Between two lists of channels that are read to find what was missed. One costs
/// Asterisk about 600 bytes a channel.
const AUDIT_EVERY: Duration = Duration::from_secs(600);
/// What `Status` is asked for each channel.
const VARIABLES: &str = "CDR(start,u),CDR(answer,u),FROM_DID";

/// Header of `Status`, kept among the variables: what a channel that called us dialled.
const DNID: &str = "DNID";

/// What ingest is fed, in order.
#[derive(Debug)]
pub enum Feed {
    /// Logged in. `None`: the account may not list channels, so only what begins now is seen.
    Up {
        /// What Asterisk holds.
        snapshot: Option<Box<Snapshot>>,
        /// When.
        at: Micros,
    },
    /// One event that may matter.
    Event {
        /// Typed.
        event: Box<Event>,
        /// As it came.
        message: Message,
        /// Arrival.
        at: Micros,
    },
    /// Every channel that Asterisk lists, while all is well.
    Audit {
        /// By uniqueid.
        listed: Vec<Uniqueid>,
        /// When.
        at: Micros,
    },
    /// The connection is gone.
    Lost {
        /// When.
        at: Micros,
    },
}

/// How the connection fares.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AmiHealth {
    /// `ami.address`; empty when not configured.
    pub address: String,
    /// Logged in and flowing.
    pub connected: bool,
    /// Since when, connected or not.
    pub since: Option<Micros>,
    /// Asterisk's own version.
    pub asterisk: String,
    /// AMI's version.
    pub ami: String,
    /// Why it is not connected, and what to do.
    pub error: Option<String>,
    /// What the account may not do.
    pub denied: Vec<String>,
    /// Logins since the start.
    pub logins: u64,
    /// Events read since the start.
    pub events: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Bytes of events that wait to be journalled.
    pub behind: u64,
}

#[derive(Debug, Default)]
struct Shared {
    behind: AtomicUsize,
    events: AtomicU64,
    malformed: AtomicU64,
    ticks: AtomicU64,
    /// Events held back while a snapshot is read.
    held: Mutex<Option<Vec<Feed>>>,
    /// Asterisk says it has booted: what it held before is not all.
    booted: Notify,
}

/// The reader's end of the feed: never waits.
#[derive(Clone, Debug)]
pub(super) struct FeedSender {
    queue: mpsc::UnboundedSender<Feed>,
    shared: Arc<Shared>,
}

/// Ingest's end of the feed.
#[derive(Debug)]
pub struct FeedReceiver {
    queue: mpsc::UnboundedReceiver<Feed>,
    shared: Arc<Shared>,
}

/// How the connection fares, for those who look.
#[derive(Clone, Debug)]
pub struct AmiWatch {
    health: watch::Receiver<AmiHealth>,
    shared: Arc<Shared>,
}

impl AmiWatch {
    /// As of now.
    pub fn health(&self) -> AmiHealth {
        let shared = &self.shared;
        AmiHealth {
            events: shared.events.load(Ordering::Relaxed),
            malformed: shared.malformed.load(Ordering::Relaxed),
            behind: shared.behind.load(Ordering::Relaxed) as u64,
            ..self.health.borrow().clone()
        }
    }

    /// Waits until it is connected, or no longer.
    ///
    /// # Errors
    /// When the connection's task has ended.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.health.changed().await
    }

    /// Rises with every event, every pong and every attempt to connect: proof that the reader lives.
    pub fn ticks(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed) + self.shared.events.load(Ordering::Relaxed)
    }
}

/// The room's task and what it says of itself.
#[derive(Debug)]
pub struct Hub {
    feed: FeedSender,
    health: watch::Sender<AmiHealth>,
}

/// A feed and the task that fills it.
pub fn feed() -> (Hub, FeedReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let feed = FeedSender { queue: sender, shared: Arc::clone(&shared) };
    (Hub { feed, health: watch::Sender::default() }, FeedReceiver { queue: receiver, shared })
}

impl FeedReceiver {
    /// The next item; `None` once [`Hub::run`] has ended and all is read.
    pub async fn recv(&mut self) -> Option<Feed> {
        let item = self.queue.recv().await?;
        self.shared.took(&item);
        Some(item)
    }

    /// The next item, if one waits.
    pub fn try_recv(&mut self) -> Option<Feed> {
        let item = self.queue.try_recv().ok()?;
        self.shared.took(&item);
        Some(item)
    }

    /// Whether nothing more will come but what already waits.
    pub fn is_ending(&self) -> bool {
        self.queue.is_closed()
    }

    /// Asks for a new snapshot: what is known of the calls may not be all.
    pub fn resync(&self) {
        self.shared.booted.notify_one();
    }
}

impl Shared {
    /// An item is no longer in memory on its way to ingest.
    fn took(&self, item: &Feed) {
        if let Feed::Event { message, .. } = item {
            self.behind.fetch_sub(message.as_bytes().len(), Ordering::Relaxed);
        }
    }
}

impl FeedSender {
    pub(super) fn count_event(&self) {
        self.shared.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_malformed(&self) {
        self.shared.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands on an event that may matter.
    pub(super) fn event(&self, event: Event, message: Message, at: Micros) -> Result<(), AmiError> {
        if matches!(event.kind, EventKind::FullyBooted { .. }) {
            self.shared.booted.notify_one();
        }
        if matches!(event.kind, EventKind::Other(_)) {
            return Ok(());
        }
        let length = message.as_bytes().len();
        if self.shared.behind.fetch_add(length, Ordering::Relaxed) + length > MAX_BEHIND {
            self.shared.behind.fetch_sub(length, Ordering::Relaxed);
            return Err(AmiError::Behind(MAX_BEHIND));
        }
        self.push(Feed::Event { event: Box::new(event), message, at });
        Ok(())
    }

    /// Hands on an audit, in its place among the events.
    pub(super) fn audit(&self, listed: Vec<Uniqueid>) {
        self.push(Feed::Audit { listed, at: now() });
    }

    fn push(&self, item: Feed) {
        let mut held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.push(item),
            // Ingest is gone only when the agent stops.
            None => drop(self.queue.send(item)),
        }
    }

    /// Forgets what was held for a snapshot that never came: the next one tells of it all.
    fn discard_held(&self) {
        let mut held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        for item in held.take().unwrap_or_default() {
            self.shared.took(&item);
        }
    }

    fn hold(&self) {
        let mut held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert_default();
    }

    /// Sends `first`, then what was held.
    fn release(&self, first: Feed) {
        let mut held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = held.take().unwrap_or_default();
        for item in std::iter::once(first).chain(waiting) {
            // As in `push`.
            drop(self.queue.send(item));
        }
    }
}

impl Hub {
    /// The reader's end, for those who read without [`Hub::run`].
    pub(super) fn sender(&self) -> FeedSender {
        self.feed.clone()
    }

    /// What to watch for the connection's health.
    pub fn watch(&self) -> AmiWatch {
        AmiWatch { health: self.health.subscribe(), shared: Arc::clone(&self.feed.shared) }
    }

    /// Connects, and comes back after every loss, until told to stop. Other settings take effect at
    /// once, by another connection; without any it waits.
    pub async fn run(self, mut settings: watch::Receiver<Option<config::Ami>>, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let config = settings.borrow_and_update().clone();
            let address = config.as_ref().map(|config| config.address.clone()).unwrap_or_default();
            self.health.send_if_modified(|health| {
                let other = health.address != address || health.since.is_none();
                if other {
                    *health = AmiHealth {
                        address,
                        since: Some(now()),
                        logins: health.logins,
                        ..AmiHealth::default()
                    };
                }
                other
            });
            let Some(config) = config else {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = changed(&mut settings) => continue,
                }
            };
            // an attempt is a sign of life too
            self.feed.shared.ticks.fetch_add(1, Ordering::Relaxed);
            let session = self.session(&config);
            let why = tokio::select! {
                () = stop.cancelled() => break,
                () = changed(&mut settings) => {
                    self.feed.discard_held();
                    if self.was_up() {
                        self.feed.release(Feed::Lost { at: now() });
                    }
                    tracing::info!("the connection to Asterisk is made anew, as the configuration now says");
                    self.health.send_modify(|health| {
                        health.connected = false;
                        health.since = Some(now());
                        health.error = None;
                    });
                    backoff = BACKOFF_MIN;
                    continue;
                }
                why = session => why,
            };
            self.feed.discard_held();
            if self.was_up() {
                backoff = BACKOFF_MIN;
                self.feed.release(Feed::Lost { at: now() });
                tracing::warn!(reason = %why, "connection to Asterisk lost");
            } else {
                tracing::warn!(reason = %why, "no connection to Asterisk");
            }
            self.down(&why);
            let wait = if why.is_refusal() { BACKOFF_MAX } else { backoff };
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed(&mut settings) => backoff = BACKOFF_MIN,
                () = tokio::time::sleep(jitter(wait)) => {}
            }
        }
        self.feed.discard_held();
        if self.was_up() {
            self.feed.release(Feed::Lost { at: now() });
        }
    }

    fn was_up(&self) -> bool {
        self.health.borrow().connected
    }

    fn down(&self, why: &AmiError) {
        self.health.send_modify(|health| {
            if health.connected {
                health.since = Some(now());
            }
            health.connected = false;
            health.error = Some(why.to_string());
        });
    }

    async fn session(&self, config: &config::Ami) -> AmiError {
        match self.try_session(config).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn try_session(&self, config: &config::Ami) -> Result<std::convert::Infallible, AmiError> {
        let mut connection = Connection::open(config, self.feed.clone()).await?;
        login(&mut connection, config).await?;
        self.up(&mut connection).await?;
        let mut missed = 0;
        let mut audit = Instant::now() + jitter(AUDIT_EVERY);
        loop {
            tokio::select! {
                why = connection.ended() => return Err(why),
                () = self.feed.shared.booted.notified() => self.up(&mut connection).await?,
                () = tokio::time::sleep_until(audit) => {
                    audit = Instant::now() + jitter(AUDIT_EVERY);
                    self.audit(&mut connection).await?;
                }
                () = tokio::time::sleep(PING_EVERY) => match connection.ask(Action::new("Ping")).await {
                    Ok(_) => {
                        missed = 0;
                        self.feed.shared.ticks.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(AmiError::Silent { .. }) if missed + 1 < PINGS_MISSED => missed += 1,
                    Err(why) => return Err(why),
                },
            }
        }
    }

    /// Asks which channels there are, unless the account may not; an answer that does not come is
    /// left to the pings.
    async fn audit(&self, connection: &mut Connection) -> Result<(), AmiError> {
        if self.health.borrow().denied.iter().any(|denied| denied.starts_with("CoreShowChannels")) {
            return Ok(());
        }
        match connection.audit().await {
            Ok(_) | Err(AmiError::Silent { .. }) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Reads what Asterisk holds and lets events flow behind it: after a login, and again when
    /// Asterisk has booted or something was missed.
    async fn up(&self, connection: &mut Connection) -> Result<(), AmiError> {
        let login = !self.was_up();
        let mut denied = Vec::new();
        let settings =
            permitted(connection.ask(Action::new("CoreSettings")).await?, "CoreSettings", &mut denied);
        let asterisk = settings
            .and_then(|answer| answer.headers.text("AsteriskVersion").map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let endpoints = if login { endpoints(connection).await? } else { None };
        // The FullyBooted of this login is answered by this very snapshot.
        let _ = tokio::time::timeout(Duration::ZERO, self.feed.shared.booted.notified()).await;
        self.feed.hold();
        connection.ask(action("Events", &[("EventMask", "on")])?).await?;
        let mut snapshot = snapshot(connection, &mut denied).await?;
        if let Some(snapshot) = &mut snapshot {
            snapshot.endpoints = endpoints;
        }
        self.feed.release(Feed::Up { snapshot: snapshot.map(Box::new), at: now() });
        for denial in &denied {
            tracing::warn!(action = %denial, "the manager account may not run an action; give it write = call,reporting");
        }
        let ami = connection.banner.version.clone();
        if login {
            tracing::info!(asterisk = %asterisk, ami = %ami, "logged in to Asterisk");
        }
        self.health.send_modify(|health| {
            if login {
                health.connected = true;
                health.since = Some(now());
                health.logins += 1;
            }
            health.asterisk = asterisk;
            health.ami = ami;
            health.error = None;
            health.denied = denied;
        });
        Ok(())
    }
}

/// Waits until there are other settings; for ever where nobody can give any.
async fn changed(settings: &mut watch::Receiver<Option<config::Ami>>) {
    if settings.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// MD5 challenge login (`asterisk.md` 1.7): the secret itself never crosses the wire.
pub(super) async fn login(connection: &mut Connection, config: &config::Ami) -> Result<(), AmiError> {
    let refused = |message: String| {
        if message == "Login Already In Use" {
            AmiError::InUse { username: config.username.clone() }
        } else {
            AmiError::Credentials { username: config.username.clone(), message }
        }
    };
    let answer = connection.ask(action("Challenge", &[("AuthType", "MD5")])?).await?;
    let Some(challenge) = answer.headers.text("Challenge").map(std::borrow::Cow::into_owned) else {
        return Err(refused(answer.message.unwrap_or_else(|| "no challenge".to_owned())));
    };
    let mut md5 = Md5::new();
    md5.update(challenge.as_bytes());
    md5.update(config.secret.expose_secret().as_bytes());
    let key = hex(&md5.finalize());
    // `system` alone at first: FullyBooted comes, the flood does not.
    let login = action(
        "Login",
        &[("AuthType", "MD5"), ("Username", &config.username), ("Key", &key), ("Events", "system")],
    )?;
    let answer = connection.ask(login).await?;
    match answer.status {
        Status::Success => Ok(()),
        Status::Error | Status::Goodbye | Status::Follows | Status::Other => {
            Err(refused(answer.message.unwrap_or_default()))
        }
    }
}

/// An action with its headers.
pub(super) fn action(name: &'static str, headers: &[(&'static str, &str)]) -> Result<Action, AmiError> {
    let mut action = Action::new(name);
    for (key, value) in headers {
        action = action.header(key, *value).map_err(|why| AmiError::Action(format!("{name}: {why:?}")))?;
    }
    Ok(action)
}

/// The answer, unless the account may not ask; then its name goes to `denied`.
fn permitted(answer: Response, name: &'static str, denied: &mut Vec<String>) -> Option<Response> {
    if answer.status == Status::Success {
        return Some(answer);
    }
    let why = answer.message.unwrap_or_default();
    denied.push(format!("{name}: {why}"));
    None
}

async fn list(
    connection: &mut Connection,
    ask: Action,
    name: &'static str,
    denied: &mut Vec<String>,
) -> Result<Option<Vec<Event>>, AmiError> {
    let (answer, list) = connection.ask_list(ask).await?;
    Ok(permitted(answer, name, denied).map(|_| list.items))
}

/// Every endpoint of chan_pjsip, so that phones are known before their first call. Needs more than
/// the account is asked to have, so a refusal is no fault, and the names then come from the calls.
async fn endpoints(connection: &mut Connection) -> Result<Option<Vec<SnapshotEndpoint>>, AmiError> {
    let (answer, list) = connection.ask_list(Action::pjsip_show_endpoints()).await?;
    if answer.status != Status::Success {
        tracing::debug!(reason = answer.message.as_deref().unwrap_or_default(), "endpoints are not listed");
        return Ok(None);
    }
    let endpoint = |item: Event| match item.kind {
        EventKind::EndpointList { name, auths, outbound_auths } => {
            Some(SnapshotEndpoint { name, phone: auths.is_some() && outbound_auths.is_none() })
        }
        _ => None,
    };
    Ok(Some(list.items.into_iter().filter_map(endpoint).collect()))
}

/// Everything Asterisk holds (`asterisk.md` 4.2), or `None` where the account may not list channels.
async fn snapshot(
    connection: &mut Connection,
    denied: &mut Vec<String>,
) -> Result<Option<Snapshot>, AmiError> {
    let mut snapshot = Snapshot::default();
    let status = connection.ask(Action::new("CoreStatus")).await?;
    if let Some(status) = permitted(status, "CoreStatus", denied) {
        let text = |key| status.headers.text(key).map(std::borrow::Cow::into_owned).unwrap_or_default();
        snapshot.startup = format!("{} {}", text("CoreStartupDate"), text("CoreStartupTime"));
    }
    let (answer, channels) = connection.ask_list(Action::core_show_channels()).await?;
    if permitted(answer, "CoreShowChannels", denied).is_none() {
        return Ok(None);
    }
    snapshot.partial = !channels.whole;
    let status = list(connection, action("Status", &[("Variables", VARIABLES)])?, "Status", denied).await?;
    let mut variables = variables_by_channel(status.unwrap_or_default());
    for item in channels.items {
        let EventKind::CoreShowChannel { channel, application, application_data, bridge, .. } = item.kind
        else {
            continue;
        };
        let mut known = variables.remove(channel.uniqueid.as_str()).unwrap_or_default();
        snapshot.channels.push(SnapshotChannel {
            start: known.remove("CDR(start,u)").and_then(|text| epoch(&text)),
            answer: known.remove("CDR(answer,u)").and_then(|text| epoch(&text)),
            did: ["FROM_DID", DNID].iter().find_map(|name| known.remove(*name).filter(|did| !did.is_empty())),
            channel,
            application,
            application_data,
            bridge,
        });
    }
    let bridges = list(connection, Action::new("BridgeList"), "BridgeList", denied).await?;
    for item in bridges.unwrap_or_default() {
        if let EventKind::BridgeListItem(bridge) = item.kind {
            snapshot.bridges.push(bridge);
        }
    }
    let queues = list(connection, Action::new("QueueStatus"), "QueueStatus", denied).await?;
    for item in queues.unwrap_or_default() {
        if let EventKind::QueueEntry { queue, uniqueid, wait, .. } = item.kind {
            snapshot.waiting.push(SnapshotEntry { queue, uniqueid, wait });
        }
    }
    Ok(Some(snapshot))
}

type Variables = HashMap<Arc<str>, Arc<str>>;

fn variables_by_channel(status: Vec<Event>) -> HashMap<String, Variables> {
    let mut all = HashMap::new();
    for item in status {
        if let EventKind::Status { channel, variables, dnid, .. } = item.kind {
            let dnid = dnid.map(|dnid| (DNID.into(), dnid));
            all.insert(channel.uniqueid.as_str().to_owned(), variables.into_iter().chain(dnid).collect());
        }
    }
    all
}

/// `0.000000` stands for never.
fn epoch(text: &str) -> Option<Micros> {
    Micros::parse(text).filter(|at| at.0 > 0)
}

/// 80 to 120 per cent of it, so that many agents do not come back in step.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without randomness the wait is only less spread.
    let _ = getrandom::fill(&mut byte);
    wait.mul_f64(0.8 + f64::from(byte[0]) / 255.0 * 0.4)
}
