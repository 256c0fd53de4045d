//! The commands, as a person types them. What they print goes through [`Out`], which knows
//! terminals, pipes and closed pipes; what they log goes to stderr.

mod args;
mod capture;
mod check;
mod demo;
mod exit;
mod lines;
mod log;
mod number;
mod out;
mod program;
mod receive;
mod status;
mod tail;

pub use exit::{CliError, Done};
pub use lines::Lines;
pub use out::{Out, paint, style};
pub use program::main;
