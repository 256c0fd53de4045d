//! What Asterisk holds right now, against what is known: after each login, and as an audit.
//!
//! | known | listed | then |
//! |---|---|---|
//! | channel | yes | goes on; what it missed (ringing, answered) is said, marked recovered |
//! | channel | no | ended, honestly: when and why is not known. Without a gap only if two lists in a row miss it |
//! | - | yes | its objects are made from applications, bridges and linkedids, marked recovered |
//! | channel | another Asterisk run | lost: nothing of the old run is there |

use parsers::Micros;
use parsers::ami::{Bridge, Channel, ChannelState, Dial, DialStatus};
use parsers::ident::LocalHalf;

use super::call::LegState;
use super::channels::Origin;
use super::direction::Side;
use super::objects::{Chan, Leg, LegKind};
use super::state::State;
use super::tracker::{Snapshot, SnapshotChannel, SnapshotEntry};

/// `t_cause` of what ended while nobody looked.
const UNSEEN: &str = "Unknown (agent was disconnected)";
/// `t_cause` of what a crashed Asterisk took along.
const RESTART: &str = "Lost (PBX restart)";
/// Lists in a row that must miss a channel when no connection was lost in between.
const AUDITS: u32 = 2;

impl State {
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        let meta = self.meta();
        let gap = meta.gap.is_some() || self.fresh;
        let other_run =
            !meta.startup.is_empty() && !snapshot.startup.is_empty() && meta.startup != snapshot.startup;
        let known: Vec<Chan> =
            self.channels.sorted().into_iter().filter(|chan| chan.alive()).cloned().collect();
        for chan in known {
            let listed = !other_run && snapshot.channels.iter().any(|one| one.channel.uniqueid == chan.id);
            if other_run {
                self.calls.edit(&chan.call, |call| call.lost = true);
                self.lose_channel(&chan, RESTART);
            } else if listed {
                self.channels.edit(&chan.id, |chan| chan.missed = 0);
            } else {
                let missed = self.channels.edit(&chan.id, |chan| {
                    chan.missed = chan.missed.saturating_add(1);
                    chan.missed
                });
                if gap || missed.is_some_and(|missed| missed >= AUDITS) {
                    self.lose_channel(&chan, UNSEEN);
                }
            }
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
        self.channels.edit(id, |chan| {
            chan.incoming = incoming;
            chan.up = (chan.state == ChannelState::Up).then_some(up);
            if one.did.is_some() {
                chan.did.clone_from(&one.did);
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
            self.mark_recovered(&chan);
            self.rings(id);
        } else if chan.state == ChannelState::Up && far.is_some() {
            self.mark_recovered(&chan);
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

    /// What is said of these legs from here on was not seen as it happened.
    fn mark_recovered(&mut self, chan: &Chan) {
        let mut keys: Vec<Leg> = self.legs_on(&chan.id);
        if let Origin::Channel(from) = self.origin(chan) {
            keys.extend(self.legs_on(&from));
        }
        for leg in keys {
            self.remark(&leg.key, "recovered");
            let parent = leg.parent.and_then(|parent| self.legs.get(&parent));
            if let Some(parent) =
                parent.filter(|parent| parent.state == LegState::Initial).map(|p| p.key.clone())
            {
                self.remark(&parent, "recovered");
            }
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
            self.remark(&visit.key, "recovered");
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
