//! What Asterisk holds right now, against what is known: after each login, and as an audit.
//!
//! | known | listed | then |
//! |---|---|---|
//! | channel | yes | goes on; what it missed (ringing, answered) is said, marked recovered |
//! | channel | no | ended, honestly: when and why is not known. Without a gap only if two lists in a row miss it |
//! | - | yes | its objects are made from applications, bridges and linkedids, marked recovered |
//! | channel | another Asterisk run | lost: nothing of the old run is there |
//! | channel | no list is allowed | ended when nothing was heard of it for hours |
//!
//! An audit is the list of channels alone, every ten minutes on a connection that was not lost. It
//! lies between two events of the stream, but Asterisk reads it while events still wait in its
//! queues, so one list decides nothing: two in a row end a channel, and one that two list though no
//! event announced it makes the agent ask for a snapshot.
//!
//! Parked calls need no list of their own: their channels are listed as any, and the events that
//! fetch them or send them back name the parked channel.

use std::collections::HashSet;

use parsers::ami::{Bridge, Channel, ChannelState, Dial, DialStatus};
use parsers::ident::LocalHalf;
use parsers::{Linkedid, Micros, Uniqueid};

use super::direction::Side;
use super::objects::{Chan, LegKind, clip};
use super::state::State;
use super::tracker::{Snapshot, SnapshotChannel, SnapshotEntry};

/// `t_cause` of what ended while nobody looked.
const UNSEEN: &str = "Unknown (agent was disconnected)";
/// `t_cause` of what a crashed Asterisk took along.
const RESTART: &str = "Lost (PBX restart)";
/// Lists in a row that must miss a channel when no connection was lost in between.
const AUDITS: u32 = 2;
/// How long a channel of before the gap is believed in where no list is allowed: few calls are
/// longer without a hold, a transfer or a key.
const DOUBT: i64 = 4 * 3600 * 1000;
/// Channels that an audit lists and nobody knows, remembered until the next one at most.
const MAX_STRANGERS: usize = 1_000;

impl State {
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        let meta = self.meta();
        let gap = (meta.gap.is_some() || self.fresh) && !snapshot.partial;
        let other_run =
            !meta.startup.is_empty() && !snapshot.startup.is_empty() && meta.startup != snapshot.startup;
        if let Some(endpoints) = &snapshot.endpoints {
            self.who.learn(endpoints);
        }
        let listed: HashSet<&Uniqueid> = snapshot.channels.iter().map(|one| &one.channel.uniqueid).collect();
        if other_run {
            for chan in self.alive_channels() {
                self.calls.edit(&chan.call, |call| call.lost = true);
                self.lose_channel(&chan, RESTART);
            }
        } else {
            self.compare(&listed, if gap { 1 } else { AUDITS });
        }
        self.fresh = false;
        self.meta.edit(&(), |meta| {
            if !snapshot.startup.is_empty() {
                meta.startup.clone_from(&snapshot.startup);
            }
            meta.gap = None;
        });
        self.recovering = true;
        self.take_in(snapshot, gap);
        self.recovering = false;
        // what is still no channel was left out for a reason, and would be again
        self.strangers.clear();
        let left_out = listed.into_iter().filter(|id| !self.channels.contains(id));
        self.left_out = left_out.take(MAX_STRANGERS).cloned().collect();
    }

    /// Ends the channels that so many lists in a row did not show.
    fn compare(&mut self, listed: &HashSet<&Uniqueid>, lists: u32) {
        for chan in self.alive_channels() {
            let missed = if listed.contains(&chan.id) { 0 } else { chan.missed.saturating_add(1) };
            self.channels.edit(&chan.id, |chan| {
                chan.missed = missed;
                if missed == 0 {
                    chan.doubt = None;
                }
            });
            if missed >= lists {
                self.lose_channel(&chan, UNSEEN);
            }
        }
    }

    fn alive_channels(&self) -> Vec<Chan> {
        self.channels.sorted().into_iter().filter(|chan| chan.alive()).cloned().collect()
    }

    /// An audit.
    pub(super) fn audit(&mut self, listed: &[Uniqueid]) {
        self.compare(&listed.iter().collect(), AUDITS);
        let unknown = listed.iter().filter(|id| !self.channels.contains(id) && !self.left_out.contains(*id));
        let unknown: HashSet<Uniqueid> = unknown.take(MAX_STRANGERS).cloned().collect();
        self.out.resync = unknown.iter().any(|id| self.strangers.contains(id));
        self.strangers = unknown;
    }

    /// Logged in without a list of channels: those of before are believed in for a while.
    pub(super) fn blind(&mut self) {
        let gap = self.meta().gap.is_some() || self.fresh;
        self.fresh = false;
        self.meta.edit(&(), |meta| meta.gap = None);
        if !gap {
            return;
        }
        let doubt = self.now.plus_millis(DOUBT);
        for chan in self.alive_channels() {
            self.channels.edit(&chan.id, |chan| {
                chan.doubt.get_or_insert(doubt);
            });
            self.set_call_due(&chan.call);
        }
    }

    /// Channels of a call that nothing was heard of for too long.
    pub(super) fn lose_doubtful(&mut self, key: &Linkedid) {
        let now = self.now;
        for chan in self.channels_of(key) {
            if chan.alive() && chan.doubt.is_some_and(|doubt| doubt <= now) {
                self.lose_channel(&chan, UNSEEN);
            }
        }
    }

    /// The connection is gone: nothing is known to have changed.
    pub(super) fn lost(&mut self) {
        let now = self.now;
        self.meta.edit(&(), |meta| {
            meta.gap.get_or_insert(now);
        });
    }

    /// A channel that is not there any more, without a Hangup that we saw.
    pub(super) fn lose_channel(&mut self, chan: &Chan, cause: &str) {
        let seen = self.meta().gap;
        for leg in self.legs_of(&chan.call).into_iter().filter(|leg| leg.cur == chan.id) {
            self.lose_leg(&leg, cause, Some(seen.unwrap_or(leg.last)));
        }
        self.note_gone(&chan.id, 0, Some(&cause.into()));
        self.channel_over(chan);
    }

    fn take_in(&mut self, snapshot: &Snapshot, gap: bool) {
        let now = self.at;
        let mut listed: Vec<&SnapshotChannel> = snapshot
            .channels
            .iter()
            .filter(|one| !one.channel.name.tech().eq_ignore_ascii_case("Message"))
            .collect();
        listed.sort_by(|a, b| a.channel.uniqueid.cmp(&b.channel.uniqueid));
        for one in &listed {
            self.take_channel(one);
            self.at = now;
        }
        for one in &listed {
            let kind =
                |id: &str| snapshot.bridges.iter().find(|bridge| *bridge.id == *id).map(|b| b.kind.clone());
            match &one.bridge {
                Some(id)
                    if self
                        .channels
                        .get(&one.channel.uniqueid)
                        .is_some_and(|c| c.bridge.as_ref() != Some(id)) =>
                {
                    let kind = kind(id).unwrap_or_else(|| "basic".into());
                    self.enter(&Bridge { id: id.clone(), kind }, &one.channel.uniqueid, None);
                }
                Some(_) => {}
                None => self.leave(&one.channel.uniqueid),
            }
        }
        for entry in &snapshot.waiting {
            self.take_waiting(entry);
            self.at = now;
        }
        for one in &listed {
            self.take_dial(one, &listed);
            self.at = now;
        }
        for one in &listed {
            self.take_progress(one, &listed);
            self.at = now;
        }
        for one in &listed {
            self.take_queue(one, snapshot, gap);
            self.at = now;
        }
    }

    fn take_channel(&mut self, one: &SnapshotChannel) {
        let id = &one.channel.uniqueid;
        if self.channels.contains(id) {
            self.touch(&one.channel);
            return;
        }
        self.at = one
            .start
            .or_else(|| id.epoch().and_then(|(secs, _)| Some(Micros::from_secs(i64::try_from(secs).ok()?))))
            .unwrap_or(self.at);
        self.announce(&one.channel);
        let incoming = !outgoing_line(one) && one.channel.name.local_half() != Some(LocalHalf::One);
        let up = one.answer.unwrap_or(self.at);
        let dialled = one.did.as_ref().map(clip);
        self.channels.edit(id, |chan| {
            chan.incoming = incoming;
            chan.up = (chan.state == ChannelState::Up).then_some(up);
            if let Some(dialled) = dialled.filter(|_| incoming) {
                // the extension has moved on
                if chan.side == Side::User {
                    chan.exten = Some(dialled.clone());
                }
                chan.did = Some(dialled);
            }
        });
    }

    fn take_waiting(&mut self, entry: &SnapshotEntry) {
        let Some(caller) = self.channels.get(&entry.uniqueid).cloned() else { return };
        if self.waiting_visit(&caller.id).is_some() {
            return;
        }
        self.at = self.at.plus_millis(-i64::try_from(entry.wait.min(1_000_000)).unwrap_or(0) * 1000);
        let begin = self.visit_of(&caller, &entry.queue);
        self.open(&caller.id, begin);
    }

    /// Dial relations are not listed: they follow from bridges, applications and linkedids.
    fn take_dial(&mut self, one: &SnapshotChannel, listed: &[&SnapshotChannel]) {
        let known = self.channels.get(&one.channel.uniqueid).is_none_or(|chan| chan.dial.is_some());
        if known || !outgoing_line(one) {
            return;
        }
        let originated = one.application.as_deref() == Some("AppDial2");
        let caller = if originated { None } else { self.dialler_of(one, listed) };
        if caller.is_none() && !originated {
            return;
        }
        if let Some(queue) = caller.and_then(connected_queue).filter(|_| one.bridge.is_some()) {
            self.take_served(&caller.map_or(&one.channel, |caller| &caller.channel).clone(), &queue);
        }
        self.at = self.channels.get(&one.channel.uniqueid).map_or(self.at, |chan| chan.start);
        let dial = dial(caller.map(|caller| caller.channel.clone()), one.channel.clone(), None);
        self.dial_begin(&dial);
    }

    fn dialler_of<'a>(
        &self,
        one: &SnapshotChannel,
        listed: &[&'a SnapshotChannel],
    ) -> Option<&'a SnapshotChannel> {
        let call = &self.channels.get(&one.channel.uniqueid)?.call;
        let candidates: Vec<&SnapshotChannel> = listed
            .iter()
            .copied()
            .filter(|other| other.channel.uniqueid != one.channel.uniqueid && !outgoing_line(other))
            .filter(|other| self.channels.get(&other.channel.uniqueid).is_some_and(|chan| chan.call == *call))
            .filter(|other| matches!(other.application.as_deref(), Some("Dial" | "Queue")))
            .collect();
        let endpoint = one.channel.name.endpoint();
        let same_bridge = candidates.iter().find(|other| one.bridge.is_some() && other.bridge == one.bridge);
        let names_it = candidates
            .iter()
            .find(|other| other.application_data.as_deref().is_some_and(|data| data.contains(endpoint)));
        let asks = candidates.iter().find(|other| other.application.as_deref() == Some("Queue"));
        same_bridge.or(names_it).or(asks).or(candidates.first()).copied()
    }

    /// Ringing and answers that nobody saw.
    fn take_progress(&mut self, one: &SnapshotChannel, listed: &[&SnapshotChannel]) {
        let id = &one.channel.uniqueid;
        let Some(chan) = self.channels.get(id).cloned() else { return };
        let Some(dialled) = chan.dial.as_ref().filter(|dial| dial.outcome.is_none()) else { return };
        let far = if chan.side == Side::Local { None } else { self.far_end(&chan) };
        if chan.state == ChannelState::Ringing && !dialled.rang {
            self.rings(id);
        } else if chan.state == ChannelState::Up && far.is_some() {
            let caller =
                dialled.by.as_ref().and_then(|by| listed.iter().find(|other| other.channel.uniqueid == *by));
            let queue = caller.is_some_and(|caller| caller.application.as_deref() == Some("Queue"));
            let of_caller = caller.and_then(|caller| caller.answer).filter(|_| !queue);
            self.at = of_caller.or(one.answer).or(caller.and_then(|caller| caller.answer)).unwrap_or(self.at);
            let caller = caller.map(|caller| caller.channel.clone());
            self.dial_end(&dial(caller, one.channel.clone(), Some(DialStatus::Answer)));
            self.bridged(id, None);
        }
    }

    /// A caller whom an agent serves already: the visit is not listed.
    fn take_served(&mut self, caller: &Channel, queue: &str) {
        let Some(chan) = self.channels.get(&caller.uniqueid).cloned() else { return };
        if chan.visits > 0 {
            return;
        }
        self.at = chan.start;
        let begin = self.visit_of(&chan, &queue.into());
        self.open(&chan.id, begin);
    }

    /// A visit that was waiting before the gap, or that was just made for a served caller.
    fn take_queue(&mut self, one: &SnapshotChannel, snapshot: &Snapshot, gap: bool) {
        let id = &one.channel.uniqueid;
        let Some(visit) = self.waiting_visit(id) else { return };
        if snapshot.waiting.iter().any(|entry| entry.uniqueid == *id) {
            return;
        }
        let Some(chan) = self.channels.get(id).cloned() else { return };
        let agent = self.far_end(&chan).and_then(|far| self.channels.get(&far)).cloned();
        if one.application.as_deref() == Some("Queue") && agent.is_some() {
            let talking =
                self.legs_of(&visit.call).into_iter().find(|leg| leg.parent.as_ref() == Some(&visit.key));
            self.at = talking.and_then(|leg| leg.connected).unwrap_or(self.at);
            self.connect_visit(&visit.key, agent.as_ref());
        } else if gap && visit.kind == LegKind::Queue {
            self.lose_leg(&visit, UNSEEN, None);
        }
    }
}

fn dial(caller: Option<Channel>, dest: Channel, status: Option<DialStatus>) -> Dial {
    Dial { caller, dest, dial_string: None, status, forward: None }
}

/// A channel that was dialled: `AppDial`, `AppQueue`, `AppDial2` with `(Outgoing Line)`.
fn outgoing_line(one: &SnapshotChannel) -> bool {
    one.application_data.as_deref() == Some("(Outgoing Line)")
        || one.application.as_deref().is_some_and(|app| app.starts_with("App"))
}

/// The queue's name, first argument of `Queue()`, of a caller who is served.
fn connected_queue(one: &SnapshotChannel) -> Option<std::sync::Arc<str>> {
    if one.application.as_deref() != Some("Queue") || one.bridge.is_none() {
        return None;
    }
    one.application_data.as_deref()?.split(',').next().filter(|name| !name.is_empty()).map(Into::into)
}
