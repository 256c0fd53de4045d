//! `callpost backfill`: the calls of a CDR store, sent to NiMbox, or to a webhook that is named, by the
//! running agent, or by one in this process where none runs.

use std::io;
use std::time::Duration;

use jiff::tz::TimeZone;
use parsers::Micros;
use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::mpsc;

use super::args;
use super::exit::{CliError, Done};
use super::leg::local;
use super::out::{Out, paint, plural, style};
use super::progress::Show;
use super::status::client;
use crate::agent::{Agent, asked_to_stop};
use crate::api::{Client, ClientError, Frames};
use crate::cdr::{Ask, BackfillError, FULL, Frame, Progress, Span, Store, StoreError, Summary, plan};
use crate::clock;
use crate::config::Config;
use crate::journal::{Outgoing, Payload};
use crate::routes::Routes;

const TIME: &str = "%Y-%m-%d %H:%M:%S";
/// How long is waited for the answer about what is left.
const LEFT_WITHIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Dry<'a> {
    Create {
        route: &'a str,
        id: &'a str,
        initiated: &'a str,
        source: &'a str,
        destination: &'a str,
        duration: Option<u64>,
        url: Option<&'a str>,
    },
    Webhook {
        route: &'a str,
        event: &'a str,
        body: serde_json::Value,
    },
    Summary(&'a Summary),
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Last {
    Stopped { at: Option<Micros>, waiting: Option<u64> },
}

pub(super) async fn backfill(mut config: Config, args: &args::Backfill) -> Result<Done, CliError> {
    if let Some(source) = &args.source {
        let source = SecretString::from(source.clone());
        crate::cdr::source_url(&source)
            .map_err(|(what, remedy)| CliError::usage(format!("--source {what}"), remedy))?;
        config.cdr.source = Some(source);
    }
    let span = span(args, clock::now(), &config.pbx.timezone)?;
    if args.dry_run { dry(config, args, span).await } else { send(config, args, span).await }
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

/// Where lines come from.
enum Source {
    Agent(Client, Frames),
    Own(Box<Agent>, mpsc::Receiver<Frame>),
}

impl Source {
    /// The running agent, else one of this command's own.
    async fn open(config: &Config, ask: Ask) -> Result<Self, CliError> {
        let client = client(config);
        match client.backfill(&ask).await {
            Ok(frames) => Ok(Self::Agent(client, frames)),
            Err(ClientError::NotRunning(_)) => {
                let agent = Agent::start_for_backfill(config.clone()).await?;
                match agent.history().backfill(ask) {
                    Ok(frames) => Ok(Self::Own(Box::new(agent), frames)),
                    Err(why) => {
                        agent.stop().await;
                        Err(CliError::failed(why.to_string(), "try again"))
                    }
                }
            }
            Err(ClientError::NotFound(why)) => {
                Err(CliError::failed(why, "wait until it is done, or end it with Ctrl-C where it runs"))
            }
            Err(why) => Err(why.into()),
        }
    }

    async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        match self {
            Self::Agent(_, frames) => frames.next().await,
            Self::Own(_, frames) => Ok(frames.recv().await),
        }
    }

    /// Ends it; how many creates of history wait in the journal, if that can be told.
    async fn close(self, routes: &Routes) -> Option<u64> {
        match self {
            Self::Agent(client, frames) => {
                drop(frames);
                let status = tokio::time::timeout(LEFT_WITHIN, client.status()).await.ok()?.ok()?;
                let lanes: Vec<_> = routes.routes.iter().map(|route| route.id.history()).collect();
                let ours = status.journal.routes.iter().filter(|route| lanes.contains(&route.route));
                Some(ours.map(|route| route.counters.pending).sum())
            }
            Self::Own(agent, frames) => {
                drop(frames);
                let waiting = routes.waiting_history(&agent.view().journal).await.ok();
                agent.stop().await;
                waiting
            }
        }
    }
}

async fn send(config: Config, args: &args::Backfill, span: Span) -> Result<Done, CliError> {
    let routes = Routes::history(&config, args.route.as_deref()).map_err(usage)?;
    let ask = Ask {
        from: span.from,
        to: span.to,
        arguments: format!("{:?} {:?} {:?} {}", args.from, args.to, args.since, args.full),
        source: args.source.clone(),
        route: args.route.clone(),
        rate: args.rate,
    };
    let mut show = Show::new(args.output.json, config.pbx.timezone.clone(), what(&routes));
    let mut stop = std::pin::pin!(asked_to_stop());
    let mut source = tokio::select! {
        () = &mut stop => return Ok(Done::Failed),
        source = Source::open(&config, ask) => source?,
    };
    let is_own = matches!(source, Source::Own(..));
    let mut reached = None;
    let ended = loop {
        let frame = tokio::select! {
            () = &mut stop => break None,
            frame = source.next() => match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => break Some(Err(CliError::failed(
                    "the agent ended in the middle of it",
                    "what was put into its journal goes out when it runs; the same command goes on from there",
                ))),
                Err(why) => break Some(Err(why.into())),
            },
        };
        if let Frame::Progress(progress) = &frame {
            reached = Some(progress.at);
        }
        let shown = show.frame(&frame);
        match frame {
            _ if shown.is_err() => break Some(shown.map(|()| Done::All).map_err(CliError::from)),
            Frame::Begin { .. } | Frame::Progress(_) => {}
            Frame::Summary(progress) => break Some(Ok(code(&progress))),
            Frame::Failed { what, remedy, .. } => {
                let remedy = format!("{remedy}\n    the same command goes on from where it was");
                break Some(Err(CliError::failed(what, remedy)));
            }
        }
    };
    let waiting = source.close(&routes).await;
    show.end()?;
    if let Some(ended) = ended {
        return ended;
    }
    stopped(&mut show, &config, reached, waiting, is_own)?;
    Ok(Done::Failed)
}

fn stopped(
    show: &mut Show,
    config: &Config,
    reached: Option<Micros>,
    waiting: Option<u64>,
    is_own: bool,
) -> io::Result<()> {
    if show.json() {
        return show.out().value(&Last::Stopped { at: reached, waiting });
    }
    let at = reached.map_or_else(String::new, |at| format!(" at {}", local(at, &config.pbx.timezone, TIME)));
    show.out().line(format!("stopped reading{at}; the same command goes on from there"))?;
    let goes = if is_own { "go out when an agent runs" } else { "go on being delivered by the agent" };
    match waiting {
        Some(0) => show.out().line("nothing of it waits in the journal"),
        Some(count) => show.out().line(format!(
            "{} in the journal and {goes}",
            plural(count, "delivery waits", "deliveries wait")
        )),
        None => show.out().line(format!("those that wait in the journal {goes}")),
    }
}

/// What is sent there: one, many.
fn what(routes: &Routes) -> (&'static str, &'static str) {
    let is_webhook = routes.routes.iter().any(|route| route.kind() == "webhook");
    if is_webhook { ("webhook", "webhooks") } else { ("create", "creates") }
}

fn code(progress: &Progress) -> Done {
    if progress.refused.is_empty() && progress.dead == 0 { Done::All } else { Done::Partly }
}

/// The creates, without sending any.
async fn dry(config: Config, args: &args::Backfill, span: Span) -> Result<Done, CliError> {
    let routes = Routes::history(&config, args.route.as_deref()).map_err(usage)?;
    let mut store = Store::open(&config.cdr, &config.pbx.timezone).await.map_err(failed)?;
    let mut out = Out::new(args.output.json);
    for (what, remedy) in &store.about().warnings {
        out.note(format!("{} {what}\n    -> {remedy}", paint(style::WARN, "warning:")))?;
    }
    let each = |create: &Outgoing| show(&mut out, create);
    let summary = plan(&mut store, span, &config.pbx.name, &routes, each).await.map_err(|why| match why {
        BackfillError::Store(why) => failed(why),
        BackfillError::Taker(why) => CliError::Output(why),
    })?;
    finish(&mut out, &summary, what(&routes))?;
    Ok(Done::All)
}

fn show(out: &mut Out, create: &Outgoing) -> io::Result<()> {
    let (initiated, source, destination, duration, url) = match &create.payload {
        Payload::Nimbox { initiated, source, destination, duration, url } => {
            (initiated, source, destination, duration, url)
        }
        Payload::Webhook { body, .. } if !out.json() => return out.line(body),
        Payload::Webhook { event, body } => {
            let body = serde_json::from_str(body).unwrap_or_default();
            return out.value(&Dry::Webhook { route: &create.route.0, event, body });
        }
    };
    if out.json() {
        return out.value(&Dry::Create {
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

fn finish(out: &mut Out, summary: &Summary, (one, many): (&str, &str)) -> Result<(), CliError> {
    if out.json() {
        out.value(&Dry::Summary(summary))?;
        return Ok(());
    }
    let Summary { read, calls, creates, left_out } = summary;
    out.line(paint(
        style::BOLD,
        format!(
            "{}, {}, {}; nothing was sent",
            plural(*read, "row read", "rows read"),
            plural(*calls, "call", "calls"),
            plural(*creates, one, many)
        ),
    ))?;
    for (why, count) in left_out {
        out.line(format!("  left out: {count}  {why}"))?;
    }
    Ok(())
}

fn usage((what, remedy): (String, String)) -> CliError {
    CliError::usage(what, remedy)
}

fn failed(why: StoreError) -> CliError {
    CliError::failed(format!("failed to read the CDR store: {}", why.what), why.remedy)
}
