//! `callpost calls`: calls live and past, newest first, the legs of one whole call together.

use jiff::tz::TimeZone;
use parsers::Micros;

use super::exit::{CliError, Done};
use super::ladder::{Line, clean, columns, natural_width};
use super::leg::Words;
use super::moment::is_today;
use super::out::Out;
use super::{args, leg, past, style};
use crate::api::LegsQuery;
use crate::calls::{LegUpdate, UpdateBody};
use crate::clock;
use crate::config::Config;
use crate::journal::LegRecord;

/// What a row says, as there is room.
struct Form {
    words: Words,
    /// Digits of a call's `src_hash`; `trace` takes them.
    digits: usize,
    /// `in` or `out`; without it, what is from a user goes out.
    direction: bool,
    /// The day, even if it is today, and the `call_id`.
    exact: bool,
}

/// From the widest to the narrowest.
const FORMS: [Form; 3] = [
    Form { words: Words::All, digits: 10, direction: true, exact: true },
    Form { words: Words::All, digits: 10, direction: true, exact: false },
    Form { words: Words::Few, digits: 8, direction: false, exact: false },
];

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

/// In the first form that fits; the last one gives way where it does not.
fn table(legs: &[LegRecord], width: Option<usize>, now: Micros, zone: &TimeZone) -> Vec<Line> {
    let mut rows = Vec::new();
    for form in FORMS {
        rows = form.rows(legs, now, zone);
        if width.is_none_or(|width| natural_width(&rows) <= width) {
            break;
        }
    }
    columns(rows, width, &[2, 3, 4])
}

impl Form {
    fn rows(&self, legs: &[LegRecord], now: Micros, zone: &TimeZone) -> Vec<Vec<Line>> {
        let bold = |text: &str| Line::new(style::BOLD, text);
        let mut titles = vec![bold(""), bold("start")];
        titles.extend(self.direction.then(|| bold("")));
        titles.extend(["from", "to", "outcome", "talked", "call"].map(bold));
        titles.extend(self.exact.then(|| bold("call_id")));
        let all_today = legs.iter().filter_map(start).all(|at| is_today(at, now, zone));
        let time = match (self.exact, all_today) {
            (true, _) => "%Y-%m-%d %H:%M:%S",
            (false, true) => "%H:%M:%S",
            (false, false) => "%m-%d %H:%M:%S",
        };
        let mut rows = vec![titles];
        for group in groups(legs) {
            for (index, (call, leg)) in group.iter().enumerate() {
                let bracket = match (index, group.len()) {
                    (_, 1) => "",
                    (0, _) => "┌",
                    (index, count) if index + 1 == count => "└",
                    _ => "│",
                };
                let hash = call.get(..self.digits).unwrap_or(call);
                let mut row = vec![
                    Line::new(style::DIM, bracket),
                    Line::default().text(leg::local(leg.start, zone, time)),
                ];
                row.extend(self.direction.then(|| leg::direction(leg)));
                row.extend([
                    leg::from(leg, self.words),
                    leg::to(leg, self.words),
                    leg::outcome(leg, self.words),
                    leg::talked(leg, now),
                    Line::new(style::NAME, if index == 0 { hash } else { "" }),
                ]);
                row.extend(self.exact.then(|| Line::new(style::DIM, leg.call_id.to_string())));
                rows.push(row);
            }
        }
        rows
    }
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
