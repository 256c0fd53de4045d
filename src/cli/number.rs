//! `callpost number`: what the number rules make of a number, rule by rule.

use serde::Serialize;

use super::args;
use super::exit::{CliError, Done};
use super::out::{Out, paint, style};
use crate::cdr::{Explained, ExplainedRule, Numbers};
use crate::config::Config;

#[derive(Serialize)]
struct Answer<'a> {
    route: Option<&'a str>,
    number: &'a str,
    length: usize,
    min_length: usize,
    rules: &'a [ExplainedRule],
    sent: Option<&'a str>,
    left_out: Option<&'static str>,
}

impl<'a> Answer<'a> {
    fn new(route: Option<&'a str>, explained: &'a Explained) -> Self {
        Self {
            route,
            number: &explained.number,
            length: explained.length,
            min_length: explained.min_length,
            rules: &explained.rules,
            sent: explained.result.as_deref().ok(),
            left_out: explained.result.as_ref().err().map(|why| why.text()),
        }
    }
}

pub(super) fn number(config: &Config, args: &args::Number) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    for (route, rules) in rules(config, args.route.as_deref())? {
        let explained = Numbers::new(rules).explain(&args.number);
        if out.json() {
            out.value(&Answer::new(route, &explained))?;
        } else {
            show(&mut out, route, &explained)?;
        }
    }
    Ok(Done::All)
}

/// The global rules, and those of each sink that has its own; with a route, that sink's.
fn rules<'a>(
    config: &'a Config,
    route: Option<&str>,
) -> Result<Vec<(Option<&'a str>, &'a crate::config::Numbers)>, CliError> {
    let own = |sink: &'a crate::config::Nimbox| Some((Some(sink.name.as_str()), sink.numbers.as_ref()?));
    let Some(route) = route else {
        let others = config.nimbox.iter().filter_map(own);
        return Ok([(None, &config.numbers)].into_iter().chain(others).collect());
    };
    let Some(sink) = config.nimbox.iter().find(|sink| sink.name == route) else {
        let names: Vec<_> = config.nimbox.iter().map(|sink| sink.name.as_str()).collect();
        let remedy = if names.is_empty() {
            "leave --route out".to_owned()
        } else {
            format!("name one of {}", names.join(", "))
        };
        return Err(CliError::usage(format!("no NiMbox sink {route:?} is configured"), remedy));
    };
    Ok(vec![(Some(&sink.name), sink.numbers.as_ref().unwrap_or(&config.numbers))])
}

fn show(out: &mut Out, route: Option<&str>, explained: &Explained) -> Result<(), CliError> {
    let of = route.map_or_else(|| "numbers".to_owned(), |route| format!("nimbox {route}"));
    out.line(format!("{}  {}", paint(style::BOLD, &explained.number), paint(style::DIM, format!("[{of}]"))))?;
    let Explained { length, min_length, .. } = explained;
    let long =
        if length < min_length { paint(style::BAD, "too short") } else { paint(style::GOOD, "long enough") };
    out.line(format!("  length {length}, min_length {min_length}: {long}"))?;
    for (n, rule) in explained.rules.iter().enumerate() {
        let outcome = match (&rule.made, rule.matches) {
            (Some(made), _) => paint(style::GOOD, format!("matches: {made}")),
            (None, true) => paint(style::DIM, "would match, but an earlier rule did"),
            (None, false) => paint(style::DIM, "does not match"),
        };
        out.line(format!("  rule {}  '{}' -> '{}'  {outcome}", n + 1, rule.pattern, rule.replace))?;
    }
    match &explained.result {
        Ok(number) => out.line(format!("  sent: {}", paint(style::NAME.bold(), number)))?,
        Err(why) => out.line(format!("  {}", paint(style::BAD, format!("left out: {why}"))))?,
    }
    Ok(())
}
