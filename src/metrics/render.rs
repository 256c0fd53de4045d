//! How the agent stands, as metrics. Names once published never change.

use std::collections::BTreeMap;

use parsers::Micros;

use super::histogram::{Histogram, buckets};
use super::text::{Text, seconds};
use crate::api::{AgentStatus, RouteView};
use crate::journal::{Counters, Dropped, RouteStatus};
use crate::routes::{BreakerState, RouteHealth};

/// All of them, in Prometheus' text format.
pub fn render(status: &AgentStatus) -> String {
    let mut text = Text::default();
    let stored = with_new_routes(status);
    agent(&mut text, status);
    ami(&mut text, status);
    journal(&mut text, status);
    reconciliation(&mut text, status);
    conservation(&mut text, &stored);
    left_out(&mut text, &status.journal.routes);
    waiting(&mut text, status.at, &stored);
    routes(&mut text, &status.routes);
    attempts(&mut text, &status.routes);
    process(&mut text, status);
    text.into_string()
}

/// The journal's routes, and those it has nothing of yet: a series that begins at 1 tells Prometheus of
/// no increase, and the first dead letter would raise no alert.
fn with_new_routes(status: &AgentStatus) -> Vec<RouteStatus> {
    let mut routes = status.journal.routes.clone();
    for view in &status.routes {
        if !routes.iter().any(|stored| stored.route == view.route) {
            routes.push(RouteStatus {
                route: view.route.clone(),
                counters: Counters::default(),
                oldest: None,
                skipped: Vec::new(),
                dropped: Vec::new(),
            });
        }
    }
    routes
}

fn agent(text: &mut Text, status: &AgentStatus) {
    let labels = [("version", status.version.as_str()), ("pbx", status.pbx.as_str())];
    text.gauge("callpost_build_info", "Version of this agent and pbx.name; always 1.").add(&labels, 1);
}

fn ami(text: &mut Text, status: &AgentStatus) {
    let ami = &status.ami;
    text.gauge("callpost_ami_connected", "Whether it is logged in to Asterisk.")
        .add(&[], u8::from(ami.connected));
    text.counter("callpost_ami_events_total", "Events read from Asterisk.").add(&[], ami.events);
    text.counter("callpost_ami_malformed_total", "Messages of Asterisk that could not be read.")
        .add(&[], ami.malformed);
    text.counter("callpost_ami_reconnects_total", "Logins to Asterisk after the first.")
        .add(&[], ami.logins.saturating_sub(1));
    text.gauge("callpost_ami_behind_bytes", "Events in memory that are not journalled yet.")
        .add(&[], ami.behind);
    text.histogram(
        "callpost_ami_lag_seconds",
        "From the arrival of an event that something is sent for to the journal's disk.",
    )
    .times(&[], &status.ingest.lag, buckets::QUICK);
    text.counter("callpost_call_events_total", "Events that a call was concerned by.")
        .add(&[], status.ingest.events);
    text.counter("callpost_call_updates_total", "Changes of calls journalled.")
        .add(&[], status.ingest.updates);
    text.gauge("callpost_calls_live", "Calls that go on now.").add(&[], status.journal.live_calls);
    text.gauge("callpost_legs_live", "Parties in calls that go on now.").add(&[], status.journal.live_legs);
}

fn journal(text: &mut Text, status: &AgentStatus) {
    let journal = &status.journal;
    let pending: u64 = journal.routes.iter().map(|route| route.counters.pending).sum();
    text.histogram("callpost_journal_commit_seconds", "Time of a commit, its sync to the disk included.")
        .times(&[], &journal.commit_times, buckets::QUICK);
    text.gauge("callpost_journal_bytes", "Bytes that the journal takes on disk.").add(&[], journal.bytes);
    text.gauge("callpost_journal_max_bytes", "Bytes that it may take: journal.max_size.")
        .add(&[], status.max_size);
    text.gauge("callpost_journal_live_records", "Records still needed: pending deliveries, open objects.")
        .add(&[], pending + journal.objects);
    text.gauge("callpost_journal_generations", "Generations of the outbox.").add(&[], journal.generations);
    text.gauge("callpost_journal_history_stores", "Stores of the history, one a day.").add(&[], journal.days);
    text.gauge("callpost_journal_writable", "Whether the journal can be written.")
        .add(&[], u8::from(journal.fault.is_none()));
    text.counter("callpost_journal_commit_failures_total", "Commits that failed and were made again.")
        .add(&[], status.ingest.rebuilds);
    text.counter(
        "callpost_journal_quarantined_total",
        "Generations put aside because they would not open, since the start.",
    )
    .add(&[], journal.quarantined);
    text.counter(
        "callpost_journal_gaps_total",
        "Times in which the journal took nothing, since it was made.",
    )
    .add(&[], journal.gaps);
    text.counter(
        "callpost_journal_gap_records_total",
        "Records refused in those times; whoever offered them may have offered them again.",
    )
    .add(&[], journal.gap_records);
    text.counter(
        "callpost_journal_lost_records_total",
        "Acknowledged records found missing after damage, since the start.",
    )
    .add(&[], journal.lost);
}

fn reconciliation(text: &mut Text, status: &AgentStatus) {
    let about = &status.reconciliation;
    let at = |at: Micros| seconds(u64::try_from(at.0).unwrap_or(0));
    text.gauge("callpost_reconcile_enabled", "Whether the CDR store is looked through for missed calls.")
        .add(&[], u8::from(about.off.is_none()));
    text.gauge("callpost_reconcile_store_up", "0 while the CDR store cannot be read.")
        .add(&[], u8::from(about.away.is_none()));
    text.counter("callpost_reconcile_runs_total", "Times it was looked through.").add(&[], about.runs);
    text.counter("callpost_reconcile_failures_total", "Times it could not be read.").add(&[], about.failed);
    text.counter("callpost_reconcile_missing_total", "Creates found missing and put on their way.")
        .add(&[], about.missing);
    let last = about.last.as_ref();
    text.gauge("callpost_reconcile_last_timestamp_seconds", "When it was last looked through; 0: not yet.")
        .add(&[], last.map_or_else(|| seconds(0), |last| at(last.at)));
    for (name, help, value) in [
        (
            "callpost_reconcile_last_creates",
            "Creates that the store came to, the last time.",
            last.map_or(0, |last| last.creates),
        ),
        (
            "callpost_reconcile_last_known",
            "Creates of these that were known, the last time.",
            last.map_or(0, |last| last.known),
        ),
    ] {
        text.gauge(name, help).add(&[], value);
    }
}

/// accepted = delivered + refused + pending + dead + dropped, a family each; and what it is out by.
fn conservation(text: &mut Text, routes: &[RouteStatus]) {
    type Term = (&'static str, &'static str, fn(&Counters) -> u64);
    let counters: [Term; 3] = [
        ("callpost_accepted_total", "Deliveries appended to the journal.", |c| c.accepted),
        ("callpost_delivered_total", "Deliveries that the receiver accepted.", |c| c.delivered),
        (
            "callpost_refused_total",
            "Deliveries that the receiver refused for good, for a reason of its business.",
            |c| c.refused,
        ),
    ];
    let gauges: [Term; 2] = [
        ("callpost_pending_records", "Deliveries that wait, those under way included.", |c| c.pending),
        ("callpost_dead_records", "Dead letters, kept until somebody decides.", |c| c.dead),
    ];
    for (name, help, value) in counters {
        each(&mut text.counter(name, help), routes, value);
    }
    for (name, help, value) in gauges {
        each(&mut text.gauge(name, help), routes, value);
    }
    let mut family =
        text.counter("callpost_dropped_total", "Accepted deliveries given up on purpose, by reason.");
    for route in named(routes) {
        let counted = route.dropped.iter().map(|(reason, count)| (reason.as_str(), *count));
        let none = Dropped::ALL.map(|dropped| (dropped.reason(), 0));
        for (reason, count) in none.into_iter().chain(counted).collect::<BTreeMap<_, _>>() {
            family.add(&[("route", &route.route.0), ("reason", reason)], count);
        }
        // what the counters know and the reasons do not: a damaged file set them back
        let known = route.dropped.iter().map(|(_, count)| count).sum::<u64>();
        let rest = route.counters.dropped.saturating_sub(known);
        if rest > 0 {
            family.add(&[("route", &route.route.0), ("reason", "unknown")], rest);
        }
    }
    let mut family = text.gauge(
        "callpost_conservation_difference",
        "accepted - (delivered + refused + pending + dead + dropped): 0, or something is wrong.",
    );
    for route in named(routes) {
        family.add(&[("route", &route.route.0)], route.counters.difference());
    }
}

fn each(family: &mut super::text::Family<'_>, routes: &[RouteStatus], value: fn(&Counters) -> u64) {
    for route in named(routes) {
        family.add(&[("route", &route.route.0)], value(&route.counters));
    }
}

/// Without the unnamed one, which only counts what was left out for all.
fn named(routes: &[RouteStatus]) -> impl Iterator<Item = &RouteStatus> {
    routes.iter().filter(|route| !route.route.0.is_empty())
}

fn left_out(text: &mut Text, routes: &[RouteStatus]) {
    let mut family = text.counter(
        "callpost_left_out_total",
        "What made no delivery on purpose, by reason; without a route: for none of them.",
    );
    for route in routes {
        for (reason, count) in &route.skipped {
            family.add(&[("route", &route.route.0), ("reason", reason)], count);
        }
    }
}

fn waiting(text: &mut Text, now: Micros, routes: &[RouteStatus]) {
    let mut family = text
        .gauge("callpost_oldest_undelivered_seconds", "Age of the oldest pending delivery; 0 without one.");
    for route in named(routes) {
        let age = route.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0).max(0));
        family.add(&[("route", &route.route.0)], seconds(u64::try_from(age).unwrap_or(0)));
    }
}

fn routes(text: &mut Text, routes: &[RouteView]) {
    let mut family = text.gauge(
        "callpost_breaker_state",
        "0 closed: deliveries go out; 1 half open: a probe; 2 open: they wait.",
    );
    for view in routes {
        let state = match view.health.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
        };
        family.add(&[("route", &view.route.0)], state);
    }
    let mut family = text.gauge(
        "callpost_lane_paused",
        "1 while a route holds everything; the reason is \"\" while it does not.",
    );
    for view in routes {
        let reason = view.health.paused.as_ref().map_or("", |paused| &*paused.reason);
        let paused = u8::from(view.health.paused.is_some());
        family.add(&[("route", &view.route.0), ("reason", reason)], paused);
    }
    let mut family = text.gauge("callpost_requests_in_flight", "Requests under way.");
    for view in routes {
        family.add(&[("route", &view.route.0)], view.health.in_flight);
    }
    let mut family = text.gauge("callpost_requests_limit", "Requests that may be under way at once, now.");
    for view in routes {
        family.add(&[("route", &view.route.0)], view.health.concurrency);
    }
    type Times = (&'static str, &'static str, fn(&RouteHealth) -> &Histogram);
    let times: [Times; 2] = [
        (
            "callpost_first_request_seconds",
            "From what Asterisk said, as it was appended to the journal, to the first request.",
            |health| &health.first_request,
        ),
        (
            "callpost_delivery_latency_seconds",
            "From what Asterisk said, as it was appended to the journal, to the answer that accepted it.",
            |health| &health.latency,
        ),
    ];
    for (name, help, value) in times {
        let mut family = text.histogram(name, help);
        for view in routes {
            family.times(&[("route", &view.route.0)], value(&view.health), buckets::PATIENT);
        }
    }
}

fn attempts(text: &mut Text, routes: &[RouteView]) {
    let mut family =
        text.counter("callpost_delivery_attempts_total", "Requests that ended, by class of answer.");
    for view in routes {
        let attempts: &BTreeMap<String, u64> = &view.health.attempts;
        for (class, count) in attempts {
            family.add(&[("route", &view.route.0), ("class", class)], count);
        }
    }
}

/// By the names that Prometheus' own libraries use.
fn process(text: &mut Text, status: &AgentStatus) {
    let process = &status.process;
    text.gauge("process_resident_memory_bytes", "Memory in use.").add(&[], process.resident);
    text.gauge("process_open_fds", "Open files and sockets.").add(&[], process.files);
    text.gauge("process_max_fds", "How many may be open.").add(&[], process.files_limit);
    text.counter("process_cpu_seconds_total", "Processor time.").add(&[], seconds(process.cpu));
    text.gauge("process_start_time_seconds", "When it started, seconds since 1970.")
        .add(&[], seconds(u64::try_from(status.started.0).unwrap_or(0)));
}
