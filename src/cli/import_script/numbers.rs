//! The script's number conversion, where it is of the kind that scripts have: a prefix is removed, an area
//! code is put before numbers of one length.

use std::collections::BTreeSet;

use super::constants::{Constants, Piece, closing, variable};
use super::find::Review;
use super::perl::{Kind, Token};

/// How far behind its condition an area code is put before a number, in tokens.
const NEAR: usize = 40;

/// `match` and `replace`.
pub(super) type Rule = (String, String);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// `s/^9//`
    Strip { prefix: String, at: usize },
    /// `if (length($n) == 7) { $n = "0212$n" }`
    Area { any: &'static str, length: usize, code: String, at: usize },
    /// `s/^9(\d{7})$/0212$1/`
    Whole { rule: Rule },
}

/// The rules that do what the script does to the variable that holds the destination.
pub(super) fn rules(
    tokens: &[Token],
    constants: &Constants,
    used: &mut BTreeSet<String>,
    review: &mut Review,
) -> Vec<Rule> {
    let mut steps = Vec::new();
    let mut name = None;
    for at in 0..tokens.len() {
        let Some((variable, _)) = variable(tokens, at) else { continue };
        let Some(step) = step(tokens, constants, at, &variable, review) else { continue };
        if let Step::Area { code, .. } = &step {
            // the constant that the area code is in
            let of = |name: &&String| constants.get(name.as_str()) == Some(code.as_str());
            used.extend(constants.given.keys().filter(of).cloned());
        }
        if name.get_or_insert_with(|| variable.clone()) == &variable {
            steps.push(step);
        } else {
            review.add(tokens[at].line, format!("the conversion of ${variable} was not taken over"));
        }
    }
    rules_of(&steps, tokens, review)
}

fn rules_of(steps: &[Step], tokens: &[Token], review: &mut Review) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut areas: Vec<(usize, Rule, Rule)> = Vec::new();
    let strip = steps.iter().find_map(|step| match step {
        Step::Strip { prefix, at } => Some((prefix.clone(), *at)),
        Step::Area { .. } | Step::Whole { .. } => None,
    });
    for step in steps {
        match step {
            Step::Whole { rule } => rules.push(rule.clone()),
            Step::Area { any, length, code, at } => {
                let prefix = strip.as_ref().map_or("", |(prefix, _)| prefix.as_str());
                let behind = (format!("^{prefix}({any}{{{length}}})$"), format!("{code}$1"));
                let bare = (format!("^({any}{{{length}}})$"), format!("{code}$1"));
                areas.push((*at, behind, bare));
            }
            Step::Strip { prefix, at } if Some((prefix.clone(), *at)) != strip => {
                review.add(
                    tokens[*at].line,
                    format!("a second prefix, {prefix}, is removed there: add a rule"),
                );
            }
            Step::Strip { .. } => {}
        }
    }
    let Some((prefix, at)) = strip else {
        rules.extend(areas.into_iter().map(|(_, _, bare)| bare));
        return rules;
    };
    let only_stripped = |area: usize| stripped(tokens, at, area, &prefix);
    rules.extend(areas.iter().map(|(_, behind, _)| behind.clone()));
    rules.push((format!("^{prefix}(.+)$"), "$1".to_owned()));
    rules.extend(areas.into_iter().filter(|(area, ..)| !only_stripped(*area)).map(|(_, _, bare)| bare));
    rules
}

/// What is done to a variable there, if it is a step of a conversion.
fn step(tokens: &[Token], constants: &Constants, at: usize, name: &str, review: &mut Review) -> Option<Step> {
    let behind = at + variable(tokens, at)?.1;
    match (tokens.get(behind)?.is("=~"), tokens.get(behind + 1).map(|token| &token.kind)) {
        (true, Some(Kind::Substitution { pattern, replacement })) => {
            substitution(pattern, replacement, behind, tokens[at].line, name, review)
        }
        (true, Some(Kind::Match(pattern))) => {
            let length = pattern.strip_prefix("^\\d{")?.strip_suffix("}$")?.parse().ok()?;
            let code = area_code(tokens, constants, behind, name)?;
            Some(Step::Area { any: "\\d", length, code, at })
        }
        _ => {
            let (length, end) = length_test(tokens, at)?;
            let code = area_code(tokens, constants, end, name)?;
            Some(Step::Area { any: ".", length, code, at })
        }
    }
}

fn substitution(
    pattern: &str,
    replacement: &str,
    at: usize,
    line: usize,
    name: &str,
    review: &mut Review,
) -> Option<Step> {
    let rest = pattern.strip_prefix('^');
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(prefix) = rest.filter(|rest| digits(rest) && replacement.is_empty()) {
        return Some(Step::Strip { prefix: prefix.to_owned(), at });
    }
    // an area code put before: `length_test` has it
    if pattern == "^" && digits(replacement) {
        return None;
    }
    let whole = rest.is_some_and(|rest| rest.ends_with('$')) && !pattern.contains(['\'', '@']);
    let replace = replacement.replace("\\1", "$1").replace("\\2", "$2");
    let simple = replace.chars().all(|c| c.is_ascii_digit() || "$+{}".contains(c));
    let looks = ["dst", "dest", "num", "phone", "tel"].iter().any(|part| name.to_lowercase().contains(part));
    // a group that the pattern does not have would be a fault of the configuration
    let groups = |regex: &regex::Regex| {
        let asked = replace.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
        let mut asked = asked.map(|rest| rest.chars().next().and_then(|c| c.to_digit(10)));
        asked.all(|group| group.is_some_and(|group| (group as usize) < regex.captures_len()))
    };
    if whole && simple && looks && regex::Regex::new(pattern).is_ok_and(|regex| groups(&regex)) {
        return Some(Step::Whole { rule: (pattern.to_owned(), replace) });
    }
    if looks {
        review.add(
            line,
            format!("what s/{pattern}/{replacement}/ does to ${name} was not taken over: add a rule"),
        );
    }
    None
}

/// `length($n) == 7`, with or without parentheses: the length and where the test ends.
fn length_test(tokens: &[Token], at: usize) -> Option<(usize, usize)> {
    let length = tokens.get(at.checked_sub(1)?)?.is_word("length")
        || at >= 2 && tokens[at - 1].is("(") && tokens[at - 2].is_word("length");
    let mut end = at + variable(tokens, at)?.1;
    if !length {
        return None;
    }
    end += usize::from(tokens.get(end)?.is(")"));
    let Kind::Number(number) = &tokens.get(end + 1)?.kind else { return None };
    tokens.get(end).filter(|token| token.is("=="))?;
    Some((number.parse().ok().filter(|length| (1..=20).contains(length))?, end + 2))
}

/// The digits that are put before the variable a little later: `"0212$n"`, `'0212' . $n`, `s/^/0212/`.
fn area_code(tokens: &[Token], constants: &Constants, from: usize, name: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let end = (from + NEAR).min(tokens.len());
    // `... if length($n) == 7;` has it before its condition
    let begins = |at: &usize| tokens[*at].is(";") || tokens[*at].is("{") && *at > 0 && tokens[at - 1].is(")");
    let begin =
        (from.saturating_sub(NEAR)..from).rev().find(begins).map_or(from.saturating_sub(NEAR), |at| at + 1);
    for at in begin..end {
        if let Kind::Substitution { pattern, replacement } = &tokens[at].kind
            && pattern == "^"
            && digits(replacement)
        {
            return Some(replacement.clone());
        }
        let (text, _) = constants.text(tokens, at);
        if let [Piece::Known(code), Piece::Unknown(own)] = &text.pieces[..]
            && own == name
            && digits(code)
        {
            return Some(code.clone());
        }
    }
    None
}

/// Whether the area code is reached only by numbers that had the prefix: a block around it, or its own
/// condition, asks for it.
fn stripped(tokens: &[Token], strip: usize, area: usize, prefix: &str) -> bool {
    let asks = |range: &[Token]| {
        range.iter().any(|token| match &token.kind {
            Kind::Substitution { pattern, replacement } => {
                replacement.is_empty() && pattern.strip_prefix('^') == Some(prefix)
            }
            Kind::Match(pattern) => pattern.strip_prefix('^').is_some_and(|rest| rest.starts_with(prefix)),
            Kind::Quoted { text, .. } => text == prefix,
            Kind::Scalar(_) | Kind::Many(_) | Kind::Word(_) | Kind::Number(_) | Kind::Operator(_) => false,
        })
    };
    let conditions = (0..area).filter(|at| tokens[*at].is("(")).filter_map(|open| {
        let close = closing(tokens, open)?;
        let condition = tokens.get(open..=close)?;
        // the area's own test is in it, or in the block behind it
        if close > area {
            return Some(condition);
        }
        let block = close + 1;
        let inside = tokens.get(block)?.is("{") && closing(tokens, block)? > area;
        inside.then_some(condition)
    });
    strip < area && conditions.into_iter().any(asks)
}

#[cfg(test)]
mod tests {
    use super::super::perl::tokens;
    use super::*;

    #[test]
    fn conversions_of_the_usual_kinds_become_rules() {
        let default: &[(&str, &str)] = &[("^9(.{7})$", "0212$1"), ("^9(.+)$", "$1")];
        let always: &[(&str, &str)] = &[("^9(.{7})$", "0212$1"), ("^9(.+)$", "$1"), ("^(.{7})$", "0212$1")];
        let table: &[(&str, &[(&str, &str)])] = &[
            ("if ($dst =~ s/^9//) { if (length($dst) == 7) { $dst = \"0212$dst\"; } }", default),
            ("if ($dst =~ /^9/) { $dst =~ s/^9//; $dst = '0212' . $dst if length $dst == 7; }", default),
            ("if ($d =~ s/^9// && length($d) == 7) { $d =~ s/^/0212/; }", default),
            ("my $area = '0212'; if ($d =~ s/^9//) { $d = $area . $d if (length($d) == 7) }", default),
            ("$dst =~ s/^9//; if (length($dst) == 7) { $dst = '0212' . $dst }", always),
            (
                "if ($x =~ s/^9//) { if ($x =~ /^\\d{7}$/) { $x = \"0212$x\" } }",
                &[("^9(\\d{7})$", "0212$1"), ("^9(.+)$", "$1")],
            ),
            ("$n =~ s/^0//;", &[("^0(.+)$", "$1")]),
            ("$r->{dst} =~ s/^9//;", &[("^9(.+)$", "$1")]),
            ("if (length($n) == 8) { $n = '0261' . $n; }", &[("^(.{8})$", "0261$1")]),
            ("$dst =~ s/^9(\\d{7})$/0212$1/;", &[("^9(\\d{7})$", "0212$1")]),
            ("$dst =~ s/^0(\\d{10})$/+58$1/;", &[("^0(\\d{10})$", "+58$1")]),
            ("print length($n) == 7;", &[]),
            ("$text =~ s/^x//; $name =~ s/ //g;", &[]),
        ];
        for (script, expected) in table {
            let all = tokens(script);
            let mut review = Review::default();
            let rules = rules(&all, &Constants::new(&all), &mut BTreeSet::new(), &mut review);
            let rules: Vec<_> = rules.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(rules, *expected, "{script}");
            assert!(review.0.is_empty(), "{script}: {review:?}");
        }
    }

    #[test]
    fn what_cannot_be_taken_over_is_said() {
        for script in [
            "$dst =~ s/^9//; $dst =~ s/^8//;",
            "$dst =~ s/^9\\d+$/$1/;",
            "$dst =~ s/-//g;",
            "$dst =~ s/^9//; $other =~ s/^9//;",
        ] {
            let all = tokens(script);
            let mut review = Review::default();
            rules(&all, &Constants::new(&all), &mut BTreeSet::new(), &mut review);
            assert_eq!(review.0.len(), 1, "{script}: {review:?}");
        }
    }
}
