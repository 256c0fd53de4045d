//! `callpost journal`: the journal itself, with or without an agent. Everything is read from copies;
//! root takes the identity of the journal's owner first, so that no file changes hands.

use super::args;
use super::exit::{CliError, Done};
use super::out::{Out, paint, plural, style};
use super::past::as_owner;
use super::status::{bytes, client};
use crate::agent::open_journal;
use crate::config::Config;
use crate::journal::{Findings, JournalError, JournalStatus, Offline, Part, PartKind, Salvageable};

pub(super) async fn journal(config: &Config, args: &args::Journal) -> Result<Done, CliError> {
    let directory = &config.journal.directory;
    as_owner(directory)?;
    let offline = Offline::open(directory).map_err(|why| unreadable(&why))?;
    match args {
        args::Journal::Status(args) => status(config, &offline, &mut Out::new(args.output.json)).await,
        args::Journal::Verify(args) => verify(&offline, &mut Out::new(args.output.json)),
        args::Journal::Export(args) => export(&offline, args, &mut Out::new(true)),
        args::Journal::Salvage(args) => salvage(config, offline, args).await,
    }
}

async fn status(config: &Config, offline: &Offline, out: &mut Out) -> Result<Done, CliError> {
    let running = if offline.is_live() { client(config).status().await.ok() } else { None };
    let status = match running {
        Some(agent) => agent.journal,
        None => offline.status().map_err(|why| unreadable(&why))?,
    };
    let parts = offline.parts().map_err(|why| unreadable(&why))?;
    if out.json() {
        out.value(&serde_json::json!({ "live": offline.is_live(), "journal": status, "parts": parts }))?;
        return Ok(Done::All);
    }
    let who = if offline.is_live() { "an agent runs" } else { "no agent runs" };
    out.line(format!(
        "{}, {}, {}, {}, {who}",
        bytes(status.bytes),
        plural(status.generations, "generation", "generations"),
        plural(status.days, "day of history", "days of history"),
        plural(status.key_months, "month of delivered keys", "months of delivered keys"),
    ))?;
    show_routes(out, &status)?;
    if status.gaps > 0 {
        let gaps = plural(status.gaps, "gap", "gaps");
        let records = plural(status.gap_records, "record", "records");
        out.line(paint(style::WARN, format!("{gaps} in which nothing could be written: {records} refused")))?;
    }
    out.line("")?;
    let rows = parts.iter().map(|part| vec![kind(part).to_owned(), part.name.clone(), bytes(part.bytes)]);
    out.table(&["store", "name", "size"], rows.collect())?;
    Ok(Done::All)
}

fn show_routes(out: &mut Out, status: &JournalStatus) -> std::io::Result<()> {
    if status.routes.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let rows = status.routes.iter().filter(|found| !found.route.0.is_empty()).map(|found| {
        let c = found.counters;
        let numbers = [c.accepted, c.delivered, c.pending, c.dead, c.refused, c.dropped];
        let mut row = vec![found.route.0.to_string()];
        row.extend(numbers.iter().map(u64::to_string));
        row
    });
    let header = ["route", "accepted", "delivered", "pending", "dead", "refused", "dropped"];
    out.table(&header, rows.collect())?;
    for found in &status.routes {
        for (reason, count) in &found.dropped {
            out.line(paint(style::BAD, format!("{}: {count} given up: {reason}", found.route.0)))?;
        }
    }
    Ok(())
}

fn verify(offline: &Offline, out: &mut Out) -> Result<Done, CliError> {
    let mut wrong = 0;
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for part in offline.parts().map_err(|why| unreadable(&why))? {
        let found = offline.examine(&part).map_err(|why| unreadable(&why))?;
        wrong += u64::from(!found.faults.is_empty() || found.damaged > 0);
        if out.json() {
            out.value(&found)?;
            continue;
        }
        faults.extend(found.faults.iter().map(|fault| format!("{} {}: {fault}", kind(&part), part.name)));
        rows.push(verified(&found));
    }
    if !out.json() {
        out.table(&["store", "name", "size", "records", "pending", "dead", ""], rows)?;
        for fault in faults {
            out.line(paint(style::BAD, fault))?;
        }
        match wrong {
            0 => out.line(paint(style::GOOD, "every record is whole, and they fit together"))?,
            _ => out.line(format!(
                "{} with faults; the agent puts aside what it cannot read, and delivers what it can",
                plural(wrong, "store", "stores")
            ))?,
        }
    }
    Ok(if wrong == 0 { Done::All } else { Done::Partly })
}

fn verified(found: &Findings) -> Vec<String> {
    let good = found.faults.is_empty() && found.damaged == 0;
    let verdict = match good {
        true => paint(style::GOOD, "ok"),
        false if found.damaged > 0 => paint(style::BAD, format!("{} damaged", found.damaged)),
        false => paint(style::BAD, plural(found.faults.len() as u64, "fault", "faults")),
    };
    vec![
        kind(&found.part).to_owned(),
        found.part.name.clone(),
        bytes(found.part.bytes),
        found.records.to_string(),
        found.pending.to_string(),
        found.dead.to_string(),
        verdict,
    ]
}

fn export(offline: &Offline, args: &args::JournalExport, out: &mut Out) -> Result<Done, CliError> {
    let (zone, now) = (jiff::tz::TimeZone::system(), crate::clock::now());
    let time = (args.from.map(|from| from.begin(&zone, now)), args.to.map(|to| to.end(&zone, now)));
    let mut damaged = 0;
    let parts = offline.parts().map_err(|why| unreadable(&why))?;
    for part in parts.into_iter().filter(|part| part.kind != PartKind::Quarantined) {
        let why = match offline.export(&part, time, |value| out.value(&value)) {
            Ok(written) => {
                written?;
                // a record that cannot be read costs itself: nothing of it was met
                let found = offline.examine(&part).map_err(|why| unreadable(&why))?;
                match found.damaged {
                    0 => found.faults.into_iter().next(),
                    records => Some(format!("{} damaged", plural(records, "record is", "records are"))),
                }
            }
            Err(why @ JournalError::Damaged { .. }) => Some(why.to_string()),
            Err(why) => return Err(unreadable(&why)),
        };
        if let Some(reason) = why {
            tracing::warn!(part = %part.name, reason, "a store is damaged and was not exported whole");
            damaged += 1;
        }
    }
    Ok(if damaged == 0 { Done::All } else { Done::Partly })
}

async fn salvage(config: &Config, offline: Offline, args: &args::JournalSalvage) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let found = offline.salvageable().map_err(|why| unreadable(&why))?;
    let live = offline.is_live();
    let open = found.iter().filter(|found| !found.done).count() as u64;
    if !args.yes || live || open == 0 {
        show_plan(&mut out, &found, live)?;
        if args.yes && live && open > 0 {
            let remedy =
                "the agent takes what waits by itself when it starts; stop it to have the past put back";
            return Err(CliError::failed("an agent has the journal", remedy));
        }
        return Ok(Done::All);
    }
    let history = offline.salvage_days().map_err(|why| unreadable(&why))?;
    drop(offline);
    let (journal, _) = open_journal(config).await.map_err(|why| unreadable(&why))?;
    journal.close().await;
    let deliveries: u64 = found.iter().filter(|found| !found.done).map(|found| found.deliveries).sum();
    let letters: u64 = found.iter().filter(|found| !found.done).map(|found| found.letters).sum();
    if out.json() {
        let done = serde_json::json!({ "deliveries": deliveries, "letters": letters, "history": history });
        out.value(&done)?;
    } else {
        out.line(format!(
            "put back: {}, {}, {} of the past",
            plural(deliveries, "delivery", "deliveries"),
            plural(letters, "dead letter", "dead letters"),
            plural(history, "record", "records")
        ))?;
    }
    Ok(Done::All)
}

fn show_plan(out: &mut Out, found: &[Salvageable], live: bool) -> std::io::Result<()> {
    if out.json() {
        return found.iter().try_for_each(|found| out.value(found));
    }
    if found.is_empty() {
        return out.line("nothing was put aside");
    }
    let rows = found.iter().map(|found| {
        vec![
            found.part.name.clone(),
            bytes(found.part.bytes),
            found.deliveries.to_string(),
            found.letters.to_string(),
            found.history.to_string(),
            if found.done { "done" } else { "with --yes" }.to_owned(),
        ]
    });
    let header = ["put aside", "size", "deliveries", "dead letters", "of the past", ""];
    out.table(&header, rows.collect())?;
    if live { out.line("an agent runs; it takes what waits when it starts") } else { Ok(()) }
}

fn kind(part: &Part) -> &'static str {
    match part.kind {
        PartKind::Generation => "waiting",
        PartKind::Day => "day",
        PartKind::Month => "keys",
        PartKind::Quarantined => "put aside",
    }
}

fn unreadable(why: &JournalError) -> CliError {
    let remedy = match why {
        JournalError::InUse(_) => "stop the agent first",
        JournalError::Owner { .. } => "run it as their owner, or as root",
        JournalError::OtherPbx { .. } => "give the configuration that the agent has",
        JournalError::Damaged { .. } => "see `callpost journal verify`",
        JournalError::Io { .. } | JournalError::TooLarge(_) | JournalError::Closed => {
            "see [journal] directory, its owner, and the room in TMPDIR for a copy of one store"
        }
    };
    CliError::failed(why.to_string(), remedy)
}
