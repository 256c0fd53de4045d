//! What a checked configuration says.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// Everything the agent is told, checked; the file's tables by name.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[pbx]`.
    pub pbx: Pbx,
    /// `[ami]`; absent: not configured yet, the agent idles and says so.
    pub ami: Option<Ami>,
    /// `[journal]`.
    pub journal: Journal,
    /// `[cdr]`.
    pub cdr: CdrStore,
    /// `[numbers]`.
    pub numbers: Numbers,
    /// `[recordings]`.
    pub recordings: Recordings,
    /// `[calls]`.
    pub calls: Calls,
    /// `[sms]`.
    pub sms: Sms,
    /// `[[queue]]`.
    pub queues: Vec<Queue>,
    /// `[[nimbox]]`.
    pub nimbox: Vec<Nimbox>,
    /// `[[webhook]]`.
    pub webhooks: Vec<Webhook>,
    /// `[api]`.
    pub api: Api,
}

/// `[pbx]`: who is who on this PBX.
#[derive(Clone, Debug)]
pub struct Pbx {
    /// `name`: `[a-z0-9-]{1,32}`, goes into every id.
    pub name: String,
    /// `timezone`: of CDR times.
    pub timezone: jiff::tz::TimeZone,
    /// `trunks`: outside lines.
    pub trunks: Vec<Trunk>,
    /// `inbound_contexts`: a channel born there comes from outside.
    pub inbound_contexts: Vec<String>,
    /// `extensions`: what counts as a local user's number.
    pub extensions: regex::Regex,
    /// `users`: learned otherwise.
    pub users: Vec<User>,
}

/// A channel name prefix of an outside line; `{ channel, number }` for lines without a DID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Prefix of the channel's name.
    pub channel: String,
    /// The line's own number.
    pub number: Option<String>,
}

/// One local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Channel name without its instance, `PJSIP/1001`.
    pub channel: String,
    /// Numeric id, sent as a string.
    pub id: u64,
    /// Name, plain.
    pub name: Option<String>,
    /// Numbers that reach the user.
    pub numbers: Vec<String>,
}

/// `[ami]`.
#[derive(Clone, Debug)]
pub struct Ami {
    /// `address`: host and port.
    pub address: String,
    /// `username`.
    pub username: String,
    /// `secret` or `secret_file`.
    pub secret: SecretString,
    /// `tls`: TLS from the first byte.
    pub tls: bool,
    /// `ca_file`: in place of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// `server_name`: the name in the certificate, when it is not the address's host.
    pub server_name: Option<String>,
}

/// `[journal]`.
#[derive(Clone, Debug)]
pub struct Journal {
    /// `directory`.
    pub directory: PathBuf,
    /// `max_size`, bytes.
    pub max_size: u64,
    /// `keep`: how long history stays.
    pub keep: Duration,
}

/// `[cdr]`: the CDR store.
#[derive(Clone, Debug)]
pub struct CdrStore {
    /// `timezone`: `auto` is `None`.
    pub timezone: Option<jiff::tz::TimeZone>,
    /// `source`: a URL, with its password inside, so secret.
    pub source: Option<SecretString>,
    /// `table`.
    pub table: String,
    /// `since`: reconciliation never goes further back.
    pub since: Option<jiff::Timestamp>,
    /// When it is reconciled with what the agent has sent.
    pub reconcile: Reconcile,
}

/// The keys of `[cdr]` about reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconcile {
    /// `reconcile`: how often, and after each login to Asterisk; `off` is `None`.
    pub every: Option<Duration>,
    /// `reconcile_since`: how far back.
    pub since: Duration,
    /// `full_at`: when, by `[pbx] timezone`, it goes back 360 days; `off` is `None`.
    pub full_at: Option<jiff::civil::Time>,
    /// `reconcile_after`: a call's rows are looked for so long after its end.
    pub settle: Duration,
}

impl Default for Reconcile {
    /// As the script was run: each hour 200 hours, each night 360 days.
    fn default() -> Self {
        Self {
            every: Some(Duration::from_secs(3_600)),
            since: Duration::from_secs(200 * 3_600),
            full_at: Some(jiff::civil::time(23, 0, 0, 0)),
            settle: Duration::from_secs(600),
        }
    }
}

/// `[numbers]`: outbound only, the first rule that matches wins.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// `min_length`, tested on the chosen destination before the rules.
    pub min_length: usize,
    /// `rules`.
    pub rules: Vec<NumberRule>,
}

/// One rewriting rule.
#[derive(Clone, Debug)]
pub struct NumberRule {
    /// `match`.
    pub pattern: regex::Regex,
    /// `replace`, with `$1` for groups.
    pub replace: String,
}

/// `[recordings]`.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// `directory`.
    pub directory: Option<PathBuf>,
    /// `url`: a template with `{path}`, `{recordingfile}`, `{channel}`, `{uniqueid}`, `{yyyy}`, `{mm}`, `{dd}`.
    pub url: Option<String>,
}

/// `[calls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// `report_unreached`: an inbound call that reached nobody makes one missed object.
    pub report_unreached: bool,
    /// `internal_caller_leg`: an internal call also makes the caller's leg.
    pub internal_caller_leg: bool,
    /// `conference_legs`: a user in a conference makes a leg.
    pub conference_legs: bool,
    /// `transfer_context`: where transfers by the API dial.
    pub transfer_context: String,
    /// How long an answered call waits for CDR rows before they are made from what was seen. No key:
    /// it is Asterisk's longest batch and a margin, and shorter in tests alone.
    pub cdr_hold: Duration,
}

/// `[sms]`.
#[derive(Clone, Debug, Default)]
pub struct Sms {
    /// `customer_id`.
    pub customer_id: u64,
    /// `devices`: modem to its own number.
    pub devices: Vec<(String, String)>,
}

/// `[[queue]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `name`, as in queues.conf.
    pub name: String,
    /// `id`, sent as a string.
    pub id: u64,
}

/// What every sink takes.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `enabled`.
    pub enabled: bool,
    /// `url`.
    pub url: url::Url,
    /// `concurrency`: requests under way at once.
    pub concurrency: usize,
    /// `timeout`: one whole exchange.
    pub timeout: Duration,
    /// `retry_for`: then a dead letter.
    pub retry_for: Duration,
    /// `rate`: requests a second.
    pub rate: Option<f64>,
    /// `ca_file`: in place of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// `pin`: SHA-256 of the certificate's public key, base64.
    pub pin: Option<String>,
    /// `public_only`: refuses private address ranges too.
    pub public_only: bool,
    /// `allow_http`.
    pub allow_http: bool,
    /// `headers`: sent with each request.
    pub headers: Vec<(String, SecretString)>,
}

/// `[[nimbox]]`.
#[derive(Clone, Debug)]
pub struct Nimbox {
    /// `name`: the route's.
    pub name: String,
    /// What every sink takes.
    pub delivery: Delivery,
    /// `token` or `token_file`.
    pub token: SecretString,
    /// `username`: HTTP Basic.
    pub username: Option<String>,
    /// `password` or `password_file`.
    pub password: Option<SecretString>,
    /// `initiated`.
    pub initiated: Initiated,
    /// `mode`.
    pub mode: Mode,
    /// `inbound_destination`.
    pub inbound_destination: InboundDestination,
    /// `withheld_source`: what a withheld caller is called.
    pub withheld_source: String,
    /// `numbers`: in place of the global rules.
    pub numbers: Option<Numbers>,
}

/// How `initiated` is written; part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiated {
    /// Local time with a literal `Z`, as the Perl script wrote it.
    LocalZ,
    /// Local time without a zone.
    Local,
    /// UTC with `Z`.
    UtcZ,
    /// Local time with its offset.
    Offset,
}

/// How many creates a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One a part that remains after folding.
    PerCdr,
    /// One a call.
    PerCall,
    /// One a row, equal keys collapsed.
    Raw,
}

/// What an inbound call's destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundDestination {
    /// The number that was called from outside.
    Did,
    /// The row's `dst`.
    Dst,
    /// The caller: NiMbox finds contacts by destination.
    Caller,
}

/// `[[webhook]]`.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `name`: the route's.
    pub name: String,
    /// What every sink takes.
    pub delivery: Delivery,
    /// `events`: names, or `call.state` for every state change.
    pub events: Vec<String>,
    /// `secret` or `secret_file`: signs requests.
    pub secret: Option<SecretString>,
    /// `secret_previous`: still signs during a rotation.
    pub secret_previous: Option<SecretString>,
    /// `dtmf_mask`: `*` for each digit.
    pub dtmf_mask: bool,
    /// `verify`: a test event must be answered before the route delivers.
    pub verify: bool,
    /// `client_cert_file`.
    pub client_cert_file: Option<PathBuf>,
    /// `client_key_file`.
    pub client_key_file: Option<PathBuf>,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// `socket`: for the commands.
    pub socket: PathBuf,
    /// `listen`: REST API and web page.
    pub listen: Option<String>,
    /// `token` or `token_file`.
    pub token: Option<SecretString>,
}
