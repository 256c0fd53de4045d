//! Which days were deleted from which NiMbox: what is known of creates of these days from before is
//! no reason any more not to send them again, but somebody must ask for that.

use std::collections::HashMap;

use jiff::civil::Date;
use parsers::Micros;
use serde::{Deserialize, Serialize};

use super::types::{DeletedDays, RouteId};

/// Deletes remembered of one sink; those that a later one covers are not needed.
const MOST: usize = 64;
/// Begins the names of the notes they are kept in.
const NOTE: &str = "deleted/";

/// The deletes of every sink.
#[derive(Debug, Default)]
pub(super) struct Deletes(HashMap<RouteId, Vec<Delete>>);

/// The `epoch`-th of its sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Delete {
    epoch: u16,
    #[serde(flatten)]
    days: DeletedDays,
    at: Micros,
}

impl Deletes {
    /// How often days were deleted so far.
    pub(super) fn epoch(&self, sink: &RouteId) -> u16 {
        self.of(sink).last().map_or(0, |last| last.epoch)
    }

    /// The last delete that a create of this day was there for; 0: none. One without a time was there
    /// for all.
    pub(super) fn needed(&self, sink: &RouteId, date: Option<Date>, start: Option<Micros>) -> u16 {
        let Some(date) = date else { return 0 };
        let meant = |delete: &&Delete| {
            delete.days.from < date && date < delete.days.to && start.is_none_or(|start| start < delete.at)
        };
        self.of(sink).iter().rev().find(meant).map_or(0, |delete| delete.epoch)
    }

    /// One more; answers the note it is kept in.
    pub(super) fn add(
        &mut self,
        days: &DeletedDays,
        at: Micros,
    ) -> Result<(String, Vec<u8>), serde_json::Error> {
        let sink = days.route.sink();
        let epoch = self.epoch(&sink).saturating_add(1);
        let list = self.0.entry(sink.clone()).or_default();
        list.retain(|known| known.days.from < days.from || known.days.to > days.to || known.at > at);
        if list.len() >= MOST {
            list.remove(0);
        }
        list.push(Delete { epoch, days: DeletedDays { route: sink.clone(), ..days.clone() }, at });
        Ok((format!("{NOTE}{}", sink.0), serde_json::to_vec(list)?))
    }

    /// Reads a note, if it is one of these.
    pub(super) fn restore(&mut self, note: &str, payload: &[u8]) {
        let Some(sink) = note.strip_prefix(NOTE) else { return };
        match serde_json::from_slice(payload) {
            Ok(list) => {
                self.0.insert(RouteId(sink.into()), list);
            }
            Err(error) => tracing::error!(sink, %error, "what was deleted cannot be read"),
        }
    }

    fn of(&self, sink: &RouteId) -> &[Delete] {
        self.0.get(sink).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    fn days(from: &str, to: &str) -> DeletedDays {
        DeletedDays { route: RouteId("crm".into()), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn needed(deletes: &Deletes, date: &str, start: i64) -> u16 {
        deletes.needed(&RouteId("crm".into()), date.parse().ok(), Some(Micros(start)))
    }

    #[test]
    fn a_create_needs_the_last_delete_of_its_day_that_came_after_it() {
        let mut deletes = Deletes::default();
        deletes.add(&days("2026-01-01", "2026-02-01"), Micros(100)).unwrap();
        deletes.add(&days("2026-01-10", "2026-01-20"), Micros(200)).unwrap();
        deletes.add(&days("2026-03-01", "2026-03-05"), Micros(300)).unwrap();
        let table = [
            ("2026-01-01", 1, 0),
            ("2026-01-02", 1, 1),
            ("2026-01-31", 1, 1),
            ("2026-02-01", 1, 0),
            ("2026-01-15", 1, 2),
            ("2026-01-15", 150, 2),
            ("2026-01-15", 250, 0),
            ("2026-01-02", 150, 0),
            ("2026-03-04", 1, 3),
        ];
        for (date, start, expected) in table {
            assert_eq!(needed(&deletes, date, start), expected, "{date} {start}");
        }
        assert_eq!(deletes.epoch(&RouteId("crm".into())), 3);
        assert_eq!(deletes.epoch(&RouteId("other".into())), 0);
        assert_eq!(deletes.needed(&RouteId("crm".into()), None, None), 0);
    }

    #[test]
    fn the_list_is_bounded_and_comes_back_from_its_note() {
        let mut deletes = Deletes::default();
        let mut note = None;
        for n in 0..200 {
            // none covers another
            let from = jiff::civil::date(2026, 1, 1).saturating_add(jiff::Span::new().days(n));
            let to = from.saturating_add(jiff::Span::new().days(2));
            let days = DeletedDays { route: RouteId("crm".into()), from, to };
            note = Some(deletes.add(&days, Micros(n)).unwrap());
        }
        let (name, payload) = note.unwrap();
        assert!(payload.len() < crate::journal::format::PAYLOAD_CAP, "{}", payload.len());
        let mut again = Deletes::default();
        again.restore(&name, &payload);
        again.restore("verified/crm", b"x");
        assert_eq!(again.0, deletes.0);
        assert_eq!(again.epoch(&RouteId("crm".into())), 200);
        assert_eq!(again.of(&RouteId("crm".into())).len(), MOST);
        // the same days once more need only the last
        for n in 0..100 {
            again.add(&days("2025-01-01", "2028-01-01"), Micros(1000 + n)).unwrap();
        }
        assert_eq!(again.of(&RouteId("crm".into())).len(), 1);
        assert_eq!(needed(&again, "2026-05-05", 1), 300);
    }
}
