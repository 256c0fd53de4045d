//! `callpost status`: how a running agent stands.

use std::io;
use std::path::Path;

use parsers::Micros;

use super::args;
use super::exit::{CliError, Done};
use super::out::{Out, paint, plural, style};
use crate::api::{AgentStatus, Client, RouteView};
use crate::calls::CdrSource;
use crate::config::{Config, size_text};
use crate::journal::RouteStatus;

/// Where the packaged service puts its socket, which a person's environment does not say.
const SERVICE_SOCKET: &str = "/run/callpost/callpost.sock";

/// For the agent of this configuration.
pub(super) fn client(config: &Config) -> Client {
    let socket = &config.api.socket;
    let default = *socket == config.journal.directory.join("callpost.sock");
    let service = Path::new(SERVICE_SOCKET);
    if default && !socket.exists() && service.exists() { Client::new(service) } else { Client::new(socket) }
}

pub(super) async fn status(config: &Config, args: &args::Status) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let status = client(config).status().await?;
    if out.json() {
        out.value(&status)?;
    } else {
        show(&mut out, &status)?;
    }
    Ok(Done::All)
}

fn show(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let up = ago(status.at.secs_since(status.started));
    out.line(format!("{} {}, pbx {}, up {up}", paint(style::BOLD, "callpost"), status.version, status.pbx))?;
    asterisk(out, status)?;
    ingest(out, status)?;
    journal(out, status)?;
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
    let open = plural(status.journal.objects, "open object", "open objects");
    row(out, "calls", format!("{open}, {}; {lag}", plural(ingest.updates, "update", "updates")))?;
    row(out, "", source)
}

fn journal(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    let journal = &status.journal;
    let commit = format!("commit p50 {}, p99 {}", millis(journal.commit_p50), millis(journal.commit_p99));
    let stores = plural(journal.generations, "generation", "generations");
    let days = plural(journal.days, "day", "days");
    row(out, "journal", format!("{}, {stores}, {days} of history; {commit}", bytes(journal.bytes)))?;
    if journal.quarantined > 0 {
        row(
            out,
            "",
            paint(style::BAD, format!("{} put aside because they would not open", journal.quarantined)),
        )?;
    }
    match &journal.fault {
        Some(fault) => row(out, "", paint(style::BAD, fault)),
        None => Ok(()),
    }
}

fn routes(out: &mut Out, status: &AgentStatus) -> io::Result<()> {
    if status.routes.is_empty() {
        return row(out, "routes", "none: add a [[webhook]] or a [[nimbox]]");
    }
    out.line("")?;
    let header = ["route", "to", "pending", "oldest", "delivered", "dead", "refused", "state"];
    let of = |view: &RouteView| status.journal.routes.iter().find(|route| route.route == view.route);
    let rows = status.routes.iter().map(|view| cells(status, view, of(view))).collect();
    out.table(&header, rows)?;
    for view in &status.routes {
        remarks(out, status, view, of(view))?;
    }
    Ok(())
}

fn cells(status: &AgentStatus, view: &RouteView, route: Option<&RouteStatus>) -> Vec<String> {
    let counters = route.map(|route| route.counters).unwrap_or_default();
    let oldest = route.and_then(|route| route.oldest).map(|oldest| ago(status.at.secs_since(oldest)));
    let state = if view.health.paused.is_some() {
        "paused".to_owned()
    } else {
        format!("{} of {} under way", view.health.in_flight, view.health.concurrency)
    };
    vec![
        view.route.0.to_string(),
        format!("{} {}", view.kind, view.to),
        counters.pending.to_string(),
        oldest.unwrap_or_default(),
        counters.delivered.to_string(),
        counters.dead.to_string(),
        counters.refused.to_string(),
        state,
    ]
}

fn remarks(
    out: &mut Out,
    status: &AgentStatus,
    view: &RouteView,
    route: Option<&RouteStatus>,
) -> io::Result<()> {
    let name = paint(style::NAME, &view.route.0);
    if let Some(paused) = &view.health.paused {
        let since = ago(status.at.secs_since(paused.since));
        out.line(format!("{name}: {} ({since} ago)", paint(style::BAD, format!("paused: {}", paused.why))))?;
        out.line(format!("    -> {}", paused.remedy))?;
    } else if let Some((at, error)) = view.health.last_error.as_ref().filter(|(at, _)| is_newer(*at, view)) {
        out.line(format!("{name}: {error} ({} ago)", ago(status.at.secs_since(*at))))?;
    }
    for (reason, count) in route.iter().flat_map(|route| &route.skipped) {
        out.line(format!("{name}: {count} left out: {reason}"))?;
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
fn bytes(count: u64) -> String {
    if count < 1 << 20 {
        format!("{} KiB", count >> 10)
    } else {
        format!("{}.{} MiB", count >> 20, (count >> 10) % 1024 * 10 / 1024)
    }
}
