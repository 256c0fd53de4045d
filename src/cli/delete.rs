//! `callpost delete`: removes a range of days from a NiMbox, for good.

use std::io::Write as _;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::Serialize;

use super::args;
use super::ask::consent;
use super::exit::{CliError, Done};
use super::out::{Out, paint, plural, style};
use super::past::{journal, unreadable};
use super::status::client;
use crate::api::ClientError;
use crate::cdr::note_deleted;
use crate::clock;
use crate::config::{Config, Nimbox};
use crate::journal::{DeletedDays, RouteId};
use crate::sinks::{Class, Deleted, NimboxSink, Outcome};

/// The days that are deleted, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days {
    first: Date,
    last: Date,
}

#[derive(Serialize)]
struct Report<'a> {
    route: &'a str,
    from: String,
    to: String,
    first_day: String,
    last_day: String,
    deleted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_noted: Option<String>,
}

pub(super) async fn delete(config: &Config, args: &args::Delete) -> Result<Done, CliError> {
    let sink = sink(config, args.route.as_deref())?;
    let days = days(args.from, args.to)?;
    let client = NimboxSink::new(sink);
    let mut out = Out::new(args.output.json);
    if !args.yes && !confirmed(&meaning(sink, &client.host(), args, days))? {
        return Ok(Done::Failed);
    }
    let deleted = client.delete(&args.from.to_string(), &args.to.to_string()).await;
    let noted = match &deleted {
        Deleted::Count(_) => note(config, &sink.name, args).await,
        Deleted::Failed(_) => Ok(()),
    };
    report(&mut out, sink, args, days, &deleted, noted.err().as_ref())
}

/// Tells the journal, the agent's where one runs: what it knows of these days is not there any more.
async fn note(config: &Config, route: &str, args: &args::Delete) -> Result<(), CliError> {
    let days = DeletedDays { route: RouteId(route.into()), from: args.from, to: args.to };
    match client(config).deleted(&days).await {
        // who never ran knows of nothing
        Err(ClientError::NotRunning(_)) if !config.journal.directory.join("outbox").exists() => Ok(()),
        Err(ClientError::NotRunning(socket)) => {
            let journal = journal(config, ClientError::NotRunning(socket)).await?;
            let noted = note_deleted(&journal, &days, clock::now()).await;
            journal.close().await;
            noted.map_err(|why| unreadable(&why))
        }
        told => Ok(told?),
    }
}

/// The only NiMbox there is, or the one that is named: nobody deletes in the wrong one by default.
fn sink<'a>(config: &'a Config, route: Option<&str>) -> Result<&'a Nimbox, CliError> {
    let names: Vec<_> = config.nimbox.iter().map(|sink| sink.name.as_str()).collect();
    let sink = match (route, &config.nimbox[..]) {
        (_, []) => {
            let what = "no NiMbox sink is configured, so there is nothing to delete from";
            return Err(CliError::usage(what, "add a [[nimbox]], or name another file with --config"));
        }
        (None, [only]) => only,
        (None, _) => {
            let what = format!("{} NiMbox sinks are configured", names.len());
            return Err(CliError::usage(what, format!("say which: --route {}", names.join(" or --route "))));
        }
        (Some(route), sinks) => sinks.iter().find(|sink| sink.name == route).ok_or_else(|| {
            let what = format!("no NiMbox sink {route:?} is configured");
            CliError::usage(what, format!("name one of {}", names.join(", ")))
        })?,
    };
    if sink.delivery.enabled {
        return Ok(sink);
    }
    let what = format!("the NiMbox sink {:?} is switched off (enabled = false)", sink.name);
    Err(CliError::usage(what, "set enabled = true if it is to be talked to"))
}

/// NiMbox leaves out both dates that it is given.
fn days(from: Date, to: Date) -> Result<Days, CliError> {
    let edges = || Some((from.checked_add(1.day()).ok()?, to.checked_sub(1.day()).ok()?));
    if let Some((first, last)) = edges().filter(|(first, last)| first <= last) {
        return Ok(Days { first, last });
    }
    let what = format!("no day lies between {from} and {to}: both dates are left out");
    let around = |day: Date| Some((day.checked_sub(1.day()).ok()?, day.checked_add(1.day()).ok()?));
    let remedy = match around(from.min(to)).zip(around(from.max(to))) {
        Some(((before, _), (_, after))) => {
            format!("for {from} to {to} themselves give --from {before} --to {after}")
        }
        None => "give the day before the first and the day after the last".to_owned(),
    };
    Err(CliError::usage(what, remedy))
}

/// What is about to be done, in words.
fn meaning(sink: &Nimbox, host: &str, args: &args::Delete, days: Days) -> Vec<String> {
    let Days { first, last } = days;
    let count = (last - first).get_days().unsigned_abs() + 1;
    let named = |day: Date| format!("{} {day}", day.strftime("%A"));
    let range = if first == last {
        format!("of {}", named(first))
    } else {
        format!("from {} to {}, both included, {count} days", named(first), named(last))
    };
    vec![
        format!(
            "NiMbox {} at {}: every call {}",
            paint(style::NAME, &sink.name),
            paint(style::NAME, host),
            paint(style::BOLD, range)
        ),
        format!("{} and {} themselves stay: NiMbox leaves both dates out", args.from, args.to),
        "whoever sent them, another PBX or the script too; it cannot be undone".to_owned(),
        "what is still to be delivered of these days is sent all the same; what was deleted comes back \
         only by an explicit backfill"
            .to_owned(),
    ]
}

/// Says it where the question is asked, next to the output if that goes elsewhere.
fn confirmed(meaning: &[String]) -> Result<bool, CliError> {
    let mut stream = anstream::stderr();
    for line in meaning {
        writeln!(stream, "{line}")?;
    }
    consent("Delete them for good?", false)
}

fn report(
    out: &mut Out,
    sink: &Nimbox,
    args: &args::Delete,
    days: Days,
    deleted: &Deleted,
    not_noted: Option<&CliError>,
) -> Result<Done, CliError> {
    let done = if not_noted.is_some() { Done::Partly } else { Done::All };
    let failed = match deleted {
        Deleted::Count(_) => None,
        Deleted::Failed(outcome) => Some(outcome),
    };
    if out.json() {
        out.value(&Report {
            route: &sink.name,
            from: args.from.to_string(),
            to: args.to.to_string(),
            first_day: days.first.to_string(),
            last_day: days.last.to_string(),
            deleted: if let Deleted::Count(count) = deleted { Some(*count) } else { None },
            error: failed.map(|outcome| outcome.why.as_str()),
            answer: failed.map(|outcome| outcome.answer.as_str()).filter(|answer| !answer.is_empty()),
            not_noted: not_noted.map(ToString::to_string),
        })?;
        return Ok(if failed.is_some() { Done::Failed } else { done });
    }
    match deleted {
        Deleted::Count(count) => {
            let count = paint(style::BOLD, plural(*count, "call", "calls"));
            let Days { first, last } = days;
            out.line(format!("{count} deleted from {}, {first} to {last}", paint(style::NAME, &sink.name)))?;
            if let Some(why) = not_noted {
                complain(why);
            }
            Ok(done)
        }
        Deleted::Failed(outcome) => Err(failure(&sink.name, outcome)),
    }
}

fn complain(why: &CliError) {
    let warning = paint(style::WARN.bold(), "warning");
    // where stderr is closed, the exit code still tells
    let _ = writeln!(
        anstream::stderr(),
        "{warning}: the journal could not be told, so a backfill will take these calls for delivered: {why}\n    \
         -> then give the same command again; deleting twice does no harm"
    );
}

fn failure(route: &str, outcome: &Outcome) -> CliError {
    let mut what = format!("failed to delete from {route}: {}", outcome.why);
    if !outcome.answer.is_empty() {
        what.push_str(&format!("\n    NiMbox answered: {}", outcome.answer));
    }
    let remedy = match outcome.class {
        Class::Refused => "nothing was deleted; correct what NiMbox names",
        Class::Unauthorized => {
            "nothing was deleted; correct the token, username, password or url of the sink"
        }
        Class::Unreachable | Class::Unreadable | Class::Delivered | Class::Duplicate => {
            "it may have been done all the same; asking again does no harm"
        }
        Class::Moved
        | Class::Invalid
        | Class::Gone
        | Class::Certificate
        | Class::Forbidden
        | Class::Unusable
        | Class::Mismatch => "nothing was deleted; `callpost check` looks at the sink",
        Class::Throttled | Class::Overloaded | Class::Unavailable => "try again later",
    };
    CliError::failed(what, remedy)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn the_days_are_those_between_the_two_dates() {
        let table = [
            ("2012-08-23", "2012-08-25", Some(("2012-08-24", "2012-08-24"))),
            ("2012-02-28", "2012-03-02", Some(("2012-02-29", "2012-03-01"))),
            ("2012-12-31", "2014-01-01", Some(("2013-01-01", "2013-12-31"))),
            ("2012-08-23", "2012-08-24", None),
            ("2012-08-23", "2012-08-23", None),
            ("2012-08-25", "2012-08-23", None),
            ("9999-12-30", "9999-12-31", None),
        ];
        for (from, to, expected) in table {
            let got = days(date(from), date(to)).ok();
            let expected = expected.map(|(first, last)| Days { first: date(first), last: date(last) });
            assert_eq!(got, expected, "{from} {to}");
        }
    }

    #[test]
    fn a_range_without_a_day_says_how_to_write_the_one_that_was_meant() {
        let remedy = |from, to| days(date(from), date(to)).unwrap_err().to_string();
        assert!(remedy("2012-08-23", "2012-08-23").contains("--from 2012-08-22 --to 2012-08-24"));
        assert!(remedy("2012-08-24", "2012-08-23").contains("--from 2012-08-22 --to 2012-08-25"));
        assert!(remedy("9999-12-31", "9999-12-31").contains("the day before the first"));
    }
}
