//! Why there is no session, each named for what it is, with what to do.

/// What keeps us from Asterisk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AmiError {
    /// The name has no address.
    #[error("{address} cannot be resolved: {why}; correct ami.address")]
    Resolve {
        /// `ami.address`.
        address: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody answers there.
    #[error(
        "{address} does not accept connections: {why}; is Asterisk running, is `enabled = yes` in manager.conf, and is the port right?"
    )]
    Connect {
        /// `ami.address`.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The TLS handshake failed.
    #[error(
        "TLS with {address} failed: {why}; set ami.ca_file or ami.server_name, or tls = false if this is the plain port"
    )]
    Tls {
        /// `ami.address`.
        address: String,
        /// What the TLS library said.
        why: String,
    },
    /// Something else listens there.
    #[error(
        "{address} is not Asterisk's manager interface: it begins with \"{begins}\"; is this the AMI port (5038)?"
    )]
    NotAsterisk {
        /// `ami.address`.
        address: String,
        /// The first bytes.
        begins: String,
    },
    /// AMI 1.x: Asterisk 11 or older.
    #[error("this Asterisk speaks AMI {version}: live calls need Asterisk 13 or newer")]
    TooOld {
        /// AMI's version.
        version: String,
    },
    /// The user or the secret is wrong, or an ACL refuses us.
    #[error(
        "Asterisk refuses user \"{username}\": {message}; compare username and secret with manager.conf, look at its deny and permit lines, and run `asterisk -rx 'manager reload'` after a change"
    )]
    Credentials {
        /// `ami.username`.
        username: String,
        /// Asterisk's words.
        message: String,
    },
    /// `allowmultiplelogin = no` and somebody is in.
    #[error(
        "user \"{username}\" is already logged in and manager.conf says allowmultiplelogin = no; give callpost a user of its own"
    )]
    InUse {
        /// `ami.username`.
        username: String,
    },
    /// The other side says nothing.
    #[error(
        "{address} stays silent: no {waiting_for} within {seconds} s; is Asterisk hung or still starting?"
    )]
    Silent {
        /// `ami.address`.
        address: String,
        /// What should have come.
        waiting_for: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// The connection ended.
    #[error("Asterisk closed the connection{}", .0.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    Closed(Option<String>),
    /// We read too slowly: events would not fit in memory.
    #[error("more than {} MiB of events wait to be journalled; the connection is dropped and calls will be read back", .0 >> 20)]
    Behind(usize),
    /// An action could not be written as configured.
    #[error("{0}")]
    Action(String),
}

impl AmiError {
    /// Whether trying again soon would only fill Asterisk's security log (fail2ban watches it).
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Credentials { .. } | Self::InUse { .. } | Self::TooOld { .. })
    }
}
