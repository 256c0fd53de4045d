//! Who is local, and what a party is called.
//!
//! A channel is classified once, when it is first seen, by the first rule that matches: a trunk's
//! name prefix, a configured user, a context of inbound calls, an endpoint name that looks like an
//! extension. Everything else is outside. The direction of a leg follows: a local phone that is
//! called is `in`, a local phone that calls out is `out`.

use std::collections::HashSet;
use std::sync::Arc;

use parsers::{CallerId, ChannelName};
use serde::{Deserialize, Serialize};

use super::call::Party;
use super::objects::{Chan, MAX_ENDPOINTS, is_sane};
use super::tracker::SnapshotEndpoint;
use crate::config::{Calls, Config, Pbx, Sms};

/// Whose channel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Side {
    /// A local user's phone.
    #[serde(rename = "u")]
    User,
    /// Everyone else.
    #[serde(rename = "o")]
    Outside,
    /// Half of a Local channel: nobody.
    #[serde(rename = "l")]
    Local,
}

/// What the configuration says about people and lines.
#[derive(Debug)]
pub(super) struct Who {
    pub pbx: Pbx,
    pub calls: Calls,
    pub sms: Sms,
    queues: Vec<crate::config::Queue>,
    /// Phones that Asterisk listed, by endpoint name: `1001` of `PJSIP/1001`.
    learned: HashSet<Arc<str>>,
}

impl Who {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            pbx: config.pbx.clone(),
            calls: config.calls.clone(),
            sms: config.sms.clone(),
            queues: config.queues.clone(),
            learned: HashSet::new(),
        }
    }

    /// Takes the endpoints as Asterisk lists them: those that look like extensions, and those that
    /// log in here as phones do.
    pub(super) fn learn(&mut self, endpoints: &[SnapshotEndpoint]) {
        let named = endpoints.iter().filter(|one| is_sane(&one.name));
        let phones = named.filter(|one| one.phone || self.pbx.extensions.is_match(&one.name));
        self.learned = phones.take(MAX_ENDPOINTS).map(|one| one.name.clone()).collect();
    }

    /// What was learned goes on under another configuration.
    pub(super) fn knows_as(&mut self, old: Self) {
        self.learned = old.learned;
    }

    pub(super) fn side(&self, name: &ChannelName, context: Option<&str>) -> Side {
        if name.local_half().is_some() {
            return Side::Local;
        }
        if self.pbx.trunks.iter().any(|trunk| name.as_str().starts_with(&trunk.channel)) {
            return Side::Outside;
        }
        let endpoint = name.endpoint();
        if self.pbx.users.iter().any(|user| user.channel == endpoint) {
            return Side::User;
        }
        if context.is_some_and(|context| self.pbx.inbound_contexts.iter().any(|known| known == context)) {
            return Side::Outside;
        }
        let learned = endpoint.strip_prefix("PJSIP/").is_some_and(|name| self.learned.contains(name));
        if learned || self.pbx.extensions.is_match(extension(endpoint)) { Side::User } else { Side::Outside }
    }

    /// The configured number of a line that has no DID.
    pub(super) fn trunk_number(&self, name: &ChannelName) -> Option<Arc<str>> {
        let trunk = self.pbx.trunks.iter().find(|trunk| name.as_str().starts_with(&trunk.channel))?;
        trunk.number.as_deref().map(Arc::from)
    }

    /// A channel as a party: a user by number, id and plain name; anyone else as presented.
    pub(super) fn party(&self, chan: &Chan) -> Party {
        match chan.side {
            Side::User => self.user(chan.name.endpoint(), chan.caller.name.as_deref()),
            Side::Outside | Side::Local => outside(&chan.caller),
        }
    }

    /// A local user: configured, else learned from the channel's name. A learned user's id is the
    /// extension read as a number.
    pub(super) fn user(&self, endpoint: &str, presented: Option<&str>) -> Party {
        user(&self.pbx, endpoint, presented)
    }

    /// The user that a number reaches.
    pub(super) fn user_id(&self, number: &str) -> Option<u64> {
        let configured = self.pbx.users.iter().find(|user| user.numbers.iter().any(|known| known == number));
        configured.map(|user| user.id).or_else(|| {
            let by_name = self.pbx.users.iter().find(|user| extension(&user.channel) == number);
            let learned = || self.learned.get(number).and_then(|number| number.parse().ok());
            by_name.map(|user| user.id).or_else(learned)
        })
    }

    /// A queue's configured id, 0 without one.
    pub(super) fn queue_id(&self, name: &str) -> u64 {
        self.queues.iter().find(|queue| queue.name == name).map_or(0, |queue| queue.id)
    }
}

/// The user of an endpoint, by the configuration and by its name.
pub(crate) fn user(pbx: &Pbx, endpoint: &str, presented: Option<&str>) -> Party {
    let extension = extension(endpoint);
    let configured = pbx.users.iter().find(|user| user.channel == endpoint);
    let number = configured.and_then(|user| user.numbers.first().map(String::as_str)).unwrap_or(extension);
    let name = configured.and_then(|user| user.name.as_deref()).or(presented).unwrap_or_default();
    Party {
        number: number.to_owned(),
        id: configured.map_or_else(|| extension.parse().unwrap_or(0), |user| user.id),
        name: name.to_owned(),
    }
}

/// `1001` of `PJSIP/1001`.
pub(super) fn extension(endpoint: &str) -> &str {
    endpoint.split_once('/').map_or(endpoint, |(_, name)| name)
}

/// A caller who is nobody of ours.
fn outside(caller: &CallerId) -> Party {
    Party {
        number: caller.num.as_deref().filter(|number| !is_withheld(number)).unwrap_or_default().to_owned(),
        id: 0,
        name: caller.name.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Words that carriers and phones send in place of a number.
fn is_withheld(number: &str) -> bool {
    const WORDS: [&str; 6] = ["anonymous", "private", "restricted", "unavailable", "unknown", "withheld"];
    WORDS.iter().any(|word| number.eq_ignore_ascii_case(word))
}

/// The caller as presented, `"Name" <number>`, as Asterisk's CDRs have it.
pub(super) fn clid(caller: &CallerId) -> String {
    let name = caller.name.as_deref().unwrap_or_default();
    let number = caller.num.as_deref().unwrap_or_default();
    if name.is_empty() && number.is_empty() { String::new() } else { format!("\"{name}\" <{number}>") }
}
