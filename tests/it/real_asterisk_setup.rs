//! `callpost setup` on the host of a real Asterisk: what it writes, Asterisk takes.

use std::path::Path;

use callpost::calls::CdrSource;
use callpost::receiver::Receiver;
use tokio::process::Command;

use crate::agent::Agent;
use crate::asterisk::{configure, root};
use crate::cli::text;
use crate::lab::{ends, pause};
use crate::real_asterisk::beside_asterisk_in_share;
use crate::site::Site;

async fn console(line: &str) {
    let mut asterisk = Command::new("chroot");
    assert!(asterisk.arg(root()).args(["asterisk", "-rx", line]).output().await.unwrap().status.success());
}

async fn setup(home: &Path, receiver: &Receiver) -> std::process::Output {
    std::fs::write(home.join("token"), "t0k3n\n").unwrap();
    let at = receiver.address();
    let mut setup = Command::new(env!("CARGO_BIN_EXE_callpost"));
    setup.arg("--config").arg(home.join("callpost.toml")).args([
        "setup",
        "--yes",
        "--enable-cdr",
        "--name",
        "hq",
    ]);
    setup.arg("--root").arg(root()).arg("--nimbox-token-file").arg(home.join("token"));
    setup.args(["--trunk", "PJSIP/trunk", "--nimbox-url", &format!("http://{at}")]);
    setup.args(["--webhook-url", &format!("http://{at}/hook")]);
    setup.env("LANG", "C.UTF-8").env_remove("LC_ALL").output().await.unwrap()
}

#[test]
fn after_setup_callpost_logs_in_and_gets_cdr_events() {
    beside_asterisk_in_share("1", async || {
        let account = root().join("etc/asterisk/manager.d/callpost.conf");
        let by_hand = std::fs::read(&account).unwrap();
        std::fs::remove_file(&account).unwrap();
        // as Debian's package: Asterisk refuses an #include whose pattern matches nothing
        std::fs::write(account.with_file_name("README.conf"), "; Empty placeholder.\n").unwrap();
        let mappings = configure("cdr_manager.conf", |_| "[general]\nenabled = no\n".to_owned());
        console("manager reload").await;
        console("module reload cdr_manager.so").await;

        let site = Site::open().await;
        let output = setup(site.home.path(), &site.receiver).await;
        let shown = text(&output.stdout);
        assert!(shown.contains("Asterisk knows the account callpost"), "{shown}{}", text(&output.stderr));
        assert!(!shown.contains("FAIL"), "{shown}");
        assert_eq!(output.status.code(), Some(0), "{shown}");

        // the same settings, in a file beside the journal and the socket of a test's agent
        let home = site.home.path().display();
        let own = std::fs::read_to_string(site.home.path().join("conf.d/50-setup.toml")).unwrap();
        std::fs::remove_file(site.home.path().join("conf.d/50-setup.toml")).unwrap();
        let places =
            format!("[journal]\ndirectory = \"{home}/journal\"\n[api]\nsocket = \"{home}/callpost.sock\"\n");
        let mut agent = Agent::start(site.home.path(), &(own + &places));
        agent.connected().await;
        let (outside, ana) = site.talks("04141234567").await;
        pause(1.2).await;
        ends(&outside, &ana).await;
        site.one_create("04141234567").await;
        let status = agent.delivered().await;
        assert_eq!(status.ingest.cdr_source, Some(CdrSource::Events));
        agent.stop().await;
        site.lab.settle().await;

        std::fs::write(&account, by_hand).unwrap();
        configure("cdr_manager.conf", |_| mappings);
        console("manager reload").await;
        console("module reload cdr_manager.so").await;
    });
}
