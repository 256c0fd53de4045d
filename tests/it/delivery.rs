//! What delivery promises, as numbers. In the quick form they are small; the long ones:
//!
//! ```text
//! CALLPOST_BACKLOG=100000 cargo test --release --test it -- delivery::a_backlog --nocapture
//! CALLPOST_STOPS=100 cargo test --test it -- delivery::stops --nocapture
//! CALLPOST_HISTORY_CALLS=2000 cargo test --release --test it -- delivery::calls_go --nocapture
//! ```
#![expect(clippy::print_stderr, reason = "what was measured")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callpost::demo::Pbx;
use callpost::journal::{Journal, Outgoing};
use callpost::receiver::{Misbehaviour, Options};
use callpost::routes::{BreakerState, Routes};
use callpost::sinks::{Class, Sink};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::agent::Agent;
use crate::receiver::{Receiver, Reply, tls};
use crate::workers::{
    Running, TAKEN, append, counters, counters_of, create, nimbox, open, open_with, past, posts, settled,
    webhook,
};
use crate::{h2, reload};

fn number(variable: &str, quick: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(quick)
}

/// One call each, so that none waits for another.
fn backlog(from: usize, count: usize) -> Vec<Outgoing> {
    (from..from + count).flat_map(|n| posts(&format!("{n}"), 1)).collect()
}

#[tokio::test]
async fn many_at_once_go_over_one_http2_connection_each_once() {
    let directory = TempDir::new().unwrap();
    let site = tls::Site::new("localhost");
    let (port, counted) = h2::start(site.server_h2()).await;
    let journal = open(directory.path());
    append(&journal, backlog(0, 1)).await;
    let more = format!("verify = false\nconcurrency = 16\nca_file = {:?}", site.ca_file());
    let worker = Running::start(&webhook(&format!("https://localhost:{port}/"), &more), &journal);
    settled(&journal, |counters| counters.delivered == 1).await;
    append(&journal, backlog(1, 199)).await;
    settled(&journal, |counters| counters.delivered == 200).await;
    worker.stop().await;
    assert_eq!(counted.requests.load(Ordering::SeqCst), 200);
    assert_eq!(counted.connections.load(Ordering::SeqCst), 1);
    let most = counted.most_at_once.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} at once");
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_drained_fast_and_by_no_more_requests_at_once_than_configured() {
    let count = number("CALLPOST_BACKLOG", 2000);
    let directory = TempDir::new().unwrap();
    let (url, counted) = counting_server(Duration::from_millis(2)).await;
    // as the agent has it: a hundred small generations would take more room than it may
    let journal = open_with(directory.path(), 131_072);
    for from in (0..count).step_by(250) {
        append(&journal, backlog(from, 250.min(count - from))).await;
    }
    let begin = Instant::now();
    let worker = Running::start(&webhook(&url, "verify = false\nconcurrency = 16"), &journal);
    while counters(&journal).await.delivered < count as u64 {
        assert!(begin.elapsed() < Duration::from_secs(600), "{:?}", counters(&journal).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let most = counted.most_at_once.load(Ordering::SeqCst);
    eprintln!("{count} drained at {rate:.0}/s, {most} at once");
    worker.stop().await;
    assert_eq!(counted.requests.load(Ordering::SeqCst), count, "each once");
    assert!((2..=16).contains(&most), "{most} at once");
    if std::env::var_os("CALLPOST_BACKLOG").is_some() {
        assert!(rate >= 500.0, "{rate:.0}/s");
    }
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_a_second_go_to_a_loopback_server() {
    let Some(seconds) = std::env::var("CALLPOST_RATE_SECONDS").ok().and_then(|text| text.parse().ok()) else {
        eprintln!("skipped: a figure of a release build; set CALLPOST_RATE_SECONDS");
        return;
    };
    let (url, counted) = counting_server(Duration::ZERO).await;
    let sink = Arc::new(Routes::new(&webhook(&url, "verify = false")).routes[0].sink());
    let until = Instant::now() + Duration::from_secs(seconds);
    let one = |n: usize| {
        let sink = Arc::clone(&sink);
        async move {
            let Sink::Webhook(sink) = &*sink else { return };
            let id = callpost::calls::UpdateId(format!("hq.{n}.0").into());
            while Instant::now() < until {
                assert_eq!(sink.post(&id, Some(1), &"x".repeat(600)).await.class, Class::Delivered);
            }
        }
    };
    let tasks: Vec<_> = (0..16).map(|n| tokio::spawn(one(n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = counted.requests.load(Ordering::SeqCst) as f64 / seconds as f64;
    eprintln!("{rate:.0} requests/s");
    assert!(rate >= 1000.0, "{rate:.0} requests/s");
}

/// A plain HTTP/1.1 server that does nothing but count, and thinks for so long.
async fn counting_server(thinks: Duration) -> (String, Arc<h2::Counted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let counted = Arc::new(h2::Counted::default());
    let shared = Arc::clone(&counted);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = Arc::clone(&shared);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while let Some(length) = whole_request(&mut socket, &mut seen).await {
                    seen.drain(..length);
                    let now = counted.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    counted.most_at_once.fetch_max(now, Ordering::SeqCst);
                    counted.requests.fetch_add(1, Ordering::SeqCst);
                    if !thinks.is_zero() {
                        tokio::time::sleep(thinks).await;
                    }
                    counted.at_once.fetch_sub(1, Ordering::SeqCst);
                    if socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, counted)
}

/// Reads until a request is whole; its length.
async fn whole_request(socket: &mut TcpStream, seen: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if seen.len() >= whole {
                return Some(whole);
            }
        }
        if !matches!(socket.read_buf(seen).await, Ok(1..)) {
            return None;
        }
    }
}

#[tokio::test]
async fn after_an_hour_of_black_hole_the_first_success_comes_within_five_minutes_and_then_all() {
    let directory = TempDir::new().unwrap();
    let away = Arc::new(AtomicBool::new(true));
    // when the first request came that was to succeed: while it ends in the real world, virtual time may
    // run on as it likes
    let began = Arc::new(Mutex::new(None));
    let script = (Arc::clone(&away), Arc::clone(&began));
    let receiver = Receiver::start(move |_| {
        if script.0.load(Ordering::SeqCst) {
            return Reply::Close;
        }
        script.1.lock().unwrap().get_or_insert_with(tokio::time::Instant::now);
        Reply::ok(TAKEN)
    })
    .await;
    let journal = open(directory.path());
    append(&journal, (0..60).map(create).collect()).await;
    let mut worker = Running::start(&nimbox(&receiver.url("/"), "concurrency = 16"), &journal);
    receiver.until(1).await;
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    worker.until(|health| health.breaker != BreakerState::Closed).await;
    while begin.elapsed() < Duration::from_secs(3600) {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let into_the_hole = receiver.requests().len();
    assert!(into_the_hole < 60, "{into_the_hole} requests into the black hole");
    away.store(false, Ordering::SeqCst);
    let back = tokio::time::Instant::now();
    worker.until(|health| health.last_success.is_some()).await;
    let first = began.lock().unwrap().unwrap() - back;
    assert!(first <= Duration::from_secs(300), "{first:?}");
    let counters = settled(&journal, |counters| counters.delivered == 60).await;
    assert_eq!((counters.pending, counters.dead), (0, 0));
    worker.stop().await;
    journal.close().await;
}

/// The whole ladder as a receiver sees it, in a time that passes at once. In the middle the worker and
/// its journal are closed and opened again: the clock of the new one is the real one again, so it has
/// been set back by all that passed.
#[tokio::test]
async fn the_whole_ladder_over_a_restart_and_a_clock_set_back_then_a_dead_letter() {
    let directory = TempDir::new().unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let script = Arc::clone(&times);
    let receiver = Receiver::start(move |_| {
        script.lock().unwrap().push(tokio::time::Instant::now());
        // it does not count for the breaker, whose probes have no ladder
        Reply::status("429 Too Many Requests")
    })
    .await;
    let config = nimbox(&receiver.url("/"), "");
    let journal = open(directory.path());
    append(&journal, vec![create(0)]).await;
    let worker = Running::start(&config, &journal);
    receiver.until(1).await;
    tokio::time::pause();
    receiver.until(5).await;
    // Settled before it is stopped: the answer to the fifth has come.
    settled(&journal, |counters| counters.pending == 1).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.stop().await;
    journal.close().await;
    let before = receiver.requests().len();
    let journal = open(directory.path());
    let worker = Running::start(&config, &journal);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.requests().len(), before, "a restart bursts nothing");
    tokio::time::pause();
    settled_slowly(&journal, |counters| counters.dead == 1).await;
    worker.stop().await;
    let letter = journal.dead(None, 1).await.unwrap().remove(0);
    assert!(letter.why.contains("retry_for"), "{}", letter.why);
    assert!(letter.attempts >= 10, "{} attempts: the restart did not reset the ladder", letter.attempts);
    journal.close().await;
    let times = times.lock().unwrap();
    let waits: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    eprintln!("waits: {waits:.0?} s");
    let ladder = [5.0, 30.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0];
    for (n, (wait, step)) in waits.iter().zip(ladder).enumerate() {
        // The wait over the restart is longer by what the clock was set back. While a request is under
        // way in the real world, virtual time runs on to the next timer.
        let longest = if n + 1 == before { f64::INFINITY } else { step * 1.2 + 400.0 };
        assert!((step * 0.79..=longest).contains(wait), "wait {n}: {wait} s for {step} s: {waits:?}");
    }
}

/// As [`settled`], where days pass.
async fn settled_slowly(journal: &Journal, mut what: impl FnMut(&callpost::journal::Counters) -> bool) {
    for _ in 0..10_000 {
        if what(&counters(journal).await) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    panic!("not reached: {:?}", counters(journal).await);
}

#[tokio::test]
async fn both_forms_of_retry_after_put_the_next_attempt_off() {
    for date in [false, true] {
        let directory = TempDir::new().unwrap();
        let times = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::clone(&times);
        let receiver = Receiver::start(move |n| {
            script.lock().unwrap().push(tokio::time::Instant::now());
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(200);
            let value = if date {
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
            } else {
                "200".to_owned()
            };
            match n {
                0 => Reply::status("503 Service Unavailable").header(&format!("retry-after: {value}")),
                _ => Reply::ok(TAKEN),
            }
        })
        .await;
        let journal = open(directory.path());
        append(&journal, vec![create(0)]).await;
        let worker = Running::start(&nimbox(&receiver.url("/"), ""), &journal);
        receiver.until(1).await;
        tokio::time::pause();
        receiver.until(2).await;
        let times = times.lock().unwrap().clone();
        let wait = (times[1] - times[0]).as_secs();
        assert!((195..=310).contains(&wait), "date {date}: {wait} s");
        tokio::time::resume();
        worker.stop().await;
        journal.close().await;
    }
}

/// Listens, and lets nobody in: further SYNs are dropped as by a firewall.
async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filled = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        filled.push(stream);
        assert!(filled.len() < 50, "the queue never fills");
    }
    (address, filled, listener)
}

/// Milliseconds from the append to the receiver, of those that have arrived.
fn waits_of(sent: &[(String, Instant)], arrivals: &HashMap<String, Instant>) -> Vec<f64> {
    let wait = |(id, at): &(String, Instant)| Some(arrivals.get(id)?.duration_since(*at).as_secs_f64() * 1e3);
    sent.iter().filter_map(wait).collect()
}

/// Milliseconds from the append to the receiver, 99th percentile.
async fn p99(
    journal: &Journal,
    route: &str,
    arrivals: &Mutex<HashMap<String, Instant>>,
    round: usize,
    count: usize,
) -> f64 {
    let mut sent = Vec::new();
    for n in 0..count {
        let mut entry = backlog(1_000_000 * (round + 1) + n, 1).remove(0);
        entry.route = callpost::journal::RouteId(route.into());
        let id = entry.id.0.to_string();
        sent.push((id, Instant::now()));
        append(journal, vec![entry]).await;
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    let begin = Instant::now();
    loop {
        let mut waits = waits_of(&sent, &arrivals.lock().unwrap());
        if waits.len() == count {
            waits.sort_by(f64::total_cmp);
            return waits[count * 99 / 100];
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{} of {count} arrived", waits.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_that_hang_do_not_slow_a_healthy_one_down() {
    let directory = TempDir::new().unwrap();
    let journal = open(directory.path());
    let (hole, _filled, _listener) = black_hole().await;
    let slow = Receiver::start(|_| Reply::Later(String::new(), Duration::from_secs(29))).await;
    let endless = Receiver::start(|_| Reply::endless()).await;
    let arrivals = Arc::new(Mutex::new(HashMap::new()));
    let healthy = arriving(Arc::clone(&arrivals)).await;
    let sink = |name: &str, url: &str| {
        let config = webhook(url, "verify = false\nconcurrency = 8\ntimeout = \"30 s\"");
        let mut config = config;
        config.webhooks[0].name = name.to_owned();
        config
    };
    let healthy = Running::start(&sink("healthy", &healthy), &journal);
    let faulty =
        [("hole", format!("http://{hole}/")), ("slow", slow.url("/")), ("endless", endless.url("/"))];
    let count = number("CALLPOST_ISOLATION", 150);
    let mut worst = Vec::new();
    // a noisy neighbour may spoil a round: what counts is that one of six is quiet enough to tell
    for attempt in 0..6 {
        let mut pairs = Vec::new();
        for pair in 0..5 {
            let round = attempt * 100 + pair * 2;
            let alone = p99(&journal, "healthy", &arrivals, round, count).await;
            let mut workers = Vec::new();
            for (name, url) in &faulty {
                for n in 0..40 {
                    let mut entry = backlog(10_000_000 * (round + 1) + n, 1).remove(0);
                    entry.route = callpost::journal::RouteId((*name).into());
                    append(&journal, vec![entry]).await;
                }
                workers.push(Running::start(&sink(name, url), &journal));
            }
            // a worker's start, which reads certificates, is not what is measured
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let beside = p99(&journal, "healthy", &arrivals, round + 1, count).await;
            for worker in workers {
                // 29 s are not waited for: the worker is dropped in the middle of it
                worker.abort();
            }
            eprintln!("p99 alone {alone:.1} ms, beside receivers that hang {beside:.1} ms");
            pairs.push((alone, beside));
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let alone = median(pairs.iter().map(|pair| pair.0).collect());
        let beside = median(pairs.iter().map(|pair| pair.1).collect());
        worst.push(beside / alone);
        if beside <= alone * 1.25 {
            break;
        }
    }
    healthy.stop().await;
    assert!(worst.iter().any(|ratio| *ratio <= 1.25), "{worst:?}");
    journal.close().await;
}

/// Remembers when each id came.
async fn arriving(arrivals: Arc<Mutex<HashMap<String, Instant>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let arrivals = Arc::clone(&arrivals);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while let Some(length) = whole_request(&mut socket, &mut seen).await {
                    let head = String::from_utf8_lossy(&seen[..length]).into_owned();
                    let webhook = head.lines().find_map(|line| line.strip_prefix("webhook-id: "));
                    let create = || head.split_once("destination=")?.1.split([' ', '&']).next();
                    let id = webhook.or_else(create).unwrap_or_default();
                    arrivals.lock().unwrap().insert(id.to_owned(), Instant::now());
                    seen.drain(..length);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"error\":false}";
                    if socket.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Milliseconds from the append of a call to the receiver: median and 99th percentile.
async fn calls(
    journal: &Journal,
    arrivals: &Mutex<HashMap<String, Instant>>,
    from: usize,
    count: usize,
) -> (f64, f64) {
    let mut sent = Vec::new();
    for n in from..from + count {
        sent.push((n.to_string(), Instant::now()));
        append(journal, vec![create(n)]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begin = Instant::now();
    loop {
        let mut waits = waits_of(&sent, &arrivals.lock().unwrap());
        if waits.len() == count {
            waits.sort_by(f64::total_cmp);
            return (waits[count / 2], waits[count * 99 / 100]);
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{} of {count} arrived", waits.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_out_at_once_while_history_is_sent() {
    let count = number("CALLPOST_HISTORY_CALLS", 100);
    let directory = TempDir::new().unwrap();
    let journal = open(directory.path());
    let arrivals = Arc::new(Mutex::new(HashMap::new()));
    let url = arriving(Arc::clone(&arrivals)).await;
    let worker = Running::start(&nimbox(&url, "concurrency = 16"), &journal);
    let alone = calls(&journal, &arrivals, 1_000_000, count).await;
    // as an importer does: a thousand wait at most
    let importer = {
        let journal = journal.clone();
        tokio::spawn(async move {
            for page in (0..).step_by(250) {
                append(&journal, (page..page + 250).map(past).collect()).await;
                while counters_of(&journal, "sink/history").await.pending >= 1000 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
    };
    while counters_of(&journal, "sink/history").await.delivered < 500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = (Instant::now(), counters_of(&journal, "sink/history").await.delivered);
    let beside = calls(&journal, &arrivals, 2_000_000, count).await;
    let made = counters_of(&journal, "sink/history").await.delivered - before.1;
    let rate = made as f64 / before.0.elapsed().as_secs_f64();
    importer.abort();
    eprintln!(
        "p50, p99 of calls: {alone:.1?} ms alone, {beside:.1?} ms beside {rate:.0} of history a second"
    );
    assert!((10.0..=55.0).contains(&rate), "history goes on meanwhile, slowly: {rate:.0}/s");
    // coarse: what is measured is that no call waits for a batch of history, on a machine that may be busy
    assert!(beside.1 <= alone.1 * 3.0 + 200.0, "{alone:?} {beside:?}");
    worker.stop().await;
    journal.close().await;
}

/// Answers a client's greeting as a server of TLS 1.1 would: ServerHello, version 3.2.
async fn tls_1_1() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut greeting = [0; 4096];
            let _ = socket.read(&mut greeting).await;
            let mut hello = vec![0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
            hello.extend([7; 32]);
            // no session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression
            hello.extend([0, 0xc0, 0x13, 0]);
            let _ = socket.write_all(&hello).await;
            let _ = socket.read(&mut greeting).await;
        }
    });
    port
}

#[tokio::test]
async fn a_receiver_of_tls_1_1_gets_nothing() {
    let port = tls_1_1().await;
    let sink =
        Routes::new(&nimbox(&format!("https://localhost:{port}/"), "timeout = \"3 s\"")).routes[0].sink();
    let Sink::Nimbox(sink) = sink else { panic!("a NiMbox sink") };
    let begin = Instant::now();
    let outcome = sink.create("i", "s", "d", None, None).await;
    assert_eq!(outcome.class, Class::Unreachable, "{outcome:?}");
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const ALONE: &str = "CALLPOST_TEST_ALONE";

#[test]
fn no_hostile_answer_costs_a_mebibyte_or_more_than_a_second_after_its_deadline() {
    // in a process of its own: memory is the process's
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "delivery::hostile_answers_alone", "--nocapture"])
        .env(ALONE, "1")
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn hostile_answers_alone() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    const AT_ONCE: usize = 24;
    const DEADLINE: Duration = Duration::from_secs(3);
    let long_headers = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n", "b".repeat(64 * 1024));
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![0; 64 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let mut bomb_answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len())
            .into_bytes();
    bomb_answer.extend(bomb);
    let answers: Vec<(&str, Reply)> = vec![
        ("headers dribble", Reply::dribble()),
        ("endless headers", Reply::endless_headers()),
        ("headers of 64 KiB", Reply::Say(format!("{long_headers}content-length: 0\r\n\r\n").into_bytes())),
        (
            "the body dribbles",
            Reply::Forever(
                b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n".to_vec(),
                b"x".to_vec(),
                Duration::from_millis(50),
            ),
        ),
        ("an endless body", Reply::endless()),
        ("a gzip bomb", Reply::Say(bomb_answer)),
        ("a gigabyte announced", Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{}")),
        ("the body breaks off", Reply::ok(TAKEN).cut_body(10)),
        ("a reset", Reply::Reset),
        ("silence", Reply::Silence),
    ];
    // what the first requests of a process cost, once
    let plain = Receiver::start(|_| Reply::ok(TAKEN)).await;
    hit(&plain, AT_ONCE, DEADLINE).await;
    let mut seen = BTreeMap::new();
    for (name, reply) in answers {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let before = resident();
        let watching = Arc::new(AtomicUsize::new(before));
        let most = Arc::clone(&watching);
        let sampler = tokio::spawn(async move {
            loop {
                most.fetch_max(resident(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let longest = hit(&receiver, AT_ONCE, DEADLINE).await;
        sampler.abort();
        let each = watching.load(Ordering::SeqCst).saturating_sub(before) / AT_ONCE;
        eprintln!("{name}: {} KiB each, the longest took {longest:?}", each >> 10);
        seen.insert(name, (each, longest));
    }
    for (name, (each, longest)) in seen {
        assert!(each < 1 << 20, "{name}: {each} bytes");
        assert!(longest <= DEADLINE + Duration::from_secs(1), "{name}: {longest:?}");
    }
}

/// So many requests at once; how long the longest took.
async fn hit(receiver: &Receiver, at_once: usize, deadline: Duration) -> Duration {
    let mut config = nimbox(&receiver.url("/"), "");
    config.nimbox[0].delivery.timeout = deadline;
    let sink = Arc::new(Routes::new(&config).routes[0].sink());
    let one = || {
        let sink = Arc::clone(&sink);
        async move {
            let begin = Instant::now();
            let Sink::Nimbox(sink) = &*sink else { return begin.elapsed() };
            sink.create("i", "s", "d", None, None).await;
            begin.elapsed()
        }
    };
    let tasks: Vec<_> = (0..at_once).map(|_| tokio::spawn(one())).collect();
    let mut longest = Duration::ZERO;
    for task in tasks {
        longest = longest.max(task.await.unwrap());
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_under_load_lose_nothing_and_send_nothing_twice() {
    let stops = number("CALLPOST_STOPS", 10);
    let home = TempDir::new().unwrap();
    let pbx = Pbx::start("secret").await.unwrap();
    // slow enough that each stop finds requests under way
    let misbehaviour = Misbehaviour { delay: Duration::from_millis(40), ..Misbehaviour::default() };
    let options = || Options { misbehaviour: misbehaviour.clone(), ..Options::default() };
    let hook = callpost::receiver::Receiver::start(options()).await.unwrap();
    let crm = callpost::receiver::Receiver::start(options()).await.unwrap();
    let config = format!(
        "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\ntrunks = [\"PJSIP/trunk\"]\n[ami]\naddress = \"{}\"\n\
         secret = \"secret\"\n[journal]\ndirectory = {:?}\n[numbers]\nmin_length = 1\n[[webhook]]\nname = \"desk\"\n\
         url = \"http://{}/\"\nallow_http = true\nevents = [\"call.state\"]\nverify = false\n[[nimbox]]\nname = \"crm\"\n\
         url = \"http://{}/\"\nallow_http = true\ntoken = \"t\"\n",
        pbx.address(),
        home.path(),
        hook.address(),
        crm.address()
    );
    let under_way = Arc::new(AtomicBool::new(true));
    let playing = {
        let (pbx, under_way) = (Arc::new(pbx), Arc::clone(&under_way));
        tokio::spawn(async move {
            let mut from = 0;
            while under_way.load(Ordering::SeqCst) {
                reload::play_from(&pbx, from, 1).await;
                from += 1;
            }
        })
    };
    let mut busy = 0;
    for stop in 0..stops {
        let mut agent = Agent::start(home.path(), &config);
        agent.connected().await;
        let before = hook.counts().webhooks;
        let working = |status: &callpost::api::AgentStatus| {
            hook.counts().webhooks > before && status.routes.iter().any(|route| route.health.in_flight > 0)
        };
        let status = agent.until("under load", working).await;
        busy += status.routes.iter().map(|route| route.health.in_flight).sum::<usize>();
        let begin = Instant::now();
        // exit code 0, or it panics
        agent.stop().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "stop {stop} took {:?}", begin.elapsed());
    }
    under_way.store(false, Ordering::SeqCst);
    playing.await.unwrap();
    let mut agent = Agent::start(home.path(), &config);
    let status = agent.delivered().await;
    agent.stop().await;
    let (desk, nimbox) = (hook.counts(), crm.counts());
    eprintln!("{stops} stops, {busy} requests under way at them, {desk:?} {nimbox:?}");
    for (route, counts) in [("desk", desk), ("crm", nimbox)] {
        let journal = status.journal.routes.iter().find(|known| &*known.route.0 == route).unwrap().counters;
        assert_eq!(counts.webhooks + counts.creates, journal.accepted, "none lost: {counts:?} {journal:?}");
        assert_eq!((counts.webhooks_again, counts.creates_again, counts.conflicts), (0, 0, 0), "none twice");
        assert_eq!((counts.out_of_order, journal.dead, journal.dropped), (0, 0, 0));
    }
    assert!(desk.webhooks > stops as u64 * 2 && busy >= stops, "there was load");
}
