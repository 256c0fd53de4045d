//! A caller's visit to a queue, and the attempts at its agents.
//!
//! ```text
//!   Join        an agent's phone rings        AgentConnect           Hold
//!  ------> INITIAL ---------------> RINGING --------------> CONNECTED <---> ON_HOLD
//!             |                        |                        | AgentComplete, Hangup(caller)
//!             |  Abandon               |                        '-----> HANGUP `call.hangup`
//!             +------------------------+--> HANGUP `call.missed`
//!             |  Leave, and within 1 s no AgentConnect
//!             '------------------------'--> HANGUP `call.hangup`, info "left queue"
//! ```
//! Leave comes before AgentConnect when answered and after Abandon when not, so alone it decides
//! nothing. A queue tries the same phone again and again: while the visit waits those attempts are
//! one leg, which ends when the visit is over, or 10 s after its last attempt.

use parsers::Uniqueid;
use parsers::ami::event::QueueEvent;

use super::call::{Direction, EventName, LegState, Party, TerminatedBy};
use super::direction::{Side, clid};
use super::leg::{Begin, End, SETTLE};
use super::objects::{Chan, Leg, LegKey, LegKind, MAX_VISITS, clip};
use super::state::State;

/// How long after a failed attempt the same phone's next one still belongs to the same leg.
const RETRY: i64 = 10_000;
/// How long after Leave an AgentConnect may come.
const LEFT: i64 = 1_000;

impl State {
    /// The visit in which a caller waits now.
    pub(super) fn waiting_visit(&self, caller: &Uniqueid) -> Option<Leg> {
        self.visits(caller).into_iter().find(|visit| visit.connected.is_none())
    }

    fn visits(&self, caller: &Uniqueid) -> Vec<Leg> {
        let Some(chan) = self.channels.get(caller) else { return Vec::new() };
        let mut legs = self.legs_of(&chan.call);
        legs.retain(|leg| leg.kind == LegKind::Queue && leg.cur == *caller);
        legs
    }

    fn visit(&self, event: &QueueEvent) -> Option<Leg> {
        let caller = event.caller.as_ref()?;
        let name = clip(&event.queue);
        self.visits(&caller.uniqueid)
            .into_iter()
            .find(|visit| visit.dst.name == *name || visit.info.contains(&name))
    }

    /// QueueCallerJoin.
    pub(super) fn visit_begins(&mut self, event: &QueueEvent) {
        let Some(caller) =
            event.caller.as_ref().and_then(|block| self.channels.get(&block.uniqueid)).cloned()
        else {
            return;
        };
        if !caller.alive() || self.visit(event).is_some() {
            return;
        }
        if self.visits(&caller.id).len() >= MAX_VISITS {
            self.out.skipped.push("queue visit above the limit of one caller");
            return;
        }
        let begin = self.visit_of(&caller, &event.queue);
        self.open(&caller.id, begin);
    }

    /// How a visit begins.
    pub(super) fn visit_of(&self, caller: &Chan, queue: &std::sync::Arc<str>) -> Begin {
        let number = match caller.side {
            Side::Outside => self.did(caller).or_else(|| caller.exten.clone()),
            Side::User | Side::Local => caller.exten.clone(),
        };
        let dst = Party {
            number: number.as_deref().unwrap_or_default().to_owned(),
            id: self.who.queue_id(queue),
            name: clip(queue).to_string(),
        };
        Begin {
            kind: LegKind::Queue,
            start: self.at,
            direction: Direction::In,
            parent: None,
            origin: Some(caller.id.clone()),
            src: self.who.party(caller),
            dst,
            clid: clid(&caller.caller),
        }
    }

    /// AgentConnect: the agent is the destination now, the queue's name goes to `info`.
    pub(super) fn visit_connects(&mut self, event: &QueueEvent) {
        let Some(visit) = self.visit(event).filter(|visit| visit.connected.is_none()) else { return };
        let agent = self.agent_of(&visit, event);
        self.connect_visit(&visit.key, agent.as_ref());
    }

    pub(super) fn connect_visit(&mut self, key: &LegKey, agent: Option<&Chan>) {
        let party = agent.map(|agent| self.who.party(agent));
        self.legs.edit(key, |visit| {
            // the queue's name has to be found again when AgentComplete comes
            let queue = std::mem::take(&mut visit.dst.name);
            visit.info.push(queue.into());
            if let Some(party) = party {
                visit.dst = party;
            }
            visit.peer = agent.map(|agent| agent.id.clone());
            visit.ended = None;
            visit.due = None;
        });
        self.connect(key);
        self.attempts_over(key);
    }

    /// The agent's own channel: the answered leg of this visit, else what the event names.
    fn agent_of(&self, visit: &Leg, event: &QueueEvent) -> Option<Chan> {
        let legs = self.legs_of(&visit.call);
        let leg = legs.iter().find(|leg| leg.parent.as_ref() == Some(&visit.key) && leg.connected.is_some());
        let named = event.dest.as_ref().map(|dest| &dest.uniqueid);
        self.channels.get(leg.map(|leg| &leg.cur).or(named)?).cloned()
    }

    /// AgentComplete.
    pub(super) fn visit_completes(&mut self, event: &QueueEvent) {
        let Some(visit) = self.visit(event).filter(|visit| visit.connected.is_some()) else { return };
        let by = match event.reason.as_deref() {
            Some("caller") => TerminatedBy::Caller,
            Some("agent") => TerminatedBy::Callee,
            Some("transfer") => {
                self.remark(&visit.key, "transfer");
                TerminatedBy::Callee
            }
            _ => self.ended_by(&visit),
        };
        self.finish(&visit.key, End::new(EventName::Hangup, LegState::Hangup, "Normal Clearing", by));
    }

    /// QueueCallerAbandon: the caller gave up, or was given up.
    pub(super) fn visit_abandoned(&mut self, event: &QueueEvent) {
        let Some(visit) = self.visit(event).filter(|visit| visit.connected.is_none()) else { return };
        if let Some(seconds) = event.hold_time {
            self.remark(&visit.key, format!("holdtime={seconds}"));
        }
        self.miss_visit(&visit);
    }

    fn miss_visit(&mut self, visit: &Leg) {
        let gave_up = self.channels.get(&visit.cur).is_some_and(|caller| caller.hangup_request.is_some());
        let (cause, by) = match gave_up {
            true => ("Originator Cancel", TerminatedBy::Caller),
            false => ("No answer", TerminatedBy::System),
        };
        self.finish(&visit.key, End::new(EventName::Missed, LegState::Hangup, cause, by));
    }

    /// QueueCallerLeave.
    pub(super) fn visit_left(&mut self, event: &QueueEvent) {
        let Some(visit) = self.visit(event).filter(|visit| visit.connected.is_none()) else { return };
        let (at, due) = (self.at, self.now.plus_millis(LEFT));
        self.legs.edit(&visit.key, |visit| {
            visit.ended = Some(at);
            visit.due = Some(due);
        });
        self.attempts_over(&visit.key);
    }

    /// Nobody connected within a second of Leave.
    pub(super) fn visit_due(&mut self, visit: &Leg) {
        if visit.connected.is_some() || visit.ended.is_none() {
            return;
        }
        self.remark(&visit.key, "left queue");
        self.finish(
            &visit.key,
            End::new(EventName::Hangup, LegState::Hangup, "Normal Clearing", TerminatedBy::System),
        );
    }

    /// The caller hung up, and no queue event said so before.
    pub(super) fn visit_caller_gone(&mut self, visit: &Leg, caller: &Chan) {
        if visit.connected.is_none() {
            return if visit.ended.is_some() { self.visit_due(visit) } else { self.miss_visit(visit) };
        }
        let cause = caller.cause_txt.clone().unwrap_or_else(|| "".into());
        let by = self.ended_by(visit);
        self.finish(&visit.key, End::new(EventName::Hangup, LegState::Hangup, cause, by));
    }

    /// A visit is over, or its caller left: attempts that wait for another one need not any more.
    pub(super) fn attempts_over(&mut self, visit: &LegKey) {
        let Some(chan) = self.channels.get(&visit.anchor).cloned() else { return };
        let settled = self.now.plus_millis(SETTLE);
        for leg in self.legs_of(&chan.call) {
            if leg.parent.as_ref() == Some(visit) && leg.ended.is_some() {
                self.legs.edit(&leg.key, |leg| leg.due = leg.due.map(|due| due.min(settled)));
            }
        }
    }

    /// How long a leg whose attempt failed waits for the next one; `None` outside a queue.
    pub(super) fn retry_wait(&self, leg: &Leg) -> Option<i64> {
        let visit = self.legs.get(leg.parent.as_ref()?)?;
        (visit.connected.is_none() && visit.ended.is_none()).then_some(RETRY)
    }

    /// Another attempt of a waiting visit at a phone that has an open leg: that leg goes on.
    pub(super) fn another_attempt(&mut self, visit: &LegKey, dest: &Chan) -> bool {
        let leg = self.legs_of(&dest.call).into_iter().find(|leg| {
            leg.parent.as_ref() == Some(visit)
                && leg.ended.is_some()
                && self.channels.get(&leg.cur).is_some_and(|old| old.name.endpoint() == dest.name.endpoint())
        });
        let Some(leg) = leg else { return false };
        self.legs.edit(&leg.key, |leg| {
            leg.cur = dest.id.clone();
            leg.ended = None;
            leg.due = None;
        });
        self.channels.edit(&dest.id, |chan| chan.legs = 1);
        true
    }
}
