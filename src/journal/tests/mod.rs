//! The journal's promises, kept by the whole room together.

mod basics;
mod crash;
mod damage;
mod model;
mod support;
