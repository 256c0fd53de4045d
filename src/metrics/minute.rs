//! How often something happened in the last minute.

use parsers::Micros;

const SLICES: usize = 12;
const SLICE: i64 = 5 * Micros::SECOND;

/// Counts of the last minute, in twelve slices. Pure: time is passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    slices: [(i64, u64); SLICES],
}

impl Minute {
    /// So many more.
    pub fn add(&mut self, count: u64, now: Micros) {
        let number = now.0.div_euclid(SLICE);
        let Some(slice) = self.slices.get_mut(place(number)) else { return };
        if slice.0 != number {
            *slice = (number, 0);
        }
        slice.1 += count;
    }

    /// How many in the last minute, the slice that is not over yet included.
    pub fn count(&self, now: Micros) -> u64 {
        let number = now.0.div_euclid(SLICE);
        let recent = number - (SLICES as i64 - 1)..=number;
        self.slices.iter().filter(|(at, _)| recent.contains(at)).map(|(_, count)| count).sum()
    }
}

fn place(number: i64) -> usize {
    usize::try_from(number.rem_euclid(SLICES as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let at = |seconds: i64| Micros::from_secs(1_790_000_000 + seconds);
        let mut minute = Minute::default();
        for second in 0..120 {
            minute.add(2, at(second));
        }
        assert!((110..=120).contains(&minute.count(at(119))), "{}", minute.count(at(119)));
        assert_eq!(minute.count(at(250)), 0);
        minute.add(1, at(250));
        assert_eq!(minute.count(at(251)), 1);
    }
}
