//! `callpost calls`: calls live and past, newest first, the legs of one whole call together.

use jiff::tz::TimeZone;
use parsers::Micros;

use super::exit::{CliError, Done};
use super::ladder::{Line, clean, columns};
use super::leg::Words;
use super::moment::is_today;
use super::out::Out;
use super::{args, leg, past, style};
use crate::api::LegsQuery;
use crate::calls::{LegUpdate, UpdateBody};
use crate::clock;
use crate::config::Config;
use crate::journal::LegRecord;

/// Digits of a call's `src_hash` that are shown; `trace` takes them.
const SHOWN_DIGITS: usize = 10;
/// On a narrow terminal.
const FEW_DIGITS: usize = 8;

/// A narrower terminal needs its columns for who and how: `call` is enough for `trace`.
const WIDE: usize = 125;
/// A still narrower one has room for few words.
const NARROW: usize = 105;

pub(super) async fn calls(config: &Config, args: &args::Calls) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let (now, zone) = (clock::now(), TimeZone::system());
    let query = query(args, now, &zone);
    let legs = past::legs(config, &query).await?;
    if out.json() {
        for leg in &legs {
            out.value(leg)?;
        }
    } else if legs.is_empty() {
        out.lines(vec![Line::new(style::DIM, nothing(args))], args.ascii)?;
    } else {
        // a pipe has no edge
        let width = out.terminal().then(|| out.width());
        let mut lines = table(&legs, width, now, &zone);
        if legs.len() == args.limit {
            let more =
                format!("the newest {} legs; more with --limit, others with --from and --to", args.limit);
            lines.push(Line::new(style::DIM, more));
        }
        out.lines(lines, args.ascii)?;
    }
    Ok(Done::All)
}

fn query(args: &args::Calls, now: Micros, zone: &TimeZone) -> LegsQuery {
    let since = args.since.map(|since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    let since = since.map(|since| Micros(now.0.saturating_sub(since)));
    let from = args.from.map(|from| from.begin(zone, now));
    LegsQuery {
        live: args.live,
        missed: args.missed,
        number: args.number.clone(),
        from: since.or(from).map(|at| at.0),
        to: args.to.map(|to| to.end(zone, now).0),
        limit: Some(args.limit),
        ..LegsQuery::default()
    }
}

/// What to say of an empty answer.
fn nothing(args: &args::Calls) -> String {
    if args.live {
        return "no live calls".to_owned();
    }
    let calls = if args.missed { "no missed calls" } else { "no calls" };
    match &args.number {
        Some(number) => {
            format!("{calls} from or to {} in the journal (a number is matched whole)", clean(number))
        }
        None if args.since.is_some() || args.from.is_some() || args.to.is_some() => {
            format!("{calls} of that time in the journal")
        }
        None => format!("{calls} in the journal"),
    }
}

fn table(legs: &[LegRecord], width: Option<usize>, now: Micros, zone: &TimeZone) -> Vec<Line> {
    let below = |limit: usize| width.is_some_and(|width| width < limit);
    let (short, few) = (below(WIDE), below(NARROW));
    let words = if few { Words::Few } else { Words::All };
    let digits = if few { FEW_DIGITS } else { SHOWN_DIGITS };
    let mut titles = vec!["", "start", "", "from", "to", "outcome", "talked", "call"];
    if few {
        // what is from a user goes out
        titles.remove(2);
    }
    if !short {
        titles.push("call_id");
    }
    let all_today = legs.iter().filter_map(start).all(|at| is_today(at, now, zone));
    let time = match (short, all_today) {
        (false, _) => "%Y-%m-%d %H:%M:%S",
        (true, true) => "%H:%M:%S",
        (true, false) => "%m-%d %H:%M:%S",
    };
    let mut rows = vec![titles.iter().map(|cell| Line::new(style::BOLD, *cell)).collect()];
    for group in groups(legs) {
        for (index, (call, leg)) in group.iter().enumerate() {
            let bracket = match (index, group.len()) {
                (_, 1) => "",
                (0, _) => "┌",
                (index, count) if index + 1 == count => "└",
                _ => "│",
            };
            let hash = call.get(..digits).unwrap_or(call);
            let mut row =
                vec![Line::new(style::DIM, bracket), Line::default().text(leg::local(leg.start, zone, time))];
            if !few {
                row.push(leg::direction(leg));
            }
            row.extend([
                leg::from(leg, words),
                leg::to(leg, words),
                leg::outcome(leg, words),
                leg::talked(leg, now),
                Line::new(style::NAME, if index == 0 { hash } else { "" }),
            ]);
            if !short {
                row.push(Line::new(style::DIM, leg.call_id.to_string()));
            }
            rows.push(row);
        }
    }
    columns(rows, width, if few { &[2, 3, 4] } else { &[3, 4, 5] })
}

fn start(record: &LegRecord) -> Option<Micros> {
    match &record.body {
        UpdateBody::Leg(leg) => Some(leg.start),
        UpdateBody::Sms(_) => None,
    }
}

/// The legs of each whole call in order of their beginning, the newest call first.
fn groups(legs: &[LegRecord]) -> Vec<Vec<(&str, &LegUpdate)>> {
    let mut groups: Vec<Vec<(&str, &LegUpdate)>> = Vec::new();
    for record in legs {
        let UpdateBody::Leg(leg) = &record.body else { continue };
        let call = &*record.call.0;
        match groups.iter_mut().find(|group| group.first().is_some_and(|(known, _)| *known == call)) {
            Some(group) => group.push((call, leg)),
            None => groups.push(vec![(call, leg)]),
        }
    }
    for group in &mut groups {
        group.sort_by_key(|(_, leg)| leg.start);
    }
    groups
}
