//! The program as a person runs it: the real binary, its output and its exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use callpost::demo::Pbx;
use callpost::receiver::{Options, Receiver, Request};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn callpost(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callpost"));
    command.env_clear().env("CALLPOST_CONFIG", directory.join("callpost.toml")).env("HOME", directory);
    command
}

pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    callpost(directory).args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn json_lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A directory with a configuration that only its owner can read.
pub fn site(config: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("callpost.toml");
    fs::write(&path, config).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    directory
}

/// A started program; killed when the test is over.
pub struct Started {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Started {
    pub fn new(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    pub fn value(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exit_codes_tell_bad_usage_from_failure() {
    let site = site("");
    let code = |arguments: &[&str]| run(site.path(), arguments).status.code();
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["number", "95551234"]), Some(0));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["nosuch"]), Some(2));
    assert_eq!(code(&["number"]), Some(2));
    assert_eq!(code(&["receive", "--fail", "200"]), Some(2));
    assert_eq!(code(&["number", "1", "--route", "crm"]), Some(2));
    assert_eq!(code(&["capture", "x.ami"]), Some(2), "there is no [ami]");
    assert_eq!(code(&["--config", "/nonexistent/callpost.toml", "run"]), Some(2));
}

#[test]
fn the_version_says_what_was_built() {
    let version = text(&run(Path::new("/"), &["--version"]).stdout);
    assert!(version.starts_with(concat!("callpost ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("build: ") && version.contains("features: "), "{version}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["number", "95551234"][..], &["check", "--config-only", "--json"], &["--help"]] {
        let site = site("");
        let mut child = callpost(site.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn piped_output_has_no_colour() {
    let site = site("");
    let output = run(site.path(), &["number", "95551234"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("sent: 02125551234") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn number_explains_itself_to_programs_too() {
    let site = site("[numbers]\nmin_length = 3\nrules = [{ match = '^0', replace = '+' }]\n");
    let [line] = &json_lines(&run(site.path(), &["number", "0123", "--json"]).stdout)[..] else {
        panic!("one line")
    };
    assert_eq!(line["rules"][0]["matches"], true);
    assert_eq!(line["sent"], "+123");
}

#[test]
fn check_reports_every_fault_and_starts_nothing() {
    let site = site("[pbx]\nnmae = 'hq'\n[journal]\nkeep = 'soon'\n");
    let output = run(site.path(), &["check", "--config-only"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(shown.contains("callpost.toml:2") && shown.contains("did you mean `name`?"), "{shown}");
    assert!(shown.contains("callpost.toml:4") && shown.contains("2 to put right"), "{shown}");
    let lines = json_lines(&run(site.path(), &["check", "--config-only", "--json"]).stdout);
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["line"], &lines[0]["key"], &lines[0]["level"]),
        (&2.into(), &"pbx.nmae".into(), &"wrong".into())
    );
    let started = run(site.path(), &["run"]);
    assert_eq!(started.status.code(), Some(2));
    assert!(text(&started.stderr).contains("the configuration has 2 faults; nothing was started"));
    assert_eq!(fs::read_dir(site.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn the_shipped_example_passes_check() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/callpost.toml");
    let output = run(Path::new("/"), &["--config", example, "check", "--config-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn without_an_agent_status_says_how_to_start_one() {
    let site = site("[journal]\ndirectory = 'journal'\n[api]\nsocket = 'none.sock'\n");
    for command in [&["status"][..], &["tail"], &["calls"], &["trace", "139543232"]] {
        let output = run(site.path(), command);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("systemctl start callpost"), "{}", text(&output.stderr));
    }
    assert_eq!(fs::read_dir(site.path()).unwrap().count(), 1, "they made no journal");
}

/// A journal with the calls of a demo, and a configuration for it.
fn past() -> TempDir {
    let site = site("[pbx]\nname = 'demo'\n[journal]\ndirectory = 'journal'\n");
    let mut demo = callpost(site.path());
    demo.args(["demo", "--json", "--speed", "20", "--directory"]).arg(site.path().join("journal"));
    let output = demo.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    site
}

#[test]
fn calls_and_trace_tell_the_same_with_and_without_an_agent() {
    let site = past();
    let ask = |arguments: &[&str]| {
        let output = run(site.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let legs = json_lines(ask(&["calls", "--json"]).as_bytes());
    let starts: Vec<i64> = legs.iter().map(|leg| leg["body"]["Leg"]["start"].as_i64().unwrap()).collect();
    assert!(legs.len() >= 10 && starts.is_sorted_by(|a, b| a >= b), "newest first: {starts:?}");
    let (call, call_id) = (legs[0]["call"].as_str().unwrap(), legs[0]["body"]["Leg"]["call_id"].to_string());
    let questions: [&[&str]; 7] = [
        &["calls"],
        &["calls", "--json"],
        &["calls", "--json", "--number", "34911234567", "--since", "1h"],
        &["calls", "--live"],
        &["trace", &call[..8]],
        &["trace", call, "--json"],
        &["trace", &call_id],
    ];
    let before: Vec<String> = questions.iter().map(|question| ask(question)).collect();
    assert_eq!(json_lines(before[2].as_bytes()).len(), 1);
    assert_eq!(before[3].trim(), "no live calls");
    assert_eq!(before[4], before[6], "by the beginning of its src_hash, and by its call_id");
    for part in ["dial 1002", "hangup 16", "✓ webhook call.hangup 200", "✓ nimbox create 200", "CDR start"]
    {
        assert!(before[4].contains(part), "{part:?} in {}", before[4]);
    }
    assert!(!before.join("").contains('\u{1b}'), "no colour in a pipe");

    let mut command = callpost(site.path());
    let mut agent = Started::new(command.arg("run").stderr(Stdio::null()));
    until(|| run(site.path(), &["status"]).status.success().then_some(()));
    let unknown = |call: &str| {
        let output = run(site.path(), &["trace", call]);
        (output.status.code(), text(&output.stderr).contains("the journal holds no call"))
    };
    for (question, before) in questions.iter().zip(before) {
        assert_eq!(ask(question), before, "{question:?} of the agent");
    }
    assert_eq!(unknown("1234567890"), (Some(1), true), "of the agent");
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
    assert_eq!(unknown("1234567890"), (Some(1), true), "of the journal");
    assert_eq!(run(site.path(), &["trace", "../status"]).status.code(), Some(2));

    let mut ascii = callpost(site.path());
    let drawn = ascii.args(["trace", call]).env("LANG", "C").env("COLUMNS", "100").output().unwrap();
    let drawn = text(&drawn.stdout);
    assert!(drawn.is_ascii() && drawn.lines().all(|line| line.len() <= 100), "{drawn}");
}

/// As somebody who may not: never by way of the journal's files.
#[test]
fn whoever_may_not_ask_is_told_which_group_may() {
    use std::os::unix::process::CommandExt;
    let site = site("[journal]\ndirectory = 'journal'\n");
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let journal = site.path().join("journal");
    fs::create_dir_all(journal.join("outbox")).unwrap();
    open(&journal, 0o000);
    open(site.path(), 0o755);
    open(&site.path().join("callpost.toml"), 0o644);
    let program = site.path().join("callpost");
    fs::copy(env!("CARGO_BIN_EXE_callpost"), &program).unwrap();
    let mut command = Command::new(&program);
    command.env_clear().arg("--config").arg(site.path().join("callpost.toml")).arg("calls");
    // root is let in everywhere
    if fs::metadata(site.path()).unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    open(&journal, 0o700);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("permission denied") && said.contains("group callpost"), "{said}");
}

#[test]
fn an_unconfigured_agent_idles_and_says_so() {
    let site = site("[journal]\ndirectory = 'journal'\n");
    let log = site.path().join("log");
    let mut command = callpost(site.path());
    command.arg("run").env("JOURNAL_STREAM", "8:1").stderr(fs::File::create(&log).unwrap());
    let mut agent = Started::new(&mut command);
    let status = until(|| Some(run(site.path(), &["status"])).filter(|output| output.status.success()));
    let shown = text(&status.stdout);
    assert!(shown.contains("not configured") && shown.contains("routes    none"), "{shown}");
    let [value] = &json_lines(&run(site.path(), &["status", "--json"]).stdout)[..] else {
        panic!("one line")
    };
    assert_eq!(value["configured"], false);
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.lines().any(|line| line.starts_with("<6>")), "priorities for the journal: {log}");
}

#[test]
fn an_agent_that_somebody_watches_stops_all_the_same() {
    use std::io::Write;
    let site = site("[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n");
    let mut agent = Started::new(callpost(site.path()).arg("run").stderr(Stdio::null()));
    let socket = site.path().join("agent.sock");
    let mut watcher = until(|| std::os::unix::net::UnixStream::connect(&socket).ok());
    watcher.write_all(b"GET /tail HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = BufReader::new(watcher).lines();
    assert_eq!(answer.next().unwrap().unwrap(), "HTTP/1.0 200 OK");
    agent.signal("-TERM");
    assert_eq!(until(|| agent.child.try_wait().unwrap()).code(), Some(0));
}

pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "it did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One HTTP request by hand: status and body.
pub fn http(address: &str, request: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
}

fn get(address: &str, path: &str) -> (u16, Value) {
    let (status, body) =
        http(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    (status, serde_json::from_str(&body).unwrap())
}

fn post(address: &str, body: &str) -> u16 {
    let head = format!(
        "POST /hook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    http(address, &format!("{head}\r\n\r\n{body}")).0
}

#[test]
fn receive_acts_as_nimbox_and_as_a_webhook() {
    let mut receiver =
        Started::new(callpost(Path::new("/")).args(["receive", "--listen", "127.0.0.1:0", "--json"]));
    let address = receiver.value()["address"].as_str().unwrap().to_owned();
    let create =
        "/direct/items/phonecalls/create?token=t&initiated=2012-08-23T12:20:33&source=1&destination=2";
    let (status, first) = get(&address, create);
    assert_eq!((status, &first["error"]), (200, &false.into()));
    let (_, second) = get(&address, create);
    assert_eq!(first["phonecallId"], second["phonecallId"], "the key exists already");
    assert_eq!(
        get(&address, "/direct/items/phonecalls/create?token=t&source=1&destination=2").1["error"],
        true
    );
    assert_eq!(get(&address, "/direct/items/phonecalls/create?source=1").0, 401);
    let delete = |from: &str, to: &str| {
        get(&address, &format!("/direct/items/phonecalls/delete?token=t&from={from}&to={to}")).1
    };
    assert_eq!(delete("2012-08-23", "2012-08-25")["count"], 0, "both dates are exclusive");
    assert_eq!(delete("2012-08-22", "2012-08-24")["count"], 1);
    assert_eq!(post(&address, r#"{"id":"a.1.0","event_name":"call.ringing"}"#), 200);
    assert_eq!(post(&address, r#"{"id":"a.1.0","event_name":"call.ringing"}"#), 200);
    assert_eq!(post(&address, r#"{"id":"a.1.0","event_name":"call.hangup"}"#), 200);
    assert_eq!(post(&address, "no json"), 404);
    let kinds: Vec<_> = (0..10).map(|_| receiver.value()["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        kinds,
        [
            "create", "create", "create", "create", "delete", "delete", "webhook", "webhook", "webhook",
            "other"
        ]
    );
    receiver.signal("-INT");
    let counts = receiver.value()["counts"].clone();
    assert_eq!((&counts["creates"], &counts["creates_again"]), (&1.into(), &1.into()));
    assert_eq!(
        (&counts["webhooks"], &counts["webhooks_again"], &counts["conflicts"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(receiver.code(), Some(0));
}

#[test]
fn receive_fails_on_request() {
    let start = |arguments: &[&str]| {
        let mut command = callpost(Path::new("/"));
        command.args(["receive", "--listen", "127.0.0.1:0", "--json"]).args(arguments);
        let mut receiver = Started::new(&mut command);
        let address = receiver.value()["address"].as_str().unwrap().to_owned();
        (receiver, address)
    };
    let create =
        "/direct/items/phonecalls/create?token=t&initiated=2012-08-23T12:20:33&source=1&destination=2";
    let (_receiver, address) = start(&["--fail", "503"]);
    assert_eq!((get(&address, create).0, post(&address, "{}")), (503, 503));
    let (_receiver, address) = start(&["--nimbox-error", "destination=unknown"]);
    assert_eq!(get(&address, create).1["errors"]["destination"], "unknown");
    let (_receiver, address) = start(&["--fail-rate", "0.5"]);
    let failed = (0..200).filter(|_| get(&address, create).0 == 503).count();
    assert!((50..150).contains(&failed), "{failed} of 200");
}

/// A stand-in PBX, a receiver, and a configuration for both.
async fn lab(secret: &str) -> (Pbx, Receiver, TempDir) {
    let pbx = Pbx::start("right").await.unwrap();
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let to = receiver.address();
    let site = site(&format!(
        "[pbx]\nname = 'hq'\ntrunks = ['PJSIP/trunk']\n[journal]\ndirectory = '.'\nmax_size = '16 MiB'\n\
         [ami]\naddress = '{}'\nsecret = '{secret}'\n\
         [[nimbox]]\nname = 'crm'\nurl = 'http://{to}'\nallow_http = true\ntoken = 's3cr3t-token'\n\
         [[webhook]]\nname = 'desk'\nurl = 'http://{to}/hook'\nallow_http = true\nevents = ['call.state']\n",
        pbx.address()
    ));
    (pbx, receiver, site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_looks_at_asterisk_sinks_and_host() {
    let (_pbx, receiver, site) = lab("right").await;
    let output = run(site.path(), &["check", "--send-test"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for part in [
        "ok    Asterisk  22.10.1, AMI 11.0.0",
        "cdr_manager.conf",
        "linkedid => LinkedID",
        "inbound_destination = \"did\"",
        "requests leave this host from 127.0.0.1",
        "curl -i -H 'Content-Type: application/json' -d '{",
        "the test event was accepted (HTTP 200)",
        "ok    journal",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert!(!shown.contains("s3cr3t-token"), "{shown}");
    assert_eq!(receiver.counts().tests, 1);
    assert!(receiver.received().iter().all(|received| !matches!(received.request, Request::Create { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_to_do_about_a_refused_login() {
    let (_pbx, _receiver, site) = lab("wrong").await;
    let output = run(site.path(), &["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&output.stdout);
    let line = lines.iter().find(|line| line["level"] == "wrong").unwrap();
    let remedy = line["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("read = call,agent,dtmf,cdr,user,system") && remedy.contains("writetimeout"),
        "{remedy}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capture_saves_what_asterisk_says() {
    let (pbx, _receiver, site) = lab("right").await;
    let file = site.path().join("live.ami");
    let mut command = callpost(site.path());
    let mut capture = Started::new(command.arg("capture").arg(&file).arg("--json"));
    let event = "Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: X\r\nSecret: hidden\r\n\r\n";
    until(|| (pbx.listeners() > 0).then_some(()));
    // nobody outside can see when an event has been read: a few, and time for one of them
    for _ in 0..10 {
        pbx.emit(event);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    capture.signal("-INT");
    assert!(capture.value()["events"].as_u64().unwrap() >= 1);
    assert_eq!(capture.code(), Some(0));
    let saved = fs::read_to_string(&file).unwrap();
    assert!(saved.contains("UserEvent: X\r\n\r\n") && !saved.contains("hidden"), "{saved}");
    assert_eq!(
        run(site.path(), &["capture", file.to_str().unwrap()]).status.code(),
        Some(1),
        "it does not overwrite"
    );
}

/// Each call of a demo: the events of its webhooks, by scene.
fn events_by_scene(lines: &[Value]) -> BTreeMap<String, Vec<String>> {
    let scenes: BTreeMap<&str, &str> = lines
        .iter()
        .filter(|line| line["kind"] == "scene")
        .map(|line| (line["src_hash"].as_str().unwrap(), line["name"].as_str().unwrap()))
        .collect();
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["kind"] == "webhook" && line["event"] != "test") {
        let call = line["body"]["src_hash"].as_str().unwrap_or_default();
        let scene = if line["event"] == "sms.received" { "sms" } else { scenes[call] };
        let short = line["event"].as_str().unwrap().split('.').nth(1).unwrap();
        events.entry(scene.to_owned()).or_default().push(short.to_owned());
    }
    events
}

#[test]
fn the_demo_delivers_every_state_of_every_call() {
    let output = callpost(Path::new("/")).args(["demo", "--json", "--speed", "8"]).output().unwrap();
    let lines = json_lines(&output.stdout);
    let summary = lines.last().unwrap();
    assert_eq!(output.status.code(), Some(0), "{summary}: {}", text(&output.stderr));
    assert_eq!((&summary["calls"], &summary["lost"], &summary["pending"]), (&8.into(), &0.into(), &0.into()));
    let events = events_by_scene(&lines);
    let expected = [
        ("inbound_answered", "initial ringing connected hangup"),
        ("outbound_answered", "initial ringing connected hangup"),
        ("inbound_missed", "initial ringing missed"),
        ("sms", "received"),
        ("hold", "initial ringing connected hold unhold hangup"),
    ];
    for (scene, states) in expected {
        assert_eq!(events[scene].join(" "), states, "{scene}");
    }
    let count = |scene: &str, event: &str| events[scene].iter().filter(|name| *name == event).count();
    assert_eq!((count("ring_group", "connected"), count("ring_group", "hangup")), (1, 2));
    assert_eq!((count("queue_answered", "connected"), count("blind_transfer", "connected")), (2, 2));
    // one for each answered part, one for the unanswered call; none for the text
    assert_eq!(summary["creates"], 8);
}

#[test]
fn the_demo_speaks_the_language_of_its_reader() {
    let mut command = callpost(Path::new("/"));
    let mut demo = Started::new(command.args(["demo", "--speed", "50"]).env("LANG", "es_VE.UTF-8"));
    assert!(demo.line().contains("una central simulada"));
    let mut command = callpost(Path::new("/"));
    let mut demo = Started::new(command.args(["demo", "--speed", "50"]).env("LANG", "C.UTF-8"));
    assert!(demo.line().contains("a stand-in PBX"));
}

/// Numbers of the updates of each leg that arrived, by the leg's part of the id.
fn updates_of_legs(receiver: &Receiver) -> BTreeMap<String, BTreeSet<u64>> {
    let mut legs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for received in receiver.received() {
        let Request::Webhook { id, event, .. } = &received.request else { continue };
        if event != "test" && event != "sms.received" && received.status == 200 {
            let (leg, n) = id.rsplit_once('.').unwrap();
            legs.entry(leg.to_owned()).or_default().insert(n.parse().unwrap());
        }
    }
    legs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_killed_in_the_middle_delivers_the_rest_when_run_again() {
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let directory = TempDir::new().unwrap();
    let to = format!("http://{}/", receiver.address());
    let demo = |speed: &str| {
        let mut command = callpost(Path::new("/"));
        command.args(["demo", "--json", "--speed", speed, "--to", &to, "--directory"]).arg(directory.path());
        Started::new(&mut command)
    };
    for more in [9, 17] {
        let before = receiver.counts().webhooks;
        let mut cut = demo("3");
        until(|| (receiver.counts().webhooks >= before + more).then_some(()));
        cut.signal("-KILL");
        cut.code();
    }
    let mut last = demo("20");
    let summary = loop {
        let value = last.value();
        if value["kind"] == "summary" {
            break value;
        }
    };
    assert_eq!(last.code(), Some(0), "{summary}");
    assert_eq!(summary["pending"], 0);
    let counts = receiver.counts();
    assert_eq!((counts.conflicts, counts.out_of_order), (0, 0), "{counts:?}");
    for (leg, numbers) in updates_of_legs(&receiver) {
        let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
        assert_eq!(numbers.len() as u64, last - first + 1, "an update of {leg} is missing: {numbers:?}");
    }
    let mut over: BTreeMap<u64, bool> = BTreeMap::new();
    for received in receiver.received() {
        let Some(call) =
            received.request.number("call_id").filter(|_| received.request.text("event_name") != "test")
        else {
            continue;
        };
        let ends =
            matches!(received.request.text("event_name"), "call.hangup" | "call.missed" | "call.failed");
        *over.entry(call).or_default() |= ends;
    }
    assert!(over.len() > 10 && over.values().all(|over| *over), "every leg that began also ended: {over:?}");
}

#[test]
fn packaged_asterisk_files_carry_the_account_that_is_documented() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/asterisk");
    let stanza = fs::read_to_string(root.join("manager.d/callpost.conf")).unwrap();
    let mut plain = stanza.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    assert_eq!(plain.next(), Some("[callpost]"), "a file that is included must not reopen [general]");
    assert!(plain.all(|line| line.contains('=') && !line.contains(", ")), "no spaces after commas");
}
