//! How a table is walked: by slices of a position that an index gives cheaply, about 500 rows each, cut at
//! whole positions so that no row is lost or read twice. All pure.

use std::time::Duration;

/// Rows asked for at once.
pub(super) const PAGE: usize = 500;
/// Rows of one second that are still believed.
pub(super) const MOST_IN_ONE: usize = 20_000;
/// The first slice, in positions: a quarter of an hour where these are seconds.
const FIRST: i64 = 900;
/// The widest slice: a day.
const WIDEST: i64 = 86_400;
/// The longest pause between two queries along an index.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// And between two that read the whole table, before which Asterisk's own `INSERT` may have to wait.
pub(super) const LONGEST_PAUSE_OF_SCANS: Duration = Duration::from_secs(20);

/// What to ask for next: positions from `from` up to, not including, `to`; at most `limit` rows, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub from: i64,
    pub to: i64,
    pub limit: usize,
}

/// What a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// So many of its rows count; the rest comes again.
    Rows(usize),
    /// More rows at one position than can be.
    TooMany,
}

/// Walks positions from a first to a last, not included.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    next: i64,
    end: i64,
    slice: i64,
    /// A position that is asked for alone, for there is more than a page of it.
    crowded: bool,
}

impl Cursor {
    pub fn new(from: i64, end: i64) -> Self {
        Self { next: from, end, slice: FIRST, crowded: false }
    }

    /// The last position, not included.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// `None`: all was read.
    pub fn ask(&self) -> Option<Ask> {
        if self.next >= self.end {
            return None;
        }
        let (from, limit) = (self.next, PAGE + 1);
        if self.crowded {
            return Some(Ask { from, to: from.saturating_add(1), limit: MOST_IN_ONE + 1 });
        }
        Some(Ask { from, to: from.saturating_add(self.slice).min(self.end), limit })
    }

    /// Takes the positions of the rows that came of an [`Ask`], in order.
    pub fn took(&mut self, ask: Ask, positions: &[i64]) -> Took {
        let count = positions.len();
        if count < ask.limit {
            self.next = ask.to;
            self.crowded = false;
            self.adapt(ask, count);
            return Took::Rows(count);
        }
        if self.crowded {
            return Took::TooMany;
        }
        // the last position may have more rows than came
        let last = positions.last().copied().unwrap_or(ask.from);
        let whole = positions.iter().filter(|position| **position < last).count();
        self.crowded = whole == 0;
        self.next = last;
        self.adapt(ask, count);
        Took::Rows(whole)
    }

    fn adapt(&mut self, ask: Ask, count: usize) {
        if ask.limit > PAGE + 1 {
            return;
        }
        let (span, count) =
            (ask.to.saturating_sub(ask.from).max(1), i64::try_from(count).unwrap_or(i64::MAX));
        let fits = span.saturating_mul(PAGE as i64 * 4 / 5) / count.max(1);
        self.slice = fits.clamp(self.slice / 4, self.slice.saturating_mul(4)).clamp(1, WIDEST);
    }
}

/// How long to leave the store alone after a query that took so long: four times as long, at most `longest`.
pub(super) fn pause(took: Duration, longest: Duration) -> Duration {
    took.saturating_mul(4).min(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads all of a table whose rows have these positions; what was read, and how many queries it took.
    fn walk(table: &[i64], from: i64, end: i64) -> (Vec<i64>, usize) {
        let (mut cursor, mut read, mut queries) = (Cursor::new(from, end), Vec::new(), 0);
        while let Some(ask) = cursor.ask() {
            queries += 1;
            assert!(queries < 200_000, "it goes on");
            let rows = table.iter().copied().filter(|at| (ask.from..ask.to).contains(at));
            let rows: Vec<i64> = rows.take(ask.limit).collect();
            match cursor.took(ask, &rows) {
                Took::Rows(count) => read.extend(&rows[..count]),
                Took::TooMany => break,
            }
        }
        (read, queries)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_row_is_read_once_in_order(
            bursts in prop::collection::vec((0_i64..200_000, 1_usize..900), 0..12),
            from in 0_i64..100_000,
            span in 0_i64..150_000,
        ) {
            let mut table: Vec<i64> =
                bursts.iter().flat_map(|(at, count)| std::iter::repeat_n(*at, *count)).collect();
            table.sort_unstable();
            let expected: Vec<i64> =
                table.iter().copied().filter(|at| (from..from + span).contains(at)).collect();
            prop_assert_eq!(walk(&table, from, from + span).0, expected);
        }
    }

    #[test]
    fn slices_adapt_to_the_traffic() {
        // a row a second, then nothing for a year
        let table: Vec<i64> = (0..100_000).collect();
        let (read, queries) = walk(&table, 0, 100_000 + 365 * 86_400);
        assert_eq!(read.len(), 100_000);
        assert!((200..700).contains(&queries), "{queries}");
    }

    #[test]
    fn a_second_that_never_ends_is_not_believed() {
        let table = vec![5; MOST_IN_ONE + 1];
        assert!(walk(&table, 0, 10).0.is_empty());
        assert_eq!(walk(&table[1..], 0, 10).0.len(), MOST_IN_ONE);
    }

    #[test]
    fn the_pause_is_four_times_the_query_and_at_most_200_ms() {
        assert_eq!(pause(Duration::from_millis(3), LONGEST_PAUSE), Duration::from_millis(12));
        assert_eq!(pause(Duration::from_secs(2), LONGEST_PAUSE), Duration::from_millis(200));
        assert_eq!(pause(Duration::from_secs(2), LONGEST_PAUSE_OF_SCANS), Duration::from_secs(8));
    }
}
