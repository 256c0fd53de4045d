//! One line of an Asterisk configuration file at a time, as `main/config.c` takes it.

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// `[name](template,!)`.
    Header { name: String, options: Vec<String> },
    /// `key = value`, `key => value`.
    Value { key: String, value: String },
    /// `#include target`; `#tryinclude` may miss it.
    Include { target: String, optional: bool },
    /// Blank, a comment, or what Asterisk only warns of.
    Nothing,
    /// Asterisk refuses the whole file for it.
    Broken(&'static str),
}

/// Every line of a text, in order.
pub(super) fn scan(text: &str) -> Vec<Line> {
    let mut depth = 0;
    text.split('\n').map(|line| classify(&without_comments(line, &mut depth))).collect()
}

/// What is left of a line; `;-- ... --;` may span lines, and nests.
fn without_comments(line: &str, depth: &mut usize) -> String {
    let mut kept = String::new();
    let mut rest = line.trim_end_matches('\r');
    loop {
        if *depth > 0 {
            let (end, begin) = (rest.find("--;"), block_begin(rest));
            match (end, begin) {
                (Some(end), begin) if begin.is_none_or(|begin| end < begin) => {
                    *depth -= 1;
                    rest = rest.get(end + 3..).unwrap_or_default();
                }
                (_, Some(begin)) => {
                    *depth += 1;
                    rest = rest.get(begin + 3..).unwrap_or_default();
                }
                _ => return kept,
            }
            continue;
        }
        let Some(at) = rest.find(';') else { return kept + rest };
        let before = rest.get(..at).unwrap_or_default();
        let after = rest.get(at..).unwrap_or_default();
        if let Some(escaped) = before.strip_suffix('\\') {
            kept = kept + escaped + ";";
            rest = rest.get(at + 1..).unwrap_or_default();
        } else if block_begin(after) == Some(0) {
            kept += before;
            *depth += 1;
            rest = after.get(3..).unwrap_or_default();
        } else {
            return kept + before;
        }
    }
}

/// Where `;--` is that is not a ruler of dashes.
fn block_begin(text: &str) -> Option<usize> {
    text.match_indices(";--").map(|(at, _)| at).find(|at| !text.get(at + 3..).unwrap_or("").starts_with('-'))
}

fn classify(line: &str) -> Line {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix('[') {
        let Some((name, rest)) = rest.split_once(']') else { return Line::Broken("no closing ']'") };
        let options = match rest.trim_start().strip_prefix('(') {
            None => Vec::new(),
            Some(rest) => match rest.split_once(')') {
                None => return Line::Broken("no closing ')'"),
                Some((list, _)) => list.split(',').map(|word| word.trim().to_owned()).collect(),
            },
        };
        return Line::Header { name: name.to_owned(), options };
    }
    if let Some(rest) = line.strip_prefix('#') {
        let (word, target) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let target = target.trim().trim_matches(|c| matches!(c, '"' | '<' | '>')).to_owned();
        let optional = word.eq_ignore_ascii_case("tryinclude");
        if target.is_empty() || !(optional || word.eq_ignore_ascii_case("include")) {
            return Line::Nothing;
        }
        return Line::Include { target, optional };
    }
    match line.split_once('=') {
        Some((key, value)) => {
            let value = value.strip_prefix('>').unwrap_or(value);
            Line::Value { key: key.trim().to_owned(), value: value.trim().to_owned() }
        }
        None => Line::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, value: &str) -> Line {
        Line::Value { key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn lines_are_what_asterisk_takes_them_for() {
        let text = "; c\n[general]\nenabled = yes ; why\nport=>5038\r\nregister => a\\;b\n;-- x = 1\ny = 2 --; z = 3\n;---- ruler\nw=4\nnothing\n[t](!,base)\n#include \"manager.d/*.conf\"\n#tryinclude <a.conf>\n[broken\n[also](x\n";
        let header = |name: &str, options: &[&str]| Line::Header {
            name: name.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        let include = |target: &str, optional| Line::Include { target: target.to_owned(), optional };
        let expected = [
            Line::Nothing,
            header("general", &[]),
            value("enabled", "yes"),
            value("port", "5038"),
            value("register", "a;b"),
            Line::Nothing,
            value("z", "3"),
            Line::Nothing,
            value("w", "4"),
            Line::Nothing,
            header("t", &["!", "base"]),
            include("manager.d/*.conf", false),
            include("a.conf", true),
            Line::Broken("no closing ']'"),
            Line::Broken("no closing ')'"),
            Line::Nothing,
        ];
        assert_eq!(scan(text), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_as_many_lines_as_it_has(text in "([;\\[\\]()=#\\\\>a-]|--;|;--|\n){0,60}") {
            proptest::prop_assert_eq!(scan(&text).len(), text.split('\n').count());
        }
    }
}
