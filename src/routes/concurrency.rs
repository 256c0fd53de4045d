//! How many requests a receiver can bear: one more after a round without complaint, half after
//! one. Pure.

use parsers::Micros;

/// Additive increase, multiplicative decrease, between 1 and the configured number.
#[derive(Clone, Debug)]
pub struct Concurrency {
    limit: f64,
    most: usize,
    halved: Option<Micros>,
}

impl Concurrency {
    /// Starts at the configured number.
    pub fn new(most: usize) -> Self {
        let most = most.clamp(1, 1024);
        #[expect(clippy::cast_precision_loss, reason = "at most 1024")]
        Self { limit: most as f64, most, halved: None }
    }

    /// Requests under way at once, now.
    pub fn limit(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1024")]
        let limit = self.limit as usize;
        limit.clamp(1, self.most)
    }

    /// A request went well.
    pub fn went_well(&mut self) {
        #[expect(clippy::cast_precision_loss, reason = "at most 1024")]
        let most = self.most as f64;
        self.limit = (self.limit + 1.0 / self.limit).min(most);
    }

    /// The receiver is overloaded. What was under way already when it was last halved says nothing
    /// new.
    pub fn overloaded(&mut self, started: Micros, now: Micros) {
        if self.halved.is_none_or(|halved| started >= halved) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.halved = Some(now);
        }
    }

    /// Another number is configured. What the receiver could not bear before it may bear no better
    /// now, so only a limit that was at the top goes up at once.
    pub fn configured(&mut self, most: usize) {
        let was_full = self.limit() == self.most;
        let afresh = Self::new(most);
        let limit = if was_full { afresh.limit } else { self.limit.min(afresh.limit) };
        *self = Self { limit, halved: self.halved, ..afresh };
    }

    /// The receiver was away and is back: carefully.
    pub fn afresh(&mut self) {
        self.limit = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_of_complaints_halves_it_once() {
        let mut concurrency = Concurrency::new(16);
        assert_eq!(concurrency.limit(), 16);
        for n in 0..16 {
            concurrency.overloaded(Micros(0), Micros(10 + n));
        }
        assert_eq!(concurrency.limit(), 8);
        concurrency.overloaded(Micros(10), Micros(20));
        assert_eq!(concurrency.limit(), 4);
        for n in 0..10 {
            concurrency.overloaded(Micros(100 * n + 100), Micros(100 * n + 150));
        }
        assert_eq!(concurrency.limit(), 1);
    }

    #[test]
    fn another_number_counts_at_once_and_hurries_nobody() {
        let mut concurrency = Concurrency::new(4);
        concurrency.configured(8);
        assert_eq!(concurrency.limit(), 8);
        concurrency.overloaded(Micros(0), Micros(1));
        concurrency.configured(16);
        assert_eq!(concurrency.limit(), 4, "it is still careful");
        concurrency.configured(2);
        assert_eq!(concurrency.limit(), 2);
    }

    #[test]
    fn it_grows_by_one_a_round_up_to_the_configured_number() {
        let mut concurrency = Concurrency::new(4);
        concurrency.afresh();
        let mut rounds = Vec::new();
        for _ in 0..5 {
            rounds.push(concurrency.limit());
            for _ in 0..=concurrency.limit() {
                concurrency.went_well();
            }
        }
        assert_eq!(rounds, [1, 2, 3, 4, 4]);
    }
}
