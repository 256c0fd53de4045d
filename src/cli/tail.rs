//! `callpost tail`: updates as they happen.

use std::io;

use jiff::tz::TimeZone;

use super::args;
use super::exit::{CliError, Done};
use super::lines::Lines;
use super::out::Out;
use super::status::client;
use crate::agent::asked_to_stop;
use crate::config::Config;

pub(super) async fn tail(config: &Config, args: &args::Tail) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let mut lines = Lines::new(TimeZone::system());
    let mut broken: Option<io::Error> = None;
    let client = client(config);
    let tail = client.tail(|update| {
        let written = if out.json() { out.value(&update) } else { out.line(lines.update(&update)) };
        broken = written.err();
        broken.is_none()
    });
    tokio::select! {
        ended = tail => ended?,
        () = asked_to_stop() => {}
    }
    match broken {
        Some(error) => Err(CliError::Output(error)),
        None => Ok(Done::All),
    }
}
