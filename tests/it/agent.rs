//! The agent as its users run it: the binary, a configuration file, signals.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use callpost::api::{AgentStatus, Client};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// A start, a login, or the end of what is pending.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(50);

/// `callpost run` in a directory of its own.
pub struct Agent {
    child: Child,
    client: Client,
    log: PathBuf,
}

impl Agent {
    /// Starts it with this configuration; journal, socket and log go into `directory`.
    pub fn start(directory: &Path, config: &str) -> Self {
        Self::launch(directory, config, &["--verbose"])
    }

    /// The same without a log of every delivery.
    pub fn start_quietly(directory: &Path, config: &str) -> Self {
        Self::launch(directory, config, &[])
    }

    fn launch(directory: &Path, config: &str, options: &[&str]) -> Self {
        let file = directory.join("callpost.toml");
        std::fs::write(&file, config).unwrap();
        // The configuration holds secrets: others may not read it.
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let log = directory.join("log");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_callpost"))
            .args(options)
            .arg("--config")
            .arg(&file)
            .arg("run")
            // The tests' own variables are no keys of the configuration.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("CALLPOST_")))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, client: Client::new(&directory.join("callpost.sock")), log }
    }

    /// Waits until the status is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        let begin = Instant::now();
        let mut last = String::new();
        while begin.elapsed() < PATIENCE {
            if let Some(ended) = self.child.try_wait().unwrap() {
                panic!("the agent ended ({ended}) before it was {what}\n{}", self.log());
            }
            match self.client.status().await {
                Ok(status) if wanted(&status) => return status,
                Ok(status) => last = serde_json::to_string_pretty(&status).unwrap(),
                Err(why) => last = why.to_string(),
            }
            sleep(LOOK).await;
        }
        panic!("the agent is not {what}\n{last}\n{}", self.log());
    }

    /// Logged in to Asterisk.
    pub async fn connected(&mut self) -> AgentStatus {
        self.until("connected", |status| status.ami.connected).await
    }

    /// Nothing waits for a receiver.
    pub async fn delivered(&mut self) -> AgentStatus {
        self.until("done", |status| status.journal.routes.iter().all(|route| route.counters.pending == 0))
            .await
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What its commands ask.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends it a signal, by name.
    pub async fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name]).arg(self.pid().to_string()).status();
        assert!(kill.await.unwrap().success());
    }

    /// SIGTERM, and the exit code 0 that must follow.
    pub async fn stop(mut self) {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let log = self.log();
        assert!(ended.unwrap().unwrap().success(), "{log}");
    }

    /// SIGKILL, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
