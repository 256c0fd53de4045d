//! Whether what must not hang moves: the journal's thread and the reader of Asterisk's events
//! (`decisions.md` 40). A quiet night, no Asterisk or a full disk are no reason.

use std::time::Duration;

use parsers::Micros;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ami::AmiWatch;
use crate::journal::Journal;
use crate::{clock, systemd};

/// Between two looks, where systemd does not ask for more.
const EVERY: Duration = Duration::from_secs(5);
/// What a request through the journal's thread may take, where systemd sets no limit: a disk may
/// stall for a while, and a restart would not make it faster.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pings come every 20 s: three missed, and the session should long have ended itself.
const CONNECTED_PATIENCE: i64 = 70;
/// Without a session one attempt follows another; one takes no longer than all its steps together.
const AWAY_PATIENCE: i64 = 300;

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// A request passed through the journal's thread and back in time.
    pub journal: bool,
    /// The reader read something, or tried to connect.
    pub reader: bool,
}

impl Pulse {
    /// Both.
    pub const fn is_alive(self) -> bool {
        self.journal && self.reader
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self { journal: true, reader: true }
    }
}

/// Feels the pulse until told to stop, and feeds systemd's watchdog while there is one.
pub async fn watch(journal: Journal, ami: AmiWatch, told: watch::Sender<Pulse>, stop: CancellationToken) {
    // a look and its patience together stay below the limit
    let (every, patience) = match systemd::watchdog_limit() {
        Some(limit) => ((limit / 6).min(EVERY), limit * 2 / 3),
        None => (EVERY, PATIENCE),
    };
    let look = || {
        let health = ami.health();
        // without [ami] there is nothing to read
        (!health.address.is_empty()).then(|| (ami.ticks(), health.connected))
    };
    let feed = |pulse: Pulse| {
        if pulse.is_alive() {
            systemd::alive();
        } else {
            tracing::error!(journal = pulse.journal, reader = pulse.reader, "a part of the agent hangs");
        }
        told.send_replace(pulse);
    };
    let journal = &journal;
    feel((every, patience), || journal.round_trip(), look, feed, stop).await;
}

/// The loop, with what it feels and feeds passed in.
async fn feel<F: Future<Output = Result<(), E>>, E>(
    (every, patience): (Duration, Duration),
    round_trip: impl Fn() -> F,
    look: impl Fn() -> Option<(u64, bool)>,
    feed: impl Fn(Pulse),
    stop: CancellationToken,
) {
    let mut reader = Reader::new(clock::now());
    loop {
        let journal = matches!(timeout(patience, round_trip()).await, Ok(Ok(())));
        if stop.is_cancelled() {
            return;
        }
        feed(Pulse { journal, reader: reader.moves(look(), clock::now()) });
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(every) => {}
        }
    }
}

/// What was last seen of the reader. Pure: time is passed in.
#[derive(Debug)]
struct Reader {
    ticks: u64,
    since: Micros,
    connected: bool,
}

impl Reader {
    const fn new(now: Micros) -> Self {
        Self { ticks: 0, since: now, connected: false }
    }

    /// Whether it moved lately; `seen`: its ticks, and whether it is connected; `None`: there is none.
    fn moves(&mut self, seen: Option<(u64, bool)>, now: Micros) -> bool {
        let Some((ticks, connected)) = seen else { return true };
        if ticks != self.ticks || connected != self.connected {
            *self = Self { ticks, since: now, connected };
        }
        let patience = if connected { CONNECTED_PATIENCE } else { AWAY_PATIENCE };
        now.secs_since(self.since) < patience
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const fn at(seconds: i64) -> Micros {
        Micros::from_secs(1_790_000_000 + seconds)
    }

    #[test]
    fn a_quiet_night_with_its_pongs_is_alive_and_silence_without_them_is_not() {
        let mut reader = Reader::new(at(0));
        for minute in 0..600 {
            for look in 0..6 {
                let seconds = minute * 60 + look * 10;
                let pongs = u64::try_from(seconds / 20).unwrap_or(0);
                assert!(reader.moves(Some((pongs, true)), at(seconds)), "{seconds}");
            }
        }
        let (last, end) = (1799, 36_000);
        assert!(reader.moves(Some((last, true)), at(end + 30)));
        assert!(!reader.moves(Some((last, true)), at(end + 90)), "three pings without a pong");
        assert!(reader.moves(Some((last + 1, true)), at(end + 91)));
    }

    #[test]
    fn no_asterisk_for_days_is_alive_as_long_as_it_is_tried() {
        let mut reader = Reader::new(at(0));
        for attempt in 0..10_000 {
            let ticks = u64::try_from(attempt).unwrap_or(0);
            assert!(reader.moves(Some((ticks, false)), at(attempt * 40)), "{attempt}");
        }
        assert!(!reader.moves(Some((9999, false)), at(9999 * 40 + 301)), "nobody tries any more");
        assert!(reader.moves(None, at(1_000_000)), "nothing to connect to is configured");
    }

    /// How often the watchdog is fed in an hour, by a journal that answers after so long.
    async fn meals(answers_after: Duration, answer: Result<(), ()>) -> u64 {
        let fed = AtomicU64::new(0);
        let stop = CancellationToken::new();
        let feel = feel(
            (Duration::from_secs(5), Duration::from_secs(20)),
            || async {
                sleep(answers_after).await;
                answer
            },
            || None,
            |pulse| {
                fed.fetch_add(u64::from(pulse.is_alive()), Ordering::Relaxed);
            },
            stop.clone(),
        );
        let _ = timeout(Duration::from_secs(3600), feel).await;
        fed.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_that_answers_late_still_feeds_and_one_that_hangs_or_is_gone_does_not() {
        let prompt = meals(Duration::ZERO, Ok(())).await;
        assert!((719..=721).contains(&prompt), "{prompt}");
        let late = meals(Duration::from_secs(19), Ok(())).await;
        assert!((149..=151).contains(&late), "{late}: every 24 s, within a limit of 30 s");
        assert_eq!(meals(Duration::from_secs(100_000), Ok(())).await, 0);
        assert_eq!(meals(Duration::ZERO, Err(())).await, 0);
    }
}
