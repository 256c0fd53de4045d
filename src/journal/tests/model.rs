//! The journal against a plain list in memory.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parsers::Micros;
use proptest::prelude::*;

use super::support::{body_of, call, now, open_small, outgoing, route, update};
use crate::calls::{LegState, ObjectKey};
use crate::journal::{Batch, Counters, Delivery, DeliveryKey, Journal, Payload, Settlement};

const ROUTES: [&str; 2] = ["desk", "crm"];

#[derive(Clone, Debug)]
enum Step {
    /// An update of this call, owed to the routes whose bit is set; "crm" has no order.
    Append {
        call: u64,
        routes: u8,
    },
    /// Several at once.
    Burst {
        calls: Vec<u64>,
    },
    Object {
        name: u8,
        size: Option<usize>,
    },
    Take {
        route: usize,
        limit: usize,
    },
    /// Of the leased ones, by index.
    Settle {
        which: prop::sample::Index,
        how: u8,
        wait: i64,
    },
    Dead {
        which: prop::sample::Index,
        again: bool,
    },
    Wait {
        seconds: i64,
    },
    /// The oldest sealed generation is emptied into the head.
    Forward,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..6, 0u8..4).prop_map(|(call, routes)| Step::Append { call, routes }),
        2 => prop::collection::vec(0u64..6, 1..8).prop_map(|calls| Step::Burst { calls }),
        1 => (0u8..3, prop::option::of(0usize..20_000)).prop_map(|(name, size)| Step::Object { name, size }),
        4 => (0usize..2, 1usize..8).prop_map(|(route, limit)| Step::Take { route, limit }),
        8 => (any::<prop::sample::Index>(), 0u8..6, 0i64..100)
            .prop_map(|(which, how, wait)| Step::Settle { which, how, wait }),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, again)| Step::Dead { which, again }),
        1 => (1i64..60).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Forward),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Waiting {
        next: i64,
        attempts: u32,
    },
    Delivered,
    Refused,
    Dead,
    Dropped,
    /// A dead letter that was put back: another entry stands for it.
    Replaced,
}

#[derive(Clone, Debug)]
struct Owed {
    route: usize,
    id: String,
    before: Option<usize>,
    sequence: u64,
    state: State,
}

#[derive(Default)]
struct Model {
    owed: Vec<Owed>,
    last: HashMap<(usize, u64), usize>,
    calls: Vec<u64>,
    updates: BTreeMap<u64, Vec<String>>,
    objects: BTreeMap<String, Vec<u8>>,
    leased: BTreeMap<DeliveryKey, usize>,
    known: HashMap<DeliveryKey, usize>,
    now: i64,
}

impl Model {
    fn owe(&mut self, route: usize, call: u64, id: &str) {
        let before = if route == 0 { self.last.get(&(route, call)).copied() } else { None };
        let sequence = before.map_or(1, |before| self.owed[before].sequence + 1);
        if route == 0 {
            self.last.insert((route, call), self.owed.len());
        }
        let state = State::Waiting { next: 0, attempts: 0 };
        self.owed.push(Owed { route, id: id.to_owned(), before, sequence, state });
        self.calls.push(call);
    }

    fn due(&self, route: usize) -> BTreeSet<usize> {
        let leased: BTreeSet<usize> = self.leased.values().copied().collect();
        let waits = |index: usize| matches!(self.owed[index].state, State::Waiting { .. });
        (0..self.owed.len())
            .filter(|index| {
                let owed = &self.owed[*index];
                let State::Waiting { next, .. } = owed.state else { return false };
                owed.route == route
                    && next <= self.now
                    && !leased.contains(index)
                    && !owed.before.is_some_and(waits)
            })
            .collect()
    }

    fn counters(&self, route: usize) -> Counters {
        let mut counters = Counters::default();
        for owed in self.owed.iter().filter(|owed| owed.route == route && owed.state != State::Replaced) {
            counters.accepted += 1;
            match owed.state {
                State::Waiting { .. } => counters.pending += 1,
                State::Delivered => counters.delivered += 1,
                State::Refused => counters.refused += 1,
                State::Dead => counters.dead += 1,
                State::Dropped => counters.dropped += 1,
                State::Replaced => {}
            }
        }
        counters
    }
}

struct Run {
    journal: Journal,
    directory: tempfile::TempDir,
    model: Model,
    records: u64,
    made: u64,
}

impl Run {
    fn batch(&mut self, number: u64, routes: &[usize]) -> Batch {
        self.made += 1;
        let update = update(number, self.made, LegState::Ringing, now());
        let outbox = routes.iter().map(|index| outgoing(ROUTES[*index], &update, *index == 0)).collect();
        for index in routes {
            self.model.owe(*index, number, &update.id.0);
        }
        self.model.updates.entry(number).or_default().push(update.id.0.to_string());
        Batch { updates: vec![update], outbox, ..Batch::default() }
    }

    /// The model's entry of a delivery: the first with its route and id that is due.
    fn check(&self, delivery: &Delivery, due: &BTreeSet<usize>) -> usize {
        let route = ROUTES.iter().position(|name| **name == *delivery.route.0).unwrap();
        let owed = |index: &&usize| {
            let owed = &self.model.owed[**index];
            owed.route == route && *owed.id == *delivery.id.0
        };
        let index = *due.iter().find(owed).unwrap_or_else(|| panic!("not due: {delivery:?}"));
        let owed = &self.model.owed[index];
        assert_eq!(delivery.sequence, owed.sequence);
        assert!(matches!(owed.state, State::Waiting { attempts, .. } if attempts == delivery.attempts));
        assert!(matches!(&delivery.payload, Payload::Webhook { body, .. } if *body == body_of(&owed.id)));
        index
    }

    async fn take(&mut self, route_index: usize, limit: usize) {
        let due = self.model.due(route_index);
        let name = route(ROUTES[route_index]);
        let (taken, _) = self.journal.due(&name, Micros(self.model.now), limit).await.unwrap();
        assert_eq!(taken.len(), due.len().min(limit), "due by the model: {due:?}, taken: {taken:?}");
        for delivery in taken {
            let index = self.check(&delivery, &due);
            assert!(self.model.leased.insert(delivery.key, index).is_none());
            self.model.known.insert(delivery.key, index);
        }
    }

    async fn settle(&mut self, which: prop::sample::Index, how: u8, wait: i64) {
        if self.model.leased.is_empty() {
            return;
        }
        let at = which.index(self.model.leased.len());
        let (key, index) = self.model.leased.iter().nth(at).map(|(key, index)| (*key, *index)).unwrap();
        let State::Waiting { next, attempts } = self.model.owed[index].state else { unreachable!() };
        let text = String::new;
        let at = self.model.now + wait * Micros::SECOND;
        let (state, settlement) = match how {
            0 => (State::Waiting { next, attempts }, Settlement::Released),
            1 => (State::Dead, Settlement::Dead { why: text(), status: None, answer: text() }),
            2 => (State::Refused, Settlement::Refused { why: text(), answer: text() }),
            3 | 4 => {
                let costs = how == 3;
                let state = State::Waiting { next: at, attempts: attempts + u32::from(costs) };
                (state, Settlement::Retry { at: Micros(at), why: text(), status: None, costs })
            }
            _ => (State::Delivered, Settlement::Delivered { status: Some(200), answer: text() }),
        };
        self.journal.settle(key, settlement, Micros(self.model.now)).await.unwrap();
        self.model.owed[index].state = state;
        self.model.leased.remove(&key);
    }

    async fn decide(&mut self, which: prop::sample::Index, again: bool) {
        let letters = self.journal.dead(None, 1000).await.unwrap();
        let dead = self.model.owed.iter().filter(|owed| owed.state == State::Dead).count();
        assert_eq!(letters.len(), dead);
        if letters.is_empty() {
            return;
        }
        let letter = &letters[which.index(letters.len())];
        let index = self.model.known[&letter.key];
        assert_eq!(*self.model.owed[index].id, *letter.id.0);
        if again {
            let moment = Micros(self.model.now);
            assert_eq!(self.journal.dead_retry(vec![letter.key], moment).await.unwrap(), 1);
            self.model.owed[index].state = State::Replaced;
            let (route, call) = (self.model.owed[index].route, self.model.calls[index]);
            self.model.owe(route, call, &letter.id.0);
        } else {
            assert_eq!(self.journal.dead_drop(vec![letter.key]).await.unwrap(), 1);
            self.model.owed[index].state = State::Dropped;
        }
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Append { call, routes } => {
                let routes: Vec<usize> = (0..2).filter(|bit| routes & (1 << bit) != 0).collect();
                let batch = self.batch(call, &routes);
                self.journal.append(batch).await.unwrap();
            }
            Step::Burst { calls } => {
                let batches: Vec<Batch> = calls.iter().map(|call| self.batch(*call, &[0])).collect();
                let appends = batches.into_iter().map(|batch| self.journal.append(batch));
                for done in futures_util::future::join_all(appends).await {
                    done.unwrap();
                }
            }
            Step::Object { name, size } => {
                let name = format!("object {name}");
                let value = size.map(|size| vec![u8::try_from(size % 251).unwrap(); size]);
                match &value {
                    Some(value) => self.model.objects.insert(name.clone(), value.clone()),
                    None => self.model.objects.remove(&name),
                };
                let objects = vec![(ObjectKey(name.as_str().into()), value)];
                self.journal.append(Batch { objects, ..Batch::default() }).await.unwrap();
            }
            Step::Take { route, limit } => self.take(route, limit).await,
            Step::Settle { which, how, wait } => self.settle(which, how, wait).await,
            Step::Dead { which, again } => self.decide(which, again).await,
            Step::Wait { seconds } => self.model.now += seconds * Micros::SECOND,
            Step::Forward => self.journal.forward_oldest().await.unwrap(),
            Step::Reopen => {
                self.journal.close().await;
                let (journal, recovered) = open_small(self.directory.path(), self.records);
                self.journal = journal;
                self.model.leased.clear();
                assert!(recovered.quarantined.is_empty());
                let objects: BTreeMap<String, Vec<u8>> =
                    recovered.objects.into_iter().map(|(name, value)| (name.0.to_string(), value)).collect();
                assert_eq!(objects, self.model.objects);
            }
        }
        self.compare().await;
    }

    async fn compare(&self) {
        let status = self.journal.status().await.unwrap();
        for (index, name) in ROUTES.iter().enumerate() {
            let found = status.routes.iter().find(|found| *found.route.0 == **name);
            let counters = found.map(|found| found.counters).unwrap_or_default();
            assert_eq!(counters, self.model.counters(index), "route {name}");
        }
    }

    /// In the end every update of every call is in its trace, wherever it stands by then.
    async fn compare_traces(&self) {
        for (number, ids) in &self.model.updates {
            let trace = self.journal.trace(&call(*number)).await.unwrap();
            let found: BTreeSet<String> =
                trace.updates.iter().map(|update| update.id.0.to_string()).collect();
            assert_eq!(found, ids.iter().cloned().collect());
            let deliveries = (0..self.model.owed.len()).filter(|index| self.model.calls[*index] == *number);
            assert_eq!(trace.deliveries.len(), deliveries.count());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_journal_does_what_a_list_in_memory_does(
        records in prop_oneof![Just(3u64), Just(12), Just(1000)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let (journal, _) = open_small(directory.path(), records);
            let model = Model { now: now().0, ..Model::default() };
            let mut run = Run { journal, directory, model, records, made: 0 };
            for step in steps {
                run.apply(step).await;
            }
            run.compare_traces().await;
            run.journal.close().await;
        });
    }
}

/// `CALLPOST_JOURNAL_CASES` for more.
fn cases() -> u32 {
    std::env::var("CALLPOST_JOURNAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}
