//! `callpost status`: how a running agent stands.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use parsers::Micros;

use super::args;
use super::exit::{CliError, Done};
use super::ladder::clean;
use super::leg::local;
use super::out::{Out, paint, plural, style};
use crate::agent::asked_to_stop;
use crate::api::{AgentStatus, Client, ClientError, RouteView};
use crate::calls::CdrSource;
use crate::config::{Config, size_text};
use crate::journal::{Counters, RouteStatus};
use crate::routes::BreakerState;

/// Where the packaged service puts its socket, which a person's environment does not say.
const SERVICE_SOCKET: &str = "/run/callpost/callpost.sock";

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Clears the terminal, cursor to its beginning (ECMA-48, ED and CUP).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
/// Of the journal's limit, in per cent, from which on somebody should look.
const NEARLY_FULL: u64 = 90;

/// For the agent of this configuration.
pub(super) fn client(config: &Config) -> Client {
    let socket = &config.api.socket;
    let default = *socket == config.journal.directory.join("callpost.sock");
    let service = Path::new(SERVICE_SOCKET);
    // what may not be looked at is there, and will say that it may not be asked
    let is_there = |path: &Path| path.try_exists().unwrap_or(true);
    if default && !is_there(socket) && is_there(service) { Client::new(service) } else { Client::new(socket) }
}

pub(super) async fn status(config: &Config, args: &args::Status) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let client = client(config);
    if !args.watch {
        once(&mut out, &client.status().await?)?;
        return Ok(Done::All);
    }
    let mut stop = std::pin::pin!(asked_to_stop());
    loop {
        let answer = client.status().await;
        if out.terminal() && !out.json() {
            out.line(CLEAR)?;
        }
        match answer {
            Ok(status) => once(&mut out, &status)?,
            // it may be starting anew: who watches wants to see it come back
            Err(ClientError::NotRunning(socket)) if !out.json() => {
                out.line(paint(style::BAD, ClientError::NotRunning(socket)))?;
            }
            Err(why) => return Err(why.into()),
        }
        tokio::select! {
            () = &mut stop => return Ok(Done::All),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
    }
}

fn once(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    if out.json() { out.value(status) } else { show(out, status) }
}

fn show(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let up = ago(status.at.secs_since(status.started));
    let process = &status.process;
    let cpu = process.cpu / 1000;
    let resident = size_text(process.resident >> 20 << 20);
    out.line(format!(
        "{} {}, pbx {}, up {up}; memory {resident}, CPU {}.{} s",
        paint(style::BOLD, "callpost"),
        status.version,
        status.pbx,
        cpu / 1000,
        cpu % 1000 / 100
    ))?;
    asterisk(out, status)?;
    ingest(out, status)?;
    journal(out, status)?;
    reconciliation(out, status)?;
    if let Some(address) = status.listen {
        row(out, "HTTP", format!("{address}: /livez, /readyz, /metrics"))?;
    }
    routes(out, status)
}

fn row(out: &mut Out, subject: &str, text: impl std::fmt::Display) -> io::Result<()> {
    out.line(format!("{}  {text}", paint(style::BOLD, format!("{subject:<8}"))))
}

fn asterisk(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let ami = &status.ami;
    if !status.configured {
        return row(out, "Asterisk", paint(style::WARN, "not configured: write [ami] into a file in conf.d"));
    }
    let since =
        ami.since.map(|since| format!(" for {}", ago(status.at.secs_since(since)))).unwrap_or_default();
    if ami.connected {
        let connected = paint(style::GOOD, "connected");
        row(
            out,
            "Asterisk",
            format!("{connected} to {}{since}, Asterisk {}, AMI {}", ami.address, ami.asterisk, ami.ami),
        )?;
    } else {
        row(out, "Asterisk", format!("{} to {}{since}", paint(style::BAD, "not connected"), ami.address))?;
    }
    if let Some(error) = &ami.error {
        row(out, "", paint(style::BAD, error))?;
    }
    for denied in &ami.denied {
        row(out, "", paint(style::WARN, format!("not allowed: {denied}")))?;
    }
    let mut parts = vec![plural(ami.events, "event", "events"), plural(ami.logins, "login", "logins")];
    if ami.malformed > 0 {
        parts.push(paint(style::WARN, format!("{} malformed", ami.malformed)));
    }
    if ami.behind > 0 {
        parts.push(format!("{} behind", size_text(ami.behind)));
    }
    row(out, "", parts.join(", "))
}

fn ingest(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let ingest = &status.ingest;
    let source = match ingest.cdr_source {
        Some(CdrSource::Events) => "creates come from Cdr events",
        Some(CdrSource::Store) => "creates come from the CDR store",
        Some(CdrSource::Tracker) => {
            "creates are made from what was seen: no Cdr events come (`callpost check`)"
        }
        None => "no call has ended yet",
    };
    let lag = format!("event to disk p50 {}, p99 {}", millis(ingest.lag_p50), millis(ingest.lag_p99));
    let live = match status.journal.live_calls {
        0 => "none now".to_owned(),
        calls => {
            let legs = plural(status.journal.live_legs, "leg", "legs");
            format!("{} now ({legs})", paint(style::GOOD, calls))
        }
    };
    let rate = plural(status.events_minute, "event", "events");
    row(out, "calls", format!("{live}, {rate} in the last minute; {lag}"))?;
    row(out, "", source)
}

/// Whether what went by unheard is looked for in the CDR store, and what was found.
fn reconciliation(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let about = &status.reconciliation;
    let zone = TimeZone::system();
    let since = |at: Micros| ago(status.at.secs_since(at).max(0));
    if let Some(why) = &about.off {
        return row(out, "CDRs", paint(style::DIM, format!("not reconciled: {why}")));
    }
    let mut subject = "CDRs";
    if let Some(away) = &about.away {
        let text = format!("the store cannot be read for {}: {}", since(away.since), clean(&away.what));
        row(out, subject, paint(style::BAD, text))?;
        row(out, "", "calls go on as they come; what was missed is looked for when it is back")?;
        row(out, "", format!("-> {}", away.remedy))?;
        subject = "";
    }
    let found = match &about.last {
        Some(last) => {
            let missing = match last.missing {
                0 => "none missing".to_owned(),
                missing => paint(style::WARN, format!("{missing} missing and now sent")),
            };
            let from = local(last.from, &zone, "%Y-%m-%d %H:%M");
            let creates = plural(last.creates, "create", "creates");
            format!("reconciled {} ago, back to {from}: {creates} in the store, {missing}", since(last.at))
        }
        None => "not reconciled yet".to_owned(),
    };
    let next = match (about.running, about.next) {
        (Some(at), _) => format!("; being read now, up to {}", local(at, &zone, "%Y-%m-%d %H:%M")),
        (None, Some(at)) => format!("; next in {}", ago(at.secs_since(status.at).max(0))),
        (None, None) => String::new(),
    };
    row(out, subject, format!("{found}{next}"))?;
    if let Some(last) = about.last.as_ref().filter(|last| last.put_off > 0) {
        let more = plural(last.put_off, "create", "creates");
        let why = last.hold.as_deref().map_or_else(String::new, |why| format!(": {}", clean(why)));
        let text = format!("{more} not compared yet, for a thousand wait already{why}");
        row(out, "", paint(style::WARN, text))?;
    }
    if let Some(last) = about.last.as_ref().filter(|last| last.held > 0) {
        let calls = plural(last.held, "call is", "calls are");
        row(out, "", paint(style::DIM, format!("{calls} not over, or just over: left for the next time")))?;
    }
    Ok(())
}

fn journal(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let journal = &status.journal;
    let commit = format!("commit p50 {}, p99 {}", millis(journal.commit_p50), millis(journal.commit_p99));
    let days = plural(journal.days, "day", "days");
    let used = used(journal.bytes, status.max_size);
    row(out, "journal", format!("{used}, {days} of history; {commit}"))?;
    if let Some(fault) = &journal.fault {
        row(out, "", paint(style::BAD, format!("cannot write: {}", clean(fault))))?;
        row(
            out,
            "",
            "-> free space on its disk or correct its owner; calls wait in memory, and it goes on by itself",
        )?;
    }
    if journal.lost > 0 {
        let records = plural(journal.lost, "record was", "records were");
        row(out, "", paint(style::BAD, format!("{records} lost to damage since the start")))?;
    }
    for path in &status.quarantine {
        let text = format!("put aside because it would not open: {}", path.display());
        row(out, "", paint(style::BAD, text))?;
    }
    if !status.quarantine.is_empty() {
        row(out, "", "-> see the log; remove it once nobody needs it, it takes space")?;
    }
    Ok(())
}

/// `12.3 MiB of 1 GiB`, and how much of it where that is much.
fn used(used: u64, limit: u64) -> String {
    let share = used.saturating_mul(100).checked_div(limit).unwrap_or(0);
    let text = format!("{} of {}", bytes(used), size_text(limit));
    match share {
        ..NEARLY_FULL => text,
        share => paint(style::WARN, format!("{text} ({share} %)")),
    }
}

fn routes(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    if status.routes.is_empty() {
        row(out, "routes", "none: add a [[webhook]] or a [[nimbox]]")?;
    } else {
        out.line("")?;
        let header = ["route", "to", "pending", "oldest", "delivered", "a minute", "dead", "state"];
        let of = |view: &RouteView| status.journal.routes.iter().find(|route| route.route == view.route);
        let lane = |view: &RouteView| {
            let history = view.route.history();
            let lanes = &status.journal.routes;
            // of a sink that is gone it has a row of its own
            let alone = status.routes.iter().any(|view| view.route == history);
            lanes.iter().find(|route| route.route == history && !alone)
        };
        let rows = status
            .routes
            .iter()
            .flat_map(|view| {
                [Some(cells(status, view, of(view))), lane(view).map(|lane| history(status, lane))]
            })
            .flatten()
            .collect();
        out.table(&header, rows)?;
        for view in &status.routes {
            remarks(out, status, view)?;
        }
    }
    for route in &status.journal.routes {
        of_journal(out, route)?;
    }
    conservation(out, &status.journal.routes)
}

fn cells(status: &AgentStatus, view: &RouteView, route: Option<&RouteStatus>) -> Vec<String> {
    let counters = route.map(|route| route.counters).unwrap_or_default();
    let oldest = route.and_then(|route| route.oldest).map(|oldest| ago(status.at.secs_since(oldest)));
    let health = &view.health;
    let state = match (&health.paused, health.breaker) {
        (Some(_), _) => "PAUSED".to_owned(),
        (None, BreakerState::Open { .. } | BreakerState::HalfOpen) => "FAILING".to_owned(),
        (None, BreakerState::Closed) if health.in_flight > 0 => {
            format!("{} of {} under way", health.in_flight, health.concurrency)
        }
        (None, BreakerState::Closed) => "ok".to_owned(),
    };
    vec![
        view.route.0.to_string(),
        format!("{} {}", view.kind, view.to),
        counters.pending.to_string(),
        oldest.unwrap_or_default(),
        counters.delivered.to_string(),
        view.delivered_minute.to_string(),
        counters.dead.to_string(),
        state,
    ]
}

/// The history of a route, once it had any: it goes out over the same sink when there is room.
fn history(status: &AgentStatus, lane: &RouteStatus) -> Vec<String> {
    let counters = lane.counters;
    let oldest = lane.oldest.map(|oldest| ago(status.at.secs_since(oldest)));
    let state = if counters.pending > 0 { "goes out behind the live calls" } else { "all sent" };
    vec![
        lane.route.0.to_string(),
        "history".to_owned(),
        counters.pending.to_string(),
        oldest.unwrap_or_default(),
        counters.delivered.to_string(),
        String::new(),
        counters.dead.to_string(),
        state.to_owned(),
    ]
}

/// What is wrong with a route, since when, and what to do.
fn remarks(out: &mut Out, status: &AgentStatus, view: &RouteView) -> io::Result<()> {
    let name = paint(style::NAME, &view.route.0);
    let health = &view.health;
    let since = |at: Micros| ago(status.at.secs_since(at));
    let until = |at: Micros| ago(at.secs_since(status.at).max(0));
    if let Some(paused) = &health.paused {
        let text = format!("paused for {}: {}", since(paused.since), clean(&paused.why));
        out.line(format!("{name}: {}", paint(style::BAD, text)))?;
        out.line(format!(
            "    everything is held, nothing is lost; {}",
            match paused.probe {
                Some(at) => format!("it asks again in {}", until(at)),
                None => "it does not ask again before somebody acts".to_owned(),
            }
        ))?;
        return out.line(format!("    -> {}", paused.remedy));
    }
    if let Some(failing) = &health.failing {
        let text = format!("the receiver fails for {}: {}", since(failing.since), clean(&failing.why));
        out.line(format!("{name}: {}", paint(style::BAD, text)))?;
        let next = match health.breaker {
            BreakerState::Open { until: at } => format!("one asks again in {}", until(at)),
            BreakerState::HalfOpen | BreakerState::Closed => "one asks right now".to_owned(),
        };
        out.line(format!("    deliveries wait, nothing is lost; {next}"))?;
        return out.line(format!("    -> look at {}; when it is back, all goes on by itself", view.to));
    }
    if let Some((at, error)) = health.last_error.as_ref().filter(|(at, _)| is_newer(*at, view)) {
        out.line(format!("{name}: {} ({} ago)", paint(style::WARN, clean(error)), since(*at)))?;
    }
    Ok(())
}

/// What the journal holds of a route, configured still or not.
fn of_journal(out: &mut Out, route: &RouteStatus) -> io::Result<()> {
    let name =
        if route.route.0.is_empty() { "all routes".to_owned() } else { paint(style::NAME, &route.route.0) };
    let counters = &route.counters;
    if counters.dead > 0 {
        let letters = plural(counters.dead, "dead letter", "dead letters");
        out.line(format!("{name}: {}", paint(style::BAD, letters)))?;
        out.line(format!("    -> callpost dead list --route {}", route.route.0))?;
    }
    if counters.refused > 0 {
        let refused = plural(counters.refused, "delivery", "deliveries");
        out.line(format!("{name}: {refused} refused for good by the receiver"))?;
    }
    for (reason, count) in &route.skipped {
        out.line(paint(style::DIM, format!("{name}: {count} left out: {}", clean(reason))))?;
    }
    for (reason, count) in &route.dropped {
        out.line(format!("{name}: {}", paint(style::WARN, format!("{count} dropped: {reason}"))))?;
    }
    Ok(())
}

/// Accepted is delivered, refused, pending, dead or dropped: nothing else may become of it.
fn conservation(out: &mut Out, routes: &[RouteStatus]) -> io::Result<()> {
    let all = routes.iter().fold(Counters::default(), |sum, route| {
        let more = route.counters;
        Counters {
            accepted: sum.accepted + more.accepted,
            delivered: sum.delivered + more.delivered,
            pending: sum.pending + more.pending,
            dead: sum.dead + more.dead,
            refused: sum.refused + more.refused,
            dropped: sum.dropped + more.dropped,
        }
    });
    let Counters { accepted, delivered, pending, dead, refused, dropped } = all;
    let line = format!(
        "accepted {accepted} = delivered {delivered} + refused {refused} + pending {pending} + dead {dead} + dropped {dropped}"
    );
    out.line("")?;
    let off: Vec<&RouteStatus> = routes.iter().filter(|route| route.counters.difference() != 0).collect();
    if off.is_empty() {
        return out.line(format!("{} {line}", paint(style::GOOD.bold(), "✓")));
    }
    out.line(format!("{} {line}", paint(style::BAD.bold(), "✗")))?;
    for route in off {
        let text = format!("{} is out by {}", route.route.0, route.counters.difference());
        out.line(format!("    {}; please report it, with the log", paint(style::BAD, text)))?;
    }
    Ok(())
}

/// An error that no success followed.
fn is_newer(at: Micros, view: &RouteView) -> bool {
    view.health.last_success.is_none_or(|success| success < at)
}

/// `3 d 4 h`, `12 min`, `5 s`.
pub(super) fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// `12.3 MiB`.
pub(super) fn bytes(count: u64) -> String {
    if count < 1 << 20 {
        format!("{} KiB", count >> 10)
    } else {
        format!("{}.{} MiB", count >> 20, (count >> 10) % 1024 * 10 / 1024)
    }
}
