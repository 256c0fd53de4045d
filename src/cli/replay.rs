//! `callpost replay`: sends again what the journal still holds, with the ids it had.

use jiff::tz::TimeZone;
use parsers::Micros;
use serde::Serialize;

use super::args;
use super::ask::consent;
use super::dead::{known_route, route_names};
use super::exit::{CliError, Done};
use super::leg::local;
use super::out::{Out, paint, plural, style};
use super::source::Source;
use crate::api::ReplayAnswer;
use crate::calls::UpdateId;
use crate::clock;
use crate::config::Config;
use crate::journal::{RouteId, Selection};

const TIME: &str = "%Y-%m-%d %H:%M:%S";

#[derive(Serialize)]
struct Answer<'a> {
    from: Micros,
    to: Micros,
    sent: bool,
    #[serde(flatten)]
    answer: &'a ReplayAnswer,
}

pub(super) async fn replay(config: &Config, args: &args::Replay) -> Result<Done, CliError> {
    let source = Source::open(config).await?;
    let done = replay_from(config, &source, args).await;
    source.close().await;
    done
}

async fn replay_from(config: &Config, source: &Source, args: &args::Replay) -> Result<Done, CliError> {
    let zone = TimeZone::system();
    let now = clock::now();
    let from = args.from.begin(&zone, now);
    let to = args.to.map_or(now, |to| to.end(&zone, now)).min(now);
    if from >= to {
        let what =
            format!("--from {} is not before --to {}", local(from, &zone, TIME), local(to, &zone, TIME));
        return Err(CliError::usage(what, "give a time that begins before it ends and before now"));
    }
    known_route(config, source, args.route.as_deref()).await?;
    let what = Selection {
        from: Some(from),
        to: Some(to),
        route: args.route.as_ref().map(|route| RouteId(route.as_str().into())),
        id: args.id.as_ref().map(|id| UpdateId(id.as_str().into())),
    };
    let mut out = Out::new(args.output.json);
    let counted = source.replay_count(&what).await?;
    let all = counted.replayed.settled + counted.replayed.dead;
    if !out.json() {
        out.line(format!("accepted from {} to {}", local(from, &zone, TIME), local(to, &zone, TIME)))?;
        tell(&mut out, config, args, &counted)?;
        gone(&mut out, from, &counted)?;
    }
    if args.dry_run || all == 0 {
        if out.json() {
            out.value(&Answer { from, to, sent: false, answer: &counted })?;
        } else if args.dry_run && all > 0 {
            out.line("nothing was sent: --dry-run")?;
        }
        return Ok(Done::All);
    }
    let deliveries = plural(all, "delivery", "deliveries");
    if !consent(&format!("Send {deliveries} again?"), args.yes)? {
        return Ok(Done::Failed);
    }
    let sent = source.replay(&what).await?;
    if out.json() {
        out.value(&Answer { from, to, sent: true, answer: &sent })?;
    } else {
        let count = plural(sent.replayed.settled + sent.replayed.dead, "delivery", "deliveries");
        let when = if source.is_running() { "" } else { "; no agent runs: they go out when one does" };
        out.line(format!("{count} put back, to be sent again with the same ids{when}"))?;
    }
    Ok(Done::All)
}

fn tell(out: &mut Out, config: &Config, args: &args::Replay, counted: &ReplayAnswer) -> Result<(), CliError> {
    let replayed = &counted.replayed;
    let to = args.route.as_ref().map_or_else(|| "every route".to_owned(), |route| format!("route {route}"));
    let settled =
        plural(replayed.settled, "delivery that was made or refused", "deliveries that were made or refused");
    let dead = plural(replayed.dead, "dead letter", "dead letters");
    out.line(format!("  {settled}, and {dead}, to {to}"))?;
    if replayed.waiting > 0 {
        let wait = plural(replayed.waiting, "more waits", "more wait");
        out.line(format!("  {wait} for the receiver already and go out by themselves"))?;
    }
    let is_configured = |route: &&str| route_names(config).contains(&&*RouteId((*route).into()).sink().0);
    if let Some(route) = args.route.as_deref().filter(|route| !is_configured(route)) {
        let text = format!("  route {route} is not configured: what is put back waits until it is");
        out.line(paint(style::WARN, text))?;
    }
    Ok(())
}

/// What the journal has let go can be had from the CDR store alone.
fn gone(out: &mut Out, from: Micros, counted: &ReplayAnswer) -> Result<(), CliError> {
    let first = counted.held_since.as_deref().and_then(|day| format!("{day}T00:00:00Z").parse().ok());
    let first = first.map(|first: jiff::Timestamp| Micros(first.as_microsecond()));
    if let (Some(first), Some(day)) = (first, &counted.held_since)
        && from < first
    {
        let text = format!(
            "  the journal holds nothing from before {day} (UTC): [journal] keep and max_size say how long"
        );
        out.line(paint(style::WARN, text))?;
        out.line("    -> older calls are in Asterisk's CDR store alone")?;
    }
    Ok(())
}
