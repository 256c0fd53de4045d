//! The demo itself: stand-in PBX, agent and receiver, from start to summary.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use parsers::Micros;
use sha1::{Digest, Sha1};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use url::Url;

use super::pbx::{Pbx, USERNAME};
use super::recording::{Recording, Shift};
use super::scenes::{SCENES, Scene};
use super::summary::{Summary, percentile};
use crate::agent::{Agent, StartError, asked_to_stop};
use crate::calls::CallKey;
use crate::clock;
use crate::config::{Config, Environment, Faults, load_text};
use crate::hex::hex;
use crate::journal::{JournalError, JournalStatus};
use crate::receiver::{Options, Received, Receiver, Request};

/// `pbx.name` of every demo.
const PBX: &str = "demo";
/// The agent logs in at once; this is for a very busy host.
const LOGIN: Duration = Duration::from_secs(15);
/// After the last event: creates wait for their call's last row, retries for their turn.
const SETTLE: Duration = Duration::from_secs(30);
/// Calls that an earlier run left open wait minutes for Cdr events that will never come; those of
/// this run settle within two or three seconds of their end.
const STUCK: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);
/// Uniqueids, channels and bridges of two plays are at least so far apart.
const OFFSET: usize = 1_000;

/// How a demo is run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Keeps the journal there; without it a temporary one is made and removed.
    pub directory: Option<PathBuf>,
    /// Delivers there in place of the demo's own receiver.
    pub to: Option<Url>,
    /// Goes on until asked to stop.
    pub keep: bool,
    /// So many times as fast as recorded; 1 when not above 0.
    pub speed: f64,
}

/// What can be told while it runs.
#[derive(Debug)]
pub enum News<'a> {
    /// Everything stands.
    Started {
        /// The stand-in PBX.
        pbx: String,
        /// Where deliveries go.
        to: String,
        /// Where the journal is.
        directory: &'a Path,
        /// The zone that times are shown in.
        zone: TimeZone,
    },
    /// Deliveries of an earlier run were found and go out first.
    LeftOver(u64),
    /// A scene begins.
    Begins {
        /// Number of the play, from 0.
        index: usize,
        /// Which.
        scene: &'a Scene,
        /// Its call.
        src_hash: String,
        /// The local time and source of each create it will make.
        creates: Vec<(String, String)>,
    },
    /// A request arrived at the demo's own receiver.
    Delivered(&'a Received),
}

/// Why a demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system refused something, or nobody reads the output any more.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Where it was told to deliver to cannot be.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The agent did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The agent did not log in.
    #[error("the agent did not log in to the stand-in PBX within {} s", LOGIN.as_secs())]
    NoLogin,
    /// A part of the agent ended.
    #[error("a part of the agent ended; its log says why")]
    Ended,
}

/// Runs a demo to its end.
///
/// # Errors
/// When it cannot start, or `tell` fails.
pub async fn run(
    setup: Setup,
    tell: &mut (dyn FnMut(News<'_>) -> io::Result<()> + Send),
) -> Result<Summary, DemoError> {
    let temporary =
        if setup.directory.is_none() { Some(TempDir::with_prefix("callpost-demo-")?) } else { None };
    let directory =
        setup.directory.as_deref().or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let secret = format!("{:016x}", getrandom::u64().map_err(|why| io::Error::other(why.to_string()))?);
    let pbx = Pbx::start(&secret).await?;
    let receiver = if setup.to.is_none() { Some(Receiver::start(Options::default()).await?) } else { None };
    let own = receiver.as_ref().map(|receiver| format!("http://{}/", receiver.address()));
    let to = setup.to.as_ref().map(Url::to_string).or(own).unwrap_or_default();
    let config = config(&pbx, &secret, &to, directory)?;
    let zone = config.pbx.timezone.clone();
    let agent = Agent::start(config).await?;
    tell(News::Started { pbx: pbx.address().to_string(), to, directory, zone: zone.clone() })?;
    let before = agent.view().journal.status().await?;
    let mut demo = Demo {
        setup: &setup,
        zone,
        pbx,
        receiver,
        agent,
        tell,
        seen: 0,
        played: HashMap::new(),
        summary: Summary::default(),
    };
    let outcome = demo.play(&before).await;
    if outcome.is_ok() {
        demo.sum_up(&before).await?;
    }
    let Demo { agent, summary, .. } = demo;
    agent.stop().await;
    outcome.map(|()| summary)
}

struct Demo<'a> {
    setup: &'a Setup,
    zone: TimeZone,
    pbx: Pbx,
    receiver: Option<Receiver>,
    agent: Agent,
    tell: &'a mut (dyn FnMut(News<'_>) -> io::Result<()> + Send),
    /// The last request that was told.
    seen: u64,
    /// Each call that was played, by its `src_hash`.
    played: HashMap<String, Timeline>,
    summary: Summary,
}

/// Which recorded moment is played when.
#[derive(Clone, Copy, Debug)]
struct Timeline {
    /// The stamp of the beginning.
    base: Micros,
    /// When that is played.
    wall: Micros,
    speed: f64,
}

impl Timeline {
    /// What is stamped must not lie in the future: played faster, it begins in the past.
    fn new(wall: Micros, seconds: f64, speed: f64) -> Self {
        let ahead = seconds * (1.0 - 1.0 / speed.max(1.0));
        Self { base: Micros(wall.0 - micros(ahead)), wall, speed }
    }

    /// After the beginning.
    fn delay(&self, stamp: Micros) -> Duration {
        let micros = u32::try_from((stamp.0 - self.base.0).max(0)).unwrap_or(u32::MAX);
        Duration::from_secs_f64(f64::from(micros) / 1e6 / self.speed)
    }

    fn emitted(&self, stamp: Micros) -> Micros {
        Micros(self.wall.0 + i64::try_from(self.delay(stamp).as_micros()).unwrap_or(i64::MAX))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of a demo")]
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

/// One message to be played.
struct Cue {
    at: Instant,
    message: String,
    /// The scene that begins with it.
    begins: Option<Beginning>,
}

struct Beginning {
    index: usize,
    src_hash: String,
    /// Local time and source.
    creates: Vec<(String, String)>,
}

impl Demo<'_> {
    async fn play(&mut self, before: &JournalStatus) -> Result<(), DemoError> {
        let stop = asked_to_stop();
        tokio::pin!(stop);
        let left_over = pending_of(before);
        if left_over > 0 {
            self.summary.left_over = left_over;
            (self.tell)(News::LeftOver(left_over))?;
            if self.settle(stop.as_mut(), false).await? {
                return Ok(());
            }
        }
        timeout(LOGIN, self.pbx.ready()).await.map_err(|_| DemoError::NoLogin)?;
        let mut stopped = false;
        for round in 0.. {
            let cues = self.cues(round);
            stopped = self.round(cues, stop.as_mut()).await?;
            if stopped || !self.setup.keep {
                break;
            }
        }
        let again = asked_to_stop();
        tokio::pin!(again);
        // calls that were cut short would stay open
        self.settle(again, !stopped).await?;
        Ok(())
    }

    /// Everything of one round, in order of time.
    fn cues(&mut self, round: usize) -> VecDeque<Cue> {
        let recordings = SCENES.map(|scene| Recording::new(scene.stream));
        let lengths = recordings.iter().zip(SCENES).map(|(recording, scene)| {
            let last = recording.messages.last().map_or(recording.first(), |(at, _)| *at);
            scene.start
                + 1.0
                + Duration::from_micros(u64::try_from(last.0 - recording.first().0).unwrap_or(0))
                    .as_secs_f64()
        });
        let seconds = lengths.fold(0.0, f64::max);
        let speed = if self.setup.speed > 0.0 { self.setup.speed } else { 1.0 };
        let timeline = Timeline::new(clock::now(), seconds, speed);
        let start = Instant::now();
        let mut cues = Vec::new();
        for (n, (scene, recording)) in SCENES.iter().zip(&recordings).enumerate() {
            let index = round * SCENES.len() + n;
            let shift = self.shift(index, timeline.base.0 + micros(scene.start) - recording.first().0);
            let linkedid = shift.uniqueid(&recording.linkedid).unwrap_or_default();
            let src_hash = src_hash(&linkedid);
            self.played.insert(src_hash.clone(), timeline);
            let creates = recording
                .cdrs
                .iter()
                .filter_map(|(at, source)| Some((shift.local(at)?.replace(' ', "T"), source.clone())));
            let mut begins = Some(Beginning { index, src_hash, creates: creates.collect() });
            for (at, message) in &recording.messages {
                let at = start + timeline.delay(shift.time(*at));
                cues.push(Cue { at, message: shift.message(message), begins: begins.take() });
            }
        }
        cues.sort_by_key(|cue| cue.at);
        cues.into()
    }

    /// By whole seconds, so that local times, epochs and stamps still agree.
    fn shift(&self, index: usize, micros: i64) -> Shift {
        let seconds = micros.div_euclid(Micros::SECOND) + i64::from(micros.rem_euclid(Micros::SECOND) > 0);
        let offset = u32::try_from(index * OFFSET % 100_000_000).unwrap_or_default();
        Shift { seconds, offset, zone: self.zone.clone() }
    }

    /// Plays the cues; true when asked to stop.
    async fn round(
        &mut self,
        mut cues: VecDeque<Cue>,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<bool, DemoError> {
        while let Some(next) = cues.front().map(|cue| cue.at) {
            tokio::select! {
                () = stop.as_mut() => return Ok(true),
                () = self.agent.failed() => return Err(DemoError::Ended),
                () = sleep_until(next) => {
                    let Some(cue) = cues.pop_front() else { continue };
                    if let Some(Beginning { index, src_hash, creates }) = cue.begins {
                        self.summary.calls += 1;
                        let scene = &SCENES[index % SCENES.len()];
                        (self.tell)(News::Begins { index, scene, src_hash, creates })?;
                    }
                    self.pbx.emit(&cue.message);
                    self.summary.events += 1;
                }
                received = next_request(self.receiver.as_ref(), self.seen) => self.told(&received)?,
            }
        }
        Ok(false)
    }

    fn told(&mut self, received: &Received) -> io::Result<()> {
        self.seen = received.number;
        (self.tell)(News::Delivered(received))
    }

    /// Waits until nothing waits any more, with `calls` also until no call is open; true when asked
    /// to stop.
    async fn settle(
        &mut self,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
        calls: bool,
    ) -> Result<bool, DemoError> {
        let until = Instant::now() + SETTLE;
        let mut last = ((0, 0), Instant::now());
        loop {
            tokio::select! {
                () = stop.as_mut() => return Ok(true),
                () = self.agent.failed() => return Err(DemoError::Ended),
                () = sleep(POLL) => {
                    let status = self.agent.view().journal.status().await?;
                    let now = (status.objects, accepted(&status));
                    if now != last.0 {
                        last = (now, Instant::now());
                    }
                    let quiet = if calls && status.objects > 0 { STUCK } else { POLL };
                    let done = pending_of(&status) == 0 && last.1.elapsed() >= quiet;
                    if done || Instant::now() >= until {
                        return Ok(false);
                    }
                }
                received = next_request(self.receiver.as_ref(), self.seen) => self.told(&received)?,
            }
        }
    }

    async fn sum_up(&mut self, before: &JournalStatus) -> Result<(), DemoError> {
        let journal = self.agent.view().journal.clone();
        let status = journal.status().await?;
        let delivered = |route: &str| of_route(&status, route).saturating_sub(of_route(before, route));
        self.summary.commit_p50 = status.commit_p50;
        self.summary.pending = pending_of(&status);
        let Some(receiver) = &self.receiver else {
            self.summary.webhooks = delivered("webhook");
            self.summary.creates = delivered("nimbox");
            return Ok(());
        };
        let counts = receiver.counts();
        self.summary.count(counts);
        let arrived = counts.webhooks + counts.webhooks_again + counts.creates + counts.creates_again;
        self.summary.lost = (delivered("webhook") + delivered("nimbox")).saturating_sub(arrived);
        let mut arrivals = HashMap::new();
        for received in receiver.received() {
            if let Request::Webhook { id, .. } = &received.request {
                arrivals.entry(id.clone()).or_insert(received.at);
            }
        }
        let mut latencies = Vec::new();
        for (src_hash, timeline) in &self.played {
            let trace = journal.trace(&CallKey(src_hash.as_str().into())).await?;
            for update in &trace.updates {
                let Some(arrived) = arrivals.get(&*update.id.0) else { continue };
                latencies.push(u64::try_from(arrived.0 - timeline.emitted(update.at).0).unwrap_or(0));
            }
        }
        latencies.sort_unstable();
        self.summary.latency_p50 = percentile(&latencies, 50);
        self.summary.latency_p99 = percentile(&latencies, 99);
        Ok(())
    }
}

async fn next_request(receiver: Option<&Receiver>, seen: u64) -> Arc<Received> {
    match receiver {
        Some(receiver) => receiver.next(seen).await,
        None => pending().await,
    }
}

fn pending_of(status: &JournalStatus) -> u64 {
    status.routes.iter().map(|route| route.counters.pending).sum()
}

fn accepted(status: &JournalStatus) -> u64 {
    status.routes.iter().map(|route| route.counters.accepted).sum()
}

fn of_route(status: &JournalStatus, name: &str) -> u64 {
    status.routes.iter().filter(|route| &*route.route.0 == name).map(|route| route.counters.delivered).sum()
}

/// As the tracker names a call (`calls::identity`): SHA-1 over the PBX's name, a zero byte, the linkedid.
fn src_hash(linkedid: &str) -> String {
    hex(&Sha1::digest(format!("{PBX}\0{linkedid}")))
}

fn config(pbx: &Pbx, secret: &str, to: &str, directory: &Path) -> Result<Config, Faults> {
    let text = format!(
        r#"
[pbx]
name = "{PBX}"
trunks = ["PJSIP/trunk"]
users = [
    {{ channel = "PJSIP/1001", id = 10001, name = "Ana", numbers = ["1001"] }},
    {{ channel = "PJSIP/1002", id = 10002, name = "Beto", numbers = ["1002"] }},
    {{ channel = "PJSIP/1003", id = 10003, name = "Carla", numbers = ["1003"] }},
]

[ami]
address = "{address}"
username = "{USERNAME}"
secret = "{secret}"

[[queue]]
name = "support"
id = 20001

[[nimbox]]
name = "nimbox"
url = "{to}"
token = "demo"
allow_http = true

[[webhook]]
name = "webhook"
url = "{to}"
events = ["call.state", "call.dtmf", "sms.received"]
secret = "whsec_Y2FsbHBvc3QtZGVtby1jYWxscG9zdC1kZW1v"
allow_http = true
"#,
        address = pbx.address(),
    );
    let mut config = load_text(&text, "callpost demo", &Environment::default())?.config;
    config.journal.directory = directory.to_path_buf();
    config.api.socket = directory.join("callpost.sock");
    Ok(config)
}
