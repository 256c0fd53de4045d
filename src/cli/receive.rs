//! `callpost receive`: a receiver for trying things.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::args;
use super::exit::{CliError, Done};
use super::lines::Lines;
use super::out::{Out, paint, style};
use crate::agent::asked_to_stop;
use crate::receiver::{Counts, Misbehaviour, Options, Receiver};

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Frame {
    Listening { address: String },
    Summary { counts: Counts },
}

pub(super) async fn receive(args: &args::Receive) -> Result<Done, CliError> {
    let misbehaviour = Misbehaviour {
        fail: args.fail,
        fail_rate: args.fail_rate,
        delay: args.delay.unwrap_or_default(),
        nimbox_error: args.nimbox_error.clone(),
    };
    let receiver = Receiver::start(Options { listen: args.listen, misbehaviour }).await.map_err(|why| {
        CliError::failed(
            format!("failed to listen on {}: {why}", args.listen),
            "choose another with --listen, port 0 for a free one",
        )
    })?;
    let mut out = Out::new(args.output.json);
    listening(&mut out, &receiver)?;
    let mut lines = Lines::new(TimeZone::system());
    let mut seen = 0;
    let stop = asked_to_stop();
    tokio::pin!(stop);
    loop {
        let received = tokio::select! {
            received = receiver.next(seen) => received,
            () = &mut stop => break,
        };
        seen = received.number;
        if out.json() {
            out.value(&*received)?;
        } else {
            out.line(lines.line(&received))?;
        }
    }
    let counts = receiver.counts();
    if out.json() {
        out.value(&Frame::Summary { counts })?;
    } else {
        out.line(summary(counts))?;
    }
    Ok(Done::All)
}

fn listening(out: &mut Out, receiver: &Receiver) -> Result<(), CliError> {
    let address = receiver.address();
    if out.json() {
        out.value(&Frame::Listening { address: address.to_string() })?;
        return Ok(());
    }
    let url = paint(style::NAME, format!("http://{address}/"));
    out.line(format!("listening: a webhook's end at {url}, and a NiMbox at {url}"))?;
    out.line(paint(style::DIM, "both need allow_http = true; Ctrl-C ends it"))?;
    Ok(())
}

fn summary(counts: Counts) -> String {
    let mut parts = vec![format!("{} requests", counts.requests)];
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    add(counts.webhooks, "webhooks");
    add(counts.creates, "creates");
    add(counts.webhooks_again + counts.creates_again, "again");
    add(counts.tests, "tests");
    add(counts.failed, "failed on purpose");
    add(counts.conflicts, "with the id of another: WRONG");
    add(counts.out_of_order, "out of order: WRONG");
    parts.join(", ")
}
