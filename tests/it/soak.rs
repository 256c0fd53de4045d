//! What the agent takes of the host while calls come at a steady pace and receivers fail now and
//! then: memory, descriptors, threads and disk level off, and the processor is hardly used.
//!
//! `CALLPOST_SOAK_MINUTES=30` for that long; the processor's share is judged in a release build only.

#![expect(clippy::print_stdout, reason = "the figures are what a long run is for")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::oracle::{Faults, Plan, Run, Trouble};

/// Calls a second that make about 20 events a second: the scenes have 23.6 on average.
const RATE: f64 = 0.85;
/// The share of one processor at that pace (R13).
const MOST_CPU: f64 = 0.03;
const TICKS: f64 = 100.0;

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    rss: f64,
    descriptors: usize,
    threads: f64,
    disk: f64,
    cpu: f64,
}

fn sample(pid: u32, journal: &Path, begin: Instant) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok())
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let stat: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = stat[11].parse::<f64>().ok()? + stat[12].parse::<f64>().ok()?;
    Some(Sample {
        seconds: begin.elapsed().as_secs_f64(),
        rss: field("VmRSS:")? / 1024.0,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: field("Threads:")?,
        disk: size(journal) as f64 / 1e6,
        cpu: ticks / TICKS,
    })
}

/// Bytes below a directory, as the disk counts them.
fn size(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |path: PathBuf| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => size(&path),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(|entry| size(entry.path())).sum()
}

/// Change a second, by least squares.
fn slope(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let mean_x = samples.iter().map(|one| one.seconds).sum::<f64>() / count;
    let mean_y = samples.iter().map(&value).sum::<f64>() / count;
    let up: f64 = samples.iter().map(|one| (one.seconds - mean_x) * (value(one) - mean_y)).sum();
    let down: f64 = samples.iter().map(|one| (one.seconds - mean_x).powi(2)).sum();
    up / down
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_steady_pace_memory_descriptors_threads_and_disk_level_off() {
    let minutes = std::env::var("CALLPOST_SOAK_MINUTES").ok().map(|text| text.parse::<f64>().unwrap());
    let length = Duration::from_secs_f64(minutes.unwrap_or(2.0) * 60.0);
    let plan = Plan {
        deliveries: usize::MAX,
        rate: Some(RATE),
        faults: Faults { per_mille: 20, stubborn: 0, doomed: 0 },
        troubles: vec![Trouble::Refuse, Trouble::Disconnect, Trouble::Restart, Trouble::Reload],
        every: Duration::from_secs(20),
        once: false,
        in_memory: false,
    };
    let mut run = Run::start(plan).await;
    let (pid, journal, begin) = (run.pid(), run.journal(), Instant::now());
    let sampler = tokio::spawn(async move {
        let mut samples = Vec::new();
        while begin.elapsed() < length {
            samples.push(sample(pid, &journal, begin).unwrap());
            sleep(Duration::from_secs(1)).await;
        }
        samples
    });
    run.play(length).await;
    let samples = sampler.await.unwrap();
    let said = run.finish().await;

    // the first third is for pools and caches to fill
    let settled = &samples[samples.len() / 3..];
    let (first, last) = (settled.first().unwrap(), settled.last().unwrap());
    let most = |value: fn(&Sample) -> f64| settled.iter().map(value).fold(0.0, f64::max);
    let cpu = (last.cpu - first.cpu) / (last.seconds - first.seconds);
    let hour = 3600.0;
    println!("{said}");
    println!(
        "{:.0} s: {:.1} MB resident at most, {:+.2} MB/h; {} descriptors and {} threads at most; \
         {:.1} MB on disk at most, {:+.1} MB/h; {:.2} % of one processor",
        last.seconds,
        most(|one| one.rss),
        slope(settled, |one| one.rss) * hour,
        most(|one| one.descriptors as f64),
        most(|one| one.threads),
        most(|one| one.disk),
        slope(settled, |one| one.disk) * hour,
        cpu * 100.0,
    );
    let grown = slope(settled, |one| one.rss) * (last.seconds - first.seconds);
    assert!(grown < 4.0, "memory grows: {grown:.1} MB in {:.0} s", last.seconds - first.seconds);
    assert!(most(|one| one.rss) < 64.0, "{:.1} MB resident", most(|one| one.rss));
    assert!(
        last.descriptors <= first.descriptors + 8,
        "descriptors: {} then {}",
        first.descriptors,
        last.descriptors
    );
    assert!(last.threads <= first.threads + 2.0, "threads: {} then {}", first.threads, last.threads);
    // a generation of the outbox and what the store needs beside it
    assert!(most(|one| one.disk) < 160.0, "{:.1} MB on disk", most(|one| one.disk));
    assert!(cfg!(debug_assertions) || cpu < MOST_CPU, "{:.2} % of one processor", cpu * 100.0);
}
