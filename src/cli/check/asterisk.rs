//! Asterisk: may we read what is needed, and is it set to say it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::Report;
use crate::ami::{AmiError, Finding, ProbeReport, probe};
use crate::api::AgentStatus;
use crate::calls::CdrSource;
use crate::cli::status::client;
use crate::config::{Ami, Config};

const STANZA: &str = include_str!("../../../packaging/asterisk/manager.d/callpost.conf");
const CDR_MANAGER: &str = include_str!("../../../packaging/asterisk/cdr_manager.conf");

/// A login and half a dozen questions.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(1);

/// What the agent on this host says, if one runs.
pub(super) async fn running(config: &Config) -> Option<AgentStatus> {
    client(config).status().await.ok()
}

pub(super) async fn check(
    config: &Config,
    running: Option<&AgentStatus>,
    report: &mut Report,
) -> io::Result<()> {
    let Some(ami) = &config.ami else { return Ok(()) };
    match timeout(PATIENCE, probe(ami)).await {
        Ok(Ok(found)) => findings(&found, report)?,
        Ok(Err(error @ AmiError::Credentials { .. })) => {
            report.bad("Asterisk", error.to_string(), stanza())?;
        }
        Ok(Err(error)) => {
            let remedy = "is Asterisk running, with `enabled = yes` in manager.conf, and is this the address it has there?";
            report.bad("Asterisk", error.to_string(), remedy)?;
        }
        Err(_) => report.bad(
            "Asterisk",
            format!("no answer from {} in {PATIENCE:?}", ami.address),
            "is Asterisk stuck? asterisk -rx 'core show uptime'",
        )?,
    }
    open_to_all(ami, report).await?;
    cdr_events(config, running, report)?;
    outside_lines(config, report)
}

fn findings(found: &ProbeReport, report: &mut Report) -> io::Result<()> {
    report.ok("Asterisk", format!("{}, AMI {}", found.asterisk, found.ami))?;
    let mut denied = false;
    for Finding { ok, subject, found, remedy } in &found.findings {
        if *ok {
            report.ok(subject, found.as_str())?;
        } else {
            denied = true;
            report.bad(
                subject,
                found.as_str(),
                remedy.as_deref().unwrap_or("see the account in manager.conf"),
            )?;
        }
    }
    if denied {
        report.note("account", "what the agent needs in manager.conf", stanza())?;
    }
    Ok(())
}

/// The file without its comments.
fn plain(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

fn stanza() -> String {
    format!("the account in manager.conf, then `asterisk -rx 'manager reload'`:\n{}", plain(STANZA))
}

/// FreePBX lets AMI listen on all addresses by default.
async fn open_to_all(ami: &Ami, report: &mut Report) -> io::Result<()> {
    let Some(port) =
        ami.address.parse::<SocketAddr>().ok().filter(|a| a.ip().is_loopback()).map(|a| a.port())
    else {
        return Ok(());
    };
    let Some(address) = own_address() else { return Ok(()) };
    if timeout(CONNECT, TcpStream::connect((address, port))).await.is_ok_and(|connected| connected.is_ok()) {
        let found = format!("AMI also answers at {address}:{port}, so the network can try passwords");
        let remedy = "set bindaddr = 127.0.0.1 in manager.conf, or let the firewall close the port";
        report.warning("Asterisk", found, remedy)?;
    }
    Ok(())
}

/// The address that this host would use towards the network; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// Nobody can ask whether cdr_manager is on: only a Cdr event shows it.
fn cdr_events(config: &Config, running: Option<&AgentStatus>, report: &mut Report) -> io::Result<()> {
    if config.nimbox.is_empty() {
        return Ok(());
    }
    let lines = format!(
        "in cdr_manager.conf, then `asterisk -rx 'module reload cdr_manager.so'`:\n{}",
        plain(CDR_MANAGER)
    );
    match running.and_then(|status| status.ingest.cdr_source) {
        Some(CdrSource::Events) => {
            report.ok("Cdr events", "they come; NiMbox gets Asterisk's own times and durations")
        }
        Some(CdrSource::Tracker | CdrSource::Store) => report.warning(
            "Cdr events",
            "calls ended without one, so NiMbox creates are made from what the agent saw",
            lines,
        ),
        None => report.note(
            "Cdr events",
            "the first call that ends beside a running agent will show whether they come",
            lines,
        ),
    }
}

fn outside_lines(config: &Config, report: &mut Report) -> io::Result<()> {
    if config.pbx.trunks.is_empty() {
        let contexts = config.pbx.inbound_contexts.join(", ");
        let found = format!(
            "no trunks are named: a channel is outside if it begins in {contexts}, or is no extension"
        );
        report.warning(
            "outside lines",
            found,
            "list the beginnings of their channels' names: [pbx] trunks = [\"PJSIP/trunk\"]",
        )?;
    }
    Ok(())
}
