//! Tests beside a real Asterisk: `tests/asterisk/start 22 -- IT real_asterisk --nocapture`, where
//! IT is this binary. Elsewhere they say that they are skipped.
//!
//! Each scenario is played once. Two listen: a recorder, as the recommended account, and the agent
//! itself, whose deliveries to a receiver must be what `fixtures/expected/` says.
//!
//! `scenarios::chosen` says how to play a part of the scenarios only. With
//! `CALLPOST_RECORD=fixtures/ami/22` what the account `callpost` was sent is kept there, a file a
//! scenario.
#![expect(clippy::print_stderr, reason = "who runs these for minutes wants to see them go on")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callpost::clock;
use callpost::receiver::{Receiver, Request};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::expect::{Create, Tolerance};
use crate::lab::{Ami, Message, Recorder};
use crate::options::{self, OPTIONS};
use crate::replay::expected;
use crate::scenarios::{self, Scenario};
use crate::site::Site;
use crate::story::utc;

/// Of the account in `tests/asterisk/conf/*/manager.d/callpost.conf`.
const SECRET: &str = "callpost";

/// Runs a test when an Asterisk is beside us. Its ports are fixed and it is one for all tests, so
/// each waits for its turn, and the runtime with its sockets is gone before the next one's.
pub fn beside_asterisk(test: impl AsyncFnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var_os("CALLPOST_ASTERISK").is_none() {
        eprintln!("skipped: no Asterisk here; `tests/asterisk/start 22 -- ...` brings one");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test());
}

/// The same in one share of two only, so that the shares take about as long as each other; without
/// shares always.
pub fn beside_asterisk_in_share(share: &str, test: impl AsyncFnOnce()) {
    let ours = std::env::var("CALLPOST_SHARE").unwrap_or_default();
    match ours.split_once('/') {
        Some((n, of)) if of != "1" && n != share => eprintln!("left to another share"),
        _ => beside_asterisk(test),
    }
}

/// The reference configuration of the expectations. The test event that verifies a webhook is sent too.
pub fn config(directory: &Path, receiver: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        r#"
[pbx]
name = "hq"
timezone = "UTC"
trunks = ["PJSIP/trunk"]
users = [
  {{ channel = "PJSIP/1001", id = 10001, numbers = ["1001"] }},
  {{ channel = "PJSIP/1002", id = 10002, numbers = ["1002"] }},
  {{ channel = "PJSIP/1003", id = 10003, numbers = ["1003"] }},
]

[ami]
address = "127.0.0.1:5038"
username = "callpost"
secret = "{SECRET}"

[journal]
directory = "{directory}/journal"

[api]
socket = "{directory}/callpost.sock"

[[nimbox]]
name = "crm"
url = "http://{receiver}"
allow_http = true
token = "t0k3n"
initiated = "utc-z"

[[webhook]]
name = "all"
url = "http://{receiver}/hook"
allow_http = true
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
events = ["call.state", "call.dtmf", "sms.received"]
"#
    )
}

/// A scenario as it was played.
struct Played {
    name: &'static str,
    /// The second of its first call, since the epoch.
    from: i64,
}

#[test]
fn every_scenario_is_heard_and_delivered_as_a_person_would_have_it() {
    beside_asterisk(async || {
        let directory = std::env::var_os("CALLPOST_RECORD").map(PathBuf::from);
        let site = Site::open().await;
        let agent = site.agent().await;
        let show = Show::play(&site, scenarios::chosen(), directory.as_deref()).await;
        show.judge(&site, agent, &version(), AT_ONCE).await;
    });
}

/// What `[calls]` makes of the scenarios that it is about.
#[test]
fn legs_of_conferences_and_of_internal_callers_are_told_when_asked_for() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let agent = site.agent_with(&format!("{}{OPTIONS}", site.config())).await;
        let show = Show::play(&site, scenarios::named(options::SCENARIOS), None).await;
        show.judge(&site, agent, "calls", AT_ONCE).await;
    });
}

/// What was played.
pub struct Show {
    played: Vec<Played>,
    failed: Vec<&'static str>,
}

impl Show {
    /// Plays scenarios before a recorder, which keeps them in a directory if there is one.
    pub async fn play(
        site: &Site,
        scenarios: impl Iterator<Item = &'static Scenario>,
        record: Option<&Path>,
    ) -> Show {
        if let Some(directory) = record {
            std::fs::create_dir_all(directory).unwrap();
        }
        let mut show = Show { played: Vec::new(), failed: Vec::new() };
        for scenario in scenarios {
            let begin = Instant::now();
            let play = async {
                let recorder = Recorder::start("callpost").await;
                site.lab.begin().await;
                show.played.push(Played { name: scenario.name, from: clock::now().secs() });
                (scenario.play)(&site.lab).await;
                site.lab.settle().await;
                let heard = recorder.finish().await;
                heard_what_it_asked_for(scenario.name, &heard);
                heard
            };
            let outcome = AssertUnwindSafe(play).catch_unwind().await;
            let seconds = begin.elapsed().as_secs_f64();
            if let Ok(heard) = outcome {
                eprintln!("{:40} {seconds:4.1} s {:6} bytes", scenario.name, heard.len());
                if let Some(directory) = record {
                    std::fs::write(directory.join(scenario.name).with_extension("ami"), heard).unwrap();
                }
            } else {
                eprintln!("{:40} {seconds:4.1} s FAILED", scenario.name);
                show.failed.push(scenario.name);
                site.lab.clear().await;
            }
        }
        show
    }

    /// Ends the agent once no CDR can come any more, and compares what it delivered with the
    /// expectations of this name; `late` is how long after a call CDRs come.
    pub async fn judge(mut self, site: &Site, mut agent: Agent, expectations: &str, late: Duration) {
        silence(&site.receiver, late).await;
        let status = agent.delivered().await;
        assert_eq!(status.ami.malformed, 0);
        self.failed.extend(compare(&self.played, &site.receiver, expectations));
        eprintln!("{:?}", site.receiver.counts());
        site.nothing_was_wrong();
        agent.stop().await;
        self.failed.sort_unstable();
        self.failed.dedup();
        assert!(self.failed.is_empty(), "failed: {:?}", self.failed);
    }
}

/// The version that `tests/asterisk/start` was asked for.
fn version() -> String {
    std::env::var("CALLPOST_ASTERISK").unwrap()
}

/// CDRs come as the channels go.
pub const AT_ONCE: Duration = Duration::ZERO;

/// Waits until nothing has come for as long as the tracker ever waits for the end of a call whose
/// CDRs are so late: 10 s after a queue's last attempt, and 2 s for its CDRs.
async fn silence(receiver: &Receiver, late: Duration) {
    let mut last = receiver.counts().requests;
    while let Ok(next) = timeout(Duration::from_secs(13) + late, receiver.next(last)).await {
        last = next.number;
    }
}

/// Says of each scenario whether what was delivered is what was expected, and gives the names of
/// those where it is not.
fn compare(played: &[Played], receiver: &Receiver, expectations: &str) -> Vec<&'static str> {
    let received = receiver.received();
    let mut failed = Vec::new();
    for (index, scenario) in played.iter().enumerate() {
        let to = played.get(index + 1).map_or(i64::MAX, |next| next.from);
        let within = |at: Option<i64>| at.is_some_and(|at| (scenario.from..to).contains(&at));
        let mut bodies = Vec::new();
        let mut creates = Vec::new();
        for request in received.iter().filter(|received| !received.again) {
            match &request.request {
                Request::Webhook { body, event, .. } if event != "test" => {
                    let begin = body.get("start_time").or_else(|| body.get("event_time"));
                    if within(begin.and_then(Value::as_str).and_then(utc)) {
                        bodies.push(body.clone());
                    }
                }
                Request::Create { initiated, source, destination, duration, .. }
                    if within(utc(initiated)) =>
                {
                    creates.push(Create {
                        initiated: utc(initiated).unwrap(),
                        source: source.clone(),
                        destination: destination.clone(),
                        duration: i64::try_from(duration.unwrap_or_default()).unwrap(),
                    });
                }
                _ => {}
            }
        }
        let expected = expected(expectations, scenario.name);
        let tolerance = Tolerance { duration: 1, start: 1 };
        let webhooks = expected.check_webhooks(&bodies, tolerance);
        let creates = expected.check_creates(&creates, Some(scenario.from), tolerance);
        match (&webhooks, &creates) {
            (Ok(()), Ok(())) => eprintln!("{:40} delivered as expected", scenario.name),
            (webhooks, creates) => {
                failed.push(scenario.name);
                eprintln!("{:40} NOT DELIVERED AS EXPECTED", scenario.name);
                for differences in [webhooks, creates].into_iter().filter_map(|result| result.as_ref().err())
                {
                    eprintln!("{differences}");
                }
            }
        }
    }
    failed
}

/// The account's classes and filters work, and the recording is whole messages.
fn heard_what_it_asked_for(scenario: &str, heard: &[u8]) {
    let text = String::from_utf8_lossy(heard);
    assert!(text.is_empty() || text.ends_with("\r\n\r\n"), "the recording ends within a message");
    if scenario == "z01_injection_message" {
        assert!(text.contains("\r\n\r\nEvent: Hangup\r\n"), "the forged event was not let through");
        return;
    }
    let wanted = ["call,all", "agent,all", "dtmf,all", "cdr,all", "user,all", "system,all"];
    let unwanted =
        ["QueueMemberStatus", "DeviceStateChange", "MusicOnHoldStart", "DTMFBegin", "Newexten", "VarSet"];
    for message in text.split_terminator("\r\n\r\n").map(Message::parse) {
        assert!(wanted.contains(&message.get("Privilege")), "{message:?}");
        assert!(!unwanted.contains(&message.get("Event")), "{message:?}");
    }
}

/// What `callpost check` has to find: Asterisk refuses without saying which right is missing.
#[test]
fn an_account_with_too_few_rights_is_refused() {
    beside_asterisk(async || {
        let poor = Ami::login("poor").await;
        for action in ["CoreShowChannels", "CoreStatus", "CoreSettings", "Status"] {
            let answer = poor.action(&[("Action", action)]).await;
            assert_eq!(answer.get("Message"), "Permission denied", "{action}");
        }
        let heard = poor.heard();
        assert!(!heard.iter().any(|message| message.get("Event") == "FullyBooted"));
    });
}

/// The agent writes no such line; that Asterisk names no ActionID is why it never may.
#[test]
fn a_line_that_is_too_long_is_refused_and_the_session_goes_on() {
    beside_asterisk(async || {
        let ami = Ami::login("poor").await;
        let answer = ami.refused(&[("Action", "UserEvent"), ("UserEvent", &"x".repeat(1025))]).await;
        assert_eq!(answer.get("Message"), "Failed to parse message: line too long");
        assert_eq!(answer.get("ActionID"), "");
        assert_eq!(ami.action(&[("Action", "Ping")]).await.get("Ping"), "Pong");
    });
}
