//! What a storm of calls costs: `cargo bench --bench storm`.
//!
//! Three recorded calls of a real Asterisk 22 are played many times over, interleaved as a storm
//! interleaves them. First stage by stage in this process, then through the real agent, a process of
//! its own, whose CPU time is read from the system; the stand-in PBX and the receiver are here.
//!
//! `CALLPOST_BENCH_CALLS` (200): calls in the storm. `CALLPOST_BENCH_LIVE` (0): calls that are up
//! meanwhile. `CALLPOST_BENCH_RATE` (3000): events a second at most. `CALLPOST_BENCH` (`stages` or
//! `agent`) runs one part. `CALLPOST_BENCH_RUNS` (1) repeats the agent's, `CALLPOST_BENCH_AGENT` is
//! another binary to compare with, run in turns with this one. `TMPDIR` is the disk.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints and may fail")]

mod agent;
mod calls;
mod process;
mod stages;

use calls::Storm;

fn main() {
    let wanted = |name: &str| std::env::var("CALLPOST_BENCH").map_or(true, |only| only == name);
    let storm = Storm::new(size("CALLPOST_BENCH_CALLS", 200), size("CALLPOST_BENCH_LIVE", 0));
    println!(
        "{} calls beside {} that are up: {} events, {:.1} MB",
        storm.calls,
        storm.live,
        storm.messages.len(),
        storm.messages.iter().map(String::len).sum::<usize>() as f64 / 1e6
    );
    if wanted("stages") {
        stages::run(&storm);
    }
    if wanted("agent") {
        agent::run(&storm, size("CALLPOST_BENCH_RATE", 3000), size("CALLPOST_BENCH_RUNS", 1));
    }
}

fn size(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
