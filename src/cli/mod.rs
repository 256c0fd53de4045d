//! The commands, as a person types them. What they print goes through [`Out`], which knows
//! terminals, pipes and closed pipes; what they log goes to stderr.

mod args;
mod exit;
mod lines;
mod log;
mod number;
mod out;
mod program;
mod receive;

pub use exit::{CliError, Done};
pub use lines::Lines;
pub use out::{Out, paint, style};
pub use program::main;
