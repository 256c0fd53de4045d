//! A digit that somebody presses may be part of a card's number or of a PIN: it goes to the
//! receivers that asked for digits and is seen nowhere else, whatever a person or a program asks.

use std::process::{Command, Stdio};
use std::time::Duration;

use callpost::demo::Pbx;
use callpost::receiver::{Options, Receiver, Request};
use tokio::time::{Instant, sleep};

use crate::agent::Agent;
use crate::replay::fixture;

/// A digit that nothing else contains.
const PRESSED: char = '♠';

const CONFIG: &str = r#"
[pbx]
name = "hq"
trunks = ["PJSIP/trunk"]
[ami]
address = "PBX"
secret = "right"
[journal]
directory = "HOME/journal"
[api]
socket = "HOME/callpost.sock"
[[webhook]]
name = "digits"
url = "http://RECEIVER/digits"
allow_http = true
verify = false
events = ["call.state", "call.dtmf"]
[[webhook]]
name = "masked"
url = "http://RECEIVER/masked"
allow_http = true
verify = false
events = ["call.dtmf"]
dtmf_mask = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digits_are_seen_by_the_receivers_that_asked_for_them_alone() {
    let pbx = Pbx::start("right").await.unwrap();
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().display().to_string();
    let config = CONFIG
        .replace("PBX", &pbx.address().to_string())
        .replace("HOME", &path)
        .replace("RECEIVER", &receiver.address().to_string());
    let mut agent = Agent::start(home.path(), &config);
    agent.connected().await;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callpost"));
        command.env_clear().arg("--config").arg(home.path().join("callpost.toml")).args(arguments);
        command
    };
    let captured = format!("{path}/captured.ami");
    let watching = [&["capture", &captured][..], &["tail"], &["tail", "--json"]];
    let watching = watching
        .map(|arguments| command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let begin = Instant::now();
    while pbx.listeners() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(30), "capture does not listen");
        sleep(Duration::from_millis(20)).await;
    }
    // Whoever tails says so to the agent alone.
    sleep(Duration::from_secs(1)).await;

    let stream = String::from_utf8(fixture("22", "s16_dtmf")).unwrap();
    for message in stream.replace("Digit: 2\r", "Digit: ♠\r").split_inclusive("\r\n\r\n") {
        pbx.emit(message);
    }
    agent
        .until("done", |status| {
            status.journal.routes.iter().map(|route| route.counters.delivered).sum::<u64>() == 4 + 2 * 4
        })
        .await;
    let seen = |route: &str| {
        let all = receiver.received();
        let digits = all.iter().filter_map(|one| match &one.request {
            Request::Webhook { event, body, .. } if event == "call.dtmf" => Some(body["digit"].to_string()),
            _ => None,
        });
        let masked = format!("{:?}", "*");
        digits.filter(|digit| (*digit == masked) == (route == "masked")).collect::<Vec<_>>()
    };
    assert_eq!(seen("digits"), ["\"1\"", "\"♠\"", "\"#\"", "\"5\""]);
    assert_eq!(seen("masked").len(), 4);

    let mut shown = Vec::new();
    for mut child in watching {
        assert!(
            Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success()
        );
        child.wait().unwrap();
        let output = child.wait_with_output().unwrap();
        shown
            .push((format!("watching {}", child_name(shown.len())), [output.stdout, output.stderr].concat()));
    }
    let call =
        receiver.received().iter().map(|one| one.request.text("src_hash").to_owned()).next_back().unwrap();
    let questions = [
        &["calls"][..],
        &["calls", "--json"],
        &["trace", &call],
        &["trace", &call, "--json"],
        &["status", "--json"],
    ];
    let mut ask = |questions: &[&[&str]]| {
        for question in questions {
            let output = command(question).output().unwrap();
            assert!(output.status.success(), "{question:?}: {}", String::from_utf8_lossy(&output.stderr));
            shown.push((question.join(" "), [output.stdout, output.stderr].concat()));
        }
    };
    ask(&questions);
    let log = agent.log();
    agent.stop().await;
    // The same of the journal itself.
    ask(&questions[..4]);
    shown.push(("the log".to_owned(), log.into_bytes()));
    shown.push(("the capture".to_owned(), std::fs::read(&captured).unwrap()));
    for (what, bytes) in shown {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(PRESSED), "{what} shows the digit:\n{text}");
        // It does show the call.
        let empty =
            text.is_empty() || !["the capture", "trace", "tail"].iter().any(|part| what.contains(part));
        assert!(empty || text.to_lowercase().contains("digit") || text.contains("dtmf"), "{what}:\n{text}");
    }
}

fn child_name(index: usize) -> &'static str {
    ["capture", "tail", "tail --json"][index]
}
