//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Date;
use url::Url;

use super::moment::{Moment, moment};
use crate::api::{CallName, MOST_LEGS, MOST_LETTERS};
use crate::config::{DEFAULT_FILE, duration};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
New here? `callpost demo` needs no PBX and nothing configured.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 partly done.
Logs go to stderr; CALLPOST_LOG=debug or --verbose for more.";

/// Gets calls out of an Asterisk PBX and into the systems where people work.
#[derive(Debug, Parser)]
#[command(
    name = "callpost",
    version = version(),
    long_version = LONG_VERSION.as_str(),
    styles = STYLES,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(super) struct Cli {
    /// The configuration; conf.d/*.toml beside it is read after it
    #[arg(long, value_name = "FILE", global = true, env = "CALLPOST_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Say more in the log: -v debug, -vv trace
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent
    Run,
    /// Look at the configuration, Asterisk, sinks, journal and clock; each line says what to do
    Check(Check),
    /// No PBX, nothing to configure: recorded calls through the real agent, before your eyes
    Demo(Demo),
    /// A receiver for trying things: NiMbox create and delete, webhooks; prints, and can fail on request
    Receive(Receive),
    /// Show what the number rules make of a number, rule by rule
    Number(Number),
    /// Let the running agent read its configuration again; says what changed, or why it may not
    Reload(Reload),
    /// How the running agent stands: connection, journal, routes
    Status(Status),
    /// Calls, live or past: who with whom, how it went, and what to give to trace
    Calls(Calls),
    /// One call in full: its channels, what happened between them, what was sent and what came back
    Trace(Trace),
    /// Updates as they happen
    Tail(Tail),
    /// Send the calls of a CDR store to NiMbox: each once, however often it is run
    Backfill(Backfill),
    /// Delete a range of days from a NiMbox; both dates are left out
    Delete(Delete),
    /// Find the PBX on this host and propose its account and the configuration; writes after consent
    Setup(Box<Setup>),
    /// Turn a site's edited copy of the Perl script into a configuration, for review
    ImportScript(ImportScript),
    /// Deliveries that were given up: look at them, send them again, drop them
    #[command(subcommand)]
    Dead(Dead),
    /// Send again what the journal still holds of a time, with the ids it had
    Replay(Replay),
    /// Look at the journal itself: read-only unless told otherwise
    #[command(subcommand)]
    Journal(Journal),
    /// Print what makes a shell complete these commands
    Completions(Completions),
    /// Save a live AMI stream, secrets removed, for a bug report; Ctrl-C ends it
    Capture(Capture),
}

/// For those who read the output with a program.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Only read the configuration; connect to nothing
    #[arg(long)]
    pub config_only: bool,
    /// Post a test event to each webhook
    #[arg(long, conflicts_with = "config_only")]
    pub send_test: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Go on until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// So many times as fast as recorded
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// Keep the journal there; run again, and what was not delivered goes out first
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Deliver there, as to `callpost receive`, in place of the demo's own receiver
    #[arg(long, value_name = "URL")]
    pub to: Option<Url>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// Those there are, oldest first
    List(DeadList),
    /// All that is known of one: the last answer, attempts, times, the body
    Show(DeadShow),
    /// Send them again, with the ids they had; without ids, all of a route or all there are
    Retry(DeadChosen),
    /// Give them up for good; without ids, all of a route or all there are
    Drop(DeadDropped),
}

#[derive(Debug, Args)]
pub(super) struct DeadList {
    /// Only those with these ids
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only those of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = letters)]
    pub limit: usize,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DeadShow {
    /// As `callpost dead list` shows it
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Only that of this route: several may owe the same
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DeadChosen {
    /// As `callpost dead list` shows them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only those of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DeadDropped {
    #[command(flatten)]
    pub chosen: DeadChosen,
    /// What waits still for a route that is not configured any more, instead of dead letters
    #[arg(long, requires = "route", conflicts_with = "ids")]
    pub pending: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// From this time on: 2026-11-20, "2026-11-20 14:00", 2026-11-20T14:00:00-04:00, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Moment,
    /// To this time; a day ends when it is over. Default: now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to: Option<Moment>,
    /// Only to this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Only the delivery with this id
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Only say how many there are
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Calls {
    /// Only those that go on now
    #[arg(long)]
    pub live: bool,
    /// Only those from or to this number, exactly as shown
    #[arg(long, value_name = "NUMBER")]
    pub number: Option<String>,
    /// Only those that were missed
    #[arg(long, conflicts_with = "live")]
    pub missed: bool,
    /// Only those that began in the last so long, as 30m or 2h
    #[arg(long, value_name = "TIME", value_parser = ago, conflicts_with_all = ["from", "to"])]
    pub since: Option<Duration>,
    /// Only those that began then or later: a day, a time, or both, as "2026-11-21 14:30"
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<Moment>,
    /// Only those that began before that time, or on that day or before
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to: Option<Moment>,
    /// At most so many legs
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = limit)]
    pub limit: usize,
    /// Draw with ASCII alone, as it is done where the locale is not UTF-8
    #[arg(long)]
    pub ascii: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// A call_id, a src_hash, or the beginning of one, as `callpost calls` shows them
    pub call: CallName,
    /// Draw with ASCII alone, as it is done where the locale is not UTF-8
    #[arg(long)]
    pub ascii: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum Journal {
    /// How it stands: its stores, what waits on each route, what was given up
    Status(JournalLook),
    /// Read every record: checksums, links, counters; exit code 3 where something is wrong
    Verify(JournalLook),
    /// Every record that tells of calls, as JSON lines: messages, updates, CDRs, deliveries, dead letters
    Export(JournalExport),
    /// What can be taken from stores that were put aside; writes only with --yes
    Salvage(JournalSalvage),
}

#[derive(Debug, Args)]
pub(super) struct JournalLook {
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct JournalExport {
    /// From this time on, as 2026-01-31, "2026-01-31 08:00", 08:00 or 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<Moment>,
    /// Until this time; a day given so is part of it
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to: Option<Moment>,
}

#[derive(Debug, Args)]
pub(super) struct JournalSalvage {
    /// Do it; the agent must not be running
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Capture {
    /// A file that does not exist yet
    pub file: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("span").args(["from", "since", "full"]).required(true))]
pub(super) struct Backfill {
    /// Calls that began at this time or later, as 2026-11-01, "2026-11-01 08:00" or 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<Moment>,
    /// Calls that began before this time; of a day, before it is over; default: now
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with_all = ["since", "full"])]
    pub to: Option<Moment>,
    /// Calls that began in this time up to now, as 200h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Duration>,
    /// The last 360 days, as the Perl script's -full
    #[arg(long)]
    pub full: bool,
    /// Another store than [cdr] source; a password in it shows in the list of processes
    #[arg(long, value_name = "URL")]
    pub source: Option<String>,
    /// For this sink alone: one NiMbox, or a webhook, which history goes to only when it is named
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Creates a second at most, beside what the receiver itself allows
    #[arg(long, value_name = "N", value_parser = a_second, conflicts_with = "dry_run")]
    pub rate: Option<f64>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The day before the first that is deleted, as 2012-08-23
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub from: Date,
    /// The day after the last that is deleted
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub to: Date,
    /// Which NiMbox sink; required where there are several
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Setup {
    /// A name for this PBX: a-z, 0-9, -; default: this host's
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// An outside line, by the beginning of its channels' names, as PJSIP/trunk; again for each
    #[arg(long, value_name = "PREFIX")]
    pub trunk: Vec<String>,
    /// Make a create there for each call
    #[arg(long, value_name = "URL", value_parser = web_address)]
    pub nimbox_url: Option<Url>,
    /// A file with NiMbox's token; it is copied to callpost's secrets
    #[arg(long, value_name = "FILE")]
    pub nimbox_token_file: Option<PathBuf>,
    /// What NiMbox gets as the destination of inbound calls, by which it finds the contact
    #[arg(long, value_name = "WHICH")]
    pub destination: Option<Destination>,
    /// Post the states of calls there
    #[arg(long, value_name = "URL", value_parser = web_address)]
    pub webhook_url: Option<Url>,
    /// Turn on Asterisk's Cdr events, from which NiMbox gets exact durations
    #[arg(long)]
    pub enable_cdr: bool,
    /// The CDR store: auto takes the one that Asterisk writes, none reads none, or a URL as in [cdr] source; a
    /// password in it shows in the list of processes
    #[arg(long, value_name = "auto|none|URL", value_parser = cdr_store)]
    pub cdr_store: Option<CdrStoreArg>,
    /// Do not ask: write what flags and files say
    #[arg(long, short)]
    pub yes: bool,
    /// Show what would be written, and write nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not end with `callpost check`
    #[arg(long)]
    pub no_check: bool,
    /// Another root directory than this host's, as for an image
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub root: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

/// `[[nimbox]] inbound_destination`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Destination {
    /// The number that was called
    Did,
    /// What Asterisk's record says
    Dst,
    /// Who called
    Caller,
}

/// Which CDR store setup configures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CdrStoreArg {
    Auto,
    None,
    Url(Url),
}

#[derive(Debug, Args)]
pub(super) struct Completions {
    pub shell: Shell,
}

/// The shells that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct ImportScript {
    /// The script as it stands on the PBX; it is read, never run
    pub file: PathBuf,
    /// Write the configuration to a new file (mode 0600) in place of stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Number {
    /// The number as it was dialled
    pub number: String,
    /// With the rules of this NiMbox sink
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Receive {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Answer with this HTTP status
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..600))]
    pub fail: Option<u16>,
    /// Fail this part of the requests only, 0 to 1; with 503 unless --fail says otherwise
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub fail_rate: Option<f64>,
    /// Wait before each answer, as 50ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub delay: Option<Duration>,
    /// As NiMbox, refuse each create for this field with this text
    #[arg(long, value_name = "FIELD=TEXT", value_parser = field)]
    pub nimbox_error: Option<(String, String)>,
    #[command(flatten)]
    pub output: Output,
}

fn cdr_store(text: &str) -> Result<CdrStoreArg, String> {
    match text {
        "auto" => Ok(CdrStoreArg::Auto),
        "none" => Ok(CdrStoreArg::None),
        text => Url::parse(text).map(CdrStoreArg::Url).map_err(|_| "not auto, none or a URL".to_owned()),
    }
}

fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| "not an address that begins with https://".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("not from 0 to 1".to_owned()) }
}

fn a_second(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|_| "not a number".to_owned())?;
    if (0.01..=10_000.0).contains(&rate) { Ok(rate) } else { Err("not from 0.01 to 10000".to_owned()) }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().map_err(|_| "not a number".to_owned())?;
    if (0.1..=100.0).contains(&speed) { Ok(speed) } else { Err("not from 0.1 to 100".to_owned()) }
}

fn time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "not a duration, as 50ms or 2s".to_owned())
}

/// NiMbox takes whole days.
fn date(text: &str) -> Result<Date, String> {
    let day = text.len() == 10 && text.is_ascii();
    text.parse().ok().filter(|_| day).ok_or_else(|| "not a date without hours, as 2012-08-23".to_owned())
}

fn letters(text: &str) -> Result<usize, String> {
    up_to(MOST_LETTERS, text)
}

fn ago(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "not a duration, as 30m, 2h or 7 days".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    up_to(MOST_LEGS, text)
}

fn up_to(most: usize, text: &str) -> Result<usize, String> {
    let limit = text.parse::<usize>().map_err(|_| "not a number".to_owned())?;
    if (1..=most).contains(&limit) { Ok(limit) } else { Err(format!("not from 1 to {most}")) }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (field, why) = text.split_once('=').ok_or("not FIELD=TEXT, as destination=unknown")?;
    Ok((field.to_owned(), why.to_owned()))
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Version, what it was built from, and what it can do.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let build = option_env!("CALLPOST_BUILD").unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{}\nbuild: {build} ({profile}, {} {})\nfeatures: AMI over TCP and TLS; nimbox, webhook; journal on sled; CDR stores mysql, postgres, sqlite, csv",
        version(),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
});
