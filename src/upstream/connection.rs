//! One TCP connection to a node: open it, send a request, receive an answer, see if it is quiet.
//!
//! A connection knows whether it is fit for another exchange, so that an exchange that was given
//! up, or that left doubt about the next byte, can never be followed by one of its successors.
//! It never sends again and never decides for whom it is: its owner does.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::race::{Candidates, connect_any};
use super::stream::{NodeStream, Opening};
use super::{Error, Heard, Reader, Response};
use crate::http1::WantedFields;

/// The most bytes taken by one read.
const READ: usize = 16 * 1024;

/// One connection to a node, owned by one session.
#[derive(Debug)]
pub struct Connection {
    stream: NodeStream,
    state: State,
    /// Whether an exchange was completed here before.
    reused: bool,
    /// Raised by each byte that comes; nothing where that is of no interest.
    heard: Option<Heard>,
    /// Whether TCP sees to it that the node is there.
    watched: bool,
}

/// Where in an exchange a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between exchanges.
    Idle,
    /// A request is being sent.
    Sending,
    /// The request was sent, no byte came back.
    Sent,
    /// An answer is being read.
    Answering,
    /// Not fit for another exchange.
    Spent,
}

/// A request on its way to the node.
#[derive(Debug)]
pub struct Sending {
    /// Bytes that the kernel took.
    sent: usize,
    /// The node said something before it was asked.
    early: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The wait for the response to a request that was sent. While no byte has come it holds no buffer.
#[derive(Debug)]
pub struct Receiving {
    partial: Option<Box<Partial>>,
    half_close: HalfClose,
    /// Another wait for this response was given up after its first byte.
    given_up: bool,
}

/// Whether our side of a connection is closed ahead of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HalfClose {
    No,
    /// At the next poll, if no byte has come by then.
    Asked,
    /// No byte has come since.
    Silent,
    /// The response has begun since.
    Answered,
}

/// What an answer takes that did not come in one piece.
#[derive(Debug)]
struct Partial {
    reader: Reader,
    /// When the answer must be complete; none after an interim answer alone.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Connects to the one of `candidates` that answers first, within `limit`: each gets a
    /// head start of 250 ms, or of its share of `limit` if that is less. If there are several,
    /// `note` hears of each that turned out to work or not.
    ///
    /// The connection sends without delay. TCP watches it only when its owner asks for that
    /// ([`watch`](Self::watch)): it takes five system calls, and many sessions of short exchanges
    /// never come to it.
    ///
    /// # Errors
    /// One for which [`Error::is_connect`] holds; of several, the one at the address that worked
    /// last, or else the one that says most about the node: `Tls`, `Refused`, then `ConnectTimeout`,
    /// `Unreachable`, `Local`. And `Closed`, ahead of all of them, if a connection came about and
    /// was reset at once.
    pub async fn open_any(
        candidates: &Candidates,
        limit: Duration,
        note: impl Fn(SocketAddr, bool) + Send,
    ) -> Result<Self, Error> {
        // Boxed, since a connect is rare and its timer would widen the future of every request.
        let stream = Box::pin(connect_any(candidates, limit, note)).await?;
        Ok(Self {
            stream,
            state: State::Idle,
            reused: false,
            heard: None,
            watched: false,
        })
    }

    /// The same for plain connections to addresses of which nothing is known and nothing is noted.
    ///
    /// # Errors
    /// Those of [`Connection::open_any`].
    pub async fn open(addresses: &[SocketAddr], limit: Duration) -> Result<Self, Error> {
        Self::open_any(&addresses.into(), limit, |_, _| ()).await
    }

    /// The same for one address, and a connection that begins with `opening`.
    ///
    /// # Errors
    /// Those of [`Connection::open_any`].
    pub async fn open_with(
        address: SocketAddr,
        opening: Opening,
        limit: Duration,
    ) -> Result<Self, Error> {
        let candidates = Candidates {
            opening,
            ..[address][..].into()
        };
        Self::open_any(&candidates, limit, |_, _| ()).await
    }

    /// Has each byte that comes raise `heard`.
    pub fn report_to(&mut self, heard: &Heard) {
        self.heard = Some(heard.clone());
    }

    /// The bare stream, for an exchange of another kind.
    pub fn into_stream(self) -> NodeStream {
        self.stream
    }

    /// The number of its file; the kernel gives the lowest that is free.
    pub fn file(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    /// Whether it has carried an exchange before; then a close without an answer may just mean
    /// that the node let go of an idle connection.
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether a byte of the answer to the present request has come back, for an owner that
    /// stops waiting.
    pub fn answer_began(&self) -> bool {
        self.state == State::Answering
    }

    /// Whether it is between exchanges, open, and no byte waits on it. To be asked before each
    /// [`send`](Self::send) on a kept connection; if it is not quiet, drop it.
    ///
    /// It makes a system call only if the reactor has reported something since the last read. What
    /// the reactor has not seen yet is not known, so a send may still meet a closed connection.
    pub fn is_quiet(&mut self) -> bool {
        let waits = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.state == State::Idle && self.stream.peek().is_err_and(|error| waits(&error))
    }

    /// Whether a byte waits on it, as far as the reactor has seen.
    fn has_unread(&mut self) -> bool {
        matches!(self.stream.peek(), Ok(1..))
    }

    /// Sends a whole request: one write, as a rule. A timer runs only if the kernel did not take
    /// all of it at once.
    ///
    /// Given up half way, the connection is spent.
    ///
    /// # Errors
    /// `Send`; `Closed` at once if the connection is not between exchanges; `Invalid` if the node
    /// answers before it has the whole request.
    pub fn send<'a>(
        &'a mut self,
        request: &'a [u8],
        limit: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        let mut sending = self.begin_send();
        poll_fn(move |cx| self.poll_send(cx, &mut sending, request, limit))
    }

    /// Begins to send a request, with [`poll_send`](Self::poll_send).
    pub fn begin_send(&mut self) -> Sending {
        let idle = self.state == State::Idle;
        self.state = if idle { State::Sending } else { State::Spent };
        Sending {
            sent: 0,
            // On a kept connection its owner has just looked.
            early: idle && !self.reused && self.has_unread(),
            deadline: None,
        }
    }

    /// Sends on. See [`send`](Self::send).
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        request: &[u8],
        limit: Duration,
    ) -> Poll<Result<(), Error>> {
        if self.state != State::Sending {
            return Poll::Ready(Err(Error::Closed(None)));
        }
        let result = if sending.early {
            Err(Error::EARLY)
        } else {
            ready!(self.poll_write(cx, request, limit, sending))
        };
        self.state = match result {
            Ok(()) => State::Sent,
            Err(_) => State::Spent,
        };
        Poll::Ready(result)
    }

    /// Receives the answer to the request that was sent, its body up to `max_answer` bytes.
    ///
    /// How long to wait for the first byte is the caller's to bound; from then on the answer must
    /// be complete within `finish`. An ordinary answer comes in one read and starts no timer.
    /// While nothing has come, no buffer is held and the future may be dropped and asked for
    /// again; later, dropping it spends the connection.
    ///
    /// # Errors
    /// `Closed` before any byte, later `Cut`, `Stalled`, `NotHttp`, `Invalid` or `TooLarge`.
    /// Without a request before it: `Closed`; after an answer that was given up: `Cut`.
    pub fn receive(
        &mut self,
        max_answer: usize,
        finish: Duration,
    ) -> impl Future<Output = Result<Response, Error>> + Send + '_ {
        self.receive_for(max_answer, WantedFields::NONE, finish)
    }

    /// The same, and the response keeps the fields `wanted`.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub fn receive_for<'a>(
        &'a mut self,
        max_answer: usize,
        wanted: &'a WantedFields,
        finish: Duration,
    ) -> impl Future<Output = Result<Response, Error>> + Send + 'a {
        let mut receiving = self.begin_receive();
        poll_fn(move |cx| self.poll_receive(cx, &mut receiving, (max_answer, wanted), finish))
    }

    /// Begins to receive, with [`poll_receive`](Self::poll_receive).
    pub fn begin_receive(&self) -> Receiving {
        Receiving {
            partial: None,
            half_close: HalfClose::No,
            given_up: self.state == State::Answering,
        }
    }

    /// Receives on. See [`receive`](Self::receive). The response keeps the fields `wanted`.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        receiving: &mut Receiving,
        (max_answer, wanted): (usize, &WantedFields),
        finish: Duration,
    ) -> Poll<Result<Response, Error>> {
        match self.state {
            State::Sent => {}
            State::Answering if !receiving.given_up => {}
            State::Answering => return Poll::Ready(Err(Error::Cut(None))),
            State::Idle | State::Sending | State::Spent => {
                return Poll::Ready(Err(Error::Closed(None)));
            }
        }
        if receiving.half_close == HalfClose::Asked && self.state == State::Sent {
            // If it fails, the connection is broken, which the next read shows.
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            receiving.half_close = HalfClose::Silent;
        }
        let read = self.poll_answer(cx, &mut receiving.partial, (max_answer, wanted), finish);
        let Poll::Ready(mut result) = read else {
            if receiving.half_close == HalfClose::Silent && self.state == State::Answering {
                receiving.half_close = HalfClose::Answered;
            }
            return Poll::Pending;
        };
        receiving.partial = None;
        let open = !matches!(
            receiving.half_close,
            HalfClose::Silent | HalfClose::Answered
        );
        if let Ok(answer) = &mut result {
            answer.reusable &= open;
        }
        let reusable = matches!(&result, Ok(answer) if answer.reusable);
        self.reused |= reusable;
        self.state = if reusable { State::Idle } else { State::Spent };
        Poll::Ready(result)
    }

    /// Whether the node has the request, and no byte of the response has come.
    pub fn awaits_first_byte(&self) -> bool {
        self.state == State::Sent
    }

    /// Has TCP notice when the node is gone, from now on. A socket that refuses an option still
    /// works, so refusals are passed over.
    pub fn watch(&mut self) {
        if !std::mem::replace(&mut self.watched, true) {
            self.stream.watch();
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        request: &[u8],
        limit: Duration,
        sending: &mut Sending,
    ) -> Poll<Result<(), Error>> {
        let Sending { sent, deadline, .. } = sending;
        while *sent < request.len() || self.stream.buffers() {
            let stream = Pin::new(&mut self.stream);
            let written = if *sent < request.len() {
                stream.poll_write(cx, &request[*sent..])
            } else {
                match stream.poll_flush(cx) {
                    Poll::Ready(Ok(())) => break,
                    flushed => flushed.map_ok(|()| 0),
                }
            };
            let source = match written {
                Poll::Ready(Ok(0)) => io::ErrorKind::WriteZero.into(),
                Poll::Ready(Ok(taken)) => {
                    *sent += taken;
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    if matches!(self.stream.poll_peek(cx), Poll::Ready(Ok(1..))) {
                        return Poll::Ready(Err(Error::EARLY));
                    }
                    let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
                    ready!(deadline.as_mut().poll(cx));
                    io::ErrorKind::TimedOut.into()
                }
            };
            return Poll::Ready(Err(Error::Send {
                sent: *sent,
                source,
            }));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there. The buffer lives on the stack of this call, so that a connection that
    /// waits holds none; tokio's `poll_read` (unlike `try_read`) knows from a short read that the
    /// socket is empty, which saves the second system call.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        partial: &mut Option<Box<Partial>>,
        (max_answer, wanted): (usize, &WantedFields),
        finish: Duration,
    ) -> Poll<Result<Response, Error>> {
        let mut room = [const { MaybeUninit::uninit() }; READ];
        loop {
            // The deadline first: a node whose bytes never stop must not hold it off.
            if poll_deadline(partial, cx).is_ready() {
                return Poll::Ready(Err(Error::Stalled));
            }
            let mut buffer = ReadBuf::uninit(&mut room);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if let Err(error) = read {
                return Poll::Ready(Err(broken(self.state, error)));
            }
            if buffer.filled().is_empty() {
                let reader = match partial.take() {
                    Some(partial) => partial.reader,
                    None => Reader::new(max_answer),
                };
                return Poll::Ready(reader.end());
            }
            self.state = State::Answering;
            if let Some(heard) = &self.heard {
                heard.note();
            }
            if let Some(result) = take(partial, buffer.filled(), (max_answer, wanted), finish) {
                return Poll::Ready(result);
            }
        }
    }
}

impl Receiving {
    /// Asks to give up the place at the node: our side of the connection is closed if no byte of the
    /// response has come. It may still come, and is the last one here.
    pub fn half_close(&mut self) {
        if self.half_close == HalfClose::No {
            self.half_close = HalfClose::Asked;
        }
    }

    /// Whether our side was closed, and no byte has come at all.
    pub fn is_silent(&self) -> bool {
        self.half_close == HalfClose::Silent
    }

    /// Whether our side was closed.
    pub fn is_half_closed(&self) -> bool {
        matches!(self.half_close, HalfClose::Silent | HalfClose::Answered)
    }
}

/// Hands `bytes` to the reader; keeps it, and a deadline, if the answer is not complete.
fn take(
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    (max_answer, wanted): (usize, &WantedFields),
    finish: Duration,
) -> Option<Result<Response, Error>> {
    let Some(partial) = partial else {
        let mut reader = Reader::new(max_answer);
        let result = reader.push_for(bytes, wanted).transpose();
        if result.is_none() {
            let deadline = reader.has_begun().then(|| Box::pin(sleep(finish)));
            *partial = Some(Box::new(Partial { reader, deadline }));
        }
        return result;
    };
    let result = partial.reader.push_for(bytes, wanted).transpose();
    if !partial.reader.has_begun() {
        partial.deadline = None;
    } else if result.is_none() && partial.deadline.is_none() {
        partial.deadline = Some(Box::pin(sleep(finish)));
    }
    result
}

/// Ready when an answer that began is not to be waited for any more.
fn poll_deadline(partial: &mut Option<Box<Partial>>, cx: &mut Context<'_>) -> Poll<()> {
    match partial.as_mut().and_then(|p| p.deadline.as_mut()) {
        Some(deadline) => deadline.as_mut().poll(cx),
        None => Poll::Pending,
    }
}

/// What a failed read means.
fn broken(state: State, error: io::Error) -> Error {
    if state == State::Answering {
        Error::Cut(Some(error))
    } else {
        Error::Closed(Some(error))
    }
}

#[cfg(test)]
mod tests;
