//! One client connection over HTTP/1.1, from its first byte to its end.
//!
//! It waits for bytes, reads a request, hands it on, waits for its answer and for the client's end at
//! the same time, and writes the answer. While it waits for bytes or for an answer it holds no buffer:
//! bytes are read into one on the stack, and only what belongs to no whole request yet is kept.
//!
//! ```text
//! idle ──bytes──▶ reading ──whole──▶ held ──answered──▶ writing ──▶ idle, or lingering
//! ```
//!
//! A state machine written out, since an `async fn` keeps room for the largest of its states in all
//! of them.

mod answer;
mod read;
mod write;

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::Downstream;
use super::client::Peer;
use super::handler::Response;
use super::idle::Idle;
use super::io::{Early, Io};
use super::listener::Listener;
use super::websocket::{Behind, ClientTunnel};
use crate::http1::MAX_HEAD;
use crate::proxy::{Exchange, HttpVersion, Protocol, Upgraded, Upgrading};
use crate::timers::{self, Slow};
use answer::Form;
use read::{Next, Partial, Reader};
use write::Writing;
pub(super) use write::{Linger, SLOWEST};

/// The most bytes taken by one read.
const READ: usize = 16 * 1024;

/// The most bytes that are read while a request is held.
const MOST_EARLY: usize = MAX_HEAD;

/// Where a connection is in its life.
enum State {
    /// Nothing is asked.
    Idle(Option<Idle>),
    /// A part of a request has arrived.
    Reading(Box<Partial>),
    /// A request is at its node, or waits for one.
    Held(Exchange, Form),
    /// The client did not take an answer at once.
    Writing(Box<Writing>),
    /// A node is asked for a WebSocket.
    Upgrading(Upgrading, Form),
    /// The connection is a WebSocket.
    Tunnel(Box<ClientTunnel>),
    /// The client reads the last answer.
    Lingering(Box<Linger>),
    /// It has ended.
    Over,
}

/// One client connection, served to its end. Dropping it cuts the connection, and ends its request
/// at the node.
pub(super) struct Connection {
    listener: Arc<Listener>,
    io: Io,
    peer: Peer,
    /// No request has begun.
    fresh: bool,
    /// TCP watches the client. Quick answers cost no system call for it.
    watched: bool,
    /// The tick of the timers in which the last request was handed on.
    held_since: u32,
    early: Early,
    /// What wakes it in each of its waits. It may ring too early, see [`Slow::poll_until`].
    alarm: Slow,
    state: State,
}

impl Connection {
    /// The connection over `io`, with nothing read yet.
    pub(super) fn new(listener: Arc<Listener>, io: Io, peer: IpAddr) -> Self {
        Self {
            peer: Peer {
                address: peer,
                protocol: Protocol {
                    http: HttpVersion::Http11,
                    tls: io.tls(),
                },
                connected: listener.downstream().proxy.now(),
            },
            listener,
            io,
            fresh: true,
            watched: false,
            held_since: 0,
            early: Early::default(),
            alarm: Slow::default(),
            state: State::Idle(None),
        }
    }

    /// The same, with bytes that were read before.
    pub(super) fn having_read(self, early: Early) -> Self {
        Self { early, ..self }
    }

    fn downstream(&self) -> &Arc<Downstream> {
        self.listener.downstream()
    }

    fn poll_state(&mut self, context: &mut Context<'_>) -> Poll<State> {
        match &mut self.state {
            State::Idle(_) | State::Reading(_) => self.poll_request(context),
            State::Held(..) => self.poll_held(context),
            State::Upgrading(..) => self.poll_upgrading(context),
            State::Tunnel(tunnel) => {
                let alarm = &mut self.alarm;
                let downstream = self.listener.downstream();
                let behind = ready!(tunnel.poll(&mut self.io, alarm, downstream, context));
                Poll::Ready(match behind {
                    Behind::Linger => self.behind(true),
                    Behind::Over => State::Over,
                })
            }
            State::Writing(writing) => {
                let alarm = &mut self.alarm;
                let stall = self.listener.downstream().settings.timeouts.write_stall;
                let closes = ready!(writing.poll(&mut self.io, alarm, stall, context));
                let State::Writing(writing) = self.take_state() else {
                    return Poll::Ready(State::Over);
                };
                writing.ended(&closes);
                Poll::Ready(closes.map_or(State::Over, |closes| self.behind(closes)))
            }
            State::Lingering(linger) => {
                let alarm = &mut self.alarm;
                ready!(linger.poll(&mut self.io, alarm, context));
                Poll::Ready(State::Over)
            }
            State::Over => Poll::Ready(State::Over),
        }
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Over)
    }

    /// Reads a request: from what came early, else from the connection.
    #[inline(never)]
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<State> {
        if let State::Reading(partial) = &mut self.state {
            while !partial.interim.is_empty() {
                match self.io.poll_write(context, partial.interim) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        partial.interim = partial.interim.get(taken..).unwrap_or_default();
                    }
                    Poll::Ready(_) => return Poll::Ready(self.ended(true, context)),
                    // A client may send its body without waiting for the 100. It is served.
                    Poll::Pending => break,
                }
            }
        }
        let mut early = self.early.take();
        if !early.rest().is_empty() {
            let (next, taken) = self.read(early.rest());
            early.consume(taken);
            self.early = early;
            return Poll::Ready(self.follow(next, context));
        }
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut room);
        let Poll::Ready(read) = self.io.poll_read(context, &mut buffer) else {
            return self.poll_patience(context);
        };
        let bytes = buffer.filled();
        if read.is_err() || bytes.is_empty() {
            return Poll::Ready(self.ended(read.is_err(), context));
        }
        let (next, taken) = self.read(bytes);
        self.early.append(bytes.get(taken..).unwrap_or_default());
        Poll::Ready(self.follow(next, context))
    }

    fn read(&mut self, bytes: &[u8]) -> (Next, usize) {
        self.fresh = false;
        let partial = match self.take_state() {
            State::Reading(partial) => Some(*partial),
            _ => None,
        };
        self.reader().read(partial, bytes)
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            downstream: self.downstream(),
            listener: &self.listener,
            peer: self.peer,
        }
    }

    /// What follows when the client has ended its side, or its connection is `broken`, where a request is
    /// read.
    fn ended(&mut self, broken: bool, context: &mut Context<'_>) -> State {
        let State::Reading(partial) = self.take_state() else {
            return State::Over;
        };
        let next = self.reader().broken_off(&partial);
        if broken {
            return State::Over;
        }
        self.follow(next, context)
    }

    fn follow(&mut self, next: Next, context: &mut Context<'_>) -> State {
        match next {
            Next::Read(partial) => State::Reading(Box::new(partial)),
            Next::Answer(response, form) => self.answer(response, &form, context),
            Next::Hold(exchange, form) => {
                self.held_since = timers::present_tick();
                State::Held(exchange, form)
            }
            Next::Upgrade(upgrading, form) => State::Upgrading(upgrading, form),
            Next::Over => State::Over,
        }
    }

    /// Waits for bytes as long as they may take.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<State> {
        if matches!(self.state, State::Idle(_)) {
            return self.poll_idle(context);
        }
        let State::Reading(partial) = &self.state else {
            return Poll::Ready(State::Over);
        };
        ready!(self.alarm.poll_until(partial.deadline, context));
        let next = self.reader().too_late(partial);
        Poll::Ready(self.follow(next, context))
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<State> {
        let downstream = self.listener.downstream();
        let State::Idle(idle) = &mut self.state else {
            return Poll::Ready(State::Over);
        };
        let idle = idle.get_or_insert_with(Idle::begin);
        let most = downstream.settings.timeouts.idle;
        ready!(idle.poll(self.fresh, most, downstream, &mut self.alarm, context));
        Poll::Ready(State::Over)
    }

    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<State> {
        let State::Held(exchange, _) = &mut self.state else {
            return Poll::Ready(State::Over);
        };
        if let Poll::Ready(reply) = Pin::new(&mut *exchange).poll(context) {
            let State::Held(_, form) = self.take_state() else {
                return Poll::Ready(State::Over);
            };
            return Poll::Ready(self.answer(reply.into(), &form, context));
        }
        // A client that goes away ends its request at the node, which then keeps the stanzas.
        if self
            .io
            .poll_closed(context, &mut self.early, MOST_EARLY)
            .is_ready()
        {
            return Poll::Ready(State::Over);
        }
        // The exchange wakes this task when it takes longer than most.
        if !self.watched && timers::present_tick() != self.held_since {
            self.watched = true;
            self.io.watch();
        }
        Poll::Pending
    }

    /// Waits for a node's agreement to a WebSocket, or for the client's end.
    fn poll_upgrading(&mut self, context: &mut Context<'_>) -> Poll<State> {
        let State::Upgrading(upgrading, _) = &mut self.state else {
            return Poll::Ready(State::Over);
        };
        if let Poll::Ready(upgraded) = upgrading.as_mut().poll(context) {
            let State::Upgrading(_, form) = self.take_state() else {
                return Poll::Ready(State::Over);
            };
            return Poll::Ready(match upgraded {
                Upgraded::Refused(reply) => self.answer(reply.into(), &form, context),
                Upgraded::Tunnel(node) => {
                    self.io.watch();
                    let early = self.early.take();
                    let downstream = self.listener.downstream();
                    State::Tunnel(Box::new(ClientTunnel::new(node, early.rest(), downstream)))
                }
            });
        }
        self.io
            .poll_closed(context, &mut self.early, MOST_EARLY)
            .map(|()| State::Over)
    }

    /// Writes an answer as far as the client takes it at once.
    fn answer(&mut self, response: Response, form: &Form, context: &mut Context<'_>) -> State {
        let downstream = self.listener.downstream();
        match Writing::begin(&mut self.io, response, form, downstream, context) {
            write::FirstWrite::Whole { closes } => self.behind(closes),
            write::FirstWrite::Part(writing) => State::Writing(writing),
            write::FirstWrite::Broken => State::Over,
        }
    }

    /// The state behind an answer that was written.
    fn behind(&self, closes: bool) -> State {
        if closes {
            State::Lingering(Box::new(Linger::new(self.downstream())))
        } else {
            State::Idle(None)
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            self.state = ready!(self.poll_state(context));
            if matches!(self.state, State::Over) {
                return Poll::Ready(());
            }
        }
    }
}
