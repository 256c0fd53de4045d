//! What can be typed.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand};

use crate::config::DEFAULT_FILE;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
New here? `callpost demo` needs no PBX and nothing configured.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 partly done.
Logs go to stderr; CALLPOST_LOG=debug or --verbose for more.";

/// Gets calls out of an Asterisk PBX and into the systems where people work.
#[derive(Debug, Parser)]
#[command(
    name = "callpost",
    version = version(),
    long_version = LONG_VERSION.as_str(),
    styles = STYLES,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(super) struct Cli {
    /// The configuration; conf.d/*.toml beside it is read after it
    #[arg(long, value_name = "FILE", global = true, env = "CALLPOST_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Say more in the log: -v debug, -vv trace
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the number rules make of a number, rule by rule
    Number(Number),
}

/// For those who read the output with a program.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Number {
    /// The number as it was dialled
    pub number: String,
    /// With the rules of this NiMbox sink
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Version, what it was built from, and what it can do.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let build = option_env!("CALLPOST_BUILD").unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{}\nbuild: {build} ({profile}, {} {})\nfeatures: AMI over TCP and TLS; nimbox, webhook; journal on sled",
        version(),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
});
