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
    prefix: &'static str,
}

impl<'a> Block<'a> {
    /// `Dest`, `Transferer`, `LocalOne` and so on; empty for the event's own channel.
    pub(super) const fn new(message: &'a Message, prefix: &'static str) -> Self {
        Self { message, prefix }
    }

    /// The value; `None` when there is none, or an empty one.
    pub(super) fn raw(self, key: &str) -> Option<&'a [u8]> {
        self.message.find(self.prefix, key).filter(|value| !value.is_empty())
    }

    /// The value as text, as it stands.
    pub(super) fn text(self, key: &str) -> Option<Arc<str>> {
        self.raw(key).map(shared)
    }

    /// A number; `None` where it is none.
    pub(super) fn number<T: FromStr>(self, key: &str) -> Option<T> {
        std::str::from_utf8(self.raw(key)?).ok()?.trim().parse().ok()
    }

    /// Whether the value is this word, in any case.
    pub(super) fn is(self, key: &str, word: &str) -> bool {
        self.raw(key).is_some_and(|value| value.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The value, unless it stands for one that is missing.
    fn known(self, key: &str) -> Option<&'a [u8]> {
        self.raw(key).filter(|value| *value != b"<unknown>")
    }

    /// A channel's id.
    pub(super) fn uniqueid(self, key: &str) -> Option<Uniqueid> {
        self.known(key).map(|id| Uniqueid::new(shared(id)))
    }

    /// The channel block; `None` without `Channel` or `Uniqueid`.
    pub(super) fn channel(self) -> Option<Channel> {
        let id = shared(self.known("Uniqueid")?);
        let name = ChannelName::new(shared(self.known("Channel")?));
        Some(Channel {
            name,
            state: state(self.raw("ChannelState")),
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
            Some(id) if id != uniqueid.as_bytes() => Linkedid::new(shared(id)),
            _ => Linkedid::new(Arc::clone(uniqueid)),
        }
    }

    /// A number and a name of the channel block, where only the name is escaped.
    fn party(self, num: &str, name: &str) -> CallerId {
        let name = self.known(name).map(|name| Arc::from(unescape(decode(name))));
        CallerId { num: self.known(num).map(shared), name }
    }

    /// `ChanVariable: name=value`, escaped.
    fn channel_variables(self) -> Vec<(Arc<str>, Arc<str>)> {
        self.message
            .find_all(self.prefix, "ChanVariable")
            .filter_map(|value| variable(&unescape(decode(value))))
            .collect()
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

/// Text that others keep.
pub(super) fn shared(raw: &[u8]) -> Arc<str> {
    match decode(raw) {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => text.into(),
    }
}

/// `ChannelState`, one digit.
fn state(raw: Option<&[u8]>) -> ChannelState {
    match raw {
        Some(b"0") => ChannelState::Down,
        Some(b"1") => ChannelState::Reserved,
        Some(b"2") => ChannelState::OffHook,
        Some(b"3") => ChannelState::Dialing,
        Some(b"4") => ChannelState::Ring,
        Some(b"5") => ChannelState::Ringing,
        Some(b"6") => ChannelState::Up,
        Some(b"7") => ChannelState::Busy,
        Some(b"8") => ChannelState::DialingOffHook,
        Some(b"9") => ChannelState::PreRing,
        _ => ChannelState::Unknown,
    }
}
