//! What the system knows of a process.

use std::collections::BTreeMap;
use std::fs;

/// What a process has used so far.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// CPU seconds, by the names of its threads; those that have ended are not in it.
    pub threads: BTreeMap<String, f64>,
    /// Bytes it passed to `write` and its like.
    pub written: f64,
    /// Calls of `write` and its like.
    pub writes: f64,
    /// How often its threads slept.
    pub switches: f64,
}

impl Used {
    /// As of now.
    pub fn of(pid: u32) -> Self {
        let mut used = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let task = task.unwrap().path();
            // a thread may be gone by now
            let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
            let name = read("comm");
            let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
            *used.threads.entry(group(name.trim()).to_owned()).or_default() += nanos / 1e9;
            used.switches += field(&read("status"), "voluntary_ctxt_switches:");
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        used.written = field(&io, "wchar:");
        used.writes = field(&io, "syscw:");
        used
    }

    /// What came on top since then.
    pub fn since(&self, before: &Self) -> Self {
        let threads = self.threads.iter();
        Self {
            threads: threads
                .map(|(name, used)| (name.clone(), used - before.threads.get(name).unwrap_or(&0.0)))
                .collect(),
            written: self.written - before.written,
            writes: self.writes - before.writes,
            switches: self.switches - before.switches,
        }
    }

    /// CPU seconds of all threads.
    pub fn cpu(&self) -> f64 {
        self.threads.values().sum()
    }
}

/// sled numbers its threads.
fn group(name: &str) -> &str {
    if name.starts_with("sled-") { "sled" } else { name }
}

/// The most memory that a process ever had resident, MiB.
pub fn peak(pid: u32) -> f64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmHWM:") / 1024.0
}

fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
