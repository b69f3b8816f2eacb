//! Reading requests: bytes in, and what follows from them out. No I/O.
//!
//! A request that arrives at once is read where it lies, and takes no memory. One that arrives in
//! pieces is kept: its head until that is whole, then the head and the body so far.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::Downstream;
use super::super::body_budget::{Share, UsedUp};
use super::super::client::Peer;
use super::super::handler::{Decision, Response};
use super::super::listener::Listener;
use super::super::websocket;
use super::answer::Form;
use crate::http1::{
    self, CONTINUE, Chunked, Framing, HeadEnd, Request, RequestHead, Room, Version,
};
use crate::proxy::{Cause, Exchange, Handled, HttpVersion, Upgrading};
use crate::upstream::Path;

/// How an HTTP/2 client begins (RFC 9113 §3.4). It would not understand an answer.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What follows from the bytes.
pub(super) enum Next {
    /// More of them.
    Read(Partial),
    /// An answer.
    Answer(Response, Form),
    /// A request is at its node.
    Hold(Exchange, Form),
    /// A node is asked for a WebSocket.
    Upgrade(Upgrading, Form),
    /// The end of the connection.
    Over,
}

/// What has arrived of a request.
pub(super) struct Partial {
    /// The head so far; the whole of it where there is a body.
    head: Vec<u8>,
    part: Part,
    /// When the rest must be there.
    pub(super) deadline: Instant,
    /// What is left to write of `100 Continue`.
    pub(super) interim: &'static [u8],
}

/// Where in the request the next byte is.
enum Part {
    Head(HeadEnd),
    Body(Body),
}

/// A body that comes in pieces.
struct Body {
    bytes: Vec<u8>,
    end: BodyEnd,
    share: Share,
}

/// How the end of a body is found.
enum BodyEnd {
    /// At this length.
    Length(usize),
    /// By its chunks.
    Chunked(Chunked),
}

/// Reads the requests of one connection.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) downstream: &'a Arc<Downstream>,
    pub(super) listener: &'a Listener,
    pub(super) peer: Peer,
}

impl Reader<'_> {
    /// Reads on with `bytes`, and says how many of them belong to the request. All of them do where
    /// more are wanted.
    pub(super) fn read(self, partial: Option<Partial>, bytes: &[u8]) -> (Next, usize) {
        let Some(partial) = partial else {
            return self.head(HeadEnd::of_request(), Vec::new(), None, bytes);
        };
        let Partial {
            head,
            part,
            deadline,
            interim: _,
        } = partial;
        match part {
            Part::Head(end) => self.head(end, head, Some(deadline), bytes),
            Part::Body(body) => self.body(head, body, deadline, bytes),
        }
    }

    /// What follows when the rest of a request did not come in its time.
    pub(super) fn too_late(self, partial: &Partial) -> Next {
        match &partial.part {
            Part::Head(_) => Next::Over,
            Part::Body(_) => self.refuse_body(&partial.head, Some(Cause::BodyTimeout)),
        }
    }

    /// What follows when the client ended its side.
    pub(super) fn broken_off(self, partial: &Partial) -> Next {
        match &partial.part {
            Part::Head(_) => Next::Over,
            Part::Body(_) => self.refuse_body(&partial.head, None),
        }
    }

    fn head(
        self,
        mut end: HeadEnd,
        mut head: Vec<u8>,
        deadline: Option<Instant>,
        bytes: &[u8],
    ) -> (Next, usize) {
        let at = match end.find(bytes) {
            Ok(Some(at)) => at,
            Ok(None) => {
                head.extend_from_slice(bytes);
                let patience = self.downstream.settings.timeouts.head;
                let partial = Partial {
                    head,
                    part: Part::Head(end),
                    deadline: deadline.unwrap_or_else(|| Instant::now() + patience),
                    interim: b"",
                };
                return (Next::Read(partial), bytes.len());
            }
            Err(error) => return (self.refuse_head(error, bytes), bytes.len()),
        };
        let (last, rest) = bytes.split_at(at);
        let (next, taken) = if head.is_empty() {
            self.request(last, rest)
        } else {
            head.extend_from_slice(last);
            self.request(&head, rest)
        };
        (next, at + taken)
    }

    /// Reads a whole head, and its body as far as it is in `rest`.
    fn request(mut self, bytes: &[u8], rest: &[u8]) -> (Next, usize) {
        let mut room = Room::new();
        let head = match RequestHead::parse(bytes, &mut room) {
            Ok(head) => head,
            Err(error) => return (self.refuse_head(error, bytes), 0),
        };
        self.peer = peer_of(self.peer, &head);
        let form = Form::of(&head, self.downstream);
        if self.listener.settings().redirect_to_https {
            let response = self.downstream.redirect(&head, self.peer);
            return (answer(response, form, &head), 0);
        }
        match self.downstream.upgrade(&head, self.peer) {
            None => {}
            Some(websocket::Decision::Answer(response)) => {
                return (answer(response, form, &head), 0);
            }
            Some(websocket::Decision::Upgrade(upgrading)) => {
                // What comes behind it would be no request.
                return (Next::Upgrade(upgrading, form.closing()), 0);
            }
        }
        let (request, path) = match self.downstream.decide(&head, self.peer) {
            Decision::Answer(response) => return (answer(response, form, &head), 0),
            Decision::Forward(request, path) => (request, path),
            Decision::Hold(exchange) => return (Next::Hold(exchange, form), 0),
        };
        let most = self.downstream.settings.bosh.max_body;
        let refuse = |cause| {
            let refused = self.downstream.refuse(cause, head.fields, self.peer);
            (Next::Answer(refused, form_of(&head, self)), 0)
        };
        let (body, taken, end) = match request.framing {
            Framing::Empty | Framing::UntilClose => (Vec::new(), 0, None),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > most {
                    return refuse(Cause::TooLarge);
                }
                if let Some((body, behind)) = rest.split_at_checked(length) {
                    return (
                        self.hand_on(&head, (request, path), body, behind, form),
                        length,
                    );
                }
                (rest.to_vec(), rest.len(), Some(BodyEnd::Length(length)))
            }
            Framing::Chunked => {
                let (mut chunked, mut body) = (Chunked::new(), Vec::new());
                match chunked.decode(rest, &mut body, most) {
                    Ok(taken) if chunked.is_done() => (body, taken, None),
                    Ok(taken) => (body, taken, Some(BodyEnd::Chunked(chunked))),
                    Err(error) => return refuse(cause_of(error)),
                }
            }
        };
        let Some(end) = end else {
            let behind = &rest[taken..];
            return (
                self.hand_on(&head, (request, path), &body, behind, form),
                taken,
            );
        };
        let mut share = self.downstream.bodies.share();
        if share.grow(body.len()) == Err(UsedUp) {
            return refuse(Cause::BodyMemory);
        }
        let waits = request.expects_continue && rest.is_empty();
        let partial = Partial {
            head: bytes.to_vec(),
            part: Part::Body(Body {
                bytes: body,
                end,
                share,
            }),
            deadline: Instant::now() + self.downstream.settings.timeouts.body,
            interim: if waits { CONTINUE } else { b"" },
        };
        (Next::Read(partial), taken)
    }

    /// Reads on in a body.
    fn body(
        mut self,
        head: Vec<u8>,
        mut body: Body,
        deadline: Instant,
        bytes: &[u8],
    ) -> (Next, usize) {
        let most = self.downstream.settings.bosh.max_body;
        let before = body.bytes.len();
        let (taken, done) = match &mut body.end {
            BodyEnd::Length(length) => {
                let some = bytes.len().min(*length - before);
                body.bytes.extend_from_slice(&bytes[..some]);
                (some, body.bytes.len() == *length)
            }
            BodyEnd::Chunked(chunked) => match chunked.decode(bytes, &mut body.bytes, most) {
                Ok(taken) => (taken, chunked.is_done()),
                Err(error) => return (self.refuse_body(&head, Some(cause_of(error))), bytes.len()),
            },
        };
        if body.share.grow(body.bytes.len() - before) == Err(UsedUp) {
            return (self.refuse_body(&head, Some(Cause::BodyMemory)), taken);
        }
        if !done {
            let partial = Partial {
                head,
                part: Part::Body(body),
                deadline,
                interim: b"",
            };
            return (Next::Read(partial), taken);
        }
        // The same bytes come to the same head and the same decision.
        let mut room = Room::new();
        let parsed = match RequestHead::parse(&head, &mut room) {
            Ok(parsed) => parsed,
            Err(error) => return (self.refuse_head(error, &head), taken),
        };
        self.peer = peer_of(self.peer, &parsed);
        let form = Form::of(&parsed, self.downstream);
        let next = match self.downstream.decide(&parsed, self.peer) {
            Decision::Answer(response) => answer(response, form, &parsed),
            Decision::Forward(request, path) => {
                let behind = &bytes[taken..];
                self.hand_on(&parsed, (request, path), &body.bytes, behind, form)
            }
            Decision::Hold(exchange) => Next::Hold(exchange, form),
        };
        (next, taken)
    }

    /// Hands a whole request on. What stands `behind` it in the same piece must not end its lines in
    /// another way than this request did: then its sender may mean another end of it as well.
    fn hand_on(
        self,
        head: &RequestHead<'_>,
        (request, path): (Request<'_>, Path<'_>),
        body: &[u8],
        behind: &[u8],
        form: Form,
    ) -> Next {
        if !behind.is_empty() {
            let looked = HeadEnd::of_request().find(behind);
            if matches!(looked, Err(http1::Error::Invalid(_))) {
                let refused = self
                    .downstream
                    .refuse(Cause::BadHead, head.fields, self.peer);
                return Next::Answer(refused, form);
            }
        }
        let asked = (&request, path);
        match self.downstream.begin(head.fields, asked, body, self.peer) {
            Handled::Answered(reply) => Next::Answer(reply.into(), form),
            Handled::Exchange(exchange) => Next::Hold(exchange, form),
        }
    }

    fn refuse_head(self, error: http1::Error, bytes: &[u8]) -> Next {
        if bytes.starts_with(HTTP2) {
            let what = if self.peer.is_encrypted() {
                "a client speaks HTTP/2 that ALPN did not choose"
            } else {
                "a client speaks HTTP/2 on a listener without h2c"
            };
            self.listener.log_wrong_protocol(self.peer.address, what);
            return Next::Over;
        }
        if matches!(bytes, [22] | [22, 3, ..]) {
            // A record of the TLS handshake (RFC 8446 §5.1).
            let what = "a client speaks TLS on a listener without TLS";
            self.listener.log_wrong_protocol(self.peer.address, what);
            return Next::Over;
        }
        if (self.downstream).is_foreign_proxy_header(self.listener, self.peer.address, bytes) {
            return Next::Over;
        }
        let status = match error {
            http1::Error::TooLarge | http1::Error::TooManyFields => 431,
            http1::Error::NotHttp | http1::Error::Invalid(_) | http1::Error::TooManyTrailers => 400,
        };
        let refused = self.downstream.refuse_head(status, self.peer);
        Next::Answer(refused, Form::of_nothing(self.downstream))
    }

    /// Refuses a request whose head was good; without a cause its client has gone.
    fn refuse_body(mut self, head: &[u8], cause: Option<Cause>) -> Next {
        let mut room = Room::new();
        let head = match RequestHead::parse(head, &mut room) {
            Ok(head) => head,
            Err(error) => return self.refuse_head(error, head),
        };
        self.peer = peer_of(self.peer, &head);
        let response = match cause {
            Some(cause) => self.downstream.refuse(cause, head.fields, self.peer),
            None => self.downstream.broken_off(head.fields, self.peer),
        };
        Next::Answer(response, form_of(&head, self))
    }
}

fn form_of(head: &RequestHead<'_>, reader: Reader<'_>) -> Form {
    Form::of(head, reader.downstream)
}

/// The peer as it speaks in this request.
fn peer_of(peer: Peer, head: &RequestHead<'_>) -> Peer {
    match head.version {
        Version::Http10 => peer.with_version(HttpVersion::Http10),
        Version::Http11 => peer,
    }
}

/// An answer to a head alone. A body that was announced is not read, so the connection ends.
fn answer(response: Response, form: Form, head: &RequestHead<'_>) -> Next {
    let unread = head
        .request()
        .is_ok_and(|request| request.framing != Framing::Empty);
    let form = if unread { form.closing() } else { form };
    Next::Answer(response, form)
}

fn cause_of(error: http1::Error) -> Cause {
    match error {
        http1::Error::TooLarge => Cause::TooLarge,
        http1::Error::NotHttp
        | http1::Error::Invalid(_)
        | http1::Error::TooManyFields
        | http1::Error::TooManyTrailers => Cause::BadHead,
    }
}
