//! `callpost setup` on hosts that are directories: what it finds, what it shows, what it writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use tempfile::TempDir;

use crate::cli::{callpost, text};
use crate::history_stores::{mariadb, mysql, pg, postgres};

/// Bytes, inode, owner, mode.
type About = (Vec<u8>, u64, u32, u32);

/// A root directory with the files of a PBX, as far as setup looks at them.
struct Host {
    root: TempDir,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let host = Self { root: TempDir::new().unwrap() };
        host.write("etc/group", "root:x:0:\nasterisk:x:995:\ncallpost:x:990:\n");
        host.write("etc/hostname", "Central-Caracas.example.com\n");
        for (path, text) in files {
            host.write(path, text);
        }
        host
    }

    /// Debian's asterisk-config.
    fn debian() -> Self {
        Self::new(&[
            (
                "etc/asterisk/asterisk.conf",
                "[directories](!)\nastetcdir => /etc/asterisk\nastlogdir => /var/log/asterisk\n",
            ),
            (
                "etc/asterisk/manager.conf",
                "[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n\n#include \"manager.d/*.conf\" \n",
            ),
            ("etc/asterisk/manager.d/README.conf", "; Empty placeholder.\n"),
            (
                "etc/asterisk/cdr_manager.conf",
                ";\n; Asterisk Call Management CDR\n;\n[general]\nenabled = no\n\n;[mappings]\n;rate => Rate\n",
            ),
            (
                "etc/asterisk/pjsip.conf",
                "[phone](!)\ntype = endpoint\ncontext = from-internal\n[1001](phone)\nauth = 1001\n[carrier]\ntype = endpoint\ncontext = inbound\noutbound_auth = carrier\n[carrier]\ntype = auth\npassword = hunter2\n",
            ),
            ("var/log/asterisk/cdr-csv/Master.csv", ""),
        ])
    }

    fn freepbx() -> Self {
        Self::new(&[
            (
                "etc/freepbx.conf",
                "<?php\n$amp_conf['AMPDBUSER'] = 'freepbxuser';\n$amp_conf['AMPDBPASS'] = 'hunter2';\n$amp_conf['AMPDBHOST'] = 'localhost';\n",
            ),
            (
                "etc/asterisk/manager.conf",
                "[general]\nenabled = yes\nport = 5038\nbindaddr = 0.0.0.0\ndisplayconnects=no\n\n[admin]\nsecret = hunter2\nread = system,call\nwritetimeout = 5000\n\n#include manager_additional.conf\n#include manager_custom.conf\n",
            ),
            ("etc/asterisk/manager_additional.conf", ""),
            ("etc/asterisk/manager_custom.conf", "; ours\n[crm]\nsecret = hunter2\nread = call\n"),
            ("etc/asterisk/pjsip.conf", "#include pjsip.endpoint.conf\n"),
            (
                "etc/asterisk/pjsip.endpoint.conf",
                "[1001]\ntype=endpoint\ncontext=from-internal\n\n[movistar]\ntype=endpoint\ncontext=from-pstn\n",
            ),
        ])
    }

    fn issabel() -> Self {
        Self::new(&[
            ("etc/issabel.conf", "mysqlrootpwd=hunter2\namiadminpwd=hunter2\n"),
            ("etc/amportal.conf", "AMPDBHOST=localhost\nAMPDBUSER=asteriskuser\nAMPDBPASS=hunter2\n"),
            (
                "etc/asterisk/manager.conf",
                "[general]\nenabled = yes\nbindaddr = 0.0.0.0\nport = 5038\n#include manager_general_additional.conf\n\n[admin]\nsecret = hunter2\n\n#include manager_additional.conf\n#include manager_custom.conf\n",
            ),
            ("etc/asterisk/manager_general_additional.conf", "webenabled=no\n"),
            ("etc/asterisk/manager_additional.conf", ""),
            ("etc/asterisk/manager_custom.conf", ""),
            (
                "etc/asterisk/cdr_manager.conf",
                "[general]\n#include cdr_manager_general_custom.conf\n[mappings]\n#include cdr_manager_mapping_custom.conf\n",
            ),
            ("etc/asterisk/cdr_manager_general_custom.conf", ""),
            ("etc/asterisk/cdr_manager_mapping_custom.conf", "linkedid => LinkedID\n"),
            ("etc/asterisk/sip.conf", "[general]\n#include sip_additional.conf\n"),
            (
                "etc/asterisk/sip_additional.conf",
                "[cantv]\ntype=peer\ncontext=from-trunk-sip-cantv\n[1001]\ntype=friend\ncontext=from-internal\n",
            ),
        ])
    }

    fn vitalpbx() -> Self {
        Self::new(&[
            (
                "etc/asterisk/manager.conf",
                "[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n#include vitalpbx/manager__*.conf\n",
            ),
            ("etc/asterisk/vitalpbx/manager__50-ombutel-user.conf", "[ombutel]\nsecret = hunter2\n"),
            (
                "etc/asterisk/cdr_adaptive_odbc.conf",
                "[asteriskcdr]\nconnection = asterisk\ntable = cdr\nalias start => calldate\n",
            ),
            (
                "etc/asterisk/res_odbc.conf",
                "[asterisk]\nenabled => yes\ndsn => asterisk-connector\nusername => asterisk\npassword => hunter2\n",
            ),
            (
                "etc/odbc.ini",
                "[asterisk-connector]\nDescription = MariaDB\nDriver = MariaDB\nServer = localhost\nDatabase = asterisk\nPort = 3306\n",
            ),
        ])
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn command(&self, arguments: &[&str], language: &str) -> Output {
        let mut command = callpost(self.root.path());
        command.env_remove("CALLPOST_CONFIG").env("LANG", language).env("PATH", "/usr/bin:/bin");
        command.arg("setup").arg("--root").arg(self.root.path()).arg("--no-check").args(arguments);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn setup(&self, arguments: &[&str]) -> Output {
        self.command(arguments, "C.UTF-8")
    }

    /// Everything that can be given, with consent.
    fn full(&self) -> Output {
        self.write("tmp/token", "t0k3n\n");
        let token = self.path("tmp/token");
        self.setup(&[
            "--yes",
            "--nimbox-url",
            "https://nimbox.example.com",
            "--nimbox-token-file",
            token.to_str().unwrap(),
            "--destination",
            "caller",
            "--webhook-url",
            "https://hooks.example.com/pbx",
            "--enable-cdr",
            "--cdr-store",
            "auto",
        ])
    }

    /// Every file with its bytes, inode, owner and mode.
    fn files(&self) -> BTreeMap<PathBuf, About> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.root.path().to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let about = path.symlink_metadata().unwrap();
                if about.is_dir() {
                    directories.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    found.insert(path, (bytes, about.ino(), about.uid(), about.mode()));
                }
            }
        }
        found
    }
}

fn every() -> [(&'static str, Host); 4] {
    [
        ("debian", Host::debian()),
        ("freepbx", Host::freepbx()),
        ("issabel", Host::issabel()),
        ("vitalpbx", Host::vitalpbx()),
    ]
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn every_platform_has_its_plan() {
    for (name, host) in every() {
        let output = host.setup(&[
            "--dry-run",
            "--enable-cdr",
            "--cdr-store",
            "auto",
            "--webhook-url",
            "https://hooks.example.com/pbx",
        ]);
        let mut shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name}: {shown}{}", text(&output.stderr));
        // the only number that differs from machine to machine
        shown = shown
            .lines()
            .map(|l| if l.contains("SupplementaryGroups=") { "  + SupplementaryGroups=GROUP" } else { l })
            .collect::<Vec<_>>()
            .join("\n");
        insta::assert_snapshot!(format!("setup_{name}"), shown);
        assert!(!shown.contains("hunter2"), "{name} shows a secret:\n{shown}");
        assert!(!host.path("etc/callpost").exists(), "{name}: a dry run wrote");
    }
}

#[test]
fn spanish_hosts_read_spanish() {
    let shown = text(&Host::freepbx().command(&["--dry-run"], "es_VE.UTF-8").stdout);
    assert!(
        shown.contains("AMI escucha en todas las direcciones") && shown.contains("no se escribió nada"),
        "{shown}"
    );
}

#[test]
fn without_a_terminal_nothing_is_written_unless_yes_is_said() {
    for (name, host) in every() {
        let before = host.files();
        let output = host.setup(&["--webhook-url", "https://hooks.example.com/pbx"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("add --yes; nothing was done"), "{name}: {said}");
        assert_eq!(host.files(), before, "{name}");
    }
}

#[test]
fn what_is_written_is_valid_and_a_second_run_changes_nothing() {
    for (name, host) in every() {
        let output = host.full();
        assert_eq!(output.status.code(), Some(0), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        let config = host.read("etc/callpost/conf.d/50-setup.toml");
        let said: toml::Table = config.parse().unwrap();
        assert_eq!(said["nimbox"][0]["inbound_destination"].as_str(), Some("caller"), "{config}");
        assert_eq!(said["ami"]["address"].as_str(), Some("127.0.0.1:5038"), "{config}");
        let check = callpost(host.root.path())
            .arg("--config")
            .arg(host.path("etc/callpost/callpost.toml"))
            .args(["check", "--config-only"])
            .env("CREDENTIALS_DIRECTORY", host.path("etc/callpost/secrets"))
            .output()
            .unwrap();
        assert_eq!(check.status.code(), Some(0), "{name}: {}", text(&check.stdout));
        let before = host.files();
        for arguments in [
            &["--yes"][..],
            &["--yes", "--enable-cdr", "--cdr-store", "auto"],
            &["--yes", "--destination", "caller"],
        ] {
            let again = host.setup(arguments);
            let said = text(&again.stdout);
            assert_eq!(again.status.code(), Some(0), "{name}: {said}");
            assert!(said.contains("nothing to change") && !said.contains("next"), "{name}: {said}");
        }
        assert_eq!(host.files(), before, "{name}");
    }
}

#[test]
fn the_account_goes_where_each_platform_leaves_room_and_may_little() {
    let places = [
        ("debian", "etc/asterisk/manager.d/callpost.conf"),
        ("freepbx", "etc/asterisk/manager_custom.conf"),
        ("issabel", "etc/asterisk/manager_custom.conf"),
        ("vitalpbx", "etc/asterisk/vitalpbx/manager__60-callpost.conf"),
    ];
    for ((name, host), (_, path)) in every().into_iter().zip(places) {
        host.full();
        let account = host.read(path);
        let secret = host.read("etc/callpost/secrets/ami-secret");
        assert_eq!(secret.trim().len(), 64, "{name}");
        assert!(account.contains(&format!("[callpost]\nsecret = {}\ndeny = 0.0.0.0/0.0.0.0\npermit = 127.0.0.1/255.255.255.255\nread = call,agent,dtmf,cdr,user,system\nwrite = call,reporting\nwritetimeout = 10000\n", secret.trim())), "{name}: {account}");
        assert!(account.contains("eventfilter = !Event: DTMFBegin\n"), "{name}: {account}");
        if path.ends_with("callpost.conf") {
            // by this line the package knows what it may remove
            assert!(account.lines().next().unwrap().contains("written by callpost setup"), "{account}");
        }
    }
}

#[test]
fn other_bytes_owner_mode_and_inode_stay_and_a_backup_is_kept() {
    let host = Host::freepbx();
    let custom = host.path("etc/asterisk/manager_custom.conf");
    // Latin-1, as old files are
    fs::write(&custom, b"; se\xf1al\r\n[crm]\r\nsecret = hunter2\r\n").unwrap();
    fs::set_permissions(&custom, fs::Permissions::from_mode(0o664)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&custom, Some(995), Some(995)).unwrap();
    }
    let before = fs::metadata(&custom).unwrap();
    assert_eq!(host.full().status.code(), Some(0));
    let after = fs::metadata(&custom).unwrap();
    let of = |about: &fs::Metadata| (about.ino(), about.uid(), about.gid(), about.mode());
    assert_eq!(of(&after), of(&before));
    let bytes = fs::read(&custom).unwrap();
    assert!(bytes.starts_with(b"; se\xf1al\r\n[crm]\r\nsecret = hunter2\r\n"), "{bytes:?}");
    let backups: Vec<_> = fs::read_dir(host.path("etc/asterisk"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "bak"))
        .collect();
    let of_custom = backups
        .iter()
        .find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("manager_custom.conf.callpost-20"));
    let backup = of_custom.unwrap();
    assert_eq!(fs::read(backup).unwrap(), b"; se\xf1al\r\n[crm]\r\nsecret = hunter2\r\n");
    assert_eq!(fs::metadata(backup).unwrap().mode(), before.mode());
    let secret = fs::metadata(host.path("etc/callpost/secrets/ami-secret")).unwrap();
    assert_eq!(secret.mode() & 0o7777, 0o640);
    if is_root() {
        assert_eq!((secret.uid(), secret.gid()), (0, 990));
    }
}

#[test]
fn a_source_install_gets_an_include_and_ami_on_loopback_alone() {
    let host = Host::new(&[(
        "etc/asterisk/manager.conf",
        "[general]\nenabled = no\nport = 5038\nbindaddr = 0.0.0.0\n",
    )]);
    assert_eq!(host.full_without_store().status.code(), Some(0));
    let main = host.read("etc/asterisk/manager.conf");
    assert_eq!(
        main,
        "[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n\n#tryinclude \"manager_callpost.conf\"\n"
    );
    assert!(host.read("etc/asterisk/manager_callpost.conf").contains("[callpost]"));
    assert!(text(&host.setup(&["--yes"]).stdout).contains("nothing to change"));
}

impl Host {
    fn full_without_store(&self) -> Output {
        self.setup(&["--yes", "--webhook-url", "https://hooks.example.com/pbx"])
    }
}

#[test]
fn cdr_events_are_turned_on_where_the_platform_leaves_room() {
    let host = Host::debian();
    host.full();
    let main = host.read("etc/asterisk/cdr_manager.conf");
    assert!(main.starts_with(";\n; Asterisk Call Management CDR\n;\n[general]\nenabled = yes\n\n;[mappings]\n;rate => Rate\n\n[mappings]\nlinkedid => LinkedID\n"), "{main}");
    assert!(main.contains("start,u => StartEpoch\n"), "{main}");
    let host = Host::issabel();
    host.full();
    assert_eq!(host.read("etc/asterisk/cdr_manager_general_custom.conf"), "enabled = yes\n");
    let mapped = host.read("etc/asterisk/cdr_manager_mapping_custom.conf");
    assert_eq!(mapped.matches("LinkedID").count(), 1, "{mapped}");
    assert!(mapped.contains("end,u => EndEpoch\n"), "{mapped}");
}

#[test]
fn a_store_gets_an_account_of_its_own_that_may_only_read() {
    let host = Host::vitalpbx();
    let output = host.full();
    let shown = text(&output.stdout);
    assert!(shown.contains("next  systemctl restart callpost"), "{shown}");
    let source = host.read("etc/callpost/secrets/cdr-source");
    let password = &password(&host);
    assert_eq!(source.trim(), format!("mysql://callpost:{password}@localhost/asterisk"));
    assert_eq!(password.len(), 32);
    let grant = host.read("etc/callpost/secrets/cdr-grant.sql");
    assert!(
        grant.contains(&format!("IDENTIFIED BY '{password}'"))
            && grant.contains("GRANT SELECT ON asterisk.cdr TO"),
        "{grant}"
    );
    assert_eq!(fs::metadata(host.path("etc/callpost/secrets/cdr-grant.sql")).unwrap().mode() & 0o7777, 0o600);
    assert!(
        shown.contains("GRANT SELECT ON asterisk.cdr TO 'callpost'@'localhost'") && !shown.contains(password),
        "{shown}"
    );
}

/// The password that `setup` chose.
fn password(host: &Host) -> String {
    let source = host.read("etc/callpost/secrets/cdr-source");
    source.split(':').nth(2).unwrap().split('@').next().unwrap().to_owned()
}

/// An earlier installation left its account: the statements give it the new password.
#[tokio::test]
async fn the_account_of_the_store_is_made_and_made_again() {
    if let Some(server) = mariadb() {
        let mut admin = mysql(&server, "").await;
        let begin = "CREATE DATABASE asterisk; CREATE TABLE asterisk.cdr (a INT)";
        sqlx::raw_sql(begin).execute(&mut admin).await.unwrap();
        for _ in 0..2 {
            let host = Host::vitalpbx();
            host.full();
            let grant = host.read("etc/callpost/secrets/cdr-grant.sql");
            sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut admin).await.unwrap();
            let (password, socket) = (password(&host), server.socket.display());
            let url = format!("mysql://callpost:{password}@localhost/asterisk?socket={socket}");
            let mut reader = MySqlConnection::connect(&url).await.unwrap();
            sqlx::raw_sql("SELECT * FROM cdr").execute(&mut reader).await.unwrap();
            sqlx::raw_sql("INSERT INTO cdr VALUES (1)").execute(&mut reader).await.unwrap_err();
        }
    }
    if let Some(server) = postgres() {
        let mut admin = pg(&server).await;
        sqlx::raw_sql("CREATE TABLE cdr (a INT)").execute(&mut admin).await.unwrap();
        for _ in 0..2 {
            let host = Host::debian();
            host.write("etc/asterisk/cdr_pgsql.conf", "[global]\nhostname=localhost\ndbname=postgres\n");
            let shown = text(&host.full().stdout);
            assert!(shown.contains("psql -v ON_ERROR_STOP=1 postgres <"), "{shown}");
            let grant = host.read("etc/callpost/secrets/cdr-grant.sql");
            sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut admin).await.unwrap();
            let (password, socket) = (password(&host), server.socket.display());
            let url = format!("postgres://callpost:{password}@localhost/postgres?host={socket}");
            let mut reader = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql("SELECT * FROM cdr").execute(&mut reader).await.unwrap();
            sqlx::raw_sql("INSERT INTO cdr VALUES (1)").execute(&mut reader).await.unwrap_err();
        }
    }
}

#[test]
fn an_account_made_by_hand_stays_and_its_secret_is_taken_over() {
    let host = Host::debian();
    host.write(
        "etc/asterisk/manager.d/me.conf",
        "[callpost]\nsecret = by-hand\nread = call,agent\nwrite = call,reporting\n",
    );
    let shown = text(&host.full().stdout);
    assert!(
        shown.contains("manager.d/me.conf:1 has an account [callpost] that setup did not write"),
        "{shown}"
    );
    assert!(
        shown.contains("it lacks: read = ...,dtmf,cdr,user,system; writetimeout = 10000; deny"),
        "{shown}"
    );
    assert_eq!(host.read("etc/callpost/secrets/ami-secret"), "by-hand\n");
    assert!(!host.path("etc/asterisk/manager.d/callpost.conf").exists());
}

#[test]
fn what_is_configured_elsewhere_stays() {
    let host = Host::debian();
    host.write(
        "etc/callpost/conf.d/10-site.toml",
        "[pbx]\nname = 'hq'\n[ami]\nusername = 'me'\nsecret_file = '/x'\n",
    );
    let shown = text(&host.setup(&["--yes", "--webhook-url", "https://hooks.example.com/pbx"]).stdout);
    assert!(shown.contains("10-site.toml has [ami]: it stays"), "{shown}");
    let own = host.read("etc/callpost/conf.d/50-setup.toml");
    assert!(own.contains("[[webhook]]") && !own.contains("[ami]") && !own.contains("[pbx]"), "{own}");
    assert!(!host.path("etc/asterisk/manager.d/callpost.conf").exists());
    let twice = host.setup(&["--yes", "--name", "x", "--nimbox-url", "https://n.example.com"]);
    assert_eq!(twice.status.code(), Some(2), "a NiMbox without its token");
}

#[test]
fn keys_that_others_wrote_into_its_file_are_not_lost() {
    let host = Host::debian();
    host.full();
    let own = host.read("etc/callpost/conf.d/50-setup.toml") + "concurrency = 3\n";
    host.write("etc/callpost/conf.d/50-setup.toml", &own);
    let output = host.setup(&["--yes"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("50-setup.toml") && said.contains("concurrency") && said.contains("60-site.toml"),
        "{said}"
    );
    assert_eq!(host.read("etc/callpost/conf.d/50-setup.toml"), own);
}

#[test]
fn broken_files_are_named_with_their_line_and_nothing_is_written() {
    let cases: [(&str, &str, &str); 4] = [
        (
            "etc/asterisk/manager.conf",
            "[general]\nenabled = yes\n[callpost\n",
            "manager.conf:3: no closing ']'",
        ),
        (
            "etc/asterisk/manager.conf",
            "enabled = yes\n",
            "manager.conf:1: a value stands before the first [section]",
        ),
        ("etc/asterisk/manager.conf", "[general]\n#include manager.conf\n", "in a circle"),
        ("etc/callpost/conf.d/10.toml", "[pbx\n", "10.toml"),
    ];
    for (path, broken, said) in cases {
        let host = Host::debian();
        host.write(path, broken);
        let before = host.files();
        let output = host.full_without_store();
        let error = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{path}: {error}");
        assert!(error.contains(said), "{path}: {error}");
        assert_eq!(host.files(), before, "{path}");
    }
    let none = Host::new(&[]).setup(&["--yes"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there is no Asterisk here"));
}

#[test]
fn a_symbolic_link_is_not_written_through() {
    let host = Host::freepbx();
    host.write("etc/shadow", "root:*:\n");
    fs::remove_file(host.path("etc/asterisk/manager_custom.conf")).unwrap();
    symlink(host.path("etc/shadow"), host.path("etc/asterisk/manager_custom.conf")).unwrap();
    let output = host.full_without_store();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("it is a symbolic link"), "{said}");
    assert_eq!(host.read("etc/shadow"), "root:*:\n");
}

#[test]
fn programs_read_the_plan_as_json() {
    let host = Host::freepbx();
    let output = host.setup(&["--dry-run", "--json"]);
    let plan: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(plan["platform"], "FreePBX");
    assert_eq!(plan["because"][0], "/etc/freepbx.conf");
    let files: Vec<_> =
        plan["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert!(files.contains(&"/etc/asterisk/manager_custom.conf"), "{files:?}");
    assert!(!plan.to_string().contains("hunter2"));
}

#[test]
fn a_faulty_wish_is_refused_before_anything_is_written() {
    let host = Host::debian();
    let before = host.files();
    for (arguments, said) in [
        (&["--yes", "--name", "No Good"][..], "pbx.name"),
        (&["--yes", "--webhook-url", "http://hooks.example.com/"][..], "webhook"),
        (&["--yes", "--destination", "did"][..], "there is no NiMbox"),
        (&["--yes", "--nimbox-url", "https://n.example.com"][..], "NiMbox needs its token"),
    ] {
        let output = host.setup(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert_eq!(host.files(), before, "{arguments:?}");
    }
    host.write("etc/callpost/conf.d/40-script.toml", "[[nimbox]]\nname = 'crm'\n");
    let output = host.setup(&["--yes", "--destination", "caller"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("40-script.toml has [[nimbox]]") && error.contains("inbound_destination"),
        "{error}"
    );
}
