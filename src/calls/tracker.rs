//! The tracker: which rule each input goes to.

use std::sync::Arc;

use parsers::ami::{Bridge, Channel, ChannelState, DialStatus, Event, EventKind};
use parsers::{Micros, Uniqueid};

use super::call::{CdrSource, Step};
use super::direction::Who;
use super::objects::{CdrFeed, Phase, is_sane};
use super::state::{State, Timer};

/// Deadlines worked off in one step at most, each of which leaves the set: more would be a loop.
const MAX_DUE: usize = 1_000_000;

/// What the tracker is fed.
#[derive(Debug)]
pub enum Input<'a> {
    /// One event, in stream order.
    Event(&'a Event),
    /// What Asterisk holds right now, after each login.
    Snapshot(&'a Snapshot),
    /// Every channel that Asterisk lists, between two events of a live connection.
    Audit(&'a [Uniqueid]),
    /// Logged in, but the account may not list channels.
    Blind,
    /// The connection is gone.
    Lost,
    /// A deadline passed ([`Tracker::deadline`]).
    Tick,
}

/// What Asterisk holds right now.
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
    /// Every endpoint of chan_pjsip; `None` where they were not asked for, or the account may not.
    pub endpoints: Option<Vec<SnapshotEndpoint>>,
    /// Not every channel could be read: what is not listed may be there.
    pub partial: bool,
}

/// One endpoint of chan_pjsip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEndpoint {
    /// `ObjectName`, `1001` of `PJSIP/1001`.
    pub name: Arc<str>,
    /// It logs in here and we not there: a phone, no carrier.
    pub phone: bool,
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
    /// What was dialled: `FROM_DID`, else `DNID`.
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
pub struct Tracker {
    state: State,
}

impl Tracker {
    /// An empty tracker.
    pub fn new(config: &crate::config::Config) -> Self {
        Self { state: State::new(Who::new(config)) }
    }

    /// The tracker as it stood: the open objects of the journal, as [`Step::objects`] wrote them.
    /// An object that cannot be read is left out and named in the list.
    pub fn restore(
        config: &crate::config::Config,
        objects: impl IntoIterator<Item = (super::ObjectKey, Vec<u8>)>,
        now: Micros,
    ) -> (Self, Vec<String>) {
        let (state, faults) = State::restore(Who::new(config), objects, now);
        (Self { state }, faults)
    }

    /// Another configuration, for what begins from now on: who a channel belongs to is settled when it
    /// is first seen. `pbx.name` must be the same.
    pub fn reconfigure(&mut self, config: &crate::config::Config) {
        let new = Who::new(config);
        let old = std::mem::replace(&mut self.state.who, new);
        self.state.who.knows_as(old);
    }

    /// Takes one input and says what it led to.
    pub fn handle(&mut self, input: Input<'_>, now: Micros) -> Step {
        let mut step = self.step(input, now);
        step.objects = self.changed();
        step
    }

    /// Takes one input and says what it led to, but for the objects, which are left to
    /// [`Tracker::changed`]: one that many inputs change is then written once.
    pub fn step(&mut self, input: Input<'_>, now: Micros) -> Step {
        let state = &mut self.state;
        state.now = now;
        state.run_due();
        state.at = match &input {
            Input::Event(event) => event.at.unwrap_or(now),
            Input::Snapshot(_) | Input::Audit(_) | Input::Blind | Input::Lost | Input::Tick => now,
        };
        match input {
            Input::Event(event) if event.privileged => state.event(&event.kind),
            Input::Event(_) => state.out.skipped.push("event without a Privilege header"),
            Input::Snapshot(snapshot) => state.snapshot(snapshot),
            Input::Audit(listed) => state.audit(listed),
            Input::Blind => state.blind(),
            Input::Lost => state.lost(),
            Input::Tick => {}
        }
        state.flush()
    }

    /// [`Tracker::changed`] answers every open object, for a journal that has lost them.
    pub fn write_all(&mut self) {
        self.state.touch_all();
    }

    /// The open objects that changed since this was last asked: their value now as JSON, or `None`
    /// when they are gone.
    pub fn changed(&mut self) -> Vec<(super::ObjectKey, Option<Vec<u8>>)> {
        self.state.take_unsaved()
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn deadline(&self) -> Option<Micros> {
        self.state.deadline()
    }

    /// Where CDR rows come from now; `None` until the first answered call is over.
    pub fn cdr_source(&self) -> Option<CdrSource> {
        match self.state.meta().feed {
            CdrFeed::Unknown => None,
            CdrFeed::Events => Some(CdrSource::Events),
            CdrFeed::Silent => Some(CdrSource::Tracker),
        }
    }

    /// Whether a call that is known by one of these is not over, or waits for its CDR rows.
    pub fn holds(&self, linkedids: &[parsers::Linkedid], parties: &[Uniqueid]) -> bool {
        let state = &self.state;
        let by_channel = |id| state.channels.get(id).map(|chan| &chan.call).or_else(|| state.parties.get(id));
        let by_link = |id| state.links.get(id);
        let mut calls = parties.iter().filter_map(by_channel).chain(linkedids.iter().filter_map(by_link));
        calls.any(|call| state.phase(call).is_some_and(|phase| phase != Phase::Done))
    }

    /// Channels, legs and calls that are held in memory.
    pub fn size(&self) -> usize {
        self.state.channels.len() + self.state.legs.len() + self.state.calls.len() + self.state.rows.len()
    }
}

impl State {
    /// Works off the deadlines that passed.
    fn run_due(&mut self) {
        self.at = self.now;
        for _ in 0..MAX_DUE {
            let Some(timer) = self.pop_due() else { return };
            match timer {
                Timer::Leg(key) => self.leg_due(&key),
                Timer::Call(key) => self.call_due(&key),
            }
            self.rearm();
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rarer ones are matched in the next function")]
    fn event(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Newchannel(channel) => self.announce(channel),
            EventKind::Newstate(channel) => self.new_state(channel),
            EventKind::NewCallerid(channel) | EventKind::NewConnectedLine(channel) => {
                self.touch(channel);
            }
            EventKind::Rename { uniqueid, newname } => {
                if is_sane(newname.as_str()) {
                    self.channels.edit(uniqueid, |chan| chan.name = newname.clone());
                }
            }
            EventKind::HangupRequest { channel, .. } => self.hangup_request(channel),
            EventKind::SoftHangupRequest { channel, .. } => {
                self.touch(channel);
            }
            EventKind::Hangup { channel, cause, cause_txt, .. } => {
                if self.touch(channel) {
                    self.hangup(&channel.uniqueid, *cause, cause_txt.as_ref());
                }
            }
            EventKind::DialBegin(dial) => {
                self.touch_both(dial);
                self.dial_begin(dial);
            }
            EventKind::DialState(dial) => {
                self.touch_both(dial);
                if matches!(dial.status, Some(DialStatus::Ringing | DialStatus::Progress)) {
                    self.rings(&dial.dest.uniqueid);
                }
            }
            EventKind::DialEnd(dial) => {
                self.touch_both(dial);
                self.dial_end(dial);
            }
            EventKind::BridgeEnter { bridge, channel, swap } => {
                if self.touch(channel) {
                    self.enter(bridge, &channel.uniqueid, swap.as_ref());
                    self.bridged(&channel.uniqueid, swap.as_ref());
                }
            }
            EventKind::BridgeLeave { bridge, channel } => {
                self.touch(channel);
                let inside = self.channels.get(&channel.uniqueid).and_then(|chan| chan.bridge.clone());
                if inside.is_some_and(|inside| inside == super::objects::clip(&bridge.id)) {
                    self.leave(&channel.uniqueid);
                }
            }
            EventKind::BridgeMerge { to, from } => self.merge_bridges(to, from),
            EventKind::Hold(channel) => {
                self.touch(channel);
                self.hold(&channel.uniqueid, true);
            }
            EventKind::Unhold(channel) => {
                self.touch(channel);
                self.hold(&channel.uniqueid, false);
            }
            EventKind::LocalBridge { one, two } => {
                if self.touch(one) && self.touch(two) {
                    self.join_halves(&one.uniqueid, &two.uniqueid);
                }
            }
            EventKind::UserEvent { name, channel, headers } => {
                if let Some(channel) = channel {
                    self.touch(channel);
                }
                self.user_event(name, headers);
            }
            EventKind::ModemSms(sms) => self.modem_sms(sms),
            EventKind::Cdr(cdr) => self.cdr_event(cdr),
            _ => self.rarer_event(kind),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "lists, life cycle and unknown events change no call")]
    fn rarer_event(&mut self, kind: &EventKind) {
        match kind {
            // a digit of no length was played by an action, nobody pressed it
            EventKind::DtmfEnd { channel, digit, received: true, millis } if *millis != Some(0) => {
                self.touch(channel);
                self.digit(&channel.uniqueid, *digit);
            }
            EventKind::BlindTransfer { success: true, transferer, extension, .. } => {
                self.touch(transferer);
                self.blind_transfer(&transferer.uniqueid, extension.as_ref());
            }
            EventKind::AttendedTransfer { success: true, orig, second, transferee, .. } => {
                self.touch(orig);
                self.touch(second);
                self.attended_transfer(&orig.uniqueid, &second.uniqueid, transferee.as_ref());
            }
            EventKind::Pickup { picker, target } => {
                self.touch(picker);
                self.touch(target);
                self.note_pickup(&picker.uniqueid, &target.uniqueid);
            }
            EventKind::ParkedCall(parked) => {
                self.touch(&parked.parkee);
                self.parked(parked);
            }
            EventKind::UnParkedCall(parked) => {
                self.touch(&parked.parkee);
                self.unparked(parked);
            }
            EventKind::ParkedCallTimeOut(parked) | EventKind::ParkedCallGiveUp(parked) => {
                self.touch(&parked.parkee);
            }
            EventKind::ConfbridgeJoin { channel, conference } => {
                self.touch(channel);
                self.conference(&channel.uniqueid, conference);
            }
            EventKind::ConfbridgeLeave { channel, .. } => {
                self.touch(channel);
                self.conference_left(&channel.uniqueid);
            }
            EventKind::QueueCallerJoin(event) => {
                self.touch_caller(event);
                self.visit_begins(event);
            }
            EventKind::QueueCallerLeave(event) => {
                self.touch_caller(event);
                self.visit_left(event);
            }
            EventKind::QueueCallerAbandon(event) => {
                self.touch_caller(event);
                self.visit_abandoned(event);
            }
            EventKind::AgentConnect(event) => {
                self.touch_caller(event);
                self.visit_connects(event);
            }
            EventKind::AgentComplete(event) => {
                self.touch_caller(event);
                self.visit_completes(event);
            }
            EventKind::AgentCalled(event)
            | EventKind::AgentRingNoAnswer(event)
            | EventKind::AgentDump(event) => {
                self.touch_caller(event);
            }
            _ => {}
        }
    }

    fn touch_both(&mut self, dial: &parsers::ami::Dial) {
        if let Some(caller) = &dial.caller {
            self.touch(caller);
        }
        self.touch(&dial.dest);
    }

    fn touch_caller(&mut self, event: &parsers::ami::event::QueueEvent) {
        if let Some(caller) = &event.caller {
            self.touch(caller);
        }
        if let Some(dest) = &event.dest {
            self.touch(dest);
        }
    }

    fn new_state(&mut self, channel: &Channel) {
        if !self.touch(channel) {
            return;
        }
        if channel.state == ChannelState::Ringing {
            self.rings(&channel.uniqueid);
        } else if channel.state == ChannelState::Busy {
            // the echo of the refusal may come first
            self.channels.edit(&channel.uniqueid, |chan| chan.hangup_request = None);
        }
    }

    /// HangupRequest: the first one of a channel says who ended it. Around state Busy it is only the
    /// echo of a refusal by the dialplan.
    fn hangup_request(&mut self, channel: &Channel) {
        if !self.touch(channel) || channel.state == ChannelState::Busy {
            return;
        }
        let at = self.at;
        self.channels.edit(&channel.uniqueid, |chan| {
            chan.hangup_request.get_or_insert(at);
        });
    }
}
