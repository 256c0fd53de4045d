//! What whoever runs an agent does with it: dead letters, replay, status, what systemd is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use callpost::calls::{CallKey, UpdateId};
use callpost::journal::{Batch, Journal, JournalOptions, Outgoing, Payload, RouteId, Settlement};
use callpost::receiver::{Misbehaviour, Options, Receiver, Request};
use parsers::Micros;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{Started, callpost, json_lines, run, site, text, until};

pub fn now() -> Micros {
    callpost::clock::now()
}

pub fn id(number: u64) -> String {
    format!("hq.{number:014x}.0")
}

pub async fn journal(directory: &Path, generation_records: u64) -> Journal {
    let options = JournalOptions {
        directory: directory.join("journal"),
        max_size: 1 << 30,
        keep: Duration::from_secs(30 * 86_400),
        pbx: "hq".to_owned(),
        generation_records,
    };
    tokio::task::spawn_blocking(move || Journal::open(options).unwrap().0).await.unwrap()
}

/// A delivery of a call of its own to each of these routes.
pub async fn append(journal: &Journal, routes: &[&str], number: u64) {
    let outgoing = |route: &&str| Outgoing {
        route: RouteId((*route).into()),
        id: UpdateId(id(number).into()),
        call: CallKey(format!("{number:040x}").into()),
        ordered: true,
        party: None,
        start: None,
        payload: Payload::Webhook {
            event: "call.hangup".to_owned(),
            body: format!(
                r#"{{"id":"{}","event_name":"call.hangup","src_hash":"{number:040x}"}}"#,
                id(number)
            ),
        },
    };
    let outbox = routes.iter().map(outgoing).collect();
    journal.append(Batch { outbox, ..Batch::default() }).await.unwrap();
}

/// Deliveries to these routes; each ends as `how` says.
async fn settled(directory: &Path, routes: &[&str], count: u64, how: impl Fn(u64) -> Settlement) {
    let journal = journal(directory, 131_072).await;
    for number in 0..count {
        append(&journal, routes, number).await;
    }
    for route in routes {
        loop {
            let (due, _) = journal.due(&RouteId((*route).into()), now(), 64).await.unwrap();
            if due.is_empty() {
                break;
            }
            for delivery in due {
                let number = u64::from_str_radix(delivery.id.0.split('.').nth(1).unwrap(), 16).unwrap();
                journal.settle(delivery.key, how(number), now()).await.unwrap();
            }
        }
    }
    journal.close().await;
}

fn dead(_: u64) -> Settlement {
    Settlement::Dead {
        why: "the receiver says the body is wrong (HTTP 422)".to_owned(),
        status: Some(422),
        answer: "{\"error\":\"no such \u{1b}[31mcontact\"}".to_owned(),
    }
}

/// No `[ami]`: nothing comes in, what waits goes out to `desk`.
pub fn config(receiver: &Receiver) -> String {
    let to = receiver.address();
    format!(
        "[pbx]\nname = 'hq'\n[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n\
         [[webhook]]\nname = 'desk'\nurl = 'http://{to}/hook'\nallow_http = true\nverify = false\nevents = ['call.state']\n"
    )
}

pub async fn receiver() -> Receiver {
    Receiver::start(Options::default()).await.unwrap()
}

/// `callpost run` there.
pub fn agent(site: &TempDir) -> Started {
    let log = fs::OpenOptions::new().create(true).append(true).open(site.path().join("log")).unwrap();
    let agent = Started::new(callpost(site.path()).arg("run").stderr(log));
    let client = || run(site.path(), &["status", "--json"]);
    until(|| client().status.success().then_some(()));
    agent
}

pub fn stop(mut agent: Started) {
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
}

/// How often each id arrived and was accepted.
pub fn arrived(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for received in receiver.received() {
        if let (Request::Webhook { id, .. }, 200) = (&received.request, received.status) {
            *ids.entry(id.clone()).or_default() += 1;
        }
    }
    ids
}

pub fn done(output: &std::process::Output, code: i32) -> String {
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{shown}{}", text(&output.stderr));
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_retried_and_dropped_without_an_agent() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    settled(site.path(), &["desk", "old"], 3, dead).await;
    let at = site.path();

    let list = done(&run(at, &["dead", "list"]), 0);
    assert_eq!(list.lines().count(), 7, "a heading and six letters: {list}");
    assert!(list.contains(&id(2)) && list.contains("422") && list.contains("call.hangup"), "{list}");
    assert_eq!(
        json_lines(done(&run(at, &["dead", "list", "--route", "old", "--json"]), 0).as_bytes()).len(),
        3
    );
    let some = done(&run(at, &["dead", "list", "--limit", "2"]), 0);
    assert!(some.contains("the oldest 2 of 6; --limit shows more"), "{some}");

    let shown = done(&run(at, &["dead", "show", &id(1), "--route", "desk"]), 0);
    for part in [
        "HTTP 422",
        "the receiver says the body is wrong",
        "no such",
        "after 1 attempt",
        "\"event_name\": \"call.hangup\"",
        "callpost trace 0000000000",
        &format!("callpost dead retry {} --route desk", id(1)),
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "an answer cannot steer the terminal: {shown:?}");

    let refused = run(at, &["dead", "drop", "--route", "old"]);
    assert_eq!(refused.status.code(), Some(2), "nobody to ask");
    let error = text(&refused.stderr);
    assert!(
        error.contains("Give up 3 dead letters of route old for good?") && error.contains("--yes"),
        "{error}"
    );
    let dropped = done(&run(at, &["dead", "drop", "--route", "old", "--yes", "--json"]), 0);
    assert_eq!(json_lines(dropped.as_bytes()), [serde_json::json!({"dropped": 3, "unknown": []})]);
    let again = done(&run(at, &["dead", "drop", "--route", "old", "--yes"]), 0);
    assert_eq!(again, "no dead letters of route old\n", "once more changes nothing");

    let retried = done(&run(at, &["dead", "retry", &id(0), "hq.nosuch.0"]), 3);
    assert!(retried.contains("1 dead letter put back") && retried.contains("no agent runs"), "{retried}");
    let gone = run(at, &["dead", "retry", &id(0)]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        text(&gone.stderr).contains("may have been retried or dropped already"),
        "{}",
        text(&gone.stderr)
    );
    let slip = run(at, &["dead", "retry", "--route", "dsek", "--yes"]);
    assert_eq!(slip.status.code(), Some(2));
    assert!(text(&slip.stderr).contains("name one of desk, old"), "{}", text(&slip.stderr));

    let agent = agent(&site);
    until(|| (arrived(&receiver).len() == 1).then_some(()));
    assert_eq!(arrived(&receiver), BTreeMap::from([(id(0), 1)]), "with the id it had");
    stop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_an_agent_they_go_out_at_once() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    settled(site.path(), &["desk"], 150, dead).await;
    let agent = agent(&site);
    let shown = done(&run(site.path(), &["dead", "retry", "--yes"]), 0);
    assert_eq!(shown, "150 dead letters put back, to be sent again\n", "more than one page of them");
    until(|| (arrived(&receiver).len() == 150).then_some(()));
    assert!(arrived(&receiver).values().all(|times| *times == 1), "each once");
    assert_eq!(done(&run(site.path(), &["dead", "list"]), 0), "no dead letters\n");
    stop(agent);
}

/// R15: an outage longer than the ladder, then a replay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_longer_than_the_ladder_a_replay_completes_the_receiver() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    let before = |number| match number % 3 {
        0 => Settlement::Delivered { status: Some(200), answer: String::new() },
        _ => dead(number),
    };
    settled(site.path(), &["desk"], 300, before).await;
    let agent = agent(&site);
    let at = site.path();
    let counted = done(&run(at, &["replay", "--from", "1h", "--dry-run"]), 0);
    assert!(
        counted.contains("100 deliveries that were made or refused, and 200 dead letters, to every route")
            && counted.contains("nothing was sent"),
        "{counted}"
    );
    assert!(arrived(&receiver).is_empty(), "a dry run sends nothing");
    let unasked = run(at, &["replay", "--from", "1h"]);
    assert_eq!(unasked.status.code(), Some(2));
    assert!(text(&unasked.stderr).contains("Send 300 deliveries again?"), "{}", text(&unasked.stderr));
    let sent = done(&run(at, &["replay", "--from", "1h", "--yes"]), 0);
    assert!(sent.contains("300 deliveries put back, to be sent again with the same ids"), "{sent}");
    until(|| (arrived(&receiver).len() == 300).then_some(()));
    assert!(arrived(&receiver).values().all(|times| *times == 1), "each once, under its own id");

    let one = done(&run(at, &["replay", "--from", "1h", "--id", &id(7), "--yes", "--json"]), 0);
    let [answer] = &json_lines(one.as_bytes())[..] else { panic!("one line: {one}") };
    assert_eq!((&answer["sent"], &answer["dead"]), (&true.into(), &0.into()), "{answer}");
    until(|| (arrived(&receiver)[&id(7)] == 2).then_some(()));
    stop(agent);
}

#[test]
fn a_replay_says_what_is_wrong_with_its_times() {
    let site = site("[pbx]\nname = 'hq'\n[journal]\ndirectory = 'journal'\n");
    let bad = run(site.path(), &["replay", "--from", "yesterday"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("not a time, as 2026-11-20"), "{}", text(&bad.stderr));
    let none = run(site.path(), &["replay", "--from", "1h"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there is no journal in"), "{}", text(&none.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_says_what_is_no_longer_held_and_refuses_what_ends_before_it_begins() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    settled(site.path(), &["desk"], 1, dead).await;
    fs::create_dir_all(site.path().join("journal/history/2026-11-01")).unwrap();
    let shown = done(&run(site.path(), &["replay", "--from", "2026-10-01", "--dry-run"]), 0);
    assert!(shown.contains("the journal holds nothing from before 2026-11-01 (UTC)"), "{shown}");
    assert!(shown.contains("0 deliveries that were made or refused, and 1 dead letter"), "{shown}");
    let turned = run(site.path(), &["replay", "--from", "2026-11-02", "--to", "2026-11-01"]);
    assert_eq!(turned.status.code(), Some(2));
    assert!(text(&turned.stderr).contains("is not before --to"), "{}", text(&turned.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_since_when_why_and_what_to_do() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    settled(site.path(), &["desk"], 20, dead).await;
    let at = site.path();
    receiver.misbehave(Misbehaviour { fail: Some(401), ..Misbehaviour::default() });
    let agent = agent(&site);
    done(&run(at, &["dead", "retry", &id(0)]), 0);
    let shown = until(|| Some(done(&run(at, &["status"]), 0)).filter(|shown| shown.contains("paused for")));
    for part in [
        "PAUSED",
        "401",
        "everything is held, nothing is lost; it asks again in",
        "-> correct url, token or credentials",
        "19 dead letters",
        "-> callpost dead list --route desk",
        " of 1 GiB",
        "✓ accepted 20 = delivered 0 + refused 0 + pending 1 + dead 19 + dropped 0",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    done(&run(at, &["dead", "drop", &id(1)]), 0);
    let shown = done(&run(at, &["status"]), 0);
    assert!(shown.contains("1 dropped: dead letter dropped") && shown.contains("+ dropped 1"), "{shown}");
    // the pause is kept over a restart, which asks once more at once
    receiver.misbehave(Misbehaviour::default());
    stop(agent);
    fs::create_dir_all(at.join("journal/quarantine/000042-1")).unwrap();
    let agent = self::agent(&site);
    until(|| (arrived(&receiver).len() == 1).then_some(()));
    receiver.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    done(&run(at, &["dead", "retry", "--yes"]), 0);
    let shown = until(|| Some(done(&run(at, &["status"]), 0)).filter(|shown| shown.contains("FAILING")));
    for part in [
        "the receiver fails for",
        "503",
        "deliveries wait, nothing is lost;",
        "when it is back, all goes on by itself",
        "journal/quarantine/000042-1",
        "delivered 1 + refused 0 + pending 18 + dead 0",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    receiver.misbehave(Misbehaviour::default());
    let shown = until(|| Some(done(&run(at, &["status"]), 0)).filter(|shown| shown.contains("delivered 19")));
    assert!(!shown.contains("FAILING"), "{shown}");
    stop(agent);
}

/// Programs read this: what is there stays there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_for_programs_keeps_its_names() {
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    settled(site.path(), &["desk"], 1, dead).await;
    let agent = agent(&site);
    let [status] = &json_lines(done(&run(site.path(), &["status", "--json"]), 0).as_bytes())[..] else {
        panic!("one line")
    };
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(keys(status), @"ami at configured events_minute ingest journal listen max_size pbx process quarantine reconciliation routes started version");
    insta::assert_snapshot!(keys(&status["journal"]["routes"][0]), @"counters dropped oldest route skipped");
    insta::assert_snapshot!(keys(&status["routes"][0]), @"delivered_minute health kind route to");
    let mut command = callpost(site.path());
    let mut watch = Started::new(command.args(["status", "--watch", "--json"]));
    assert_eq!(watch.value()["pbx"], "hq");
    assert_eq!(watch.value()["pbx"], "hq", "again and again");
    watch.signal("-INT");
    assert_eq!(watch.code(), Some(0));
    stop(agent);
}

/// What systemd is told, on a socket of its kind.
#[test]
fn systemd_is_told_ready_alive_and_stopping() {
    let site = site(
        "[pbx]\nname = 'hq'\ntrunks = ['PJSIP/trunk']\n[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n[ami]\naddress = '127.0.0.1:1'\nusername = 'x'\nsecret = 's'\n",
    );
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = callpost(site.path());
    command.arg("run").stderr(Stdio::null()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1500000");
    let mut agent = Started::new(&mut command);
    let next = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut told = Vec::new();
    let began = Instant::now();
    while told.iter().filter(|message: &&String| message.contains("WATCHDOG=1")).count() < 6 {
        told.push(next());
    }
    assert!(began.elapsed() > Duration::from_secs(1), "it is fed by and by, not at once");
    assert!(told.iter().any(|message| message.lines().any(|line| line == "READY=1")), "{told:?}");
    assert!(
        told.iter().any(|message| message.contains("STATUS=") && message.contains("127.0.0.1:1")),
        "no Asterisk does not starve it, and is told: {told:?}"
    );
    agent.signal("-TERM");
    while !told.last().unwrap().contains("STOPPING=1") {
        told.push(next());
    }
    assert_eq!(agent.code(), Some(0));
}

/// An agent that does not move: systemd is to restart it.
#[test]
fn a_stopped_process_starves_the_watchdog() {
    let site = site("[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n");
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = callpost(site.path());
    command.arg("run").stderr(Stdio::null()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "900000");
    let agent = Started::new(&mut command);
    let fed = |within: Duration| {
        socket.set_read_timeout(Some(within)).unwrap();
        let mut message = [0; 4096];
        let end = Instant::now() + within;
        while Instant::now() < end {
            let Ok(length) = socket.recv(&mut message) else { return false };
            if message[..length].starts_with(b"WATCHDOG=1") {
                return true;
            }
        }
        false
    };
    assert!(fed(Duration::from_secs(30)));
    agent.signal("-STOP");
    while fed(Duration::from_millis(100)) {}
    assert!(!fed(Duration::from_millis(1500)));
    agent.signal("-CONT");
    assert!(fed(Duration::from_secs(30)));
}

#[test]
fn an_agent_that_hangs_is_told_from_none() {
    let site = site("[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n");
    let agent = agent(&site);
    agent.signal("-STOP");
    let output = run(site.path(), &["status"]);
    agent.signal("-CONT");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("nothing for 10 s: it hangs") && error.contains("systemctl restart"), "{error}");
    stop(agent);
}

/// As the user `nobody`; needs root to become it.
fn as_nobody(program: &Path, site: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(program);
    command.env_clear().env("CALLPOST_CONFIG", site.join("callpost.toml")).args(arguments);
    command.uid(65_534).gid(65_534).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "who runs it should know what was not tried")]
async fn who_may_not_ask_is_told_which_group_may_and_the_journal_stays_closed() {
    if !Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
        eprintln!("skipped: only root can try this as another user");
        return;
    }
    let receiver = receiver().await;
    let site = site(&config(&receiver));
    let at = site.path();
    settled(at, &["desk"], 1, dead).await;
    // others may read the configuration and enter the directory, so that the socket alone refuses
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at.join("callpost.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let program = at.join("callpost");
    fs::copy(env!("CARGO_BIN_EXE_callpost"), &program).unwrap();
    let agent = agent(&site);
    let socket = at.join("agent.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let refused = |what: &str| {
        for command in [
            &["status"][..],
            &["dead", "list"],
            &["dead", "drop", "--yes"],
            &["replay", "--from", "1h", "--yes"],
        ] {
            let output = as_nobody(&program, at, command);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {error}");
            assert!(
                error.contains("permission denied") && error.contains("adduser USER callpost"),
                "{what}: {error}"
            );
        }
    };
    refused("the mode refuses");
    // a mode changed by mistake: the peer's credentials refuse
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    refused("the credentials refuse");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    assert_eq!(
        json_lines(done(&run(at, &["dead", "list", "--json"]), 0).as_bytes()).len(),
        1,
        "it is still there"
    );
    stop(agent);
    assert!(!socket.exists(), "the socket goes with the agent");
    // without an agent root reads the journal as its owner
    let journal = at.join("journal");
    assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(&journal).status().unwrap().success());
    let mut command = Command::new(&program);
    command.env_clear().env("CALLPOST_CONFIG", at.join("callpost.toml")).args(["dead", "list", "--json"]);
    assert_eq!(json_lines(done(&command.output().unwrap(), 0).as_bytes()).len(), 1);
    assert_eq!(fs::metadata(journal.join("lock")).unwrap().uid(), 65_534);
}
