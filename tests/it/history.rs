//! The commands about history, as a person runs them: `delete`, `import-script`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use callpost::calls::{CallKey, UpdateId};
use callpost::journal::{Journal, JournalOptions, Outgoing, Payload, RouteId};
use callpost::receiver::{Options, Receiver, Request};
use parsers::Micros;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{Started, callpost, json_lines, run, site, text, until};
use crate::receiver::{Receiver as Scripted, Reply};

fn nimbox(name: &str, url: &str) -> String {
    format!("[[nimbox]]\nname = '{name}'\nurl = '{url}'\ntoken = 'hush'\nallow_http = true\n")
}

fn delete(site: &TempDir, more: &[&str]) -> Output {
    let dates = ["delete", "--from", "2012-08-23", "--to", "2012-08-26"];
    run(site.path(), &[&dates[..], more].concat())
}

/// The program in a runtime that keeps the receiver going.
async fn deleting(site: &TempDir, more: &'static [&'static str]) -> (Option<i32>, String, String) {
    let mut command = callpost(site.path());
    command.args(["delete", "--from", "2012-08-23", "--to", "2012-08-26"]).args(more);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn delete_prints_how_many_calls_are_gone() {
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let url = format!("http://{}", receiver.address());
    let site = site(&nimbox("crm", &url));
    let sink = callpost::config::load(&site.path().join("callpost.toml"), &Default::default()).unwrap();
    let sink = callpost::sinks::NimboxSink::new(&sink.config.nimbox[0]);
    for day in 22..28 {
        sink.create(&format!("2012-08-{day}T12:00:00Z"), "1", "04141234567", Some(3), None).await;
    }
    let (code, stdout, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "2 calls deleted from crm, 2012-08-24 to 2012-08-25\n");
    let (code, stdout, _) = deleting(&site, &["--yes", "--json", "--route", "crm"]).await;
    let [answer] = &json_lines(stdout.as_bytes())[..] else { panic!("one line: {stdout}") };
    assert_eq!((code, &answer["deleted"], &answer["first_day"]), (Some(0), &0.into(), &"2012-08-24".into()));
    let sent: Vec<_> = receiver.received().iter().map(|received| received.request.clone()).collect();
    let Some(Request::Delete { from, to, count: 0 }) = sent.last() else { panic!("{sent:?}") };
    assert_eq!((from.as_str(), to.as_str()), ("2012-08-23", "2012-08-26"), "as they were given");
}

#[tokio::test]
async fn a_delete_that_nimbox_refuses_shows_its_answer_and_not_the_token() {
    let refusal = r#"{"error": true, "errors": {"from": "fecha inválida, token=hush"}}"#;
    let receiver = Scripted::start(move |_| Reply::ok(refusal)).await;
    let site = site(&nimbox("crm", &receiver.url("")));
    let (code, stdout, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for part in ["from: fecha inválida", "NiMbox answered: {\"error\": true", "nothing was deleted"] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert!(!stderr.contains("hush"), "{stderr}");
    let (code, stdout, _) = deleting(&site, &["--yes", "--json"]).await;
    let [answer] = &json_lines(stdout.as_bytes())[..] else { panic!("one line: {stdout}") };
    assert_eq!((code, &answer["deleted"]), (Some(1), &Value::Null));
    assert!(answer["error"].as_str().unwrap().contains("fecha") && answer["answer"].is_string(), "{answer}");
}

#[tokio::test]
async fn an_answer_without_a_count_is_not_taken_for_success() {
    let receiver = Scripted::start(|_| Reply::ok(r#"{"error": false}"#)).await;
    let site = site(&nimbox("crm", &receiver.url("")));
    let (code, _, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("does not say how many") && stderr.contains("may have been done"), "{stderr}");
}

/// A call of a day that is deleted.
fn past() -> Outgoing {
    Outgoing {
        route: RouteId("crm".into()).history(),
        id: UpdateId("hq.00000000000001.0".into()),
        call: CallKey("call".into()),
        ordered: false,
        party: None,
        start: Some(Micros::from_secs(1_345_809_600)),
        payload: Payload::Nimbox {
            initiated: "2012-08-24T12:00:00Z".to_owned(),
            source: "1".to_owned(),
            destination: "04141234567".to_owned(),
            duration: None,
            url: None,
        },
    }
}

async fn journal(site: &TempDir) -> Journal {
    let options = JournalOptions {
        directory: site.path().join("journal"),
        max_size: 1 << 30,
        keep: Duration::from_secs(30 * 86_400),
        pbx: "hq".to_owned(),
        generation_records: 131_072,
    };
    tokio::task::spawn_blocking(move || Journal::open(options).unwrap().0).await.unwrap()
}

/// What becomes of the call where it comes again: appended, known, deleted.
async fn again(site: &TempDir, explicit: bool) -> [u64; 3] {
    let journal = journal(site).await;
    let done = journal.import(vec![past()], explicit).await.unwrap();
    journal.close().await;
    [done.appended.len() as u64, done.known, done.deleted]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_comes_back_only_when_somebody_asks_for_it() {
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let url = format!("http://{}", receiver.address());
    let places = "[pbx]\nname = 'hq'\n[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\n";
    let site = site(&format!("{places}{}", nimbox("crm", &url)));
    assert_eq!(again(&site, false).await, [1, 0, 0]);
    assert_eq!(again(&site, true).await, [0, 1, 0]);

    let (code, _, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(again(&site, false).await, [0, 0, 1]);
    assert_eq!(again(&site, true).await, [1, 0, 0]);
    assert_eq!(again(&site, true).await, [0, 1, 0], "once is enough");

    // of an agent that runs
    let mut agent = Started::new(callpost(site.path()).arg("run"));
    until(|| run(site.path(), &["status"]).status.success().then_some(()));
    let (code, _, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
    assert_eq!(again(&site, false).await, [0, 0, 1]);

    // deleted is deleted, also where nobody can be told
    let held = journal(&site).await;
    let (code, stdout, stderr) = deleting(&site, &["--yes"]).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stdout.contains("deleted from crm"), "{stdout}");
    assert!(stderr.contains("the journal could not be told") && stderr.contains("in use"), "{stderr}");
    held.close().await;
}

#[test]
fn delete_asks_for_what_it_cannot_know() {
    let (one, two) = (nimbox("crm", "http://127.0.0.1:1"), nimbox("crm2", "http://127.0.0.1:1"));
    let off = format!("{one}enabled = false\n");
    let both = format!("{one}{two}");
    let table: [(&str, &[&str], &str); 7] = [
        ("", &["--yes"], "no NiMbox sink is configured"),
        (&both, &["--yes"], "--route crm or --route crm2"),
        (&both, &["--yes", "--route", "other"], "name one of crm, crm2"),
        (&off, &["--yes"], "switched off"),
        (&one, &[], "nobody to ask"),
        (&one, &["--yes", "--to", "2012-08-24"], "cannot be used multiple times"),
        (&one, &["--yes", "--route"], "a value is required"),
    ];
    for (config, more, expected) in table {
        let output = delete(&site(config), more);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {shown}");
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }
    let site = site(&one);
    for dates in [["2012-08-23", "2012-08-24"], ["2012-08-23T10:00:00", "2012-08-25"], ["23.8.2012", "x"]] {
        let output = run(site.path(), &["delete", "--yes", "--from", dates[0], "--to", dates[1]]);
        assert_eq!(output.status.code(), Some(2), "{dates:?}");
    }
}

/// Runs a command at a terminal of its own and types into it.
fn at_terminal(site: &TempDir, command: &str, typed: &str) -> (Option<i32>, String) {
    let line = format!("{} {command}", env!("CARGO_BIN_EXE_callpost"));
    let mut script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("CALLPOST_CONFIG", site.path().join("callpost.toml"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout))
}

#[test]
fn delete_says_in_words_what_it_means_and_asks() {
    let site = site(&nimbox("crm", "http://127.0.0.1:1"));
    let command = "delete --from 2012-08-23 --to 2012-08-26";
    let (code, shown) = at_terminal(&site, command, "n\n");
    assert_eq!(code, Some(1), "{shown}");
    for part in [
        "every call from Friday 2012-08-24 to Saturday 2012-08-25, both included, 2 days",
        "2012-08-23 and 2012-08-26 themselves stay",
        "cannot be undone",
        "nothing was done",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    let (code, shown) = at_terminal(&site, command, "yes\n");
    assert_eq!(code, Some(1), "nobody listens there: {shown}");
    assert!(shown.contains("failed to delete from crm"), "{shown}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/script").join(name)
}

/// Imports into a directory of its own; the configuration and the messages.
fn import(name: &str) -> (TempDir, String, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("callpost.toml");
    let output = callpost(directory.path())
        .args(["import-script", fixture(name).to_str().unwrap(), "--output", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for entry in fs::read_dir(directory.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "its owner alone reads what is written");
    }
    let config = fs::read_to_string(file).unwrap();
    (directory, config, text(&output.stdout))
}

/// Without what differs from run to run.
fn steady(config: &str) -> String {
    let steady = |line: &str| match line.split_once(" on 2") {
        Some((before, _)) => format!("{before} on DATE. Read it"),
        None if line.starts_with("since = ") => "since = NOW".to_owned(),
        None => line.to_owned(),
    };
    config.lines().map(steady).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_script_becomes_a_configuration_that_passes_check() {
    for name in ["plain.pl", "edited.pl", "wget.pl"] {
        let (directory, config, _) = import(name);
        insta::assert_snapshot!(format!("import_{}", name.trim_end_matches(".pl")), steady(&config));
        let output = run(directory.path(), &["check", "--config-only"]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stdout));
        let secret = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        match name {
            "plain.pl" => {
                assert_eq!(secret("nimbox-token"), "0f3a-token\n");
                assert_eq!(secret("nimbox-password"), "s3cret web\n");
                assert_eq!(secret("cdr-source"), "mysql://asteriskuser:amp109$x@localhost/asterisk\n");
            }
            "edited.pl" => {
                assert_eq!(secret("nimbox-token"), "tok\"en\\n\n");
                let source = "mysql://cdrreader:p%40ss%3Aw%2Frd@10.0.0.5:3307/asteriskcdrdb\n";
                assert_eq!(secret("cdr-source"), source);
            }
            _ => assert!(!directory.path().join("nimbox-token").exists(), "it is not constant"),
        }
    }
}

#[test]
fn the_imported_rules_do_what_the_script_did() {
    let (directory, ..) = import("plain.pl");
    for (dialled, sent) in [
        ("95551234", Some("02125551234")),
        ("904141234567", Some("04141234567")),
        ("5551234", Some("5551234")),
        ("9555123", Some("555123")),
        ("955512", None),
    ] {
        let output = run(directory.path(), &["number", dialled, "--json"]);
        let [answer] = &json_lines(&output.stdout)[..] else { panic!("one line") };
        assert_eq!(answer["sent"].as_str(), sent, "{dialled}");
    }
}

#[test]
fn no_secret_of_the_script_is_printed() {
    let secrets = ["amp109$x", "0f3a-token", "s3cret web", "tok\"en", "p@ss", "p%40ss", "w3b", "an old one"];
    for name in ["plain.pl", "edited.pl", "wget.pl"] {
        let (_, config, messages) = import(name);
        let printed = run(Path::new("/"), &["import-script", fixture(name).to_str().unwrap()]);
        assert_eq!(printed.status.code(), Some(0));
        let (stdout, stderr) = (text(&printed.stdout), text(&printed.stderr));
        assert_eq!(steady(&stdout), steady(&config), "the same to stdout");
        for secret in secrets {
            assert!(
                ![&config, &messages, &stdout, &stderr].iter().any(|text| text.contains(secret)),
                "{secret}"
            );
        }
    }
}

#[test]
fn import_script_overwrites_nothing_and_leaves_nothing_half_done() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("callpost.toml");
    let import = || {
        let (script, file) = (fixture("plain.pl"), file.to_str().unwrap().to_owned());
        run(directory.path(), &["import-script", script.to_str().unwrap(), "--output", &file])
    };
    for there in ["nimbox-token", "callpost.toml"] {
        fs::write(directory.path().join(there), "mine").unwrap();
        let output = import();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("nothing is overwritten"), "{}", text(&output.stderr));
        assert_eq!(fs::read_to_string(directory.path().join(there)).unwrap(), "mine");
        fs::remove_file(directory.path().join(there)).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
    fs::write(directory.path().join("nimbox-password"), "mine").unwrap();
    assert_eq!(import().status.code(), Some(2));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing but what was there");
}

#[test]
fn what_is_no_such_script_is_said() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("x.pl");
    for (content, code) in [("print 'hello';".to_owned(), 1), ("x".repeat(600_000), 1)] {
        fs::write(&file, content).unwrap();
        let output = run(directory.path(), &["import-script", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
    assert_eq!(run(directory.path(), &["import-script", "/nonexistent"]).status.code(), Some(1));
}

#[test]
fn a_sink_s_own_number_rules_are_shown_beside_the_global_ones() {
    let own = "numbers = { min_length = 3, rules = [{ match = '^0', replace = '+58' }] }\n";
    let site =
        site(&format!("{}{own}{}", nimbox("crm", "http://127.0.0.1:1"), nimbox("b", "http://127.0.0.1:1")));
    let ask = |more: &[&str]| json_lines(&run(site.path(), &[&["number", "--json"], more].concat()).stdout);
    let sent = |more: &[&str]| {
        let of = |answer: &Value| {
            (answer["route"].as_str().map(str::to_owned), answer["sent"].as_str().map(str::to_owned))
        };
        ask(more).iter().map(of).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(sent(&["92853348"]), [(None, some("02122853348")), (some("crm"), some("92853348"))]);
    assert_eq!(sent(&["0414", "--route", "crm"]), [(some("crm"), some("+58414"))]);
    assert_eq!(sent(&["0414", "--route", "b"]), [(some("b"), None)], "four are too few by the global rules");
    assert_eq!(ask(&["0414", "--route", "b"])[0]["left_out"], "destination shorter than min_length");
}
