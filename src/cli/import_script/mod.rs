//! `callpost import-script`: a site's edited copy of the Perl script, read as text and never run, into a
//! configuration for review. What is not recognised is listed, not guessed.

mod constants;
mod find;
mod numbers;
mod perl;
mod run;
mod write;

pub(super) use run::import_script;
pub(super) use write::quoted;
