//! Outside lines, as far as the configuration of the channel drivers tells them.

use super::conf::Conf;
use super::host::Host;

/// A call that begins in such a context comes from outside.
const OUTSIDE: [&str; 3] = ["from-trunk", "from-pstn", "from-did"];

/// The beginnings of their channels' names. What cannot be read tells nothing.
pub(super) fn find(host: &Host) -> Vec<String> {
    let conf = |name: &str| host.conf(name).ok().flatten().unwrap_or_default();
    let mut trunks = pjsip(&conf("pjsip.conf"));
    trunks.extend(peers(&conf("sip.conf"), "SIP"));
    trunks.extend(peers(&conf("iax.conf"), "IAX2"));
    trunks.extend(dahdi(&conf("chan_dahdi.conf")));
    let mut seen = std::collections::BTreeSet::new();
    trunks.retain(|trunk| seen.insert(trunk.clone()));
    trunks
}

/// Endpoints that log in elsewhere, that a registration is for, or that begin in a trunk's context.
fn pjsip(conf: &Conf) -> Vec<String> {
    let told = |section, key: &str| conf.told(section, key);
    let registered: Vec<_> = conf
        .real()
        .filter(|section| told(section, "type") == Some("registration"))
        .filter_map(|section| told(section, "endpoint"))
        .collect();
    let endpoints = conf.real().filter(|section| told(section, "type") == Some("endpoint"));
    endpoints
        .filter(|section| {
            told(section, "outbound_auth").is_some()
                || registered.contains(&section.name.as_str())
                || told(section, "context").is_some_and(is_outside)
        })
        .map(|section| format!("PJSIP/{}-", section.name))
        .collect()
}

fn peers(conf: &Conf, technology: &str) -> Vec<String> {
    let peers = conf.real().filter(|section| !matches!(section.name.as_str(), "general" | "authentication"));
    peers
        .filter(|section| {
            conf.told(section, "type").is_some() && conf.told(section, "context").is_some_and(is_outside)
        })
        .map(|section| format!("{technology}/{}-", section.name))
        .collect()
}

/// All of them or none: its channels' names do not tell lines from phones.
fn dahdi(conf: &Conf) -> Vec<String> {
    let values = || conf.sections.iter().flat_map(|section| &section.values);
    let contexts: Vec<_> = values().filter(|v| v.key == "context").map(|v| v.value.as_str()).collect();
    let channels = values().any(|v| v.key == "channel" || v.key == "dahdichan");
    let all = !contexts.is_empty() && contexts.iter().all(|context| is_outside(context));
    if channels && all { vec!["DAHDI/".to_owned()] } else { Vec::new() }
}

fn is_outside(context: &str) -> bool {
    OUTSIDE.iter().any(|start| context.starts_with(start))
}
