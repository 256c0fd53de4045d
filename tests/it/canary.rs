//! Secrets never leave: words that stand for every secret of a configuration are looked for in all
//! that the program says and keeps, while receivers repeat them in their answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use callpost::demo::Pbx;
use tempfile::TempDir;

use crate::cli::http;
use crate::receiver::{Receiver, Reply};
use crate::reload;

/// Each is also looked for percent-encoded and in base64.
const CANARIES: [&str; 10] = [
    "canary-ami-7f3a",
    "canary-token&7f3b",
    "canary-password-7f3c",
    "canary-header-7f3d",
    "canary-path-7f3e",
    "Y2FuYXJ5LXNpZ25pbmcta2V5LTdmM2YtLS0tLS0t",
    "Y2FuYXJ5LXByZXZpb3VzLWtleS03ZjQwLS0tLS0t",
    "canary-cdr-7f41",
    "canary-api-7f43",
    "canary-query-7f42",
];

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callpost"));
    // everything that any library has to say; the store's is about pages
    command.env_clear().env("CALLPOST_LOG", "trace,sled=info").env("RUST_BACKTRACE", "full");
    command.arg("--config").arg(directory.join("callpost.toml")).args(arguments);
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that was said, by where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: Vec<u8>) {
        self.0.push((place.into(), text));
    }

    fn run(&mut self, directory: &Path, arguments: &[&str]) -> String {
        let output = command(directory, arguments).output().unwrap();
        self.add(format!("{arguments:?} stdout"), output.stdout.clone());
        self.add(format!("{arguments:?} stderr"), output.stderr);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                self.files(&path);
            } else if about.is_file() && path.extension().is_none_or(|extension| extension != "toml") {
                self.add(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }

    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.0 {
            let text = String::from_utf8_lossy(text);
            for form in CANARIES.into_iter().flat_map(forms) {
                if let Some(at) = text.find(&form) {
                    let around: String = text[..at].chars().rev().take(200).collect();
                    let around: String = around.chars().rev().collect();
                    leaks.push(format!("{form} in {place}: ...{around}{form}..."));
                }
            }
        }
        leaks
    }
}

fn forms(canary: &str) -> Vec<String> {
    use base64::Engine as _;
    let encoded = canary.replace('&', "%26");
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(canary);
    let basic = base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("admin:{canary}"));
    let mut forms = vec![canary.to_owned(), encoded, base64, basic];
    forms.dedup();
    forms
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn site(directory: &Path, pbx: &Pbx, [good, bad, crm]: [&Receiver; 3]) -> String {
    let [ami, token, password, header, path, key, previous, cdr, api, query] = CANARIES;
    let repeated = |receiver: &Receiver| receiver.url(&format!("/{path}/hook?key={query}"));
    format!(
        "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\ntrunks = [\"PJSIP/trunk\"]\n\
         [ami]\naddress = \"{}\"\nsecret = \"{ami}\"\n[journal]\ndirectory = {directory:?}\n[numbers]\nmin_length = 1\n\
         [cdr]\nsource = \"mysql://reader:{cdr}@127.0.0.1:9/asteriskcdrdb\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\ntoken = \"{api}\"\n\
         [[webhook]]\nname = \"good\"\nurl = \"{}\"\nallow_http = true\nevents = [\"call.state\"]\n\
         secret = \"whsec_{key}\"\nsecret_previous = \"whsec_{previous}\"\nheaders = {{ Authorization = \"{header}\" }}\n\
         [[webhook]]\nname = \"bad\"\nurl = \"{}\"\nallow_http = true\nevents = [\"call.state\"]\nverify = false\n\
         retry_for = \"1 s\"\nheaders = {{ Authorization = \"{header}\" }}\n\
         [[nimbox]]\nname = \"crm\"\nurl = \"{}\"\nallow_http = true\ntoken = \"{token}\"\nusername = \"admin\"\npassword = \"{password}\"\n\
         [[nimbox]]\nname = \"gone\"\nurl = \"http://127.0.0.1:9/\"\nallow_http = true\ntoken = \"{token}\"\nretry_for = \"1 s\"\n",
        pbx.address(),
        repeated(good),
        repeated(bad),
        crm.url("/"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_anything_that_is_said_or_kept() {
    let home = TempDir::new().unwrap();
    let pbx = Pbx::start(CANARIES[0]).await.unwrap();
    // receivers that repeat all that they are told, as it is and encoded
    let [_, token, password, header, path, .., query] = CANARIES;
    let of_hook = format!("{header} /{path}/hook?key={query} /{path}/hook {path} key={query}; {query}");
    let basic = forms(password).pop().unwrap();
    let of_crm = format!("{token} {} {password} Basic {basic}", token.replace('&', "%26"));
    let refusal = format!("{{\"error\":true,\"errors\":{{\"x\":\"{of_crm}\"}}}}");
    let taken = format!("{{\"error\":false,\"said\":\"{of_crm}\"}}");
    let crm = Receiver::start(move |n| Reply::ok(if n % 3 == 0 { &refusal } else { &taken })).await;
    let said_by_good = of_hook.clone();
    let good = Receiver::start(move |_| Reply::ok(&said_by_good)).await;
    let bad = Receiver::start(move |_| {
        let head = format!("HTTP/1.1 422 Unprocessable\r\ncontent-length: {}\r\n\r\n", of_hook.len());
        Reply::Say((head + &of_hook).into_bytes())
    })
    .await;
    let file = home.path().join("callpost.toml");
    let config = site(home.path(), &pbx, [&good, &bad, &crm]);
    write(&file, &config);
    let log = home.path().join("agent.log");
    let output = fs::File::create(&log).unwrap();
    let child = command(home.path(), &["run"])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let agent = Running(child);
    tokio::time::timeout(Duration::from_secs(60), pbx.ready()).await.unwrap();
    reload::play(&pbx, 2).await;

    let mut said = Said::default();
    let begin = Instant::now();
    loop {
        let status: serde_json::Value =
            serde_json::from_str(&said.run(home.path(), &["status", "--json"])).unwrap();
        let routes = status["journal"]["routes"].as_array().unwrap().clone();
        let count =
            |what: &str| routes.iter().map(|route| route["counters"][what].as_u64().unwrap()).sum::<u64>();
        if count("dead") > 3 && count("delivered") > 20 && begin.elapsed() > Duration::from_secs(5) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let process = PathBuf::from(format!("/proc/{}", agent.0.id()));
    said.add("its arguments", fs::read(process.join("cmdline")).unwrap());
    said.add("its environment", fs::read(process.join("environ")).unwrap());
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.contains(" 1 ") || core.contains(" 0 "), "it may dump its memory: {core}");

    let letters = said.run(home.path(), &["dead", "list", "--json"]);
    let letter: serde_json::Value = serde_json::from_str(letters.lines().next().unwrap()).unwrap();
    let letter = letter["id"].as_str().unwrap().to_owned();
    for arguments in [
        &["status"][..],
        &["calls"],
        &["calls", "--json"],
        &["reload"],
        &["reload", "--json"],
        &["dead", "list", "--json"],
        &["dead", "show", &letter],
        &["dead", "show", &letter, "--json"],
        &["replay", "--from", "1h", "--dry-run"],
        &["backfill", "--since", "1h", "--dry-run"],
        &["journal", "status"],
        &["journal", "verify", "--json"],
        &["journal", "export"],
        &["number", "04145550100"],
        &["check", "--config-only"],
        &["capture", "/dev/null/no"],
    ] {
        said.run(home.path(), arguments);
    }
    let calls = said.run(home.path(), &["calls", "--json"]);
    for line in calls.lines().take(6) {
        let leg: serde_json::Value = serde_json::from_str(line).unwrap();
        let call = leg["call"].as_str().unwrap().to_owned();
        said.run(home.path(), &["trace", &call, "--json"]);
        said.run(home.path(), &["trace", &call]);
    }
    let address = said.run(home.path(), &["status", "--json"]);
    let address: serde_json::Value = serde_json::from_str(&address).unwrap();
    let address = address["listen"].as_str().unwrap();
    for path in ["/metrics", "/status", "/livez", "/readyz", "/calls", "/no/such/place"] {
        for token in [CANARIES[8], "another-token"] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            said.add(format!("{path} over HTTP"), http(address, &request).1.into_bytes());
        }
    }
    assert!(
        said.0.iter().any(|(_, text)| String::from_utf8_lossy(text).contains("callpost_journal_bytes")),
        "metrics were read"
    );
    // with each secret's table broken, a fault quotes no value
    for (from, to) in [
        ("retry_for = \"1 s\"", "retry_for = 1"),
        ("secret = \"", "secret = 7 # \""),
        ("token = \"", "tokn = \""),
        ("headers = { Authorization = ", "headers = { \"Bad Name\" = "),
        ("[ami]", "[ami"),
        ("whsec_", "wsec!"),
    ] {
        write(&file, &config.replace(from, to));
        for arguments in [&["check"][..], &["reload"], &["status"]] {
            said.run(home.path(), arguments);
        }
        let hangup = Command::new("kill").args(["-s", "HUP", &agent.0.id().to_string()]).status();
        assert!(hangup.unwrap().success());
    }
    // an address that refuses: the error of each sink, without what it was asked
    write(&file, &config);
    said.run(home.path(), &["check", "--json"]).lines().for_each(drop);
    let stop = Command::new("kill").args(["-s", "TERM", &agent.0.id().to_string()]).status();
    assert!(stop.unwrap().success());
    let mut agent = agent;
    assert!(agent.0.wait().unwrap().success(), "{}", fs::read_to_string(&log).unwrap());
    said.files(home.path());
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("TRACE") && logged.contains("callpost has stopped"), "a log at trace level");
    assert!(said.0.iter().any(|(place, _)| place.ends_with("db")), "the journal is among what was read");

    // `check` prints a line to paste into a shell, with the whole URL: that is what it is for
    for (place, text) in &mut said.0 {
        if place.contains("\"check\"") {
            let shown = String::from_utf8_lossy(text);
            let lines = shown.lines().filter(|line| !line.contains("curl -i"));
            *text = lines.collect::<Vec<_>>().join("\n").into_bytes();
        }
    }
    let leaks = said.leaks();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    // and the receivers did get them: the canaries sang
    assert!(crm.requests().iter().any(|request| request.line.contains("canary-token%267f3b")));
    assert!(bad.requests().iter().any(|request| request.header("authorization") == Some(CANARIES[3])));
}
