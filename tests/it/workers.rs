//! The worker between the real journal and a receiver on the loopback. Where something has to wait,
//! time is paused once the requests are under way, and so passes at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callpost::calls::{CallKey, UpdateId};
use callpost::config::{Config, Environment, load_text};
use callpost::journal::{Batch, Counters, Journal, JournalOptions, Outgoing, Payload, RouteId};
use callpost::routes::{BreakerState, Ended, HistoryLink, Orders, Report, RouteHealth, Routes, Worker};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::receiver::{Receiver, Reply};

fn config(sink: &str) -> Config {
    let text = format!("[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\n{sink}");
    load_text(&text, "test", &Environment::default()).unwrap().config
}

pub fn webhook(url: &str, more: &str) -> Config {
    config(&format!(
        "[[webhook]]\nname = \"sink\"\nurl = \"{url}\"\nevents = [\"call.state\"]\nallow_http = true\n{more}"
    ))
}

pub fn nimbox(url: &str, more: &str) -> Config {
    config(&format!("[[nimbox]]\nname = \"sink\"\nurl = \"{url}\"\ntoken = \"t\"\nallow_http = true\n{more}"))
}

/// With small generations, so that many come and go.
pub fn open(directory: &Path) -> Journal {
    open_with(directory, 1000)
}

pub fn open_with(directory: &Path, generation_records: u64) -> Journal {
    let options = JournalOptions {
        directory: directory.to_path_buf(),
        max_size: 512 << 20,
        keep: Duration::from_secs(86_400),
        pbx: "hq".to_owned(),
        generation_records,
    };
    Journal::open(options).unwrap().0
}

/// A worker that runs, and how it fares.
pub struct Running {
    pub orders: watch::Sender<Orders>,
    pub health: watch::Receiver<RouteHealth>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(config: &Config, journal: &Journal) -> Self {
        Self::start_with(config, journal, |worker| worker)
    }

    pub fn start_with(config: &Config, journal: &Journal, with: impl FnOnce(Worker) -> Worker) -> Self {
        let routes = Routes::new(config);
        let (worker, orders, health) = Worker::new(&routes.routes[0], journal.clone());
        let worker = with(worker);
        let stop = CancellationToken::new();
        Self { health, orders, task: tokio::spawn(worker.run(stop.clone())), stop }
    }

    fn order(&self, config: Option<&Config>) {
        let setup = config.map(|config| Arc::new(Routes::new(config).routes[0].setup()));
        self.orders.send_replace(Orders { setup });
    }

    pub async fn until(&mut self, what: impl FnMut(&RouteHealth) -> bool) -> RouteHealth {
        self.health.wait_for(what).await.unwrap().clone()
    }

    /// Ends it in the middle of whatever it does.
    pub fn abort(self) {
        self.task.abort();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub fn posts(call: &str, count: usize) -> Vec<Outgoing> {
    let post = |n: usize| Outgoing {
        route: RouteId("sink".into()),
        id: UpdateId(format!("hq.{call}.{n}").into()),
        call: CallKey(call.into()),
        ordered: true,
        party: None,
        start: None,
        payload: Payload::Webhook { event: "call.ringing".to_owned(), body: format!("{{\"n\":{n}}}") },
    };
    (0..count).map(post).collect()
}

pub fn create(n: usize) -> Outgoing {
    Outgoing {
        route: RouteId("sink".into()),
        id: UpdateId(format!("hq.{n:014x}.0").into()),
        call: CallKey(format!("{n}").into()),
        ordered: false,
        party: None,
        start: None,
        payload: Payload::Nimbox {
            initiated: "2026-11-21T09:19:27Z".to_owned(),
            source: "04145550100".to_owned(),
            destination: format!("{n}"),
            duration: None,
            url: None,
        },
    }
}

/// Of the past.
pub fn past(n: usize) -> Outgoing {
    Outgoing { route: RouteId("sink".into()).history(), ..create(n) }
}

pub async fn append(journal: &Journal, outbox: Vec<Outgoing>) {
    journal.append(Batch { outbox, ..Batch::default() }).await.unwrap();
}

pub async fn counters(journal: &Journal) -> Counters {
    counters_of(journal, "sink").await
}

pub async fn counters_of(journal: &Journal, name: &str) -> Counters {
    let status = journal.status().await.unwrap();
    let found = status.routes.iter().find(|route| &*route.route.0 == name);
    found.map(|route| route.counters).unwrap_or_default()
}

/// Until the journal says so; the time that passes is its own.
pub async fn settled(journal: &Journal, mut what: impl FnMut(&Counters) -> bool) -> Counters {
    for _ in 0..20_000 {
        let counters = counters(journal).await;
        if what(&counters) {
            return counters;
        }
        tokio::task::yield_now().await;
    }
    panic!("not reached: {:?}", counters(journal).await);
}

pub const TAKEN: &str = r#"{"error":false}"#;

#[tokio::test]
async fn what_is_appended_before_and_after_the_start_is_delivered_and_settled() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let journal = open(directory.path());
    append(&journal, (0..50).map(create).collect()).await;
    let worker = Running::start(&nimbox(&receiver.url("/"), ""), &journal);
    receiver.until(50).await;
    for n in 50..60 {
        append(&journal, vec![create(n)]).await;
    }
    receiver.until(60).await;
    let counters = settled(&journal, |counters| counters.delivered == 60).await;
    assert_eq!((counters.accepted, counters.pending, counters.dead), (60, 0, 0));
    assert_eq!(receiver.requests().len(), 60, "each once");
    assert!(receiver.connections() <= 2, "NiMbox gets two connections at most");
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn a_webhook_is_verified_once_and_then_delivered_to() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::status("204 No Content")).await;
    let journal = open(directory.path());
    append(&journal, posts("call", 3)).await;
    let config = webhook(&receiver.url("/hook"), "");
    let worker = Running::start(&config, &journal);
    receiver.until(4).await;
    settled(&journal, |counters| counters.delivered == 3).await;
    worker.stop().await;
    let requests = receiver.requests();
    assert!(requests[0].body.contains("\"event_name\":\"test\""), "{}", requests[0].body);
    assert_eq!(requests[0].header("callpost-sequence"), None);
    let bodies: Vec<_> = requests[1..].iter().map(|request| request.body.as_str()).collect();
    assert_eq!(bodies, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
    let sequences: Vec<u64> =
        requests[1..].iter().map(|r| r.header("callpost-sequence").unwrap().parse().unwrap()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");

    append(&journal, posts("another", 1)).await;
    let worker = Running::start(&config, &journal);
    receiver.until(5).await;
    assert_eq!(receiver.request(4).body, "{\"n\":0}", "no second test event");
    worker.stop().await;

    let moved = webhook(&receiver.url("/elsewhere"), "");
    let worker = Running::start(&moved, &journal);
    receiver.until(6).await;
    assert!(receiver.request(5).body.contains("\"test\""), "another URL is verified anew");
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn a_url_that_changed_is_verified_first_and_what_is_under_way_ends_where_it_began() {
    let directory = TempDir::new().unwrap();
    let old = Receiver::start(|_| Reply::Later(String::new(), Duration::from_millis(300))).await;
    let new = Receiver::start(|n| match n {
        0 => Reply::status("500 Internal Server Error"),
        _ => Reply::ok(""),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, posts("call", 3)).await;
    let mut worker = Running::start(&webhook(&old.url("/"), "verify = false"), &journal);
    old.until(1).await;
    worker.order(Some(&webhook(&new.url("/"), "")));
    worker.until(|health| health.paused.as_ref().is_some_and(|paused| paused.why.contains("HTTP 500"))).await;
    let counters = counters(&journal).await;
    assert_eq!((counters.delivered, counters.pending), (1, 2), "nothing before the new URL is verified");
    tokio::time::pause();
    new.until(4).await;
    tokio::time::resume();
    settled(&journal, |counters| counters.delivered == 3).await;
    assert_eq!(old.requests().len(), 1, "the one under way ended where it began, no other went there");
    let bodies: Vec<String> = new.requests()[2..].iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies, ["{\"n\":1}", "{\"n\":2}"]);
    // other than the URL: in force at once, and no test event
    worker.order(Some(&webhook(&new.url("/"), "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"")));
    append(&journal, posts("another", 1)).await;
    new.until(5).await;
    assert!(new.request(4).header("webhook-signature").is_some());
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn a_route_that_is_gone_holds_what_waits_and_goes_on_in_order_when_it_is_back() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::Later(String::new(), Duration::from_millis(50))).await;
    let journal = open(directory.path());
    append(&journal, posts("call", 4)).await;
    let config = webhook(&receiver.url("/"), "verify = false");
    let worker = Running::start(&config, &journal);
    receiver.until(1).await;
    worker.order(None);
    settled(&journal, |counters| counters.delivered == 1).await;
    append(&journal, posts("later", 2)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.requests().len(), 1, "nothing goes out");
    assert_eq!(counters(&journal).await.pending, 5, "and nothing is given up");
    worker.order(Some(&config));
    receiver.until(6).await;
    settled(&journal, |counters| counters.delivered == 6).await;
    worker.stop().await;
    assert_eq!(receiver.requests().len(), 6, "each once");
    let bodies: Vec<_> = receiver.requests().iter().map(|request| request.body.clone()).collect();
    let of_call: Vec<_> = receiver
        .requests()
        .iter()
        .filter(|request| request.header("webhook-id").unwrap().starts_with("hq.call."))
        .map(|request| request.body.clone())
        .collect();
    assert_eq!(of_call, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}", "{\"n\":3}"], "{bodies:?}");
    journal.close().await;
}

#[tokio::test]
async fn a_receiver_that_wanted_no_more_is_asked_again_when_the_configuration_is_read_again() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| match n {
        0 => Reply::status("410 Gone"),
        _ => Reply::ok(TAKEN),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, vec![create(0)]).await;
    let config = nimbox(&receiver.url("/"), "");
    let mut worker = Running::start(&config, &journal);
    worker.until(|health| health.paused.is_some()).await;
    worker.orders.send_modify(|_| {});
    settled(&journal, |counters| counters.delivered == 1).await;
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn until_a_webhook_is_verified_nothing_is_delivered_and_health_says_why() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| match n {
        0..3 => Reply::status("500 Internal Server Error"),
        _ => Reply::ok(""),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, posts("call", 1)).await;
    let mut worker = Running::start(&webhook(&receiver.url("/"), ""), &journal);
    let health = worker
        .until(|health| health.paused.as_ref().is_some_and(|paused| paused.why.contains("HTTP 500")))
        .await;
    assert!(health.paused.unwrap().remedy.contains("verify = false"));
    assert_eq!(counters(&journal).await.pending, 1);
    tokio::time::pause();
    receiver.until(5).await;
    let test: Vec<bool> = receiver.requests().iter().map(|r| r.body.contains("\"test\"")).collect();
    assert_eq!(test, [true, true, true, true, false]);
    let ids: Vec<_> =
        receiver.requests().iter().map(|r| r.header("webhook-id").unwrap().to_owned()).collect();
    assert!(ids[..4].iter().all(|id| *id == ids[0]), "one test event, tried again: {ids:?}");
    worker.until(|health| health.paused.is_none()).await;
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn a_webhook_that_need_not_be_verified_any_more_is_not_paused_for_that() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::status("500 Internal Server Error")).await;
    let journal = open(directory.path());
    append(&journal, posts("call", 1)).await;
    let unverified = |health: &RouteHealth| {
        health
            .paused
            .as_ref()
            .is_some_and(|paused| paused.reason == "unverified" && paused.why.contains("500"))
    };
    let without = webhook(&receiver.url("/"), "verify = false");
    let mut worker = Running::start(&webhook(&receiver.url("/"), ""), &journal);
    worker.until(unverified).await;
    let tried = |health: &RouteHealth| !health.attempts.is_empty() && health.in_flight == 0;
    // by a reload, then over a restart
    worker.order(Some(&without));
    assert_eq!(worker.until(tried).await.paused, None);
    worker.order(Some(&webhook(&receiver.url("/other"), "")));
    worker.until(unverified).await;
    worker.stop().await;
    let mut worker = Running::start(&without, &journal);
    tokio::time::pause();
    assert_eq!(worker.until(tried).await.paused, None);
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn a_fault_of_the_route_holds_everything_over_a_restart_and_then_goes_on_by_itself() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| match n {
        0..6 => Reply::status("401 Unauthorized"),
        _ => Reply::ok(TAKEN),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, (0..20).map(create).collect()).await;
    let config = nimbox(&receiver.url("/"), "");
    let mut worker = Running::start(&config, &journal);
    let paused =
        worker.until(|health| health.paused.is_some() && health.in_flight == 0).await.paused.unwrap();
    assert!(paused.why.contains("credentials"), "{}", paused.why);
    let asked = receiver.requests().len();
    assert!(asked <= 2, "no more than were out at once: {asked}");
    worker.stop().await;
    assert_eq!(counters(&journal).await.pending, 20);

    // the pause is remembered: one probe at the start, then one every five minutes
    let worker = Running::start(&config, &journal);
    receiver.until(asked + 1).await;
    tokio::time::pause();
    let counters = settled(&journal, |counters| counters.delivered == 20).await;
    assert_eq!((counters.pending, counters.dead), (0, 0));
    assert_eq!(receiver.requests().len(), 6 + 20);
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn order_is_kept_per_call_through_failures() {
    let directory = TempDir::new().unwrap();
    // every third request fails, one in six after it was taken
    let receiver = Receiver::start(|n| match n % 6 {
        2 => Reply::status("500 Internal Server Error"),
        5 => Reply::Close,
        _ => Reply::ok(""),
    })
    .await;
    let journal = open(directory.path());
    for call in ["a", "b", "c", "d", "e"] {
        append(&journal, posts(call, 8)).await;
    }
    let worker = Running::start(&webhook(&receiver.url("/"), "verify = false\nconcurrency = 4"), &journal);
    receiver.until(3).await;
    tokio::time::pause();
    settled(&journal, |counters| counters.delivered == 40).await;
    worker.stop().await;
    journal.close().await;
    let mut taken: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, request) in receiver.requests().iter().enumerate() {
        let id = request.header("webhook-id").unwrap();
        let (call, number) = id.rsplit_once('.').unwrap();
        let numbers = taken.entry(call.to_owned()).or_default();
        let number: usize = number.parse().unwrap();
        let expected = numbers.last().map_or(0, |last| last + 1);
        assert_eq!(number, expected, "request {n} of {call}");
        if !matches!(n % 6, 2 | 5) {
            numbers.push(number);
        }
    }
    assert_eq!(taken.len(), 5);
    assert!(taken.values().all(|numbers| numbers.len() == 8), "{taken:?}");
}

#[tokio::test]
async fn a_receiver_that_never_comes_back_makes_dead_letters_with_their_reason() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::Close).await;
    let journal = open(directory.path());
    append(&journal, posts("call", 2)).await;
    let config = webhook(&receiver.url("/"), "verify = false\nretry_for = \"1 hour\"");
    let mut worker = Running::start(&config, &journal);
    receiver.until(1).await;
    tokio::time::pause();
    worker.until(|health| health.breaker != BreakerState::Closed).await;
    settled(&journal, |counters| counters.dead >= 1).await;
    worker.stop().await;
    let letter = journal.dead(None, 10).await.unwrap().remove(0);
    assert_eq!(&*letter.id.0, "hq.call.0");
    assert!(letter.why.contains("retry_for"), "{}", letter.why);
    assert!(letter.attempts >= 5, "{}", letter.attempts);
    journal.close().await;
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::Later(TAKEN.to_owned(), Duration::from_millis(300))).await;
    let journal = open(directory.path());
    append(&journal, (0..10).map(create).collect()).await;
    let worker = Running::start(&nimbox(&receiver.url("/"), ""), &journal);
    receiver.until(2).await;
    worker.stop().await;
    let counters = counters(&journal).await;
    assert_eq!((counters.delivered, counters.pending), (2, 8));
    assert_eq!(receiver.requests().len(), 2, "nothing new after the stop");
    journal.close().await;
}

#[tokio::test]
async fn what_does_not_end_in_five_seconds_is_given_back_and_made_again_with_its_id() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| if n == 0 { Reply::Silence } else { Reply::ok("") }).await;
    let journal = open(directory.path());
    append(&journal, posts("call", 1)).await;
    let config = webhook(&receiver.url("/"), "verify = false\ntimeout = \"60 s\"");
    let worker = Running::start(&config, &journal);
    receiver.until(1).await;
    // In real time: paused time would run on while the journal's own thread works.
    let started = tokio::time::Instant::now();
    worker.stop().await;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(counters(&journal).await.pending, 1);
    let worker = Running::start(&config, &journal);
    receiver.until(2).await;
    settled(&journal, |counters| counters.delivered == 1).await;
    worker.stop().await;
    assert_eq!(receiver.request(0).header("webhook-id"), receiver.request(1).header("webhook-id"));
    journal.close().await;
}

#[tokio::test]
async fn a_refusal_is_offered_again_at_night_and_harms_nobody() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| match n {
        0..4 => Reply::ok(r#"{"error":true,"errors":{"destination":"no se consiguió"}}"#),
        _ => Reply::ok(TAKEN),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, vec![create(0)]).await;
    let worker = Running::start(&nimbox(&receiver.url("/"), ""), &journal);
    receiver.until(1).await;
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    receiver.until(5).await;
    let nights = started.elapsed().as_secs_f64() / 86_400.0;
    assert!((3.0..5.0).contains(&nights), "{nights}");
    let counters = settled(&journal, |counters| counters.delivered == 1).await;
    assert_eq!((counters.dead, counters.refused), (0, 0));
    worker.stop().await;
    journal.close().await;
}

/// The destination of a create.
fn destination(request: &crate::receiver::Request) -> usize {
    let (_, rest) = request.line.split_once("destination=").unwrap();
    rest.split([' ', '&']).next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_call_finds_a_slot_while_history_is_sent_and_history_all_others() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::Later(TAKEN.to_owned(), Duration::from_millis(40))).await;
    let journal = open(directory.path());
    append(&journal, (1000..1060).map(past).collect()).await;
    let worker = Running::start(&nimbox(&receiver.url("/"), "concurrency = 4"), &journal);
    receiver.until(20).await;
    assert_eq!(receiver.connections(), 3, "one slot stays free");
    for n in 0..5 {
        let place = || receiver.requests().iter().position(|request| destination(request) == n);
        let before = receiver.requests().len();
        append(&journal, vec![create(n)]).await;
        let mut seen = before;
        while place().is_none() {
            seen += 1;
            receiver.until(seen).await;
        }
        let passed = place().unwrap() - before;
        assert!(passed <= 3, "{passed} of the past came before it");
    }
    settled(&journal, |counters| counters.delivered == 5).await;
    receiver.until(65).await;
    worker.stop().await;
    let history = counters_of(&journal, "sink/history").await;
    assert_eq!((history.accepted, history.delivered, history.pending), (60, 60, 0));
    assert_eq!(receiver.requests().len(), 65, "each once");
    journal.close().await;
}

#[tokio::test]
async fn history_tells_how_each_attempt_ended_and_keeps_the_rate_that_is_set() {
    let directory = TempDir::new().unwrap();
    let refused = r#"{"error":true,"errors":{"destination":"no se consiguió"}}"#;
    let exists = r#"{"error":true,"errors":{"initiated":"La llamada ya existe"}}"#;
    let receiver = Receiver::start(move |n| match n {
        1 => Reply::ok(exists),
        2 => Reply::ok(refused),
        3 => Reply::status("500 Internal Server Error"),
        4 => Reply::status("400 Bad Request"),
        _ => Reply::ok(TAKEN),
    })
    .await;
    let journal = open(directory.path());
    append(&journal, (0..10).map(past).collect()).await;
    let (rate, limited) = watch::channel(Some(20.0));
    let (reports, mut told) = mpsc::channel(2);
    let link = HistoryLink { rate: limited, reports };
    let began = tokio::time::Instant::now();
    let config = nimbox(&receiver.url("/"), "concurrency = 1");
    let worker = Running::start_with(&config, &journal, |worker| worker.with_history(link));
    let mut ends = Vec::new();
    while ends.len() < 10 {
        let Report { route, id, first, ended } = told.recv().await.unwrap();
        assert_eq!((&*route.0, first), ("sink", true), "{id:?}");
        ends.push((id.0.to_string(), ended));
    }
    assert!(began.elapsed() >= Duration::from_millis(440), "{:?}", began.elapsed());
    let ids: Vec<_> = (0..10).map(|n| past(n).id.0.to_string()).collect();
    assert!(ends.iter().map(|(id, _)| id).eq(&ids), "{ends:?}");
    let ended: Vec<_> = ends.into_iter().map(|(_, ended)| ended).collect();
    assert_eq!(ended[..2], [Ended::Delivered, Ended::AlreadyThere]);
    assert!(matches!(&ended[2], Ended::Refused { why } if why.contains("consigui")), "{:?}", ended[2]);
    assert!(matches!(&ended[3], Ended::Failing { why } if why.contains("500")), "{:?}", ended[3]);
    assert!(matches!(&ended[4], Ended::Failing { why } if why.contains("400")), "{:?}", ended[4]);
    assert!(ended[5..].iter().all(|end| *end == Ended::Delivered), "{ended:?}");
    // set while it runs; and nobody needs to listen
    rate.send_replace(None);
    drop(told);
    append(&journal, (100..300).map(past).collect()).await;
    let history = loop {
        let history = counters_of(&journal, "sink/history").await;
        if history.delivered >= 207 {
            break history;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(history.accepted, 210);
    worker.stop().await;
    journal.close().await;
}

#[tokio::test]
async fn while_nobody_takes_the_reports_no_history_goes_out_and_calls_do() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let journal = open(directory.path());
    append(&journal, (1000..1100).map(past).collect()).await;
    let (_rate, unlimited) = watch::channel(None);
    let (reports, mut told) = mpsc::channel(10);
    let link = HistoryLink { rate: unlimited, reports };
    let config = nimbox(&receiver.url("/"), "concurrency = 4");
    let worker = Running::start_with(&config, &journal, |worker| worker.with_history(link));
    receiver.until(10).await;
    append(&journal, (0..20).map(create).collect()).await;
    settled(&journal, |counters| counters.delivered == 20).await;
    assert_eq!(receiver.requests().len(), 30, "as many of the past as could be told");
    for _ in 0..100 {
        told.recv().await.unwrap();
    }
    worker.stop().await;
    assert_eq!(counters_of(&journal, "sink/history").await.delivered, 100);
    journal.close().await;
}

#[tokio::test]
async fn behind_an_open_breaker_history_asks_where_no_call_waits() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(|n| if n < 8 { Reply::Close } else { Reply::ok(TAKEN) }).await;
    let journal = open(directory.path());
    append(&journal, (0..30).map(past).collect()).await;
    let mut worker = Running::start(&nimbox(&receiver.url("/"), "concurrency = 4"), &journal);
    worker.until(|health| health.breaker != BreakerState::Closed).await;
    tokio::time::pause();
    worker.until(|health| health.breaker == BreakerState::Closed).await;
    tokio::time::resume();
    while counters_of(&journal, "sink/history").await.delivered < 30 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.stop().await;
    journal.close().await;
}
