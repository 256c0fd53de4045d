//! One run: calls are played, trouble is made, and in the end the books are compared.

#![expect(clippy::print_stderr, reason = "a long run says where it is")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callpost::api::{AgentStatus, Client, DeadQuery};
use callpost::calls::{EventName, UpdateBody};
use callpost::config::{Config, Environment, load_text};
use callpost::demo::Pbx;
use callpost::journal::Payload;
use callpost::routes::Routes;
use parsers::Micros;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::call::create_key;
use super::ledger::{Faults, Ledger};
use super::pbx::Player;
use super::server::{Port, Server};
use crate::agent::Agent;

/// In the order of the ledger: name, and requests under way at once.
const ROUTES: [(&str, usize); 3] = [("hook", 16), ("desk", 8), ("crm", 4)];
/// What the agent waits for an answer: more than a busy host takes.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Deliveries that may wait before no more calls are begun.
const PENDING: u64 = 10_000;
/// Below it more calls are begun.
const PENDING_LOW: u64 = 5_000;
/// Bytes of events that may wait before no more calls are begun: some tenths of a second.
const BEHIND: u64 = 128 << 10;
const LOOK: Duration = Duration::from_millis(250);
/// From the end of a call to the disk, with four times what the agent says of itself.
const UNHEARD: Duration = Duration::from_secs(3);
/// A start, a login, a stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the last trouble everything arrives within this: the ladder's third step may be on its way.
const DRAIN: Duration = Duration::from_secs(420);

/// What is done to the agent and its receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// SIGKILL in the middle of everything.
    Kill,
    /// SIGKILL while deliveries are under way and every event is on disk: nothing may be missing.
    KillFrozen,
    /// SIGTERM in the middle of everything.
    Stop,
    /// SIGTERM while deliveries are under way and every event is on disk.
    StopFrozen,
    /// A receiver refuses connections for a while.
    Refuse,
    /// A receiver says 401 for a while; then the agent is started anew, which asks again at once.
    Unauthorized,
    /// Asterisk drops the connection and is there again; every event was on disk.
    Disconnect,
    /// The configuration is read again, unchanged.
    Reload,
    /// All receivers drop their connections and start again.
    Restart,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Deliveries owed in all, about.
    pub deliveries: usize,
    /// Calls begun a second; `None`: as many as the agent bears.
    pub rate: Option<f64>,
    pub faults: Faults,
    /// One after the other, over and over.
    pub troubles: Vec<Trouble>,
    pub every: Duration,
    /// Each trouble in the list is made once, and the run ends then.
    pub once: bool,
    /// The agent's files are in memory, where the system has room: a process that is killed loses
    /// nothing it wrote, whatever it wrote to, and no disk bounds the rate.
    pub in_memory: bool,
}

/// A run under way.
pub struct Run {
    plan: Plan,
    directory: TempDir,
    config: String,
    ledger: Arc<Mutex<Ledger>>,
    servers: Vec<Server>,
    pbx: Arc<Pbx>,
    player: Player,
    agent: Option<Agent>,
    client: Client,
    stops: usize,
    made: Vec<Trouble>,
}

fn config(pbx: &Pbx, servers: &[Server], directory: &Path) -> String {
    let [hook, desk, crm] = [0, 1, 2].map(|n: usize| servers[n].address);
    format!(
        r#"
[pbx]
name = "hq"
timezone = "UTC"
trunks = ["PJSIP/trunk"]
users = [
    {{ channel = "PJSIP/1001", id = 10001, name = "Ana", numbers = ["1001"] }},
    {{ channel = "PJSIP/1002", id = 10002, name = "Beto", numbers = ["1002"] }},
    {{ channel = "PJSIP/1003", id = 10003, name = "Carla", numbers = ["1003"] }},
]
[ami]
address = "{ami}"
username = "callpost"
secret = "oracle"
[journal]
directory = "{journal}"
[api]
socket = "{socket}"
[[queue]]
name = "support"
id = 20001
[[webhook]]
name = "hook"
url = "http://{hook}/"
events = ["call.state", "call.dtmf", "sms.received"]
secret = "whsec_Y2FsbHBvc3QtZGVtby1jYWxscG9zdC1kZW1v"
concurrency = 16
timeout = "30 s"
allow_http = true
[[webhook]]
name = "desk"
url = "http://{desk}/"
events = ["call.connected", "call.missed", "call.hangup"]
concurrency = 8
timeout = "30 s"
verify = false
allow_http = true
[[nimbox]]
name = "crm"
url = "http://{crm}"
token = "oracle"
initiated = "utc-z"
concurrency = 4
timeout = "30 s"
allow_http = true
"#,
        ami = pbx.address(),
        journal = directory.join("journal").display(),
        socket = directory.join("callpost.sock").display(),
    )
}

fn loaded(config: &str) -> Config {
    load_text(config, "oracle", &Environment::default()).unwrap().config
}

/// On `/dev/shm`, if a gigabyte is free there; containers often have 64 MB.
fn in_memory() -> std::io::Result<TempDir> {
    match rustix::fs::statvfs("/dev/shm") {
        Ok(room) if room.f_bavail * room.f_frsize >= 1 << 30 => TempDir::new_in("/dev/shm"),
        _ => TempDir::new(),
    }
}

impl Run {
    /// Everything stands, the agent has logged in, calls begin.
    pub async fn start(plan: Plan) -> Self {
        let directory = if plan.in_memory { in_memory() } else { TempDir::new() }.unwrap();
        let seed = std::env::var("CALLPOST_ORACLE_SEED").ok().map(|text| text.parse().unwrap());
        let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
        eprintln!("CALLPOST_ORACLE_SEED={seed}");
        let ledger = Ledger::new(&ROUTES.map(|(name, _)| name), plan.faults, seed);
        let ledger = Arc::new(Mutex::new(ledger));
        let mut servers = Vec::new();
        for route in 0..ROUTES.len() {
            servers.push(Server::start(Arc::clone(&ledger), route, TIMEOUT).await);
        }
        let pbx = Arc::new(Pbx::start("oracle").await.unwrap());
        let config = config(&pbx, &servers, directory.path());
        let client = Client::new(&directory.path().join("callpost.sock"));
        let rate = plan.rate.unwrap_or(20.0);
        let agent = Agent::start_quietly(directory.path(), &config);
        let stage = (Arc::clone(&pbx), loaded(&config), Arc::clone(&ledger));
        let player = Player::start(stage.0, stage.1, stage.2, 0.0, plan.deliveries);
        let run = Self {
            plan,
            directory,
            config,
            ledger,
            servers,
            pbx,
            player,
            agent: Some(agent),
            client,
            stops: 0,
            made: Vec::new(),
        };
        run.until("logged in", |status| status.ami.connected).await;
        run.player.stage.lock().unwrap().rate = rate;
        run
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().pid()
    }

    /// Where its journal is.
    pub fn journal(&self) -> std::path::PathBuf {
        self.directory.path().join("journal")
    }

    /// How the agent stands.
    pub async fn status(&self) -> AgentStatus {
        self.until("there", |_| true).await
    }

    async fn until(&self, what: &str, wanted: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        let begin = Instant::now();
        let mut last = String::new();
        while begin.elapsed() < PATIENCE {
            match self.client.status().await {
                Ok(status) if wanted(&status) => return status,
                Ok(status) => last = serde_json::to_string_pretty(&status).unwrap(),
                Err(why) => last = why.to_string(),
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the agent is not {what}: {last}\n{}", self.log());
    }

    /// The end of what it logged.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Plays and makes trouble, for so long or until all is played.
    pub async fn play(&mut self, most: Duration) {
        let begin = Instant::now();
        let mut next = begin + self.plan.every;
        let mut number = 0;
        while !self.player.is_done() && begin.elapsed() < most {
            assert!(self.player.is_alive(), "the player failed");
            self.steer().await;
            sleep(LOOK).await;
            if Instant::now() < next || self.plan.troubles.is_empty() {
                continue;
            }
            if self.plan.once && number == self.plan.troubles.len() {
                break;
            }
            self.trouble(self.plan.troubles[number % self.plan.troubles.len()]).await;
            number += 1;
            next = Instant::now() + self.plan.every;
        }
        self.player.stage.lock().unwrap().rate = 0.0;
    }

    /// As many calls as the agent bears.
    async fn steer(&self) {
        let status = self.status().await;
        let pending: u64 = status.journal.routes.iter().map(|route| route.counters.pending).sum();
        let mut stage = self.player.stage.lock().unwrap();
        stage.hold = pending > PENDING || status.ami.behind > BEHIND;
        if self.plan.rate.is_none() && stage.rate > 0.0 {
            let factor = match pending {
                _ if stage.hold => 0.9,
                0..PENDING_LOW => 1.05,
                _ => 1.0,
            };
            stage.rate = (stage.rate * factor).clamp(5.0, 500.0);
        }
    }

    async fn trouble(&mut self, trouble: Trouble) {
        {
            let ledger = self.ledger.lock().unwrap();
            let at = ledger.elapsed().as_secs_f64();
            eprintln!("{at:>6.1} s {trouble:?}, {} owed, {} taken", ledger.size(), ledger.taken);
        }
        self.made.push(trouble);
        match trouble {
            Trouble::Kill | Trouble::Stop => {
                let lag = Duration::from_micros(self.status().await.ingest.lag_p99);
                self.player.stage.lock().unwrap().away = true;
                // a stop waits until what came is on disk
                let margin = if trouble == Trouble::Stop { UNHEARD / 3 } else { UNHEARD + lag * 4 };
                let unheard = self.player.unheard(margin);
                {
                    let mut ledger = self.ledger.lock().unwrap();
                    unheard.into_iter().for_each(|call| ledger.straddles(call));
                }
                self.end(trouble == Trouble::Kill).await;
                // what goes on meanwhile goes by
                sleep(Duration::from_millis(500)).await;
                self.begin().await;
                self.player.stage.lock().unwrap().away = false;
            }
            Trouble::KillFrozen | Trouble::StopFrozen => {
                self.freeze().await;
                self.end(trouble == Trouble::KillFrozen).await;
                self.begin().await;
                self.player.thaw();
            }
            Trouble::Disconnect => {
                self.freeze().await;
                self.pbx.hang_up();
                self.until("cut off", |status| !status.ami.connected).await;
                self.until("logged in again", |status| status.ami.connected).await;
                self.player.thaw();
            }
            Trouble::Refuse => {
                let route = self.any_route();
                self.servers[route].set(Port::Refused);
                sleep(Duration::from_secs(4)).await;
                self.servers[route].set(Port::Open);
            }
            Trouble::Unauthorized => {
                let route = self.any_route();
                self.ledger.lock().unwrap().unauthorized[route] = true;
                sleep(Duration::from_secs(2)).await;
                self.ledger.lock().unwrap().unauthorized[route] = false;
                self.freeze().await;
                self.end(false).await;
                self.begin().await;
                self.player.thaw();
            }
            Trouble::Reload => self.agent.as_ref().unwrap().signal("HUP").await,
            Trouble::Restart => {
                self.servers.iter().for_each(|server| server.set(Port::Refused));
                sleep(Duration::from_millis(500)).await;
                self.servers.iter().for_each(|server| server.set(Port::Open));
            }
        }
    }

    fn any_route(&self) -> usize {
        usize::try_from(self.ledger.lock().unwrap().chance(ROUTES.len() as u64)).unwrap()
    }

    /// Every call stands still and all that was said of it is on disk.
    async fn freeze(&self) {
        self.player.freeze().await;
        let unlisted = self.player.unlisted();
        {
            let mut ledger = self.ledger.lock().unwrap();
            unlisted.into_iter().for_each(|call| ledger.straddles(call));
        }
        let mut last = (0, 0);
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(400) {
            let status = self.status().await;
            let now = (status.ami.events, status.ingest.events);
            if now != last || status.ami.behind > 0 {
                (last, since) = (now, Instant::now());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(&mut self, kill: bool) {
        let agent = self.agent.take().unwrap();
        if kill {
            agent.kill().await;
            self.ledger.lock().unwrap().killed();
        } else {
            self.stops += 1;
            agent.stop().await;
        }
    }

    async fn begin(&mut self) {
        self.agent = Some(Agent::start_quietly(self.directory.path(), &self.config));
        self.until("logged in again", |status| status.ami.connected).await;
    }

    /// Faults end; everything that is owed arrives, dead letters are made again, the books agree.
    pub async fn finish(mut self) -> String {
        let began = Instant::now();
        while !self.player.is_done() {
            assert!(self.player.is_alive(), "the player failed");
            sleep(LOOK).await;
        }
        let played = self.ledger.lock().unwrap().elapsed();
        self.drained(began).await;
        let drained = began.elapsed();
        let doomed = self.ledger.lock().unwrap().doomed();
        let (line, dead) = self.conservation(doomed.len()).await;
        if dead > 0 {
            self.ledger.lock().unwrap().forgive();
            self.retry_dead(&doomed).await;
            self.drained(Instant::now()).await;
        }
        self.compare_straddling().await;
        let in_flight = ROUTES.iter().map(|(_, requests)| requests).sum();
        let verdict = self.ledger.lock().unwrap().verdict(in_flight);
        let verdict = verdict.unwrap_or_else(|wrong| panic!("{wrong}"));
        let said = format!(
            "{verdict}\nplayed for {:.0} s, drained {:.0} s later, {} stops, {} dead letters made again; {line}",
            played.as_secs_f64(),
            drained.as_secs_f64(),
            self.stops,
            dead,
        );
        self.agent.take().unwrap().stop().await;
        said
    }

    async fn drained(&self, began: Instant) {
        let mut said = Instant::now();
        loop {
            let missing = self.ledger.lock().unwrap().missing();
            let status = self.status().await;
            let pending: u64 = status.journal.routes.iter().map(|route| route.counters.pending).sum();
            if missing.is_empty() && pending == 0 {
                return;
            }
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                let health: Vec<_> = status.routes.iter().map(|route| &route.health).collect();
                eprintln!("{} missing, {pending} pending; {health:?}", missing.len());
            }
            if began.elapsed() > DRAIN {
                let shown = &missing[..missing.len().min(20)];
                panic!(
                    "{} still missing, {pending} pending: {shown:#?}\n{status:#?}\n{}",
                    missing.len(),
                    self.log()
                );
            }
            sleep(LOOK).await;
        }
    }

    /// A sample of the calls that straddle: what the journal took in was delivered, and what began has ended, once.
    async fn compare_straddling(&self) {
        let routes = Routes::new(&loaded(&self.config));
        let straddling = self.ledger.lock().unwrap().straddling();
        let step = straddling.len().div_ceil(300).max(1);
        for (index, hash) in straddling.iter().step_by(step) {
            let Ok(trace) = self.client.trace(&hash.parse().unwrap()).await else { continue };
            let updates = &trace.trace.updates;
            for update in updates {
                for outgoing in routes.select(update) {
                    let route = ROUTES.iter().position(|(name, _)| *name == &*outgoing.route.0).unwrap();
                    let came = self.ledger.lock().unwrap().came(route, &outgoing.id.0);
                    assert!(came, "{} {} of call {index}, which straddles", ROUTES[route].0, outgoing.id.0);
                }
            }
            let mut ends = BTreeMap::<u64, (usize, (u64, bool))>::new();
            for update in updates {
                let UpdateBody::Leg(leg) = &update.body else { continue };
                let over = matches!(leg.event, EventName::Hangup | EventName::Missed | EventName::Failed);
                let number: u64 = update.id.0.rsplit('.').next().unwrap().parse().unwrap();
                let (count, last) = ends.entry(leg.call_id).or_default();
                *count += usize::from(over);
                *last = (*last).max((number, over));
            }
            let bad: Vec<_> = ends.iter().filter(|(_, (count, last))| *count != 1 || !last.1).collect();
            assert!(bad.is_empty(), "call {index}, which straddles, does not end once: {bad:?} {updates:#?}");
        }
    }

    /// Accepted = delivered + pending + dead + refused + dropped, on every route.
    async fn conservation(&self, dead: usize) -> (String, u64) {
        let status = self.status().await;
        let mut line = Vec::new();
        let mut dead_in_all = 0;
        for route in &status.journal.routes {
            let c = &route.counters;
            let out = c.delivered + c.pending + c.dead + c.refused + c.dropped;
            assert_eq!(c.accepted, out, "{}: {c:?}", route.route.0);
            assert_eq!((c.pending, c.refused, c.dropped), (0, 0, 0), "{}: {c:?}", route.route.0);
            dead_in_all += c.dead;
            if c.accepted > 0 {
                line.push(format!("{} {} accepted", route.route.0, c.accepted));
            }
        }
        assert!(dead_in_all >= dead as u64, "{dead_in_all} dead letters, not {dead}");
        assert_eq!((status.journal.lost, status.journal.quarantined), (0, 0));
        (line.join(", "), dead_in_all)
    }

    /// Makes deliveries of every dead letter again; they are those that were found fault with.
    async fn retry_dead(&self, doomed: &[(String, String)]) {
        let mut found = BTreeSet::new();
        let mut query = DeadQuery::default();
        loop {
            let page = self.client.dead(&query).await.unwrap();
            for letter in &page.letters {
                let id = match &letter.payload {
                    Payload::Webhook { .. } => letter.id.0.to_string(),
                    Payload::Nimbox { initiated, source, destination, .. } => {
                        create_key(initiated, source, destination)
                    }
                };
                assert_eq!(letter.status, Some(400), "{letter:?}");
                found.insert((letter.route.0.to_string(), id));
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        for one in doomed {
            assert!(found.contains(one), "{one:?} is not among the dead letters");
        }
        let mut done = 0;
        let now = Micros(jiff::Timestamp::now().as_microsecond());
        query = DeadQuery { before: Some(now), ..DeadQuery::default() };
        loop {
            let page = self.client.dead_retry(&query).await.unwrap();
            done += page.done.len();
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(done, found.len());
    }
}
