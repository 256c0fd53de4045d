//! As much of Perl's lexical grammar as settings are written in: variables, words, numbers, quotes,
//! here-documents, matches and substitutions. Comments, POD and what follows `__END__` are skipped.

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `$name`, without its sigil; of a subscript the tokens follow.
    Scalar(String),
    /// `%name`, `@name`.
    Many(String),
    /// A bare word or a function's name.
    Word(String),
    Number(String),
    /// A quoted text; in one with `interpolates` variables are still to be filled in.
    Quoted {
        text: String,
        interpolates: bool,
    },
    /// `m/.../`.
    Match(String),
    /// `s/.../.../`.
    Substitution {
        pattern: String,
        replacement: String,
    },
    Operator(&'static str),
}

/// A token and the line it begins in, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub line: usize,
}

impl Token {
    pub fn is(&self, operator: &str) -> bool {
        matches!(&self.kind, Kind::Operator(own) if *own == operator)
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(own) if own == word)
    }

    /// Something that has a value, so that what follows is an operator.
    fn is_operand(&self) -> bool {
        match &self.kind {
            Kind::Scalar(_) | Kind::Many(_) | Kind::Number(_) | Kind::Quoted { .. } => true,
            Kind::Operator(own) => matches!(*own, ")" | "]" | "}"),
            Kind::Word(_) | Kind::Match(_) | Kind::Substitution { .. } => false,
        }
    }
}

/// Longest first, so that the first that fits is the one.
const OPERATORS: [&str; 55] = [
    "<=>", "**=", "||=", "&&=", "//=", "...", "=~", "!~", "=>", "->", "==", "!=", ">=", "<=", "&&", "||",
    "//", ".=", "+=", "-=", "*=", "/=", "::", "++", "--", "**", "..", "<<", ">>", "(", ")", "[", "]", "{",
    "}", ";", ",", "=", ".", "+", "-", "*", "/", "<", ">", "!", "?", ":", "&", "|", "^", "~", "%", "\\", "@",
];

/// The tokens of a script. Never fails: what is no Perl becomes odd tokens that nothing recognises.
pub(super) fn tokens(script: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: script, line: 1, tokens: Vec::new(), pending: Vec::new() };
    lexer.line_begins();
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    /// Here-documents whose text begins on the next line: the token it belongs to, its end, whether indented.
    pending: Vec<(usize, String, bool)>,
}

impl<'a> Lexer<'a> {
    /// One token, or some space; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if first == '\n' {
            self.skip(1);
            self.line_begins();
            return true;
        }
        match first {
            _ if first.is_whitespace() => self.skip(first.len_utf8()),
            '#' => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
            '$' => self.scalar(),
            '@' | '%' if !self.after_operand() => self.many(),
            '\'' | '"' | '`' => self.quoted(0, first != '\''),
            '<' if self.here_document() => {}
            '/' if !self.after_operand() => self.regex(0),
            '0'..='9' => self.number(),
            _ if first.is_alphabetic() || first == '_' => return self.word(),
            _ => self.operator(first),
        }
        true
    }

    fn after_operand(&self) -> bool {
        self.tokens.last().is_some_and(Token::is_operand)
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    fn push(&mut self, kind: Kind, bytes: usize) {
        self.tokens.push(Token { kind, line: self.line });
        self.skip(bytes);
    }

    /// Here-documents and POD begin with a line.
    fn line_begins(&mut self) {
        for (index, end, indented) in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            while let Some(line) = self.rest.split_inclusive('\n').next() {
                self.skip(line.len());
                let bare = line.trim_end_matches(['\n', '\r']);
                if (if indented { bare.trim_start() } else { bare }) == end {
                    break;
                }
                text.push_str(line);
            }
            if let Some(Token { kind: Kind::Quoted { text: own, .. }, .. }) = self.tokens.get_mut(index) {
                *own = text;
            }
        }
        let pod =
            self.rest.strip_prefix('=').and_then(|rest| rest.chars().next()).is_some_and(char::is_alphabetic);
        if pod {
            let end = self.rest.find("\n=cut").map_or(self.rest.len(), |at| at + 5);
            self.skip(end);
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    fn name_length(text: &str) -> usize {
        let mut length = 0;
        loop {
            let word = text[length..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
            length += word.unwrap_or(text.len() - length);
            let more = text[length..].strip_prefix("::").and_then(|rest| rest.chars().next());
            if !more.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                return length;
            }
            length += 2;
        }
    }

    fn scalar(&mut self) {
        let behind = &self.rest[1..];
        let inner = behind.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
        if let Some(name) = inner.filter(|name| !name.is_empty() && Self::name_length(name) == name.len()) {
            return self.push(Kind::Scalar(name.to_owned()), name.len() + 3);
        }
        let length = Self::name_length(behind);
        if length > 0 {
            return self.push(Kind::Scalar(behind[..length].to_owned()), length + 1);
        }
        // `$_`'s kin, `$$`, `$#list`: no setting is kept in them
        let odd = behind.chars().next().map_or(0, char::len_utf8);
        self.push(Kind::Scalar(String::new()), 1 + odd);
    }

    fn many(&mut self) {
        let length = Self::name_length(&self.rest[1..]);
        if length == 0 {
            return self.operator(if self.rest.starts_with('@') { '@' } else { '%' });
        }
        self.push(Kind::Many(self.rest[1..=length].to_owned()), length + 1);
    }

    fn number(&mut self) {
        let length = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '_' || c == '.'));
        let mut length = length.unwrap_or(self.rest.len());
        // `7..9` and `200.` are no fractions
        if let Some(dot) = self.rest[..length].find('.')
            && !self.rest[dot + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            length = dot;
        }
        self.push(Kind::Number(self.rest[..length].replace('_', "")), length);
    }

    fn word(&mut self) -> bool {
        let length = Self::name_length(self.rest);
        let word = &self.rest[..length];
        if matches!(word, "__END__" | "__DATA__") {
            return false;
        }
        let space = self.rest[length..].len() - self.rest[length..].trim_start_matches([' ', '\t']).len();
        let next = self.rest[length + space..].chars().next();
        // a hash's key, a method, the end of an expression
        let arrow = self.tokens.last().is_some_and(|last| last.is("->") || last.is("{"));
        let quotes = next.is_some_and(|c| !c.is_alphanumeric() && !"_,;)=".contains(c)) && !arrow;
        // `s #...` is a comment
        let quotes = quotes && !(space > 0 && next == Some('#'));
        match word {
            "q" if quotes => self.quoted(length + space, false),
            "qq" if quotes => self.quoted(length + space, true),
            "qw" if quotes => self.quoted(length + space, false),
            "m" | "qr" if quotes => self.regex(length + space),
            "s" if quotes => self.substitution(length + space),
            "tr" | "y" if quotes => self.substitution(length + space),
            _ => self.push(Kind::Word(word.to_owned()), length),
        }
        true
    }

    fn operator(&mut self, first: char) {
        match OPERATORS.iter().find(|operator| self.rest.starts_with(*operator)) {
            Some(operator) => self.push(Kind::Operator(operator), operator.len()),
            None => self.skip(first.len_utf8()),
        }
    }

    /// A quote that begins with its delimiter after `prefix` bytes.
    fn quoted(&mut self, prefix: usize, interpolates: bool) {
        let (text, length) = delimited(&self.rest[prefix..]);
        // in what does not interpolate only `\\` and the delimiter are escaped
        let text = if interpolates { text } else { text.replace("\\\\", "\\").replace("\\'", "'") };
        self.push(Kind::Quoted { text, interpolates }, prefix + length);
    }

    fn regex(&mut self, prefix: usize) {
        let (pattern, length) = delimited(&self.rest[prefix..]);
        let flags = Self::name_length(&self.rest[prefix + length..]);
        self.push(Kind::Match(pattern), prefix + length + flags);
    }

    fn substitution(&mut self, prefix: usize) {
        let (pattern, mut length) = delimited(&self.rest[prefix..]);
        let open = self.rest[prefix..].chars().next().unwrap_or('/');
        let replacement = if closing(open) == open {
            // the delimiter in the middle ends one and begins the other
            let middle = self.rest[..prefix + length].char_indices().next_back().map_or(0, |(at, _)| at);
            length = middle.saturating_sub(prefix);
            let (replacement, more) = delimited(&self.rest[prefix + length..]);
            length += more;
            replacement
        } else {
            let behind = &self.rest[prefix + length..];
            let space = behind.len() - behind.trim_start().len();
            let (replacement, more) = delimited(&behind[space..]);
            length += space + more;
            replacement
        };
        let flags = Self::name_length(&self.rest[prefix + length..]);
        self.push(Kind::Substitution { pattern, replacement }, prefix + length + flags);
    }

    /// `<<EOF`, `<<"EOF"`, `<<'EOF'`, `<<~EOF`.
    fn here_document(&mut self) -> bool {
        let Some(behind) = self.rest.strip_prefix("<<") else { return false };
        if self.after_operand() {
            return false;
        }
        let indented = behind.starts_with('~');
        let behind = behind.strip_prefix('~').unwrap_or(behind);
        let quote = behind.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (end, length) = match quote {
            Some(_) => delimited(behind),
            None => (behind[..Self::name_length(behind)].to_owned(), Self::name_length(behind)),
        };
        if end.is_empty() {
            return false;
        }
        self.pending.push((self.tokens.len(), end, indented));
        let kind = Kind::Quoted { text: String::new(), interpolates: quote != Some('\'') };
        self.push(kind, 2 + usize::from(indented) + length);
        true
    }
}

fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        '<' => '>',
        other => other,
    }
}

/// The text between delimiters, escapes left in, and the length with both.
fn delimited(text: &str) -> (String, usize) {
    let Some(open) = text.chars().next() else { return (String::new(), 0) };
    let close = closing(open);
    let (mut depth, mut escaped) = (0_usize, false);
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == close && depth == 0 {
            return (text[open.len_utf8()..at].to_owned(), at + c.len_utf8());
        } else if c == close {
            depth -= 1;
        } else if c == open {
            depth += 1;
        }
    }
    (text[open.len_utf8()..].to_owned(), text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(script: &str) -> Vec<String> {
        let one = |token: &Token| match &token.kind {
            Kind::Scalar(name) => format!("${name}"),
            Kind::Many(name) => format!("%{name}"),
            Kind::Word(word) => word.clone(),
            Kind::Number(number) => format!("#{number}"),
            Kind::Quoted { text, interpolates } => {
                format!("{}<{text}>", if *interpolates { "qq" } else { "q" })
            }
            Kind::Match(pattern) => format!("m<{pattern}>"),
            Kind::Substitution { pattern, replacement } => format!("s<{pattern}><{replacement}>"),
            Kind::Operator(operator) => (*operator).to_owned(),
        };
        tokens(script).iter().map(one).collect()
    }

    #[test]
    fn settings_are_read_and_prose_is_not() {
        let table: &[(&str, &[&str])] = &[
            ("my $a = 'x'; # $b = 'y'", &["my", "$a", "=", "q<x>", ";"]),
            ("$a = \"it\\\"s $b\";", &["$a", "=", "qq<it\\\"s $b>", ";"]),
            ("=pod\n$a = 1;\n=cut\n$b = 2;", &["$b", "=", "#2", ";"]),
            ("1;\n\n=head1 X\n\n$a = 1;\n\n=cut\n$b;", &["#1", ";", "$b", ";"]),
            ("$a;\n__END__\n$b;", &["$a", ";"]),
            ("q(a(b)c) qq{$x} qw/a b/", &["q<a(b)c>", "qq<$x>", "q<a b>"]),
            ("$d =~ s/^9//; $n / 2 / 3", &["$d", "=~", "s<^9><>", ";", "$n", "/", "#2", "/", "#3"]),
            ("$d =~ s{^9(\\d)}{0212$1}x", &["$d", "=~", "s<^9(\\d)><0212$1>"]),
            ("if ($d =~ /^9/) {", &["if", "(", "$d", "=~", "m<^9>", ")", "{"]),
            ("f(<<EOF, 1);\nselect $x\nEOF\n$y", &["f", "(", "qq<select $x\n>", ",", "#1", ")", ";", "$y"]),
            ("${name} $h->{s} $h{y}", &["$name", "$h", "->", "{", "s", "}", "$h", "{", "y", "}"]),
            ("%h = (q => 1, s => 2)", &["%h", "=", "(", "q", "=>", "#1", ",", "s", "=>", "#2", ")"]),
            ("200.'x' 1.5", &["#200", ".", "q<x>", "#1.5"]),
            ("DBI->connect($x)", &["DBI", "->", "connect", "(", "$x", ")"]),
        ];
        for (script, expected) in table {
            assert_eq!(shown(script), *expected, "{script}");
        }
    }

    #[test]
    fn a_token_knows_its_line() {
        let script = "my $a = 1;\n\n=pod\n\nx\n\n=cut\n\nmy $b = <<E;\nx\ny\nE\n$c";
        let line = |name: &str| {
            let of = |token: &&Token| token.kind == Kind::Scalar(name.to_owned());
            tokens(script).iter().find(of).map(|token| token.line)
        };
        assert_eq!((line("a"), line("b"), line("c")), (Some(1), Some(9), Some(13)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_stops_it(script in "([$@%'\"/#=<{}()\\\\;,.~sqmy \nñ0-9]|EOF|=cut|<<E|qq|__END__){0,60}") {
            let _ = tokens(&script);
        }
    }
}
