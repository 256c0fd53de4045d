//! The channels as Asterisk reports them: their birth, what each knows of itself, who dialled
//! whom, who is in which bridge, and the chain through Local channels.
//!
//! ```text
//! caller --DialBegin--> Local;1 == Local;2 --DialBegin--> phone      (dial chain)
//! caller ==bridge== Local;1 == Local;2 ==bridge== phone              (talking, not optimised)
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use parsers::ami::{Bridge, Channel, ChannelState, Dial, DialStatus};
use parsers::ident::LocalHalf;
use parsers::{Micros, Uniqueid};

use super::call::CallKey;
use super::direction::Side;
use super::objects::{Anchor, Chan, Dialled, MAX_DEAD, Outcome, Phase, clip, is_sane};
use super::state::State;

/// Local channels in one dial chain at most; Asterisk itself rarely makes three.
const MAX_HOPS: usize = 16;
/// Live channels of one call up to which every pair of far ends is looked for.
const MAX_PAIRS: usize = 64;

/// Who began the dialling that reached a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This real channel.
    Channel(Uniqueid),
    /// An Originate.
    Originated,
    /// Nobody who is known.
    Unknown,
}

impl State {
    /// Newchannel: a channel's first snapshot. Text messages' pseudo channel is none.
    pub(super) fn announce(&mut self, block: &Channel) {
        if self.is_alive(&block.uniqueid) {
            self.touch(block);
            return;
        }
        if block.name.tech().eq_ignore_ascii_case("Message") {
            return;
        }
        if ![block.uniqueid.as_str(), block.linkedid.as_str(), block.name.as_str()].into_iter().all(is_sane) {
            self.out.skipped.push("channel with an id or name that is not Asterisk's");
            return;
        }
        if !self.room_for_channel() {
            self.out.skipped.push("channel above the limit");
            return;
        }
        let (used_legs, used_visits) = self.ordinals(&block.uniqueid);
        let kept = self.make_way(&block.uniqueid);
        let call = self.call_of_link(&block.linkedid);
        self.keep_anchors(&call, kept);
        let side = self.who.side(&block.name, block.context.as_deref());
        let chan = Chan {
            id: block.uniqueid.clone(),
            name: block.name.clone(),
            call: call.clone(),
            linked: block.linkedid.clone(),
            side,
            state: block.state,
            incoming: block.state == ChannelState::Ring,
            start: self.at,
            up: (block.state == ChannelState::Up).then_some(self.at),
            caller: block.caller.clone(),
            connected: block.connected.name.as_ref().map(clip),
            exten: block.exten.as_ref().map(clip),
            context: block.context.as_ref().map(clip),
            did: None,
            partner: None,
            dial: None,
            dials: false,
            bridge: None,
            hangup_request: None,
            gone: None,
            cause: 0,
            cause_txt: None,
            picks: None,
            picked: false,
            legs: 0,
            visits: 0,
            first_leg: used_legs,
            first_visit: used_visits,
            missed: 0,
            doubt: None,
        };
        self.channels.insert(chan.id.clone(), chan);
        self.alive += 1;
        self.join(&call, |members| members.channels.insert(block.uniqueid.clone()));
        self.touch(block);
        if side == Side::Local {
            self.pair(block);
        }
    }

    /// Finds the other half of a Local channel by its name.
    fn pair(&mut self, block: &Channel) {
        let Some(call) = self.channels.get(&block.uniqueid).map(|chan| chan.call.clone()) else { return };
        let other = self.channels_of(&call).into_iter().find(|other| {
            other.id != block.uniqueid && other.alive() && other.name.local_pair() == block.name.local_pair()
        });
        if let Some(other) = other {
            self.join_halves(&block.uniqueid, &other.id);
        }
    }

    /// LocalBridge, or the same by name.
    pub(super) fn join_halves(&mut self, one: &Uniqueid, two: &Uniqueid) {
        self.unite_channels(one, two);
        self.channels.edit(one, |chan| chan.partner = Some(two.clone()));
        self.channels.edit(two, |chan| chan.partner = Some(one.clone()));
    }

    /// What an event's channel block says now. False for a channel that was never announced or is
    /// gone: what it says is not believed.
    pub(super) fn touch(&mut self, block: &Channel) -> bool {
        let at = self.at;
        let seen = self.channels.edit(&block.uniqueid, |chan| {
            if !chan.alive() {
                return None;
            }
            chan.doubt = None;
            if is_sane(block.name.as_str()) {
                chan.name = block.name.clone();
            }
            chan.state = block.state;
            chan.caller.num = block.caller.num.as_ref().map(clip);
            chan.caller.name = block.caller.name.as_ref().map(clip);
            chan.connected = block.connected.name.as_ref().map(clip);
            if chan.up.is_none() && block.state == ChannelState::Up {
                chan.up = Some(at);
            }
            let did = block.variables.iter().find(|(name, value)| &**name == "FROM_DID" && !value.is_empty());
            if let Some((_, did)) = did {
                chan.did = Some(clip(did));
            }
            let moved = chan.linked != block.linkedid && is_sane(block.linkedid.as_str());
            if moved {
                chan.linked = block.linkedid.clone();
            }
            Some((chan.call.clone(), moved))
        });
        let Some(Some((call, moved))) = seen else {
            self.trace(&block.uniqueid);
            return false;
        };
        if moved {
            self.join_link(&call, &block.linkedid);
        }
        self.trace(&block.uniqueid);
        true
    }

    /// The input belongs to the trace of this channel's call.
    pub(super) fn trace(&mut self, id: &Uniqueid) {
        let Some(call) = self.channels.get(id).and_then(|chan| self.calls.get(&chan.call)) else { return };
        for hash in std::iter::once(&call.hash).chain(&call.aliases) {
            if !self.out.calls.iter().any(|known| known.0 == *hash) {
                self.out.calls.push(CallKey(hash.clone()));
            }
        }
    }

    pub(super) fn is_alive(&self, id: &Uniqueid) -> bool {
        self.channels.get(id).is_some_and(Chan::alive)
    }

    /// DialBegin, kept on the dialled channel. False if it is a repetition or unknown.
    pub(super) fn note_dial(&mut self, dial: &Dial) -> bool {
        let by = dial.caller.as_ref().map(|caller| caller.uniqueid.clone());
        if by.as_ref().is_some_and(|by| !self.is_alive(by)) || !self.is_alive(&dial.dest.uniqueid) {
            return false;
        }
        let at = self.at;
        let new = self.channels.edit(&dial.dest.uniqueid, |chan| {
            if chan.dial.is_some() {
                return false;
            }
            chan.dial = Some(Dialled::new(by.clone(), at));
            true
        });
        if new != Some(true) {
            return false;
        }
        if let Some(by) = &by {
            self.channels.edit(by, |chan| chan.dials = true);
        }
        true
    }

    /// DialEnd: the first one of a destination counts. A destination that was never dialled picked
    /// the call up.
    pub(super) fn note_dial_end(&mut self, dial: &Dial) -> Option<Outcome> {
        let outcome = outcome(dial.status.as_ref()?);
        let at = self.at;
        let by = dial.caller.as_ref().map(|caller| caller.uniqueid.clone());
        self.channels.edit(&dial.dest.uniqueid, |chan| {
            let info = chan.dial.get_or_insert(Dialled::new(by, at));
            if info.outcome.is_some() {
                return None;
            }
            info.outcome = Some(outcome);
            info.end = Some(at);
            info.forward = dial.forward.as_ref().map(clip);
            Some(outcome)
        })?
    }

    /// Follows the dial chain back from a dialled channel, through Local pairs.
    pub(super) fn origin(&self, dest: &Chan) -> Origin {
        let Some(dial) = &dest.dial else { return Origin::Unknown };
        match &dial.by {
            Some(by) => self.real_party(by),
            // what Page() dials (16) has no caller either, but the linkedid of who asked for it
            None if dest.linked.as_str() != dest.id.as_str() => self.requester(dest),
            None => Origin::Originated,
        }
    }

    /// The real channel that a dialling channel stands for.
    pub(super) fn real_party(&self, dialler: &Uniqueid) -> Origin {
        let mut id = dialler.clone();
        for _ in 0..MAX_HOPS {
            let Some(chan) = self.channels.get(&id) else { return Origin::Unknown };
            let Some(partner) = chan.partner.as_ref().and_then(|partner| self.channels.get(partner)) else {
                return if chan.side == Side::Local { Origin::Unknown } else { Origin::Channel(id) };
            };
            if chan.name.local_half() == Some(LocalHalf::One) {
                // an originated Local channel that dials on: the party that its other half reached
                return self.reached_by(&partner.id).map_or(Origin::Unknown, Origin::Channel);
            }
            id = match partner.dial.as_ref().map(|dial| dial.by.clone()) {
                Some(Some(by)) => by,
                Some(None) => return Origin::Originated,
                None if partner.linked.as_str() == partner.id.as_str() => return Origin::Originated,
                None => return self.requester(partner),
            };
        }
        Origin::Unknown
    }

    /// Who asked for a channel that nobody dialled (the Local half of a transfer by feature code):
    /// who is in its bridge, else the call's first channel.
    fn requester(&self, half: &Chan) -> Origin {
        let others = half.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge));
        let real = others.into_iter().flatten().find(|id| {
            **id != half.id && self.channels.get(id).is_some_and(|other| other.side != Side::Local)
        });
        let root = Uniqueid::new(half.linked.as_str());
        match real {
            Some(id) => Origin::Channel(id.clone()),
            None if self.channels.get(&root).is_some_and(|chan| chan.side != Side::Local) => {
                Origin::Channel(root)
            }
            None => Origin::Unknown,
        }
    }

    /// The real channel that this one dialled and that answered.
    fn reached_by(&self, dialler: &Uniqueid) -> Option<Uniqueid> {
        let call = &self.channels.get(dialler)?.call;
        let members = self.members.get(call)?;
        let mut found = members.channels.iter().filter_map(|id| self.channels.get(id)).filter(|chan| {
            chan.side != Side::Local
                && chan.dial.as_ref().is_some_and(|dial| {
                    dial.by.as_ref() == Some(dialler) && dial.outcome == Some(Outcome::Answer)
                })
        });
        found.next().map(|chan| chan.id.clone())
    }

    /// The number that was called from outside, of a channel that came from outside.
    pub(super) fn did(&self, chan: &Chan) -> Option<Arc<str>> {
        if chan.side != Side::Outside || !chan.incoming {
            return None;
        }
        let exten = chan.exten.as_ref().filter(|exten| !matches!(&***exten, "" | "s" | "h" | "i" | "t"));
        let number = chan.did.clone().or_else(|| exten.cloned());
        number.or_else(|| self.who.trunk_number(&chan.name)).or_else(|| chan.exten.clone())
    }

    /// BridgeEnter: joins calls where Asterisk does, and finds out who talks to whom.
    pub(super) fn enter(&mut self, bridge: &Bridge, id: &Uniqueid, swap: Option<&Uniqueid>) {
        let room = clip(&bridge.id);
        self.leave(id);
        self.channels.edit(id, |chan| chan.bridge = Some(room.clone()));
        self.bridges.entry(room.clone()).or_default().insert(id.clone());
        if matches!(&*bridge.kind, "basic" | "stasis") {
            let others: Vec<Uniqueid> = self.bridges.get(&room).into_iter().flatten().cloned().collect();
            for other in &others {
                self.unite_channels(id, other);
            }
            if let Some(swap) = swap {
                self.unite_channels(id, swap);
            }
        }
    }

    /// The channel is in no bridge any more.
    pub(super) fn leave(&mut self, id: &Uniqueid) {
        let Some(Some(room)) = self.channels.edit(id, |chan| chan.bridge.take()) else { return };
        if let Some(inside) = self.bridges.get_mut(&room) {
            inside.remove(id);
            if inside.is_empty() {
                self.bridges.remove(&room);
            }
        }
    }

    /// BridgeMerge: all of one bridge go to another.
    pub(super) fn merge_bridges(&mut self, to: &Bridge, from: &Bridge) {
        let inside: Vec<Uniqueid> = self.bridges.get(&from.id).into_iter().flatten().cloned().collect();
        for id in inside {
            self.enter(to, &id, None);
        }
    }

    /// Pairs of real channels of this call that hear each other.
    pub(super) fn talking(&self, id: &Uniqueid) -> Vec<(Uniqueid, Uniqueid)> {
        let Some(members) = self.channels.get(id).and_then(|chan| self.members.get(&chan.call)) else {
            return Vec::new();
        };
        let bridged: Vec<&Chan> = members
            .channels
            .iter()
            .filter_map(|id| self.channels.get(id))
            .filter(|chan| chan.bridge.is_some() && chan.side != Side::Local)
            .collect();
        if bridged.len() > MAX_PAIRS {
            return Vec::new();
        }
        bridged.iter().filter_map(|chan| Some((chan.id.clone(), self.far_end(chan)?))).collect()
    }

    /// The real channel at the other end of a channel's bridge, through Local pairs.
    pub(super) fn far_end(&self, chan: &Chan) -> Option<Uniqueid> {
        let mut seen: BTreeSet<&Uniqueid> = BTreeSet::new();
        let mut here = chan;
        for _ in 0..MAX_HOPS {
            let inside = self.bridges.get(here.bridge.as_ref()?)?;
            seen.insert(&here.id);
            let mut half = None;
            for other in inside.iter().filter(|id| !seen.contains(id)).filter_map(|id| self.channels.get(id))
            {
                if other.side != Side::Local {
                    return Some(other.id.clone());
                }
                half = Some(other);
            }
            let half = half?;
            seen.insert(&half.id);
            here = self.channels.get(half.partner.as_ref()?)?;
        }
        None
    }

    /// Hangup, kept on the channel; it leaves its bridge. False if it was gone already.
    pub(super) fn note_gone(&mut self, id: &Uniqueid, cause: u32, text: Option<&Arc<str>>) -> bool {
        let at = self.at;
        let gone = self.channels.edit(id, |chan| {
            if !chan.alive() {
                return false;
            }
            chan.gone = Some(at);
            chan.cause = cause;
            chan.cause_txt = text.map(clip);
            true
        });
        if gone == Some(true) {
            self.alive = self.alive.saturating_sub(1);
            self.leave(id);
            return true;
        }
        false
    }

    /// Keeps the records of a call's ended channels within bounds: first those who were only
    /// called go, oldest first.
    pub(super) fn prune(&mut self, call: &parsers::Linkedid) {
        let Some(members) = self.members.get(call) else { return };
        // a quarter at a time, since looking through them all costs
        if members.channels.len() <= MAX_DEAD + MAX_DEAD / 4 {
            return;
        }
        let needed: BTreeSet<Uniqueid> = self
            .legs_of(call)
            .into_iter()
            .flat_map(|leg| [Some(leg.key.anchor), Some(leg.cur), leg.origin, leg.peer])
            .flatten()
            .collect();
        let mut dead: Vec<(bool, Micros, Uniqueid)> = self
            .channels_of(call)
            .into_iter()
            .filter(|chan| !needed.contains(&chan.id))
            .filter_map(|chan| Some((chan.party_a(), chan.gone?, chan.id)))
            .collect();
        if dead.len() <= MAX_DEAD {
            return;
        }
        dead.sort();
        let excess = dead.len() - MAX_DEAD;
        for (_, _, id) in dead.into_iter().take(excess) {
            self.forget_channel(&id);
        }
    }

    pub(super) fn forget_channel(&mut self, id: &Uniqueid) {
        self.leave(id);
        if let Some(chan) = self.channels.remove(id) {
            self.join(&chan.call, |members| members.channels.remove(id));
            let (legs, visits) = (chan.first_leg + chan.legs, chan.first_visit + chan.visits);
            if legs > 0 || visits > 0 {
                self.keep_anchors(&chan.call, vec![Anchor { id: chan.id, legs, visits }]);
            }
        }
    }

    /// True while some channel of the call is there.
    pub(super) fn any_alive(&self, call: &parsers::Linkedid) -> bool {
        let Some(members) = self.members.get(call) else { return false };
        members.channels.iter().any(|id| self.is_alive(id))
    }

    /// Where a call stands.
    pub(super) fn phase(&self, call: &parsers::Linkedid) -> Option<Phase> {
        self.calls.get(call).map(|call| call.phase)
    }
}

fn outcome(status: &DialStatus) -> Outcome {
    match status {
        DialStatus::Answer => Outcome::Answer,
        DialStatus::Busy => Outcome::Busy,
        DialStatus::Cancel => Outcome::Cancel,
        DialStatus::ChanUnavail | DialStatus::Congestion => Outcome::Failed,
        DialStatus::NoAnswer => Outcome::NoAnswer,
        DialStatus::Ringing | DialStatus::Progress | DialStatus::Proceeding | DialStatus::Other(_) => {
            Outcome::Other
        }
    }
}
