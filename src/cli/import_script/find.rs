//! The settings of a script, found by what they are used for.

use std::collections::BTreeSet;

use regex::Regex;
use url::Url;

use super::constants::{Constants, Piece, Text};
use super::numbers::{self, Rule};
use super::perl::{Kind, Token, tokens};

/// What somebody has to look at: line and what is the matter. Never a value, which may be a secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Review(pub Vec<(usize, String)>);

impl Review {
    pub fn add(&mut self, line: usize, what: impl Into<String>) {
        let entry = (line, what.into());
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }
}

/// A value and the line it was found in.
pub(super) type At<T> = Option<(T, usize)>;

/// What a script says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// NiMbox: what stands before `/direct/items/phonecalls/`.
    pub base: At<String>,
    pub token: At<String>,
    /// HTTP Basic.
    pub account: At<(String, String)>,
    /// The CDR store as a URL, with its password.
    pub source: At<Url>,
    pub table: At<String>,
    pub min_length: At<usize>,
    pub rules: Vec<Rule>,
    /// A template for `[recordings] url`.
    pub link: At<String>,
    pub hours: At<u64>,
    pub days: At<u64>,
    /// TLS is not checked: the lines.
    pub unchecked_tls: Vec<usize>,
    pub review: Review,
}

/// Reads a script.
pub(super) fn find(script: &str) -> Settings {
    let tokens = tokens(script);
    let constants = Constants::new(&tokens);
    let mut finder = Finder {
        settings: Settings::default(),
        used: BTreeSet::new(),
        constants: &constants,
        patterns: Patterns::new().ok(),
    };
    for at in 0..tokens.len() {
        finder.calls(&tokens, at);
        finder.names(&tokens, at);
    }
    finder.texts(&tokens);
    let Finder { mut settings, mut used, .. } = finder;
    settings.rules = numbers::rules(&tokens, &constants, &mut used, &mut settings.review);
    if let (Some((_, line)), None) = (&settings.base, &settings.token) {
        settings.review.add(*line, "NiMbox's token is not constant: add the sink with it");
    }
    spans(&constants, &mut settings);
    left_over(&constants, &used, &mut settings);
    settings.review.0.sort();
    settings
}

struct Finder<'a> {
    settings: Settings,
    /// Variables that some setting was made of.
    used: BTreeSet<String>,
    constants: &'a Constants,
    patterns: Option<Patterns>,
}

/// What is looked for within texts.
struct Patterns {
    table: Regex,
    length: Regex,
    span: Regex,
    column: Regex,
    user: Regex,
    password: Regex,
}

impl Patterns {
    fn new() -> Result<Self, regex::Error> {
        const COLUMNS: &str = "disposition|dcontext|lastapp|channel|dstchannel|src|dst|accountcode|userfield|billsec|duration|amaflags";
        Ok(Self {
            table: Regex::new(r"(?is)\bselect\b.*\bfrom\s+[`\x22]?([A-Za-z0-9_.$]+)")?,
            length: Regex::new(r"(?i)\b(?:char_)?length\s*\(\s*`?dst`?\s*\)\s*(>=|>)\s*(\d{1,3})")?,
            span: Regex::new(r"(?i)\binterval\s+'?(\d{1,6})\s+(hour|day)s?")?,
            column: Regex::new(&format!(
                r"(?i)`?\b({COLUMNS})\b`?\s*(?:=|<|>|!|not\b|like\b|in\b|regexp\b|rlike\b)"
            ))?,
            user: Regex::new(r#"--(?:http-)?user[= ]"?([^\s"\x00]+)"#)?,
            password: Regex::new(r#"--(?:http-)?passw(?:or)?d[= ]"?([^\s"\x00]+)"#)?,
        })
    }
}

impl Finder<'_> {
    /// `DBI->connect(...)`, `->credentials(...)`, `->authorization_basic(...)`.
    fn calls(&mut self, tokens: &[Token], at: usize) {
        let Kind::Word(word) = &tokens[at].kind else { return };
        if matches!(word.as_str(), "require" | "do")
            && let Some(Kind::Quoted { .. }) = tokens.get(at + 1).map(|token| &token.kind)
        {
            self.settings
                .review
                .add(tokens[at].line, "another file is read there: what it sets was not seen");
        }
        if !tokens.get(at + 1).is_some_and(|token| token.is("(")) {
            return;
        }
        let line = tokens[at].line;
        let arguments = || self.constants.arguments(tokens, at + 1);
        match word.as_str() {
            "connect" | "connect_cached" => self.store(line, &arguments()),
            "credentials" => {
                if let [_, _, name, password] = &arguments()[..] {
                    self.account(line, name, password);
                }
            }
            "authorization_basic" => {
                if let [name, password] = &arguments()[..] {
                    self.account(line, name, password);
                }
            }
            _ => {}
        }
    }

    fn store(&mut self, line: usize, arguments: &[Text]) {
        let [dsn, more @ ..] = arguments else { return };
        if !dsn.marked().to_lowercase().starts_with("dbi:") {
            return;
        }
        let login: Vec<_> = more.iter().take(2).map(|text| text.known().unwrap_or_default()).collect();
        let source = dsn.known().and_then(|dsn| {
            store_url(&dsn, login.first().map_or("", String::as_str), login.get(1).map_or("", String::as_str))
        });
        match source {
            Some(url) => {
                self.use_up(dsn);
                more.iter().take(2).for_each(|text| self.use_up(text));
                if more.iter().take(2).any(|text| text.known().is_none()) {
                    self.settings.review.add(line, "the database's user or password is not constant: add it");
                }
                let what = "another database";
                set(&mut self.settings.source, url, line, what, &mut self.settings.review);
            }
            None => self.settings.review.add(line, "the database was not recognised: set [cdr] source"),
        }
    }

    fn account(&mut self, line: usize, name: &Text, password: &Text) {
        match (name.known(), password.known()) {
            (Some(known), Some(secret)) if !known.is_empty() => {
                self.use_up(name);
                self.use_up(password);
                let what = "another user of NiMbox";
                set(&mut self.settings.account, (known, secret), line, what, &mut self.settings.review);
            }
            (Some(_), Some(_)) => {}
            _ => self
                .settings
                .review
                .add(line, "the user of NiMbox is not constant: set username and password"),
        }
    }

    /// `token => ...`, `url => ...` in a request's form; TLS options.
    fn names(&mut self, tokens: &[Token], at: usize) {
        let (Kind::Word(key) | Kind::Quoted { text: key, .. }) = &tokens[at].kind else { return };
        let line = tokens[at].line;
        if !tokens.get(at + 1).is_some_and(|token| token.is("=>")) {
            return;
        }
        let (text, _) = self.constants.text(tokens, at + 2);
        match key.as_str() {
            "token" => self.token(&text, line),
            "url" => self.link(&text, line),
            "verify_hostname" | "SSL_verify_mode" => {
                let off = text.known().as_deref() == Some("0")
                    || tokens.get(at + 2).is_some_and(
                        |token| matches!(&token.kind, Kind::Word(word) if word.ends_with("SSL_VERIFY_NONE")),
                    );
                if off {
                    self.settings.unchecked_tls.push(line);
                }
            }
            _ => {}
        }
    }

    fn token(&mut self, text: &Text, line: usize) {
        let Some(token) = text.known().filter(|token| !token.is_empty()) else { return };
        self.use_up(text);
        set(&mut self.settings.token, token, line, "another token", &mut self.settings.review);
    }

    /// The script's link: a base, then the channel.
    fn link(&mut self, text: &Text, line: usize) {
        let marked = text.marked();
        if !marked.starts_with("http") {
            return;
        }
        let mut template = String::new();
        for (n, part) in marked.split('\0').enumerate() {
            let name = part.to_lowercase();
            let field =
                ["recordingfile", "uniqueid", "channel"].into_iter().find(|field| name.contains(field));
            match (n % 2, field) {
                (0, _) => template.push_str(part),
                (_, Some(field)) => template.push_str(&format!("{{{field}}}")),
                (_, None) => {
                    let what =
                        "the link to a call holds something else than the channel: set [recordings] url";
                    self.settings.review.add(line, what);
                    return;
                }
            }
        }
        if !template.contains('{') {
            self.settings.review.add(line, "the link to a call does not name the call: set [recordings] url");
            return;
        }
        self.use_up(text);
        set(&mut self.settings.link, template, line, "another link", &mut self.settings.review);
    }

    /// What stands in texts: NiMbox's URL with its parameters, SQL, wget's options.
    fn texts(&mut self, tokens: &[Token]) {
        for at in 0..tokens.len() {
            // what follows a dot was read with what is before it
            if at > 0 && tokens[at - 1].is(".") {
                continue;
            }
            let (text, end) = self.constants.text(tokens, at);
            if end > at {
                self.in_text(&text);
            }
        }
    }

    fn in_text(&mut self, text: &Text) {
        let marked = text.marked();
        self.base(text, &marked);
        for (parameter, behind) in parameters(&marked) {
            let part = Text { pieces: pieces(behind), line: text.line, used: text.used.clone() };
            match parameter {
                "token" => self.token(&part, text.line),
                _ => self.link(&part, text.line),
            }
        }
        self.sql(text, &marked);
        self.wget(text, &marked);
    }

    fn base(&mut self, text: &Text, marked: &str) {
        let Some((before, _)) = marked.split_once("/direct/items/phonecalls") else { return };
        let start = before.rfind("https://").or_else(|| before.rfind("http://"));
        let known = start.map(|start| &before[start..]).filter(|base| !base.contains('\0'));
        let Some(mut url) = known.and_then(|base| Url::parse(base).ok()).filter(Url::has_host) else {
            self.settings.review.add(text.line, "NiMbox's address is not constant: set the sink's url");
            return;
        };
        self.use_up(text);
        if !url.username().is_empty() {
            let (name, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
            if url.set_username("").and_then(|()| url.set_password(None)).is_err() || password.contains('%') {
                self.settings.review.add(text.line, "the user or password in NiMbox's address: set both");
            }
            let what = "another user of NiMbox";
            set(&mut self.settings.account, (name, password), text.line, what, &mut self.settings.review);
        }
        let base = url.as_str().trim_end_matches('/').to_owned();
        set(&mut self.settings.base, base, text.line, "another NiMbox", &mut self.settings.review);
    }

    fn sql(&mut self, text: &Text, marked: &str) {
        let Some(patterns) = &self.patterns else { return };
        let Some(select) = patterns.table.captures(marked) else { return };
        let (review, line) = (&mut self.settings.review, text.line);
        self.used.extend(text.used.iter().cloned());
        set(&mut self.settings.table, select[1].to_owned(), line, "another table", review);
        if let Some(found) = patterns.length.captures(marked)
            && let Some(number) = found[2].parse::<usize>().ok().filter(|number| *number < 32)
        {
            let least = number + usize::from(&found[1] == ">");
            set(&mut self.settings.min_length, least, line, "another length", review);
        }
        for found in patterns.span.captures_iter(marked) {
            let Ok(number) = found[1].parse::<u64>() else { continue };
            let hours = found[2].eq_ignore_ascii_case("hour");
            let span = if hours { &mut self.settings.hours } else { &mut self.settings.days };
            span.get_or_insert((number, line));
        }
        let conditions = marked.to_ascii_lowercase().find("where").map_or("", |at| &marked[at..]);
        for found in patterns.column.captures_iter(conditions) {
            review.add(line, format!("the query leaves rows out by {}: callpost does not", &found[1]));
        }
    }

    fn wget(&mut self, text: &Text, marked: &str) {
        let Some(patterns) = &self.patterns else { return };
        let word = |pattern: &Regex| Some(pattern.captures(marked)?[1].to_owned());
        if let (Some(name), Some(password)) = (word(&patterns.user), word(&patterns.password)) {
            self.use_up(text);
            let what = "another user of NiMbox";
            set(&mut self.settings.account, (name, password), text.line, what, &mut self.settings.review);
        }
        if marked.contains("--no-check-certificate") && !self.settings.unchecked_tls.contains(&text.line) {
            self.settings.unchecked_tls.push(text.line);
        }
    }

    fn use_up(&mut self, text: &Text) {
        self.used.extend(text.used.iter().cloned());
    }
}

/// The first that is found counts; a different one later is to be looked at.
fn set<T: PartialEq>(place: &mut At<T>, value: T, line: usize, what: &str, review: &mut Review) {
    match place {
        None => *place = Some((value, line)),
        Some((own, _)) if *own == value => {}
        Some((_, first)) => review.add(line, format!("{what} than in line {first}, which was taken")),
    }
}

/// `token=` and `url=` of a query, with what follows up to the next parameter.
fn parameters(marked: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in marked.split(['&', ' ', '"', '\'']) {
        // the link may have a query of its own
        let part = part.split_once("/create?").map_or(part, |(_, first)| first);
        for name in ["token", "url"] {
            if let Some(value) = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                found.push((name, value));
            }
        }
    }
    found
}

/// The pieces of a part of a marked text.
fn pieces(marked: &str) -> Vec<Piece> {
    let piece = |(n, part): (usize, &str)| match n % 2 {
        0 => Piece::Known(part.to_owned()),
        _ => Piece::Unknown(part.to_owned()),
    };
    marked.split('\0').enumerate().map(piece).collect()
}

/// A DBI data source name as a URL: `dbi:mysql:database=asterisk;host=db;port=3306`, `dbi:mysql:asterisk:db:3306`.
fn store_url(dsn: &str, user: &str, password: &str) -> Option<Url> {
    let (_, rest) = dsn.split_once(':')?;
    let (driver, rest) = rest.split_once(':')?;
    let (mut database, mut host, mut port, mut socket) = (String::new(), String::new(), None, String::new());
    for (n, part) in rest.split([';', ':']).enumerate() {
        match part.split_once('=') {
            Some(("database" | "dbname" | "db", value)) => value.clone_into(&mut database),
            Some(("host" | "hostname", value)) => value.clone_into(&mut host),
            Some(("port", value)) => port = value.parse::<u16>().ok(),
            Some(("mysql_socket", value)) => value.clone_into(&mut socket),
            Some(_) => {}
            None if n == 0 => part.clone_into(&mut database),
            None if n == 1 => part.clone_into(&mut host),
            None => port = part.parse().ok(),
        }
    }
    let scheme = match driver.split('(').next()?.to_lowercase().as_str() {
        "mysql" | "mariadb" => "mysql",
        "pg" => "postgres",
        "sqlite" => {
            return Url::parse(&format!("sqlite://{database}")).ok().filter(|_| database.starts_with('/'));
        }
        _ => return None,
    };
    if database.is_empty() {
        return None;
    }
    // a directory: PostgreSQL's socket is in it
    let directory = host.starts_with('/').then(|| std::mem::take(&mut host));
    let host = if host.is_empty() { "localhost" } else { &host };
    let mut url = Url::parse(&format!("{scheme}://{host}/")).ok()?;
    url.set_path(&database);
    url.set_port(port).ok()?;
    url.set_username(user).ok()?;
    url.set_password(Some(password).filter(|password| !password.is_empty())).ok()?;
    if let Some(directory) = directory {
        url.query_pairs_mut().append_pair("host", &directory);
    }
    if !socket.is_empty() {
        url.query_pairs_mut().append_pair("socket", &socket);
    }
    Some(url)
}

/// How far the script looks back, where variables say so.
fn spans(constants: &Constants, settings: &mut Settings) {
    for (name, given) in &constants.given {
        let lower = name.to_lowercase();
        let numbers =
            given.iter().filter_map(|given| Some((given.value.as_deref()?.parse().ok()?, given.line)));
        let most = numbers.filter(|(number, _)| (1..100_000).contains(number)).max();
        let place = if lower.contains("hour") {
            &mut settings.hours
        } else if lower.contains("day") {
            &mut settings.days
        } else {
            continue;
        };
        *place = place.or(most);
    }
}

/// Constants of which nothing was made.
fn left_over(constants: &Constants, used: &BTreeSet<String>, settings: &mut Settings) {
    for (name, given) in &constants.given {
        let lower = name.to_lowercase();
        let known =
            ["hour", "day", "verbose", "debug", "full", "help", "man", "count", "time", "dst", "dest"];
        let plain = lower.len() < 2 || known.iter().any(|part| lower.contains(part));
        if used.contains(name) || plain {
            continue;
        }
        let telling = |value: &str| value.len() > 1 && value != "10";
        if let Some(given) = given.iter().find(|given| given.value.as_deref().is_some_and(telling)) {
            settings.review.add(given.line, format!("what {name} sets was not recognised"));
        }
    }
}
