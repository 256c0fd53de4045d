//! The configuration as people write it, and what they are told when it is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use callpost::config::{Config, Environment, Faults, Loaded, load};
use secrecy::ExposeSecret;
use tempfile::TempDir;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory with a configuration and files for secrets.
struct Site {
    directory: TempDir,
    environment: Environment,
}

impl Site {
    fn new(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        write(&at("callpost.toml"), text, 0o640);
        write(&at("good-token"), "s3cr3t\n", 0o640);
        write(&at("open-token"), "s3cr3t\n", 0o644);
        write(&at("empty-token"), "\n", 0o600);
        write(&at("two-lines"), "s3cr3t\ns3cr3t\n", 0o600);
        write(&at("huge-token"), &"x".repeat(20_000), 0o600);
        let secrets = Some(at("secrets"));
        Self { environment: Environment { secrets, ..Environment::default() }, directory }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, text, 0o640);
        self
    }

    fn load(&self) -> Result<Loaded, Faults> {
        load(&self.directory.path().join("callpost.toml"), &self.environment)
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// The report, with the directory's name taken out.
    fn report(&self) -> String {
        let report = self.load().unwrap_err().to_string();
        assert!(!report.contains("s3cr3t") && !report.contains("hunter2"), "a secret in a report: {report}");
        report.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn fixtures(folder: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(root("fixtures/config").join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn good_configurations_load() {
    for (name, text) in fixtures("good") {
        if let Err(faults) = Site::new(&text).load() {
            panic!("{name}: {faults}");
        }
    }
}

#[test]
fn every_fault_of_a_bad_configuration_is_reported_at_once() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root("fixtures/config/bad"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, text) in fixtures("bad") {
            insta::assert_snapshot!(name, Site::new(&text).report());
        }
    });
}

#[test]
fn without_a_configuration_the_defaults_are_the_documented_ones() {
    let config = Site::new("").variable("RUNTIME_DIRECTORY", "/run/callpost").config();
    assert!(config.ami.is_none() && config.nimbox.is_empty() && config.webhooks.is_empty());
    assert_eq!(config.journal.directory, Path::new("/var/lib/callpost"));
    assert_eq!(config.journal.max_size, 1 << 30);
    assert_eq!(config.journal.keep, Duration::from_secs(30 * 86_400));
    assert_eq!(config.api.socket, Path::new("/run/callpost/callpost.sock"));
    assert_eq!(config.numbers.min_length, 7);
    let rules: Vec<_> =
        config.numbers.rules.iter().map(|rule| (rule.pattern.as_str(), rule.replace.as_str())).collect();
    assert_eq!(rules, [(r"^9(\d{7})$", "0212$1"), (r"^9(.+)$", "$1")]);
    assert!(
        config.calls.report_unreached && !config.calls.internal_caller_leg && !config.calls.conference_legs
    );
    let elsewhere = Site::new("[journal]\ndirectory = \"state\"\n").variable("STATE_DIRECTORY", "/ignored");
    let config = elsewhere.config();
    assert_eq!(config.journal.directory, elsewhere.directory.path().join("state"));
    assert_eq!(config.api.socket, elsewhere.directory.path().join("state/callpost.sock"));
}

#[test]
fn sinks_have_the_documented_defaults() {
    let config = Site::new(
        "[[nimbox]]\nname = 'crm'\nurl = 'https://n.example.com'\ntoken_file = 'good-token'\n\
         [[webhook]]\nname = 'w'\nurl = 'https://w.example.com/'\nevents = ['call.state']\n",
    )
    .config();
    let (crm, webhook) = (&config.nimbox[0], &config.webhooks[0]);
    assert_eq!((crm.delivery.concurrency, crm.delivery.timeout), (2, Duration::from_secs(30)));
    assert_eq!((webhook.delivery.concurrency, webhook.delivery.timeout), (8, Duration::from_secs(15)));
    assert_eq!(crm.delivery.retry_for, Duration::from_secs(75 * 3600));
    assert_eq!(crm.token.expose_secret(), "s3cr3t", "the trailing newline is not part of a secret");
    assert_eq!(crm.withheld_source, "anonymous");
    assert!(webhook.verify && !webhook.dtmf_mask);
}

#[test]
fn conf_d_is_laid_over_the_file_in_name_order() {
    let site = Site::new("[pbx]\nname = 'one'\ntrunks = ['PJSIP/a']\n[[queue]]\nname = 'x'\nid = 1\n")
        .file("conf.d/20.toml", "[pbx]\nname = 'three'\n[[queue]]\nname = 'z'\nid = 3\n")
        .file("conf.d/10.toml", "[pbx]\nname = 'two'\n[[queue]]\nname = 'y'\nid = 2\n")
        .file("conf.d/30.toml.disabled", "[pbx]\nname = 'four'\n");
    let config = site.config();
    assert_eq!(config.pbx.name, "three");
    assert_eq!(config.pbx.trunks[0].channel, "PJSIP/a");
    let queues: Vec<_> = config.queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(queues, ["x", "y", "z"]);
}

#[test]
fn a_fault_in_conf_d_names_that_file() {
    let site = Site::new("[[queue]]\nname = 'x'\nid = 1\n").file("conf.d/10.toml", "[pbx]\n\nnmae = 'two'\n");
    assert_eq!(site.report(), "conf.d/10.toml:3: pbx.nmae: unknown key\n    -> did you mean `name`?");
    let site = Site::new("[[queue]]\nname = 'x'\nid = 1\n")
        .file("conf.d/10.toml", "[[queue]]\nname = 'x'\nid = 2\n");
    assert!(
        site.report()
            .starts_with("conf.d/10.toml:2: queue.x.name: two queues of the name \"x\"; the other is at ")
    );
}

#[test]
fn variables_override_scalars_whatever_their_type() {
    let config = Site::new("[pbx]\nname = 'hq'\n[ami]\nsecret_file = 'good-token'\n[[webhook]]\nname = 'help-desk'\nurl = 'https://w.example.com/'\nevents = ['call.state']\n")
        .variable("CALLPOST_AMI_ADDRESS", "10.0.0.1:5039")
        .variable("CALLPOST_AMI_TLS", "true")
        .variable("CALLPOST_AMI_SECRET", "from outside")
        .variable("CALLPOST_NUMBERS_MIN_LENGTH", "3")
        .variable("CALLPOST_WEBHOOK_HELP_DESK_TIMEOUT", "3 s")
        .variable("CALLPOST_LOG", "debug")
        .config();
    let ami = config.ami.unwrap();
    assert_eq!((ami.address.as_str(), ami.tls), ("10.0.0.1:5039", true));
    assert_eq!(ami.secret.expose_secret(), "from outside");
    assert_eq!(config.numbers.min_length, 3);
    assert_eq!(config.webhooks[0].delivery.timeout, Duration::from_secs(3));
}

#[test]
fn variables_are_checked_and_unknown_ones_told() {
    let site =
        Site::new("").variable("CALLPOST_JOURNAL_KEEP", "soon").variable("CALLPOST_JOURNAL_KEPT", "1 day");
    assert_eq!(
        site.report(),
        "CALLPOST_JOURNAL_KEEP: journal.keep: \"soon\" is not a duration\n    \
         -> write a number and a unit: ms, s, min, h, days, weeks; for example \"30 s\"\n\
         CALLPOST_JOURNAL_KEPT: journal.kept: unknown key\n    -> did you mean `keep`?"
    );
    let warnings = Site::new("").variable("CALLPOST_AMMI_ADDRESS", "x").load().unwrap().warnings;
    assert_eq!(warnings[0].remedy, "did you mean CALLPOST_AMI_...?");
}

#[test]
fn secrets_are_found_among_credentials_then_in_the_secrets_directory_then_as_a_path() {
    let text = "[pbx]\nname = 'hq'\n[ami]\nsecret_file = 'good-token'\n";
    let secret = |site: &Site| site.config().ami.unwrap().secret.expose_secret().to_owned();
    let site = Site::new(text);
    assert_eq!(secret(&site), "s3cr3t");
    let site = site.file("secrets/good-token", "from the directory\r\n");
    assert_eq!(secret(&site), "from the directory");
    let site = site.file("credentials/s_good-token", "from systemd, prefixed");
    let credentials = site.directory.path().join("credentials").display().to_string();
    let site = site.variable("CREDENTIALS_DIRECTORY", &credentials);
    assert_eq!(secret(&site), "from systemd, prefixed");
    let site = site.file("credentials/good-token", "from systemd");
    assert_eq!(secret(&site), "from systemd");
}

#[test]
fn an_inline_secret_in_a_file_that_all_can_read_is_refused() {
    let site = Site::new("[pbx]\nname = 'hq'\n[ami]\nsecret = 's3cr3t'\n");
    site.load().unwrap();
    let path = site.directory.path().join("callpost.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let report = site.report();
    assert!(
        report.starts_with("callpost.toml:4: ami.secret: is a secret in a file that every user"),
        "{report}"
    );
    assert!(report.contains("chmod 0640") && report.contains("`secret_file`"), "{report}");
}

#[test]
fn secrets_do_not_show_in_debug() {
    let shown = format!(
        "{:?}",
        Site::new(&fs::read_to_string(root("fixtures/config/good/full.toml")).unwrap()).config()
    );
    for secret in ["s3cr3t", "an inline secret", "Bearer abc", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// The example with every key, its comment signs taken away.
fn uncommented() -> String {
    let text = fs::read_to_string(root("packaging/callpost.toml")).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("    {") => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Keys of a document, `webhook.url`; lists of tables as tables, free names left out.
fn keys(table: &toml::Table, under: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if under.is_empty() { key.clone() } else { format!("{under}.{key}") };
        found.insert(path.clone());
        let free = path.ends_with(".headers") || path.ends_with(".devices");
        if let Some(inner) = value.as_table().filter(|_| !free) {
            keys(inner, &path, found);
        }
        for inner in value.as_array().into_iter().flatten().filter_map(toml::Value::as_table) {
            keys(inner, &path, found);
        }
    }
}

/// `table.key` of each entry.
fn keys_of_the_man_page() -> BTreeSet<String> {
    let page = fs::read_to_string(root("packaging/man/callpost.toml.5")).unwrap();
    let mut table = String::new();
    let mut found = BTreeSet::new();
    for line in page.lines() {
        if let Some(header) = line.strip_prefix(".SH ") {
            table = header.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.strip_prefix("\\fB").and_then(|rest| rest.split_once("\\fR = ")) {
            found.insert(format!("{table}.{key}"));
        }
    }
    found
}

#[test]
fn the_shipped_example_has_every_key_and_no_other() {
    let text = uncommented();
    let mut shown = BTreeSet::new();
    keys(&text.parse().unwrap(), "", &mut shown);
    // X and X_file stand side by side there, and some keys are for later versions
    const OUT: [&str; 11] = [
        "secret_file",
        "password_file",
        "token_file",
        "secret_previous_file",
        "source ",
        "source_file",
        "listen ",
        "[nats]",
        "servers",
        "stream",
        "tenant",
    ];
    let lines = text.lines().filter(|line| !OUT.iter().any(|start| line.starts_with(start)));
    let once = lines.collect::<Vec<_>>().join("\n").replace("tls = false", "tls = true");
    let mut site = Site::new(&once.replace("/etc/callpost/", ""));
    for name in once.lines().filter_map(|line| line.split("\"/etc/callpost/").nth(1)) {
        site = site.file(name.trim_end_matches('"'), "-----BEGIN");
    }
    let known: BTreeSet<String> = site.load().unwrap().known.into_iter().collect();
    let none = Vec::<&String>::new();
    assert_eq!(shown.difference(&known).collect::<Vec<_>>(), none, "in the file, unknown to the program");
    assert_eq!(known.difference(&shown).collect::<Vec<_>>(), none, "known to the program, not in the file");
    let flat: BTreeSet<String> = known.into_iter().filter(|key| key.matches('.').count() == 1).collect();
    assert_eq!(keys_of_the_man_page(), flat, "callpost.toml(5), and what is known to the program");
}

#[test]
fn the_shipped_example_is_valid_as_it_is() {
    let site = Site::new(&fs::read_to_string(root("packaging/callpost.toml")).unwrap());
    assert!(site.config().ami.is_none());
}
