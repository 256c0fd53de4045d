//! `callpost number`: what the rules make of a number.

use super::args;
use super::exit::{CliError, Done};
use super::out::Out;
use crate::config::Loaded;

pub(super) fn number(_loaded: &Loaded, args: &args::Number) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    out.line(&args.number)?;
    Ok(Done::All)
}
