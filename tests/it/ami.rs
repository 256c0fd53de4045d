//! The connection against a peer that misbehaves in every way a real one can, and some more.
//! What a well-behaved Asterisk does is tested beside a real one.

use std::net::SocketAddr;
use std::time::Duration;

use callpost::ami::{self, AmiHealth, AmiWatch, Feed, FeedReceiver};
use callpost::config;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::receiver::tls::Site;

/// Longer than any wait of the agent, also when time is paused.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(address: SocketAddr) -> config::Ami {
    config::Ami {
        address: address.to_string(),
        username: "callpost".to_owned(),
        secret: "s3cr:et".into(),
        tls: false,
        ca_file: None,
        server_name: None,
    }
}

/// One accepted connection of the scripted peer.
struct Peer<S = TcpStream> {
    stream: BufReader<S>,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next action's name and headers; `None` when the agent hung up.
    async fn hear(&mut self) -> Option<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.unwrap().ok()?;
            if read == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some((key, value)) => headers.push((key.to_owned(), value.to_owned())),
                None => return Some(headers),
            }
        }
    }

    /// Answers actions as Asterisk does, with `refuse` denied, until `until` was answered.
    async fn serve(&mut self, until: &str, refuse: &[&str]) {
        while let Some(headers) = self.hear().await {
            let get = |key: &str| {
                headers.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default()
            };
            let (action, id) = (get("Action"), get("ActionID"));
            if refuse.contains(&action.as_str()) {
                self.say(&format!("Response: Error\r\nActionID: {id}\r\nMessage: Permission denied\r\n\r\n"))
                    .await;
            } else {
                self.answer(&action, &id, &headers).await;
            }
            if action == until {
                return;
            }
        }
        panic!("the agent hung up before {until}");
    }

    async fn answer(&mut self, action: &str, id: &str, headers: &[(String, String)]) {
        let ok = format!("Response: Success\r\nActionID: {id}\r\n");
        let list = |complete: &str, items: &str| {
            format!(
                "{ok}EventList: start\r\nMessage: will follow\r\n\r\n{items}Event: {complete}\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: 1\r\n\r\n"
            )
        };
        let text = match action {
            "Challenge" => format!("{ok}Challenge: 129571437\r\n\r\n"),
            "Login" => {
                // md5("129571437" + "s3cr:et")
                let key = headers.iter().find(|(k, _)| k == "Key").map(|(_, v)| v.as_str());
                assert_eq!(key, Some(KEY));
                format!(
                    "{ok}Message: Authentication accepted\r\n\r\nEvent: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n"
                )
            }
            "CoreSettings" => format!("{ok}AsteriskVersion: 22.10.1\r\nCoreCDRenabled: Yes\r\n\r\n"),
            "CoreStatus" => format!("{ok}CoreStartupDate: 2026-11-21\r\nCoreStartupTime: 09:30:57\r\n\r\n"),
            "Events" => format!("{ok}Events: On\r\n\r\n{}", hangup("1795252767.99")),
            "CoreShowChannels" => list(
                "CoreShowChannelsComplete",
                &format!(
                    "Event: CoreShowChannel\r\nActionID: {id}\r\nChannel: PJSIP/trunk-00000002\r\nChannelState: 6\r\nUniqueid: 1795253688.7\r\nLinkedid: 1795253688.7\r\nApplication: Dial\r\nDuration: 00:00:03\r\nBridgeId: b1\r\n\r\n"
                ),
            ),
            "Status" => list(
                "StatusComplete",
                &format!(
                    "Event: Status\r\nPrivilege: Call\r\nActionID: {id}\r\nChannel: PJSIP/trunk-00000002\r\nUniqueid: 1795253688.7\r\nLinkedid: 1795253688.7\r\nVariable: CDR(start,u)=1795253688.963400\r\nVariable: CDR(answer,u)=0.000000\r\nVariable: FROM_DID=5551000\r\n\r\n"
                ),
            ),
            "PJSIPShowEndpoints" => list(
                "EndpointListComplete",
                &format!(
                    "Event: EndpointList\r\nActionID: {id}\r\nObjectType: endpoint\r\nObjectName: ana\r\nAuths: ana\r\nOutboundAuths: \r\n\r\nEvent: EndpointList\r\nActionID: {id}\r\nObjectType: endpoint\r\nObjectName: carrier\r\nAuths: \r\nOutboundAuths: carrier\r\n\r\n"
                ),
            ),
            "BridgeList" => list("BridgeListComplete", ""),
            "QueueStatus" => list(
                "QueueStatusComplete",
                &format!(
                    "Event: QueueEntry\r\nActionID: {id}\r\nQueue: support\r\nPosition: 1\r\nChannel: PJSIP/trunk-00000002\r\nUniqueid: 1795253688.7\r\nWait: 7\r\n\r\n"
                ),
            ),
            "Ping" => format!("{ok}Ping: Pong\r\nTimestamp: 1795253564.475506\r\n\r\n"),
            other => panic!("unexpected action {other}"),
        };
        self.say(&text).await;
    }
}

const KEY: &str = "d9baad6d50cde32c9aebb9dbcdc96701";

fn hangup(uniqueid: &str) -> String {
    format!(
        "Event: Hangup\r\nPrivilege: call,all\r\nChannel: PJSIP/1001-00000001\r\nChannelState: 6\r\nUniqueid: {uniqueid}\r\nLinkedid: {uniqueid}\r\nCause: 16\r\nCause-txt: Normal Clearing\r\n\r\n"
    )
}

struct Agent {
    feed: FeedReceiver,
    watch: AmiWatch,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start() -> (TcpListener, Agent) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = start_with(config(listener.local_addr().unwrap()));
    (listener, agent)
}

fn start_with(config: config::Ami) -> Agent {
    let (hub, feed) = ami::feed();
    let watch = hub.watch();
    let stop = CancellationToken::new();
    let settings = tokio::sync::watch::channel(Some(config)).1;
    let task = tokio::spawn(hub.run(settings, stop.clone()));
    Agent { feed, watch, stop, task }
}

impl Agent {
    async fn until(&mut self, wanted: impl Fn(&AmiHealth) -> bool) -> AmiHealth {
        loop {
            let health = self.watch.health();
            if wanted(&health) {
                return health;
            }
            timeout(PATIENCE, self.watch.changed()).await.unwrap().unwrap();
        }
    }

    async fn error(&mut self) -> String {
        self.until(|health| health.error.is_some()).await.error.unwrap()
    }

    async fn next(&mut self) -> Feed {
        timeout(PATIENCE, self.feed.recv()).await.unwrap().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_snapshot_comes_before_events_that_arrived_while_it_was_read() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &[]).await;
    let Feed::Event { event, .. } = agent.next().await else { panic!("FullyBooted first") };
    assert!(matches!(event.kind, parsers::ami::EventKind::FullyBooted { .. }));
    let Feed::Up { snapshot: Some(snapshot), .. } = agent.next().await else { panic!("then the snapshot") };
    assert_eq!(snapshot.startup, "2026-11-21 09:30:57");
    assert_eq!(snapshot.channels.len(), 1);
    assert_eq!(snapshot.channels[0].start, Some(parsers::Micros(1_795_253_688_963_400)));
    assert_eq!(snapshot.channels[0].answer, None);
    assert_eq!(snapshot.channels[0].did.as_deref(), Some("5551000"));
    assert_eq!(snapshot.waiting[0].wait, 7);
    let endpoints: Vec<(&str, bool)> =
        snapshot.endpoints.iter().flatten().map(|one| (&*one.name, one.phone)).collect();
    assert_eq!(endpoints, [("ana", true), ("carrier", false)]);
    assert!(!snapshot.partial);
    let Feed::Event { event, .. } = agent.next().await else { panic!("then what was held") };
    assert!(matches!(event.kind, parsers::ami::EventKind::Hangup { .. }));
    assert!(agent.watch.health().connected);
    agent.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_told_once_and_made_again() {
    let (listener, mut agent) = start().await;
    for _ in 0..2 {
        let mut peer = Peer::accept(&listener).await;
        peer.say("Asterisk Call Manager/11.0.0\r\n").await;
        peer.serve("QueueStatus", &[]).await;
        while !matches!(agent.next().await, Feed::Up { .. }) {}
        peer.say("Event: Hangup\r\nPrivilege: call,all\r\nUniq").await;
        drop(peer);
        loop {
            match agent.next().await {
                Feed::Lost { .. } => break,
                // The one that was held; never the torn one.
                Feed::Event { .. } | Feed::Audit { .. } => {}
                Feed::Up { .. } => panic!("up before it was lost"),
            }
        }
    }
    assert_eq!(agent.watch.health().logins, 2);
    agent.stop().await;
}

/// What came while a snapshot was read that never came is told by the next one, and only by that.
#[tokio::test]
async fn a_login_that_breaks_off_leaves_nothing_behind() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    // The event that comes with the answer to Events is held.
    peer.serve("CoreShowChannels", &[]).await;
    drop(peer);
    agent.error().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &["Events"]).await;
    agent.until(|health| health.connected).await;
    let mut hangups = 0;
    while let Some(fed) = agent.feed.try_recv() {
        if let Feed::Event { event, .. } = fed {
            hangups += usize::from(matches!(event.kind, parsers::ami::EventKind::Hangup { .. }));
        }
    }
    assert_eq!((hangups, agent.watch.health().behind), (0, 0));
    agent.stop().await;
}

#[tokio::test]
async fn an_asterisk_that_boots_is_asked_again_and_is_one_login() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &[]).await;
    agent.until(|health| health.connected).await;
    let since = agent.watch.health().since;
    peer.say("Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n").await;
    // Endpoints are asked for once a login.
    peer.serve("QueueStatus", &["PJSIPShowEndpoints"]).await;
    let mut endpoints = Vec::new();
    while endpoints.len() < 2 {
        if let Feed::Up { snapshot: Some(snapshot), .. } = agent.next().await {
            endpoints.push(snapshot.endpoints.is_some());
        }
    }
    assert_eq!(endpoints, [true, false]);
    let health = agent.watch.health();
    assert_eq!((health.logins, health.since), (1, since));
    agent.stop().await;
}

#[tokio::test]
async fn endpoints_that_may_not_be_listed_are_no_fault() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &["PJSIPShowEndpoints"]).await;
    loop {
        if let Feed::Up { snapshot: Some(snapshot), .. } = agent.next().await {
            assert_eq!(snapshot.endpoints, None);
            break;
        }
    }
    let health = agent.until(|health| health.connected).await;
    assert_eq!((health.denied, health.error), (Vec::new(), None));
    agent.stop().await;
}

/// Every ten minutes; what came before the list's end comes before it, and what came after, after.
#[tokio::test]
async fn an_audit_lies_in_the_stream_where_asterisk_wrote_it() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &[]).await;
    agent.until(|health| health.connected).await;
    while agent.feed.try_recv().is_some() {}
    let begun = tokio::time::Instant::now();
    tokio::time::pause();
    for items in [1, 2] {
        let id = loop {
            let asked = peer.hear().await.unwrap();
            let get = |key: &str| asked.iter().find(|(k, _)| k == key).unwrap().1.clone();
            let id = get("ActionID");
            match get("Action").as_str() {
                "Ping" => peer.answer("Ping", &id, &[]).await,
                "CoreShowChannels" => break id,
                other => panic!("{other}"),
            }
        };
        let list = format!(
            "Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\nEvent: CoreShowChannel\r\nActionID: {id}\r\nChannel: PJSIP/trunk-00000002\r\nChannelState: 6\r\nUniqueid: 1795253688.7\r\nLinkedid: 1795253688.7\r\n\r\nEvent: CoreShowChannelsComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {items}\r\n\r\n"
        );
        peer.say(&format!("{}{list}{}", hangup("1.1"), hangup("1.2"))).await;
    }
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(960) && waited <= Duration::from_secs(1450), "{waited:?}");
    let mut order = Vec::new();
    while order.len() < 5 {
        match agent.next().await {
            Feed::Event { event, .. } => {
                let parsers::ami::EventKind::Hangup { channel, .. } = event.kind else { panic!("{event:?}") };
                order.push(channel.uniqueid.as_str().to_owned());
            }
            Feed::Audit { listed, .. } => {
                order.push(format!("{listed:?}"));
            }
            other => panic!("{other:?}"),
        }
    }
    // The second list says that it has more items than came: it proves nothing.
    assert_eq!(order, ["1.1", "[1795253688.7]", "1.2", "1.1", "1.2"]);
    assert_eq!(agent.watch.health().logins, 1);
    agent.stop().await;
}

#[tokio::test]
async fn wrong_credentials_are_named_with_the_user_and_not_the_secret() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("Challenge", &[]).await;
    let id = peer.hear().await.unwrap().into_iter().find(|(key, _)| key == "ActionID").unwrap().1;
    peer.say(&format!("Response: Error\r\nActionID: {id}\r\nMessage: Authentication failed\r\n\r\n")).await;
    let error = agent.error().await;
    assert!(error.contains("\"callpost\"") && error.contains("Authentication failed"), "{error}");
    assert!(error.contains("manager.conf") && !error.contains("s3cr:et"), "{error}");
    agent.stop().await;
}

#[tokio::test]
async fn missing_permissions_are_listed_and_live_events_still_flow() {
    let (listener, mut agent) = start().await;
    let mut peer = Peer::accept(&listener).await;
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("CoreShowChannels", &["CoreSettings", "CoreStatus", "CoreShowChannels"]).await;
    while !matches!(agent.next().await, Feed::Up { snapshot: None, .. }) {}
    assert!(matches!(agent.next().await, Feed::Event { .. }));
    agent.until(|health| health.connected).await;
    let denied = agent.watch.health().denied.join("\n");
    assert!(denied.contains("CoreShowChannels: Permission denied"), "{denied}");
    agent.stop().await;
}

#[tokio::test]
async fn an_old_asterisk_and_another_service_are_named_for_what_they_are() {
    for (first_line, says) in [
        ("Asterisk Call Manager/1.3\r\n", "Asterisk 13 or newer"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "\"SSH-2.0-OpenSSH_9.2p1\""),
    ] {
        let (listener, mut agent) = start().await;
        let mut peer = Peer::accept(&listener).await;
        peer.say(first_line).await;
        let error = agent.error().await;
        assert!(error.contains(says), "{error}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_silent_peer_is_given_up_before_and_after_the_login() {
    let (listener, mut agent) = start().await;
    let quiet = Peer::accept(&listener).await;
    tokio::time::pause();
    let error = agent.error().await;
    assert!(error.contains("no banner within 10 s"), "{error}");
    drop(quiet);
    let mut peer = Peer::accept(&listener).await;
    tokio::time::resume();
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &[]).await;
    agent.until(|health| health.connected).await;
    // Two pings that nobody answers.
    tokio::time::pause();
    assert_eq!(peer.hear().await.unwrap()[0].1, "Ping");
    assert_eq!(peer.hear().await.unwrap()[0].1, "Ping");
    let error = agent.error().await;
    assert!(error.contains("no answer within 10 s"), "{error}");
    agent.stop().await;
}

#[tokio::test]
async fn nobody_there_says_where_and_what_to_look_at() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut agent = start_with(config(free));
    let error = agent.error().await;
    assert!(error.contains(&free.to_string()) && error.contains("manager.conf"), "{error}");
    agent.stop().await;
}

#[tokio::test]
async fn tls_is_trusted_by_ca_file_and_server_name() {
    let site = Site::new("pbx.example.com");
    let acceptor = TlsAcceptor::from(site.server(None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.tls = true;
    config.ca_file = Some(site.ca_file());
    config.server_name = Some("pbx.example.com".to_owned());
    let mut agent = start_with(config);
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer { stream: BufReader::new(acceptor.accept(stream).await.unwrap()) };
    peer.say("Asterisk Call Manager/11.0.0\r\n").await;
    peer.serve("QueueStatus", &[]).await;
    agent.until(|health| health.connected).await;
    agent.stop().await;
}

#[tokio::test]
async fn tls_that_is_not_trusted_gives_nothing_away() {
    let (site, another) = (Site::new("pbx.example.com"), Site::new("pbx.example.com"));
    let acceptor = TlsAcceptor::from(site.server(None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (trusted, name) in [(&another, "pbx.example.com"), (&site, "other.example.com")] {
        let mut config = config(listener.local_addr().unwrap());
        config.tls = true;
        config.ca_file = Some(trusted.ca_file());
        config.server_name = Some(name.to_owned());
        let mut agent = start_with(config);
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
        let error = agent.error().await;
        assert!(error.contains("TLS with") && error.contains("ami.ca_file"), "{error}");
        agent.stop().await;
    }
}
