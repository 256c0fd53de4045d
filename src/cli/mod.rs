//! The commands, as a person types them. What they print goes through [`Out`], which knows
//! terminals, pipes and closed pipes; what they log goes to stderr.

mod args;
mod ask;
mod backfill;
mod calls;
mod capture;
mod check;
mod completions;
mod dead;
mod delete;
mod demo;
mod exit;
mod import_script;
mod journal;
mod ladder;
mod leg;
mod lines;
mod log;
mod moment;
mod number;
mod out;
#[cfg(test)]
mod pages;
mod past;
mod program;
mod progress;
mod receive;
mod reload;
mod replay;
mod setup;
mod source;
mod status;
mod tail;
mod trace;

pub use exit::{CliError, Done};
pub use ladder::{Line, Look, ladder};
pub use lines::Lines;
pub use out::{Out, paint, style};
pub use program::main;
