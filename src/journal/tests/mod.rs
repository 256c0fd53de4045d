//! The journal's promises, kept by the whole room together.

mod basics;
mod support;
