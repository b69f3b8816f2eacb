//! One connection of a simulated node: its socket, what is to be written, and the task that serves
//! it. While a poll is held it keeps no buffer.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{Answer, Voice};
use super::fault::{Ending, Manner, Step};
use super::http::Requests;
use super::profile::Software;
use super::server::Server;
use super::session::Line;
use super::socket::Socket;
use super::xml::Scanner;

/// The bytes of a part of a request.
const PART: usize = 16;

/// One connection, as the hub and its task share it.
pub(super) struct Connection {
    pub(super) line: Line,
    pub(super) node: u32,
    pub(super) voice: Arc<Voice>,
    socket: Socket,
    outbox: Mutex<VecDeque<Step>>,
    wake: Notify,
    asked: AtomicU64,
    answered: AtomicU64,
    users: Mutex<Vec<Arc<str>>>,
}

impl Connection {
    pub(super) fn new(line: Line, node: u32, voice: Arc<Voice>, socket: Socket) -> Self {
        Self {
            line,
            node,
            voice,
            socket,
            outbox: Mutex::default(),
            wake: Notify::new(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            users: Mutex::default(),
        }
    }

    /// Writes an answer, soon.
    pub(super) fn answer(&self, answer: &Answer, manner: &Manner) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.put(self.voice.write(answer, manner));
    }

    /// Counts an answer that is put in as bytes.
    pub(super) fn answered_raw(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Does these things, soon.
    pub(super) fn put(&self, outs: impl IntoIterator<Item = Step>) {
        self.outbox().extend(outs);
        self.wake.notify_one();
    }

    /// Ends with EOF once everything is written.
    pub(super) fn end(&self) {
        self.put([Step::End(Ending::Eof)]);
    }

    /// Lets the task look around.
    pub(super) fn stir(&self) {
        self.wake.notify_one();
    }

    /// Makes the end of the connection, when it comes, a reset.
    pub(super) fn reset_at_end(&self) {
        self.socket.reset_at_end();
    }

    /// Counts a request; how many there were before.
    pub(super) fn count_request(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a session uses it.
    pub(super) fn used_by(&self, sid: &Arc<str>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if !users.contains(sid) {
            users.push(Arc::clone(sid));
        }
    }

    /// The sessions that used it.
    pub(super) fn users(&self) -> Vec<Arc<str>> {
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request waits for its answer.
    fn is_busy(&self) -> bool {
        self.answered.load(Ordering::Relaxed) < self.asked.load(Ordering::Relaxed)
    }

    /// Writes what there is to write. False once the connection has ended.
    async fn flush(&self, server: &Server) -> io::Result<bool> {
        loop {
            server.thawed().await;
            let Some(out) = self.outbox().pop_front() else {
                return Ok(true);
            };
            match out {
                Step::Bytes(bytes) => self.socket.write(&bytes).await?,
                Step::Bytewise(bytes) => {
                    for byte in &bytes {
                        self.socket.write(std::slice::from_ref(byte)).await?;
                        tokio::task::yield_now().await;
                    }
                }
                Step::Pause(pause) => sleep(pause).await,
                Step::Stall => {}
                Step::Repeat {
                    bytes,
                    times,
                    pause,
                } => {
                    for _ in 0..times {
                        self.socket.write(&bytes).await?;
                        if !pause.is_zero() {
                            sleep(pause).await;
                        }
                    }
                }
                Step::End(Ending::Eof) => {
                    self.socket.end().await?;
                    return Ok(false);
                }
                Step::End(Ending::Reset) => {
                    self.reset_at_end();
                    return Ok(false);
                }
            }
        }
    }

    /// Reads what has come; how much, and `None` where it was a false alarm.
    fn read(&self, reader: &mut Reader, server: &Server) -> io::Result<Option<usize>> {
        let mut buffer = [0; 16 * 1024];
        // No request is whole in this part.
        let most = if server.meets_parts() {
            PART
        } else {
            buffer.len()
        };
        match self.socket.try_read(&mut buffer[..most]) {
            Ok(count) => {
                server.came(self.line, &buffer[..count]);
                reader.feed(&buffer[..count]);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

enum Reader {
    Xml(Scanner),
    Http(Requests),
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Xml(scanner) => scanner.feed(bytes),
            Self::Http(requests) => requests.feed(bytes),
        }
    }

    /// Hears out what is complete. An HTTP server takes one request at a time.
    fn hear(&mut self, connection: &Connection, server: &Server, read: u64) {
        match self {
            Self::Xml(scanner) => {
                while let Some(found) = scanner.next() {
                    server.hear_xml(connection, read, found);
                }
            }
            Self::Http(requests) => {
                while !connection.is_busy()
                    && let Some(asked) = requests.next()
                {
                    server.hear_http(connection, read, asked, requests.has_rest());
                }
                if !connection.is_busy()
                    && requests.has_rest()
                    && let Some(steps) = server.steps_at_part()
                {
                    connection.put(steps);
                }
            }
        }
    }
}

/// Takes the connection out of the hub when its task ends, however it ends.
pub(super) struct Presence {
    connection: Option<Arc<Connection>>,
    server: Arc<Server>,
}

impl Presence {
    pub(super) fn new(connection: Arc<Connection>, server: &Arc<Server>) -> Self {
        Self {
            connection: Some(connection),
            server: Arc::clone(server),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let line = connection.line;
            self.server.hub.disconnect(line, Instant::now());
            drop(connection);
            self.server.closed(line);
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(presence: Presence) {
    if let Some(connection) = &presence.connection {
        // An error is an end like any other here.
        let _ = converse(connection, &presence.server).await;
    }
}

async fn converse(connection: &Connection, server: &Server) -> io::Result<()> {
    let mut reader = match connection.voice.software {
        Software::Tigase => Reader::Xml(Scanner::new()),
        Software::Prosody | Software::Ejabberd => Reader::Http(Requests::default()),
    };
    let mut open = true;
    let mut reads = 0_u64;
    loop {
        if !connection.flush(server).await? {
            return Ok(());
        }
        reader.hear(connection, server, reads);
        if !connection.outbox().is_empty() {
            continue;
        }
        if !open && !connection.is_busy() {
            return Ok(());
        }
        let idle = server
            .idle_limit()
            .filter(|_| !connection.is_busy() && reads > 0);
        let idle = idle.map(|limit| Instant::now() + limit);
        let listening = open && !server.is_deaf();
        tokio::select! {
            // In memory the same events come in the same order each time.
            biased;
            () = connection.wake.notified() => {}
            ready = connection.socket.readable(), if listening => {
                ready?;
                server.thawed().await;
                match connection.read(&mut reader, server)? {
                    Some(0) if server.notices_gone() => {
                        // What was decided before it saw the end still goes out, as at a real node.
                        connection.flush(server).await?;
                        return Ok(());
                    }
                    Some(0) => open = false,
                    Some(_) => reads += 1,
                    None => {}
                }
            }
            () = sleep_until(idle.unwrap_or_else(Instant::now)), if idle.is_some() => {
                if server.spend_idle() {
                    connection.end();
                }
            }
        }
    }
}
