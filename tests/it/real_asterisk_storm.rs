//! Many calls at once on a real Asterisk, each of which must be accounted for, also when the agent
//! is killed meanwhile; see `real_asterisk`. `CALLPOST_STORM=1000` makes it more than 200.
#![expect(clippy::print_stderr, reason = "the figures are what one runs it for")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callpost::api::AgentStatus;
use callpost::receiver::{Receiver, Request};
use futures_util::StreamExt;
use futures_util::stream;

use crate::agent::Agent;
use crate::asterisk;
use crate::lab::{Lab, pause};
use crate::real_asterisk::beside_asterisk_in_share;
use crate::sip::{Call, Phone, State};
use crate::site::Site;
use crate::story::{created, is_one_call, is_whole, told, until_over};

/// Calls that are being set up or hung up at one moment: the phones send nothing twice, so what
/// comes faster than Asterisk reads would be lost in a socket.
const AT_ONCE: usize = 32;
/// The phones ring for this long.
const RING: Duration = Duration::from_secs(1);
/// `t_cause` of what ended while nobody looked.
const UNSEEN: &str = "Unknown (agent was disconnected)";
/// Longer than the tracker waits for the CDRs of a call that has ended.
const GROUP: Duration = Duration::from_secs(5);
/// Clock ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;

/// What call number `n` is.
#[derive(Clone)]
struct Plan {
    number: String,
    phone: usize,
    cancelled: bool,
    by_caller: bool,
}

fn plans(count: usize) -> Vec<Plan> {
    let plan = |n: usize| Plan {
        number: format!("584149{n:06}"),
        phone: n % 3,
        cancelled: n % 10 == 9,
        by_caller: n.is_multiple_of(2),
    };
    (0..count).map(plan).collect()
}

#[test]
fn each_of_many_calls_at_once_is_accounted_for() {
    beside_asterisk_in_share("2", async || {
        let count = count(200);
        let plans = plans(count);
        let site = Site::open().await;
        let Site { lab, receiver, .. } = &site;
        let mut agent = site.agent().await;
        let event_times = event_times(&agent);
        let before = (cpu(agent.pid()), cpu(asterisk::pid()));

        let begin = Instant::now();
        let calls = set_up(lab, &plans).await;
        hang_up(calls).await;
        let seconds = begin.elapsed().as_secs_f64();
        lab.settle().await;
        let status = done(&mut agent, count).await;
        let after = (cpu(agent.pid()), cpu(asterisk::pid()));

        for plan in &plans {
            let all = told(receiver, &plan.number);
            if plan.cancelled {
                is_whole(&all, &["initial", "ringing", "missed"]);
            } else {
                is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
                assert_eq!(all[3].by, if plan.by_caller { "caller" } else { "callee" }, "{all:#?}");
            }
            assert!(all.iter().all(|told| told.info.is_empty()), "{all:#?}");
            assert_eq!(created(receiver, &plan.number).len(), 1, "{}", plan.number);
        }
        for route in &status.journal.routes {
            assert_eq!(route.counters.accepted, route.counters.delivered, "{route:?}");
            assert!(route.skipped.is_empty(), "{route:?}");
        }
        let counts = receiver.counts();
        let webhooks = plans.iter().map(|plan| if plan.cancelled { 3 } else { 4 }).sum::<u64>();
        assert_eq!((counts.creates, counts.webhooks), (count as u64, webhooks), "{counts:?}");
        assert_eq!((counts.creates_again, counts.webhooks_again), (0, 0), "{counts:?}");
        site.nothing_was_wrong();
        assert_eq!((status.ami.malformed, status.ami.logins, status.ingest.rebuilds), (0, 1, 0));

        let latencies = latencies(receiver, &event_times);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = status.ingest.events as f64 / seconds;
        eprintln!(
            "storm: {count} calls in {seconds:.1} s, {rate:.0} AMI events/s; agent {:.2} s CPU, peak RSS {} KiB; \
             Asterisk {:.2} s CPU; to the disk p50 {:.1} ms p99 {:.1} ms (the last 1024 events), commit p50 {:.1} ms \
             p99 {:.1} ms; event to request p50 {:.1} ms p99 {:.1} ms max {:.1} ms; {} webhooks, {} creates",
            after.0 - before.0,
            peak(agent.pid()),
            after.1 - before.1,
            millis(status.ingest.lag_p50),
            millis(status.ingest.lag_p99),
            millis(status.journal.commit_p50),
            millis(status.journal.commit_p99),
            millis(percentile(&latencies, 50)),
            millis(percentile(&latencies, 99)),
            millis(percentile(&latencies, 100)),
            counts.webhooks,
            counts.creates,
        );
        agent.stop().await;
    });
}

#[test]
fn an_agent_killed_in_the_middle_of_many_calls_loses_and_doubles_none() {
    beside_asterisk_in_share("2", async || {
        let count = count(100);
        let plans = plans(count);
        let site = Site::open().await;
        let Site { lab, receiver, .. } = &site;
        let agent = site.agent().await;

        let killed = async {
            let agent = kill_when(&site, count, agent).await;
            kill_when(&site, count * 2, agent).await
        };
        let (calls, mut agent) = tokio::join!(set_up(lab, &plans), killed);
        hang_up(calls).await;
        lab.settle().await;
        let status = done(&mut agent, count).await;

        let mut unheard = 0;
        for plan in &plans {
            let all = told(receiver, &plan.number);
            is_one_call(&all);
            let mut names: Vec<&str> = all.iter().map(|told| told.event.as_str()).collect();
            if !names.contains(&"ringing") {
                // It was answered before the agent was back, which is said.
                assert!(names.len() == 3 && all[1].info == "recovered", "{all:#?}");
                names.insert(1, "ringing");
                unheard += 1;
            }
            let end: &[&str] = if plan.cancelled { &["missed"] } else { &["connected", "hangup"] };
            assert_eq!(names, [&["initial", "ringing"], end].concat(), "{all:#?}");
            assert_eq!(created(receiver, &plan.number).len(), 1, "{}", plan.number);
        }
        let counts = receiver.counts();
        site.nothing_was_wrong();
        assert_eq!((status.journal.lost, status.journal.quarantined), (0, 0));
        eprintln!("killed: {count} calls, {unheard} whose ringing nobody heard; {counts:?}");
        agent.stop().await;
    });
}

#[test]
fn an_agent_killed_while_many_calls_end_ends_each_of_them_once() {
    beside_asterisk_in_share("2", async || {
        let count = count(100);
        let plans = plans(count);
        let site = Site::open().await;
        let Site { lab, receiver, .. } = &site;
        let agent = site.agent().await;

        let calls = set_up(lab, &plans).await;
        let before = plans.iter().map(|plan| if plan.cancelled { 2 } else { 3 }).sum::<usize>();
        let killed = kill_when(&site, before + count / 4, agent);
        let ((), mut agent) = tokio::join!(hang_up(calls), killed);
        lab.settle().await;
        let (mut recovered, mut unseen, mut uncreated) = (0, 0, 0);
        for plan in &plans {
            let end = until_over(receiver, &plan.number).await;
            let all = told(receiver, &plan.number);
            is_one_call(&all);
            let names: Vec<&str> = all.iter().map(|told| told.event.as_str()).collect();
            let whole: &[&str] = if plan.cancelled { &["missed"] } else { &["connected", "hangup"] };
            assert_eq!(names, [&["initial", "ringing"], whole].concat(), "{all:#?}");
            assert!(end.info.is_empty() || end.info == "recovered", "{all:#?}");
            recovered += usize::from(end.info == "recovered");
            unseen += usize::from(end.cause == UNSEEN);
        }
        // The CDRs of the last call have been waited for, and its create is made.
        let mut last = receiver.counts().requests;
        while let Ok(next) = tokio::time::timeout(GROUP, receiver.next(last)).await {
            last = next.number;
        }
        for plan in &plans {
            match created(receiver, &plan.number).len() {
                0 => uncreated += 1,
                created => assert_eq!(created, 1, "{}", plan.number),
            }
        }
        // Whose CDR came while no agent was there has its create after 310 s, too late for this test,
        // or none if it was cancelled. All others have theirs.
        let status = agent.delivered().await;
        let skipped = status.journal.routes.iter().flat_map(|route| &route.skipped);
        let skipped: u64 = skipped.map(|(_, count)| count).sum();
        let waiting = status.journal.objects;
        assert!(uncreated == 0 || skipped + waiting > 0, "{status:?}");
        assert!(uncreated < count, "{status:?}");
        let counts = receiver.counts();
        site.nothing_was_wrong();
        eprintln!(
            "killed at the end: {count} calls, {recovered} ended in the gap, of which {unseen} for unknown reasons, {uncreated} without a CDR ({skipped} skipped, {waiting} objects wait); {counts:?}"
        );
        agent.stop().await;
    });
}

/// Kills the agent once so many requests have come; gives the next one, logged in.
async fn kill_when(site: &Site, requests: usize, agent: Agent) -> Agent {
    // Requests are numbered from 1.
    site.receiver.next(requests as u64 - 1).await;
    agent.kill().await;
    site.agent().await
}

fn count(quick: usize) -> usize {
    std::env::var("CALLPOST_STORM").map_or(quick, |count| count.parse().unwrap())
}

/// Each call has its create, and nothing waits.
async fn done(agent: &mut Agent, count: usize) -> AgentStatus {
    let wanted = |status: &AgentStatus| {
        let routes = &status.journal.routes;
        let creates: u64 =
            routes.iter().filter(|route| &*route.route.0 == "crm").map(|route| route.counters.accepted).sum();
        creates >= count as u64 && routes.iter().all(|route| route.counters.pending == 0)
    };
    agent.until("done with every call", wanted).await
}

/// Calls that are up, or that ring and will be cancelled: the plan, the caller, the phone.
type Calls = Vec<(Plan, Call, Call)>;

async fn set_up(lab: &Lab, plans: &[Plan]) -> Calls {
    let phones = [&lab.ana, &lab.beto, &lab.carla];
    let answering = phones.into_iter().enumerate().map(|(n, phone)| {
        let plans = plans.iter().filter(|plan| plan.phone == n);
        let plans = plans.map(|plan| (plan.number.clone(), plan.clone())).collect();
        tokio::spawn(answer(phone.clone(), plans))
    });
    let answering: Vec<_> = answering.collect();
    let outside = stream::iter(plans)
        .map(|plan| async move {
            let caller = format!("<sip:{}@127.0.0.1>", plan.number);
            let call = lab.trunk.call_for(caller.as_bytes(), &format!("556100{}", plan.phone + 1)).await;
            if plan.cancelled {
                call.becomes(State::Ringing).await;
            } else {
                call.becomes(State::Up).await;
            }
            (plan.clone(), call)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<(Plan, Call)>>()
        .await;
    let mut inside = BTreeMap::new();
    for phone in answering {
        inside.extend(phone.await.unwrap());
    }
    let calls = outside.into_iter().map(|(plan, outside)| {
        let inside = inside.remove(&plan.number).unwrap();
        (plan, outside, inside)
    });
    calls.collect()
}

async fn hang_up(calls: Calls) {
    pause(1.0).await;
    stream::iter(calls)
        .for_each_concurrent(AT_ONCE, |(plan, outside, inside)| async move {
            if plan.cancelled {
                outside.cancel().await;
                inside.becomes(State::Over).await;
            } else if plan.by_caller {
                outside.hang_up().await;
                inside.becomes(State::Over).await;
            } else {
                inside.hang_up().await;
                outside.becomes(State::Over).await;
            }
        })
        .await;
}

/// Answers each call of the plans after a while, but lets ring what its caller will cancel.
async fn answer(phone: Phone, plans: BTreeMap<String, Plan>) -> Vec<(String, Call)> {
    let mut answering = Vec::new();
    for _ in 0..plans.len() {
        let call = phone.next_call().await;
        let plan = plans[&call.caller()].clone();
        answering.push(tokio::spawn(async move {
            call.ring().await;
            if !plan.cancelled {
                tokio::time::sleep(RING).await;
                call.answer().await;
            }
            (plan.number, call)
        }));
    }
    futures_util::future::join_all(answering).await.into_iter().map(Result::unwrap).collect()
}

/// Each update's id and when Asterisk says that it happened, microseconds.
type EventTimes = Arc<Mutex<BTreeMap<String, i64>>>;

fn event_times(agent: &Agent) -> EventTimes {
    let times = EventTimes::default();
    let kept = Arc::clone(&times);
    let client = agent.client();
    tokio::spawn(async move {
        let keep = |update: callpost::calls::Update| {
            kept.lock().unwrap().insert(update.id.0.to_string(), update.at.0);
            true
        };
        // It ends with the agent.
        let _ = client.tail(keep).await;
    });
    times
}

/// From Asterisk's event to the webhook's arrival, sorted, microseconds.
fn latencies(receiver: &Receiver, times: &EventTimes) -> Vec<u64> {
    let times = times.lock().unwrap();
    let all = receiver.received();
    let of = |received: &callpost::receiver::Received| match &received.request {
        Request::Webhook { id, .. } => u64::try_from(received.at.0 - times.get(id)?).ok(),
        _ => None,
    };
    let mut latencies: Vec<u64> = all.iter().filter_map(|received| of(received)).collect();
    latencies.sort_unstable();
    latencies
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// CPU seconds of a process, all its threads, in user and system.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

/// The most memory that a process ever had resident, KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}
