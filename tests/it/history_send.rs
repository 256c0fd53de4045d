//! History that is sent, as a person sends it and as the agent does by itself: every call once, whatever
//! is killed, deleted, busy or away. `CALLPOST_HISTORY_ROWS=1000000` for the long form.
#![expect(clippy::print_stdout, reason = "how long it took is said")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callpost::clock;
use callpost::demo::Pbx;
use callpost::receiver::{Misbehaviour, Options, Receiver, Request};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt as _;
use tokio::time::sleep;

use crate::agent::Agent;
use crate::cli::{json_lines, text};
use crate::history_stores::{
    Create, FIRST, Row, SOME, Server, caracas, csv_line, inserts, mariadb, master_csv, mysql, pg, postgres,
    schema, traffic, traffic_since,
};
use crate::replay::fixture;

/// Of the agent beside a PBX, at any time.
const MOST_MEMORY: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// How many rows a long test has.
fn rows() -> usize {
    let asked = std::env::var("CALLPOST_HISTORY_ROWS").ok();
    asked.map_or(50_000, |rows| rows.parse().expect("CALLPOST_HISTORY_ROWS is a number"))
}

/// An agent's place, a NiMbox, a store.
struct Site {
    home: TempDir,
    receiver: Receiver,
}

impl Site {
    async fn new() -> Self {
        let receiver = Receiver::start(Options::default()).await.unwrap();
        Self { home: TempDir::new().unwrap(), receiver }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `more` goes into `[cdr]`.
    fn config(&self, source: &str, more: &str) -> String {
        let home = self.home.path().display();
        format!(
            "[pbx]\nname = 'hq'\ntimezone = 'America/Caracas'\ntrunks = ['PJSIP/trunk']\n\
             [journal]\ndirectory = '{home}/journal'\n[api]\nsocket = '{home}/callpost.sock'\n\
             [cdr]\nsource = '{source}'\n{more}\n\
             [[nimbox]]\nname = 'crm'\nurl = 'http://{}'\nallow_http = true\ntoken = 't'\nconcurrency = 16\n",
            self.receiver.address()
        )
    }

    /// The same beside a stand-in Asterisk.
    fn beside(&self, pbx: &Pbx, source: &str, more: &str) -> String {
        let config = self.config(source, more);
        format!("[ami]\naddress = '{}'\nsecret = 'right'\n{config}", pbx.address())
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_callpost"));
        command
            .env_clear()
            .env("CALLPOST_CONFIG", self.path("callpost.toml"))
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().await.unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// A backfill of all of a store that has to succeed: its summary.
    async fn backfill(&self, more: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[ALL, more].concat()).await;
        let last = json_lines(stdout.as_bytes()).pop().unwrap_or_default();
        assert_eq!((code, &last["kind"]), (Some(0), &"summary".into()), "{stdout}{stderr}");
        last
    }

    /// What NiMbox was asked to make, by key: how often and of what duration.
    fn created(&self) -> BTreeMap<(String, String, String), Vec<u64>> {
        let mut all: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for received in self.receiver.received() {
            if let Request::Create { initiated, source, destination, duration, refused: None, .. } =
                &received.request
                && received.status == 200
            {
                let key = (initiated.clone(), source.clone(), destination.clone());
                all.entry(key).or_default().push(duration.unwrap());
            }
        }
        all
    }

    /// Exactly these came, each at least once, each time with the same strings; gives how often one came
    /// at most. The receiver keeps the last 100,000 whole and counts all keys.
    fn all_came(&self, expected: &[Create]) -> usize {
        let created = self.created();
        let owed: BTreeMap<_, _> = expected
            .iter()
            .map(|(start, source, destination, duration)| {
                ((initiated(*start), source.clone(), destination.clone()), *duration)
            })
            .collect();
        for (key, came) in &created {
            let duration = owed.get(key).unwrap_or_else(|| panic!("{key:?} was invented"));
            assert!(came.iter().all(|came| came == duration), "{key:?}: {came:?}");
        }
        let counts = self.receiver.counts();
        assert_eq!(counts.creates, expected.len() as u64, "each came");
        assert!(counts.requests > 100_000 || created.len() == expected.len(), "each came as it was owed");
        created.values().map(Vec::len).max().unwrap_or(0)
    }
}

const ALL: &[&str] = &["backfill", "--json", "--from", "2025-12-01", "--to", "2028-01-01"];

/// As `local-z` has it.
fn initiated(start: i64) -> String {
    let at = jiff::Timestamp::from_second(start).unwrap();
    caracas().to_datetime(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn now() -> i64 {
    clock::now().secs()
}

async fn sqlite(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap()
}

async fn execute(admin: &mut SqliteConnection, sql: impl ToString) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_string())).execute(admin).await.unwrap();
}

/// A store with these rows; its URL.
async fn sqlite_store(path: &Path, rows: &[Row]) -> String {
    let mut admin = sqlite(path).await;
    execute(&mut admin, schema("cdr_sqlite3.sql")).await;
    add(path, rows).await;
    format!("sqlite://{}", path.display())
}

async fn add(path: &Path, rows: &[Row]) {
    let mut admin = sqlite(path).await;
    execute(&mut admin, "BEGIN").await;
    for insert in inserts(rows, &caracas(), &[&SOME[..], &["uniqueid", "linkedid"]].concat()) {
        execute(&mut admin, insert).await;
    }
    execute(&mut admin, "COMMIT").await;
}

/// The most memory that a process ever had, bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    let patience = PATIENCE + Duration::from_millis(10) * u32::try_from(rows()).unwrap();
    while !is() {
        assert!(begun.elapsed() < patience, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Begun again after each of five kills: of the agent, and with it of the command.
async fn killed_five_times(site: &Site, source: &str, expected: &[Create]) {
    let config = site.config(source, "");
    let began = Instant::now();
    let (mut most, mut resumed) = (0, 0);
    for kill in 1..=5 {
        let mut agent = Agent::start_quietly(site.home.path(), &config);
        agent.until("running", |_| true).await;
        let command = site.command(ALL).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let enough = expected.len() * kill / 6;
        until("a part of it", || site.receiver.counts().creates >= enough as u64).await;
        most = most.max(peak(agent.pid()));
        agent.kill().await;
        let output = command.wait_with_output().await.unwrap();
        // what an earlier run left in the journal is not waited for, so it may have been done
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", output.status);
        resumed += usize::from(json_lines(&output.stdout)[0]["resumed"].is_i64());
    }
    let mut agent = Agent::start_quietly(site.home.path(), &config);
    agent.until("running", |_| true).await;
    let (code, stdout, stderr) = site.run(ALL).await;
    let lines = json_lines(stdout.as_bytes());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let summary = lines.last().unwrap();
    assert!(resumed > 0, "none went on where the one before was");
    agent.delivered().await;
    let times = site.all_came(expected);
    assert!(times <= 6, "a kill repeats what was under way, and nothing else");
    let requests = site.receiver.counts().requests;
    println!(
        "{} creates, 5 kills, {requests} requests in {:?}; the last run: {summary}",
        expected.len(),
        began.elapsed()
    );
    assert!(requests - expected.len() as u64 <= 5 * 17, "{requests}");

    let again = site.backfill(&[]).await;
    assert_eq!(again["creates"], expected.len(), "{again}");
    assert_eq!((&again["known"], &again["added"]), (&expected.len().into(), &0.into()), "{again}");
    assert_eq!(site.receiver.counts().requests, requests, "nothing was sent again");
    most = most.max(peak(agent.pid()));
    println!("at most {} MiB of memory", most >> 20);
    assert!(most < MOST_MEMORY, "{most}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_of_sqlite_killed_five_times_sends_every_call_once() {
    let site = Site::new().await;
    let (rows, expected) = traffic(rows());
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    killed_five_times(&site, &source, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_of_rotated_csv_files_killed_five_times_sends_every_call_once() {
    let site = Site::new().await;
    let (rows, expected) = traffic(rows());
    let path = master_csv(site.home.path(), &rows);
    killed_five_times(&site, &format!("csv://{}", path.display()), &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_of_mariadb_killed_five_times_sends_every_call_once() {
    let Some(server) = mariadb() else { return };
    let site = Site::new().await;
    let (rows, expected) = traffic(rows());
    let mut admin = mysql(&server, "").await;
    sqlx::raw_sql("CREATE DATABASE asteriskcdrdb").execute(&mut admin).await.unwrap();
    let mut admin = mysql(&server, "asteriskcdrdb").await;
    let user = "CREATE USER 'reader'@'localhost' IDENTIFIED BY 'p'; \
                GRANT SELECT ON asteriskcdrdb.* TO 'reader'@'localhost'";
    let begin = [schema("freepbx.sql"), user.to_owned()];
    let columns = [&SOME[..], &["uniqueid", "did", "linkedid", "sequence"]].concat();
    for sql in begin.into_iter().chain(inserts(&rows, &caracas(), &columns)) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    }
    drop(rows);
    let log = "SET GLOBAL log_output = 'TABLE', slow_query_log = 1, long_query_time = 0";
    sqlx::raw_sql(log).execute(&mut admin).await.unwrap();
    let source = format!("mysql://reader:p@localhost/asteriskcdrdb?socket={}", server.socket.display());
    killed_five_times(&site, &source, &expected).await;
    let sql = "SELECT COUNT(*), CAST(MAX(TIME_TO_SEC(query_time)) AS DOUBLE), CAST(MAX(rows_examined) AS SIGNED) \
               FROM mysql.slow_log WHERE user_host LIKE 'reader[%' AND sql_text LIKE '%FROM `cdr` WHERE%'";
    let (queries, longest, examined): (i64, f64, i64) =
        sqlx::query_as(sql).fetch_one(&mut admin).await.unwrap();
    println!(
        "MariaDB: {queries} pages, the longest {:.1} ms, at most {examined} rows examined",
        longest * 1e3
    );
    // of a small table a slice is so much that the server may rather read all of it
    assert!(queries > 0 && (examined <= 501 || expected.len() < 20_000), "{queries} {examined}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_of_postgresql_killed_five_times_sends_every_call_once() {
    let Some(server) = postgres() else { return };
    let site = Site::new().await;
    let (rows, expected) = traffic(rows());
    let mut admin = pg(&server).await;
    let columns = [&SOME[..], &["uniqueid", "linkedid", "did"]].concat();
    let user = "CREATE ROLE reader LOGIN; GRANT SELECT ON cdr TO reader; ANALYZE cdr".to_owned();
    let begin = std::iter::once(schema("cdr_pgsql.sql"));
    let inserts = inserts(&rows, &caracas(), &columns);
    for sql in begin.chain(inserts).chain([user]) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    }
    drop(rows);
    let host = server.socket.display();
    let source = format!("postgres://reader@localhost/postgres?host={host}");
    killed_five_times(&site, &source, &expected).await;
    let (queries, longest) = logged(&server);
    let sql = "SELECT idx_tup_fetch::float8 / greatest(idx_scan, 1), seq_tup_read \
               FROM pg_stat_user_tables WHERE relname = 'cdr'";
    let (fetched, scanned): (f64, i64) = sqlx::query_as(sql).fetch_one(&mut admin).await.unwrap();
    println!(
        "PostgreSQL: {queries} pages, the longest {longest:.1} ms, {fetched:.0} rows fetched by the index a page, \
         {scanned} without it"
    );
    assert!(queries > 0 && fetched <= 501.0, "{queries} {fetched}");
    assert!(scanned == 0 || expected.len() < 20_000, "{scanned} rows were read without the index");
}

/// Pages that PostgreSQL's log has, and what the longest took, ms.
fn logged(server: &Server) -> (usize, f64) {
    let log = fs::read(server.directory.path().join("data/log/p.log")).unwrap();
    let log = text(&log);
    let pages = log.lines().filter(|line| line.contains("FROM \"cdr\" WHERE") && line.contains("duration: "));
    let times = pages.map(|line| {
        let time = line.split_once("duration: ").unwrap().1;
        time.split_once(" ms").unwrap().0.parse::<f64>().unwrap()
    });
    times.fold((0, 0.0), |(count, longest), time| (count + 1, time.max(longest)))
}

/// A webhook beside NiMbox, to the same receiver.
fn with_webhook(site: &Site, config: &str, events: &str) -> String {
    format!(
        "{config}[[webhook]]\nname = 'desk'\nurl = 'http://{}/hook'\nallow_http = true\nevents = {events}\n",
        site.receiver.address()
    )
}

/// Bodies of the webhooks that came, by id.
fn webhooks(site: &Site) -> BTreeMap<String, Value> {
    let received = site.receiver.received().into_iter();
    let bodies = received.filter_map(|received| match &received.request {
        Request::Webhook { event, id, body, .. } if event != "test" => Some((id.clone(), body.clone())),
        Request::Webhook { .. } | Request::Create { .. } | Request::Delete { .. } | Request::Other { .. } => {
            None
        }
    });
    bodies.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_named_hears_once_how_each_part_of_a_past_call_ended() {
    const TO_DESK: &[&str] =
        &["backfill", "--json", "--from", "2025-12-01", "--to", "2028-01-01", "--route", "desk"];
    let site = Site::new().await;
    let pbx = Pbx::start("right").await.unwrap();
    let (rows, _) = traffic(300);
    let path = site.path("master.db");
    let source = sqlite_store(&path, &rows).await;
    let config = with_webhook(
        &site,
        &site.beside(&pbx, &source, "reconcile = 'off'\nfull_at = 'off'\n"),
        "['call.state']",
    );
    let mut agent = Agent::start(site.home.path(), &config);
    agent.until("connected", |status| status.ami.connected).await;
    // what is told of a call as it happens is not told again from its rows
    let stream = String::from_utf8(fixture("22", "s01_in_answered_caller_hangs")).unwrap();
    pbx.emit(&stream);
    agent
        .until("told", |status| {
            status
                .journal
                .routes
                .iter()
                .any(|route| &*route.route.0 == "desk" && route.counters.delivered >= 4)
        })
        .await;
    let live = webhooks(&site);
    let mut admin = sqlite(&path).await;
    execute(&mut admin, row_of(&stream)).await;
    drop(admin);

    let (code, shown, stderr) = site.run(&[TO_DESK, &["--dry-run"]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    let dry: BTreeMap<String, Value> = json_lines(shown.as_bytes())
        .into_iter()
        .filter(|line| line["kind"] == "webhook")
        .map(|line| (line["body"]["id"].as_str().unwrap().to_owned(), line["body"].clone()))
        .collect();
    assert_eq!(dry.len(), rows.len() + 1, "here every row is a phone's part, and one was live");
    assert_eq!(webhooks(&site).len(), live.len(), "nothing was sent");

    let (code, shown, stderr) = site.run(TO_DESK).await;
    assert_eq!(code, Some(0), "{shown}{stderr}");
    let summary = json_lines(shown.as_bytes()).pop().unwrap();
    assert_eq!(summary["delivered"], rows.len(), "{summary}");
    // for a while after its end the tracker holds the call that was live
    let left_out = |summary: &Value| summary["known"].as_u64().unwrap() + summary["held"].as_u64().unwrap();
    assert_eq!(left_out(&summary), 1, "{summary}");
    let mut sent = webhooks(&site);
    sent.retain(|id, _| !live.contains_key(id));
    assert_eq!(sent.len(), rows.len());
    assert!(sent.iter().all(|(id, body)| dry[id] == *body), "what --dry-run shows is what is sent");
    let mut events: BTreeMap<&str, usize> = BTreeMap::new();
    for body in sent.values() {
        *events.entry(body["event_name"].as_str().unwrap()).or_default() += 1;
    }
    let missed =
        rows.chunk_by(|a, b| a.uniqueid == b.uniqueid).filter(|call| call.iter().all(|row| !row.answered));
    let missed = missed.count();
    assert_eq!(events, BTreeMap::from([("call.hangup", rows.len() - missed), ("call.missed", missed)]));
    let elsewhere = sent.values().filter(|body| body["t_cause"] == "Answered elsewhere").count();
    assert!(elsewhere > 0 && site.receiver.counts().conflicts == 0);

    // a run that was killed, and one more
    let (more, _) = traffic_since(FIRST + 50 * 86_400, 1_000);
    add(&path, &more).await;
    let command = site.command(TO_DESK).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let before = rows.len() + live.len();
    until("a part of it", || site.receiver.counts().webhooks > (before + more.len() / 3) as u64).await;
    agent.kill().await;
    let _ = command.wait_with_output().await.unwrap();
    let mut agent = Agent::start(site.home.path(), &config);
    agent.until("running", |_| true).await;
    let (code, shown, stderr) = site.run(TO_DESK).await;
    assert_eq!(code, Some(0), "{shown}{stderr}");
    agent.delivered().await;
    let counts = site.receiver.counts();
    assert_eq!(counts.webhooks, (before + more.len()) as u64, "each came: {counts:?}");
    assert!(
        counts.webhooks_again <= 17 && counts.conflicts == 0,
        "a kill repeats what was under way: {counts:?}"
    );
    let (_, shown, _) = site.run(TO_DESK).await;
    let again = json_lines(shown.as_bytes()).pop().unwrap();
    assert_eq!(
        (&again["added"], left_out(&again)),
        (&0.into(), (rows.len() + more.len() + 1) as u64),
        "{again}"
    );
    assert_eq!(site.receiver.counts().requests, counts.requests, "nothing was sent again");
    // creates never went: nobody asked for them
    assert!(site.created().len() <= 1);
    agent.stop().await;

    let deaf = config.replace("['call.state']", "['sms.received']");
    fs::write(site.path("callpost.toml"), deaf).unwrap();
    let (code, _, stderr) = site.run(TO_DESK).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("wants no end of a call") && stderr.contains("call.hangup"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_agent_the_command_brings_its_own() {
    let site = Site::new().await;
    let (rows, expected) = traffic(500);
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    let config = site.config(&source, "");
    Agent::start(site.home.path(), &config).kill().await;
    let summary = site.backfill(&[]).await;
    assert_eq!((&summary["delivered"], &summary["known"]), (&expected.len().into(), &0.into()), "{summary}");
    assert_eq!(site.all_came(&expected), 1);
    let summary = site.backfill(&[]).await;
    assert_eq!((&summary["added"], &summary["known"]), (&0.into(), &expected.len().into()), "{summary}");
    // for people
    let (code, stdout, _) = site.run(&["backfill", "--from", "2025-12-01"]).await;
    assert_eq!(code, Some(0));
    let known = format!("{}    already there: sent before, or on their way", expected.len());
    assert!(stdout.contains(&known) && stdout.contains("left out: internal call"), "{stdout}");
    assert_eq!(site.receiver.counts().requests, expected.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_by_reason_and_a_receiver_that_is_down_is_waited_for() {
    let site = Site::new().await;
    let (rows, expected) = traffic(200);
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    let mut agent = Agent::start(site.home.path(), &site.config(&source, ""));
    agent.until("running", |_| true).await;
    let why = ("destination".to_owned(), "no se consiguió".to_owned());
    site.receiver.misbehave(Misbehaviour { nimbox_error: Some(why), ..Misbehaviour::default() });
    let (code, stdout, stderr) = site.run(&["backfill", "--from", "2025-12-01", "--to", "2026-01-05"]).await;
    assert_eq!(code, Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("refused: ") && stdout.contains("no se consiguió"), "{stdout}");
    let refused = site.receiver.counts().requests;
    assert!(refused > 50 && refused <= expected.len() as u64, "{refused}");

    // one at a time; a receiver that is down is waited for, aloud
    site.receiver.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    add(&site.path("master.db"), &traffic_since(FIRST + 50 * 86_400, 1_000).0).await;
    let mut waiting = site.command(ALL).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut shown = tokio::io::BufReader::new(waiting.stdout.take().unwrap()).lines();
    let mut lines: Vec<Value> = Vec::new();
    // it has begun
    while !lines.iter().any(|line| line["hold"].as_str().is_some_and(|hold| hold.contains("fails"))) {
        let line = tokio::time::timeout(PATIENCE, shown.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{lines:?}"));
        lines.push(serde_json::from_str(&line.unwrap().unwrap()).unwrap());
    }
    let (code, _, stderr) = site.run(&["backfill", "--since", "1h"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("under way already"), "{stderr}");
    let kill = waiting.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &kill]).status().unwrap().success());
    while let Some(line) = shown.next_line().await.unwrap() {
        lines.push(serde_json::from_str(&line).unwrap());
    }
    assert_eq!(waiting.wait().await.unwrap().code(), Some(1));
    let last = lines.last().unwrap();
    assert_eq!(last["kind"], "stopped", "{last}");
    assert!(last["waiting"].as_u64().unwrap() > 0, "{last}");
    site.receiver.misbehave(Misbehaviour::default());
    agent
        .until("delivered", |status| {
            let lane = status.journal.routes.iter().find(|route| &*route.route.0 == "crm/history");
            lane.is_some_and(|lane| lane.counters.delivered >= 50)
        })
        .await;
    agent.stop().await;
}

/// A row as the Cdr event of a recording has it.
fn row_of(stream: &str) -> String {
    let cdr = stream.split("\r\n\r\n").find(|message| message.contains("Event: Cdr\r\n")).unwrap();
    let value = |name: &str| {
        let prefix = format!("{name}: ");
        let line = cdr.lines().find_map(|line| line.strip_prefix(&prefix));
        format!("'{}'", line.unwrap_or_default().trim().replace('\'', "''"))
    };
    let start: i64 = value("StartEpoch").trim_matches('\'').split('.').next().unwrap().parse().unwrap();
    let local = caracas().to_datetime(jiff::Timestamp::from_second(start).unwrap());
    let calldate = format!("'{}'", local.strftime("%Y-%m-%d %H:%M:%S"));
    let names = ["Source", "Destination", "Channel", "DestinationChannel", "Duration", "BillableSeconds"];
    let values = names.map(value).join(",");
    format!(
        "INSERT INTO cdr (calldate,src,dst,channel,dstchannel,duration,billsec,disposition,uniqueid,linkedid) \
         VALUES ({calldate},{values},{},{},{})",
        value("Disposition"),
        value("UniqueID"),
        value("LinkedID")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_the_live_path_and_of_history_is_one() {
    let site = Site::new().await;
    let pbx = Pbx::start("right").await.unwrap();
    let stream = String::from_utf8(fixture("22", "s01_in_answered_caller_hangs")).unwrap();
    let source = sqlite_store(&site.path("master.db"), &traffic(10).0).await;
    let mut admin = sqlite(&site.path("master.db")).await;
    execute(&mut admin, row_of(&stream)).await;
    let mut agent = Agent::start(site.home.path(), &site.beside(&pbx, &source, ""));
    agent.connected().await;
    let (before, after) = stream.split_at(stream.find("Event: Cdr").unwrap());
    pbx.emit(before);
    agent.until("in a call", |status| status.journal.objects > 3 && status.ingest.events > 10).await;
    let summary = site.backfill(&[]).await;
    assert_eq!(summary["held"], 1, "its CDR is to come: {summary}");
    let others = summary["delivered"].as_u64().unwrap();
    assert!(others > 2, "{summary}");
    pbx.emit(after);
    let all = others + 1;
    agent
        .until("done", |status| {
            status.journal.routes.iter().map(|route| route.counters.delivered).sum::<u64>() == all
        })
        .await;
    // the tracker lets go of it once no row of it can come
    let begun = Instant::now();
    let summary = loop {
        let summary = site.backfill(&[]).await;
        if summary["held"] == 0 {
            break summary;
        }
        assert!(begun.elapsed() < PATIENCE, "{summary}");
    };
    assert_eq!((&summary["known"], &summary["added"]), (&all.into(), &0.into()), "{summary}");
    assert_eq!(site.receiver.counts().requests, all);
    agent.stop().await;
}

/// Reconciliation soon after each login, and of what has just ended.
const SOON: &str = "reconcile_after = '1 s'\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_the_agent_was_stopped_arrives_once() {
    let site = Site::new().await;
    let pbx = Pbx::start("right").await.unwrap();
    let path = site.path("master.db");
    let (old, _) = traffic_since(now() - 86_400, 50);
    let source = sqlite_store(&path, &old).await;
    let config = site.beside(&pbx, &source, SOON);
    let looked = |runs: u64| move |status: &callpost::api::AgentStatus| status.reconciliation.runs >= runs;
    let mut agent = Agent::start(site.home.path(), &config);
    let status = agent.until("reconciled", looked(1)).await;
    let first = status.reconciliation.last.unwrap();
    assert_eq!((first.creates, first.missing), (0, 0), "nothing from before the first start: {first:?}");
    agent.stop().await;

    // calls begin after the first start; a month later they would be as short
    sleep(Duration::from_secs(2)).await;
    let mut missed = traffic_since(now(), 5).0;
    for (n, row) in missed.iter_mut().enumerate() {
        (row.start, row.duration) = (now() - 1, 1);
        row.uniqueid = format!("{}.{n}", row.start);
        row.answered = false;
        row.src = ["04140000001", "04140000002", "04140000003", "04140000004", "04140000005"][n % 5];
        (row.dst, row.did) = ("02125550101".to_owned(), "02125550101");
        row.channel = format!("PJSIP/trunk-{n:08x}");
    }
    let expected: Vec<Create> =
        missed.iter().map(|row| (row.start, row.src.to_owned(), row.dst.clone(), 1)).collect();
    add(&path, &missed).await;
    let count = missed.len() as u64;
    for start in 0..3 {
        let mut agent = Agent::start(site.home.path(), &config);
        // once soon after the login, once when what had just ended has settled
        let status = agent.until("reconciled", looked(2)).await;
        let about = status.reconciliation;
        assert_eq!(about.missing, if start == 0 { count } else { 0 }, "{about:?}");
        let last = about.last.unwrap();
        assert_eq!((last.creates, last.known), (count, count), "{last:?}");
        agent.delivered().await;
        if start == 0 {
            let (_, shown, _) = site.run(&["status"]).await;
            assert!(
                shown.contains(&format!("{count} creates in the store, none missing; next in")),
                "{shown}"
            );
        }
        agent.stop().await;
    }
    assert_eq!(site.all_came(&expected), 1);
    assert_eq!(site.receiver.counts().requests, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_sent_again_when_asked_for_and_only_then() {
    let site = Site::new().await;
    let pbx = Pbx::start("right").await.unwrap();
    let (rows, expected) = traffic_since(now() - 3 * 86_400, 60);
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    let config = site.beside(&pbx, &source, &format!("{SOON}since = 2026-01-01\n"));
    let mut agent = Agent::start(site.home.path(), &config);
    let status = agent.until("reconciled", |status| status.reconciliation.runs >= 2).await;
    assert_eq!(status.reconciliation.missing, expected.len() as u64, "since is further back");
    agent.delivered().await;
    let day = |days: i64| initiated(now() - days * 86_400)[..10].to_owned();
    let (code, shown, stderr) = site.run(&["delete", "--yes", "--from", &day(5), "--to", &day(1)]).await;
    assert_eq!(code, Some(0), "{shown}{stderr}");
    assert!(shown.contains(&format!("{} calls deleted", expected.len())), "{shown}");
    let sent = site.receiver.counts().creates;
    agent.stop().await;

    let mut agent = Agent::start(site.home.path(), &config);
    let status = agent.until("reconciled", |status| status.reconciliation.runs >= 2).await;
    let last = status.reconciliation.last.unwrap();
    assert_eq!((last.deleted, last.missing), (expected.len() as u64, 0), "{last:?}");
    assert_eq!(site.receiver.counts().creates, sent);
    let summary = site.backfill(&[]).await;
    assert_eq!((&summary["delivered"], &summary["known"]), (&expected.len().into(), &0.into()), "{summary}");
    assert_eq!(site.receiver.counts().creates, 2 * sent);
    let summary = site.backfill(&[]).await;
    assert_eq!((&summary["added"], &summary["known"]), (&0.into(), &expected.len().into()), "{summary}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_hurts_nothing_is_named_and_is_waited_for() {
    let site = Site::new().await;
    let pbx = Pbx::start("right").await.unwrap();
    let (rows, expected) = traffic(4_000);
    let path = site.path("Master.csv");
    let source = format!("csv://{}", path.display());
    let mut agent = Agent::start(site.home.path(), &site.beside(&pbx, &source, SOON));
    let status = agent.until("told", |status| status.reconciliation.away.is_some()).await;
    let away = status.reconciliation.away.unwrap();
    assert!(away.what.contains("Master.csv") && !away.remedy.is_empty(), "{away:?}");
    let (_, shown, _) = site.run(&["status"]).await;
    assert!(shown.contains("the store cannot be read") && shown.contains(&away.remedy), "{shown}");
    // the live path does not mind
    let stream = String::from_utf8(fixture("22", "s01_in_answered_caller_hangs")).unwrap();
    pbx.emit(&stream);
    agent.until("delivered", |status| status.journal.routes.iter().any(|r| r.counters.delivered == 1)).await;
    agent.stop().await;

    // in the middle of a backfill, of a receiver that is slow
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    let mut agent = Agent::start(site.home.path(), &site.config(&source, ""));
    agent.until("running", |_| true).await;
    let before = site.receiver.counts().creates;
    let reading = tokio::spawn(site.command(&[ALL, &["--rate", "400"]].concat()).output());
    until("a part of it", || site.receiver.counts().creates > before + 200).await;
    let mut admin = sqlite(&site.path("master.db")).await;
    execute(&mut admin, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE x (y)").await;
    sleep(Duration::from_secs(8)).await;
    execute(&mut admin, "ROLLBACK").await;
    drop(admin);
    let output = reading.await.unwrap().unwrap();
    let lines = json_lines(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let held = lines.iter().any(|line| line["hold"].as_str().is_some_and(|hold| hold.contains("CDR store")));
    assert!(held, "it says what it waits for");
    assert_eq!(site.created().len(), expected.len() + 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconciliation_waits_for_no_receiver_that_is_down_and_says_which_it_is() {
    let site = Site::new().await;
    let down = Receiver::start(Options::default()).await.unwrap();
    down.misbehave(Misbehaviour { fail: Some(503), ..Misbehaviour::default() });
    let (rows, expected) = traffic_since(now() - 3 * 86_400, 2_200);
    let source = sqlite_store(&site.path("master.db"), &rows).await;
    let more = "reconcile = '2 s'\nreconcile_after = '1 s'\nsince = 2026-01-01\n";
    let config = format!(
        "{}[[nimbox]]\nname = 'away'\nurl = 'http://{}'\nallow_http = true\ntoken = 't'\nconcurrency = 16\n",
        site.config(&source, more),
        down.address()
    );
    let count = expected.len() as u64;
    assert!(count > 1_100);
    let mut agent = Agent::start(site.home.path(), &config);
    let status = agent.until("looked", |status| status.reconciliation.runs >= 1).await;
    let last = status.reconciliation.last.unwrap();
    assert!(last.put_off > 0 && last.put_off < count - 900, "{last:?}");
    assert!(last.hold.as_deref().is_some_and(|hold| hold.contains("away")), "{last:?}");
    let (_, shown, _) = site.run(&["status"]).await;
    assert!(shown.contains("not compared yet, for a thousand wait already: the receiver of away"), "{shown}");
    until("those of the other", || site.receiver.counts().creates == count).await;
    // nothing is lost by it
    down.misbehave(Misbehaviour::default());
    until("the rest", || down.counts().creates == count).await;
    agent.delivered().await;
    assert_eq!(down.counts().creates_again + site.receiver.counts().creates_again, 0);
    agent.stop().await;
}

/// Lines of Master.csv, appended as Asterisk does.
fn append(path: &Path, rows: &[Row]) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    rows.iter().for_each(|row| file.write_all(csv_line(row, true).as_bytes()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_late_are_found_by_the_next_look() {
    let site = Site::new().await;
    let path = site.path("Master.csv");
    let (rows, expected) = traffic_since(now() - 7_200, 40);
    let half = rows.iter().position(|row| row.start >= rows[20].start).unwrap();
    append(&path, &rows[..half]);
    let source = format!("csv://{}", path.display());
    let more = "reconcile = '2 s'\nreconcile_after = '1 s'\nsince = 2026-01-01\n";
    let mut agent = Agent::start(site.home.path(), &site.config(&source, more));
    agent.until("reconciled", |status| status.reconciliation.runs >= 1).await;
    append(&path, &rows[half..]);
    let count = expected.len() as u64;
    agent.until("complete", |status| status.reconciliation.missing == count).await;
    agent.delivered().await;
    assert_eq!(site.all_came(&expected), 1);
    agent.stop().await;
}
