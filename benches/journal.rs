//! The journal's figures beside a plain write and fdatasync on the same disk:
//! `cargo bench --bench journal`. `CALLPOST_BENCH` (`appends`, `rates`, `backlog` or `history`) runs one part,
//! for its memory as well; `CALLPOST_BENCH_PENDING` and `CALLPOST_BENCH_CALLS` set the sizes,
//! `CALLPOST_BENCH_GENERATION` a generation's records, `TMPDIR` the disk.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints and may fail")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callpost::calls::{
    CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, Update, UpdateBody, UpdateId,
};
use callpost::journal::{
    Batch, HistoryFilter, Journal, JournalOptions, Outgoing, Payload, RouteId, Settlement, TraceMessage,
    Traced,
};
use parsers::Micros;

const RUN: Duration = Duration::from_secs(3);

fn main() {
    // as the program does: many arenas keep what was freed
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        again(&[]);
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    if let Some(of) = std::env::var_os("CALLPOST_BENCH_DELIVERY") {
        return runtime.block_on(delivery(Path::new(&of)));
    }
    let wanted = |name: &str| std::env::var("CALLPOST_BENCH").map_or(true, |only| only == name);
    if wanted("appends") {
        plain(directory.path());
        runtime.block_on(appends(&directory.path().join("appends"), &[1, 16, 64, 256, 1024]));
    }
    if wanted("rates") {
        plain(directory.path());
        bare(&directory.path().join("bare"));
        runtime.block_on(rates(&directory.path().join("rates")));
    }
    if wanted("backlog") {
        plain(directory.path());
        let backlogged = directory.path().join("backlog");
        runtime.block_on(backlog(&backlogged, size("CALLPOST_BENCH_PENDING", 300_000)));
        again(&[("CALLPOST_BENCH_DELIVERY", &backlogged)]);
    }
    if wanted("history") {
        runtime.block_on(history(&directory.path().join("history"), size("CALLPOST_BENCH_CALLS", 200_000)));
    }
}

/// This program once more, and its end.
fn again(variables: &[(&str, &Path)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.envs(variables.iter().copied());
    // as the program does, unless another is tried
    for (name, value) in [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let done = command.status().unwrap();
    assert!(done.success());
}

fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// F: one write of 600 bytes and one fdatasync, again and again.
fn plain(directory: &Path) {
    let mut file = File::create(directory.join("plain")).unwrap();
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < RUN {
        let one = Instant::now();
        file.write_all(&[7; 600]).unwrap();
        file.sync_data().unwrap();
        times.push(one.elapsed());
    }
    print("plain write + fdatasync", &mut times, started.elapsed(), 1);
}

/// The same with sled between, 200 times a second: what of a commit is not the journal's own. One
/// record is one write of its log; a batch, which the journal needs, is two, the second after the first.
fn bare(directory: &Path) {
    let db = sled::Config::new().path(directory).mode(sled::Mode::LowSpace).open().unwrap();
    let file = File::open(directory.join("db")).unwrap();
    for batched in [false, true] {
        let mut times = Vec::new();
        let started = Instant::now();
        for number in 0..200 * RUN.as_secs() {
            let due = started + Duration::from_millis(number * 5);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let one = Instant::now();
            if batched {
                let mut batch = sled::Batch::default();
                batch.insert(number.to_be_bytes().to_vec(), vec![7; 300]);
                batch.insert(b"counters".to_vec(), vec![7; 300]);
                db.apply_batch(batch).unwrap();
            } else {
                db.insert(number.to_be_bytes(), vec![7; 600]).unwrap();
            }
            db.flush().unwrap();
            file.sync_data().unwrap();
            times.push(one.elapsed());
        }
        let what = if batched { "batch of two" } else { "record" };
        print(&format!("sled alone, a {what} + fdatasync"), &mut times, started.elapsed(), 1);
    }
}

async fn appends(directory: &Path, levels: &[usize]) {
    for tasks in levels {
        let _ = fs::remove_dir_all(directory);
        let journal = open(directory);
        let next = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let workers: Vec<_> = (0..*tasks)
            .map(|_| {
                let (journal, next) = (journal.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while started.elapsed() < RUN {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let batch = batch(number, Micros(1_700_000_000_000_000), &["desk"]);
                        let one = Instant::now();
                        journal.append(batch).await.unwrap();
                        times.push(one.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for worker in workers {
            times.extend(worker.await.unwrap());
        }
        let took = started.elapsed();
        print(&format!("append, {tasks} at once"), &mut times, took, 1);
        commits(&journal, times.len()).await;
        journal.close().await;
    }
}

/// Events at a steady rate, each appended alone as it comes: an AMI message, and with every fifth the
/// update that it makes and its delivery. `delivery.md` R2: at 200/s p50 at most 2F + 0.5 ms, at 2,000/s
/// p99 at most 10 ms, 10,000/s sustained.
async fn rates(directory: &Path) {
    for rate in [200u64, 2000, 10_000] {
        let _ = fs::remove_dir_all(directory);
        let journal = open(directory);
        let started = Instant::now();
        let count = rate * RUN.as_secs() * 2;
        let mut under_way = tokio::task::JoinSet::new();
        let mut times = Vec::new();
        for number in 0..count {
            let mut due = started + Duration::from_micros(number * 1_000_000 / rate);
            while let Some(done) = under_way.try_join_next() {
                times.push(done.unwrap());
            }
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                // tokio's timer is a millisecond late; this thread runs nothing else
                std::thread::sleep(wait);
                // and what the system's is late is not the journal's
                due = Instant::now();
            }
            let mut batch = batch(number / 5, Micros(1_700_000_000_000_000), &["desk"]);
            if number % 5 != 4 {
                batch.updates.clear();
                batch.outbox.clear();
                batch.ended.clear();
            }
            let journal = journal.clone();
            under_way.spawn(async move {
                journal.append(batch).await.unwrap();
                due.elapsed()
            });
        }
        while let Some(done) = under_way.join_next().await {
            times.push(done.unwrap());
        }
        print(&format!("events, {rate}/s wanted"), &mut times, started.elapsed(), 1);
        commits(&journal, times.len()).await;
        journal.close().await;
    }
}

async fn commits(journal: &Journal, appends: usize) {
    let status = journal.status().await.unwrap();
    println!(
        "    commits {} ({:.1} appends each), commit p50 {} us, p99 {} us, {:.1} MB on disk",
        status.commits,
        appends as f64 / status.commits as f64,
        status.commit_p50,
        status.commit_p99,
        status.bytes as f64 / 1e6
    );
}

/// What waits on two routes, then is delivered. `delivery.md`'s gates stand beside the figures.
async fn backlog(directory: &Path, pending: u64) {
    let journal = open(directory);
    println!("before: {}", memory());
    let started = Instant::now();
    // an outage of ten days
    let newest = i64::try_from(now_micros()).unwrap();
    let step = 10 * 24 * 3600 * Micros::SECOND / i64::try_from(pending).unwrap();
    fill(&journal, pending, |number| {
        let ago = i64::try_from(pending - number).unwrap() * step;
        batch(number, Micros(newest - ago), &["desk", "stopped"])
    })
    .await;
    println!("{pending} appends, two routes each, in {:.1} s; {}", started.elapsed().as_secs_f64(), memory());
    show(directory, &journal, "filled").await;
    let started = Instant::now();
    let mut known = (u64::MAX, Instant::now());
    while known.1.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = disk_use(&directory.join("outbox"));
        if now != known.0 {
            known = (now, Instant::now());
        }
    }
    println!("    at rest after {:.0} s", started.elapsed().as_secs_f64() - 20.0);
    let outbox = show(directory, &journal, "at rest").await;
    println!("    {} bytes for each delivery that waits", outbox / (2 * pending));
    let started = Instant::now();
    journal.close().await;
    println!("    closed in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
}

/// What [`backlog`] left: opened, delivered, archived, in a process of its own whose memory is the journal's.
async fn delivery(directory: &Path) {
    println!("delivery, a process of its own: {}", memory());
    for _ in 0..2 {
        let started = Instant::now();
        let (journal, recovered) = Journal::open(options(directory)).unwrap();
        let opened = started.elapsed();
        journal.append(batch(u64::MAX >> 12, Micros(0), &[])).await.unwrap();
        println!(
            "    opened with {:?} pending in {:.0} ms, first append after {:.0} ms (1000); {} (64)",
            recovered.pending.iter().map(|(_, count)| count).collect::<Vec<_>>(),
            opened.as_secs_f64() * 1e3,
            started.elapsed().as_secs_f64() * 1e3,
            memory()
        );
        journal.close().await;
    }
    let (journal, _) = Journal::open(options(directory)).unwrap();
    for route in ["desk", "stopped"] {
        drain(&journal, &RouteId(route.into())).await;
        show(directory, &journal, "drained").await;
    }
    let started = Instant::now();
    while journal.status().await.unwrap().generations > 1 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let took = started.elapsed().as_secs_f64();
    let outbox = show(directory, &journal, "all in the history").await;
    println!(
        "    {took:.1} s (60) after the last delivery the outbox takes {:.0} MB (64); {}",
        outbox as f64 / 1e6,
        memory()
    );
    journal.close().await;
}

/// Says how large it is; answers the outbox's bytes.
async fn show(directory: &Path, journal: &Journal, what: &str) -> u64 {
    let status = journal.status().await.unwrap();
    let outbox = disk_use(&directory.join("outbox"));
    println!(
        "    {what}: {} generations, outbox {:.0} MB, in all {:.0} MB",
        status.generations,
        outbox as f64 / 1e6,
        disk_use(directory) as f64 / 1e6
    );
    outbox
}

fn disk_use(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Takes and settles 64 at a time, as a worker with 64 requests under way.
async fn drain(journal: &Journal, route: &RouteId) {
    let started = Instant::now();
    let mut count = 0;
    loop {
        let (due, _) = journal.due(route, Micros(i64::MAX / 2), 64).await.unwrap();
        if due.is_empty() {
            break;
        }
        count += due.len();
        let settled = due.into_iter().map(|delivery| {
            let settlement = Settlement::Delivered { status: Some(200), answer: String::new() };
            journal.settle(delivery.key, settlement, Micros(1_800_000_000_000_000))
        });
        for settled in futures_util::future::join_all(settled).await {
            settled.unwrap();
        }
    }
    let took = started.elapsed().as_secs_f64();
    println!("    {} drained: {count} in {took:.1} s, {:.0}/s; {}", route.0, count as f64 / took, memory());
}

/// Calls over 29 days, archived; then searched.
async fn history(directory: &Path, calls: u64) {
    let journal = open(directory);
    let newest = i64::try_from(now_micros()).unwrap();
    let day = 24 * 3600 * Micros::SECOND;
    let step = 29 * day / i64::try_from(calls).unwrap();
    let started = Instant::now();
    fill(&journal, calls, |number| {
        let start = newest - 29 * day + step * i64::try_from(number).unwrap();
        batch(number, Micros(start), &[])
    })
    .await;
    while journal.status().await.unwrap().generations > 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = journal.status().await.unwrap();
    println!(
        "{calls} calls appended and archived in {:.1} s: {} days, {:.0} MB; {}",
        started.elapsed().as_secs_f64(),
        status.days,
        status.bytes as f64 / 1e6,
        memory()
    );
    let search = async |name: &str, filter: &dyn Fn(u64) -> HistoryFilter| {
        let mut times = Vec::new();
        let (mut found, started) = (0, Instant::now());
        for index in 0..20u64 {
            let one = Instant::now();
            found += journal.legs(filter(index)).await.unwrap().len();
            times.push(one.elapsed());
        }
        print(&format!("    {name}: {found} legs"), &mut times, started.elapsed(), 1);
    };
    let any = || HistoryFilter { limit: 100, ..HistoryFilter::default() };
    let pick = |index: u64| index.wrapping_mul(7_919_777) % calls;
    // each outside number belongs to 4 calls on different days, each extension to a fiftieth of all
    search("by outside number", &|index| HistoryFilter { number: Some(outside(pick(index))), ..any() }).await;
    search("by extension", &|index| HistoryFilter { number: Some(format!("{}", 1000 + index)), ..any() })
        .await;
    search("by call_id", &|index| HistoryFilter { call_id: Some(pick(index)), ..any() }).await;
    search("by unknown number", &|index| HistoryFilter { number: Some(format!("9{index}")), ..any() }).await;
    search("newest", &|_| any()).await;
    let mut times = Vec::new();
    let started = Instant::now();
    for index in 0..20 {
        let one = Instant::now();
        assert_eq!(journal.trace(&call(pick(index))).await.unwrap().updates.len(), 1);
        times.push(one.elapsed());
    }
    print("    trace", &mut times, started.elapsed(), 1);
    journal.close().await;
}

async fn fill(journal: &Journal, count: u64, make: impl Fn(u64) -> Batch) {
    let mut number = 0;
    while number < count {
        let until = (number + 256).min(count);
        let appends = (number..until).map(|number| journal.append(make(number)));
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
        number = until;
    }
}

fn options(directory: &Path) -> JournalOptions {
    JournalOptions {
        directory: directory.to_owned(),
        max_size: 4 << 30,
        keep: Duration::from_secs(30 * 24 * 3600),
        pbx: "hq".to_owned(),
        generation_records: size("CALLPOST_BENCH_GENERATION", 32_768),
    }
}

fn open(directory: &Path) -> Journal {
    Journal::open(options(directory)).unwrap().0
}

fn call(number: u64) -> CallKey {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    CallKey(format!("{spread:032x}{number:08x}").into())
}

fn outside(number: u64) -> String {
    let callers = 250_000;
    format!("0212{:07}", number.wrapping_mul(2_654_435_761) % callers)
}

/// A message, an update of about 600 bytes, and a delivery for each route.
fn batch(number: u64, start: Micros, routes: &[&str]) -> Batch {
    let leg = LegUpdate {
        event: EventName::Hangup,
        call_id: number,
        parent_id: None,
        state: LegState::Hangup,
        context: Context::LocalUser,
        direction: Direction::In,
        start,
        connected: Some(start),
        duration: 61,
        cause: "Normal Clearing".to_owned(),
        clid: format!("\"Caller\" <{}>", outside(number)),
        src: Party { number: outside(number), id: 0, name: "Caller".to_owned() },
        dst: Party { number: format!("{}", 1000 + number % 50), id: 10_001, name: "Ana".to_owned() },
        info: String::new(),
        terminated_by: None,
        digit: None,
    };
    let update = Update {
        id: UpdateId(format!("hq.{number:014x}.1").into()),
        call: call(number),
        at: start,
        body: UpdateBody::Leg(Box::new(leg)),
    };
    let payload = Payload::Webhook { event: "call.hangup".to_owned(), body: body(&update) };
    let outgoing = |route: &&str| Outgoing {
        route: RouteId((*route).into()),
        id: update.id.clone(),
        call: update.call.clone(),
        ordered: true,
        party: None,
        start: None,
        payload: payload.clone(),
    };
    let headers = [("Uniqueid", "1700000000.1"), ("Channel", "PJSIP/1001-00000001"), ("Cause", "16")];
    Batch {
        messages: vec![Traced {
            calls: vec![update.call.clone()],
            message: TraceMessage {
                at: start,
                name: "Hangup".to_owned(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            },
        }],
        outbox: routes.iter().map(outgoing).collect(),
        ended: vec![update.call.clone()],
        updates: vec![update],
        ..Batch::default()
    }
}

/// About as long and as regular as a webhook's body.
fn body(update: &Update) -> String {
    let UpdateBody::Leg(leg) = &update.body else { return String::new() };
    format!(
        "{{\"event_name\":\"call.hangup\",\"event_time\":\"2026-01-02 03:04:05\",\"call_id\":\"{}\",\"state\":\"HANGUP\",\
         \"context\":\"LOCAL_USER\",\"destination\":\"in\",\"start_time\":\"2026-01-02 03:03:02\",\
         \"connected_at\":\"2026-01-02 03:03:04\",\"duration\":61,\"t_cause\":\"Normal Clearing\",\"src_hash\":\"{}\",\
         \"src_number\":\"{}\",\"src_id\":\"0\",\"src_name\":\"\\\"Caller\\\" <{}>\",\"dst_number\":\"{}\",\
         \"dst_id\":\"10001\",\"dst_name\":\"Ana\",\"clid\":\"\\\"Caller\\\" <{}>\",\"info\":\"\",\
         \"terminated_by\":null,\"parent_id\":null}}",
        leg.call_id, update.call.0, leg.src.number, leg.src.number, leg.dst.number, leg.src.number
    )
}

fn now_micros() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros()
}

fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let said = format!("RSS {} MiB, at most {} MiB since it was last said", line("VmRSS"), line("VmHWM"));
    // the peak begins anew (proc(5)); where that is not allowed it stands for all that was before
    let _ = fs::write("/proc/self/clear_refs", "5");
    said
}

fn print(name: &str, times: &mut [Duration], took: Duration, each: usize) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{name}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        (times.len() * each) as f64 / took.as_secs_f64(),
        at(50),
        at(99),
        at(100)
    );
}
