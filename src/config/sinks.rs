//! `[[nimbox]]` and `[[webhook]]`, and what both take.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::check::{Names, numbers};
use super::read::Section;
use super::rules::PlainHttp;
use crate::sinks::SigningKey;

use super::types::{Delivery, InboundDestination, Initiated, Mode, Nimbox, Numbers, Webhook};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Above this a receiver is hurt before it is hurried.
const MAX_CONCURRENCY: u64 = 64;

pub(super) fn nimbox(table: Section<'_>, global: &Numbers, routes: &mut Names) -> Option<Nimbox> {
    let name = route_name(&table, routes);
    // two at once: it is somebody's CRM
    let defaults = SinkDefaults { concurrency: 2, timeout: SECOND * 30, plain: PlainHttp::Anywhere };
    let delivery = delivery(&table, &defaults);
    let token = table.secret("token");
    table.missing("token", "give `token` or `token_file`: NiMbox's authentication token of the web service");
    let (username, password) = (table.word("username"), table.secret("password"));
    if username.is_some() != (table.has("password") || table.has("password_file")) {
        let key = if username.is_some() { "username" } else { "password" };
        table.fault(
            key,
            "stands alone",
            "give both `username` and `password` (or `password_file`), or neither",
        );
    }
    let initiated = [
        ("local-z", Initiated::LocalZ),
        ("local", Initiated::Local),
        ("utc-z", Initiated::UtcZ),
        ("offset", Initiated::Offset),
    ];
    let mode = [("per_cdr", Mode::PerCdr), ("per_call", Mode::PerCall), ("raw", Mode::Raw)];
    let destination = [
        ("did", InboundDestination::Did),
        ("dst", InboundDestination::Dst),
        ("caller", InboundDestination::Caller),
    ];
    let initiated = table.choice("initiated", &initiated).unwrap_or(Initiated::LocalZ);
    let mode = table.choice("mode", &mode).unwrap_or(Mode::PerCdr);
    let inbound_destination =
        table.choice("inbound_destination", &destination).unwrap_or(InboundDestination::Did);
    let withheld_source = table.text("withheld_source").unwrap_or_else(|| "anonymous".to_owned());
    let numbers = table.table("numbers").map(|table| numbers(table, global));
    table.finish();
    Some(Nimbox {
        name: name?,
        delivery: delivery?,
        token: token?,
        username,
        password,
        initiated,
        mode,
        inbound_destination,
        withheld_source,
        numbers,
    })
}

pub(super) fn webhook(table: Section<'_>, routes: &mut Names) -> Option<Webhook> {
    let name = route_name(&table, routes);
    let defaults = SinkDefaults { concurrency: 8, timeout: SECOND * 15, plain: PlainHttp::LoopbackAddress };
    let delivery = delivery(&table, &defaults);
    let events = table.events("events");
    table.missing("events", "name what it wants, as events = [\"call.state\", \"sms.received\"]");
    let (secret, secret_previous) =
        (signing_secret(&table, "secret"), signing_secret(&table, "secret_previous"));
    let (client_cert_file, client_key_file) = (table.file("client_cert_file"), table.file("client_key_file"));
    if table.has("client_cert_file") != table.has("client_key_file") {
        let key = if table.has("client_cert_file") { "client_cert_file" } else { "client_key_file" };
        table.fault(key, "stands alone", "give both `client_cert_file` and `client_key_file`, or neither");
    }
    let (dtmf_mask, verify) =
        (table.flag("dtmf_mask").unwrap_or(false), table.flag("verify").unwrap_or(true));
    table.finish();
    Some(Webhook {
        name: name?,
        delivery: delivery?,
        events: events?,
        secret,
        secret_previous,
        dtmf_mask,
        verify,
        client_cert_file,
        client_key_file,
    })
}

/// What kinds of sinks differ in.
struct SinkDefaults {
    concurrency: usize,
    timeout: Duration,
    plain: PlainHttp,
}

fn delivery(table: &Section<'_>, defaults: &SinkDefaults) -> Option<Delivery> {
    let allow_http = table.flag("allow_http").unwrap_or(false);
    let url = table.sink_url("url", allow_http, defaults.plain);
    table.missing("url", "give the address that it delivers to, as \"https://hooks.example.com/pbx\"");
    let concurrency = table.count("concurrency", 1..=MAX_CONCURRENCY).and_then(|n| usize::try_from(n).ok());
    let pin = table.word("pin").map(|pin| pin.strip_prefix("sha256//").unwrap_or(&pin).to_owned());
    if pin.as_deref().is_some_and(|pin| !is_pin(pin)) {
        let remedy =
            "write the SHA-256 of the public key in base64, 44 characters, as curl's --pinnedpubkey has it";
        table.fault("pin", "is not a pin", remedy);
    }
    let delivery = Delivery {
        enabled: table.flag("enabled").unwrap_or(true),
        concurrency: concurrency.unwrap_or(defaults.concurrency),
        timeout: table.duration("timeout", SECOND..=SECOND * 120).unwrap_or(defaults.timeout),
        retry_for: table.duration("retry_for", SECOND..=HOUR * 1_440).unwrap_or(HOUR * 75),
        rate: table.rate("rate"),
        ca_file: table.file("ca_file"),
        pin,
        public_only: table.flag("public_only").unwrap_or(false),
        allow_http,
        headers: headers(table),
        url: url?,
    };
    Some(delivery)
}

/// Header names that the request itself needs.
const OWN_HEADERS: [&str; 11] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "callpost-sequence",
    "te",
];

fn headers(table: &Section<'_>) -> Vec<(String, SecretString)> {
    let Some(inner) = table.table("headers") else { return Vec::new() };
    let mut headers = Vec::new();
    for (key, node) in inner.entries() {
        let name = key.strip_suffix("_file").unwrap_or(key);
        let value =
            if name == key { inner.inline_secret(key, node) } else { inner.secret_in_file(key, node) };
        if axum::http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            inner.fault(key, "is not the name of an HTTP header", "use letters, digits and -");
            continue;
        }
        if OWN_HEADERS.contains(&name.to_lowercase().as_str()) {
            inner.fault(key, "is a header that callpost sets itself", "remove it");
            continue;
        }
        let Some(value) = value else { continue };
        if axum::http::HeaderValue::from_str(value.expose_secret()).is_err() {
            inner.fault(key, "holds characters that no header can carry", "use visible ASCII characters");
            continue;
        }
        headers.push((name.to_owned(), value));
    }
    headers
}

fn route_name(table: &Section<'_>, routes: &mut Names) -> Option<String> {
    let name = table.route_name("name");
    table.missing("name", "give it a short name of its own: it is what `status` and `dead` call it");
    if let Some(name) = &name {
        routes.add(table, "name", name);
    }
    name
}

/// Standard Webhooks: `whsec_` and at least 24 bytes in base64.
fn signing_secret(table: &Section<'_>, key: &str) -> Option<SecretString> {
    let secret = table.secret(key)?;
    if let Err(why) = SigningKey::parse(secret.expose_secret()) {
        table.fault(key, why.to_string(), "echo whsec_$(head -c 32 /dev/urandom | base64)");
        return None;
    }
    Some(secret)
}

/// A SHA-256 in base64.
fn is_pin(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}
