//! `callpost reload`: the running agent reads its configuration again.

use super::args;
use super::exit::{CliError, Done};
use super::out::{Out, paint, plural, style};
use super::status::client;
use crate::api::Reloaded;
use crate::config::Config;

/// `config`: as it stands in the file now. Where it has faults nobody is asked.
pub(super) async fn reload(config: Result<Config, CliError>, args: &args::Reload) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let reloaded = match config {
        Ok(config) => client(&config).reload().await?,
        Err(CliError::Config(faults)) => Reloaded::Invalid { faults: faults.0 },
        Err(other) => return Err(other),
    };
    if out.json() {
        out.value(&reloaded)?;
    } else {
        show(&mut out, &reloaded)?;
    }
    Ok(match reloaded {
        Reloaded::Applied { .. } => Done::All,
        Reloaded::Invalid { .. } | Reloaded::Refused { .. } => Done::Misconfigured,
    })
}

fn show(out: &mut Out, reloaded: &Reloaded) -> std::io::Result<()> {
    let goes_on = "a running agent goes on with the one before";
    match reloaded {
        Reloaded::Applied { changes, restart, warnings } => {
            if changes.is_empty() && restart.is_empty() {
                out.line("nothing has changed; paused routes ask their receivers again")?;
            }
            for change in changes {
                out.line(format!("{}  {change}", paint(style::GOOD, "now    ")))?;
            }
            for change in restart {
                out.line(format!(
                    "{}  {change}: takes effect when callpost is restarted",
                    paint(style::WARN, "restart")
                ))?;
            }
            for warning in warnings {
                out.line(format!("{}  {warning}", paint(style::WARN, "note   ")))?;
            }
            Ok(())
        }
        Reloaded::Invalid { faults } => {
            let count = plural(faults.len() as u64, "fault", "faults");
            out.line(format!(
                "{}: the configuration has {count}; {goes_on}\n",
                paint(style::BAD, "refused")
            ))?;
            faults.iter().try_for_each(|fault| out.line(fault.to_string()))
        }
        Reloaded::Refused { key, why, remedy } => {
            out.line(format!("{}: {key}: {why}; {goes_on}", paint(style::BAD, "refused")))?;
            out.line(format!("    -> {remedy}"))
        }
    }
}
