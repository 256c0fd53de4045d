//! Arguments, run, exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Cli, Command};
use super::exit::{CliError, Done};
use super::out::plural;
use super::{
    backfill, calls, capture, check, completions, dead, delete, demo, import_script, journal, log, number,
    receive, reload, replay, setup, status, tail, trace,
};
use crate::config::{Config, DEFAULT_FILE, Environment, Loaded, load, load_text};

/// The whole program.
pub fn main() -> ExitCode {
    no_core_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version come this way too; a closed pipe is no failure
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let level = if matches!(cli.command, Command::Run) { LevelFilter::INFO } else { LevelFilter::WARN };
    log::start(level, cli.verbose);
    match run(&cli) {
        Ok(done) => done.into(),
        Err(error) => {
            if !error.is_closed_pipe() {
                report(&error);
            }
            ExitCode::from(error.code())
        }
    }
}

fn run(cli: &Cli) -> Result<Done, CliError> {
    match &cli.command {
        Command::Run => {
            with_one_arena();
            wait(agent(configured(cli)?, &cli.config))
        }
        Command::Reload(args) => wait(reload::reload(if_there(cli), args)),
        Command::Check(args) => wait(check::check(&cli.config, args)),
        Command::Demo(args) => wait(demo::demo(args)),
        Command::Receive(args) => wait(receive::receive(args)),
        Command::Number(args) => number::number(&if_there(cli)?, args),
        Command::Status(args) => wait(status::status(&if_there(cli)?, args)),
        Command::Calls(args) => wait(calls::calls(&if_there(cli)?, args)),
        Command::Trace(args) => wait(trace::trace(&if_there(cli)?, args)),
        Command::Tail(args) => wait(tail::tail(&if_there(cli)?, args)),
        Command::Backfill(args) => {
            with_one_arena();
            wait(backfill::backfill(configured(cli)?.config, args))
        }
        Command::Delete(args) => wait(delete::delete(&configured(cli)?.config, args)),
        Command::Setup(args) => wait(setup::setup(&cli.config, args)),
        Command::ImportScript(args) => import_script::import_script(args),
        Command::Completions(args) => completions::completions(args),
        Command::Dead(args) => wait(dead::dead(&if_there(cli)?, args)),
        Command::Replay(args) => wait(replay::replay(&if_there(cli)?, args)),
        Command::Journal(args) => wait(journal::journal(&if_there(cli)?, args)),
        Command::Capture(args) => wait(capture::capture(&configured(cli)?.config, args)),
    }
}

/// Memory holds tokens and passwords: it is not written to a disk when the program crashes. A limit
/// of one byte, unlike none, also keeps a handler that the core is piped to from being started
/// (core(5)).
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // where the service's own limit is lower already, it stays
    let _ = setrlimit(Resource::Core, limit(1)).or_else(|_| setrlimit(Resource::Core, limit(0)));
}

/// The same program again, same process, with one arena of malloc: with one for each thread the
/// stores' pages, freed by another thread than took them, keep half again as much memory. And large
/// pieces always come from the system and go back there: an open store has tables of 6 MB, nearly all of
/// it never touched, which malloc, once it has seen such pieces freed, would take from its heap and clear.
/// glibc reads this when it starts; where the administrator has set it, it stands.
fn with_one_arena() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    const LARGE: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(ARENAS).is_some() || std::env::var_os("GLIBC_TUNABLES").is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = std::process::Command::new(program);
    again.args(std::env::args_os().skip(1)).env(ARENAS, "1").env(LARGE, "131072");
    // only its failure returns
    let why = std::os::unix::process::CommandExt::exec(&mut again);
    tracing::debug!(reason = %why, "goes on with the arenas there are");
}

async fn agent(loaded: Loaded, file: &Path) -> Result<Done, CliError> {
    for warning in &loaded.warnings {
        tracing::warn!(file = %warning.file, line = warning.line, key = %warning.key, remedy = %warning.remedy, "{}", warning.problem);
    }
    crate::agent::run(loaded.config, file.to_path_buf()).await?;
    Ok(Done::All)
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

/// Where nobody named a file and there is none at the usual place, the defaults.
fn if_there(cli: &Cli) -> Result<Config, CliError> {
    if cli.config == Path::new(DEFAULT_FILE) && !cli.config.exists() {
        return Ok(load_text("", DEFAULT_FILE, &Environment::of_process())?.config);
    }
    Ok(configured(cli)?.config)
}

fn report(error: &CliError) {
    let style = super::style::BAD.bold();
    let text = if let CliError::Config(faults) = error {
        let count = plural(faults.0.len() as u64, "fault", "faults");
        format!("the configuration has {count}; nothing was started\n\n{faults}")
    } else {
        error.to_string()
    };
    // where stderr is closed, the exit code still tells
    let _ = writeln!(anstream::stderr(), "{style}error{style:#}: {text}");
}
