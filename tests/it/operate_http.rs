//! HTTP with a token: health, metrics, bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use callpost::demo::Pbx;
use callpost::receiver::{Options, Receiver};
use serde_json::Value;

use crate::cli::{Started, callpost, http, json_lines, run, site, text, until};

const TOKEN: &str = "correct-horse-battery";

/// An agent that answers HTTP, and where.
fn agent(config: &str) -> (Started, tempfile::TempDir, String) {
    let site = site(&format!(
        "[pbx]\nname = 'hq'\ntrunks = ['PJSIP/trunk']\n[journal]\ndirectory = 'journal'\n\
         [api]\nsocket = 'agent.sock'\nlisten = '127.0.0.1:0'\ntoken = '{TOKEN}'\n{config}"
    ));
    let log = fs::File::create(site.path().join("log")).unwrap();
    let agent = Started::new(callpost(site.path()).arg("run").stderr(log));
    let output =
        until(|| Some(run(site.path(), &["status", "--json"])).filter(|output| output.status.success()));
    let address = json_lines(&output.stdout)[0]["listen"].as_str().unwrap().to_owned();
    (agent, site, address)
}

fn ask(address: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n"))
}

fn json(address: &str, path: &str, token: Option<&str>) -> (u16, Value) {
    let (status, body) = ask(address, path, token);
    (status, serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {body}")))
}

#[test]
fn health_asks_for_no_token_and_all_else_does() {
    let unreachable = "[ami]\naddress = '127.0.0.1:1'\nusername = 'x'\nsecret = 's'\n";
    let (mut agent, _site, address) = agent(unreachable);
    let (status, live) = json(&address, "/livez", None);
    assert_eq!((status, &live["alive"], &live["journal"]["ok"]), (200, &true.into(), &true.into()), "{live}");

    let (status, ready) = until(|| {
        Some(json(&address, "/readyz", None)).filter(|(_, ready)| !ready["ami"]["reason"].is_null())
    });
    assert_eq!((status, &ready["ready"], &ready["journal"]["ok"]), (503, &false.into(), &true.into()));
    let short = ready["ami"]["reason"].as_str().unwrap();
    assert!(short.starts_with("not connected to Asterisk for ") && !short.contains("127.0.0.1"), "{short}");
    let whole = until(|| {
        let (_, ready) = json(&address, "/readyz", Some(TOKEN));
        Some(ready["ami"]["reason"].as_str().unwrap().to_owned()).filter(|why| why.contains("127.0.0.1:1"))
    });
    assert!(whole.starts_with("not connected to Asterisk for "), "{whole}");

    for path in
        ["/metrics", "/status", "/legs", "/tail", "/trace/1234", "/dead", "/replay", "/reload", "/nosuch"]
    {
        for token in [None, Some("wrong"), Some("")] {
            let (status, body) = ask(&address, path, token);
            assert_eq!(status, if path == "/nosuch" { 404 } else { 401 }, "{path} {token:?}: {body}");
        }
    }
    assert!(ask(&address, "/status", None).1.contains("Authorization: Bearer TOKEN"));
    let (status, body) = json(&address, "/status", Some(TOKEN));
    assert_eq!((status, &body["pbx"]), (200, &"hq".into()));
    assert!(!body.to_string().contains(TOKEN), "the token stays where it is");
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
}

/// Name and labels, and value, of each sample; panics where the text is not as the format has it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = String::new();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} stands in one place");
            assert!(rest.len() > family.len() + 5, "{line}: says what it is");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(
                kind == "histogram",
                name.ends_with("_seconds") && text.contains(&format!("{name}_bucket")),
                "{line}"
            );
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let base = name.split('{').next().unwrap();
            assert!(base.starts_with(&family), "{line} stands under {family}");
            assert!(
                samples.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                "{line} is there twice"
            );
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_calls_deliveries_journal_and_process() {
    let pbx = Pbx::start("s").await.unwrap();
    let receiver = Receiver::start(Options::default()).await.unwrap();
    let to = receiver.address();
    let (mut agent, site, address) = agent(&format!(
        "[ami]\naddress = '{}'\nusername = 'callpost'\nsecret = 's'\n\
         [[webhook]]\nname = 'desk'\nurl = 'http://{to}/hook'\nallow_http = true\nevents = ['sms.received']\n\
         [sms]\ndevices = {{ modem = '04145550100' }}\n",
        pbx.address()
    ));
    until(|| (json(&address, "/readyz", None).0 == 200).then_some(()));
    pbx.emit("Event: DongleNewSMSBase64\r\nPrivilege: call,all\r\nDevice: modem\r\nFrom: +584145550111\r\nMessage: aG9sYQ==\r\n\r\n");
    until(|| (receiver.counts().webhooks == 1).then_some(()));
    let metrics = until(|| {
        let (status, text) = ask(&address, "/metrics", Some(TOKEN));
        assert_eq!(status, 200);
        Some(samples(&text)).filter(|metrics| metrics["callpost_delivered_total{route=\"desk\"}"] >= 1.0)
    });
    for (name, value) in [
        ("callpost_ami_connected", 1.0),
        ("callpost_ami_malformed_total", 0.0),
        ("callpost_ami_reconnects_total", 0.0),
        ("callpost_calls_live", 0.0),
        ("callpost_journal_writable", 1.0),
        ("callpost_journal_quarantined_total", 0.0),
        ("callpost_journal_gap_records_total", 0.0),
        ("callpost_accepted_total{route=\"desk\"}", 1.0),
        ("callpost_delivered_total{route=\"desk\"}", 1.0),
        ("callpost_refused_total{route=\"desk\"}", 0.0),
        ("callpost_pending_records{route=\"desk\"}", 0.0),
        ("callpost_dead_records{route=\"desk\"}", 0.0),
        ("callpost_conservation_difference{route=\"desk\"}", 0.0),
        ("callpost_oldest_undelivered_seconds{route=\"desk\"}", 0.0),
        ("callpost_breaker_state{route=\"desk\"}", 0.0),
        ("callpost_lane_paused{route=\"desk\",reason=\"\"}", 0.0),
        ("callpost_delivery_attempts_total{route=\"desk\",class=\"delivered\"}", 1.0),
        ("callpost_delivery_latency_seconds_count{route=\"desk\"}", 1.0),
        ("callpost_delivery_latency_seconds_bucket{route=\"desk\",le=\"+Inf\"}", 1.0),
        ("callpost_first_request_seconds_count{route=\"desk\"}", 1.0),
    ] {
        assert_eq!(metrics.get(name), Some(&value), "{name} in {metrics:#?}");
    }
    for name in [
        "callpost_ami_events_total",
        "callpost_ami_lag_seconds_count",
        "callpost_journal_commit_seconds_count",
        "callpost_journal_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(metrics.get(name).is_some_and(|value| *value > 0.0), "{name} in {metrics:#?}");
    }
    let shown = text(&run(site.path(), &["status"]).stdout);
    assert!(shown.contains(&format!("HTTP      {address}")), "{shown}");
    assert!(shown.contains("✓ accepted 1 = delivered 1"), "{shown}");
    agent.signal("-TERM");
    assert_eq!(agent.code(), Some(0));
}

/// What rises from nothing to 1 is no increase to Prometheus: the 0 before it has to be there.
#[test]
fn a_route_has_its_series_before_its_first_delivery() {
    let (_agent, _site, address) = agent(
        "[ami]\naddress = '127.0.0.1:1'\nusername = 'x'\nsecret = 's'\n\
         [[nimbox]]\nname = 'crm'\nurl = 'http://127.0.0.1:1'\nallow_http = true\ntoken = 't'\n",
    );
    let metrics = samples(&ask(&address, "/metrics", Some(TOKEN)).1);
    for name in ["accepted_total", "delivered_total", "refused_total", "pending_records", "dead_records"] {
        assert_eq!(metrics.get(&format!("callpost_{name}{{route=\"crm\"}}")), Some(&0.0), "{metrics:#?}");
    }
    let dropped = "callpost_dropped_total{route=\"crm\",reason=\"no room: create\"}";
    for name in [
        "callpost_conservation_difference{route=\"crm\"}",
        "callpost_oldest_undelivered_seconds{route=\"crm\"}",
        dropped,
    ] {
        assert_eq!(metrics.get(name), Some(&0.0), "{name} in {metrics:#?}");
    }
}

#[test]
fn a_request_that_is_too_large_or_too_slow_ends() {
    let (_agent, _site, address) = agent("");
    let large = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(17 << 10));
    assert_eq!(http(&address, &large).0, 431);
    let body = format!(
        "POST /dead HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n{}",
        "x".repeat(200_000)
    );
    assert_eq!(http(&address, &body).0, 413);
    let mut slow = TcpStream::connect(&address).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(ask(&address, "/livez", None).0, 200);
}

#[test]
fn an_address_that_is_taken_or_a_socket_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let at = site(&format!(
        "[journal]\ndirectory = 'journal'\n[api]\nsocket = 'agent.sock'\nlisten = '{address}'\ntoken = '{TOKEN}'\n"
    ));
    let output = run(at.path(), &["run"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&format!("[api] listen = \"{address}\" cannot be opened")), "{error}");
    assert!(error.contains("choose another port") && !error.contains(TOKEN), "{error}");

    let open = site(&format!("[api]\nlisten = '0.0.0.0:0'\ntoken = '{TOKEN}'\n"));
    let shown = text(&run(open.path(), &["check", "--config-only"]).stdout);
    assert!(shown.contains("is open to other hosts") && shown.contains("proxy with TLS"), "{shown}");
    let tokenless = site("[api]\nlisten = '127.0.0.1:0'\n");
    let shown = text(&run(tokenless.path(), &["check", "--config-only"]).stdout);
    assert!(shown.contains("has no token, so anybody could read every call"), "{shown}");
}
