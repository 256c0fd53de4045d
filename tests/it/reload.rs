//! Another configuration for a running agent: under load nothing is lost, doubled or overtaken; one
//! with faults changes nothing.
#![expect(clippy::print_stderr, reason = "the seed, and what was measured")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use callpost::agent::Agent;
use callpost::api::Reloaded;
use callpost::config::{Config, Environment, load_text};
use callpost::demo::{Pbx, Recording, SCENES, Shift};
use callpost::journal::{Counters, Journal};
use callpost::receiver::{Counts, Options, Receiver};
use jiff::tz::TimeZone;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent as Program;

const PATIENCE: Duration = Duration::from_secs(60);

/// Who receives what: each route has a receiver of its own, which knows order and doubles.
struct Site {
    home: TempDir,
    pbx: Pbx,
    control: Receiver,
    fixed: Receiver,
    other: Receiver,
    crm: Receiver,
}

/// What differs from one configuration to the next.
#[derive(Clone, Copy, Default)]
struct Variant(u64);

impl Variant {
    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// The next one, as good as any.
    fn next(self) -> Self {
        Self(self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    }
}

impl Site {
    async fn new() -> Self {
        let receiver = || async { Receiver::start(Options::default()).await.unwrap() };
        Self {
            home: TempDir::new().unwrap(),
            pbx: Pbx::start("secret").await.unwrap(),
            control: receiver().await,
            fixed: receiver().await,
            other: receiver().await,
            crm: receiver().await,
        }
    }

    fn config(&self, variant: Variant) -> Config {
        let v = Variant(variant.0 >> 32);
        let mut text = format!(
            "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\ntrunks = [\"PJSIP/trunk\"{}]\n\
             [ami]\naddress = \"{}\"\nsecret = \"secret\"\n[journal]\ndirectory = {:?}\n\
             [numbers]\nmin_length = {}\n",
            if v.bit(0) { ", \"DAHDI/\"" } else { "" },
            self.pbx.address(),
            self.home.path(),
            if v.bit(1) { 1 } else { 3 },
        );
        let webhook = |name: &str, receiver: &Receiver, more: &str| {
            format!(
                "[[webhook]]\nname = \"{name}\"\nurl = \"http://{}/{name}\"\nallow_http = true\n\
                 events = [\"call.state\", \"call.dtmf\", \"sms.received\"]\n{more}\n",
                receiver.address()
            )
        };
        text += &webhook("control", &self.control, "verify = false");
        let more = format!(
            "verify = false\nconcurrency = {}\n{}{}",
            1 + (v.0 >> 2) % 8,
            if v.bit(6) { "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n" } else { "" },
            if v.bit(7) { "headers = { X-Team = \"north\" }\n" } else { "rate = 500\n" },
        );
        text += &webhook("fixed", &self.fixed, &more);
        // there, not enabled, elsewhere on its host (and so verified anew), or not there at all
        match (v.bit(8), v.bit(9)) {
            (true, true) => text += &webhook("other", &self.other, ""),
            (true, false) => text += &webhook("other", &self.other, "enabled = false"),
            (false, true) => text += &webhook("other", &self.other, "").replace("/other", "/other/v2"),
            (false, false) => {}
        }
        if v.bit(10) {
            text += &format!(
                "[[nimbox]]\nname = \"crm\"\nurl = \"http://{}/\"\ntoken = \"t{}\"\nallow_http = true\n",
                self.crm.address(),
                (v.0 >> 11) % 3
            );
        }
        load_text(&text, "test", &Environment::default()).unwrap().config
    }

    /// All that the variants can have.
    fn whole(&self) -> Config {
        self.config(Variant(0b111_0000_0000 << 32))
    }
}

async fn counters(journal: &Journal, route: &str) -> Counters {
    let status = journal.status().await.unwrap();
    let of = status.routes.iter().find(|known| &*known.route.0 == route);
    of.map(|of| of.counters).unwrap_or_default()
}

/// Until nothing is open and nothing waits.
pub async fn quiet(journal: &Journal) {
    let begin = Instant::now();
    let mut before = (u64::MAX, 0);
    loop {
        let status = journal.status().await.unwrap();
        let pending: u64 = status.routes.iter().map(|route| route.counters.pending).sum();
        let now = (status.objects, status.routes.iter().map(|route| route.counters.accepted).sum());
        if pending == 0 && now == before {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{status:?}");
        before = now;
        sleep(Duration::from_millis(1500)).await;
    }
}

fn assert_right(name: &str, counts: Counts, counters: Counters) {
    assert_eq!((counts.conflicts, counts.out_of_order), (0, 0), "{name}: {counts:?}");
    assert_eq!((counts.webhooks_again, counts.creates_again), (0, 0), "{name}, none twice: {counts:?}");
    assert_eq!(counts.failed, 0, "{name}");
    assert_eq!((counters.pending, counters.dead, counters.dropped), (0, 0, 0), "{name}: {counters:?}");
    assert_eq!(counts.webhooks + counts.creates, counters.accepted, "{name}: {counts:?} {counters:?}");
}

/// Plays recorded calls, `rounds` times all of them, as fast as the agent takes them.
pub async fn play(pbx: &Pbx, rounds: u32) {
    play_from(pbx, 0, rounds).await;
}

/// As [`play`], with the calls of later rounds.
pub async fn play_from(pbx: &Pbx, first: u32, rounds: u32) {
    let recordings = SCENES.map(|scene| Recording::new(scene.stream));
    for round in first..first + rounds {
        // each round's calls have seconds, and so NiMbox keys, of their own
        let seconds =
            callpost::clock::now().secs() - recordings[0].first().secs() - 40_000 + 60 * i64::from(round);
        let longest = recordings.iter().map(|recording| recording.messages.len()).max().unwrap();
        for line in 0..longest {
            for (n, recording) in (0u32..).zip(&recordings) {
                let Some((_, message)) = recording.messages.get(line) else { continue };
                let offset = 1000 * (round * 8 + n + 1);
                let shift = Shift { seconds, offset, zone: TimeZone::UTC };
                pbx.emit(&shift.message(message));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_every_few_milliseconds_under_load_lose_double_and_invert_nothing() {
    let site = Site::new().await;
    let mut variant = Variant(u64::from(std::process::id()));
    eprintln!("seed {}", variant.0);
    let mut agent = Agent::start(site.whole()).await.unwrap();
    timeout(PATIENCE, site.pbx.ready()).await.unwrap();
    let rounds = std::env::var("CALLPOST_RELOAD_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut reloads = 0;
    {
        let mut load = std::pin::pin!(play(&site.pbx, rounds));
        loop {
            tokio::select! {
                () = &mut load => break,
                () = sleep(Duration::from_millis(3)) => {}
            }
            variant = variant.next();
            let reloaded = agent.reload(site.config(variant)).await;
            assert!(matches!(reloaded, Reloaded::Applied { .. }), "{reloaded:?}");
            reloads += 1;
        }
    }
    let journal = agent.view().journal;
    assert!(matches!(agent.reload(site.whole()).await, Reloaded::Applied { .. }));
    quiet(&journal).await;
    for (name, receiver) in
        [("control", &site.control), ("fixed", &site.fixed), ("other", &site.other), ("crm", &site.crm)]
    {
        assert_right(name, receiver.counts(), counters(&journal, name).await);
    }
    let webhooks = site.control.counts().webhooks;
    assert_eq!(site.fixed.counts().webhooks, webhooks, "what is configured all the time misses nothing");
    assert!(webhooks > u64::from(rounds) * 40 && reloads > 20, "{webhooks} webhooks, {reloads} reloads");
    eprintln!("{reloads} reloads, {webhooks} webhooks, other {:?}", site.other.counts());
    assert!(site.other.counts().webhooks > 0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_ami_settings_connect_anew_and_calls_go_on() {
    let site = Site::new().await;
    let other = Pbx::start("another").await.unwrap();
    let mut agent = Agent::start(site.whole()).await.unwrap();
    timeout(PATIENCE, site.pbx.ready()).await.unwrap();
    let mut config = site.whole();
    let ami = config.ami.as_mut().unwrap();
    ami.address = other.address().to_string();
    ami.secret = "another".to_owned().into();
    let Reloaded::Applied { changes, .. } = agent.reload(config.clone()).await else { panic!("refused") };
    let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["ami.address", "ami.secret"]);
    timeout(PATIENCE, other.ready()).await.unwrap();
    play(&other, 1).await;
    config.ami = None;
    let Reloaded::Applied { changes, .. } = agent.reload(config).await else { panic!("refused") };
    assert_eq!(changes[0].to_string(), "ami removed");
    assert!(matches!(agent.reload(site.whole()).await, Reloaded::Applied { .. }));
    timeout(PATIENCE, site.pbx.ready()).await.unwrap();
    quiet(&agent.view().journal).await;
    assert_right("control", site.control.counts(), counters(&agent.view().journal, "control").await);
    assert!(site.control.counts().webhooks > 40, "{:?}", site.control.counts());
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_refused_or_said_to_need_a_restart() {
    let site = Site::new().await;
    let mut agent = Agent::start(site.whole()).await.unwrap();
    let mut renamed = site.whole();
    renamed.pbx.name = "branch".to_owned();
    renamed.webhooks.clear();
    let Reloaded::Refused { key, remedy, .. } = agent.reload(renamed).await else { panic!("taken") };
    assert_eq!(key, "pbx.name");
    assert!(remedy.contains("\"hq\""), "{remedy}");
    assert_eq!(agent.view().routes.len(), 4, "nothing of it counts");

    let mut moved = site.whole();
    moved.journal.directory = site.home.path().join("elsewhere");
    moved.webhooks[0].delivery.concurrency = 3;
    for _ in 0..2 {
        let Reloaded::Applied { restart, .. } = agent.reload(moved.clone()).await else { panic!("refused") };
        assert_eq!(
            restart.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["journal.directory changed"]
        );
    }
    assert_eq!(agent.view().config.journal.directory, site.home.path());
    assert_eq!(agent.view().config.webhooks[0].delivery.concurrency, 3, "the rest is in force");

    let mut rules = site.whole();
    rules.numbers.min_length = 5;
    rules.nimbox[0].initiated = callpost::config::Initiated::UtcZ;
    let Reloaded::Applied { warnings, .. } = agent.reload(rules).await else { panic!("refused") };
    assert!(warnings.iter().any(|warning| warning.starts_with("numbers.min_length: NiMbox")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.starts_with("nimbox.crm.initiated: ")), "{warnings:?}");
    agent.stop().await;
}

async fn callpost(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_callpost"));
    command.env_clear().arg("--config").arg(directory.join("callpost.toml")).args(arguments);
    command.output().await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_faults_is_refused_with_file_line_and_key_and_the_agent_goes_on() {
    let home = TempDir::new().unwrap();
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let good = format!(
        "[pbx]\nname = \"hq\"\n[journal]\ndirectory = {:?}\n[[webhook]]\nname = \"desk\"\n\
         url = \"http://{}/\"\nallow_http = true\nevents = [\"call.state\"]\n",
        home.path(),
        receiver.address()
    );
    let mut agent = Program::start(home.path(), &good);
    let file = home.path().join("callpost.toml");
    let verified = |status: &callpost::api::AgentStatus| status.routes[0].health.paused.is_none();
    agent.until("verified", verified).await;
    let mut bad: Vec<_> =
        std::fs::read_dir("fixtures/config/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    bad.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(bad.len() > 5, "{bad:?}");
    for (n, path) in bad.iter().enumerate() {
        std::fs::copy(path, &file).unwrap();
        let output = callpost(home.path(), &["reload"]).await;
        assert_eq!(output.status.code(), Some(2), "{path:?}: {}", text(&output));
        assert!(text(&output).contains("callpost.toml:"), "a line: {}", text(&output));
        agent.signal("HUP").await;
        agent.until("going on", |status| status.routes.len() == 1).await;
        let begin = Instant::now();
        while agent.log().matches("the one before goes on").count() <= n {
            assert!(begin.elapsed() < PATIENCE, "{path:?}: {}", agent.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
    let tests = receiver.counts().tests;
    std::fs::write(&file, good.replace("/\"\nallow", "/hook\"\nrate = 7\nallow")).unwrap();
    let output = callpost(home.path(), &["reload", "--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said: Reloaded = serde_json::from_slice(&output.stdout).unwrap();
    let Reloaded::Applied { changes, warnings, .. } = said else { panic!("{said:?}") };
    let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["webhook.desk.rate", "webhook.desk.url"]);
    assert!(warnings[0].contains("test event"), "{warnings:?}");
    agent.until("verified anew", |_| receiver.counts().tests == tests + 1).await;

    std::fs::write(&file, good.split("[[webhook]]").next().unwrap()).unwrap();
    agent.signal("HUP").await;
    agent.until("without routes", |status| status.routes.is_empty()).await;
    let output = callpost(home.path(), &["reload"]).await;
    assert!(text(&output).contains("nothing has changed"), "{}", text(&output));
    agent.stop().await;
    let output = callpost(home.path(), &["reload"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}
