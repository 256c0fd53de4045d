//! Phones and carriers for the test lab: small SIP user agents on UDP.
//!
//! They do what a scenario tells them, one step at a time, and answer by
//! themselves only what any phone answers: BYE, CANCEL, OPTIONS, NOTIFY, UPDATE
//! and Asterisk's own re-INVITEs. Asterisk knows their addresses, so they do not
//! register. Nothing is ever sent twice: they talk over loopback only.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

const ASTERISK: &str = "127.0.0.1:5060";

/// Asterisk answers within milliseconds. What takes this long will not come.
const PATIENCE: Duration = Duration::from_secs(15);

/// One device: a SIP port, an RTP port, and its calls.
#[derive(Clone)]
pub struct Phone(Arc<Device>);

struct Device {
    user: String,
    sip: UdpSocket,
    rtp: UdpSocket,
    calls: Mutex<HashMap<String, Call>>,
    ringing: mpsc::UnboundedSender<Call>,
    rung: tokio::sync::Mutex<mpsc::UnboundedReceiver<Call>>,
}

/// A call as one device sees it.
#[derive(Clone)]
pub struct Call {
    phone: Phone,
    id: String,
    state: watch::Sender<State>,
    dialog: Arc<Mutex<Dialog>>,
}

/// ```text
/// Calling ─▶ Ringing ─▶ Progress ─▶ Up ─▶ Over
///    └──────────┴──────────┴──────▶ Refused
/// ```
/// Any of the middle ones may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// INVITE sent or received, nothing else known.
    Calling,
    /// 180.
    Ringing,
    /// 183.
    Progress,
    /// 200, and its ACK.
    Up,
    /// A final answer that is not 200.
    Refused(u16),
    /// BYE, or CANCEL from the other side.
    Over,
}

/// What both ends of a dialog have to remember (RFC 3261, section 12).
#[derive(Default)]
struct Dialog {
    /// Our side, as From in what we send.
    local: String,
    /// Their side, as To in what we send; has a tag once they answered.
    remote: String,
    /// Where requests go: what was dialled, later their Contact.
    target: String,
    cseq: u32,
    /// Our last INVITE: its CSeq, URI and branch, which CANCEL and ACK repeat.
    invited: (u32, String, String),
    /// Their first INVITE, while it waits for our answer.
    invite: Option<Message>,
    /// Their last INVITE's CSeq and our last answer to it, should they ask again.
    answered: (u32, Vec<u8>),
    /// Who waits for the final answer to a request of ours.
    waiting: HashMap<(u32, String), oneshot::Sender<u16>>,
    /// Where they want their media.
    media: Option<SocketAddr>,
    sdp_version: u32,
}

impl Phone {
    /// A device of this name on these ports of loopback.
    pub async fn bind(user: &str, sip: u16, rtp: u16) -> Phone {
        let (ringing, rung) = mpsc::unbounded_channel();
        let phone = Phone(Arc::new(Device {
            user: user.into(),
            sip: UdpSocket::bind(("127.0.0.1", sip)).await.unwrap(),
            rtp: UdpSocket::bind(("127.0.0.1", rtp)).await.unwrap(),
            calls: Mutex::default(),
            ringing,
            rung: tokio::sync::Mutex::new(rung),
        }));
        tokio::spawn(phone.clone().listen());
        phone
    }

    /// Dials a number.
    pub async fn call(&self, number: &str) -> Call {
        self.dial(number, b"").await
    }

    /// Dials a number as a carrier does for one of its callers. `caller` is the
    /// value of P-Asserted-Identity, in whatever bytes.
    pub async fn call_for(&self, caller: &[u8], number: &str) -> Call {
        self.dial(number, &[b"P-Asserted-Identity: ", caller, b"\r\n"].concat()).await
    }

    async fn dial(&self, number: &str, extra: &[u8]) -> Call {
        let call = self.new_call(
            token(),
            Dialog {
                local: format!("<sip:{}@127.0.0.1>;tag={}", self.0.user, token()),
                remote: format!("<sip:{number}@{ASTERISK}>"),
                target: format!("sip:{number}@{ASTERISK}"),
                ..Dialog::default()
            },
        );
        let sdp = call.sdp("sendrecv");
        call.request("INVITE", extra, &sdp).await;
        call
    }

    /// The next call that Asterisk offers this device.
    pub async fn next_call(&self) -> Call {
        let mut rung = self.0.rung.lock().await;
        timeout(PATIENCE, rung.recv())
            .await
            .unwrap_or_else(|_| panic!("no call came to {}", self.0.user))
            .unwrap()
    }

    /// Forgets calls that came and that no scenario wanted; says how many.
    pub async fn forget_calls(&self) -> usize {
        let mut rung = self.0.rung.lock().await;
        std::iter::from_fn(|| rung.try_recv().ok()).count()
    }

    /// Lets its ports go once nothing else holds it: its calls hold it, and it holds them.
    pub fn unplug(&self) {
        self.0.calls.lock().unwrap().clear();
        while self.0.rung.try_lock().is_ok_and(|mut rung| rung.try_recv().is_ok()) {}
    }

    /// Sends a text; gives Asterisk's answer.
    pub async fn message(&self, to: &str, body: &str) -> u16 {
        let call = self.new_call(
            token(),
            Dialog {
                local: format!("<sip:{}@127.0.0.1>;tag={}", self.0.user, token()),
                remote: format!("<sip:{to}@{ASTERISK}>"),
                target: format!("sip:{to}@{ASTERISK}"),
                ..Dialog::default()
            },
        );
        let body = [b"Content-Type: text/plain\r\n\r\n", body.as_bytes()].concat();
        call.ask("MESSAGE", b"", &body).await
    }

    fn new_call(&self, id: String, dialog: Dialog) -> Call {
        let call = Call {
            phone: self.clone(),
            id: id.clone(),
            state: watch::channel(State::Calling).0,
            dialog: Arc::new(Mutex::new(dialog)),
        };
        self.0.calls.lock().unwrap().insert(id, call.clone());
        call
    }

    async fn send(&self, packet: &[u8]) {
        self.0.sip.send_to(packet, ASTERISK).await.unwrap();
    }

    async fn listen(self) {
        let mut buffer = vec![0; 65536];
        loop {
            // An error here is an ICMP answer to something sent before: Asterisk
            // is gone or not there yet, which the waiting side will notice.
            let Ok((length, _)) = self.0.sip.recv_from(&mut buffer).await else {
                continue;
            };
            let Some(message) = Message::parse(&buffer[..length]) else {
                continue;
            };
            let id = message.header("Call-ID");
            let call = self.0.calls.lock().unwrap().get(&id).cloned();
            match (message.code(), call) {
                (Some(code), Some(call)) => call.on_answer(code, &message).await,
                (Some(_), None) => {}
                (None, Some(call)) => call.on_request(message).await,
                (None, None) => self.on_stranger(message).await,
            }
        }
    }

    /// A request outside of any call we know.
    async fn on_stranger(&self, message: Message) {
        match message.method() {
            "INVITE" => {
                let call = self.new_call(
                    message.header("Call-ID"),
                    Dialog {
                        local: format!("{};tag={}", message.header("To"), token()),
                        remote: message.header("From"),
                        target: message.contact(),
                        media: message.media(),
                        ..Dialog::default()
                    },
                );
                call.dialog.lock().unwrap().invite = Some(message);
                call.answer_invite(100, "Trying", b"", b"").await;
                // The device lives as long as its own listener: it is there.
                let _ = self.0.ringing.send(call);
            }
            "ACK" => {}
            _ => {
                let to = format!("{};tag={}", message.header("To"), token());
                self.send(&message.answer(200, "OK", &to, b"", b"")).await;
            }
        }
    }
}

impl Call {
    /// Waits until the call is in this state; any other end is a failure.
    pub async fn becomes(&self, wanted: State) {
        let mut state = self.state.subscribe();
        let over = |s: &State| *s == wanted || matches!(s, State::Refused(_) | State::Over);
        let reached = timeout(PATIENCE, state.wait_for(over)).await;
        let now = *self.state.borrow();
        assert!(
            reached.is_ok() && now == wanted,
            "call of {} should be {wanted:?} and is {now:?}",
            self.phone.0.user
        );
    }

    /// The number of the party that called us.
    pub fn caller(&self) -> String {
        let dialog = self.dialog.lock().unwrap();
        let number = dialog.remote.split_once("sip:").and_then(|(_, uri)| uri.split_once('@'));
        number.map(|(number, _)| number.to_owned()).unwrap_or_default()
    }

    /// 180.
    pub async fn ring(&self) {
        self.answer_invite(180, "Ringing", &self.contact(), b"").await;
    }

    /// 183 with early media.
    pub async fn progress(&self) {
        let sdp = self.sdp("sendrecv");
        self.answer_invite(183, "Session Progress", &self.contact(), &sdp).await;
    }

    /// 200, up to its ACK.
    pub async fn answer(&self) {
        let sdp = self.sdp("sendrecv");
        self.answer_invite(200, "OK", &self.contact(), &sdp).await;
        self.becomes(State::Up).await;
    }

    /// A final answer that is not 200.
    pub async fn refuse(&self, code: u16) {
        self.state.send_replace(State::Refused(code));
        self.answer_invite(code, "No", b"", b"").await;
    }

    /// 302: the phone is forwarded to another number.
    pub async fn forward(&self, number: &str) {
        let contact = format!("Contact: <sip:{number}@{ASTERISK}>\r\n");
        self.state.send_replace(State::Refused(302));
        self.answer_invite(302, "Moved Temporarily", contact.as_bytes(), b"").await;
    }

    /// The caller gives up before an answer.
    pub async fn cancel(&self) {
        assert_eq!(self.ask("CANCEL", b"", b"").await, 200);
        self.becomes(State::Refused(487)).await;
    }

    /// BYE.
    pub async fn hang_up(&self) {
        let code = self.ask("BYE", b"", b"").await;
        assert!(code == 200 || code == 481, "BYE got {code}");
        self.state.send_replace(State::Over);
    }

    /// Ends our side of a call that Asterisk has handed on. It keeps the dialog
    /// for news of the transfer; a phone with another call to take lets it go.
    pub async fn let_go(&self) {
        if *self.state.borrow() == State::Up {
            self.hang_up().await;
        }
    }

    /// Puts the other side on hold.
    pub async fn hold(&self) {
        let sdp = self.sdp("sendonly");
        assert_eq!(self.ask("INVITE", b"", &sdp).await, 200);
    }

    /// Takes the other side back.
    pub async fn unhold(&self) {
        let sdp = self.sdp("sendrecv");
        assert_eq!(self.ask("INVITE", b"", &sdp).await, 200);
    }

    /// Hands the other side to a number; gives Asterisk's answer to REFER.
    pub async fn transfer(&self, number: &str) -> u16 {
        self.refer(&format!("<sip:{number}@{ASTERISK}>")).await
    }

    /// Hands the other side to the other side of `consulted`.
    pub async fn transfer_to(&self, consulted: &Call) -> u16 {
        // Asterisk is the party replaced: the tag that is ours is "from" to it.
        let refer_to = {
            let dialog = consulted.dialog.lock().unwrap();
            format!(
                "<{}?Replaces={}%3Bto-tag%3D{}%3Bfrom-tag%3D{}>",
                dialog.target,
                consulted.id,
                tag(&dialog.remote),
                tag(&dialog.local)
            )
        };
        self.refer(&refer_to).await
    }

    async fn refer(&self, refer_to: &str) -> u16 {
        let extra = format!("Refer-To: {refer_to}\r\n");
        self.ask("REFER", extra.as_bytes(), b"").await
    }

    /// Presses keys, as INFO.
    pub async fn press(&self, keys: &str) {
        for key in keys.chars() {
            let body =
                format!("Content-Type: application/dtmf-relay\r\n\r\nSignal={key}\r\nDuration=160\r\n");
            assert_eq!(self.ask("INFO", b"", body.as_bytes()).await, 200);
            // Asterisk plays the key to the other side before it takes the next.
            tokio::time::sleep(Duration::from_millis(240)).await;
        }
    }

    /// Sends silence for as long as the call is up: Local channels are optimised
    /// away only when media flows through them.
    pub fn talk(&self) {
        let call = self.clone();
        tokio::spawn(async move {
            let mut packet = [0xff; 12 + 160]; // 0xff is silence in G.711 µ-law
            packet[..2].copy_from_slice(&[0x80, 0]);
            packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            for count in 0_u16.. {
                ticks.tick().await;
                if matches!(*call.state.borrow(), State::Refused(_) | State::Over) {
                    break;
                }
                packet[2..4].copy_from_slice(&count.to_be_bytes());
                packet[4..8].copy_from_slice(&(u32::from(count) * 160).to_be_bytes());
                let media = call.dialog.lock().unwrap().media;
                if let Some(media) = media {
                    // Lost silence is silence.
                    let _ = call.phone.0.rtp.send_to(&packet, media).await;
                }
            }
        });
    }

    /// Sends a request and waits for its final answer.
    async fn ask(&self, method: &'static str, extra: &[u8], body: &[u8]) -> u16 {
        let answer = self.request(method, extra, body).await;
        timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer to {method} of {}", self.phone.0.user))
            .unwrap()
    }

    /// Sends a request. `body` begins with its Content-Type line, or is empty.
    async fn request(&self, method: &'static str, extra: &[u8], body: &[u8]) -> oneshot::Receiver<u16> {
        let (waiter, answer) = oneshot::channel();
        let packet = {
            let mut dialog = self.dialog.lock().unwrap();
            let (cseq, uri, branch) = if method == "CANCEL" {
                dialog.invited.clone()
            } else {
                dialog.cseq += 1;
                (dialog.cseq, dialog.target.clone(), format!("z9hG4bK{}", token()))
            };
            if method == "INVITE" {
                dialog.invited = (cseq, uri.clone(), branch.clone());
            }
            dialog.waiting.insert((cseq, method.into()), waiter);
            self.packet(&dialog, method, cseq, &uri, &branch, extra, body)
        };
        self.phone.send(&packet).await;
        answer
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a SIP request, used once")]
    fn packet(
        &self,
        dialog: &Dialog,
        method: &str,
        cseq: u32,
        uri: &str,
        branch: &str,
        extra: &[u8],
        body: &[u8],
    ) -> Vec<u8> {
        let user = &self.phone.0.user;
        let here = self.phone.0.sip.local_addr().unwrap();
        let mut packet = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {here};branch={branch}\r\n\
             Max-Forwards: 70\r\n\
             From: {}\r\n\
             To: {}\r\n\
             Call-ID: {}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:{user}@{here}>\r\n",
            dialog.local, dialog.remote, self.id
        )
        .into_bytes();
        packet.extend_from_slice(extra);
        push_body(&mut packet, body);
        packet
    }

    /// Answers the INVITE with which Asterisk began this call.
    async fn answer_invite(&self, code: u16, reason: &str, contact: &[u8], body: &[u8]) {
        let answer = {
            let mut dialog = self.dialog.lock().unwrap();
            let invite = dialog.invite.as_ref().expect("Asterisk began this call");
            let to = if code == 100 { invite.header("To") } else { dialog.local.clone() };
            let answer = invite.answer(code, reason, &to, contact, body);
            dialog.answered = (invite.cseq().0, answer.clone());
            answer
        };
        self.phone.send(&answer).await;
    }

    async fn on_request(&self, message: Message) {
        let (cseq, _) = message.cseq();
        match message.method() {
            "ACK" => {
                self.state.send_if_modified(|state| {
                    let answered = !matches!(state, State::Refused(_) | State::Over);
                    if answered {
                        *state = State::Up;
                    }
                    answered
                });
            }
            "INVITE" => {
                let (seen, answer) = self.dialog.lock().unwrap().answered.clone();
                if seen == cseq {
                    self.phone.send(&answer).await;
                } else {
                    // Somebody else is at the other end now, or on hold.
                    let sdp = self.sdp("sendrecv");
                    let answer = {
                        let mut dialog = self.dialog.lock().unwrap();
                        dialog.media = message.media().or(dialog.media);
                        let answer = message.answer(200, "OK", &dialog.local, &self.contact(), &sdp);
                        dialog.answered = (cseq, answer.clone());
                        answer
                    };
                    self.phone.send(&answer).await;
                }
            }
            "CANCEL" => {
                self.accept(&message).await;
                self.state.send_replace(State::Over);
                self.answer_invite(487, "Request Terminated", b"", b"").await;
            }
            "BYE" => {
                self.accept(&message).await;
                self.state.send_replace(State::Over);
            }
            "UPDATE" if message.media().is_some() => {
                let sdp = self.sdp("sendrecv");
                let local = self.dialog.lock().unwrap().local.clone();
                let answer = message.answer(200, "OK", &local, &self.contact(), &sdp);
                self.phone.send(&answer).await;
            }
            _ => self.accept(&message).await,
        }
    }

    async fn accept(&self, message: &Message) {
        let local = self.dialog.lock().unwrap().local.clone();
        let answer = message.answer(200, "OK", &local, &self.contact(), b"");
        self.phone.send(&answer).await;
    }

    async fn on_answer(&self, code: u16, message: &Message) {
        let (cseq, method) = message.cseq();
        let (first, ack) = {
            let mut dialog = self.dialog.lock().unwrap();
            if code > 100 && method != "CANCEL" {
                dialog.remote = message.header("To");
            }
            let ack = (method == "INVITE" && code >= 200).then(|| {
                let (cseq, uri, branch) = dialog.invited.clone();
                if code < 300 {
                    dialog.target = message.contact();
                    dialog.media = message.media().or(dialog.media);
                    let branch = format!("z9hG4bK{}", token());
                    self.packet(&dialog, "ACK", cseq, &dialog.target, &branch, b"", b"")
                } else {
                    self.packet(&dialog, "ACK", cseq, &uri, &branch, b"", b"")
                }
            });
            let first = method == "INVITE" && cseq == 1 && dialog.invite.is_none();
            if code >= 200
                && let Some(waiter) = dialog.waiting.remove(&(cseq, method))
            {
                // Nobody waits for the answer to a first INVITE: its state tells.
                let _ = waiter.send(code);
            }
            (first, ack)
        };
        if let Some(ack) = ack {
            self.phone.send(&ack).await;
        }
        if first {
            match code {
                180 => self.state.send_replace(State::Ringing),
                183 => self.state.send_replace(State::Progress),
                200..300 => self.state.send_replace(State::Up),
                300.. => self.state.send_replace(State::Refused(code)),
                _ => return,
            };
        }
    }

    fn contact(&self) -> Vec<u8> {
        let here = self.phone.0.sip.local_addr().unwrap();
        format!("Contact: <sip:{}@{here}>\r\n", self.phone.0.user).into_bytes()
    }

    /// An offer or answer: µ-law at our RTP port. With its Content-Type.
    fn sdp(&self, direction: &str) -> Vec<u8> {
        let version = {
            let mut dialog = self.dialog.lock().unwrap();
            dialog.sdp_version += 1;
            dialog.sdp_version
        };
        let port = self.phone.0.rtp.local_addr().unwrap().port();
        format!(
            "Content-Type: application/sdp\r\n\r\n\
             v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na={direction}\r\n"
        )
        .into_bytes()
    }
}

/// A request or an answer, taken apart just enough.
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Message {
    fn parse(packet: &[u8]) -> Option<Message> {
        let text = String::from_utf8_lossy(packet);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        Some(Message {
            start: lines.next()?.into(),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.trim().into(), value.trim().into()))
                .collect(),
            body: body.into(),
        })
    }

    fn header(&self, wanted: &str) -> String {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    fn code(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    fn cseq(&self) -> (u32, String) {
        let value = self.header("CSeq");
        let (number, method) = value.split_once(' ').unwrap_or_default();
        (number.parse().unwrap_or_default(), method.into())
    }

    /// The URI of Contact.
    fn contact(&self) -> String {
        let value = self.header("Contact");
        let uri = value.split_once('<').map_or(value.as_str(), |(_, rest)| rest);
        uri.split('>').next().unwrap_or_default().into()
    }

    /// Where the SDP wants its media.
    fn media(&self) -> Option<SocketAddr> {
        let line = |prefix| self.body.lines().find_map(|line| line.strip_prefix(prefix));
        let port = line("m=audio ")?.split(' ').next()?.parse().ok()?;
        Some(SocketAddr::new(line("c=IN IP4 ")?.trim().parse().ok()?, port))
    }

    fn answer(&self, code: u16, reason: &str, to: &str, extra: &[u8], body: &[u8]) -> Vec<u8> {
        let mut packet = format!("SIP/2.0 {code} {reason}\r\n").into_bytes();
        for (name, value) in &self.headers {
            if ["via", "from", "call-id", "cseq"].contains(&name.to_lowercase().as_str()) {
                write!(packet, "{name}: {value}\r\n").unwrap();
            }
        }
        // Inside a dialog their To carries our tag already, and is ours verbatim.
        let to = if self.header("To").contains(";tag=") { self.header("To") } else { to.into() };
        write!(packet, "To: {to}\r\n").unwrap();
        packet.extend_from_slice(extra);
        push_body(&mut packet, body);
        packet
    }
}

/// Ends a packet: with its body, which begins with its Content-Type line, or
/// without one.
fn push_body(packet: &mut Vec<u8>, body: &[u8]) {
    let end_of_type = body.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (kind, content) = end_of_type.map_or((&b""[..], &b""[..]), |at| (&body[..at + 2], &body[at + 4..]));
    packet.extend_from_slice(kind);
    write!(packet, "Content-Length: {}\r\n\r\n", content.len()).unwrap();
    packet.extend_from_slice(content);
}

fn tag(party: &str) -> &str {
    party.split_once(";tag=").map_or("", |(_, tag)| tag)
}

/// Unlike any other that this Asterisk sees.
fn token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
