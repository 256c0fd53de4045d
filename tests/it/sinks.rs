//! The sinks against receivers on the loopback: what goes out byte for byte, and what every answer,
//! however hostile, is taken for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callpost::calls::{CallKey, UpdateId};
use callpost::config::{Config, Environment, load_text};
use callpost::journal::{Delivery, DeliveryKey, Payload, RouteId};
use callpost::routes::Routes;
use callpost::sinks::{Class, Outcome, Sink};
use parsers::Micros;

use crate::receiver::{Receiver, Reply, tls};

/// Short enough not to be waited for, long enough for a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(2);

fn config(sinks: &str) -> Config {
    let text = format!("[pbx]\nname = \"hq\"\ntimezone = \"America/Caracas\"\n{sinks}");
    let mut config = load_text(&text, "test", &Environment::default()).unwrap().config;
    for delivery in config
        .nimbox
        .iter_mut()
        .map(|nimbox| &mut nimbox.delivery)
        .chain(config.webhooks.iter_mut().map(|webhook| &mut webhook.delivery))
    {
        delivery.timeout = TIMEOUT;
    }
    config
}

fn sink(config: &Config) -> Sink {
    Routes::new(config).routes[0].sink()
}

fn nimbox(url: &str, more: &str) -> Sink {
    sink(&config(&format!(
        "[[nimbox]]\nname = \"crm\"\nurl = \"{url}\"\ntoken = \"t0k&n ñ\"\nallow_http = true\n{more}"
    )))
}

fn webhook(url: &str, more: &str) -> Sink {
    sink(&config(&format!(
        "[[webhook]]\nname = \"desk\"\nurl = \"{url}\"\nevents = [\"call.state\"]\nallow_http = true\n{more}"
    )))
}

fn delivery(payload: Payload) -> Delivery {
    Delivery {
        key: DeliveryKey { generation: 1, sequence: 2 },
        route: RouteId("route".into()),
        id: UpdateId("hq.0123456789abcd.4".into()),
        call: CallKey("fe5935cefbc82fc4e924bdaa21342a49c18c5dd9".into()),
        sequence: 77,
        attempts: 0,
        last: None,
        accepted: Micros(0),
        payload,
    }
}

fn create() -> Delivery {
    delivery(Payload::Nimbox {
        initiated: "2026-11-21T09:19:27Z".to_owned(),
        source: "+58 414".to_owned(),
        destination: "ñ&=1".to_owned(),
        duration: Some(42),
        url: Some("https://pbx/rec?a=b&c=PJSIP/1001".to_owned()),
    })
}

fn body() -> Delivery {
    delivery(Payload::Webhook { event: "call.hangup".to_owned(), body: r#"{"id":"ñ"}"#.to_owned() })
}

const TAKEN: &str = r#"{"error": false, "contactId": 12334, "phonecallId": 3241}"#;

#[tokio::test]
async fn a_create_is_the_api_s_query_each_value_encoded() {
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let sink = nimbox(&receiver.url("/"), "");
    let outcome = sink.send(&create()).await;
    assert_eq!((outcome.class, outcome.status), (Class::Delivered, Some(200)));
    assert_eq!(outcome.answer, TAKEN);
    let request = receiver.request(0);
    assert_eq!(
        request.line,
        "GET /direct/items/phonecalls/create?token=t0k%26n%20%C3%B1&initiated=2026-11-21T09%3A19%3A27Z\
         &source=%2B58%20414&destination=%C3%B1%26%3D1&duration=42\
         &url=https%3A%2F%2Fpbx%2Frec%3Fa%3Db%26c%3DPJSIP%2F1001 HTTP/1.1"
    );
    assert_eq!(request.header("user-agent"), Some(concat!("callpost/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.body, "");
}

#[tokio::test]
async fn what_a_create_has_not_is_left_out() {
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let sink = nimbox(&receiver.url("/crm"), "");
    let bare = Payload::Nimbox {
        initiated: "i".to_owned(),
        source: "anonymous".to_owned(),
        destination: "04145550100".to_owned(),
        duration: None,
        url: None,
    };
    assert_eq!(sink.send(&delivery(bare)).await.class, Class::Delivered);
    assert_eq!(
        receiver.request(0).line,
        "GET /crm/direct/items/phonecalls/create?token=t0k%26n%20%C3%B1&initiated=i&source=anonymous\
         &destination=04145550100 HTTP/1.1"
    );
}

#[tokio::test]
async fn credentials_cookie_and_connection_are_kept() {
    let receiver = Receiver::start(|n| match n {
        0 => Reply::ok(TAKEN).header("set-cookie: NBSESSION=abc; Path=/; HttpOnly"),
        _ => Reply::ok(TAKEN),
    })
    .await;
    let sink = nimbox(&receiver.url("/"), "username = \"admin\"\npassword = \"s3cret\"");
    for _ in 0..5 {
        assert_eq!(sink.send(&create()).await.class, Class::Delivered);
    }
    let requests = receiver.requests();
    assert_eq!(receiver.connections(), 1, "one kept connection");
    assert_eq!(requests.len(), 5);
    for (n, request) in requests.iter().enumerate() {
        // admin:s3cret
        assert_eq!(request.header("authorization"), Some("Basic YWRtaW46czNjcmV0"));
        assert_eq!(request.header("cookie"), (n > 0).then_some("NBSESSION=abc"));
    }
}

#[tokio::test]
async fn a_delete_counts() {
    let receiver = Receiver::start(|n| match n {
        0 => Reply::ok(r#"{"count": 702, "error": false}"#),
        _ => Reply::ok(r#"{"error": true, "errors": {}}"#),
    })
    .await;
    let Sink::Nimbox(sink) = nimbox(&receiver.url("/"), "") else { panic!("not NiMbox") };
    assert_eq!(sink.delete("2012-08-23", "2012-08-25").await, callpost::sinks::Deleted::Count(702));
    assert_eq!(
        receiver.request(0).line,
        "GET /direct/items/phonecalls/delete?token=t0k%26n%20%C3%B1&from=2012-08-23&to=2012-08-25 HTTP/1.1"
    );
    let again = sink.delete("2012-08-23", "2012-08-25").await;
    assert!(matches!(again, callpost::sinks::Deleted::Failed(outcome) if outcome.class == Class::Refused));
}

#[tokio::test]
async fn a_webhook_is_the_body_as_it_stands_with_its_id_signature_and_sequence() {
    let receiver = Receiver::start(|_| Reply::status("204 No Content")).await;
    let sink = webhook(
        &receiver.url("/hook?key=1"),
        "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nsecret_previous = \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"\nheaders = { X-Team = \"north\" }",
    );
    assert_eq!(sink.send(&body()).await.class, Class::Delivered);
    let request = receiver.request(0);
    assert_eq!(request.line, "POST /hook?key=1 HTTP/1.1");
    assert_eq!(request.body, r#"{"id":"ñ"}"#);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("webhook-id"), Some("hq.0123456789abcd.4"));
    assert_eq!(request.header("callpost-sequence"), Some("77"));
    assert_eq!(request.header("x-team"), Some("north"));
    let timestamp: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now - 60..=now).contains(&timestamp), "{timestamp}");
    let expected: Vec<String> =
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
            .iter()
            .map(|secret| {
                let key = callpost::sinks::SigningKey::parse(secret).unwrap();
                key.sign("hq.0123456789abcd.4", timestamp, request.body.as_bytes())
            })
            .collect();
    assert_eq!(request.header("webhook-signature"), Some(expected.join(" ").as_str()));
}

#[tokio::test]
async fn an_unsigned_webhook_has_no_signature() {
    let receiver = Receiver::start(|_| Reply::ok("")).await;
    assert_eq!(webhook(&receiver.url("/"), "").send(&body()).await.class, Class::Delivered);
    assert_eq!(receiver.request(0).header("webhook-signature"), None);
}

/// One row: what the receiver does, and what NiMbox and webhook make of it.
async fn row(name: &str, reply: Reply, as_nimbox: Class, as_webhook: Class) {
    use Class::{Delivered, Moved};
    for (kind, expected) in [("nimbox", as_nimbox), ("webhook", as_webhook)] {
        let scripted = reply.clone();
        let receiver =
            Receiver::start(move |n| if n == 0 { Reply::ok(TAKEN) } else { scripted.clone() }).await;
        let (sink, delivery) = match kind {
            "nimbox" => (nimbox(&receiver.url("/"), ""), create()),
            _ => (webhook(&receiver.url("/"), ""), body()),
        };
        // a sink's first request reads the system's certificates, which is not what is measured
        assert_eq!(sink.send(&delivery).await.class, Delivered, "{name}");
        let started = Instant::now();
        let outcome = sink.send(&delivery).await;
        assert_eq!(outcome.class, expected, "{name} as {kind}: {outcome:?}");
        assert!(started.elapsed() < TIMEOUT + Duration::from_secs(1), "{name}: {:?}", started.elapsed());
        assert_quiet(&outcome);
        if outcome.class == Moved {
            assert_eq!(receiver.requests().len(), 2, "no redirect is followed");
        }
    }
}

/// Neither the token nor a URL is in anything that is kept or logged.
fn assert_quiet(outcome: &Outcome) {
    let all = format!("{outcome:?}");
    for secret in ["t0k", "http://", "https://", "phonecalls"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[tokio::test]
async fn every_row_of_the_table_over_a_real_socket() {
    use Class::*;
    let refused = r#"{"error": true, "errors": {"destination": "no se consiguió"}}"#;
    row("taken", Reply::ok(TAKEN), Delivered, Delivered).await;
    row("refused", Reply::ok(refused), Refused, Delivered).await;
    row("exists", Reply::ok(r#"{"error":true,"errors":{"initiated":"ya existe"}}"#), Duplicate, Delivered)
        .await;
    row("not JSON", Reply::ok("<html>"), Unreadable, Delivered).await;
    for (status, class) in [
        ("301 Moved Permanently", Moved),
        ("302 Found", Moved),
        ("307 Temporary Redirect", Moved),
        ("400 Bad Request", Invalid),
        ("422 Unprocessable Content", Invalid),
        ("401 Unauthorized", Unauthorized),
        ("403 Forbidden", Unauthorized),
        ("404 Not Found", Unauthorized),
        ("405 Method Not Allowed", Unauthorized),
        ("410 Gone", Gone),
        ("408 Request Timeout", Unavailable),
        ("425 Too Early", Unavailable),
        ("429 Too Many Requests", Throttled),
        ("500 Internal Server Error", Unavailable),
        ("502 Bad Gateway", Overloaded),
        ("503 Service Unavailable", Overloaded),
        ("504 Gateway Timeout", Overloaded),
    ] {
        row(status, Reply::status(status).header("location: /elsewhere"), class, class).await;
    }
    row("body breaks off", Reply::ok(TAKEN).cut_body(10), Unreadable, Delivered).await;
    row("body never ends", Reply::endless(), Unreadable, Delivered).await;
    row("endless headers", Reply::endless_headers(), Unreachable, Unreachable).await;
    row("closes", Reply::Close, Unreachable, Unreachable).await;
    row("resets", Reply::Reset, Unreachable, Unreachable).await;
    // these end by the timeout
    tokio::join!(
        row("body hangs", Reply::ok(TAKEN).hang_body(10), Unreadable, Delivered),
        row(
            "a gigabyte announced",
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{}"),
            Unreadable,
            Delivered
        ),
        row("headers dribble", Reply::dribble(), Unreachable, Unreachable),
        row("silence", Reply::Silence, Unreachable, Unreachable),
        row("no HTTP", Reply::raw("220 smtp.example.com ESMTP\r\n"), Unreachable, Unreachable)
    );
}

#[tokio::test]
async fn secrets_that_a_receiver_repeats_are_not_kept() {
    let said = "t0k&n ñ, t0k%26n%20%C3%B1, s3cret, /hook/SEGRETO, north";
    let receiver = Receiver::start(move |_| Reply::ok(said)).await;
    let more = "username = \"admin\"\npassword = \"s3cret\"\nheaders = { X-Team = \"north\" }";
    let outcome = nimbox(&receiver.url("/hook/SEGRETO"), more).send(&create()).await;
    assert_eq!(outcome.answer, "[token], [token], [password], [url], [header]");
    let sink = webhook(&receiver.url("/hook/SEGRETO"), "headers = { X-Team = \"north\" }");
    assert_eq!(sink.send(&body()).await.answer, "t0k&n ñ, t0k%26n%20%C3%B1, s3cret, [url], [header]");
    assert!(!format!("{sink:?}").contains("SEGRETO"), "{sink:?}");
}

#[tokio::test]
async fn retry_after_is_passed_on_as_it_came() {
    let receiver = Receiver::start(|n| {
        let value = if n == 0 { "120" } else { "Wed, 21 Oct 2026 07:28:00 GMT" };
        Reply::status("503 Service Unavailable").header(&format!("retry-after: {value}"))
    })
    .await;
    let sink = webhook(&receiver.url("/"), "");
    assert_eq!(sink.send(&body()).await.retry_after.as_deref(), Some("120"));
    assert_eq!(sink.send(&body()).await.retry_after.as_deref(), Some("Wed, 21 Oct 2026 07:28:00 GMT"));
}

#[tokio::test]
async fn an_answer_is_read_up_to_16_kib_and_kept_up_to_one() {
    let receiver = Receiver::start(|_| Reply::ok(&"x".repeat(60_000))).await;
    let outcome = nimbox(&receiver.url("/"), "").send(&create()).await;
    assert_eq!((outcome.class, outcome.answer.len()), (Class::Unreadable, 1024));
    // just small enough: read whole
    let padded = format!("{TAKEN}{}", " ".repeat(16 * 1024 - TAKEN.len()));
    let receiver = Receiver::start(move |_| Reply::ok(&padded)).await;
    assert_eq!(nimbox(&receiver.url("/"), "").send(&create()).await.class, Class::Delivered);
}

#[tokio::test]
async fn nobody_listening_and_no_such_name_are_unreachable() {
    let closed = {
        let receiver = Receiver::start(|_| Reply::Close).await;
        receiver.url("/")
    };
    let outcome = webhook(&closed, "").send(&body()).await;
    assert_eq!(outcome.class, Class::Unreachable, "{outcome:?}");
    let outcome = nimbox("https://no-such-host.invalid/", "").send(&create()).await;
    assert_eq!(outcome.class, Class::Unreachable, "{outcome:?}");
    assert_quiet(&outcome);
}

#[tokio::test]
async fn an_address_that_may_not_be_reached_is_not_connected_to() {
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let port = receiver.port();
    for url in [
        "https://169.254.169.254/".to_owned(),
        "https://[fe80::1]/".to_owned(),
        "https://0.0.0.0/".to_owned(),
        "https://224.0.0.1/".to_owned(),
        format!("https://[::ffff:169.254.169.254]:{port}/"),
    ] {
        let outcome = nimbox(&url, "").send(&create()).await;
        assert_eq!(outcome.class, Class::Forbidden, "{url}: {outcome:?}");
    }
    // by the resolver, and with an address written down
    for url in [format!("http://localhost:{port}/"), format!("http://127.0.0.1:{port}/")] {
        let outcome = nimbox(&url, "public_only = true").send(&create()).await;
        assert_eq!(outcome.class, Class::Forbidden, "{url}: {outcome:?}");
        assert_eq!(
            nimbox(&url, "").send(&create()).await.class,
            Class::Delivered,
            "{url} is the site's own choice"
        );
    }
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn plain_http_goes_out_only_where_it_is_allowed() {
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    let mut refused = config(&format!(
        "[[nimbox]]\nname = \"crm\"\nurl = \"{}\"\ntoken = \"t\"\nallow_http = true",
        receiver.url("/")
    ));
    refused.nimbox[0].delivery.allow_http = false;
    assert_eq!(sink(&refused).send(&create()).await.class, Class::Unusable);
    let mut named = config(
        "[[webhook]]\nname = \"desk\"\nurl = \"https://hooks.example.com/\"\nevents = [\"call.state\"]",
    );
    named.webhooks[0].delivery.allow_http = true;
    named.webhooks[0].delivery.url = format!("http://localhost:{}/", receiver.port()).parse().unwrap();
    let outcome = sink(&named).send(&body()).await;
    assert_eq!(outcome.class, Class::Unusable, "{outcome:?}");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn what_waits_for_another_kind_of_sink_is_not_sent() {
    let receiver = Receiver::start(|_| Reply::ok(TAKEN)).await;
    assert_eq!(nimbox(&receiver.url("/"), "").send(&body()).await.class, Class::Mismatch);
    assert_eq!(webhook(&receiver.url("/"), "").send(&create()).await.class, Class::Mismatch);
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_configured_authority_or_pin_is_what_counts() {
    let site = tls::Site::new("localhost");
    let receiver = Receiver::start_tls(site.server(None), |_| Reply::ok(TAKEN)).await;
    let url = format!("https://localhost:{}/", receiver.port());
    let ca = format!("ca_file = {:?}", site.ca_file());
    let pin = format!("pin = \"{}\"", site.pin());
    let other = tls::Site::new("localhost");
    let other_ca = format!("ca_file = {:?}", other.ca_file());
    let other_pin = format!("pin = \"{}\"", other.pin());
    for (more, expected) in [
        (ca.clone(), Class::Delivered),
        (pin.clone(), Class::Delivered),
        (format!("{ca}\n{pin}"), Class::Delivered),
        (String::new(), Class::Certificate),
        (other_ca.clone(), Class::Certificate),
        (other_pin.clone(), Class::Certificate),
        (format!("{ca}\n{other_pin}"), Class::Certificate),
        (format!("{other_ca}\n{pin}"), Class::Certificate),
    ] {
        let outcome = nimbox(&url, &more).send(&create()).await;
        assert_eq!(outcome.class, expected, "{more}: {outcome:?}");
    }
    // right authority, wrong name
    let by_address = format!("https://127.0.0.1:{}/", receiver.port());
    assert_eq!(nimbox(&by_address, &ca).send(&create()).await.class, Class::Certificate);
    assert!(receiver.requests().iter().all(|request| request.line.contains("phonecalls/create")));
    assert_eq!(receiver.requests().len(), 3, "nothing was said to a receiver that was not accepted");
}

#[tokio::test]
async fn an_expired_certificate_is_not_accepted() {
    let site = tls::Site::expired("localhost");
    let receiver = Receiver::start_tls(site.server(None), |_| Reply::ok(TAKEN)).await;
    let url = format!("https://localhost:{}/", receiver.port());
    let outcome = nimbox(&url, &format!("ca_file = {:?}", site.ca_file())).send(&create()).await;
    assert_eq!(outcome.class, Class::Certificate, "{outcome:?}");
}

#[tokio::test]
async fn a_receiver_that_asks_for_our_certificate_gets_it() {
    let site = tls::Site::new("localhost");
    let ours = tls::Site::new("callpost");
    let receiver = Receiver::start_tls(site.server(Some(&ours)), |_| Reply::ok("")).await;
    let url = format!("https://localhost:{}/", receiver.port());
    let ca = format!("ca_file = {:?}", site.ca_file());
    let (cert, key) = ours.files();
    let with = format!("{ca}\nclient_cert_file = {cert:?}\nclient_key_file = {key:?}");
    assert_eq!(webhook(&url, &with).send(&body()).await.class, Class::Delivered);
    assert_ne!(webhook(&url, &ca).send(&body()).await.class, Class::Delivered);
}

#[tokio::test]
async fn a_sink_whose_files_are_missing_says_so_and_heals() {
    let site = tls::Site::new("localhost");
    let receiver = Receiver::start_tls(site.server(None), |_| Reply::ok(TAKEN)).await;
    let url = format!("https://localhost:{}/", receiver.port());
    let mut config = config(&format!("[[nimbox]]\nname = \"crm\"\nurl = \"{url}\"\ntoken = \"t\""));
    let moved = site.ca_file().with_extension("later");
    config.nimbox[0].delivery.ca_file = Some(moved.clone());
    let sink = sink(&config);
    let outcome = sink.send(&create()).await;
    assert_eq!(outcome.class, Class::Unusable);
    assert!(outcome.why.contains("ca_file"), "{}", outcome.why);
    std::fs::copy(site.ca_file(), &moved).unwrap();
    assert_eq!(sink.send(&create()).await.class, Class::Delivered);
}

#[tokio::test]
async fn requests_that_are_made_at_once_do_not_wait_for_each_other() {
    let receiver = Receiver::start(|n| if n == 0 { Reply::Silence } else { Reply::ok("") }).await;
    let sink = Arc::new(webhook(&receiver.url("/"), ""));
    let stuck = tokio::spawn({
        let sink = Arc::clone(&sink);
        async move { sink.send(&body()).await.class }
    });
    receiver.until(1).await;
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(sink.send(&body()).await.class, Class::Delivered);
    }
    assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
    assert_eq!(stuck.await.unwrap(), Class::Unreachable);
}
