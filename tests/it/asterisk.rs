//! The Asterisk of `tests/asterisk/start`, as its host's administrator has it: stop, kill, start.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// A stop or a start takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// `core stop now`: calls are hung up, then the process ends.
pub async fn stop() {
    let pid = pid();
    command("core stop now").await;
    ended(pid).await;
}

/// SIGKILL: nobody is told anything.
pub async fn kill() {
    let pid = pid();
    assert!(Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().await.unwrap().success());
    ended(pid).await;
}

/// Starts it once more; it stays for the tests that follow. Gives back when it has booted.
pub async fn start() {
    let console = std::fs::OpenOptions::new().append(true).open(root().join("var/log/asterisk/console"));
    let console = console.unwrap();
    let mut asterisk = Command::new("chroot")
        .arg(root())
        .args(["asterisk", "-f"])
        .stdin(Stdio::null())
        .stdout(console.try_clone().unwrap())
        .stderr(console)
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !command("core waitfullybooted").await {
        assert!(asterisk.try_wait().unwrap().is_none(), "Asterisk did not start");
        assert!(begin.elapsed() < PATIENCE, "Asterisk does not boot");
        sleep(LOOK).await;
    }
}

/// Changes one of its configuration files; who needs it as it was puts it back so.
pub fn configure(file: &str, change: impl FnOnce(&str) -> String) -> String {
    let path = root().join("etc/asterisk").join(file);
    let before = std::fs::read_to_string(&path).unwrap();
    let after = change(&before);
    assert_ne!(before, after, "{file} is not changed");
    std::fs::write(path, after).unwrap();
    before
}

/// Its process.
pub fn pid() -> u32 {
    std::fs::read_to_string(root().join("run/asterisk/asterisk.pid")).unwrap().trim().parse().unwrap()
}

async fn command(line: &str) -> bool {
    let mut asterisk = Command::new("chroot");
    asterisk.arg(root()).args(["asterisk", "-rx", line]);
    asterisk
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .unwrap()
        .success()
}

/// Where its files are.
pub fn root() -> PathBuf {
    std::env::var_os("CALLPOST_ASTERISK_ROOT").unwrap().into()
}

/// Waits until a process is gone, or is a zombie of a parent that looks elsewhere.
async fn ended(pid: u32) {
    let begin = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "Asterisk does not end");
        sleep(LOOK).await;
    }
}
