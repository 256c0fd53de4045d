//! What we ask Asterisk. CR, LF and over-long lines are refused when the action is built, so that
//! nothing from outside can add a header or an action (`main/manager.c:get_input`).

use std::fmt;

use bytes::{BufMut, BytesMut};

/// One action, ready to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Action {
    name: &'static str,
    id: Option<String>,
    headers: Vec<(&'static str, String)>,
}

/// Why an action was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionError {
    /// A value holds CR, LF or NUL.
    LineBreak(&'static str),
    /// A line above 1024 bytes, which Asterisk would answer with an error.
    TooLong(&'static str),
    /// More than 128 headers.
    TooManyHeaders,
    /// An ActionID that is not 1 to 32 visible ASCII characters: handlers copy it into small buffers.
    BadActionId,
    /// A channel's name that Asterisk would take for a pattern.
    Pattern,
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineBreak(key) => write!(f, "build action: {key} holds a line break"),
            Self::TooLong(key) => write!(f, "build action: {key} is longer than {} bytes", Action::MAX_LINE),
            Self::TooManyHeaders => write!(f, "build action: more than {} headers", Action::MAX_HEADERS),
            Self::BadActionId => {
                write!(f, "build action: ActionID is not 1 to {} visible ASCII characters", Action::MAX_ID)
            }
            Self::Pattern => write!(f, "build action: Channel is a pattern, not a channel's name"),
        }
    }
}

impl std::error::Error for ActionError {}

impl Action {
    /// Bytes of one line with its CRLF.
    pub const MAX_LINE: usize = 1024;
    /// Header lines, `Action` and `ActionID` among them (`AST_MAX_MANHEADERS`).
    pub const MAX_HEADERS: usize = 128;
    /// Characters of an ActionID.
    pub const MAX_ID: usize = 32;

    /// An action by name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, id: None, headers: Vec::new() }
    }

    /// Adds a header.
    ///
    /// # Errors
    /// When the value would break the line or exceed Asterisk's limits.
    pub fn header(mut self, key: &'static str, value: impl Into<String>) -> Result<Self, ActionError> {
        let value = value.into();
        if key.eq_ignore_ascii_case("ActionID") {
            return self.with_id(value);
        }
        if [key, &value].iter().any(|text| text.contains(['\r', '\n', '\0'])) {
            return Err(ActionError::LineBreak(key));
        }
        if key.len() + ": ".len() + value.len() + "\r\n".len() > Self::MAX_LINE {
            return Err(ActionError::TooLong(key));
        }
        if self.headers.len() + 2 >= Self::MAX_HEADERS {
            return Err(ActionError::TooManyHeaders);
        }
        self.headers.push((key, value));
        Ok(self)
    }

    /// Sets the ActionID, which Asterisk repeats in the answer and in each item of a list.
    ///
    /// # Errors
    /// When it is not 1 to 32 visible ASCII characters.
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Self, ActionError> {
        let id = id.into();
        if id.is_empty() || id.len() > Self::MAX_ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ActionError::BadActionId);
        }
        self.id = Some(id);
        Ok(self)
    }

    /// The action's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The ActionID, if one was set.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Every header in the order it is written.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let id = self.id.as_deref().map(|id| ("ActionID", id));
        let rest = self.headers.iter().map(|(key, value)| (*key, value.as_str()));
        std::iter::once(("Action", self.name)).chain(id).chain(rest)
    }

    pub(super) fn write(&self, dst: &mut BytesMut) {
        for (key, value) in self.headers() {
            for part in [key, ": ", value, "\r\n"] {
                dst.put_slice(part.as_bytes());
            }
        }
        dst.put_slice(b"\r\n");
    }
}

/// The actions that the agent sends.
impl Action {
    /// Asks for the digits that an MD5 login is made with.
    pub fn challenge() -> Self {
        Self::known("Challenge", [("AuthType", "MD5")])
    }

    /// Logs in; `key` is the lowercase hex MD5 of the challenge followed by the secret. `Events: system`
    /// so that FullyBooted comes and nothing else until [`Self::events`].
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn login_md5(username: &str, key: &str) -> Result<Self, ActionError> {
        Self::known("Login", [("AuthType", "MD5"), ("Events", "system")])
            .header("Username", username)?
            .header("Key", key)
    }

    /// Logs in with the secret itself; for TLS or loopback.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn login_plain(username: &str, secret: &str) -> Result<Self, ActionError> {
        Self::known("Login", [("Events", "system")]).header("Username", username)?.header("Secret", secret)
    }

    /// Sets the session's mask: `on`, `off`, or classes with commas and no blanks.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn events(mask: &str) -> Result<Self, ActionError> {
        Self::new("Events").header("EventMask", mask)
    }

    /// Keep-alive; the answer has Asterisk's time.
    pub const fn ping() -> Self {
        Self::new("Ping")
    }

    /// Ends the session.
    pub const fn logoff() -> Self {
        Self::new("Logoff")
    }

    /// Versions and switches, `CoreCDRenabled` among them.
    pub const fn core_settings() -> Self {
        Self::new("CoreSettings")
    }

    /// When Asterisk started, and its counters.
    pub const fn core_status() -> Self {
        Self::new("CoreStatus")
    }

    /// Every channel: a list of CoreShowChannel.
    pub const fn core_show_channels() -> Self {
        Self::new("CoreShowChannels")
    }

    /// Every channel with some variables' values: a list of Status. A variable may be a function,
    /// `CDR(start,u)`.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn status(variables: &[&str]) -> Result<Self, ActionError> {
        let status = Self::new("Status");
        if variables.is_empty() { Ok(status) } else { status.header("Variables", variables.join(",")) }
    }

    /// Every bridge: a list of BridgeListItem.
    pub const fn bridge_list() -> Self {
        Self::new("BridgeList")
    }

    /// Every queue with members and callers: a list of QueueParams, QueueMember, QueueEntry.
    pub const fn queue_status() -> Self {
        Self::new("QueueStatus")
    }

    /// Every endpoint: a list of EndpointList. Needs class system.
    pub const fn pjsip_show_endpoints() -> Self {
        Self::new("PJSIPShowEndpoints")
    }

    /// Rings `channel` (`PJSIP/1001`) and sends it to an extension, without waiting: the result is an
    /// OriginateResponse event. Add `CallerID`, `Timeout` (ms), `ChannelId`, `Variable` as needed.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn originate(channel: &str, context: &str, exten: &str) -> Result<Self, ActionError> {
        Self::known("Originate", [("Async", "true"), ("Priority", "1")])
            .header("Channel", channel)?
            .header("Context", context)?
            .header("Exten", exten)
    }

    /// Sends `channel` on. Asterisk does not check that the extension exists: a wrong one hangs up.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn redirect(channel: &str, context: &str, exten: &str) -> Result<Self, ActionError> {
        Self::known("Redirect", [("Priority", "1")])
            .header("Channel", channel)?
            .header("Context", context)?
            .header("Exten", exten)
    }

    /// Sends the party that `channel` talks to on, and `channel` away (13 and later).
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn blind_transfer(channel: &str, context: &str, exten: &str) -> Result<Self, ActionError> {
        Self::new("BlindTransfer")
            .header("Channel", channel)?
            .header("Context", context)?
            .header("Exten", exten)
    }

    /// Hangs one channel up, by its exact name.
    ///
    /// # Errors
    /// As [`Self::header`]; also for a name that begins with a slash, which Asterisk would take for a
    /// pattern of many channels.
    pub fn hangup(channel: &str) -> Result<Self, ActionError> {
        if channel.starts_with('/') {
            return Err(ActionError::Pattern);
        }
        Self::new("Hangup").header("Channel", channel)
    }

    /// Reads a variable or a function, of a channel or global.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn getvar(channel: Option<&str>, variable: &str) -> Result<Self, ActionError> {
        let getvar = Self::new("Getvar");
        let getvar = if let Some(channel) = channel { getvar.header("Channel", channel)? } else { getvar };
        getvar.header("Variable", variable)
    }

    /// An action with headers that are fixed here, and so need no check.
    fn known<const N: usize>(name: &'static str, headers: [(&'static str, &'static str); N]) -> Self {
        Self { headers: headers.map(|(key, value)| (key, value.to_owned())).into(), ..Self::new(name) }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |key: &str| key.eq_ignore_ascii_case("Secret") || key.eq_ignore_ascii_case("Key");
        let shown = self.headers().map(|(key, value)| (key, if secret(key) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}
