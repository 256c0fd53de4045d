//! What `check` asks Asterisk: may the account do what the agent needs, and what is Asterisk set
//! to emit.

use parsers::ami::{Action, Response, Status};
use serde::Serialize;
use tokio::time::{Duration, timeout};

use super::connection::Connection;
use super::session::{action, feed, login};
use super::{AmiError, Feed};
use crate::config;

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Nothing to do.
    pub ok: bool,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it, when there is something to do.
    pub remedy: Option<String>,
}

/// What Asterisk said.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Asterisk's version.
    pub asterisk: String,
    /// AMI's version.
    pub ami: String,
    /// Each line.
    pub findings: Vec<Finding>,
}

/// Logs in and looks around; changes nothing.
///
/// # Errors
/// When there is no session at all.
pub async fn probe(config: &config::Ami) -> Result<ProbeReport, AmiError> {
    let (hub, mut events) = feed();
    let mut connection = Connection::open(config, hub.sender()).await?;
    login(&mut connection, config).await?;
    let mut findings = vec![Finding {
        ok: true,
        subject: "login",
        found: format!("user \"{}\" at {}", config.username, config.address),
        remedy: None,
    }];
    findings.push(booted(timeout(Duration::from_secs(2), events.recv()).await.ok().flatten().as_ref()));
    let settings = connection.ask(Action::new("CoreSettings")).await?;
    let text = |key| settings.headers.text(key).map(std::borrow::Cow::into_owned).unwrap_or_default();
    let asterisk = text("AsteriskVersion");
    findings.push(allowed("CoreSettings", "write = call,reporting", &settings));
    if settings.status == Status::Success {
        findings.push(cdr_enabled(&text("CoreCDRenabled")));
    }
    let needs: [(&'static str, Action); 4] = [
        ("CoreShowChannels", Action::new("CoreShowChannels")),
        ("Status", Action::new("Status")),
        ("BridgeList", Action::new("BridgeList")),
        ("QueueStatus", Action::new("QueueStatus")),
    ];
    for (name, ask) in needs {
        let (answer, _) = connection.ask_list(ask).await?;
        findings.push(allowed(name, "write = call,reporting", &answer));
    }
    let (answer, list) = connection.ask_list(Action::pjsip_show_endpoints()).await?;
    findings.push(endpoints(&answer, list.items.len()));
    // Shows a class that is missing: Asterisk answers with what of the mask the account may read.
    let answer =
        connection.ask(action("Events", &[("EventMask", "call,agent,dtmf,cdr,user,system")])?).await?;
    findings.push(allowed("Events", "read = call,agent,dtmf,cdr,user,system", &answer));
    Ok(ProbeReport { asterisk, ami: connection.banner.version.clone(), findings })
}

fn booted(first: Option<&Feed>) -> Finding {
    let ok = matches!(first, Some(Feed::Event { event, .. })
        if matches!(event.kind, parsers::ami::EventKind::FullyBooted { .. }));
    Finding {
        ok,
        subject: "class system",
        found: if ok { "FullyBooted received".to_owned() } else { "no FullyBooted after the login".to_owned() },
        remedy: (!ok).then(|| {
            "put `system` into the account's read line (no spaces after commas): without it a restart of Asterisk is noticed late"
                .to_owned()
        }),
    }
}

fn cdr_enabled(value: &str) -> Finding {
    let ok = value.eq_ignore_ascii_case("yes");
    Finding {
        ok,
        subject: "CDRs",
        found: format!("CoreCDRenabled: {value}"),
        remedy: (!ok).then(|| "set `enable = yes` in cdr.conf: NiMbox creates come from CDRs".to_owned()),
    }
}

/// Of use, but not asked for: it needs a class that may also end calls.
fn endpoints(answer: &Response, count: usize) -> Finding {
    let found = if answer.status == Status::Success {
        format!("{count} of chan_pjsip listed: phones are known before their first call")
    } else {
        "not listed (needs write = system, which is not required): phones are learned from their calls"
            .to_owned()
    };
    Finding { ok: true, subject: "endpoints", found, remedy: None }
}

fn allowed(name: &'static str, line: &str, answer: &Response) -> Finding {
    let ok = answer.status == Status::Success;
    Finding {
        ok,
        subject: name,
        found: if ok { "allowed".to_owned() } else { answer.message.clone().unwrap_or_default() },
        remedy: (!ok).then(|| {
            format!("give the account `{line}` in manager.conf, then `asterisk -rx 'manager reload'`")
        }),
    }
}
