//! The storm through the real agent.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use callpost::api::{AgentStatus, Client};
use callpost::clock;
use callpost::demo::Pbx;
use callpost::receiver::{Options, Receiver};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::calls::Storm;
use crate::process::{Used, peak};

/// Between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(20);
const SECRET: &str = "s3cret";

/// Plays the storm so many times, each time to a new agent, and in turns to the one that
/// `CALLPOST_BENCH_AGENT` names.
pub fn run(storm: &Storm, rate: u32, runs: u32) {
    let other = std::env::var("CALLPOST_BENCH_AGENT").ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..runs {
        if let Some(other) = &other {
            theirs.push(runtime.block_on(play(other, storm, rate)));
        }
        ours.push(runtime.block_on(play(env!("CARGO_BIN_EXE_callpost"), storm, rate)));
    }
    if runs > 1 {
        if !theirs.is_empty() {
            println!("median of the other binary: {:.2} s of CPU", median(&mut theirs));
        }
        println!("median: {:.2} s of CPU", median(&mut ours));
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// CPU seconds of one storm.
async fn play(agent: &str, storm: &Storm, rate: u32) -> f64 {
    let home = tempfile::tempdir().unwrap();
    let pbx = Pbx::start(SECRET).await.unwrap();
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let config = config(home.path(), &pbx, &receiver);
    let child = start(agent, home.path(), &config);
    let pid = child.id().unwrap();
    pbx.ready().await;
    let client = Client::new(&home.path().join("callpost.sock"));
    until(&client, |status| status.ami.connected).await;
    emit(&pbx, &storm.before, rate).await;
    arrived(&receiver, storm.webhooks_before, 0).await;
    sleep(Duration::from_secs(1)).await;

    let before = (Used::of(pid), status(&client).await);
    let started = Instant::now();
    emit(&pbx, &storm.messages, rate).await;
    let emitted = started.elapsed();
    arrived(&receiver, storm.webhooks_before + storm.webhooks, u64::from(storm.calls)).await;
    let took = started.elapsed();
    // What is written of the last deliveries counts too.
    sleep(Duration::from_secs(1)).await;
    let used = Used::of(pid).since(&before.0);
    let after = status(&client).await;
    let counts = receiver.counts();
    assert_eq!(
        (counts.conflicts, counts.out_of_order, counts.webhooks_again, counts.creates_again),
        (0, 0, 0, 0)
    );

    let events = storm.messages.len() as f64;
    let requests = (storm.webhooks + u64::from(storm.calls)) as f64;
    println!("{agent}");
    println!(
        "  played in {:.2} s, all delivered after {:.2} s: {events} events, {requests} requests",
        emitted.as_secs_f64(),
        took.as_secs_f64()
    );
    let threads = used.threads.iter().filter(|(_, cpu)| **cpu >= 0.0005);
    let threads: Vec<_> = threads.map(|(name, cpu)| format!("{name} {:.0}", cpu * 1e6 / events)).collect();
    println!(
        "  CPU {:.3} s: {:.0} us an event ({}), {:.0} us a call",
        used.cpu(),
        used.cpu() * 1e6 / events,
        threads.join(", "),
        used.cpu() * 1e6 / f64::from(storm.calls)
    );
    let commits = (after.journal.commits - before.1.journal.commits) as f64;
    println!(
        "  {commits} commits ({:.1} events each), {:.1} journal records an event, {:.0} bytes in {:.2} writes an \
         event, {:.2} sleeps an event, peak RSS {:.1} MiB",
        events / commits,
        (after.journal.head_records - before.1.journal.head_records) as f64 / events,
        used.written / events,
        used.writes / events,
        used.switches / events,
        peak(pid)
    );
    println!(
        "  to the disk p50 {:.2} ms p99 {:.2} ms, commit p50 {:.2} ms p99 {:.2} ms",
        millis(after.ingest.lag_p50),
        millis(after.ingest.lag_p99),
        millis(after.journal.commit_p50),
        millis(after.journal.commit_p99)
    );
    stop(child).await;
    used.cpu()
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// Sends the events, stamped with the time at which they go, not faster than so many a second.
async fn emit(pbx: &Pbx, messages: &[String], rate: u32) {
    let started = Instant::now();
    for (number, message) in messages.iter().enumerate() {
        let due = started + Duration::from_secs(1) * u32::try_from(number).unwrap() / rate;
        if due > Instant::now() + Duration::from_millis(2) {
            tokio::time::sleep_until(due).await;
        }
        pbx.emit(&stamped(message));
    }
}

fn stamped(message: &str) -> String {
    let now = clock::now();
    let Some((before, rest)) = message.split_once("Timestamp: ") else { return message.to_owned() };
    let (_, after) = rest.split_once("\r\n").unwrap();
    format!("{before}Timestamp: {}.{:06}\r\n{after}", now.secs(), now.0.rem_euclid(1_000_000))
}

async fn arrived(receiver: &Receiver, webhooks: u64, creates: u64) {
    let started = Instant::now();
    loop {
        let counts = receiver.counts();
        if counts.webhooks >= webhooks && counts.creates >= creates {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "not all has arrived: {counts:?}");
        sleep(LOOK).await;
    }
}

async fn status(client: &Client) -> AgentStatus {
    client.status().await.unwrap()
}

async fn until(client: &Client, wanted: impl Fn(&AgentStatus) -> bool) {
    while !client.status().await.is_ok_and(|status| wanted(&status)) {
        sleep(LOOK).await;
    }
}

fn start(agent: &str, home: &Path, config: &str) -> Child {
    let file = home.join("callpost.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let log = std::fs::File::create(home.join("log")).unwrap();
    let mut command = Command::new(agent);
    command.arg("--config").arg(&file).arg("run");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CALLPOST_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn().unwrap()
}

async fn stop(mut child: Child) {
    let kill = Command::new("kill").arg(child.id().unwrap().to_string()).status();
    assert!(kill.await.unwrap().success());
    assert!(child.wait().await.unwrap().success());
}

fn config(home: &Path, pbx: &Pbx, receiver: &Receiver) -> String {
    let (home, pbx, receiver) = (home.display(), pbx.address(), receiver.address());
    format!(
        r#"
[pbx]
name = "hq"
timezone = "UTC"
trunks = ["PJSIP/trunk"]
users = [
  {{ channel = "PJSIP/1001", id = 10001, numbers = ["1001"] }},
  {{ channel = "PJSIP/1002", id = 10002, numbers = ["1002"] }},
]

[ami]
address = "{pbx}"
username = "callpost"
secret = "{SECRET}"

[journal]
directory = "{home}/journal"

[api]
socket = "{home}/callpost.sock"

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
