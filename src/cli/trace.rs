//! `callpost trace CALL`: the ladder of one call.

use jiff::tz::TimeZone;

use super::exit::{CliError, Done};
use super::ladder::{Line, Look, ladder};
use super::out::Out;
use super::{args, past, style};
use crate::config::Config;

pub(super) async fn trace(config: &Config, args: &args::Trace) -> Result<Done, CliError> {
    let mut out = Out::new(args.output.json);
    let found = past::trace(config, &args.call).await?;
    if out.json() {
        out.value(&found)?;
        return Ok(Done::All);
    }
    let look = Look { width: out.width(), zone: TimeZone::system() };
    let mut lines = ladder(&found.call, &found.trace, &look);
    if found.left_out > 0 {
        let text = format!("{} lines were left out of the middle", found.left_out);
        lines.push(Line::new(style::WARN, text));
    }
    out.lines(lines, args.ascii)?;
    Ok(Done::All)
}
