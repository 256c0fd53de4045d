//! The tracker.

use std::sync::Arc;

use parsers::ami::{Bridge, Channel, Event};
use parsers::{Micros, Uniqueid};

use super::call::Step;

/// What the tracker is fed.
#[derive(Debug)]
pub enum Input<'a> {
    /// One event, in stream order.
    Event(&'a Event),
    /// What Asterisk holds right now, after each login.
    Snapshot(&'a Snapshot),
    /// The connection is gone.
    Lost,
    /// A deadline passed ([`Tracker::deadline`]).
    Tick,
}

/// What Asterisk holds right now (`asterisk.md` 4.2).
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// `CoreStartupDate` and `CoreStartupTime` as text: another text is another Asterisk run.
    pub startup: String,
    /// Every channel.
    pub channels: Vec<SnapshotChannel>,
    /// Every bridge.
    pub bridges: Vec<Bridge>,
    /// Callers who wait in queues.
    pub waiting: Vec<SnapshotEntry>,
}

/// One live channel.
#[derive(Clone, Debug)]
pub struct SnapshotChannel {
    /// Its block.
    pub channel: Channel,
    /// What it runs: `Dial`, `Queue`, `AppDial`, `AppQueue`…
    pub application: Option<Arc<str>>,
    /// With what.
    pub application_data: Option<Arc<str>>,
    /// The bridge it is in.
    pub bridge: Option<Arc<str>>,
    /// `CDR(start,u)`.
    pub start: Option<Micros>,
    /// `CDR(answer,u)`.
    pub answer: Option<Micros>,
    /// `FROM_DID`.
    pub did: Option<Arc<str>>,
}

/// One caller who waits in a queue.
#[derive(Clone, Debug)]
pub struct SnapshotEntry {
    /// Which queue.
    pub queue: Arc<str>,
    /// The caller.
    pub uniqueid: Uniqueid,
    /// Seconds.
    pub wait: u64,
}

/// Folds channels into calls.
#[derive(Debug)]
pub struct Tracker {}

impl Tracker {
    /// An empty tracker.
    pub fn new(_config: &crate::config::Config) -> Self {
        Self {}
    }

    /// The tracker as it stood: the open objects of the journal, as [`Step::objects`] wrote them.
    /// An object that cannot be read is left out and named in the list.
    pub fn restore(
        config: &crate::config::Config,
        _objects: impl IntoIterator<Item = (super::ObjectKey, Vec<u8>)>,
        _now: Micros,
    ) -> (Self, Vec<String>) {
        (Self::new(config), Vec::new())
    }

    /// Takes one input and says what it led to.
    pub fn handle(&mut self, _input: Input<'_>, _now: Micros) -> Step {
        Step::default()
    }

    /// Where creates come from, once known.
    pub fn cdr_source(&self) -> Option<super::CdrSource> {
        None
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn deadline(&self) -> Option<Micros> {
        None
    }
}
