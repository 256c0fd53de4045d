//! Yes or no, asked where somebody can answer.

use std::io::{self, BufRead, IsTerminal, Write};

use super::exit::CliError;
use super::out::{paint, style};

/// Whether to go on. With `--yes`, yes; where nobody can be asked, an error that names it.
pub(super) fn consent(question: &str, yes: bool) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        let what = format!("{question} There is nobody to ask: stdin is not a terminal");
        return Err(CliError::usage(what, "add --yes; nothing was done"));
    }
    // on stderr, so that what goes into a pipe stays clean
    let mut stderr = anstream::stderr();
    write!(stderr, "{} [y/N] ", paint(style::BOLD, question))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let agreed = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "s" | "si" | "sí");
    if !agreed {
        writeln!(stderr, "nothing was done")?;
    }
    Ok(agreed)
}
