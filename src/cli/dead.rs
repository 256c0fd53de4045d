//! `callpost dead`: deliveries that were given up, until somebody decides.

use std::collections::BTreeSet;
use std::io;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::args;
use super::ask::consent;
use super::exit::{CliError, Done};
use super::ladder::clean;
use super::leg::local;
use super::out::{Out, paint, plural, style};
use super::source::Source;
use super::status::ago;
use crate::api::{DeadQuery, PendingQuery};
use crate::calls::UpdateId;
use crate::clock;
use crate::config::Config;
use crate::journal::{DeadLetter, Payload, RouteId};

/// Characters of a reason in a list.
const SHORT: usize = 60;
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// What is done with those chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Retry,
    Drop,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<usize>,
    unknown: Vec<&'a str>,
}

pub(super) async fn dead(config: &Config, command: &args::Dead) -> Result<Done, CliError> {
    let source = Source::open(config).await?;
    let done = match command {
        args::Dead::List(args) => list(&source, args).await,
        args::Dead::Show(args) => show(&source, args).await,
        args::Dead::Retry(args) => decide(config, &source, args, Deed::Retry).await,
        args::Dead::Drop(args) => match (args.pending, &args.chosen.route) {
            (true, Some(route)) => drop_pending(config, &source, route, &args.chosen).await,
            _ => decide(config, &source, &args.chosen, Deed::Drop).await,
        },
    };
    source.close().await;
    done
}

async fn list(source: &Source, args: &args::DeadList) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let query = DeadQuery { limit: Some(args.limit), ..query(&args.ids, args.route.as_deref()) };
    let page = source.dead(&query).await?;
    if out.json() {
        for letter in &page.letters {
            out.value(letter)?;
        }
        return Ok(Done::All);
    }
    if page.letters.is_empty() {
        out.line(paint(style::DIM, none(args.route.as_deref())))?;
        return Ok(Done::All);
    }
    let now = clock::now();
    let row = |letter: &DeadLetter| {
        vec![
            letter.id.0.to_string(),
            letter.route.0.to_string(),
            what(&letter.payload),
            format!("{} ago", ago(now.secs_since(letter.died))),
            letter.attempts.to_string(),
            letter.status.map(|status| status.to_string()).unwrap_or_default(),
            cut(&clean(&letter.why)),
        ]
    };
    let header = ["id", "route", "what", "given up", "tries", "status", "why"];
    out.table(&header, page.letters.iter().map(row).collect())?;
    if page.next.is_some() {
        let all = count(source, args.route.as_deref()).await?;
        let text = format!("the oldest {} of {all}; --limit shows more", page.letters.len());
        out.line(paint(style::DIM, text))?;
    }
    if out.terminal() {
        out.line(paint(
            style::DIM,
            "callpost dead show ID tells all; dead retry sends again, dead drop gives up",
        ))?;
    }
    Ok(Done::All)
}

async fn show(source: &Source, args: &args::DeadShow) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let page = source.dead(&query(&args.ids, args.route.as_deref())).await?;
    for letter in &page.letters {
        if out.json() {
            out.value(letter)?;
        } else {
            tell(&mut out, letter)?;
        }
    }
    let unknown = unknown(&args.ids, page.letters.iter().map(|letter| &letter.id));
    if unknown.is_empty() {
        return Ok(Done::All);
    }
    let error = not_there(&unknown);
    if page.letters.is_empty() {
        return Err(error);
    }
    complain(&error);
    Ok(Done::Partly)
}

fn tell(out: &mut Out, letter: &DeadLetter) -> io::Result<()> {
    let zone = TimeZone::system();
    let now = clock::now();
    let mut row =
        |name: &str, text: String| out.line(format!("  {}  {text}", paint(style::DIM, format!("{name:<9}"))));
    row("id", paint(style::NAME.bold(), &letter.id.0))?;
    row("route", letter.route.0.to_string())?;
    row(
        "call",
        format!("{}  (callpost trace {})", letter.call.0, letter.call.0.get(..10).unwrap_or_default()),
    )?;
    row("accepted", local(letter.accepted, &zone, TIME))?;
    let after = plural(u64::from(letter.attempts), "attempt", "attempts");
    let died = local(letter.died, &zone, TIME);
    row("given up", format!("{died}, {} ago, after {after}", ago(now.secs_since(letter.died))))?;
    row("status", letter.status.map_or_else(|| "no answer".to_owned(), |status| format!("HTTP {status}")))?;
    row("why", paint(style::BAD, clean(&letter.why)))?;
    if !letter.answer.is_empty() {
        lines(&mut row, "answer", &letter.answer)?;
    }
    match &letter.payload {
        Payload::Webhook { event, body } => {
            row("event", event.clone())?;
            let pretty = serde_json::from_str::<serde_json::Value>(body)
                .and_then(|value| serde_json::to_string_pretty(&value));
            lines(&mut row, "body", pretty.as_deref().unwrap_or(body))?;
        }
        Payload::Nimbox { initiated, source, destination, duration, url } => {
            row("initiated", clean(initiated))?;
            row("source", clean(source))?;
            row("destin.", clean(destination))?;
            row("duration", duration.map_or_else(String::new, |seconds| format!("{seconds} s")))?;
            if let Some(url) = url {
                row("url", clean(url))?;
            }
        }
    }
    let id = &letter.id.0;
    let route = &letter.route.0;
    row("", paint(style::DIM, format!("-> callpost dead retry {id} --route {route}")))?;
    row("", paint(style::DIM, format!("-> callpost dead drop {id} --route {route}")))
}

/// A text of several lines beside its name.
fn lines(row: &mut impl FnMut(&str, String) -> io::Result<()>, name: &str, text: &str) -> io::Result<()> {
    for (at, line) in text.lines().enumerate() {
        row(if at == 0 { name } else { "" }, clean(line))?;
    }
    Ok(())
}

async fn decide(
    config: &Config,
    source: &Source,
    args: &args::DeadChosen,
    deed: Deed,
) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let mut query = DeadQuery { before: Some(clock::now()), ..query(&args.ids, args.route.as_deref()) };
    if args.ids.is_empty() {
        let all = count(source, args.route.as_deref()).await?;
        if all == 0 {
            known_route(config, source, args.route.as_deref()).await?;
            return end(&mut out, deed, &[], none(args.route.as_deref()), 0);
        }
        let of = args
            .route
            .as_ref()
            .map_or_else(|| "of all routes".to_owned(), |route| format!("of route {route}"));
        let letters = plural(all, "dead letter", "dead letters");
        let question = match deed {
            Deed::Retry => format!("Send {letters} {of} again?"),
            Deed::Drop => format!("Give up {letters} {of} for good?"),
        };
        if !consent(&question, args.yes)? {
            return Ok(Done::Failed);
        }
    }
    let mut done = Vec::new();
    loop {
        let page = match deed {
            Deed::Retry => source.dead_retry(&query).await?,
            Deed::Drop => source.dead_drop(&query).await?,
        };
        done.extend(page.done);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let unknown = unknown(&args.ids, done.iter().map(|(id, _)| id));
    if done.is_empty() && !unknown.is_empty() {
        return Err(not_there(&unknown));
    }
    let letters = plural(done.len() as u64, "dead letter", "dead letters");
    let text = match deed {
        Deed::Retry => format!("{letters} put back, to be sent again{}", later(config, source, &done)),
        Deed::Drop => format!("{letters} dropped"),
    };
    if !unknown.is_empty() {
        complain(&not_there(&unknown));
    }
    end(&mut out, deed, &unknown, text, done.len())
}

/// Gives up what waits for a route that nobody delivers to any more.
async fn drop_pending(
    config: &Config,
    source: &Source,
    route: &str,
    args: &args::DeadChosen,
) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    known_route(config, source, Some(route)).await?;
    // a running agent has the last word: it may not have been told of the change yet
    let named = RouteId(route.into());
    if !source.is_running() && route_names(config).contains(&&*named.sink().0) {
        let remedy = "remove or disable it first, or leave --pending out";
        let what = format!("route {route} is configured: what waits on it is delivered");
        return Err(CliError::usage(what, remedy));
    }
    let routes = source.routes().await?;
    let of = routes.iter().filter(|known| named.covers(&known.route));
    let waiting: u64 = of.map(|known| known.counters.pending).sum();
    let question =
        format!("Give up {} of route {route} for good?", plural(waiting, "delivery", "deliveries"));
    if waiting > 0 && !consent(&question, args.yes)? {
        return Ok(Done::Failed);
    }
    let query = PendingQuery { route: named };
    let mut dropped = 0;
    loop {
        match source.pending_drop(&query).await? {
            0 => break,
            some => dropped += some,
        }
    }
    if out.json() {
        out.value(&serde_json::json!({ "dropped": dropped }))?;
    } else {
        out.line(format!("{} of route {route} given up", plural(dropped, "delivery", "deliveries")))?;
    }
    Ok(Done::All)
}

fn end(out: &mut Out, deed: Deed, unknown: &[&str], text: String, count: usize) -> Result<Done, CliError> {
    if out.json() {
        out.value(&Answer {
            retried: (deed == Deed::Retry).then_some(count),
            dropped: (deed == Deed::Drop).then_some(count),
            unknown: unknown.to_vec(),
        })?;
    } else {
        out.line(text)?;
    }
    Ok(if unknown.is_empty() { Done::All } else { Done::Partly })
}

/// What keeps them from going out now.
fn later(config: &Config, source: &Source, done: &[(UpdateId, RouteId)]) -> String {
    let names = route_names(config);
    let gone: BTreeSet<RouteId> =
        done.iter().map(|(_, route)| route.sink()).filter(|sink| !names.contains(&&*sink.0)).collect();
    if !source.is_running() {
        "; no agent runs: they go out when one does".to_owned()
    } else if gone.is_empty() {
        String::new()
    } else {
        let gone: Vec<&str> = gone.iter().map(|route| &*route.0).collect();
        format!("; {} not configured: those wait until it is", gone.join(", "))
    }
}

/// Enabled sinks make routes.
pub(super) fn route_names(config: &Config) -> Vec<&str> {
    let nimbox = config.nimbox.iter().filter(|sink| sink.delivery.enabled).map(|sink| sink.name.as_str());
    let webhooks = config.webhooks.iter().filter(|sink| sink.delivery.enabled).map(|sink| sink.name.as_str());
    nimbox.chain(webhooks).collect()
}

/// A route that neither the configuration nor the journal knows is a slip of the pen.
pub(super) async fn known_route(
    config: &Config,
    source: &Source,
    route: Option<&str>,
) -> Result<(), CliError> {
    let Some(route) = route else { return Ok(()) };
    let mut names: BTreeSet<String> = route_names(config).into_iter().map(str::to_owned).collect();
    names.extend(source.routes().await?.into_iter().map(|known| known.route.0.to_string()));
    names.remove("");
    if names.contains(route) {
        return Ok(());
    }
    let remedy = if names.is_empty() {
        "leave --route out".to_owned()
    } else {
        format!("name one of {}", names.into_iter().collect::<Vec<_>>().join(", "))
    };
    Err(CliError::usage(format!("there is no route {route:?}"), remedy))
}

async fn count(source: &Source, route: Option<&str>) -> Result<u64, CliError> {
    let routes = source.routes().await?;
    let wanted = route.map(|route| RouteId(route.into()));
    let of = routes.iter().filter(|known| wanted.as_ref().is_none_or(|wanted| wanted.covers(&known.route)));
    Ok(of.map(|known| known.counters.dead).sum())
}

fn query(ids: &[String], route: Option<&str>) -> DeadQuery {
    DeadQuery {
        route: route.map(|route| RouteId(route.into())),
        ids: ids.iter().map(|id| UpdateId(id.as_str().into())).collect(),
        ..DeadQuery::default()
    }
}

fn unknown<'a>(ids: &'a [String], found: impl Iterator<Item = &'a UpdateId>) -> Vec<&'a str> {
    let found: BTreeSet<&str> = found.map(|id| &*id.0).collect();
    ids.iter().map(String::as_str).filter(|id| !found.contains(id)).collect()
}

fn not_there(ids: &[&str]) -> CliError {
    let what = format!("not among the dead letters: {}", ids.join(", "));
    CliError::failed(
        what,
        "`callpost dead list` shows those there are; these may have been retried or dropped already",
    )
}

fn complain(error: &CliError) {
    use std::io::Write;
    // where stderr is closed, the exit code still tells
    let _ = writeln!(anstream::stderr(), "{}: {error}", paint(style::WARN.bold(), "warning"));
}

fn none(route: Option<&str>) -> String {
    route.map_or_else(|| "no dead letters".to_owned(), |route| format!("no dead letters of route {route}"))
}

fn what(payload: &Payload) -> String {
    match payload {
        Payload::Webhook { event, .. } => event.clone(),
        Payload::Nimbox { .. } => "create".to_owned(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
