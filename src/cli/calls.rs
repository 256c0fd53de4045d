//! `callpost calls`: calls live and past, newest first, the legs of one whole call together.

use std::io;

use jiff::tz::TimeZone;
use parsers::Micros;

use super::exit::{CliError, Done};
use super::ladder::{Line, columns};
use super::out::Out;
use super::{args, leg, past, style};
use crate::api::LegsQuery;
use crate::calls::{LegUpdate, UpdateBody};
use crate::clock;
use crate::config::Config;
use crate::journal::LegRecord;

/// Digits of a call's `src_hash` that are shown; `trace` takes them.
const SHOWN_DIGITS: usize = 10;

/// A narrower terminal needs its columns for who and how: `call` is enough for `trace`.
const WIDE: usize = 125;

pub(super) async fn calls(config: &Config, args: &args::Calls) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let now = clock::now();
    let since = args.since.map(|since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    let query = LegsQuery {
        live: args.live,
        number: args.number.clone(),
        from: since.map(|since| now.0.saturating_sub(since)),
        limit: Some(args.limit),
        ..LegsQuery::default()
    };
    let legs = past::legs(config, &query).await?;
    if out.json() {
        for leg in &legs {
            out.value(leg)?;
        }
    } else {
        show(&mut out, &legs, args, now)?;
    }
    Ok(Done::All)
}

fn show(out: &mut Out, legs: &[LegRecord], args: &args::Calls, now: Micros) -> io::Result<()> {
    if legs.is_empty() {
        let none = if args.live { "no live calls" } else { "no calls that match in the journal" };
        return out.lines(vec![Line::new(style::DIM, none)], args.ascii);
    }
    let zone = TimeZone::system();
    // a pipe has no edge
    let width = out.terminal().then(|| out.width());
    let narrow = width.is_some_and(|width| width < WIDE);
    let time = if narrow { "%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    let call_id = if narrow { "" } else { "call_id" };
    let titles = ["", "start", "", "from", "to", "outcome", "talked", "call", call_id];
    let mut rows = vec![titles.map(|cell| Line::new(style::BOLD, cell)).to_vec()];
    for group in groups(legs) {
        for (index, (call, leg)) in group.iter().enumerate() {
            let bracket = match (index, group.len()) {
                (_, 1) => "",
                (0, _) => "┌",
                (index, count) if index + 1 == count => "└",
                _ => "│",
            };
            let hash = call.get(..SHOWN_DIGITS).unwrap_or(call);
            rows.push(vec![
                Line::new(style::DIM, bracket),
                Line::default().text(leg::local(leg.start, &zone, time)),
                leg::direction(leg),
                leg::from(leg),
                leg::to(leg),
                leg::outcome(leg),
                leg::talked(leg, now),
                Line::new(style::NAME, if index == 0 { hash } else { "" }),
                Line::new(style::DIM, if narrow { String::new() } else { leg.call_id.to_string() }),
            ]);
        }
    }
    out.lines(columns(rows, width, &[3, 4, 5]), args.ascii)
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
