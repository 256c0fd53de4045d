//! From the merged tree to the checked configuration, table by table, as `packaging/callpost.toml`
//! has them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use regex::Regex;

use super::load::Environment;
use super::merge::{Place, Tree, Value};
use super::read::{Reader, Section};
use super::sinks::{nimbox, webhook};
use super::types::{
    Ami, Api, Calls, CdrStore, Config, Journal, NumberRule, Numbers, Pbx, Queue, Reconcile, Recordings, Sms,
    Trunk, User,
};
use crate::cdr::source_url;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// JavaScript reads ids up to here exactly.
const MAX_ID: u64 = (1 << 53) - 1;
/// Asterisk's longest batch of CDRs (300 s) and a margin.
const CDR_HOLD: Duration = Duration::from_secs(310);
/// A Unix socket's path has 108 bytes with its end (`sockaddr_un`).
const MAX_SOCKET_PATH: usize = 107;

/// Checks everything. `None` only where a fault was noted.
pub(super) fn config(
    reader: &Reader,
    tree: &Tree,
    place: &Place,
    environment: &Environment,
) -> Option<Config> {
    let root = Section::root(reader, tree, place.clone());
    let ami_table = root.table("ami");
    let pbx = pbx(root.table_or_empty("pbx"), ami_table.is_some());
    let zone = pbx.as_ref().map_or(TimeZone::UTC, |pbx| pbx.timezone.clone());
    let ami = ami_table.map(ami);
    let journal = journal(root.table_or_empty("journal"), environment);
    let cdr = cdr(root.table_or_empty("cdr"), &zone);
    let numbers = numbers(root.table_or_empty("numbers"), &default_numbers());
    let recordings = recordings(root.table_or_empty("recordings"));
    let calls = calls(root.table_or_empty("calls"));
    let sms = sms(root.table_or_empty("sms"));
    let mut routes = Names::new("sinks");
    let nimbox: Vec<_> =
        root.tables("nimbox", "name").into_iter().map(|table| nimbox(table, &numbers, &mut routes)).collect();
    let webhooks: Vec<_> =
        root.tables("webhook", "name").into_iter().map(|table| webhook(table, &mut routes)).collect();
    let mut names = Names::new("queues");
    let queues: Vec<_> =
        root.tables("queue", "name").into_iter().map(|table| queue(table, &mut names)).collect();
    let api = api(root.table_or_empty("api"), &journal.directory, environment);
    nats(&root);
    root.finish();
    Some(Config {
        pbx: pbx?,
        ami: match ami {
            Some(ami) => Some(ami?),
            None => None,
        },
        journal,
        cdr,
        numbers,
        recordings,
        calls,
        sms,
        queues: queues.into_iter().collect::<Option<_>>()?,
        nimbox: nimbox.into_iter().collect::<Option<_>>()?,
        webhooks: webhooks.into_iter().collect::<Option<_>>()?,
        api,
    })
}

/// Names that must differ.
pub(super) struct Names {
    what: &'static str,
    seen: BTreeMap<String, Place>,
}

impl Names {
    fn new(what: &'static str) -> Self {
        Self { what, seen: BTreeMap::new() }
    }

    pub fn add(&mut self, table: &Section<'_>, key: &str, name: &str) {
        match self.seen.get(name) {
            Some(first) => {
                let problem =
                    format!("two {} of the name {name:?}; the other is at {}", self.what, first.mention());
                table.fault(key, problem, "give each a name of its own");
            }
            None => {
                self.seen.insert(name.to_owned(), table.place_of(key));
            }
        }
    }
}

fn pbx(table: Section<'_>, required: bool) -> Option<Pbx> {
    let name = table.pbx_name("name");
    if required {
        table.missing(
            "name",
            "name this PBX, once and for all: it goes into every id; for example name = \"hq\"",
        );
    }
    let fallback = (!table.has("name") && !required).then(|| "pbx".to_owned());
    let timezone = if table.has("timezone") { table.zone("timezone") } else { host_zone(&table) };
    let trunks = trunks(&table);
    let inbound_contexts = table
        .texts("inbound_contexts")
        .unwrap_or_else(|| ["from-trunk", "from-pstn", "from-did-direct"].map(str::to_owned).to_vec());
    let extensions = if table.has("extensions") { table.regex("extensions") } else { pattern(r"^\d{2,6}$") };
    let users = users(&table);
    table.finish();
    Some(Pbx {
        name: name.or(fallback)?,
        timezone: timezone?,
        trunks,
        inbound_contexts,
        extensions: extensions?,
        users,
    })
}

fn host_zone(table: &Section<'_>) -> Option<TimeZone> {
    table.node("timezone");
    match TimeZone::try_system() {
        Ok(zone) => Some(zone),
        Err(error) => {
            let remedy = "say it, as timezone = \"America/Caracas\", and have the package tzdata";
            table.fault("timezone", format!("this host's time zone cannot be told: {error}"), remedy);
            None
        }
    }
}

/// A channel name prefix, or `{ channel, number }` for a line without a DID.
fn trunks(table: &Section<'_>) -> Vec<Trunk> {
    let Some(node) = table.node("trunks") else { return Vec::new() };
    let Some(list) = node.value.list() else {
        let problem = format!("expected a list, found {}", node.value.kind());
        table.fault("trunks", problem, "write trunks = [\"PJSIP/trunk\", \"DAHDI/\"]");
        return Vec::new();
    };
    let mut trunks = Vec::new();
    for item in list {
        if let Some(tree) = item.value.table() {
            let inner = table.inside("trunks", tree, item.place.clone());
            let (channel, number) = (inner.word("channel"), inner.word("number"));
            inner.missing("channel", "give the channel's name up to its instance, as \"DAHDI/1\"");
            inner.finish();
            trunks.extend(channel.map(|channel| Trunk { channel, number }));
        } else if let Some(channel) = item.value.text().filter(|channel| !channel.is_empty()) {
            trunks.push(Trunk { channel: channel.to_owned(), number: None });
        } else {
            let remedy = "write each as \"PJSIP/trunk\" or { channel = \"...\", number = \"...\" }";
            table.fault("trunks", format!("holds {} that is no trunk", item.value.kind()), remedy);
        }
    }
    trunks
}

fn users(table: &Section<'_>) -> Vec<User> {
    let mut channels = Names::new("users");
    let mut ids = BTreeMap::new();
    let mut users = Vec::new();
    for table in table.tables("users", "channel") {
        let channel = table.word("channel");
        let id = table.count("id", 1..=MAX_ID);
        let name = table.word("name");
        let numbers = table.texts("numbers").unwrap_or_default();
        table.missing("channel", "give the user's channel, as \"PJSIP/1001\"");
        table.missing("id", "give the user a number of its own, as 10001");
        if let Some(channel) = &channel {
            channels.add(&table, "channel", channel);
        }
        if let (Some(id), Some(channel)) = (id, &channel)
            && let Some(other) = ids.insert(id, channel.clone())
        {
            table.fault("id", format!("{id} is also the id of {other}"), "give each user an id of its own");
        }
        if let (Some(channel), Some(id)) = (channel, id) {
            users.push(User { channel, id, name, numbers });
        }
        table.finish();
    }
    users
}

fn ami(table: Section<'_>) -> Option<Ami> {
    let address = table.word("address").unwrap_or_else(|| "127.0.0.1:5038".to_owned());
    if let Err(why) = host_and_port(&address) {
        table.fault("address", format!("{address:?} {why}"), "write HOST:PORT, as \"127.0.0.1:5038\"");
    }
    let username = table.word("username").unwrap_or_else(|| "callpost".to_owned());
    let secret = table.secret("secret");
    table.missing("secret", "give `secret` or `secret_file`: the account's secret in manager.conf");
    let tls = table.flag("tls").unwrap_or(false);
    let (ca_file, server_name) = (table.file("ca_file"), table.word("server_name"));
    if !tls {
        for key in ["ca_file", "server_name"].into_iter().filter(|key| table.has(key)) {
            table.fault(key, "has no meaning without TLS", "set tls = true or remove it");
        }
        if !is_this_host(&address) {
            let problem = "is another host, and what it says about calls crosses the network in the clear";
            table.warn("address", problem, "set tls = true, or run callpost beside Asterisk");
        }
    }
    table.finish();
    Some(Ami { address, username, secret: secret?, tls, ca_file, server_name })
}

fn host_and_port(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("has no port")?;
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
        return Err("has no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("is an IPv6 address without brackets, or has no port");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("has no valid port"),
    }
}

fn is_this_host(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn journal(table: Section<'_>, environment: &Environment) -> Journal {
    let directory = table.path("directory").or_else(|| environment.directory("STATE_DIRECTORY"));
    let journal = Journal {
        directory: directory.unwrap_or_else(|| PathBuf::from("/var/lib/callpost")),
        // the least in which generations and the ballast, a sixteenth each, are still of use
        max_size: table.size("max_size", 16 << 20..=1 << 40).unwrap_or(1 << 30),
        keep: table.duration("keep", HOUR..=DAY * 3_650).unwrap_or(DAY * 30),
    };
    table.finish();
    journal
}

fn cdr(table: Section<'_>, zone: &TimeZone) -> CdrStore {
    let auto = table.node("timezone").and_then(|node| node.value.text()) == Some("auto");
    let timezone = if auto { None } else { table.zone("timezone") };
    let source = table.secret("source");
    let key = if table.has("source") { "source" } else { "source_file" };
    if let Some(Err((problem, remedy))) = source.as_ref().map(source_url) {
        table.fault(key, problem, remedy);
    }
    let name = table.word("table").unwrap_or_else(|| "cdr".to_owned());
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')) {
        table.fault(
            "table",
            format!("{name:?} is not the name of a table"),
            "write it as \"cdr\" or \"schema.cdr\"",
        );
    }
    let since = since(&table, zone);
    let reconcile = reconcile(&table);
    table.finish();
    CdrStore { timezone, source, table: name, since, reconcile }
}

fn reconcile(table: &Section<'_>) -> Reconcile {
    let usual = Reconcile::default();
    let is_off = |key| table.node(key).and_then(|node| node.value.text()) == Some("off");
    let every = if is_off("reconcile") {
        None
    } else {
        table.duration("reconcile", SECOND..=DAY * 7).or(usual.every)
    };
    let full_at = if is_off("full_at") { None } else { time_of_day(table, "full_at").or(usual.full_at) };
    Reconcile {
        every,
        full_at,
        since: table.duration("reconcile_since", HOUR..=DAY * 360).unwrap_or(usual.since),
        settle: table.duration("reconcile_after", SECOND..=DAY).unwrap_or(usual.settle),
    }
}

fn time_of_day(table: &Section<'_>, key: &str) -> Option<jiff::civil::Time> {
    let node = table.node(key)?;
    let text = if let Value::Datetime(text) = &node.value { Some(text.as_str()) } else { node.value.text() };
    let time = text.and_then(|text| text.parse().ok());
    if time.is_none() {
        table.fault(key, "is not a time of day", "write it as \"23:00\", or \"off\"");
    }
    time
}

/// A date, a local time, or a time with its offset.
fn since(table: &Section<'_>, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let node = table.node("since")?;
    let text = if let Value::Datetime(text) = &node.value { Some(text.as_str()) } else { node.value.text() };
    let Some(text) = text else {
        let problem = format!("expected a date or time, found {}", node.value.kind());
        table.fault("since", problem, "write it as 2026-11-21 or 2026-11-21T08:00:00");
        return None;
    };
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(zone.clone()).ok();
    let at = text.parse().ok().or_else(|| local().map(|zoned| zoned.timestamp()));
    if at.is_none() {
        table.fault(
            "since",
            format!("{text:?} is not a date or time"),
            "write it as 2026-11-21 or 2026-11-21T08:00:00",
        );
    }
    at
}

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

/// What the script that callpost replaces did.
fn default_numbers() -> Numbers {
    let rule = |(text, replace): (&str, &str)| {
        Some(NumberRule { pattern: pattern(text)?, replace: replace.to_owned() })
    };
    let rules = [(r"^9(\d{7})$", "0212$1"), (r"^9(.+)$", "$1")].into_iter().filter_map(rule).collect();
    Numbers { min_length: 7, rules }
}

pub(super) fn numbers(table: Section<'_>, default: &Numbers) -> Numbers {
    let min_length = table.count("min_length", 0..=32).and_then(|length| usize::try_from(length).ok());
    let rules = table.has("rules").then(|| {
        let rules = table.tables("rules", "").into_iter().filter_map(|table| {
            let pattern = table.regex("match");
            let replace = table.replacement("replace", pattern.as_ref());
            table.missing("match", "give a regular expression in single quotes");
            table.missing("replace", "give what to put in its place, with $1 for the first group");
            table.finish();
            Some(NumberRule { pattern: pattern?, replace: replace? })
        });
        rules.collect()
    });
    table.node("rules");
    table.finish();
    Numbers {
        min_length: min_length.unwrap_or(default.min_length),
        rules: rules.unwrap_or_else(|| default.rules.clone()),
    }
}

fn recordings(table: Section<'_>) -> Recordings {
    const FIELDS: [&str; 7] = ["path", "recordingfile", "channel", "uniqueid", "yyyy", "mm", "dd"];
    let directory = table.path("directory");
    let url = table.word("url");
    if let Some(url) = &url {
        for field in url.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest)) {
            if !FIELDS.contains(&field) {
                table.fault(
                    "url",
                    format!("{{{field}}} is not known here"),
                    format!("fields are {}", FIELDS.map(|f| format!("{{{f}}}")).join(", ")),
                );
            }
        }
        if !url.starts_with("https://") && !url.starts_with("http://") {
            table.fault("url", "is not a link", "begin it with https://");
        }
    }
    table.finish();
    Recordings { directory, url }
}

fn calls(table: Section<'_>) -> Calls {
    let calls = Calls {
        report_unreached: table.flag("report_unreached").unwrap_or(true),
        internal_caller_leg: table.flag("internal_caller_leg").unwrap_or(false),
        conference_legs: table.flag("conference_legs").unwrap_or(false),
        transfer_context: table.word("transfer_context").unwrap_or_else(|| "from-internal".to_owned()),
        cdr_hold: CDR_HOLD,
    };
    table.finish();
    calls
}

fn sms(table: Section<'_>) -> Sms {
    let customer_id = table.count("customer_id", 0..=MAX_ID).unwrap_or(0);
    let mut devices = Vec::new();
    if let Some(inner) = table.table("devices") {
        for (device, node) in inner.entries() {
            match node.value.text().filter(|number| !number.is_empty()) {
                Some(number) => devices.push((device.clone(), number.to_owned())),
                None => inner.fault(
                    device,
                    "is not a number in quotes",
                    "write device = \"the modem's own number\"",
                ),
            }
        }
    }
    table.finish();
    Sms { customer_id, devices }
}

fn queue(table: Section<'_>, names: &mut Names) -> Option<Queue> {
    let (name, id) = (table.word("name"), table.count("id", 1..=MAX_ID));
    table.missing("name", "give the queue's name in queues.conf");
    table.missing("id", "give the queue a number of its own, as 20001");
    if let Some(name) = &name {
        names.add(&table, "name", name);
    }
    table.finish();
    Some(Queue { name: name?, id: id? })
}

fn api(table: Section<'_>, journal: &std::path::Path, environment: &Environment) -> Api {
    let runtime = environment.directory("RUNTIME_DIRECTORY");
    let socket = table
        .path("socket")
        .unwrap_or_else(|| runtime.unwrap_or_else(|| journal.to_path_buf()).join("callpost.sock"));
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        let problem = format!("{} is longer than a Unix socket's path can be", socket.display());
        table.fault("socket", problem, format!("choose one of at most {MAX_SOCKET_PATH} bytes"));
    }
    let (listen, token) = (table.word("listen"), table.secret("token"));
    if let Some(address) = &listen {
        match address.parse::<std::net::SocketAddr>() {
            Err(_) => {
                let problem = format!("{address:?} is not an address and a port");
                table.fault("listen", problem, "write it as \"127.0.0.1:8480\"; port 0 picks a free one");
            }
            Ok(address) if !address.ip().is_loopback() => {
                let problem = "is open to other hosts, and token and calls cross the network in the clear";
                table.warn("listen", problem, "listen on 127.0.0.1, or put a proxy with TLS in front");
            }
            Ok(_) => {}
        }
        if !table.has("token") && !table.has("token_file") {
            table.fault(
                "listen",
                "has no token, so anybody could read every call",
                "give `token` or `token_file`",
            );
        }
    }
    table.finish();
    Api { socket, listen, token }
}

/// `[nats]`: its keys are known, nothing is behind them yet.
fn nats(root: &Section<'_>) {
    let table = root.table_or_empty("nats");
    for key in ["servers", "stream", "tenant"] {
        table.node(key);
    }
    if root.has("nats") {
        not_yet(root, "nats", "publishing to NATS");
    }
    table.finish();
}

fn not_yet(table: &Section<'_>, key: &str, what: &str) {
    let version = env!("CARGO_PKG_VERSION");
    table.fault(key, format!("{what} is not available in this version ({version})"), "remove it");
}
