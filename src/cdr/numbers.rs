//! The number rules: what NiMbox gets to see of a number that was dialled.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;
use serde::Serialize;

use crate::config;

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct Numbers {
    min_length: usize,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Regex,
    replace: String,
}

/// Why a number is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// Fewer characters than `min_length`.
    TooShort,
    /// The rule left nothing of it.
    Empty,
}

impl Dropped {
    /// For people: fits after "left out:".
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooShort => "destination shorter than min_length",
            Self::Empty => "number rule left nothing of the destination",
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the rules made of a number, rule by rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// As it was dialled.
    pub number: String,
    /// Its length in characters.
    pub length: usize,
    /// What is demanded.
    pub min_length: usize,
    /// Every rule, in order; empty when the number is too short.
    pub rules: Vec<ExplainedRule>,
    /// What is sent.
    pub result: Result<String, Dropped>,
}

/// One rule of an [`Explained`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedRule {
    /// `match`.
    pub pattern: String,
    /// `replace`.
    pub replace: String,
    /// Whether it fits the number.
    pub matches: bool,
    /// What it made: only of the first that fits; the others are not applied.
    pub made: Option<String>,
}

impl Numbers {
    /// From the configuration.
    pub fn new(config: &config::Numbers) -> Self {
        let rule = |rule: &config::NumberRule| Rule {
            pattern: rule.pattern.clone(),
            replace: braced(&rule.replace),
        };
        Self { min_length: config.min_length, rules: config.rules.iter().map(rule).collect() }
    }

    /// Whether a number is long enough; all that is asked of an inbound destination.
    pub fn accept(&self, number: &str) -> Result<(), Dropped> {
        if number.chars().count() < self.min_length { Err(Dropped::TooShort) } else { Ok(()) }
    }

    /// What is sent of an outbound destination: the first rule that matches is applied.
    pub fn apply<'n>(&self, number: &'n str) -> Result<Cow<'n, str>, Dropped> {
        self.accept(number)?;
        let rule = self.rules.iter().find(|rule| rule.pattern.is_match(number));
        let made = rule.map_or(Cow::Borrowed(number), |rule| rule.make(number));
        if made.is_empty() { Err(Dropped::Empty) } else { Ok(made) }
    }

    /// The same, rule by rule.
    pub fn explain(&self, number: &str) -> Explained {
        let mut rules: Vec<ExplainedRule> = Vec::new();
        if self.accept(number).is_ok() {
            for rule in &self.rules {
                let matches = rule.pattern.is_match(number);
                let first = matches && !rules.iter().any(|before| before.matches);
                rules.push(ExplainedRule {
                    pattern: rule.pattern.as_str().to_owned(),
                    replace: rule.replace.clone(),
                    matches,
                    made: first.then(|| rule.make(number).into_owned()),
                });
            }
        }
        Explained {
            number: number.to_owned(),
            length: number.chars().count(),
            min_length: self.min_length,
            rules,
            result: self.apply(number).map(Cow::into_owned),
        }
    }
}

impl Rule {
    fn make<'n>(&self, number: &'n str) -> Cow<'n, str> {
        self.pattern.replace(number, self.replace.as_str())
    }
}

/// `$1` to `${1}`: to the regex crate `$1x` is a group called `1x`, which is empty; whoever writes
/// `$10` or `$1a` in a number rule means group 1, followed by text.
fn braced(replace: &str) -> String {
    let mut out = String::with_capacity(replace.len() + 2);
    let mut chars = replace.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c != '$' {
            continue;
        }
        match chars.peek().copied() {
            Some('$') => out.extend(chars.next()),
            Some(digit) if digit.is_ascii_digit() => {
                out.push('{');
                out.push(digit);
                out.push('}');
                chars.next();
            }
            Some(_) | None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a pattern that does not compile fails the test")]

    use super::*;
    use crate::config::NumberRule;

    fn numbers(rules: &[(&str, &str)]) -> Numbers {
        let rule = |(pattern, replace): &(&str, &str)| NumberRule {
            pattern: Regex::new(pattern).unwrap(),
            replace: (*replace).to_owned(),
        };
        Numbers::new(&config::Numbers { min_length: 7, rules: rules.iter().map(rule).collect() })
    }

    const DEFAULT: [(&str, &str); 2] = [(r"^9(\d{7})$", "0212$1"), ("^9(.+)$", "$1")];

    #[test]
    fn the_default_rules_do_what_the_script_did() {
        let table = [
            ("95551234", Ok("02125551234")),
            ("92125551234", Ok("2125551234")),
            ("5551234", Ok("5551234")),
            ("9", Err(Dropped::TooShort)),
            ("*43", Err(Dropped::TooShort)),
            ("", Err(Dropped::TooShort)),
            ("955512", Err(Dropped::TooShort)),
            ("9555123", Ok("555123")),
            ("+584141234567", Ok("+584141234567")),
            ("99", Err(Dropped::TooShort)),
        ];
        let numbers = numbers(&DEFAULT);
        for (number, expected) in table {
            assert_eq!(numbers.apply(number).as_deref().map_err(|why| *why), expected, "{number}");
            assert_eq!(numbers.explain(number).result.as_deref().map_err(|why| *why), expected, "{number}");
        }
    }

    #[test]
    fn an_inbound_number_is_only_measured() {
        let numbers = numbers(&DEFAULT);
        assert_eq!(numbers.accept("912345678"), Ok(()));
        assert_eq!(numbers.accept("1001"), Err(Dropped::TooShort));
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_the_next_sees_nothing_of_it() {
        let numbers = numbers(&[("^9", ""), ("^1", "2"), (".", "x")]);
        assert_eq!(numbers.apply("91234567"), Ok(Cow::Borrowed("1234567")));
        let explained = numbers.explain("91234567");
        let steps: Vec<_> = explained.rules.iter().map(|rule| (rule.matches, rule.made.as_deref())).collect();
        assert_eq!(steps, [(true, Some("1234567")), (false, None), (true, None)]);
    }

    #[test]
    fn a_group_followed_by_text_is_that_group() {
        assert_eq!(numbers(&[(r"^(\d{3})(\d+)$", "$1x$20$$")]).apply("5551234").unwrap(), "555x12340$");
        assert_eq!(numbers(&[(r"^(?<area>\d{3})", "${area}-")]).apply("5551234").unwrap(), "555-1234");
    }

    #[test]
    fn a_rule_that_leaves_nothing_drops_the_number() {
        assert_eq!(numbers(&[("^.*$", "")]).apply("5551234"), Err(Dropped::Empty));
    }

    #[test]
    fn of_a_number_too_short_no_rule_is_tried() {
        let explained = numbers(&DEFAULT).explain("*43");
        assert_eq!((explained.length, explained.min_length, explained.rules.len()), (3, 7, 0));
    }
}
