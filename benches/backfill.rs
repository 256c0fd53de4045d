//! History into NiMbox, side by side: `cargo bench --bench backfill`.
//!
//! One SQLite CDR store, one receiver on the loopback, two senders in turns: a sequential loop that
//! does what the cron'd Perl script does (a row, a GET, its answer, the next row, on one kept
//! connection), and `callpost backfill` with 16 requests at once. Once against a receiver that
//! takes 20 ms to answer, once against one that answers at once. Medians of the rounds.
//!
//! `CALLPOST_BENCH_ROWS` (3000): rows for the slow receiver, ten times as many for the fast one.
//! `CALLPOST_BENCH_RUNS` (3): rounds. `CALLPOST_BENCH_CONCURRENCY` (16).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints and may fail"
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What a receiver was asked: each key, and requests in all.
#[derive(Default)]
struct Taken {
    keys: HashSet<String>,
    requests: usize,
}

fn main() {
    let rows = size("CALLPOST_BENCH_ROWS", 3000);
    let runs = size("CALLPOST_BENCH_RUNS", 3);
    let concurrency = size("CALLPOST_BENCH_CONCURRENCY", 16);
    // none is there by default; which one does not matter to plain HTTP
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (delay, rows) in [(Duration::from_millis(20), rows), (Duration::ZERO, rows * 10)] {
        let directory = TempDir::new().unwrap();
        let store = directory.path().join("cdr.db");
        runtime.block_on(fill(&store, rows));
        let (address, taken) = runtime.block_on(receiver(delay));
        let (mut script, mut ours) = (Vec::new(), Vec::new());
        for run in 0..runs {
            script.push(rate(&taken, rows, || runtime.block_on(sequential(&store, address))));
            let site = directory.path().join(format!("site{run}"));
            ours.push(rate(&taken, rows, || backfill(&site, &store, address, concurrency)));
        }
        let (script, ours) = (median(script), median(ours));
        println!(
            "{rows} rows, answered in {} ms: one after another {script:.0} rows/s, callpost {ours:.0} rows/s ({concurrency} at once): {:.1} times",
            delay.as_millis(),
            ours / script
        );
    }
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Rows a second; every row must have arrived, once.
fn rate(taken: &Mutex<Taken>, rows: usize, send: impl FnOnce()) -> f64 {
    *taken.lock().unwrap() = Taken::default();
    let begin = Instant::now();
    send();
    let elapsed = begin.elapsed().as_secs_f64();
    let taken = taken.lock().unwrap();
    assert_eq!((taken.keys.len(), taken.requests), (rows, rows), "each row once");
    rows as f64 / elapsed
}

/// Answered calls to outside, ten minutes apart, of the last months.
async fn fill(path: &Path, rows: usize) {
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut store = SqliteConnection::connect(&url).await.unwrap();
    let schema = "CREATE TABLE cdr (calldate TEXT, clid TEXT, src TEXT, dst TEXT, dcontext TEXT, channel TEXT, \
         dstchannel TEXT, lastapp TEXT, lastdata TEXT, duration INT, billsec INT, disposition TEXT, uniqueid TEXT, \
         linkedid TEXT, sequence INT); CREATE INDEX at ON cdr (calldate)";
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut store).await.unwrap();
    let last = jiff::Timestamp::now().as_second() - 3600;
    let step = (300 * 86_400 / rows.max(1) as i64).min(600);
    let mut begin = store.begin().await.unwrap();
    for n in 0..rows {
        let at = last - step * (rows - n) as i64;
        let time = jiff::Timestamp::from_second(at).unwrap().strftime("%Y-%m-%d %H:%M:%S");
        let row = format!(
            "INSERT INTO cdr VALUES ('{time}', '', '1001', '9555{n:07}', 'from-internal', 'PJSIP/1001-{n:08x}', \
             'PJSIP/trunk-{n:08x}', 'Dial', '', 42, 40, 'ANSWERED', '{at}.{n}', '{at}.{n}', {n})"
        );
        sqlx::raw_sql(AssertSqlSafe(row)).execute(&mut *begin).await.unwrap();
    }
    begin.commit().await.unwrap();
}

/// NiMbox, as far as it takes time.
async fn receiver(delay: Duration) -> (SocketAddr, Arc<Mutex<Taken>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Taken::default()));
    let shared = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let taken = Arc::clone(&shared);
            let _ = socket.set_nodelay(true);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while let Some(head) = request(&mut socket, &mut seen).await {
                    let query = head.split(' ').nth(1).and_then(|path| path.split_once('?')).unwrap().1;
                    let key: Vec<&str> = query
                        .split('&')
                        .filter(|field| {
                            ["initiated=", "source=", "destination="]
                                .iter()
                                .any(|name| field.starts_with(name))
                        })
                        .collect();
                    {
                        let mut taken = taken.lock().unwrap();
                        taken.requests += 1;
                        taken.keys.insert(key.join("&"));
                    }
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    let body = r#"{"error":false,"contactId":1,"phonecallId":1}"#;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if socket.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, taken)
}

async fn request(socket: &mut tokio::net::TcpStream, seen: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            seen.drain(..end + 4);
            return Some(head);
        }
        if !matches!(socket.read_buf(seen).await, Ok(1..)) {
            return None;
        }
    }
}

/// What the script does: all rows by one query, then a request each.
async fn sequential(store: &Path, address: SocketAddr) {
    let mut store = SqliteConnection::connect(&format!("sqlite://{}", store.display())).await.unwrap();
    let query =
        "SELECT calldate, src, dst, duration, channel FROM cdr WHERE LENGTH(dst) >= 7 ORDER BY calldate";
    let rows: Vec<(String, String, String, i64, String)> =
        sqlx::query_as(query).fetch_all(&mut store).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (at, source, destination, duration, channel) in rows {
        let destination = destination.strip_prefix('9').unwrap_or(&destination).to_owned();
        let initiated = format!("{}Z", at.replace(' ', "T"));
        let duration = duration.to_string();
        let url = format!("https://pbx.example.com/{channel}");
        let query = [
            ("token", "t"),
            ("initiated", &initiated),
            ("source", &source),
            ("destination", &destination),
            ("duration", &duration),
            ("url", &url),
        ];
        let create = client.get(format!("http://{address}/direct/items/phonecalls/create")).query(&query);
        assert!(create.send().await.unwrap().text().await.unwrap().contains("\"error\":false"));
    }
}

/// A site that has nothing yet, and the command as anybody types it.
fn backfill(site: &Path, store: &Path, address: SocketAddr, concurrency: usize) {
    std::fs::create_dir(site).unwrap();
    let config: PathBuf = site.join("callpost.toml");
    let text = format!(
        "[pbx]\nname = 'hq'\ntimezone = 'UTC'\ntrunks = ['PJSIP/trunk']\n[journal]\ndirectory = 'journal'\n\
         [cdr]\nsource = 'sqlite://{}'\ntimezone = 'UTC'\n[numbers]\nmin_length = 7\n\
         rules = [ {{ match = '^9(.+)$', replace = '$1' }} ]\n\
         [[nimbox]]\nname = 'crm'\nurl = 'http://{address}'\nallow_http = true\ntoken = 't'\nconcurrency = {concurrency}\n",
        store.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_callpost"))
        .arg("--config")
        .arg(&config)
        .args(["backfill", "--full", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !output.status.success() {
        panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
}
