//! A tunnel: bytes both ways between a client and its node, until one of them ends it, or its node does,
//! or the balancer.
//!
//! While nothing is on its way it holds no buffer. The balancer writes frames of its own to the client
//! only, and only between two frames of the node: a ping when the client has been silent, and what closes
//! the connection. The node gets no frame of the balancer: its connection ends, and a node that keeps
//! sessions for a client that comes back (XEP-0198) keeps this one.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::super::Downstream;
use super::super::io::Io;
use super::way::{Way, WayEnd};
use crate::proxy::{NodeEnd, NodeTunnel, Tunnel, TunnelEnd};
use crate::timers::{self, Slow};
use crate::upstream::{Heard, NodeStream};
use crate::websocket::{
    CloseCode, PING, STREAM_CLOSE, SUBPROTOCOL, Scanner, Sender, Violation, close_frame,
};

/// How long both sides have for the end of the connection behind the first close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How long the last bytes may take.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What follows behind a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::downstream) enum Behind {
    /// The client's connection closes so that the client can read the end.
    Linger,
    /// The client's connection is of no use any more.
    Over,
}

/// An open tunnel.
pub(in crate::downstream) struct ClientTunnel {
    node: NodeStream,
    node_end: NodeEnd,
    heard: Heard,
    tunnel: Option<Tunnel>,
    /// From the client to the node.
    up: Way,
    /// From the node to the client.
    down: Way,
    /// When the client last sent something, give or take 50 ms.
    client_heard: Instant,
    /// The client was asked for a sign of life since.
    pinged: bool,
    /// The node's connection takes nothing any more. It may still have something to say.
    node_is_deaf: bool,
    /// When an end that one side has begun must be over.
    close_by: Option<Instant>,
    /// The end is being written.
    ending: Option<Ending>,
}

/// The last bytes of a tunnel.
#[derive(Debug, Clone, Copy)]
struct Ending {
    end: TunnelEnd,
    until: Instant,
}

impl ClientTunnel {
    /// A tunnel to `node`. The client gets its 101 first. It has sent `early` already.
    pub(in crate::downstream) fn new(
        node: NodeTunnel,
        early: &[u8],
        downstream: &Downstream,
    ) -> Self {
        let websocket = downstream.settings.websocket.as_ref();
        let longest = websocket.map_or(usize::MAX, |websocket| websocket.max_frame);
        let mut tunnel = Self {
            node: node.stream,
            node_end: node.node_end,
            heard: node.heard,
            tunnel: Some(node.tunnel),
            up: Way::new(Scanner::new(Sender::Client, longest as u64)),
            down: Way::new(Scanner::new(Sender::Node, u64::MAX)),
            client_heard: timers::coarse_now(),
            pinged: false,
            node_is_deaf: false,
            close_by: None,
            ending: None,
        };
        tunnel.node.watch();
        let accepted = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {}\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n",
            node.accept
        );
        tunnel.down.add(accepted.as_bytes());
        if tunnel.down.add_sent(&node.early).is_err() {
            tunnel.begin_end(TunnelEnd::NodeInvalid, CloseCode::InternalError);
        } else if let Err(violation) = tunnel.up.add_sent(early) {
            tunnel.begin_end(TunnelEnd::ClientInvalid, code_for(violation));
        }
        tunnel
    }

    /// Goes on. Ready when nothing more is to be written to the client.
    pub(in crate::downstream) fn poll(
        &mut self,
        io: &mut Io,
        alarm: &mut Slow,
        downstream: &Downstream,
        context: &mut Context<'_>,
    ) -> Poll<Behind> {
        downstream.drain.attend();
        loop {
            if let Some(ending) = self.ending {
                return self.poll_ending(ending, io, alarm, context);
            }
            ready!(self.poll_open(io, alarm, downstream, context));
        }
    }

    /// Passes bytes on until the tunnel ends, which [`begin_end`](Self::begin_end) has begun then.
    fn poll_open(
        &mut self,
        io: &mut Io,
        alarm: &mut Slow,
        downstream: &Downstream,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while self.ending.is_none() {
            self.poll_up(io, context);
            self.poll_down(io, context);
            if self.ending.is_some() {
                break;
            }
            if let Poll::Ready(end) = self.node_end.as_mut().poll(context) {
                self.begin_end(end, CloseCode::GoingAway);
            } else if downstream.drain.is_closing() {
                self.begin_end(TunnelEnd::Stop, CloseCode::GoingAway);
            } else {
                ready!(self.poll_times(alarm, downstream, context));
            }
        }
        Poll::Ready(())
    }

    fn poll_up(&mut self, io: &mut Io, context: &mut Context<'_>) {
        if self.node_is_deaf {
            return;
        }
        let mut heard = false;
        let polled = self.up.poll(io, &mut self.node, || heard = true, context);
        if heard {
            self.client_heard = timers::coarse_now();
            self.pinged = false;
        }
        let seen = self.up.scanner().seen();
        let orderly = seen.close_frame || seen.stream_closed;
        self.expect_end(seen.close_frame);
        let Poll::Ready(end) = polled else { return };
        match end {
            WayEnd::Closed | WayEnd::Broken if orderly => {
                self.begin_end(TunnelEnd::ClientClosed, CloseCode::GoingAway);
            }
            WayEnd::Closed | WayEnd::Broken => {
                self.begin_end(TunnelEnd::ClientGone, CloseCode::GoingAway);
            }
            // What it sent before that may still be on its way to us.
            WayEnd::Deaf => {
                self.node_is_deaf = true;
                self.close_by
                    .get_or_insert_with(|| Instant::now() + LAST_BYTES);
            }
            WayEnd::Invalid(violation) => {
                self.begin_end(TunnelEnd::ClientInvalid, code_for(violation));
            }
        }
    }

    fn poll_down(&mut self, io: &mut Io, context: &mut Context<'_>) {
        if self.ending.is_some() {
            return;
        }
        let heard = &self.heard;
        let note = || heard.note();
        let polled = self.down.poll(&mut self.node, io, note, context);
        self.expect_end(self.down.scanner().seen().close_frame);
        let Poll::Ready(end) = polled else { return };
        match end {
            WayEnd::Closed | WayEnd::Broken => {
                let end = self.end_by_node();
                self.begin_end(end, CloseCode::GoingAway);
            }
            WayEnd::Deaf => self.begin_end(TunnelEnd::ClientGone, CloseCode::GoingAway),
            WayEnd::Invalid(_) => {
                self.begin_end(TunnelEnd::NodeInvalid, CloseCode::InternalError);
            }
        }
    }

    /// What it means that the node's connection has ended.
    fn end_by_node(&self) -> TunnelEnd {
        let (client, node) = (self.up.scanner().seen(), self.down.scanner().seen());
        if client.close_frame || client.stream_closed {
            TunnelEnd::ClientClosed
        } else if node.close_frame || node.stream_closed {
            TunnelEnd::NodeClosed
        } else {
            TunnelEnd::NodeGone
        }
    }

    /// Bounds the time of the closing handshake, once it has begun.
    fn expect_end(&mut self, begun: bool) {
        if begun && self.close_by.is_none() {
            self.close_by = Some(Instant::now() + CLOSE_WITHIN);
        }
    }

    /// Waits for what is due next, and does it. Ready when there may be something to write, or the end has
    /// begun.
    fn poll_times(
        &mut self,
        alarm: &mut Slow,
        downstream: &Downstream,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(websocket) = &downstream.settings.websocket else {
            return Poll::Ready(());
        };
        let stall = downstream.settings.timeouts.write_stall;
        let asks = self.client_heard + websocket.idle;
        let silent = if self.pinged {
            asks + websocket.pong
        } else {
            asks
        };
        let (up, down) = (self.up.deadline(stall), self.down.deadline(stall));
        let times = [Some(silent), self.close_by, up, down];
        let next = times.into_iter().flatten().min().unwrap_or(silent);
        ready!(alarm.poll_until_called(next, context));
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.close_by) {
            let end = self.end_by_node();
            self.begin_end(end, CloseCode::GoingAway);
        } else if is_due(down) {
            self.begin_end(TunnelEnd::ClientSlow, CloseCode::GoingAway);
        } else if is_due(up) {
            self.begin_end(TunnelEnd::NodeSlow, CloseCode::GoingAway);
        } else if silent <= now {
            if self.pinged {
                self.begin_end(TunnelEnd::ClientSilent, CloseCode::GoingAway);
            } else {
                self.pinged = true;
                if self.down.scanner().is_between_frames() {
                    self.down.add(&PING);
                }
            }
        }
        Poll::Ready(())
    }

    /// Begins the end: what closes the connection is written to the client, if it fits between two frames
    /// of its node.
    fn begin_end(&mut self, end: TunnelEnd, code: CloseCode) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Ending {
            end,
            until: Instant::now() + LAST_BYTES,
        });
        let scanner = self.down.scanner();
        let seen = scanner.seen();
        if seen.close_frame || !scanner.is_between_frames() {
            return;
        }
        let open = seen.stream_opened && !seen.stream_closed;
        if end == TunnelEnd::Stop && open && scanner.is_between_messages() {
            self.down.add(STREAM_CLOSE);
        }
        self.down.add(&close_frame(code));
    }

    /// Writes the last bytes, as far as each side takes them in time.
    fn poll_ending(
        &mut self,
        ending: Ending,
        io: &mut Io,
        alarm: &mut Slow,
        context: &mut Context<'_>,
    ) -> Poll<Behind> {
        use TunnelEnd::{ClientClosed, ClientGone, ClientSlow};
        // A client that has left may have said something last.
        let has_left = matches!(ending.end, ClientClosed | ClientGone);
        let up = !has_left || self.node_is_deaf || {
            let flushed = self.up.poll_flush(&mut self.node, context);
            flushed.is_ready()
        };
        let mut behind = Behind::Linger;
        let down = matches!(ending.end, ClientGone | ClientSlow) || {
            match self.down.poll_flush(io, context) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => {
                    behind = Behind::Over;
                    true
                }
                Poll::Pending => false,
            }
        };
        if !(up && down) && alarm.poll_until(ending.until, context).is_pending() {
            return Poll::Pending;
        }
        if matches!(ending.end, ClientGone | ClientSlow) || !self.down.is_flushed() {
            behind = Behind::Over;
        }
        if let Some(tunnel) = self.tunnel.take() {
            tunnel.end(ending.end, self.down.passed());
        }
        Poll::Ready(behind)
    }
}

/// The code that says which rule a client broke.
const fn code_for(violation: Violation) -> CloseCode {
    match violation {
        Violation::TooBig => CloseCode::TooBig,
        _ => CloseCode::ProtocolError,
    }
}
