//! `callpost backfill --dry-run`: the creates that a CDR store's history comes to.

use std::time::Duration;

use jiff::tz::TimeZone;
use parsers::Micros;
use secrecy::SecretString;
use serde::Serialize;

use super::args;
use super::exit::{CliError, Done};
use super::out::{Out, paint, plural, style};
use crate::cdr::{BackfillError, Span, Store, StoreError, Summary, plan};
use crate::clock;
use crate::config::Config;
use crate::journal::{Outgoing, Payload};
use crate::routes::Routes;

/// The script's.
const FULL: Duration = Duration::from_secs(360 * 86_400);

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Frame<'a> {
    Create {
        route: &'a str,
        id: &'a str,
        initiated: &'a str,
        source: &'a str,
        destination: &'a str,
        duration: Option<u64>,
        url: Option<&'a str>,
    },
    Summary(&'a Summary),
}

pub(super) async fn backfill(mut config: Config, args: &args::Backfill) -> Result<Done, CliError> {
    if !args.dry_run {
        let what =
            format!("sending history is not available in this version ({})", env!("CARGO_PKG_VERSION"));
        return Err(CliError::usage(what, "add --dry-run to see what it comes to"));
    }
    if let Some(source) = &args.source {
        let source = SecretString::from(source.clone());
        crate::cdr::source_url(&source)
            .map_err(|(what, remedy)| CliError::usage(format!("--source {what}"), remedy))?;
        config.cdr.source = Some(source);
    }
    keep_route(&mut config, args.route.as_deref())?;
    let span = span(args, clock::now(), &config.pbx.timezone)?;
    let mut store = Store::open(&config.cdr, &config.pbx.timezone).await.map_err(failed)?;
    let mut out = Out::new(args.output.json);
    for (what, remedy) in &store.about().warnings {
        out.note(format!("{} {what}\n    -> {remedy}", paint(style::WARN, "warning:")))?;
    }
    let routes = Routes::new(&config);
    let each = |create: &Outgoing| show(&mut out, create);
    let summary = plan(&mut store, span, &config.pbx.name, &routes, each).await.map_err(|why| match why {
        BackfillError::Store(why) => failed(why),
        BackfillError::Taker(why) => CliError::Output(why),
    })?;
    finish(&mut out, &summary)?;
    Ok(Done::All)
}

/// Leaves one NiMbox sink, or all of them.
fn keep_route(config: &mut Config, route: Option<&str>) -> Result<(), CliError> {
    let names: Vec<_> = config.nimbox.iter().map(|sink| sink.name.clone()).collect();
    if let Some(route) = route {
        config.nimbox.retain(|sink| sink.name == route);
    }
    if config.nimbox.iter().any(|sink| sink.delivery.enabled) {
        return Ok(());
    }
    let what = match route {
        Some(route) => format!("no NiMbox sink {route:?} is configured and enabled"),
        None => "no NiMbox sink is configured and enabled, so history goes nowhere".to_owned(),
    };
    let remedy = if names.is_empty() {
        "add a [[nimbox]]".to_owned()
    } else {
        format!("name one of {}", names.join(", "))
    };
    Err(CliError::usage(what, remedy))
}

fn span(args: &args::Backfill, now: Micros, zone: &TimeZone) -> Result<Span, CliError> {
    let back = |time: Duration| now.plus_millis(-i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let from = match (args.from, args.since) {
        (Some(from), _) => from.begin(zone, now),
        (None, Some(since)) => back(since),
        (None, None) => back(FULL),
    };
    let to = args.to.map_or(now, |to| to.end(zone, now));
    if from < to {
        return Ok(Span { from, to });
    }
    Err(CliError::usage("no time lies between --from and --to", "give the earlier as --from"))
}

fn show(out: &mut Out, create: &Outgoing) -> std::io::Result<()> {
    let Payload::Nimbox { initiated, source, destination, duration, url } = &create.payload else {
        return Ok(());
    };
    if out.json() {
        return out.value(&Frame::Create {
            route: &create.route.0,
            id: &create.id.0,
            initiated,
            source,
            destination,
            duration: *duration,
            url: url.as_deref(),
        });
    }
    let seconds = duration.map_or_else(String::new, |seconds| format!("{seconds} s"));
    let url = url.as_deref().map_or_else(String::new, |url| format!("  {}", paint(style::DIM, url)));
    out.line(format!(
        "{initiated}  {source} -> {destination}  {seconds}  {}{url}",
        paint(style::NAME, &create.route.0)
    ))
}

fn finish(out: &mut Out, summary: &Summary) -> Result<(), CliError> {
    if out.json() {
        out.value(&Frame::Summary(summary))?;
        return Ok(());
    }
    let Summary { read, calls, creates, left_out } = summary;
    out.line(paint(
        style::BOLD,
        format!(
            "{}, {}, {}; nothing was sent",
            plural(*read, "row read", "rows read"),
            plural(*calls, "call", "calls"),
            plural(*creates, "create", "creates")
        ),
    ))?;
    for (why, count) in left_out {
        out.line(format!("  left out: {count}  {why}"))?;
    }
    Ok(())
}

fn failed(why: StoreError) -> CliError {
    CliError::failed(format!("failed to read the CDR store: {}", why.what), why.remedy)
}
