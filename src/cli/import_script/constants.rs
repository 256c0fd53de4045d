//! What a script's variables stand for, as far as they are constant, and the texts made of them.

use std::collections::BTreeMap;

use super::perl::{Kind, Token};

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Known(String),
    /// A variable that is not constant, or a call; named as in the script.
    Unknown(String),
}

/// A text of the script: constants filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub pieces: Vec<Piece>,
    pub line: usize,
    /// Variables that it was made of.
    pub used: Vec<String>,
}

impl Text {
    /// The whole, if all of it is known.
    pub fn known(&self) -> Option<String> {
        let known = |piece: &Piece| match piece {
            Piece::Known(text) => Some(text.clone()),
            Piece::Unknown(_) => None,
        };
        self.pieces.iter().map(known).collect()
    }

    /// With `\0name\0` for what is not known.
    pub fn marked(&self) -> String {
        let mark = |piece: &Piece| match piece {
            Piece::Known(text) => text.clone(),
            Piece::Unknown(name) => format!("\0{name}\0"),
        };
        self.pieces.iter().map(mark).collect()
    }

    fn push(&mut self, piece: Piece) {
        match (self.pieces.last_mut(), piece) {
            (_, Piece::Known(more)) if more.is_empty() => {}
            (Some(Piece::Known(last)), Piece::Known(more)) => last.push_str(&more),
            (_, piece) => self.pieces.push(piece),
        }
    }

    fn append(&mut self, other: Self) {
        other.pieces.into_iter().for_each(|piece| self.push(piece));
        self.used.extend(other.used);
    }
}

/// One value given to a variable.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub line: usize,
    /// `None` where it is made of something that only a running script knows.
    pub value: Option<String>,
}

/// Every variable by name: `token`, of hashes `config{token}`.
#[derive(Debug, Default)]
pub(super) struct Constants {
    pub given: BTreeMap<String, Vec<Given>>,
}

/// Variables are looked up in variables; nobody nests deeper.
const DEPTH: usize = 8;

impl Constants {
    pub fn new(tokens: &[Token]) -> Self {
        let mut constants = Self::default();
        for at in 0..tokens.len() {
            constants.assignment(tokens, at);
            constants.constant(tokens, at);
        }
        constants
    }

    /// The value of a variable that has one value only.
    pub fn get(&self, name: &str) -> Option<&str> {
        let [first, others @ ..] = &self.given.get(name)?[..] else { return None };
        let value = first.value.as_deref()?;
        others.iter().all(|other| other.value.as_deref() == Some(value)).then_some(value)
    }

    fn give(&mut self, name: String, line: usize, value: Option<String>) {
        self.given.entry(name).or_default().push(Given { line, value });
    }

    /// `$x = ...`, `($x, $y) = (...)`, `%x = (...)`, `$x = {...}`, `$x{y} = ...`.
    fn assignment(&mut self, tokens: &[Token], at: usize) {
        let Some((name, length)) = variable(tokens, at) else { return self.list(tokens, at) };
        let line = tokens[at].line;
        let behind = at + length;
        match tokens.get(behind).map(|token| &token.kind) {
            Some(Kind::Operator("=")) => {}
            Some(Kind::Operator(".=" | "+=" | "-=" | "*=" | "||=" | "//=" | "=~")) => {
                let changes = !tokens[behind].is("=~")
                    || matches!(tokens.get(behind + 1).map(|t| &t.kind), Some(Kind::Substitution { .. }));
                if changes {
                    self.give(name, line, None);
                }
                return;
            }
            _ => return,
        }
        let open = tokens.get(behind + 1);
        let hash = matches!(tokens[at].kind, Kind::Many(_)) && open.is_some_and(|open| open.is("("));
        if hash || open.is_some_and(|open| open.is("{")) {
            return self.pairs(tokens, behind + 2, Some(&name));
        }
        let (text, end) = self.text(tokens, behind + 1);
        let whole = tokens.get(end).is_none_or(|token| token.is(";") || token.is("}"));
        self.give(name, line, text.known().filter(|_| whole && end > behind + 1));
    }

    fn list(&mut self, tokens: &[Token], at: usize) {
        if !tokens[at].is("(") {
            return;
        }
        let mut names = Vec::new();
        let mut end = at + 1;
        while let Some((name, length)) = variable(tokens, end) {
            names.push((name, tokens[end].line));
            end += length;
            if tokens.get(end).is_some_and(|token| token.is(",")) {
                end += 1;
            }
        }
        let is = |at: usize, operator: &str| tokens.get(at).is_some_and(|token| token.is(operator));
        if names.is_empty() || !is(end, ")") || !is(end + 1, "=") {
            return;
        }
        let values = if is(end + 2, "(") { self.arguments(tokens, end + 2) } else { Vec::new() };
        let mut values = values.into_iter();
        for (name, line) in names {
            self.give(name, line, values.next().and_then(|value| value.known()));
        }
    }

    /// `use constant NAME => ...`, `use constant { A => ..., B => ... }`.
    fn constant(&mut self, tokens: &[Token], at: usize) {
        if !(tokens[at].is_word("use") && tokens.get(at + 1).is_some_and(|token| token.is_word("constant"))) {
            return;
        }
        let braces = tokens.get(at + 2).is_some_and(|token| token.is("{"));
        self.pairs(tokens, at + 2 + usize::from(braces), None);
    }

    /// `key => value, ...` up to what is not of that form; a hash's keys are named after it.
    fn pairs(&mut self, tokens: &[Token], mut at: usize, hash: Option<&str>) {
        loop {
            let key = match tokens.get(at).map(|token| &token.kind) {
                Some(Kind::Word(word)) => word.clone(),
                Some(Kind::Quoted { text, .. }) => text.clone(),
                _ => return,
            };
            let arrow = tokens.get(at + 1).is_some_and(|token| token.is("=>") || token.is(","));
            if !arrow {
                return;
            }
            let (text, end) = self.text(tokens, at + 2);
            let whole = tokens.get(end).is_none_or(|t| [",", ")", "}", ";"].iter().any(|o| t.is(o)));
            let name = hash.map_or_else(|| key.clone(), |hash| format!("{hash}{{{key}}}"));
            self.give(name, tokens[at].line, text.known().filter(|_| whole && end > at + 2));
            // what is not understood ends with its comma
            at = skip_argument(tokens, end);
            if !tokens.get(at).is_some_and(|token| token.is(",")) {
                return;
            }
            at += 1;
        }
    }

    /// The arguments of the call whose parenthesis opens there.
    pub fn arguments(&self, tokens: &[Token], open: usize) -> Vec<Text> {
        let mut arguments = Vec::new();
        let mut at = open + 1;
        while tokens.get(at).is_some_and(|token| !token.is(")")) {
            let (mut text, end) = self.text(tokens, at);
            let next = skip_argument(tokens, end);
            if next > end || end == at {
                text.push(Piece::Unknown("...".to_owned()));
            }
            arguments.push(text);
            at = next;
            if !tokens.get(at).is_some_and(|token| token.is(",") || token.is("=>")) {
                break;
            }
            at += 1;
        }
        arguments
    }

    /// The text that begins there, operands joined by dots, and where it ends.
    pub fn text(&self, tokens: &[Token], at: usize) -> (Text, usize) {
        self.text_within(tokens, at, DEPTH)
    }

    fn text_within(&self, tokens: &[Token], at: usize, depth: usize) -> (Text, usize) {
        let mut text = Text { line: tokens.get(at).map_or(0, |token| token.line), ..Text::default() };
        let mut at = at;
        while let Some(end) = self.operand(tokens, at, depth, &mut text) {
            at = end;
            match tokens.get(at) {
                Some(token) if token.is(".") => at += 1,
                _ => return (text, at),
            }
        }
        (text, at)
    }

    /// One operand; `None` where there is none.
    fn operand(&self, tokens: &[Token], at: usize, depth: usize, text: &mut Text) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        if let Some((name, length)) = variable(tokens, at) {
            self.fill_in(&name, text);
            return Some(at + length);
        }
        match &tokens.get(at)?.kind {
            Kind::Number(number) => {
                let mut product = number.parse::<u64>().ok();
                let mut end = at + 1;
                while let (Some(star), Some(Kind::Number(next))) =
                    (tokens.get(end), tokens.get(end + 1).map(|token| &token.kind))
                    && star.is("*")
                {
                    product = product.and_then(|product| product.checked_mul(next.parse().ok()?));
                    end += 2;
                }
                text.push(Piece::Known(
                    product.map_or_else(|| number.clone(), |product| product.to_string()),
                ));
                Some(end)
            }
            Kind::Quoted { text: quoted, interpolates: false } => {
                text.push(Piece::Known(quoted.clone()));
                Some(at + 1)
            }
            Kind::Quoted { text: quoted, interpolates: true } => {
                self.interpolate(quoted, text);
                Some(at + 1)
            }
            Kind::Operator("(") => {
                let (inner, end) = self.text_within(tokens, at + 1, depth);
                tokens.get(end).filter(|token| token.is(")"))?;
                text.append(inner);
                Some(end + 1)
            }
            Kind::Word(word) => self.word(word, tokens, at, depth, text),
            Kind::Operator(_)
            | Kind::Scalar(_)
            | Kind::Many(_)
            | Kind::Match(_)
            | Kind::Substitution { .. } => None,
        }
    }

    /// A constant, or a call of which escaping and sprintf are understood.
    fn word(&self, word: &str, tokens: &[Token], at: usize, depth: usize, text: &mut Text) -> Option<usize> {
        let parenthesis = tokens.get(at + 1).is_some_and(|token| token.is("("));
        if !parenthesis {
            self.get(word)?;
            self.fill_in(word, text);
            return Some(at + 1);
        }
        let end = closing(tokens, at + 1)?;
        let lower = word.to_lowercase();
        if lower.contains("escape") || lower.contains("encode") {
            let (inner, _) = self.text_within(tokens, at + 2, depth);
            text.append(inner);
        } else if word == "sprintf" {
            let mut arguments = self.arguments(tokens, at + 1).into_iter();
            let format = arguments.next()?;
            let mut parts = format.known()?;
            while let Some((before, behind)) =
                parts.split_once("%s").map(|(b, a)| (b.to_owned(), a.to_owned()))
            {
                text.push(Piece::Known(before));
                text.append(arguments.next().unwrap_or_default());
                parts = behind;
            }
            text.push(Piece::Known(parts));
            text.used.extend(format.used);
        } else {
            text.push(Piece::Unknown(format!("{word}()")));
        }
        Some(end + 1)
    }

    fn fill_in(&self, name: &str, text: &mut Text) {
        text.used.push(name.to_owned());
        match self.get(name) {
            Some(value) => text.push(Piece::Known(value.to_owned())),
            None => text.push(Piece::Unknown(name.to_owned())),
        }
    }

    /// Variables and escapes within double quotes.
    fn interpolate(&self, quoted: &str, text: &mut Text) {
        let mut rest = quoted;
        while let Some(at) = rest.find(['\\', '$']) {
            text.push(Piece::Known(rest[..at].to_owned()));
            let behind = &rest[at + 1..];
            if rest[at..].starts_with('\\') {
                let escaped = behind.chars().next();
                let piece = match escaped {
                    Some('n') => "\n".to_owned(),
                    Some('t') => "\t".to_owned(),
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                text.push(Piece::Known(piece));
                rest = &behind[escaped.map_or(0, char::len_utf8)..];
                continue;
            }
            match interpolated(behind) {
                Some((name, length)) => {
                    self.fill_in(&name, text);
                    rest = &behind[length..];
                }
                None => {
                    text.push(Piece::Known("$".to_owned()));
                    rest = behind;
                }
            }
        }
        text.push(Piece::Known(rest.to_owned()));
    }
}

/// `name`, `{name}`, `name{key}`, `name->{key}` after the sigil.
fn interpolated(text: &str) -> Option<(String, usize)> {
    let word = |text: &str| {
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        (end > 0).then(|| text[..end].to_owned())
    };
    if let Some(inner) = text.strip_prefix('{') {
        let name = word(inner)?;
        return inner[name.len()..].starts_with('}').then(|| (name.clone(), name.len() + 2));
    }
    let name = word(text)?;
    let mut length = name.len();
    let behind = &text[length..];
    let arrow = behind.strip_prefix("->").unwrap_or(behind);
    let key = arrow.strip_prefix('{').and_then(|inner| {
        let key = word(inner.trim_start_matches(['\'', '"']))?;
        let end = inner.find('}')?;
        Some((key, end))
    });
    let Some((key, end)) = key else { return Some((name, length)) };
    length += behind.len() - arrow.len() + 1 + end + 1;
    Some((format!("{name}{{{key}}}"), length))
}

/// The variable that begins there, and its length in tokens.
pub(super) fn variable(tokens: &[Token], at: usize) -> Option<(String, usize)> {
    let name = match &tokens.get(at)?.kind {
        Kind::Scalar(name) => name,
        Kind::Many(name) => return Some((name.clone(), 1)),
        _ => return None,
    };
    let arrow = usize::from(tokens.get(at + 1).is_some_and(|token| token.is("->")));
    let is = |n: usize, operator: &str| tokens.get(at + n).is_some_and(|token| token.is(operator));
    if !is(1 + arrow, "{") || !is(3 + arrow, "}") {
        // an element of a list, or a method's result
        let list = is(1 + arrow, "[") && is(3 + arrow, "]");
        return Some((format!("{name}{}", if list { "[]" } else { "" }), if list { 4 + arrow } else { 1 }));
    }
    let key = match &tokens.get(at + 2 + arrow)?.kind {
        Kind::Word(key) | Kind::Quoted { text: key, .. } => key,
        _ => return Some((name.clone(), 1)),
    };
    Some((format!("{name}{{{key}}}"), 4 + arrow))
}

/// The end of an argument of which the beginning was read.
fn skip_argument(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        if depth == 0 && [",", "=>", ")", "}", "]", ";"].iter().any(|operator| token.is(operator)) {
            return n;
        }
        if token.is("(") || token.is("{") || token.is("[") {
            depth += 1;
        } else if token.is(")") || token.is("}") || token.is("]") {
            depth -= 1;
        }
    }
    tokens.len()
}

/// The bracket that closes the one there.
pub(super) fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        if token.is("(") || token.is("{") || token.is("[") {
            depth += 1;
        } else if token.is(")") || token.is("}") || token.is("]") {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(n);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::perl::tokens;
    use super::*;

    #[test]
    fn a_variable_with_one_value_is_a_constant() {
        let script = r#"
            my $host = 'db'; our $user = "root"; my ($a, $b) = ('1', "2");
            my %config = (token => 't', "url" => "https://$host/x");
            my $more = { days => 24 * 15, odd => rand() };
            $config{late} = 'l'; $more->{later} = "m";
            use constant BASE => 'http://b/'; use constant { X => 1, Y => 'y' };
            my $changed = 1; $changed = 2; my $same = 3; $same = 3;
            my $made = f(); my $dst = '1'; $dst =~ s/^9//; my $seen = 'x'; if ($seen =~ /x/) {}
            my $dsn = "dbi:mysql:database=$config{token};host=${host};x=$more->{later}" . ':' . BASE;
            my $or = $x || 'default';
        "#;
        let constants = Constants::new(&tokens(script));
        let table = [
            ("host", Some("db")),
            ("user", Some("root")),
            ("a", Some("1")),
            ("b", Some("2")),
            ("config{token}", Some("t")),
            ("config{url}", Some("https://db/x")),
            ("config{late}", Some("l")),
            ("more{days}", Some("360")),
            ("more{later}", Some("m")),
            ("more{odd}", None),
            ("BASE", Some("http://b/")),
            ("X", Some("1")),
            ("Y", Some("y")),
            ("changed", None),
            ("same", Some("3")),
            ("made", None),
            ("dst", None),
            ("seen", Some("x")),
            ("dsn", Some("dbi:mysql:database=t;host=db;x=m:http://b/")),
            ("or", None),
        ];
        for (name, expected) in table {
            assert_eq!(constants.get(name), expected, "{name}: {:?}", constants.given.get(name));
        }
    }

    #[test]
    fn what_is_not_constant_stays_marked_in_a_text() {
        let script = r#"my $t = 'x'; $u = "a=$t&b=" . uri_escape($row->{dst}) . '&c=' . sprintf("%s-%s", $t, $z) . f(1);"#;
        let all = tokens(script);
        let constants = Constants::new(&all);
        let at = all.iter().position(|token| token.kind == Kind::Scalar("u".into())).unwrap_or_default();
        let (text, end) = constants.text(&all, at + 2);
        assert_eq!(text.marked(), "a=x&b=\0row{dst}\0&c=x-\0z\0\0f()\0");
        assert!(all[end].is(";"));
    }
}
