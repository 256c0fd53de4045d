//! A user's part in a call, from the first INVITE to the hang-up.
//!
//! ```text
//!            DialBegin           rings             DialEnd ANSWER        Hold
//!  (nothing) ---------> INITIAL -------> RINGING ----------------> CONNECTED <----> ON_HOLD
//!                        |  | '----- DialEnd ANSWER -----^             |   Unhold      |
//!             originated |  |           |                             '-- Hangup -----+--> HANGUP
//!             and taken  v  |           |
//!                  ACCEPTED |           |  never connected, Hangup:
//!                           '-----------+--> called: 250 ms later HANGUP `call.missed`,
//!                                       |            or `call.hangup` if another one answered
//!                                       '--> calling: FAILED
//! ```
//! A leg sits on the local user's channel, so that a transfer ends it when the user leaves. The
//! 250 ms are there because a fork's losers may hang up before DialEnd says who won.

use std::sync::Arc;

use parsers::{Micros, Uniqueid};

use super::call::{
    CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, TerminatedBy, Update, UpdateBody,
};
use super::channels::Origin;
use super::direction::{Side, clid};
use super::identity::{leg_id, update_id};
use super::objects::{Chan, Leg, LegKey, LegKind, MAX_LEGS, MAX_NOTES, clip};
use super::state::State;

/// How long the end of a never-connected called leg waits for word of who answered.
pub(super) const SETTLE: i64 = 250;

/// Why and by whose hand a leg ended.
pub(super) struct End {
    pub event: EventName,
    pub state: LegState,
    pub cause: Arc<str>,
    pub by: TerminatedBy,
    /// When the talk ended, if that is not the time of the update.
    pub until: Option<Micros>,
}

impl End {
    pub(super) fn new(
        event: EventName,
        state: LegState,
        cause: impl Into<Arc<str>>,
        by: TerminatedBy,
    ) -> Self {
        Self { event, state, cause: cause.into(), by, until: None }
    }
}

/// What a new leg begins with.
pub(super) struct Begin {
    pub kind: LegKind,
    pub start: Micros,
    pub direction: Direction,
    pub parent: Option<LegKey>,
    pub origin: Option<Uniqueid>,
    pub src: Party,
    pub dst: Party,
    pub clid: String,
}

impl State {
    /// Open legs, queue visits left out, that a channel carries.
    pub(super) fn legs_on(&self, id: &Uniqueid) -> Vec<Leg> {
        let Some(chan) = self.channels.get(id) else { return Vec::new() };
        let mut legs = self.legs_of(&chan.call);
        legs.retain(|leg| leg.cur == *id && leg.kind != LegKind::Queue);
        legs
    }

    /// Makes a leg and says `call.initial`.
    pub(super) fn open(&mut self, anchor: &Uniqueid, begin: Begin) -> Option<LegKey> {
        let queue = begin.kind == LegKind::Queue;
        let call = self.channels.get(anchor)?.call.clone();
        if self.members.get(&call).is_some_and(|members| members.legs.len() >= MAX_LEGS) {
            self.out.skipped.push("leg above the limit of one call");
            return None;
        }
        if !self.room_for_leg() {
            self.out.skipped.push("leg above the limit");
            return None;
        }
        let n = self.channels.edit(anchor, |chan| {
            let (first, count) = match queue {
                true => (chan.first_visit, &mut chan.visits),
                false => (chan.first_leg, &mut chan.legs),
            };
            let n = first.saturating_add(*count);
            *count = count.saturating_add(1);
            n
        })?;
        let key = LegKey { queue, anchor: anchor.clone(), n };
        let hash = self.calls.edit(&call, |call| {
            call.reported = true;
            call.hash.clone()
        })?;
        // a leg that was lost and made anew must not use an id twice
        let count = if self.recovering { u64::try_from(self.now.secs()).unwrap_or(0) } else { 0 };
        let leg = Leg {
            key: key.clone(),
            kind: begin.kind,
            call: call.clone(),
            hash,
            cur: anchor.clone(),
            count,
            state: LegState::Initial,
            start: begin.start,
            connected: None,
            last: self.at,
            parent: begin.parent,
            peer: begin.origin.clone().filter(|origin| origin != anchor),
            origin: begin.origin,
            direction: begin.direction,
            src: begin.src,
            dst: begin.dst,
            clid: begin.clid,
            info: Vec::new(),
            holders: Vec::new(),
            transferred: false,
            ended: None,
            due: None,
        };
        self.legs.insert(key.clone(), leg);
        self.join(&call, |members| members.legs.insert(key.clone()));
        self.say(&key, EventName::Initial);
        Some(key)
    }

    /// A channel rings, or its early media came.
    pub(super) fn rings(&mut self, id: &Uniqueid) {
        let calling = self.channels.edit(id, |chan| {
            let dial = chan.dial.as_mut()?;
            dial.rang = true;
            dial.leg.clone()
        });
        for leg in self.legs_on(id) {
            if leg.kind == LegKind::Called {
                self.ring_leg(&leg.key);
            }
        }
        if let Some(Some(key)) = calling {
            self.ring_leg(&key);
        }
    }

    pub(super) fn ring_leg(&mut self, key: &LegKey) {
        let rings = self.legs.edit(key, |leg| {
            let first = matches!(leg.state, LegState::Initial | LegState::Accepted) && leg.ended.is_none();
            if first {
                leg.state = LegState::Ringing;
            }
            first
        });
        if rings == Some(true) {
            self.say(key, EventName::Ringing);
        }
        let parent = self.legs.get(key).and_then(|leg| leg.parent.clone());
        if let Some(parent) = parent {
            self.ring_leg(&parent);
        }
    }

    /// The originator of a called leg or a visit is another one now; nothing is said until the next
    /// update.
    pub(super) fn new_origin(&mut self, key: &LegKey, from: &Chan) {
        let src = self.who.party(from);
        self.legs.edit(key, |leg| {
            leg.origin = Some(from.id.clone());
            leg.peer = Some(from.id.clone());
            leg.src = src;
            leg.clid = clid(&from.caller);
        });
    }

    pub(super) fn connect(&mut self, key: &LegKey) {
        let at = self.at;
        let first = self.legs.edit(key, |leg| {
            if leg.connected.is_some() || leg.ended.is_some() {
                return false;
            }
            leg.connected = Some(at);
            leg.state = LegState::Connected;
            true
        });
        if first == Some(true) {
            self.say(key, EventName::Connected);
        }
    }

    pub(super) fn accept(&mut self, key: &LegKey) {
        let first = self.legs.edit(key, |leg| {
            let first = leg.state == LegState::Initial;
            if first {
                leg.state = LegState::Accepted;
            }
            first
        });
        if first == Some(true) {
            self.say(key, EventName::Accepted);
        }
    }

    /// Pickup: who picks, and whose call.
    pub(super) fn note_pickup(&mut self, picker: &Uniqueid, target: &Uniqueid) {
        if !self.is_alive(picker) {
            return;
        }
        self.unite_channels(picker, target);
        self.channels.edit(target, |chan| chan.picked = true);
        let bridged = self.channels.edit(picker, |chan| {
            chan.picks = Some(target.clone());
            chan.bridge.is_some()
        });
        if bridged == Some(true) {
            self.pick_up(picker);
        }
    }

    /// The picker has the call: DialEnd names it, or it comes into the bridge; another thread may say
    /// both before Pickup comes.
    pub(super) fn pick_up(&mut self, id: &Uniqueid) {
        let Some(picker) = self.channels.get(id).cloned() else { return };
        let Some(target) = picker.picks.as_ref().and_then(|target| self.channels.get(target)).cloned() else {
            return;
        };
        if picker.side != Side::User || picker.legs > 0 {
            return;
        }
        let from = match self.origin(&target) {
            Origin::Channel(from) => self.channels.get(&from).cloned(),
            Origin::Originated | Origin::Unknown => None,
        };
        self.take_over(&picker, from.as_ref());
    }

    /// A user takes a call that is there: begun and connected at once.
    pub(super) fn take_over(&mut self, user: &Chan, from: Option<&Chan>) {
        let begin = self.called_by(user, from, None);
        if let Some(key) = self.open(&user.id, begin) {
            self.connect(&key);
        }
    }

    /// Who hears whom changed: other parties, and originators that another channel replaced.
    pub(super) fn bridged(&mut self, id: &Uniqueid, swap: Option<&Uniqueid>) {
        self.pick_up(id);
        let real = self.channels.get(id).filter(|chan| chan.side != Side::Local).cloned();
        if let (Some(real), Some(swap)) = (real, swap) {
            for leg in self.legs_of(&real.call) {
                if leg.kind == LegKind::Called && leg.origin.as_ref() == Some(swap) && leg.cur != real.id {
                    self.new_origin(&leg.key, &real);
                    self.release(&leg.key, swap);
                }
            }
        }
        for (one, other) in self.talking(id) {
            for leg in self.legs_on(&one) {
                self.legs.edit(&leg.key, |leg| leg.peer = Some(other.clone()));
            }
        }
    }

    /// Hold and Unhold by the leg's channel or by the other party.
    pub(super) fn hold(&mut self, id: &Uniqueid, on: bool) {
        let Some(call) = self.channels.get(id).map(|chan| chan.call.clone()) else { return };
        for leg in self.legs_of(&call) {
            if leg.cur != *id && leg.peer.as_ref() != Some(id) {
                continue;
            }
            if !on {
                self.release(&leg.key, id);
            } else if leg.state == LegState::Connected || leg.state == LegState::OnHold {
                let first = self.legs.edit(&leg.key, |leg| {
                    if !leg.holders.contains(id) && leg.holders.len() < MAX_NOTES {
                        leg.holders.push(id.clone());
                    }
                    std::mem::replace(&mut leg.state, LegState::OnHold) == LegState::Connected
                });
                if first == Some(true) {
                    self.say(&leg.key, EventName::Hold);
                }
            }
        }
    }

    /// One of those who hold does not any more; an Unhold without a Hold means nothing.
    fn release(&mut self, key: &LegKey, id: &Uniqueid) {
        let last = self.legs.edit(key, |leg| {
            let held = leg.holders.len();
            leg.holders.retain(|holder| holder != id);
            let last = held > 0 && leg.holders.is_empty() && leg.state == LegState::OnHold;
            if last {
                leg.state = LegState::Connected;
            }
            last
        });
        if last == Some(true) {
            self.say(key, EventName::Unhold);
        }
    }

    /// A digit that a party of a talking leg pressed.
    pub(super) fn digit(&mut self, id: &Uniqueid, digit: char) {
        let Some(call) = self.channels.get(id).filter(|chan| chan.alive()).map(|chan| chan.call.clone())
        else {
            return;
        };
        for leg in self.legs_of(&call) {
            let talks = matches!(leg.state, LegState::Connected | LegState::OnHold);
            if leg.kind == LegKind::Queue || !talks {
                continue;
            }
            let by = match (leg.cur == *id, leg.peer.as_ref() == Some(id)) {
                (true, _) => own_side(&leg),
                (false, true) => other_side(&leg),
                (false, false) => continue,
            };
            self.say_with(&leg.key, EventName::Dtmf, None, Some((digit, by)));
        }
    }

    /// Adds to `info`, once.
    pub(super) fn remark(&mut self, key: &LegKey, text: impl Into<Arc<str>>) {
        let text = clip(&text.into());
        self.legs.edit(key, |leg| {
            if !leg.info.contains(&text) && leg.info.len() < MAX_NOTES {
                leg.info.push(text);
            }
        });
    }

    /// Says one update of a leg as it stands.
    pub(super) fn say(&mut self, key: &LegKey, event: EventName) {
        self.say_with(key, event, None, None);
    }

    /// The last update of a leg; it is gone afterwards.
    pub(super) fn finish(&mut self, key: &LegKey, end: End) {
        self.legs.edit(key, |leg| leg.state = end.state);
        self.say_with(key, end.event, Some(&end), None);
        self.drop_leg(key);
        if key.queue {
            self.attempts_over(key);
        }
    }

    pub(super) fn drop_leg(&mut self, key: &LegKey) {
        if let Some(leg) = self.legs.remove(key) {
            self.join(&leg.call, |members| members.legs.remove(key));
        }
    }

    fn say_with(
        &mut self,
        key: &LegKey,
        event: EventName,
        end: Option<&End>,
        digit: Option<(char, TerminatedBy)>,
    ) {
        let at = self.at;
        self.legs.edit(key, |leg| {
            leg.count = leg.count.saturating_add(1);
            leg.last = at;
        });
        let Some(leg) = self.legs.get(key) else { return };
        let (call_id, hex) = leg_id(&self.who.pbx.name, key);
        let at = match (end, leg.ended) {
            (Some(_), Some(ended)) => ended,
            _ => at,
        };
        let talked_until = end.map(|end| end.until.unwrap_or(at));
        let update = LegUpdate {
            event,
            call_id,
            parent_id: leg.parent.as_ref().map(|parent| leg_id(&self.who.pbx.name, parent).0),
            state: leg.state,
            context: if key.queue { Context::Queue } else { Context::LocalUser },
            direction: leg.direction,
            start: leg.start,
            connected: leg.connected,
            duration: talk_time(leg, talked_until),
            cause: end.map(|end| end.cause.to_string()).unwrap_or_default(),
            clid: leg.clid.clone(),
            src: leg.src.clone(),
            dst: leg.dst.clone(),
            info: self.info(leg),
            terminated_by: end.map(|end| end.by),
            digit,
        };
        self.out.updates.push(Update {
            id: update_id(&self.who.pbx.name, &hex, leg.count),
            call: CallKey(leg.hash.clone()),
            at,
            body: UpdateBody::Leg(Box::new(update)),
        });
    }
}

impl State {
    /// What the rules noted, and whether this update was made from a list, not from events.
    fn info(&self, leg: &Leg) -> String {
        let notes = leg.info.iter().map(|note| &**note);
        notes.chain(self.recovering.then_some("recovered")).collect::<Vec<_>>().join("; ")
    }
}

fn talk_time(leg: &Leg, end: Option<Micros>) -> u64 {
    match (leg.connected, end) {
        (Some(connected), Some(end)) => u64::try_from(end.secs_since(connected)).unwrap_or(0),
        _ => 0,
    }
}

/// Which side the leg's own user is.
pub(super) fn own_side(leg: &Leg) -> TerminatedBy {
    match leg.kind {
        LegKind::Called => TerminatedBy::Callee,
        LegKind::Calling | LegKind::Click | LegKind::Conference | LegKind::Queue => TerminatedBy::Caller,
    }
}

/// Which side the other party is.
pub(super) fn other_side(leg: &Leg) -> TerminatedBy {
    match own_side(leg) {
        TerminatedBy::Callee => TerminatedBy::Caller,
        TerminatedBy::Caller | TerminatedBy::System => TerminatedBy::Callee,
    }
}
