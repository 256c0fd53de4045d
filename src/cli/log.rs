//! Logs: to stderr, and in the journal's own form where systemd reads it.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at that level, or as `CALLPOST_LOG` says: a level, or
/// `info,callpost::ami=debug`.
pub(super) fn start(default: LevelFilter, verbose: u8) {
    let level = match verbose {
        0 => default,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // of libraries only what is wrong, unless asked
    let ours = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets([("callpost", level), ("parsers", level)]);
    let asked = std::env::var("CALLPOST_LOG").ok().filter(|text| !text.is_empty() && verbose == 0);
    let targets = match asked.as_deref().map(str::parse::<LevelFilter>) {
        Some(Ok(level)) => ours.with_targets([("callpost", level), ("parsers", level)]),
        Some(Err(_)) => asked.and_then(|text| text.parse().ok()).unwrap_or(ours),
        None => ours,
    };
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = !journald && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let registry = tracing_subscriber::registry().with(targets);
    // a second start (in tests) keeps the first
    let _ = if journald {
        registry.with(layer.event_format(Priority(Format::default()))).try_init()
    } else {
        registry.with(layer).try_init()
    };
}

/// `<3>` before each line is its syslog priority (sd-daemon(3)); journald adds the time itself.
struct Priority(Format<Full>);

impl<S, N> FormatEvent<S, N> for Priority
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.clone().without_time().with_level(false).format_event(ctx, writer, event)
    }
}
