//! The journal's promises, kept by the whole room together.

mod basics;
mod model;
mod support;
