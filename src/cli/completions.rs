//! `callpost completions`: for those who did not install the package, which has them in place.

use super::args::{Completions, Shell};
use super::exit::{CliError, Done};
use super::out::Out;

pub(super) fn completions(args: &Completions) -> Result<Done, CliError> {
    let text = match args.shell {
        Shell::Bash => include_str!("../../packaging/completions/callpost.bash"),
        Shell::Zsh => include_str!("../../packaging/completions/_callpost"),
        Shell::Fish => include_str!("../../packaging/completions/callpost.fish"),
    };
    Out::new(false).line(text.trim_end())?;
    Ok(Done::All)
}
