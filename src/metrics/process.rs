//! This process, as `/proc/self` has it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every architecture that Linux has users on.
const TICKS: u64 = 100;

/// What it takes of the host; 0 where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Memory that is its own or shared and in use, bytes.
    pub resident: u64,
    /// Open files and sockets.
    pub files: u64,
    /// How many it may open.
    pub files_limit: u64,
    /// Processor time since the start, microseconds.
    pub cpu: u64,
}

impl Process {
    /// As of now.
    pub fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Self {
            resident: resident(&read("status")),
            files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            files_limit: files_limit(&read("limits")),
            cpu: cpu(&read("stat")),
        }
    }
}

/// `VmRSS:     12345 kB` of `status` (proc_pid_status(5)).
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The soft limit in `Max open files   1024   524288   files`.
fn files_limit(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Fields 14 and 15 of `stat` (proc_pid_stat(5)): the second field, the name, may hold anything, so
/// they are counted from its closing bracket.
fn cpu(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    let fields = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * (1_000_000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 900 0 0 0 250 50 0 0 20 0 5 0 100 0 0";
        assert_eq!(cpu(stat), 3_000_000);
        assert_eq!(cpu("rubbish"), 0);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::now();
        assert!(process.resident > 1 << 20 && process.files > 2 && process.files_limit > 2, "{process:?}");
    }
}
