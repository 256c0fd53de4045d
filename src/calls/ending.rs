//! How a leg ends: the channel's Hangup, what DialEnd said, who asked for it.
//!
//! Asterisk's causes are the SIP-mapped ones, not what users expect, so the kind of end is decided
//! on dial outcomes and states; the cause only gives the text of `t_cause`, with these exceptions:
//! the caller gave up ("Originator Cancel"), nobody took it in time ("No answer"), another one did
//! ("Answered elsewhere"), the phone sent it on ("Forwarded").

use std::sync::Arc;

use parsers::{Micros, Uniqueid};

use super::call::{Direction, EventName, LegState, Party, TerminatedBy};
use super::channels::Origin;
use super::direction::{Side, clid};
use super::leg::{Begin, End, SETTLE, other_side, own_side};
use super::objects::{Chan, Leg, LegKey, LegKind, Outcome};
use super::state::State;

impl State {
    /// Hangup: the channel is gone, and what it carried ends or settles.
    pub(super) fn hangup(&mut self, id: &Uniqueid, cause: u32, text: Option<&Arc<str>>) {
        if !self.note_gone(id, cause, text) {
            return;
        }
        let Some(chan) = self.channels.get(id).cloned() else { return };
        for leg in self.legs_of(&chan.call).into_iter().filter(|leg| leg.cur == *id) {
            self.carrier_gone(&leg, &chan);
        }
        self.destination_gone(&chan);
        self.report_unreached(&chan);
        self.channel_over(&chan);
    }

    fn carrier_gone(&mut self, leg: &Leg, chan: &Chan) {
        let text = chan.cause_txt.clone().unwrap_or_else(|| "".into());
        match leg.kind {
            LegKind::Queue => self.visit_caller_gone(leg, chan),
            LegKind::Called if leg.connected.is_none() => {
                let wait = self.retry_wait(leg).unwrap_or(SETTLE);
                let (at, due) = (self.at, self.now.plus_millis(wait));
                self.legs.edit(&leg.key, |leg| {
                    leg.ended = Some(at);
                    leg.due = Some(due);
                });
            }
            LegKind::Calling | LegKind::Click if leg.connected.is_none() => {
                let end = self.calling_end(leg, chan);
                self.end_remarked(&leg.key, end);
            }
            LegKind::Conference => self.conference_over(leg),
            LegKind::Called | LegKind::Calling | LegKind::Click => {
                let by = self.ended_by(leg);
                self.finish(&leg.key, End::new(EventName::Hangup, LegState::Hangup, text, by));
            }
        }
    }

    /// A leg's deadline: its settle time is over.
    pub(super) fn leg_due(&mut self, key: &LegKey) {
        let Some(leg) = self.legs.get(key).cloned() else { return };
        self.legs.edit(key, |leg| leg.due = None);
        match leg.kind {
            LegKind::Called if leg.ended.is_some() => {
                if let Some(chan) = self.channels.get(&leg.cur).cloned() {
                    let end = self.called_end(&leg, &chan);
                    self.end_remarked(key, end);
                } else {
                    let end = End::new(EventName::Missed, LegState::Hangup, "", TerminatedBy::System);
                    self.finish(key, end);
                }
            }
            LegKind::Calling if leg.connected.is_none() && self.answered_otherwise(&leg) => {
                // it ended with its destination's channel, not with this deadline
                let gone = self.last_destination(&leg).and_then(|dest| dest.gone);
                self.at = gone.unwrap_or(self.at);
                self.end_remarked(key, elsewhere());
            }
            LegKind::Queue => self.visit_due(&leg),
            LegKind::Conference if leg.ended.is_some() => self.conference_over(&leg),
            LegKind::Called | LegKind::Calling | LegKind::Click | LegKind::Conference => {}
        }
    }

    fn end_remarked(&mut self, key: &LegKey, end: End) {
        if &*end.cause == ELSEWHERE {
            self.remark(key, "answered elsewhere");
        }
        self.finish(key, end);
    }

    /// The end of a called leg that was never connected.
    fn called_end(&mut self, leg: &Leg, chan: &Chan) -> End {
        let dial = chan.dial.as_ref();
        let outcome = dial.and_then(|dial| dial.outcome);
        if chan.cause == 26
            || chan.picked
            || (outcome == Some(Outcome::Cancel) && self.sibling_answered(leg, chan))
        {
            return elsewhere();
        }
        let missed = |cause: Arc<str>, by| End::new(EventName::Missed, LegState::Hangup, cause, by);
        let origin = leg.origin.as_ref().and_then(|origin| self.channels.get(origin));
        let (gave_up, caller_gone) =
            origin.map_or((false, false), |from| (from.hangup_request.is_some(), from.gone.is_some()));
        let text = chan.cause_txt.clone().unwrap_or_else(|| "".into());
        match outcome {
            Some(Outcome::Cancel) if dial.is_some_and(|dial| dial.forward.is_some()) => {
                let target = dial.and_then(|dial| dial.forward.clone()).unwrap_or_else(|| "".into());
                self.remark(&leg.key, target);
                missed("Forwarded".into(), TerminatedBy::Callee)
            }
            Some(Outcome::Cancel) | None if gave_up => {
                missed("Originator Cancel".into(), TerminatedBy::Caller)
            }
            Some(Outcome::Cancel) if caller_gone => missed("Originator Cancel".into(), TerminatedBy::System),
            Some(Outcome::Cancel) => {
                if leg.parent.is_none() {
                    self.remark(&leg.key, "redirected");
                }
                missed(text, TerminatedBy::System)
            }
            Some(Outcome::NoAnswer) if chan.hangup_request.is_none() => {
                missed("No answer".into(), TerminatedBy::System)
            }
            Some(Outcome::NoAnswer | Outcome::Answer | Outcome::Busy | Outcome::Failed | Outcome::Other)
            | None => missed(text, self.ended_by(leg)),
        }
    }

    /// The end of a calling leg or click to call that was never connected.
    fn calling_end(&self, leg: &Leg, chan: &Chan) -> End {
        let text = chan.cause_txt.clone().unwrap_or_else(|| "".into());
        let failed = |cause: Arc<str>, by| End::new(EventName::Failed, LegState::Failed, cause, by);
        if self.answered_otherwise(leg) {
            return elsewhere();
        }
        if leg.kind == LegKind::Click && !chan.dials {
            let outcome = chan.dial.as_ref().and_then(|dial| dial.outcome);
            return match outcome {
                Some(Outcome::Answer) => {
                    End::new(EventName::Hangup, LegState::Hangup, text, self.ended_by(leg))
                }
                Some(Outcome::Cancel) if chan.cause == 26 || self.sibling_answered(leg, chan) => elsewhere(),
                None => failed("No answer".into(), TerminatedBy::System),
                Some(_) => failed(text, self.ended_by(leg)),
            };
        }
        let dest = self.last_destination(leg);
        let outcome = dest.as_ref().and_then(|dest| dest.dial.as_ref()?.outcome);
        match outcome {
            Some(Outcome::Cancel) | None if chan.hangup_request.is_some() => {
                failed("Originator Cancel".into(), TerminatedBy::Caller)
            }
            Some(Outcome::NoAnswer) if dest.as_ref().is_some_and(|dest| dest.hangup_request.is_none()) => {
                failed("No answer".into(), TerminatedBy::System)
            }
            _ => failed(text, self.ended_by(leg)),
        }
    }

    /// The destination that a calling leg dialled last.
    fn last_destination(&self, leg: &Leg) -> Option<Chan> {
        let dials = |chan: &Chan| chan.dial.as_ref().is_some_and(|dial| dial.leg.as_ref() == Some(&leg.key));
        self.channels_of(&leg.call).into_iter().rfind(dials)
    }

    /// Another destination of the same caller answered.
    fn sibling_answered(&self, leg: &Leg, chan: &Chan) -> bool {
        let since = chan.dial.as_ref().map_or(leg.start, |dial| dial.at);
        // who was dialled only after this one was given up is no sibling
        let until = chan.dial.as_ref().and_then(|dial| dial.end).or(chan.gone).unwrap_or(self.at);
        self.channels_of(&chan.call).iter().any(|other| {
            let Some(dial) = &other.dial else { return false };
            let answered = dial.outcome == Some(Outcome::Answer) && dial.end.is_some_and(|end| end >= since);
            answered
                && dial.at <= until
                && other.id != chan.id
                && other.side != Side::Local
                && self.origin(other) == self.origin(chan)
        })
    }

    /// A calling leg's user was answered by someone who is no destination of the leg.
    fn answered_otherwise(&self, leg: &Leg) -> bool {
        leg.kind == LegKind::Calling
            && self.channels_of(&leg.call).iter().any(|other| {
                let Some(dial) = &other.dial else { return false };
                other.side != Side::Local
                    && dial.outcome == Some(Outcome::Answer)
                    && dial.leg.as_ref() != Some(&leg.key)
                    && self.origin(other) == Origin::Channel(leg.cur.clone())
            })
    }

    /// A destination of a calling leg is gone: was the call answered by another one?
    fn destination_gone(&mut self, chan: &Chan) {
        let Some(key) = chan.dial.as_ref().and_then(|dial| dial.leg.clone()) else { return };
        let due = self.now.plus_millis(SETTLE);
        self.legs.edit(&key, |leg| {
            if leg.kind == LegKind::Calling && leg.connected.is_none() {
                leg.due = Some(due);
            }
        });
    }

    /// Who ended a leg: the first of its two parties that asked from outside; nobody did: Asterisk.
    pub(super) fn ended_by(&self, leg: &Leg) -> TerminatedBy {
        if leg.transferred {
            return own_side(leg);
        }
        let asked = |id: &Uniqueid| self.channels.get(id).and_then(|chan| chan.hangup_request);
        let own = asked(&leg.cur);
        let others = [leg.peer.as_ref(), leg.origin.as_ref()];
        let other = others.into_iter().flatten().filter(|id| **id != leg.cur).filter_map(asked).min();
        match (own, other) {
            (Some(own), Some(other)) if other < own => other_side(leg),
            (Some(_), _) => own_side(leg),
            (None, Some(_)) => other_side(leg),
            (None, None) => TerminatedBy::System,
        }
    }

    /// An inbound call that reached nobody: no leg, no queue, no voice menu.
    fn report_unreached(&mut self, chan: &Chan) {
        let reported = self.calls.get(&chan.call).is_none_or(|call| call.reported);
        let inbound = chan.side == Side::Outside && chan.incoming && chan.up.is_none();
        if !self.who.calls.report_unreached || reported || !inbound {
            return;
        }
        let number = self.did(chan).as_deref().unwrap_or_default().to_owned();
        let begin = Begin {
            kind: LegKind::Called,
            start: chan.start,
            direction: Direction::In,
            parent: None,
            origin: None,
            src: self.who.party(chan),
            dst: Party { number, id: 0, name: String::new() },
            clid: clid(&chan.caller),
        };
        let Some(key) = self.open(&chan.id, begin) else { return };
        let (cause, by) = match chan.hangup_request {
            Some(_) => ("Originator Cancel".into(), TerminatedBy::Caller),
            None => (chan.cause_txt.clone().unwrap_or_else(|| "".into()), TerminatedBy::System),
        };
        self.finish(&key, End::new(EventName::Missed, LegState::Hangup, cause, by));
    }

    /// Ends a leg whose channel went without a Hangup that we saw.
    pub(super) fn lose_leg(&mut self, leg: &Leg, cause: &str, last_seen: Option<Micros>) {
        let (event, state) = match (leg.connected, leg.kind) {
            (Some(_), _) => (EventName::Hangup, LegState::Hangup),
            (None, LegKind::Calling | LegKind::Click) => (EventName::Failed, LegState::Failed),
            (None, LegKind::Called | LegKind::Queue | LegKind::Conference) => {
                (EventName::Missed, LegState::Hangup)
            }
        };
        let mut end = End::new(event, state, cause, TerminatedBy::System);
        // it talked until it was last heard of, not until now
        end.until = last_seen.map(|seen| seen.max(leg.last));
        let recovering = std::mem::replace(&mut self.recovering, true);
        self.finish(&leg.key, end);
        self.recovering = recovering;
    }
}

const ELSEWHERE: &str = "Answered elsewhere";

fn elsewhere() -> End {
    End::new(EventName::Hangup, LegState::Hangup, ELSEWHERE, TerminatedBy::System)
}
