//! Arguments, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Cli, Command};
use super::exit::{CliError, Done};
use super::{log, number};
use crate::config::{Environment, Loaded, load};

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version come this way too; a closed pipe is no failure
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log::start(LevelFilter::WARN, cli.verbose);
    match run(&cli) {
        Ok(done) => done.into(),
        Err(error) => {
            if !error.is_closed_pipe() {
                report(&cli, &error);
            }
            ExitCode::from(error.code())
        }
    }
}

fn run(cli: &Cli) -> Result<Done, CliError> {
    match &cli.command {
        Command::Number(args) => number::number(&configured(cli)?, args),
    }
}

fn configured(cli: &Cli) -> Result<Loaded, CliError> {
    Ok(load(&cli.config, &Environment::of_process())?)
}

fn report(_cli: &Cli, error: &CliError) {
    let style = super::style::BAD.bold();
    let text = if let CliError::Config(faults) = error {
        let count = match faults.0.len() {
            1 => "1 fault".to_owned(),
            count => format!("{count} faults"),
        };
        format!("the configuration has {count}; nothing was started\n\n{faults}")
    } else {
        error.to_string()
    };
    // where stderr is closed, the exit code still tells
    let _ = writeln!(anstream::stderr(), "{style}error{style:#}: {text}");
}
