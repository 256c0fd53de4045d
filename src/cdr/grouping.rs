//! Rows of a store, in its order, into the groups of whole calls that the fold wants. All pure.
//!
//! By linkedid where the store has it. Elsewhere by what rows of one call share: party A, a channel that
//! is party B in one row and party A in another, both halves of a Local channel.

use std::collections::{BTreeMap, HashMap};

use parsers::{Cdr, Micros};

use super::row_times::{end, start};
use crate::calls::{CallKey, CdrGroup, CdrRow, CdrSource, call_key};

/// A call's rows may be so long apart: between two rounds of a queue whose members are busy there is
/// none, and a Local channel's record may be written long before the call's last.
pub(super) const HOLD: i64 = 6 * 3_600_000;
/// Rows that wait at most, about 50 MiB; above it the oldest call is taken for complete.
const MAX_ROWS: usize = 50_000;

/// Gathers rows.
#[derive(Debug)]
pub(super) struct Grouper {
    pbx: String,
    groups: BTreeMap<u64, Group>,
    by_key: HashMap<Key, u64>,
    rows: usize,
    next: u64,
    /// The latest end that was seen, of those that are believed.
    latest: Micros,
    /// Ends after this are not.
    until: Micros,
}

#[derive(Debug, Default)]
struct Group {
    rows: Vec<CdrRow>,
    keys: Vec<Key>,
    first: Micros,
    last: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Linkedid(String),
    Uniqueid(String),
    Channel(String),
}

/// A call, complete.
#[derive(Clone, Debug)]
pub(super) struct Complete {
    pub group: CdrGroup,
    /// When its first row began.
    pub first: Micros,
    /// When its last row ended.
    pub last: Micros,
}

impl Grouper {
    /// `pbx`: its name, which goes into each call's key. `until`: no end is later.
    pub fn new(pbx: &str, until: Micros) -> Self {
        Self {
            pbx: pbx.to_owned(),
            groups: BTreeMap::new(),
            by_key: HashMap::new(),
            rows: 0,
            next: 0,
            latest: Micros(0),
            until,
        }
    }

    /// Takes a row; `false` where nothing tells when it was.
    pub fn add(&mut self, cdr: Cdr) -> bool {
        let Some(start) = start(&cdr) else { return false };
        let end = end(&cdr, start);
        // a clock that was wrong for a minute must not close every call there is
        if end <= self.until {
            self.latest = self.latest.max(end);
        }
        let keys = keys(&cdr);
        let mut homes: Vec<u64> = keys.iter().filter_map(|key| self.home(key, start, end)).collect();
        homes.sort_unstable();
        homes.dedup();
        let id = homes.first().copied().unwrap_or_else(|| {
            self.next += 1;
            self.groups.insert(self.next, Group { first: start, last: end, ..Group::default() });
            self.next
        });
        for other in homes.into_iter().skip(1) {
            self.unite(id, other);
        }
        let Some(group) = self.groups.get_mut(&id) else { return true };
        group.first = group.first.min(start);
        group.last = group.last.max(end);
        group.rows.push(CdrRow { cdr, did: None });
        for key in keys {
            if self.by_key.insert(key.clone(), id) != Some(id) {
                group.keys.push(key);
            }
        }
        self.rows += 1;
        true
    }

    /// Where a row with this key belongs. Channels' names come again after a restart of Asterisk.
    fn home(&self, key: &Key, start: Micros, end: Micros) -> Option<u64> {
        let id = *self.by_key.get(key)?;
        let group = self.groups.get(&id)?;
        let near = Micros::SECOND * 2;
        let together = start.0 <= group.last.0 + near && end.0 >= group.first.0 - near;
        (together || !matches!(key, Key::Channel(_))).then_some(id)
    }

    fn unite(&mut self, id: u64, other: u64) {
        let Some(other) = self.groups.remove(&other) else { return };
        for key in &other.keys {
            self.by_key.insert(key.clone(), id);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.rows.extend(other.rows);
        group.keys.extend(other.keys);
        group.first = group.first.min(other.first);
        group.last = group.last.max(other.last);
    }

    /// The calls of which no row can come any more, the oldest first. `reached`: every row that began
    /// before it has come, or in the order of ends every row that ended before it.
    pub fn complete(&mut self, reached: Option<Micros>) -> Vec<Complete> {
        let until = reached.map_or(Micros(i64::MIN), |reached| reached.plus_millis(-HOLD));
        let due: Vec<u64> =
            self.groups.iter().filter(|(_, group)| group.last < until).map(|(id, _)| *id).collect();
        let mut done = self.take(due);
        while self.rows > MAX_ROWS {
            let Some(oldest) = self.groups.iter().min_by_key(|(_, group)| group.last).map(|(id, _)| *id)
            else {
                break;
            };
            done.extend(self.take(vec![oldest]));
        }
        done
    }

    /// When the first of those calls began that are not complete.
    pub fn oldest(&self) -> Option<Micros> {
        self.groups.values().map(|group| group.first).min()
    }

    /// The latest end that was seen.
    pub fn latest(&self) -> Micros {
        self.latest
    }

    /// All that is left.
    pub fn finish(mut self) -> Vec<Complete> {
        let all = self.groups.keys().copied().collect();
        self.take(all)
    }

    fn take(&mut self, ids: Vec<u64>) -> Vec<Complete> {
        let mut taken: Vec<Complete> = ids.into_iter().filter_map(|id| self.take_one(id)).collect();
        taken.sort_by_key(|complete| complete.first);
        taken
    }

    fn take_one(&mut self, id: u64) -> Option<Complete> {
        let group = self.groups.remove(&id)?;
        for key in &group.keys {
            if self.by_key.get(key) == Some(&id) {
                self.by_key.remove(key);
            }
        }
        self.rows -= group.rows.len();
        let call = self.call(&group.rows);
        Some(Complete {
            group: CdrGroup { call, rows: group.rows, source: CdrSource::Store },
            first: group.first,
            last: group.last,
        })
    }

    /// The key that the live path gives: of the linkedid, which is the oldest channel's id.
    fn call(&self, rows: &[CdrRow]) -> CallKey {
        let linked = rows.iter().find_map(|row| row.cdr.linkedid.as_ref());
        let oldest = rows.iter().filter_map(|row| row.cdr.uniqueid.as_ref()).min();
        let text = linked.map(|id| id.as_str()).or_else(|| oldest.map(|id| id.as_str()));
        let text =
            text.or_else(|| rows.iter().find_map(|row| row.cdr.channel.as_ref().map(|name| name.as_str())));
        call_key(&self.pbx, text.unwrap_or_default())
    }
}

fn keys(cdr: &Cdr) -> Vec<Key> {
    if let Some(linkedid) = &cdr.linkedid {
        return vec![Key::Linkedid(linkedid.as_str().to_owned())];
    }
    let mut keys: Vec<Key> = cdr.uniqueid.iter().map(|id| Key::Uniqueid(id.as_str().to_owned())).collect();
    for channel in cdr.channel.iter().chain(&cdr.dstchannel) {
        let name = channel.local_pair().unwrap_or(channel.as_str());
        keys.push(Key::Channel(name.to_owned()));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdr::tests::row;

    /// `uniqueid linkedid channel dstchannel start duration` of each row.
    fn rows(table: &[(&str, &str, &str, &str, i64, u64)]) -> Vec<Cdr> {
        let one = |(uniqueid, linkedid, channel, dstchannel, start, duration): &(
            &str,
            &str,
            &str,
            &str,
            i64,
            u64,
        )| {
            row(&format!(
                "{uniqueid}|{linkedid}||1|2|{channel}|{dstchannel}|Dial||{start}.0|||{duration}|0|ANSWERED|"
            ))
            .cdr
        };
        table.iter().map(one).collect()
    }

    fn sizes(rows: &[Cdr]) -> Vec<usize> {
        let mut grouper = Grouper::new("hq", Micros(i64::MAX));
        assert!(rows.iter().all(|row| grouper.add(row.clone())));
        grouper.finish().iter().map(|complete| complete.group.rows.len()).collect()
    }

    #[test]
    fn the_linkedid_makes_a_call_and_nothing_else_where_there_is_one() {
        let rows = rows(&[
            ("1.1", "1.1", "PJSIP/t-1", "PJSIP/1-2", 100, 10),
            ("2.2", "1.1", "PJSIP/1-2", "PJSIP/3-4", 105, 10),
            ("3.3", "3.3", "PJSIP/t-1", "PJSIP/5-6", 106, 10),
        ]);
        assert_eq!(sizes(&rows), [2, 1]);
    }

    #[test]
    fn without_a_linkedid_rows_are_joined_by_party_and_channel() {
        let rows = rows(&[
            ("1.1", "", "PJSIP/t-1", "Local/9@q-1;1", 100, 30),
            ("1.5", "", "PJSIP/t-9", "PJSIP/2-2", 101, 30),
            ("1.3", "", "Local/9@q-1;2", "PJSIP/4-4", 102, 28),
            ("1.4", "", "PJSIP/4-4", "PJSIP/7-7", 110, 5),
            ("1.1", "", "PJSIP/t-1", "PJSIP/8-8", 131, 3),
            // the same name after a restart
            ("9.1", "", "PJSIP/t-1", "PJSIP/4-4", 9_000, 3),
        ]);
        assert_eq!(sizes(&rows), [4, 1, 1]);
        let mut backwards = rows.clone();
        backwards.reverse();
        assert_eq!(sizes(&backwards), [4, 1, 1]);
    }

    #[test]
    fn a_call_is_complete_once_no_row_of_it_can_come() {
        let rows =
            rows(&[("1.1", "1.1", "A/1-1", "B/1-1", 100, 10), ("2.1", "2.1", "A/1-2", "B/1-2", 300, 10)]);
        let mut grouper = Grouper::new("hq", Micros(i64::MAX));
        rows.iter().for_each(|row| assert!(grouper.add(row.clone())));
        let at = |secs| Some(Micros::from_secs(secs));
        let hold = HOLD / 1000;
        assert!(grouper.complete(at(110 + hold)).is_empty());
        assert_eq!(grouper.complete(at(111 + hold)).len(), 1);
        assert!(grouper.complete(at(111 + hold)).is_empty());
        assert_eq!(grouper.finish().len(), 1);
    }

    #[test]
    fn rounds_of_a_queue_whose_members_are_busy_for_minutes_are_one_call() {
        let rows =
            rows(&[("1.1", "1.1", "A/1-1", "B/1-1", 100, 15), ("1.1", "1.1", "A/1-1", "B/1-2", 310, 60)]);
        let mut grouper = Grouper::new("hq", Micros(i64::MAX));
        assert!(grouper.add(rows[0].clone()));
        assert!(grouper.complete(Some(Micros::from_secs(300))).is_empty());
        assert!(grouper.add(rows[1].clone()));
        assert_eq!(grouper.finish()[0].group.rows.len(), 2);
    }

    #[test]
    fn an_end_that_cannot_be_closes_no_call() {
        let rows = rows(&[
            ("1.1", "1.1", "A/1-1", "B/1-1", 100, 15),
            ("9.1", "9.1", "A/1-9", "B/1-9", 100_000_000, 15),
            ("1.1", "1.1", "A/1-1", "B/1-2", 310, 60),
        ]);
        let mut grouper = Grouper::new("hq", Micros::from_secs(86_400));
        for row in rows {
            assert!(grouper.add(row));
            assert!(grouper.complete(Some(grouper.latest())).is_empty());
        }
        assert_eq!(grouper.finish().iter().map(|call| call.group.rows.len()).max(), Some(2));
    }

    #[test]
    fn a_row_without_a_time_is_no_call() {
        let mut row = rows(&[("x", "", "A/1-1", "", 100, 1)]).remove(0);
        row.start_epoch = None;
        assert!(!Grouper::new("hq", Micros(i64::MAX)).add(row));
    }
}
