//! The order in which things are looked at.

use std::path::Path;

use super::report::{Level, Report};
use super::{asterisk, host, sinks, store};
use crate::cli::args;
use crate::cli::exit::{CliError, Done};
use crate::cli::out::Out;
use crate::config::{Environment, Loaded, load};

pub(in crate::cli) async fn check(file: &Path, args: &args::Check) -> Result<Done, CliError> {
    check_in(file, &Environment::of_process(), args).await
}

/// The same in an environment that the caller knows.
pub(in crate::cli) async fn check_in(
    file: &Path,
    environment: &Environment,
    args: &args::Check,
) -> Result<Done, CliError> {
    let mut report = Report::new(Out::new(args.output.json));
    let Loaded { config, warnings, files, .. } = match load(file, environment) {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in &faults.0 {
                report.fault(Level::Wrong, fault)?;
            }
            report.end()?;
            return Ok(Done::Misconfigured);
        }
    };
    let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    report.ok("configuration", format!("no faults in {files}"))?;
    for warning in &warnings {
        report.fault(Level::Warning, warning)?;
    }
    if config.ami.is_none() {
        let remedy = "write [ami] into a file in conf.d; callpost.toml(5) explains every key";
        report.note("configuration", "not configured yet: an agent would start, idle, and say so", remedy)?;
    }
    if !args.config_only {
        let running = asterisk::running(&config).await;
        asterisk::check(&config, running.as_ref(), &mut report).await?;
        sinks::check(&config, args.send_test, &mut report).await?;
        store::check(&config, &mut report).await?;
        host::check(&config, running.is_some(), &mut report)?;
    }
    report.end()?;
    Ok(if report.wrong() { Done::Failed } else { Done::All })
}
