//! Each sink: name, address, way, certificate, answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::Report;
use crate::calls::UpdateId;
use crate::cli::out::plural;
use crate::clock;
use crate::config::{Config, Delivery, InboundDestination, Nimbox, Webhook};
use crate::sinks::{Class, NimboxSink, Outcome, WebhookSink, test_body};

const RESOLVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config, send_test: bool, report: &mut Report) -> io::Result<()> {
    for sink in &config.nimbox {
        nimbox(sink, report).await?;
    }
    for sink in &config.webhooks {
        webhook(config, sink, send_test, report).await?;
    }
    if config.nimbox.is_empty() && config.webhooks.is_empty() {
        report.note(
            "sinks",
            "none are configured: calls are journalled and go nowhere",
            "add a [[webhook]] or a [[nimbox]]",
        )?;
    }
    Ok(())
}

async fn nimbox(sink: &Nimbox, report: &mut Report) -> io::Result<()> {
    let subject = format!("nimbox {}", sink.name);
    if !enabled(&subject, &sink.delivery, report)? {
        return Ok(());
    }
    if reach(&subject, &sink.delivery, report).await?.is_some() {
        answered(&subject, &NimboxSink::new(sink).probe().await, report)?;
    }
    let (found, remedy) = match sink.inbound_destination {
        InboundDestination::Did => (
            "inbound_destination = \"did\": NiMbox finds the contact by the destination, which for an inbound call is your own number",
            "so inbound calls attach to whoever has your own number as contact; to find the person who called, set \"caller\"",
        ),
        InboundDestination::Dst => (
            "inbound_destination = \"dst\": NiMbox finds the contact by the destination, which for an inbound call is the extension or where the dialplan led it",
            "for the number that was called set \"did\", to find the person who called \"caller\"",
        ),
        InboundDestination::Caller => (
            "inbound_destination = \"caller\": an inbound call goes to NiMbox with the caller as its destination, so it finds who called",
            "its source is the caller as well; keys differ from those of the Perl script",
        ),
    };
    report.note(&subject, found, remedy)
}

async fn webhook(config: &Config, sink: &Webhook, send_test: bool, report: &mut Report) -> io::Result<()> {
    let subject = format!("webhook {}", sink.name);
    if !enabled(&subject, &sink.delivery, report)? {
        return Ok(());
    }
    let reached = reach(&subject, &sink.delivery, report).await?;
    // where a firewall drops us, just that address is wanted
    let source = match reached {
        Some(source) => Some(source),
        None => would_leave_from(&sink.delivery).await,
    };
    if let Some(source) = source {
        let found = format!("requests leave this host from {}", source.ip());
        let remedy = if is_private(source) {
            "its firewall must admit the public address that your router puts in place of it (curl https://ifconfig.me)"
        } else {
            "its firewall must admit that address"
        };
        report.note(&subject, found, remedy)?;
    }
    let built = WebhookSink::new(sink);
    if reached.is_some() {
        answered(&subject, &built.probe().await, report)?;
    }
    if let Some(key) = built.public_key() {
        report.note(&subject, "signs with v1a (ed25519)", format!("the receiver verifies with {key}"))?;
    } else if sink.secret.is_none() {
        report.note(
            &subject,
            "is not signed",
            "with secret = \"whsec_...\" the receiver can tell that a request is ours",
        )?;
    }
    report.note(&subject, "to try the URL from here", curl(&config.pbx.name, sink))?;
    if send_test && reached.is_some() {
        let id = test_id(&config.pbx.name);
        let outcome = built.post(&id, None, &test_body(&id, clock::now())).await;
        match (outcome.class, outcome.status) {
            (Class::Delivered, Some(status)) => {
                report.ok(&subject, format!("the test event was accepted (HTTP {status})"))?
            }
            _ => report.bad(
                &subject,
                format!("the test event was not accepted: {}", outcome.why),
                "the receiver must answer it with 2xx",
            )?,
        }
    } else if !send_test && sink.verify {
        report.note(
            &subject,
            "not tried with an event",
            "`callpost check --send-test` posts one; the agent does so before its first delivery",
        )?;
    }
    Ok(())
}

fn enabled(subject: &str, delivery: &Delivery, report: &mut Report) -> io::Result<bool> {
    if !delivery.enabled {
        report.note(subject, "is not enabled, so nothing is kept for it", "set enabled = true to use it")?;
    }
    Ok(delivery.enabled)
}

/// Name and way; gives the address that we come from.
async fn reach(subject: &str, delivery: &Delivery, report: &mut Report) -> io::Result<Option<SocketAddr>> {
    let url = &delivery.url;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Ok(None) };
    let name = host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> = match timeout(RESOLVE, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            report.bad(
                subject,
                format!("{name} cannot be resolved: {error}"),
                "correct the URL or this host's DNS (`getent hosts`)",
            )?;
            return Ok(None);
        }
        Err(_) => {
            report.bad(
                subject,
                format!("{name} was not resolved in {RESOLVE:?}"),
                "see this host's DNS: /etc/resolv.conf",
            )?;
            return Ok(None);
        }
    };
    for address in &addresses {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
            report.ok(subject, format!("{name} is {}, port {port} is open", address.ip()))?;
            return stream.local_addr().map(Some);
        }
    }
    let tried = plural(addresses.len() as u64, "address", "addresses");
    report.bad(
        subject,
        format!("port {port} of {name} does not answer ({tried} tried)"),
        "is it up, and do the firewalls on both sides allow it?",
    )?;
    Ok(None)
}

/// Any answer will do: no call was sent.
fn answered(subject: &str, outcome: &Outcome, report: &mut Report) -> io::Result<()> {
    let remedy = match (outcome.status, outcome.class) {
        (Some(status), _) if status < 500 => {
            return report.ok(subject, format!("it answers (HTTP {status} to a HEAD request)"));
        }
        (Some(status), _) => {
            return report.warning(
                subject,
                format!("it answered HTTP {status} to a HEAD request"),
                "its own log says why",
            );
        }
        (None, Class::Certificate) => {
            "name the authority that signed it with ca_file, or its key with pin; there is no way to do without"
        }
        (None, Class::Forbidden) => {
            "use another address; this rule protects the networks that this host can reach"
        }
        (None, _) => "see its own log, and what stands between (curl -v)",
    };
    report.bad(subject, outcome.why.as_str(), remedy)
}

/// The address that a connection would come from. Nothing is sent to find out.
async fn would_leave_from(delivery: &Delivery) -> Option<SocketAddr> {
    let url = &delivery.url;
    let name = url.host_str()?.trim_matches(['[', ']']);
    let resolved = tokio::net::lookup_host((name, url.port_or_known_default()?));
    let to = timeout(RESOLVE, resolved).await.ok()?.ok()?.next()?;
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await.ok()?;
    socket.connect(to).await.ok()?;
    socket.local_addr().ok()
}

/// What to paste into a shell. No secrets in it but those that the URL may hold.
fn curl(pbx: &str, sink: &Webhook) -> String {
    let id = test_id(pbx);
    let mut line = "curl -i".to_owned();
    let mut add = |option: &str, value: &str| {
        line.push_str(&format!(" {option} {}", quoted(value)));
    };
    let delivery = &sink.delivery;
    if let Some(file) = &delivery.ca_file {
        add("--cacert", &file.display().to_string());
    }
    if let Some(pin) = &delivery.pin {
        add("--pinnedpubkey", &format!("sha256//{pin}"));
    }
    if let (Some(cert), Some(key)) = (&sink.client_cert_file, &sink.client_key_file) {
        add("--cert", &cert.display().to_string());
        add("--key", &key.display().to_string());
    }
    add("-H", "Content-Type: application/json");
    for (name, _) in &delivery.headers {
        add("-H", &format!("{name}: PUT-ITS-VALUE-HERE"));
    }
    add("-d", &test_body(&id, clock::now()));
    // a pin alone stands in place of a chain of trust
    let insecure = if delivery.pin.is_some() && delivery.ca_file.is_none() { " -k" } else { "" };
    format!("{line}{insecure} {}", quoted(delivery.url.as_str()))
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn test_id(pbx: &str) -> UpdateId {
    let now = clock::now().0.unsigned_abs() & ((1 << 56) - 1);
    UpdateId(format!("{pbx}.{now:014x}.0").into())
}

fn is_private(address: SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || is_shared(v4),
        std::net::IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

/// 100.64.0.0/10, behind a provider's router (RFC 6598).
fn is_shared(address: std::net::Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}
