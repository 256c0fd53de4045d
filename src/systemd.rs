//! What systemd is told (`sd_notify(3)`); nothing where `NOTIFY_SOCKET` is not set.

use std::time::Duration;

use sd_notify::NotifyState;

/// Configuration read, journal open, API bound. Not: Asterisk reached, which may take hours.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready]);
    self::status(status);
}

/// Still opening the journal: wait so much longer for [`ready`].
pub fn opening(more: Duration) {
    let more = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(more), NotifyState::Status("opening the journal")]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    // one line: what comes after a newline would be another variable
    tell(&[NotifyState::Status(&line.replace(char::is_control, " "))]);
}

/// The configuration is being read again; [`ready`] follows, whatever came of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(why) => tracing::debug!(reason = %why, "the monotonic clock cannot be read"),
    }
}

/// Going down on purpose.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The watchdog's food.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Without [`alive`] for so long, systemd ends the process and starts it anew.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        tracing::debug!(reason = %why, "systemd could not be notified");
    }
}
