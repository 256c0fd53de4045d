//! Values and blocks of one event. A block is a group of headers that Asterisk writes together, each
//! key with the same prefix (`main/manager_channels.c:ast_manager_build_channel_state_string_prefix`,
//! `main/manager_bridges.c:ast_manager_build_bridge_state_string_prefix`).

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use super::text::{decode, unescape};
use super::{Bridge, Channel, ChannelState, Message, grammar};
use crate::ident::{CallerId, ChannelName, Linkedid, Uniqueid};

/// The headers of a message whose keys begin with a prefix.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    message: &'a Message,
    /// The whole message as text, if it is UTF-8: so that not each value has to be looked at.
    utf8: Option<&'a str>,
    prefix: &'static str,
}

impl<'a> Block<'a> {
    /// The event's own headers.
    pub(super) fn own(message: &'a Message) -> Self {
        Self { message, utf8: std::str::from_utf8(message.as_bytes()).ok(), prefix: "" }
    }

    /// Another party's: `Dest`, `Transferer`, `LocalOne` and so on.
    pub(super) const fn of(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// Every value of a key, as text.
    pub(super) fn all(self, key: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.message.find(self.prefix, key).map(move |header| {
            match self.utf8.and_then(|all| all.get(header.value())) {
                Some(value) => Cow::Borrowed(value),
                None => decode(&self.message.as_bytes()[header.value()]),
            }
        })
    }

    /// The value; `None` when there is none, or an empty one.
    pub(super) fn get(self, key: &str) -> Option<Cow<'a, str>> {
        self.all(key).next().filter(|value| !value.is_empty())
    }

    /// The value as text that others keep.
    pub(super) fn text(self, key: &str) -> Option<Arc<str>> {
        self.get(key).map(Arc::from)
    }

    /// A number; `None` where it is none.
    pub(super) fn number<T: FromStr>(self, key: &str) -> Option<T> {
        self.get(key)?.trim().parse().ok()
    }

    /// Whether the value is this word, in any case.
    pub(super) fn is(self, key: &str, word: &str) -> bool {
        self.get(key).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }

    /// The value, unless it stands for one that is missing.
    fn known(self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).filter(|value| value != "<unknown>")
    }

    /// A channel's id.
    pub(super) fn uniqueid(self, key: &str) -> Option<Uniqueid> {
        self.known(key).map(|id| Uniqueid::new(Arc::from(id)))
    }

    /// The channel block; `None` without `Channel` or `Uniqueid`.
    pub(super) fn channel(self) -> Option<Channel> {
        let id = Arc::from(self.known("Uniqueid")?);
        let name = ChannelName::new(Arc::from(self.known("Channel")?));
        Some(Channel {
            name,
            state: state(self.get("ChannelState").as_deref()),
            caller: self.party("CallerIDNum", "CallerIDName"),
            connected: self.party("ConnectedLineNum", "ConnectedLineName"),
            accountcode: self.text("AccountCode"),
            context: self.text("Context"),
            exten: self.text("Exten"),
            linkedid: self.linkedid(&id),
            uniqueid: Uniqueid::new(id),
            variables: self.channel_variables(),
        })
    }

    /// The linkedid, most often the uniqueid over again.
    fn linkedid(self, uniqueid: &Arc<str>) -> Linkedid {
        match self.known("Linkedid") {
            Some(id) if id != **uniqueid => Linkedid::new(Arc::from(id)),
            _ => Linkedid::new(Arc::clone(uniqueid)),
        }
    }

    /// A number and a name of the channel block, where only the name is escaped.
    fn party(self, num: &str, name: &str) -> CallerId {
        CallerId { num: self.known(num).map(Arc::from), name: self.known(name).map(unescape).map(Arc::from) }
    }

    /// `ChanVariable: name=value`, escaped.
    fn channel_variables(self) -> Vec<(Arc<str>, Arc<str>)> {
        self.all("ChanVariable").filter_map(|value| variable(&unescape(value))).collect()
    }

    /// The bridge block; `None` without `BridgeUniqueid`.
    pub(super) fn bridge(self) -> Option<Bridge> {
        let id = self.text("BridgeUniqueid")?;
        Some(Bridge { id, kind: self.text("BridgeType").unwrap_or_default() })
    }
}

/// `name=value`.
pub(super) fn variable(text: &str) -> Option<(Arc<str>, Arc<str>)> {
    let (_, (name, value)) = grammar::variable(text).ok()?;
    Some((name.into(), value.into()))
}

/// `ChannelState`, one digit.
fn state(digit: Option<&str>) -> ChannelState {
    match digit {
        Some("0") => ChannelState::Down,
        Some("1") => ChannelState::Reserved,
        Some("2") => ChannelState::OffHook,
        Some("3") => ChannelState::Dialing,
        Some("4") => ChannelState::Ring,
        Some("5") => ChannelState::Ringing,
        Some("6") => ChannelState::Up,
        Some("7") => ChannelState::Busy,
        Some("8") => ChannelState::DialingOffHook,
        Some("9") => ChannelState::PreRing,
        _ => ChannelState::Unknown,
    }
}
