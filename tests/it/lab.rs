//! The lab: phones, carriers and an AMI session around one real Asterisk, and
//! the recorder that keeps what an AMI account was sent.
//!
//! Ports and accounts are those of `tests/asterisk/conf`; `tests/asterisk/start`
//! makes the namespace in which they are free.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::sip::{Call, Phone, State};

/// Where Asterisk listens.
pub const AMI: &str = "127.0.0.1:5038";
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing more comes of a call after its channels are gone and Asterisk has
/// been silent for this long.
const SILENCE: Duration = Duration::from_millis(200);

/// Everything a scenario plays with.
pub struct Lab {
    /// 1001, "Ana O'Hara".
    pub ana: Phone,
    /// 1002, "Beto".
    pub beto: Phone,
    /// 1003, "Carla".
    pub carla: Phone,
    /// The carrier.
    pub trunk: Phone,
    /// The carrier that stands in for the first.
    pub trunk2: Phone,
    ami: Ami,
    /// Where in the session's events the current scenario begins.
    begin: AtomicUsize,
}

impl Lab {
    /// Plugs everything in. There is one lab for each Asterisk: the ports are fixed.
    pub async fn open() -> Lab {
        Lab {
            ana: Phone::bind("1001", 5071, 20002).await,
            beto: Phone::bind("1002", 5072, 20004).await,
            carla: Phone::bind("1003", 5073, 20006).await,
            trunk: Phone::bind("trunk", 5080, 20008).await,
            trunk2: Phone::bind("trunk2", 5081, 20010).await,
            ami: Ami::login("lab").await,
            begin: AtomicUsize::new(0),
        }
    }

    /// Begins a scenario early in a second of the wall clock. CDR times are cut
    /// to seconds, so a scenario gives the same ones in every run.
    pub async fn begin(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let into_second = now.subsec_millis();
        if into_second > 250 {
            sleep(Duration::from_millis(u64::from(1050 - into_second))).await;
        }
        self.begin.store(self.ami.count(), Ordering::Relaxed);
    }

    /// Waits until nothing of the scenario is left in Asterisk, its CDRs included.
    pub async fn settle(&self) {
        loop {
            self.until("the end of every channel", |events| {
                let named = |kind| {
                    let of_kind = events.iter().filter(move |e| e.get("Event") == kind);
                    let channels = of_kind.map(|e| e.get("Channel"));
                    channels.filter(|c| !c.starts_with("Message/")).collect::<BTreeSet<_>>()
                };
                (named("Newchannel") == named("Hangup")).then_some(())
            })
            .await;
            // The CDR engine lags behind the channels, and events behind both.
            let active = self.command("cdr show active").await;
            let silent = self.ami.silence().await;
            if silent && !active.contains("PJSIP/") && !active.contains("Local/") {
                break;
            }
        }
        assert_eq!(self.forget_calls().await, 0, "calls came that no scenario wanted");
    }

    /// After a scenario that failed: ends its calls, so that the next can begin.
    pub async fn clear(&self) {
        self.command("channel request hangup all").await;
        sleep(Duration::from_secs(2)).await;
        self.forget_calls().await;
    }

    /// After a new start of Asterisk: what was heard of the old one is forgotten.
    pub async fn login_again(&mut self) {
        self.forget_calls().await;
        self.ami = Ami::login("lab").await;
        self.begin.store(0, Ordering::Relaxed);
    }

    async fn forget_calls(&self) -> usize {
        let mut forgotten = 0;
        for phone in [&self.ana, &self.beto, &self.carla, &self.trunk, &self.trunk2] {
            forgotten += phone.forget_calls().await;
        }
        forgotten
    }

    /// The scenario's first event of this kind that has these headers, now or soon.
    pub async fn event(&self, kind: &str, headers: &[(&str, &str)]) -> Arc<Message> {
        let what = format!("{kind} with {headers:?}");
        self.until(&what, |events| {
            let mut of_kind = events.iter().filter(|event| event.get("Event") == kind);
            of_kind.find(|event| headers.iter().all(|(k, v)| event.get(k) == *v)).cloned()
        })
        .await
    }

    /// The scenario's first channel of a device.
    pub async fn channel(&self, device: &str) -> String {
        let prefix = format!("PJSIP/{device}-");
        self.until(&format!("a channel of {device}"), |events| {
            let mut new = events.iter().filter(|event| event.get("Event") == "Newchannel");
            new.find(|event| event.get("Channel").starts_with(&prefix)).map(|e| e.get("Channel").into())
        })
        .await
    }

    /// Waits until this many channels of a device are gone.
    pub async fn hangups(&self, device: &str, wanted: usize) {
        let prefix = format!("PJSIP/{device}-");
        self.until(&format!("{wanted} hangups of {device}"), |events| {
            let gone = events.iter().filter(|event| event.get("Event") == "Hangup");
            (gone.filter(|event| event.get("Channel").starts_with(&prefix)).count() >= wanted).then_some(())
        })
        .await;
    }

    /// Looks at the scenario's events until they give something.
    async fn until<T>(&self, what: &str, look: impl FnMut(&[Arc<Message>]) -> Option<T>) -> T {
        let begin = self.begin.load(Ordering::Relaxed);
        self.ami.until(begin, look).await.unwrap_or_else(|| panic!("waited in vain for {what}"))
    }

    /// An AMI action that must succeed.
    pub async fn action(&self, headers: &[(&str, &str)]) {
        let answer = self.ami.action(headers).await;
        assert_eq!(answer.get("Response"), "Success", "{headers:?}: {answer:?}");
    }

    /// A CLI command; gives what it printed.
    pub async fn command(&self, line: &str) -> String {
        let answer = self.ami.action(&[("Action", "Command"), ("Command", line)]).await;
        let output = answer.0.iter().filter(|(name, _)| name == "Output");
        output.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// The ports are free for the next lab when the runtime is gone too.
impl Drop for Lab {
    fn drop(&mut self) {
        for phone in [&self.ana, &self.beto, &self.carla, &self.trunk, &self.trunk2] {
            phone.unplug();
        }
    }
}

/// Lets time pass in a call. Where something can be awaited, await that.
pub async fn pause(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

/// The next call that comes to this device, which begins to ring.
pub async fn rings(phone: &Phone) -> Call {
    let call = phone.next_call().await;
    call.ring().await;
    call
}

/// The next call that comes to this device, answered after a while.
pub async fn answers(phone: &Phone, after: f64) -> Call {
    let call = rings(phone).await;
    pause(after).await;
    call.answer().await;
    call
}

/// Answers, and who called notices.
pub async fn takes(call: &Call, caller: &Call) {
    call.answer().await;
    caller.becomes(State::Up).await;
}

/// Hangs up, and the other side notices.
pub async fn ends(by: &Call, other: &Call) {
    by.hang_up().await;
    other.becomes(State::Over).await;
}

/// One AMI message, its headers in order.
#[derive(Debug)]
pub struct Message(Vec<(String, String)>);

impl Message {
    /// Reads one message, without its final empty line.
    pub fn parse(text: &str) -> Message {
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_string(), value.strip_prefix(' ').unwrap_or(value).to_string()))
        };
        Message(text.split("\r\n").filter_map(header).collect())
    }

    /// A header's value, "" when there is none.
    pub fn get(&self, wanted: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map_or("", |(_, value)| value)
    }
}

/// An AMI session that keeps all it hears.
pub struct Ami {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    heard: Arc<Mutex<Vec<Arc<Message>>>>,
    count: watch::Receiver<usize>,
    actions: AtomicUsize,
}

impl Ami {
    /// Logs in an account of `manager.conf`, where the secret is the name.
    pub async fn login(account: &str) -> Ami {
        let (mut reader, writer) = TcpStream::connect(AMI).await.unwrap().into_split();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let ami = Ami {
            writer: tokio::sync::Mutex::new(writer),
            heard: heard.clone(),
            count,
            actions: AtomicUsize::new(0),
        };
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while reader.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
                while let Some(end) = find(&buffer, b"\r\n\r\n") {
                    let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
                    heard.lock().unwrap().push(Arc::new(Message::parse(&text)));
                    buffer.drain(..end + 4);
                }
                counter.send_replace(heard.lock().unwrap().len());
            }
        });
        let login = [("Action", "Login"), ("Username", account), ("Secret", account)];
        let answer = ami.action(&login).await;
        assert_eq!(answer.get("Response"), "Success", "{answer:?}");
        ami
    }

    /// Does an action; gives its answer.
    pub async fn action(&self, headers: &[(&str, &str)]) -> Arc<Message> {
        let id = format!("lab{}", self.actions.fetch_add(1, Ordering::Relaxed));
        let mut text = format!("ActionID: {id}\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let begin = self.count();
        self.writer.lock().await.write_all(text.as_bytes()).await.unwrap();
        let ours = |m: &&Arc<Message>| m.get("ActionID") == id && !m.get("Response").is_empty();
        let answer = self.until(begin, |heard| heard.iter().find(ours).cloned()).await;
        answer.unwrap_or_else(|| panic!("no answer to {headers:?}"))
    }

    /// Does an action that Asterisk cannot even read; gives the error, which names no action.
    pub async fn refused(&self, headers: &[(&str, &str)]) -> Arc<Message> {
        let begin = self.count();
        let text: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.writer.lock().await.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let error = |m: &&Arc<Message>| m.get("Response") == "Error";
        let answer = self.until(begin, |heard| heard.iter().find(error).cloned()).await;
        answer.unwrap_or_else(|| panic!("no error"))
    }

    /// All messages so far.
    pub fn heard(&self) -> Vec<Arc<Message>> {
        self.heard.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Looks at all messages since `begin` again and again until they give something.
    async fn until<T>(&self, begin: usize, mut look: impl FnMut(&[Arc<Message>]) -> Option<T>) -> Option<T> {
        let mut count = self.count.clone();
        let found = async {
            loop {
                count.borrow_and_update();
                let seen = look(&self.heard.lock().unwrap()[begin..]);
                if seen.is_some() || count.changed().await.is_err() {
                    return seen;
                }
            }
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }

    /// Whether nothing comes for a while.
    async fn silence(&self) -> bool {
        let mut count = self.count.clone();
        count.borrow_and_update();
        timeout(SILENCE, count.changed()).await.is_err()
    }
}

/// Keeps, byte for byte, what Asterisk sends to an account.
pub struct Recorder {
    stream: TcpStream,
    heard: Vec<u8>,
    actions: u32,
}

impl Recorder {
    /// Logs in as callpost does; what comes after that handshake is kept. Nothing is read before
    /// the end: what Asterisk says about one scenario fits into the buffers of a socket.
    pub async fn start(account: &str) -> Recorder {
        let stream = TcpStream::connect(AMI).await.unwrap();
        let mut recorder = Recorder { stream, heard: Vec::new(), actions: 0 };
        let login = format!("Login\r\nUsername: {account}\r\nSecret: {account}\r\nEvents: system");
        recorder.ask(&login).await;
        // No call is up, so nothing but this handshake has come so far.
        recorder.ask("Events\r\nEventMask: on").await;
        recorder.heard.clear();
        recorder
    }

    /// All that came since. Asterisk sends what it has for a session before it
    /// answers the session's next action, so the answer to a last one is the end.
    pub async fn finish(mut self) -> Vec<u8> {
        let end = self.ask("Ping").await;
        self.heard.truncate(end);
        self.heard
    }

    /// Sends an action and reads up to its answer; gives where that begins.
    async fn ask(&mut self, action: &str) -> usize {
        self.actions += 1;
        let id = format!("recorder{}", self.actions);
        let text = format!("ActionID: {id}\r\nAction: {action}\r\n\r\n");
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let answer = format!("Response: Success\r\nActionID: {id}\r\n");
        loop {
            let length = self.stream.read_buf(&mut self.heard).await.unwrap();
            assert!(length > 0, "Asterisk closed: {}", String::from_utf8_lossy(&self.heard));
            if let Some(begin) = find(&self.heard, answer.as_bytes())
                && find(&self.heard[begin..], b"\r\n\r\n").is_some()
            {
                return begin;
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|bytes| bytes == needle)
}
