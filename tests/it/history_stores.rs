//! CDR stores as they are on PBXs: real MariaDB and PostgreSQL servers on sockets of their own, SQLite and
//! CSV files; FreePBX's and Issabel's schemas. Whatever the store, the same calls make the same creates.
#![expect(clippy::print_stdout, reason = "what was skipped and how long it took is said")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use callpost::cdr::{Span, Store, StoreClock, StoreError, plan};
use callpost::config::{Config, Environment, load_text};
use callpost::journal::Payload;
use callpost::routes::Routes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parsers::Micros;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::cli::{json_lines, run, site, text};

/// Rows of each store.
const ROWS: usize = 50_000;
/// The first call, 2026-01-05 00:00 in Caracas; then one a minute.
pub const FIRST: i64 = 1_767_585_600;
const PATIENCE: Duration = Duration::from_secs(120);

/// One row; texts as Asterisk writes them.
pub struct Row {
    /// Seconds since the epoch.
    pub start: i64,
    pub src: &'static str,
    pub dst: String,
    pub channel: String,
    pub dstchannel: String,
    pub duration: u64,
    pub answered: bool,
    pub uniqueid: String,
    pub sequence: usize,
    pub did: &'static str,
}

impl Row {
    fn billsec(&self) -> u64 {
        if self.answered { self.duration - 2 } else { 0 }
    }

    fn disposition(&self) -> &'static str {
        if self.answered { "ANSWERED" } else { "NO ANSWER" }
    }

    fn at(&self, seconds: u64, zone: &TimeZone) -> String {
        let at = Timestamp::from_second(self.start + i64::try_from(seconds).unwrap()).unwrap();
        zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// Second, source, destination, duration.
pub type Create = (i64, String, String, u64);

/// Calls as a PBX has them: in, out, to a group of phones, between phones, missed. With the creates that
/// they come to: second, source, destination, duration.
pub fn traffic(rows: usize) -> (Vec<Row>, Vec<Create>) {
    traffic_since(FIRST, rows)
}

/// The same from another moment on.
pub fn traffic_since(first: i64, rows: usize) -> (Vec<Row>, Vec<Create>) {
    let (mut made, mut expected) = (Vec::new(), Vec::new());
    let mut sequence = 0;
    for call in 0.. {
        let start = first + i64::from(call) * 60;
        let uniqueid = format!("{start}.{call}");
        let mut add = |src, dst: &str, channel: &str, dstchannel: &str, duration, answered, did| {
            sequence += 1;
            made.push(Row {
                start,
                src,
                dst: dst.to_owned(),
                channel: format!("{channel}-{call:08x}"),
                dstchannel: format!("{dstchannel}-{sequence:08x}"),
                duration,
                answered,
                uniqueid: uniqueid.clone(),
                sequence,
                did,
            });
        };
        let (caller, own) = ("04141234567", "02125550101");
        let kept = match call % 5 {
            0 => {
                add(caller, own, "PJSIP/trunk", "PJSIP/1001", 42, true, own);
                Some((caller, own.to_owned(), 42))
            }
            1 => {
                let dialled = format!("9555{:04}", call % 10_000);
                add("1001", &dialled, "PJSIP/1001", "PJSIP/trunk", 30, true, "");
                Some(("1001", format!("0212555{:04}", call % 10_000), 30))
            }
            2 => {
                add(caller, own, "PJSIP/trunk", "PJSIP/1001", 5, false, own);
                add(caller, own, "PJSIP/trunk", "PJSIP/1002", 5, false, own);
                add(caller, own, "PJSIP/trunk", "PJSIP/1003", 40, true, own);
                Some((caller, own.to_owned(), 40))
            }
            3 => {
                add("1001", "1002", "PJSIP/1001", "PJSIP/1002", 10, true, "");
                None
            }
            _ => {
                add(caller, own, "PJSIP/trunk", "PJSIP/1001", 25, false, own);
                Some((caller, own.to_owned(), 25))
            }
        };
        expected.extend(
            kept.map(|(source, destination, duration)| (start, source.to_owned(), destination, duration)),
        );
        if made.len() >= rows {
            return (made, expected);
        }
    }
    unreachable!("calls without end")
}

pub fn caracas() -> TimeZone {
    TimeZone::get("America/Caracas").unwrap()
}

fn config(source: &str, more: &str) -> Config {
    let text = format!(
        "[pbx]\nname = 'hq'\ntimezone = 'America/Caracas'\ntrunks = ['PJSIP/trunk']\n\
         [cdr]\nsource = '{source}'\n{more}\n\
         [[nimbox]]\nname = 'crm'\nurl = 'https://crm.example.com'\ntoken = 't'\n"
    );
    load_text(&text, "test", &Environment::default()).unwrap().config
}

async fn open(config: &Config) -> Result<Store, StoreError> {
    Store::open(&config.cdr, &config.pbx.timezone).await
}

/// What a span comes to, as [`traffic`] has it.
async fn creates(config: &Config, from: i64, to: i64) -> (Vec<Create>, u64) {
    let mut store = open(config).await.unwrap();
    let span = Span { from: Micros::from_secs(from), to: Micros::from_secs(to) };
    let (mut made, routes) = (Vec::new(), Routes::new(config));
    let summary = plan(&mut store, span, "hq", &routes, |create| {
        let Payload::Nimbox { initiated, source, destination, duration, .. } = &create.payload else {
            panic!()
        };
        let local: jiff::civil::DateTime = initiated.trim_end_matches('Z').parse().unwrap();
        let second = local.to_zoned(caracas()).unwrap().timestamp().as_second();
        made.push((second, source.clone(), destination.clone(), duration.unwrap()));
        Ok(())
    });
    let summary = summary.await.unwrap();
    made.sort();
    (made, summary.read)
}

/// All of a store, and a span in the middle of it.
async fn check(config: &Config, expected: &[Create]) {
    let begun = Instant::now();
    let mut expected = expected.to_vec();
    expected.sort();
    let (made, read) = creates(config, FIRST, FIRST + 400 * 86_400).await;
    assert_eq!(made.len(), expected.len());
    assert!(made == expected, "the creates of all of it");
    assert!(read >= ROWS as u64);
    println!("{} rows in {:?}", read, begun.elapsed());
    let (from, to) = (FIRST + 5 * 86_400 + 7, FIRST + 5 * 86_400 + 7_207);
    let part: Vec<_> = expected.iter().filter(|(at, ..)| (from..to).contains(at)).cloned().collect();
    let (made, read) = creates(config, from, to).await;
    assert_eq!(made, part, "two hours of it");
    assert!(read < 3_000, "and not much more was read: {read}");
}

/// A server of a test's own; gone with it.
pub struct Server {
    child: Child,
    pub directory: TempDir,
    pub socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn found(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let candidates = names.iter().flat_map(|name| places.iter().rev().map(move |place| place.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

/// `None`, said aloud, where the server is not installed; `tests/setup` installs it.
pub fn mariadb() -> Option<Server> {
    let (Some(install), Some(daemon)) = (found(&["mariadb-install-db"]), found(&["mariadbd"])) else {
        println!("skipped: MariaDB is not installed");
        return None;
    };
    let directory = TempDir::new().unwrap();
    let (data, socket) = (directory.path().join("data"), directory.path().join("s"));
    let status =
        quiet(Command::new(install).args(["--no-defaults", "--auth-root-authentication-method=normal"]))
            .args(["--skip-test-db", "--user=root"])
            .arg(format!("--datadir={}", data.display()))
            .status();
    assert!(status.unwrap().success(), "mariadb-install-db failed");
    let child = quiet(Command::new(daemon).args(["--no-defaults", "--user=root", "--skip-networking"]))
        .args(["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--datadir"])
        .arg(&data)
        .arg("--socket")
        .arg(&socket)
        .spawn()
        .unwrap();
    Some(Server { child, directory, socket })
}

pub fn postgres() -> Option<Server> {
    let (Some(init), Some(daemon)) = (found(&["initdb"]), found(&["postgres"])) else {
        println!("skipped: PostgreSQL is not installed");
        return None;
    };
    let directory = TempDir::new().unwrap();
    let root =
        fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about)).unwrap() == 0;
    if root {
        assert!(Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap().success());
    }
    // PostgreSQL refuses to run as root
    let user = |program: &Path| {
        let mut command = Command::new(if root { Path::new("runuser") } else { program });
        if root {
            command.args(["-u", "postgres", "--"]).arg(program);
        }
        command.current_dir(directory.path());
        command
    };
    let data = directory.path().join("data");
    let status =
        quiet(user(&init).args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-D"]))
            .arg(&data)
            .status();
    assert!(status.unwrap().success(), "initdb failed");
    let child = quiet(user(&daemon).args(["-c", "listen_addresses=", "-c", "fsync=off", "-c"]))
        .arg(format!("unix_socket_directories={}", directory.path().display()))
        // how long each query took
        .args([
            "-c",
            "logging_collector=on",
            "-c",
            "log_filename=p.log",
            "-c",
            "log_min_duration_statement=0",
        ])
        .arg("-D")
        .arg(&data)
        .spawn()
        .unwrap();
    let socket = directory.path().to_path_buf();
    Some(Server { child, directory, socket })
}

pub async fn mysql(server: &Server, database: &str) -> MySqlConnection {
    let url = format!("mysql://root@localhost/{database}?socket={}", server.socket.display());
    let begun = Instant::now();
    loop {
        match MySqlConnection::connect(&url).await {
            Ok(connection) => return connection,
            Err(why) => assert!(begun.elapsed() < PATIENCE, "MariaDB does not start: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub async fn pg(server: &Server) -> PgConnection {
    let url = format!("postgres://postgres@localhost/postgres?host={}", server.socket.display());
    let begun = Instant::now();
    loop {
        match PgConnection::connect(&url).await {
            Ok(connection) => return connection,
            Err(why) => assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `INSERT`s of a thousand rows.
pub fn inserts(rows: &[Row], zone: &TimeZone, columns: &[&str]) -> Vec<String> {
    let insert = |rows: &[Row]| {
        let mut sql = format!(
            "INSERT INTO cdr ({}) VALUES ",
            columns
                .iter()
                .map(|column| if *column == "end" { "\"end\"" } else { column })
                .collect::<Vec<_>>()
                .join(",")
        );
        for (n, row) in rows.iter().enumerate() {
            sql.push_str(if n == 0 { "(" } else { ",(" });
            for (n, column) in columns.iter().enumerate() {
                let value = match *column {
                    "calldate" | "start" => row.at(0, zone),
                    "clid" => format!("\"x\" <{}>", row.src),
                    "src" => row.src.to_owned(),
                    "dst" => row.dst.clone(),
                    "channel" => row.channel.clone(),
                    "dstchannel" => row.dstchannel.clone(),
                    "lastapp" => "Dial".to_owned(),
                    "duration" if columns.contains(&"amaflags") && columns.contains(&"calldate") => {
                        format!("{}.250", row.duration)
                    }
                    "duration" => row.duration.to_string(),
                    "billsec" => row.billsec().to_string(),
                    "disposition" => row.disposition().to_owned(),
                    "uniqueid" | "linkedid" => row.uniqueid.clone(),
                    "answer" if row.answered => row.at(2, zone),
                    "answer" => row.at(0, zone),
                    "end" => row.at(row.duration, zone),
                    "dcontext" => "from-x".to_owned(),
                    "amaflags" => "3".to_owned(),
                    "did" => row.did.to_owned(),
                    "sequence" => row.sequence.to_string(),
                    other => panic!("{other}"),
                };
                let _ = write!(sql, "{}'{value}'", if n == 0 { "" } else { "," });
            }
            sql.push(')');
        }
        sql
    };
    rows.chunks(1000).map(insert).collect()
}

pub const SOME: [&str; 10] = [
    "calldate",
    "clid",
    "src",
    "dst",
    "channel",
    "dstchannel",
    "lastapp",
    "duration",
    "billsec",
    "disposition",
];

pub fn schema(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cdr").join(name);
    fs::read_to_string(path).unwrap()
}

macro_rules! execute {
    ($connection:expr, $sql:expr) => {
        sqlx::raw_sql(AssertSqlSafe($sql.to_string())).execute(&mut $connection).await.unwrap()
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freepbx_and_issabel_in_mariadb_give_the_same_creates_without_a_scan_of_the_table() {
    let Some(server) = mariadb() else { return };
    let (rows, expected) = traffic(ROWS);
    let socket = server.socket.display();
    for (database, more) in
        [("freepbx", &["uniqueid", "did", "linkedid", "sequence"][..]), ("issabel", &["uniqueid", "did"])]
    {
        let mut admin = mysql(&server, "").await;
        execute!(admin, format!("CREATE DATABASE {database}"));
        execute!(admin, format!("CREATE USER '{database}'@'localhost' IDENTIFIED BY 'p@ss'"));
        execute!(admin, format!("GRANT SELECT ON {database}.* TO '{database}'@'localhost'"));
        let mut admin = mysql(&server, database).await;
        execute!(admin, schema(&format!("{database}.sql")));
        for insert in inserts(&rows, &caracas(), &[&SOME[..], more].concat()) {
            execute!(admin, insert);
        }
        execute!(admin, "SET GLOBAL log_output = 'TABLE'");
        execute!(admin, "SET GLOBAL general_log = 1");
        execute!(admin, "FLUSH STATUS");
        let config = config(&format!("mysql://{database}:p%40ss@localhost/{database}?socket={socket}"), "");
        let store = open(&config).await.unwrap();
        let about = store.about();
        let paging = if database == "freepbx" { "the index on calldate" } else { "the index on uniqueid" };
        assert_eq!((about.paging.as_str(), about.clock), (paging, StoreClock::Local));
        assert!(about.warnings.is_empty(), "{about:?}");
        drop(store);
        let scanned = scanned(&mut admin).await;
        check(&config, &expected).await;
        let scanned = self::scanned(&mut admin).await - scanned;
        assert!(scanned < 5_000, "{database}: {scanned} rows were read without an index");
        etiquette(&mut admin, database).await;
    }
}

/// `cdr_odbc` writes its fixed columns whatever the table has them as, with `hrtime` durations of
/// milliseconds; `cdr_adaptive_odbc` fills what there is, here Asterisk's own schema without a key.
const ODBC: [(&str, &str, &[&str]); 2] = [
    (
        "odbc",
        "calldate TIMESTAMP NULL, clid VARCHAR(80), src VARCHAR(80), dst VARCHAR(80), dcontext VARCHAR(80), \
         channel VARCHAR(80), dstchannel VARCHAR(80), lastapp VARCHAR(80), lastdata VARCHAR(80), \
         duration DECIMAL(10,3), billsec DECIMAL(10,3), disposition VARCHAR(45), amaflags INT, \
         accountcode VARCHAR(20), uniqueid VARCHAR(32), userfield VARCHAR(255)",
        &[
            "calldate",
            "clid",
            "src",
            "dst",
            "dcontext",
            "channel",
            "dstchannel",
            "lastapp",
            "duration",
            "billsec",
            "disposition",
            "amaflags",
            "uniqueid",
        ],
    ),
    (
        "adaptive",
        "accountcode VARCHAR(80), src VARCHAR(80), dst VARCHAR(80), dcontext VARCHAR(80), clid VARCHAR(80), \
         channel VARCHAR(80), dstchannel VARCHAR(80), lastapp VARCHAR(80), lastdata VARCHAR(80), \
         start TIMESTAMP NULL, answer TIMESTAMP NULL, \"end\" TIMESTAMP NULL, duration INTEGER, billsec INTEGER, \
         disposition VARCHAR(45), amaflags VARCHAR(45), userfield VARCHAR(256), uniqueid VARCHAR(150), \
         linkedid VARCHAR(150), peeraccount VARCHAR(80), sequence INTEGER",
        &[
            "start",
            "answer",
            "end",
            "clid",
            "src",
            "dst",
            "dcontext",
            "channel",
            "dstchannel",
            "lastapp",
            "duration",
            "billsec",
            "disposition",
            "amaflags",
            "uniqueid",
            "linkedid",
            "sequence",
        ],
    ),
];

/// Tables that ODBC wrote have no index unless somebody made one: here on the start.
fn odbc_table(name: &str, columns: &str, index: bool) -> String {
    let start = if columns.contains("start TIMESTAMP") { "start" } else { "calldate" };
    let index = if index { format!("; CREATE INDEX {name}_at ON cdr ({start})") } else { String::new() };
    format!("DROP TABLE IF EXISTS cdr; CREATE TABLE cdr ({columns}){index}")
}

async fn odbc_creates(source: &str, index: bool, expected: &[Create]) {
    let config = config(source, "timezone = 'America/Caracas'");
    let about = open(&config).await.unwrap();
    assert_eq!(about.about().warnings.is_empty(), index, "{:?}", about.about());
    drop(about);
    let (mut made, _) = creates(&config, FIRST, FIRST + 30 * 86_400).await;
    made.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(made, expected, "{source}, index {index}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_odbc_wrote_gives_the_same_creates_with_an_index_and_without() {
    let (rows, expected) = traffic(2_000);
    let mariadb = mariadb();
    let postgres = postgres();
    for (name, columns, filled) in ODBC {
        for index in [true, false] {
            if let Some(server) = &mariadb {
                let mut admin = mysql(server, "").await;
                execute!(admin, "CREATE DATABASE IF NOT EXISTS o");
                let mut admin = mysql(server, "o").await;
                execute!(admin, "SET SESSION sql_mode = 'ANSI_QUOTES'");
                execute!(admin, odbc_table(name, columns, index).replace("TIMESTAMP", "DATETIME"));
                for insert in inserts(&rows, &caracas(), filled) {
                    execute!(admin, insert);
                }
                let socket = server.socket.display();
                odbc_creates(&format!("mysql://root@localhost/o?socket={socket}"), index, &expected).await;
            }
            if let Some(server) = &postgres {
                let mut admin = pg(server).await;
                execute!(admin, odbc_table(name, columns, index));
                for insert in inserts(&rows, &caracas(), filled) {
                    execute!(admin, insert);
                }
                let socket = server.socket.display();
                odbc_creates(
                    &format!("postgres://postgres@localhost/postgres?host={socket}"),
                    index,
                    &expected,
                )
                .await;
            }
        }
    }
}

/// Rows that were read in the order of the table.
async fn scanned(admin: &mut MySqlConnection) -> i64 {
    let sql = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
               WHERE VARIABLE_NAME = 'HANDLER_READ_RND_NEXT'";
    sqlx::query_scalar(sql).fetch_one(admin).await.unwrap()
}

/// What the account asked of the server, by the server's own log.
async fn etiquette(admin: &mut MySqlConnection, user: &str) {
    execute!(*admin, "SET GLOBAL general_log = 0");
    let sql = "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE user_host LIKE ?";
    let asked: Vec<String> =
        sqlx::query_scalar(sql).bind(format!("{user}[%")).fetch_all(admin).await.unwrap();
    let selects: Vec<_> = asked.iter().filter(|sql| sql.contains(" FROM `cdr`")).collect();
    assert!(selects.len() > 50, "{} queries", selects.len());
    for sql in selects {
        let limit: usize = sql.rsplit_once("LIMIT ").unwrap().1.trim().parse().unwrap();
        assert!(limit <= 501 && !sql.contains("LENGTH("), "{sql}");
    }
    assert!(asked.iter().any(|sql| sql == "SET SESSION TRANSACTION READ ONLY"), "{asked:?}");
    assert!(asked.iter().any(|sql| sql.contains("max_statement_time = 5")));
    let writes = ["INSERT", "UPDATE", "DELETE", "CREATE", "LOCK"];
    assert!(!asked.iter().any(|sql| writes.iter().any(|word| sql.starts_with(word))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_mariadb_store_is_named_with_what_to_do() {
    let Some(server) = mariadb() else { return };
    let mut admin = mysql(&server, "").await;
    execute!(admin, "CREATE DATABASE a; USE a; CREATE TABLE cdr (calldate DATETIME, clid VARCHAR(80))");
    execute!(
        admin,
        "CREATE TABLE a.plain (calldate DATETIME, src TEXT, dst TEXT, duration INT, uniqueid TEXT)"
    );
    execute!(admin, "CREATE TABLE a.hidden (calldate DATETIME, src TEXT, dst TEXT, duration INT)");
    execute!(admin, "CREATE USER 'u'@'localhost' IDENTIFIED BY 'right'");
    execute!(admin, "GRANT SELECT ON a.cdr TO 'u'@'localhost'; GRANT SELECT ON a.plain TO 'u'@'localhost'");
    let socket = server.socket.display().to_string();
    let nowhere = server.directory.path().join("none").display().to_string();
    let table = [
        ("u:wrong", "a", "cdr", &socket, "Access denied", "correct user and password"),
        ("u:right", "b", "cdr", &socket, "Access denied", "GRANT SELECT"),
        ("u:right", "a", "none", &socket, "there is no table none", "GRANT SELECT"),
        ("u:right", "a", "hidden", &socket, "there is no table hidden", "GRANT SELECT"),
        ("u:right", "a", "cdr", &socket, "no column src or source", "[cdr] table"),
        ("u:right", "a", "cdr", &nowhere, "no database answers", "start it"),
    ];
    for (login, database, name, socket, what, remedy) in table {
        let source = format!("mysql://{login}@localhost/{database}?socket={socket}");
        let error = open(&config(&source, &format!("table = '{name}'"))).await.unwrap_err();
        assert!(
            error.what.contains(what) && error.remedy.contains(remedy),
            "{login} {database} {name}: {error:?}"
        );
        assert!(!format!("{error:?}").contains("right"), "no password in it");
    }
    let source = format!("mysql://u:right@localhost/a?socket={socket}");
    let store = open(&config(&source, "table = 'a.plain'")).await.unwrap();
    let [(what, remedy)] = &store.about().warnings[..] else { panic!("{:?}", store.about()) };
    assert!(what.contains("no index") && remedy.contains("CREATE INDEX"), "{what} {remedy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_in_utc_gives_the_same_creates() {
    let Some(server) = postgres() else { return };
    let (rows, expected) = traffic(ROWS);
    let mut admin = pg(&server).await;
    execute!(admin, schema("cdr_pgsql.sql"));
    for insert in inserts(&rows, &TimeZone::UTC, &[&SOME[..], &["uniqueid", "linkedid", "did"]].concat()) {
        execute!(admin, insert);
    }
    execute!(admin, "CREATE ROLE reader LOGIN; GRANT SELECT ON cdr TO reader");
    let source =
        |user: &str| format!("postgres://{user}@localhost/postgres?host={}", server.socket.display());
    let config = config(&source("reader"), "");
    let store = open(&config).await.unwrap();
    assert_eq!(
        (store.about().paging.as_str(), store.about().clock),
        ("the index on calldate", StoreClock::Utc)
    );
    drop(store);
    check(&config, &expected).await;
    execute!(admin, "CREATE TABLE counted (id SERIAL PRIMARY KEY, LIKE cdr INCLUDING DEFAULTS)");
    execute!(
        admin,
        "INSERT INTO counted (calldate, src, dst, channel, dstchannel, duration, billsec, disposition, uniqueid, linkedid) SELECT calldate, src, dst, channel, dstchannel, duration, billsec, disposition, uniqueid, linkedid FROM cdr ORDER BY calldate, uniqueid"
    );
    execute!(admin, "GRANT SELECT ON counted TO reader");
    let counted = self::config(&source("reader"), "table = 'counted'");
    assert_eq!(open(&counted).await.unwrap().about().paging, "the counter id");
    let (made, read) = creates(&counted, FIRST + 86_400, FIRST + 90_000).await;
    let part = expected.iter().filter(|(at, ..)| (FIRST + 86_400..FIRST + 90_000).contains(at));
    assert_eq!(made.len(), part.count());
    assert!(read < 3_000, "{read}");
    // ids of one to five digits
    check(&counted, &expected).await;
    // moments, whatever zone Asterisk writes in
    execute!(admin, "CREATE TABLE zoned AS SELECT * FROM cdr");
    execute!(admin, "ALTER TABLE zoned ALTER calldate TYPE timestamptz USING calldate AT TIME ZONE 'UTC'");
    execute!(admin, "CREATE INDEX zoned_at ON zoned (calldate); GRANT SELECT ON zoned TO reader");
    let zoned = self::config(&source("reader"), "table = 'zoned'\ntimezone = 'America/Caracas'");
    assert_eq!(open(&zoned).await.unwrap().about().warnings, []);
    check(&zoned, &expected).await;
    for (user, table, what) in [("reader", "none", "there is no table"), ("nobody", "cdr", "nobody")] {
        let error = open(&self::config(&source(user), &format!("table = '{table}'"))).await.unwrap_err();
        assert!(error.what.contains(what), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_gives_the_same_creates_and_a_locked_or_lacking_one_is_named() {
    let directory = TempDir::new().unwrap();
    let (rows, expected) = traffic(ROWS);
    let path = directory.path().join("master.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut admin = SqliteConnection::connect(&url).await.unwrap();
    execute!(admin, schema("cdr_sqlite3.sql"));
    execute!(admin, "BEGIN");
    for insert in inserts(&rows, &caracas(), &[&SOME[..], &["uniqueid", "linkedid"]].concat()) {
        execute!(admin, insert);
    }
    execute!(admin, "COMMIT");
    let source = format!("sqlite://{}", path.display());
    let config = config(&source, "");
    assert_eq!(open(&config).await.unwrap().about().paging, "the counter AcctId");
    check(&config, &expected).await;
    execute!(admin, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE x (y)");
    let error = open(&config).await.unwrap_err();
    assert!(error.remedy.contains("locked the file"), "{error:?}");
    execute!(admin, "ROLLBACK");
    drop(admin);
    // cdr_sqlite3_custom.conf's sample
    let sample = directory.path().join("sample.db");
    let mut admin =
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", sample.display())).await.unwrap();
    execute!(
        admin,
        "CREATE TABLE cdr (AcctId INTEGER PRIMARY KEY, calldate, clid, dcontext, channel, duration, test)"
    );
    let error = open(&self::config(&format!("sqlite://{}", sample.display()), "")).await.unwrap_err();
    assert!(
        error.what.contains("no column src") && error.remedy.contains("cdr_sqlite3_custom.conf"),
        "{error:?}"
    );
    for (name, content) in
        [("none.db", None), ("text.db", Some("this is no database, whatever its name says"))]
    {
        let path = directory.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = open(&self::config(&format!("sqlite://{}", path.display()), "")).await.unwrap_err();
        assert!(!error.remedy.is_empty() && error.what.len() > 10, "{error:?}");
    }
}

/// A system name that was set, or taken away, at some time: the index of ids would hide one half.
#[tokio::test]
async fn ids_of_two_system_names_are_not_read_by_their_index() {
    let directory = TempDir::new().unwrap();
    for (named, paging) in
        [(0..0, "the index on uniqueid"), (0..100, "the counter AcctId"), (100..300, "the counter AcctId")]
    {
        let (mut rows, mut expected) = traffic(300);
        for row in rows.iter_mut().filter(|row| named.contains(&((row.start - FIRST) / 60))) {
            row.uniqueid = format!("pbx-{}", row.uniqueid);
        }
        let path = directory.path().join(format!("{named:?}.db"));
        let mut admin =
            SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
        execute!(admin, schema("cdr_sqlite3.sql"));
        execute!(admin, "CREATE INDEX ids ON cdr (uniqueid)");
        for insert in inserts(&rows, &caracas(), &[&SOME[..], &["uniqueid", "linkedid"]].concat()) {
            execute!(admin, insert);
        }
        let config = config(&format!("sqlite://{}", path.display()), "");
        assert_eq!(open(&config).await.unwrap().about().paging, paging, "{named:?}");
        expected.sort();
        assert_eq!(creates(&config, FIRST, FIRST + 86_400).await.0, expected, "{named:?}");
    }
}

/// A line of Master.csv with `loguniqueid` and, if so, `newcdrcolumns`.
pub fn csv_line(row: &Row, linked: bool) -> String {
    let zone = caracas();
    let answer = if row.answered { format!("\"{}\"", row.at(2, &zone)) } else { String::new() };
    let more = if linked { format!(",\"\",\"{}\",{}", row.uniqueid, row.sequence) } else { String::new() };
    format!(
        "\"\",\"{}\",\"{}\",\"from-x\",\"\"\"x, y\"\" <{}>\",\"{}\",\"{}\",\"Dial\",\"a,b\",\"{}\",{answer},\"{}\",{},{},\"{}\",\"DOCUMENTATION\",\"{}\"{more}\n",
        row.src,
        row.dst,
        row.src,
        row.channel,
        row.dstchannel,
        row.at(0, &zone),
        row.at(row.duration, &zone),
        row.duration,
        row.billsec(),
        row.disposition(),
        row.uniqueid
    )
}

/// Master.csv of which a part was rotated, another rotated and compressed; without linkedids at first.
pub fn master_csv(directory: &Path, rows: &[Row]) -> PathBuf {
    let lines = |rows: &[Row], linked| rows.iter().map(|row| csv_line(row, linked)).collect::<String>();
    let third = rows.len() / 3;
    // rows of one call stay in one file, as rotation leaves them
    let cut = |at: usize| (at..).find(|at| rows[*at].uniqueid != rows[at - 1].uniqueid).unwrap();
    let (one, two) = (cut(third), cut(2 * third));
    let path = directory.join("Master.csv");
    let written = |path: &Path, at: std::time::SystemTime| {
        fs::File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
    };
    let oldest = directory.join("Master.csv.2.gz");
    let mut gzip =
        flate2::write::GzEncoder::new(fs::File::create(&oldest).unwrap(), flate2::Compression::fast());
    gzip.write_all(lines(&rows[..one], false).as_bytes()).unwrap();
    gzip.finish().unwrap();
    let last = u64::try_from(rows[one - 1].start).unwrap();
    written(&oldest, std::time::UNIX_EPOCH + Duration::from_secs(last + 60));
    fs::write(&path, format!("{}\"half a li", lines(&rows[two..], true))).unwrap();
    // a million calls, one a minute, end next year: no file is older than what is in it
    let last = u64::try_from(rows[rows.len() - 1].start).unwrap();
    let log = std::time::SystemTime::now().max(std::time::UNIX_EPOCH + Duration::from_secs(last + 60));
    written(&path, log);
    // restored from a backup: written after the log
    let older = directory.join("Master.csv.1");
    fs::write(&older, lines(&rows[one..two], true)).unwrap();
    written(&older, log + Duration::from_secs(1));
    fs::write(directory.join("Master.csv.bak"), "not ours").unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csv_with_its_rotated_and_compressed_files_gives_the_same_creates() {
    let directory = TempDir::new().unwrap();
    let (rows, expected) = traffic(ROWS);
    let path = master_csv(directory.path(), &rows);
    let config = config(&format!("csv://{}", path.display()), "");
    let store = open(&config).await.unwrap();
    assert_eq!(
        (store.about().paging.as_str(), store.about().clock),
        ("3 files, rotated ones included", StoreClock::Local)
    );
    check(&config, &expected).await;
    fs::write(directory.path().join("other"), "nothing\nof the kind\n").unwrap();
    for name in ["none", "other"] {
        let source = format!("csv://{}", directory.path().join(name).display());
        assert!(open(&self::config(&source, "")).await.unwrap_err().what.contains(name));
    }
}

#[test]
fn backfill_shows_what_it_would_send_and_sends_nothing() {
    let directory = TempDir::new().unwrap();
    let (rows, expected) = traffic(100);
    let path = master_csv(directory.path(), &rows);
    let site = site(&format!(
        "[pbx]\nname = 'hq'\ntimezone = 'America/Caracas'\ntrunks = ['PJSIP/trunk']\n\
         [cdr]\nsource = 'csv://{}'\n\
         [recordings]\nurl = 'https://pbx.example.com/call/{{channel}}'\n\
         [[nimbox]]\nname = 'crm'\nurl = 'http://127.0.0.1:1'\nallow_http = true\ntoken = 't'\n",
        path.display()
    ));
    let backfill = |more: &[&str]| run(site.path(), &[&["backfill"], more].concat());
    let output = backfill(&["--dry-run", "--from", "2026-01-05", "--to", "2026-01-05"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        shown.starts_with("2026-01-05T00:00:00Z  04141234567 -> 02125550101  42 s  crm  https://pbx"),
        "{shown}"
    );
    assert!(shown.contains(&format!("{} creates; nothing was sent", expected.len())), "{shown}");
    assert!(shown.contains("internal call") && shown.contains("another party answered"), "{shown}");
    let lines = json_lines(
        &backfill(&["--dry-run", "--json", "--from", "2026-01-05T00:30", "--to", "2026-01-05T01:00"]).stdout,
    );
    let summary = lines.last().unwrap();
    let link = "https://pbx.example.com/call/PJSIP/trunk-0000001e";
    assert_eq!(lines[0]["url"], link, "a base and the channel, as the script had it");
    assert_eq!((&summary["kind"], &summary["calls"]), (&"summary".into(), &30.into()));
    assert_eq!(summary["creates"], lines.len() - 1);
    for arguments in [
        &["--dry-run"][..],
        &["--dry-run", "--full", "--rate", "3"],
        &["--full", "--rate", "0"],
        &["--dry-run", "--full", "--since", "2h"],
        &["--dry-run", "--full", "--route", "other"],
        &["--dry-run", "--from", "2026-01-06", "--to", "2026-01-05"],
        &["--dry-run", "--full", "--source", "mssql://x"],
    ] {
        let output = backfill(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
    }
    let output = backfill(&["--dry-run", "--full", "--source", "csv:///nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("failed to read the CDR store"), "{}", text(&output.stderr));
}
