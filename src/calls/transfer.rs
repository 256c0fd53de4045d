//! Transfers, parking and conferences: what the events say about legs that are there, and the legs
//! that a park retrieved or a conference makes. The rest follows from dials, bridges and hangups.

use parsers::Uniqueid;
use parsers::ami::Channel;
use parsers::ami::event::Parked;
use std::sync::Arc;

use super::call::{Direction, EventName, LegState, Party, TerminatedBy};
use super::direction::{Side, clid};
use super::leg::{Begin, End, SETTLE};
use super::objects::{Leg, LegKind};
use super::state::State;

impl State {
    /// BlindTransfer: the transferer leaves soon.
    pub(super) fn blind_transfer(&mut self, transferer: &Uniqueid, extension: Option<&Arc<str>>) {
        for leg in self.legs_on(transferer) {
            // a park is a transfer too, and its own event may come first
            if !leg.info.iter().any(|info| info.starts_with("parked ")) {
                self.legs.edit(&leg.key, |leg| leg.info.retain(|info| !info.starts_with("transfer:")));
                self.remark(&leg.key, format!("transfer:{}", extension.map_or("", |extension| &**extension)));
            }
            self.legs.edit(&leg.key, |leg| leg.transferred = true);
        }
    }

    /// AttendedTransfer: whom the transferer had called talks to the transferee now.
    pub(super) fn attended_transfer(
        &mut self,
        orig: &Uniqueid,
        second: &Uniqueid,
        transferee: Option<&Channel>,
    ) {
        self.unite_channels(orig, second);
        if let Some(transferee) = transferee {
            self.unite_channels(orig, &transferee.uniqueid);
        }
        let Some(call) =
            self.channels.get(orig).or_else(|| self.channels.get(second)).map(|chan| chan.call.clone())
        else {
            return;
        };
        let real = transferee
            .and_then(|block| self.channels.get(&block.uniqueid))
            .filter(|chan| chan.side != Side::Local)
            .cloned();
        for leg in self.legs_of(&call) {
            let transferer = leg.cur == *orig || leg.cur == *second;
            let called_by_transferer = leg.kind == LegKind::Called
                && leg.origin.as_ref().is_some_and(|from| from == orig || from == second);
            match &real {
                // the transferee takes the place, name and id of who waited for it in a queue
                Some(real) if transferer && leg.kind == LegKind::Queue && leg.connected.is_none() => {
                    self.new_origin(&leg.key, real);
                    self.legs.edit(&leg.key, |visit| visit.cur = real.id.clone());
                }
                _ if transferer && leg.kind != LegKind::Queue => {
                    self.remark(&leg.key, "attended transfer");
                    self.legs.edit(&leg.key, |leg| leg.transferred = true);
                }
                Some(real) if called_by_transferer && !transferer => self.new_origin(&leg.key, real),
                _ => {}
            }
        }
    }

    /// ParkedCall: the parker's leg says where instead of the transfer that parked it.
    pub(super) fn parked(&mut self, parked: &Parked) {
        let Some(parkee) = self.channels.get(&parked.parkee.uniqueid).cloned() else { return };
        let Some(parker) = parked.parker.as_deref() else { return };
        let space = parked.space.as_deref().unwrap_or_default();
        for leg in self.legs_of(&parkee.call) {
            let own = self.channels.get(&leg.cur).is_some_and(|chan| chan.name.endpoint() == parker);
            if !own || leg.kind == LegKind::Queue || leg.peer.as_ref() != Some(&parkee.id) {
                continue;
            }
            self.legs.edit(&leg.key, |leg| {
                leg.info.retain(|info| !info.starts_with("transfer:"));
                leg.transferred = true;
            });
            self.remark(&leg.key, format!("parked {space}"));
        }
    }

    /// UnParkedCall: the retriever has the call.
    pub(super) fn unparked(&mut self, parked: &Parked) {
        let Some(retriever) = parked.retriever.as_ref() else { return };
        self.unite_channels(&parked.parkee.uniqueid, &retriever.uniqueid);
        let Some(user) = self.channels.get(&retriever.uniqueid).cloned() else { return };
        if user.side == Side::User && user.alive() && user.legs == 0 {
            let from = self.channels.get(&parked.parkee.uniqueid).cloned();
            self.take_over(&user, from.as_ref());
        }
    }

    /// ConfbridgeJoin, where legs for conferences are asked for.
    pub(super) fn conference(&mut self, id: &Uniqueid, name: &Arc<str>) {
        // straight from another conference
        for leg in self.legs_on(id).into_iter().filter(|leg| leg.ended.is_some()) {
            self.conference_over(&leg);
        }
        let Some(user) = self.channels.get(id).cloned() else { return };
        if !self.who.calls.conference_legs
            || user.side != Side::User
            || !user.alive()
            || !self.legs_on(id).is_empty()
        {
            return;
        }
        let begin = Begin {
            kind: LegKind::Conference,
            start: self.at,
            direction: Direction::Out,
            parent: None,
            origin: Some(id.clone()),
            src: self.who.party(&user),
            dst: Party { number: super::objects::clip(name).to_string(), ..Party::default() },
            clid: clid(&user.caller),
        };
        if let Some(key) = self.open(id, begin) {
            self.connect(&key);
        }
    }

    /// ConfbridgeLeave: the word of who hung up may come after it.
    pub(super) fn conference_left(&mut self, id: &Uniqueid) {
        let (at, due) = (self.at, self.now.plus_millis(SETTLE));
        for leg in self.legs_on(id) {
            if leg.kind == LegKind::Conference {
                self.legs.edit(&leg.key, |leg| {
                    leg.ended.get_or_insert(at);
                    leg.due = Some(due);
                });
            }
        }
    }

    /// A user is out of a conference: hung up, or was sent out and goes on elsewhere.
    pub(super) fn conference_over(&mut self, leg: &Leg) {
        if leg.kind != LegKind::Conference {
            return;
        }
        let asked = self.channels.get(&leg.cur).is_some_and(|chan| chan.hangup_request.is_some());
        let by = if asked { TerminatedBy::Caller } else { TerminatedBy::System };
        self.finish(&leg.key, End::new(EventName::Hangup, LegState::Hangup, "Normal Clearing", by));
    }
}
