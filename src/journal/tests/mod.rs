//! The journal's promises, kept by the whole room together.

mod basics;
mod crash;
mod damage;
mod faults;
mod full_disk;
mod import;
mod key_crash;
mod kill_points;
mod limits;
mod model;
mod offline;
mod past;
mod power_cut;
mod replay;
mod size;
mod support;
