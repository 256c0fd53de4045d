//! Arguments, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Cli, Command};
use super::exit::{CliError, Done};
use super::{log, number, receive};
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
        Command::Receive(args) => wait(receive::receive(args)),
        Command::Number(args) => number::number(&configured(cli)?, args),
    }
}

/// Runs the asynchronous part; few threads, for this is somebody's PBX.
fn wait(command: impl Future<Output = Result<Done, CliError>>) -> Result<Done, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|why| {
            CliError::failed(format!("failed to start: {why}"), "see the limits of this process")
        })?;
    let done = runtime.block_on(command);
    // what still waits on a name or a disk must not hold the end
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
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
