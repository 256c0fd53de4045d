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

use parsers::ami::Dial;
use parsers::{Micros, Uniqueid};

use super::call::{
    CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, TerminatedBy, Update, UpdateBody,
};
use super::channels::Origin;
use super::direction::{Side, clid};
use super::identity::{leg_id, update_id};
use super::state::{Chan, Leg, LegKey, LegKind, MAX_LEGS, MAX_NOTES, Outcome, State, clip};

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

    /// DialBegin: a called leg, a calling leg, a click to call, or none.
    pub(super) fn dial_begin(&mut self, dial: &Dial) {
        if !self.note_dial(dial) {
            return;
        }
        let Some(dest) = self.channels.get(&dial.dest.uniqueid).cloned() else { return };
        let origin = self.origin(&dest);
        match (dest.side, &origin) {
            (Side::Local, _) => {}
            (Side::User, Origin::Originated) => self.open_click(&dest),
            (Side::User, Origin::Channel(_) | Origin::Unknown) => {
                let from = match &origin {
                    Origin::Channel(id) => self.channels.get(id).cloned(),
                    Origin::Originated | Origin::Unknown => None,
                };
                self.open_called(&dest, from.as_ref());
                if let Some(from) = from.filter(|from| self.counts_as_outgoing(from)) {
                    self.dial_out(&from, &dest, dial);
                }
            }
            (Side::Outside, Origin::Channel(id)) => {
                if let Some(from) = self.channels.get(id).cloned().filter(|from| from.side == Side::User) {
                    self.dial_out(&from, &dest, dial);
                }
            }
            (Side::Outside, Origin::Originated | Origin::Unknown) => {}
        }
    }

    /// A user who calls another user has a leg of the own only when asked for, or after a click.
    fn counts_as_outgoing(&self, from: &Chan) -> bool {
        from.side == Side::User
            && (self.who.calls.internal_caller_leg
                || self.legs_on(&from.id).iter().any(|leg| leg.kind == LegKind::Click))
    }

    fn open_called(&mut self, dest: &Chan, from: Option<&Chan>) {
        let visit = from.and_then(|from| self.waiting_visit(&from.id));
        let again = visit.as_ref().is_some_and(|visit| self.another_attempt(&visit.key, dest));
        if again || dest.legs > 0 {
            return;
        }
        let begin = self.called_by(dest, from, visit.map(|visit| visit.key));
        self.open(&dest.id, begin);
    }

    /// How a leg of a called user begins.
    fn called_by(&self, dest: &Chan, from: Option<&Chan>, parent: Option<LegKey>) -> Begin {
        let user = self.who.party(dest);
        let did = from.and_then(|from| self.did(from));
        let number = did.as_deref().map_or_else(|| user.number.clone(), str::to_owned);
        Begin {
            kind: LegKind::Called,
            start: self.at,
            direction: Direction::In,
            parent,
            origin: from.map(|from| from.id.clone()),
            src: from.map(|from| self.who.party(from)).unwrap_or_default(),
            dst: Party { number, ..user },
            clid: from.map(|from| clid(&from.caller)).unwrap_or_default(),
        }
    }

    fn open_click(&mut self, dest: &Chan) {
        if dest.legs > 0 {
            return;
        }
        let begin = Begin {
            kind: LegKind::Click,
            start: self.at,
            direction: Direction::Out,
            parent: None,
            origin: Some(dest.id.clone()),
            src: self.who.party(dest),
            dst: Party::default(),
            clid: clid(&dest.caller),
        };
        self.open(&dest.id, begin);
    }

    /// A user's channel dials a destination: its calling leg, new or the one it has.
    fn dial_out(&mut self, from: &Chan, dest: &Chan, dial: &Dial) {
        let open = self.legs_on(&from.id).into_iter().next();
        let mut dst = self.dialled(dest, dial);
        if let Some(name) = from.connected.as_deref().filter(|_| dest.side == Side::Outside) {
            name.clone_into(&mut dst.name);
        }
        let key = match open {
            Some(leg) if matches!(leg.kind, LegKind::Calling | LegKind::Click) => {
                self.legs.edit(&leg.key, |leg| {
                    if leg.dst.number.is_empty() {
                        leg.dst = dst;
                    }
                });
                leg.key
            }
            Some(_) => return,
            None => {
                let begin = Begin {
                    kind: LegKind::Calling,
                    start: self.at,
                    direction: Direction::Out,
                    parent: None,
                    origin: Some(from.id.clone()),
                    src: self.who.party(from),
                    dst,
                    clid: clid(&from.caller),
                };
                let Some(key) = self.open(&from.id, begin) else { return };
                key
            }
        };
        self.legs.edit(&key, |leg| leg.peer = Some(dest.id.clone()));
        self.channels.edit(&dest.id, |chan| {
            if let Some(dial) = &mut chan.dial {
                dial.leg = Some(key);
            }
        });
    }

    /// What was dialled: the first extension of a channel that called, else the present one, else
    /// the number in the dial string.
    fn dialled(&self, dest: &Chan, dial: &Dial) -> Party {
        if dest.side == Side::User {
            return self.who.party(dest);
        }
        let block = dial.caller.as_ref();
        let caller = block.and_then(|block| self.channels.get(&block.uniqueid));
        let first = caller.filter(|caller| caller.incoming).and_then(|caller| caller.exten.clone());
        let now = block.and_then(|block| block.exten.clone());
        let number = [first, now].into_iter().flatten().find(|exten| is_number(exten));
        let number = number.or_else(|| dial.dial_string.as_deref().map(sent_number).map(Arc::from));
        let number = number.as_ref().map(clip);
        Party { number: number.as_deref().unwrap_or_default().to_owned(), id: 0, name: String::new() }
    }

    /// Makes a leg and says `call.initial`.
    pub(super) fn open(&mut self, anchor: &Uniqueid, begin: Begin) -> Option<LegKey> {
        let queue = begin.kind == LegKind::Queue;
        let call = self.channels.get(anchor)?.call.clone();
        if self.members.get(&call).is_some_and(|members| members.legs.len() >= MAX_LEGS) {
            self.out.skipped.push("leg above the limit");
            return None;
        }
        let n = self.channels.edit(anchor, |chan| {
            let count = if queue { &mut chan.visits } else { &mut chan.legs };
            *count = count.saturating_add(1);
            count.saturating_sub(1)
        })?;
        let key = LegKey { queue, anchor: anchor.clone(), n };
        let hash = self.calls.edit(&call, |call| {
            call.reported = true;
            call.hash.clone()
        })?;
        // a leg that was lost and made anew must not use an id twice
        let (count, info) = match self.recovering {
            true => (u64::try_from(self.now.secs()).unwrap_or(0), vec!["recovered".into()]),
            false => (0, Vec::new()),
        };
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
            info,
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

    /// DialEnd: answered, or not.
    pub(super) fn dial_end(&mut self, dial: &Dial) {
        let id = &dial.dest.uniqueid;
        let Some(outcome) = self.note_dial_end(dial) else { return };
        if let Some(caller) = &dial.caller {
            self.caller_changed(id, &caller.uniqueid);
        }
        if outcome != Outcome::Answer {
            return;
        }
        self.pick_up(id);
        for leg in self.legs_on(id) {
            match leg.kind {
                LegKind::Called => self.connect(&leg.key),
                LegKind::Click => self.accept(&leg.key),
                LegKind::Calling | LegKind::Conference | LegKind::Queue => {}
            }
        }
        let calling = self.channels.get(id).and_then(|chan| chan.dial.as_ref()?.leg.clone());
        if let Some(key) = calling {
            self.legs.edit(&key, |leg| leg.peer = Some(id.clone()));
            self.connect(&key);
        }
    }

    /// A transfer while it rang: DialEnd names another caller than DialBegin.
    fn caller_changed(&mut self, dest: &Uniqueid, caller: &Uniqueid) {
        let Some(from) = self.channels.get(caller).filter(|from| from.side != Side::Local).cloned() else {
            return;
        };
        for leg in self.legs_on(dest) {
            if leg.kind == LegKind::Called && leg.origin.as_ref() != Some(caller) {
                self.new_origin(&leg.key, &from);
            }
        }
    }

    /// A called leg's originator is another one now; nothing is said until the next update.
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

    fn accept(&mut self, key: &LegKey) {
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
        self.channels.edit(picker, |chan| chan.picks = Some(target.clone()));
    }

    /// The picker has the call: DialEnd names it, or it comes into the bridge.
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
            self.visit_over(key);
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
            info: leg.info.join("; "),
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

/// An extension that somebody can have dialled, not a place in the dialplan.
fn is_number(exten: &str) -> bool {
    exten.len() > 1 && exten.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'*' | b'#'))
}

/// The number in a dial string: `2125551234@trunk`, `trunk/2125551234`, `g1/2125551234`.
fn sent_number(dial_string: &str) -> &str {
    let user = dial_string.split_once('@').map_or(dial_string, |(user, _)| user);
    let user = user.rsplit_once('/').map_or(user, |(_, user)| user);
    user.strip_prefix("sip:").unwrap_or(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_in_every_form_of_dial_string() {
        for (dial_string, number) in [
            ("2125551234@trunk", "2125551234"),
            ("trunk/2125551234", "2125551234"),
            ("g1/2125551234", "2125551234"),
            ("trunk/sip:2125551234@host:5060", "2125551234"),
            ("1001", "1001"),
        ] {
            assert_eq!(sent_number(dial_string), number, "{dial_string}");
        }
    }
}
