//! Stub BOSH nodes: as cheap as can be, and strict about what a balancer must get right.
//!
//! A creation gets a session, a request with a payload gets that payload back, an empty poll is
//! held until its connection ends, a `terminate` is answered. A sid names the node that made it,
//! so a request at the wrong node is seen (and answered as Tigase does, 404), and each connection
//! remembers the session that it served first, so that shared connections are seen too.
//!
//! The other suites use `bowline::demo::node`. Here node and load share a core, and what they take is
//! missing from the load: so this one has no record, no timers and no choice of behaviour.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::wire::{self, Read};

const OPEN: &[u8] = b"<body xmlns='http://jabber.org/protocol/httpbind'>";
const CLOSE: &[u8] = b"</body>";
const ENDED: &[u8] = b"<body type='terminate' xmlns='http://jabber.org/protocol/httpbind'/>";
const UNKNOWN: &[u8] =
    b"<body type='terminate' condition='item-not-found' xmlns='http://jabber.org/protocol/httpbind'/>";

/// What the nodes have seen, all of them together.
#[derive(Debug, Default)]
struct Seen {
    made: Cell<u64>,
    held: Cell<u64>,
    misrouted: Cell<u64>,
    shared: Cell<u64>,
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// One node.
#[derive(Debug)]
struct Stub {
    /// What its sids begin with.
    prefix: String,
    seen: Rc<Seen>,
}

/// Serves `count` nodes, each at a loopback address of its own, until stdin ends. The first line
/// of stdout says where they are.
pub(crate) async fn serve(count: usize) -> Result<()> {
    let seen = Rc::new(Seen::default());
    let local = tokio::task::LocalSet::new();
    let mut addresses = Vec::new();
    for number in 0..count {
        let last = u8::try_from(number + 1)?;
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 2, last)), 0);
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(address)?;
        let listener = socket.listen(4096)?;
        addresses.push(listener.local_addr()?.to_string());
        let stub = Stub {
            prefix: format!("{number:08x}"),
            seen: Rc::clone(&seen),
        };
        local.spawn_local(accept(listener, Rc::new(stub)));
    }
    println!("{}", addresses.join(" "));
    std::io::stdout().flush()?;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Ends when whoever started the nodes closes their stdin, or is gone.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    // An error is the sender's end, which is what is waited for.
    let _ = local.run_until(end).await;
    Ok(())
}

async fn accept(listener: TcpListener, stub: Rc<Stub>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::task::spawn_local(connection(stream, Rc::clone(&stub)));
    }
}

/// One connection of a node. Whatever goes wrong ends it.
async fn connection(mut stream: TcpStream, stub: Rc<Stub>) {
    // Without it the benchmark is slow but not wrong.
    let _ = stream.set_nodelay(true);
    let mut owner = Vec::new();
    let mut answer = Vec::new();
    let mut bytes = Vec::with_capacity(4096);
    loop {
        bytes.clear();
        answer.clear();
        let Some(message) = whole(&mut stream, &mut bytes).await else {
            return;
        };
        if bytes.starts_with(b"GET /xmpp-websocket ") {
            tunnel(&mut stream, &stub).await;
            return;
        }
        let close = bytes.starts_with(b"GET") || is_http_1_0(&bytes[..message.body]);
        if !stub.reply(&bytes, message, &mut owner, &mut answer) {
            add(&stub.seen.held);
            let mut end = [0; 1];
            let _ = stream.read(&mut end).await;
            stub.seen.held.set(stub.seen.held.get() - 1);
            return;
        }
        if stream.write_all(&answer).await.is_err() || close {
            return;
        }
    }
}

/// Agrees to a WebSocket, for the key that all clients of the benchmark have, and is silent until its end.
async fn tunnel(stream: &mut TcpStream, stub: &Stub) {
    const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: xmpp\r\n\r\n";
    if stream.write_all(AGREED).await.is_ok() {
        add(&stub.seen.held);
        while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
        stub.seen.held.set(stub.seen.held.get() - 1);
    }
}

/// An nginx without keep-alive speaks HTTP/1.0 upstream and waits for the end of the connection.
fn is_http_1_0(head: &[u8]) -> bool {
    let line = head.iter().position(|byte| *byte == b'\r').unwrap_or(0);
    head[..line].ends_with(b"HTTP/1.0")
}

/// Reads one request. None when the connection is over.
async fn whole(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<wire::Message> {
    loop {
        match wire::read(bytes) {
            Read::Whole(message) => return Some(message),
            Read::Broken => return None,
            Read::Partial => {}
        }
        bytes.reserve(1024);
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

impl Stub {
    /// Writes the answer to a request; false if the request is to be held. `owner` is the sid
    /// that the connection served last.
    fn reply(
        &self,
        bytes: &[u8],
        message: wire::Message,
        owner: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> bool {
        if bytes.starts_with(b"GET") {
            self.seen.tell(answer);
            return true;
        }
        let Some((tag, inside)) = wire::parts(&bytes[message.body..message.end]) else {
            write(answer, "400 Bad Request", &[UNKNOWN]);
            return true;
        };
        let Some(sid) = wire::attribute(tag, b" sid=") else {
            let sid = self.create();
            self.own(sid.as_bytes(), owner);
            write(answer, "200 OK", &[creation(&sid).as_bytes()]);
            return true;
        };
        if !sid.starts_with(self.prefix.as_bytes()) {
            // A probe's made-up sid is nobody's; one that starts with zeros belongs elsewhere.
            if sid.starts_with(b"000000") {
                add(&self.seen.misrouted);
            }
            write(answer, "404 Invalid SID", &[UNKNOWN]);
            return true;
        }
        self.own(sid, owner);
        if wire::attribute(tag, b" type=") == Some(b"terminate") {
            write(answer, "200 OK", &[ENDED]);
        } else if inside.is_empty() {
            return false;
        } else {
            write(answer, "200 OK", &[OPEN, inside, CLOSE]);
        }
        true
    }

    /// A sid of the length that Tigase's have.
    fn create(&self) -> String {
        add(&self.seen.made);
        format!(
            "{}-0000-4000-8000-{:012x}",
            self.prefix,
            self.seen.made.get()
        )
    }

    /// Counts a request on a connection that had another session's requests on it.
    fn own(&self, sid: &[u8], owner: &mut Vec<u8>) {
        if owner != sid {
            if !owner.is_empty() {
                add(&self.seen.shared);
            }
            owner.clear();
            owner.extend_from_slice(sid);
        }
    }
}

impl Seen {
    /// What has been seen, for whoever asks with GET; `nodes` reads it.
    fn tell(&self, answer: &mut Vec<u8>) {
        let counters = [&self.held, &self.misrouted, &self.shared];
        let text: Vec<String> = counters
            .iter()
            .map(|counter| counter.get().to_string())
            .collect();
        write(answer, "200 OK", &[text.join(" ").as_bytes()]);
    }
}

fn creation(sid: &str) -> String {
    format!(
        "<body sid='{sid}' wait='60' requests='2' hold='1' inactivity='10' polling='5' \
         maxpause='10' ver='1.6' from='bench.example' authid='{sid}' secure='true' \
         xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' \
         xmlns:stream='http://etherx.jabber.org/streams' \
         xmlns='http://jabber.org/protocol/httpbind'/>"
    )
}

fn write(answer: &mut Vec<u8>, status: &str, body: &[&[u8]]) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {length}\r\n\r\n"
    );
    answer.extend_from_slice(head.as_bytes());
    for part in body {
        answer.extend_from_slice(part);
    }
}
