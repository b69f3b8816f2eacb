//! One stream: a request, and its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode};
use tokio::time::Instant;

use super::super::Downstream;
use super::super::client::Peer;
use super::super::cors::Allowed;
use super::super::handler::{Decision, Response};
use super::body::Body;
use super::wire::earned;
use crate::http1::{Field, FieldWriter, Fields, Framing, MAX_FIELDS, Method, RequestHead};
use crate::proxy::{Cause, Delivered, Delivery, Exchange, Handled};
use crate::timers::Slow;

/// Room for a field.
const EMPTY: Field<'_> = Field {
    name: "",
    value: b"",
};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was answered, as far as its client took the answer.
    Answered,
    /// Its client gave it up, or its connection ended.
    GivenUp,
}

/// What follows from a head, and from its body if that is there.
enum Next {
    /// The rest of the body is wanted.
    Read,
    /// An answer.
    Answer(Response, Form),
    /// The request is at its node.
    Hold(Exchange, Form),
    /// Not a request that an answer could be for.
    Malformed,
}

/// What a request says of the form of its answer.
struct Form {
    /// The answer has no body.
    bodiless: bool,
    allowed: Allowed,
}

/// What is needed to read a request.
#[derive(Clone, Copy)]
struct Reader<'a> {
    downstream: &'a Arc<Downstream>,
    peer: Peer,
}

/// Serves one request of the client `peer`.
pub(super) async fn serve(
    downstream: Arc<Downstream>,
    peer: Peer,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Ended {
    let reader = Reader {
        downstream: &downstream,
        peer,
    };
    let next = read(reader, request, &mut respond).await;
    let (response, form) = match next {
        Next::Answer(response, form) => (response, form),
        Next::Hold(mut exchange, form) => {
            let answered = poll_fn(|context| {
                if let Poll::Ready(reply) = Pin::new(&mut exchange).poll(context) {
                    return Poll::Ready(Some(reply));
                }
                // A client that gives up ends its request at the node, which then keeps the stanzas.
                respond.poll_reset(context).map(|_| None)
            });
            let Some(reply) = answered.await else {
                return Ended::GivenUp;
            };
            (reply.into(), form)
        }
        Next::Read => return Ended::GivenUp,
        Next::Malformed => {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return Ended::Answered;
        }
    };
    write(&downstream, response, &form, respond).await
}

/// Reads the request, and hands it on. It has no answer where the client is gone.
async fn read(
    reader: Reader<'_>,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Next {
    let (head, mut stream) = request.into_parts();
    let downstream = reader.downstream;
    let ended = stream.is_end_stream();
    let mut body = Body::new(downstream);
    // Most bodies came with their head.
    let at_once = poll_fn(|context| Poll::Ready(body.poll_data(&mut stream, context)));
    let read = match at_once.await {
        Poll::Ready(read) => read,
        Poll::Pending => {
            // What is refused by its head is not read. What needs no body is answered at its end, so that
            // no reset has to end the stream.
            if !matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS") {
                match reader.next(&head, ended, None) {
                    Next::Read => {}
                    next => return next,
                }
            }
            go_on(&head, respond);
            poll_fn(|context| body.poll(&mut stream, context)).await
        }
    };
    match read {
        Ok(()) => reader.next(&head, ended, Some(body.bytes())),
        Err(cause) => reader.refuse(&head, cause),
    }
}

/// Sends the interim answer to a client that waits for it with its body.
fn go_on(head: &Parts, respond: &mut SendResponse<Bytes>) {
    let expect = head.headers.get(header::EXPECT);
    if expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let mut interim = hyper::Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        // That a client is gone is noticed while its body is read.
        let _ = respond.send_informational(interim);
    }
}

impl Reader<'_> {
    /// What follows from a head, and from the whole body where that is there.
    fn next(self, head: &Parts, ended: bool, body: Option<&[u8]>) -> Next {
        let Some(target) = head.uri.path_and_query() else {
            return Next::Malformed;
        };
        let mut room = [EMPTY; MAX_FIELDS];
        let fields = match fields(head, &mut room) {
            Ok(fields) => fields,
            Err(status) => {
                let refused = self.downstream.refuse_head(status, self.peer);
                return self.answer(refused, Fields::default());
            }
        };
        let target = target.as_str();
        let request_head = RequestHead::of_stream(head.method.as_str(), target, fields, ended);
        let is_http = head
            .uri
            .scheme()
            .is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        if !is_http || !target.starts_with(['/', '*']) {
            let refused = self.downstream.refuse(Cause::BadHead, fields, self.peer);
            return self.answer(refused, fields);
        }
        let form = Form {
            bodiless: request_head.method == Method::Head,
            allowed: self.downstream.allowed(fields),
        };
        let (request, path) = match self.downstream.decide(&request_head, self.peer) {
            Decision::Answer(response) => return Next::Answer(response, form),
            Decision::Forward(request, path) => (request, path),
            Decision::Hold(exchange) => return Next::Hold(exchange, form),
        };
        if let Framing::Length(length) = request.framing {
            let most = self.downstream.settings.bosh.max_body;
            if usize::try_from(length).is_ok_and(|length| length > most) {
                let refused = self.downstream.refuse(Cause::TooLarge, fields, self.peer);
                return Next::Answer(refused, form);
            }
        }
        let Some(body) = body else {
            return Next::Read;
        };
        let asked = (&request, path);
        match self.downstream.begin(fields, asked, body, self.peer) {
            Handled::Answered(reply) => Next::Answer(reply.into(), form),
            Handled::Exchange(exchange) => Next::Hold(exchange, form),
        }
    }

    /// Refuses a request whose body does not come as it must; without a cause its client has gone.
    fn refuse(self, head: &Parts, cause: Option<Cause>) -> Next {
        let mut room = [EMPTY; MAX_FIELDS];
        let fields = fields(head, &mut room).unwrap_or_default();
        match cause {
            Some(cause) => self.answer(self.downstream.refuse(cause, fields, self.peer), fields),
            None => {
                drop(self.downstream.broken_off(fields, self.peer));
                Next::Read
            }
        }
    }

    fn answer(self, response: Response, fields: Fields<'_>) -> Next {
        let form = Form {
            bodiless: false,
            allowed: self.downstream.allowed(fields),
        };
        Next::Answer(response, form)
    }
}

/// The fields of a head, `:authority` among them as the `Host` that it is. A `Host` beside it that is not
/// the same, or that is there twice, stays, for the one reading of heads to refuse.
///
/// # Errors
/// The status to refuse them with: fields that are too many, or that HTTP/1.1 could not have.
fn fields<'a>(head: &'a Parts, room: &'a mut [Field<'a>; MAX_FIELDS]) -> Result<Fields<'a>, u16> {
    let authority = head.uri.authority();
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let mut host = authority;
    let mut count = 0;
    let mut push = |name, value| {
        *room.get_mut(count).ok_or(431_u16)? = Field { name, value };
        count += 1;
        Ok::<(), u16>(())
    };
    if let Some(authority) = authority {
        push("host", authority)?;
    }
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        // RFC 9113 §8.2.1 has no blanks around a value, and RFC 9110 §5.6.2 no quote in a name.
        if value.trim_ascii().len() != value.len() || name.as_str().contains('"') {
            return Err(400);
        }
        let again = name == header::HOST && host.is_some_and(|own| own.eq_ignore_ascii_case(value));
        if again {
            host = None;
        } else {
            push(name.as_str(), value)?;
        }
    }
    Ok(Fields::of(&room[..count]))
}

/// The head of an answer.
struct Head(HeaderMap);

impl FieldWriter for Head {
    fn add(&mut self, name: &str, value: &[u8]) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            self.0.append(name, value);
        }
    }
}

/// Writes an answer, as fast as its client takes it.
async fn write(
    downstream: &Downstream,
    response: Response,
    form: &Form,
    mut respond: SendResponse<Bytes>,
) -> Ended {
    let mut fields = Head(HeaderMap::with_capacity(8));
    response.write_fields(&form.allowed, downstream, &mut fields);
    let length = HeaderValue::from(response.answer.body.len());
    fields.0.insert(header::CONTENT_LENGTH, length);
    let mut head = hyper::Response::new(());
    // Statuses come from nodes as well, and were checked there.
    *head.status_mut() = StatusCode::from_u16(response.answer.status).unwrap_or_default();
    *head.headers_mut() = fields.0;
    let body = response.answer.body;
    let ends = form.bodiless || body.is_empty();
    let Ok(stream) = respond.send_response(head, ends) else {
        return Ended::GivenUp;
    };
    if ends {
        deliver(response.delivery, Delivered::AtOnce);
        return Ended::Answered;
    }
    write_body(downstream, body, response.delivery, stream).await
}

/// Writes the body of an answer. For what a client opens no window for at once, it has the time of one
/// that does not take an answer over HTTP/1.1.
async fn write_body(
    downstream: &Downstream,
    mut body: Bytes,
    delivery: Option<Delivery>,
    mut stream: SendStream<Bytes>,
) -> Ended {
    let stall = downstream.settings.timeouts.write_stall;
    let (mut alarm, mut since, mut taken) = (Slow::default(), None, 0);
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let granted = poll_fn(|context| {
            if let Poll::Ready(granted) = stream.poll_capacity(context) {
                let granted = granted.and_then(Result::ok);
                return Poll::Ready(granted.map_or(Granted::Gone, Granted::Bytes));
            }
            if stream.poll_reset(context).is_ready() {
                return Poll::Ready(Granted::Gone);
            }
            let until = *since.get_or_insert_with(Instant::now) + stall + earned(taken);
            ready!(alarm.poll_until(until, context));
            Poll::Ready(Granted::TooLate)
        });
        match granted.await {
            Granted::Bytes(count) => {
                let part = body.split_to(count.min(body.len()));
                taken += part.len();
                if stream.send_data(part, body.is_empty()).is_err() {
                    return Ended::GivenUp;
                }
            }
            Granted::Gone => return Ended::GivenUp,
            Granted::TooLate => {
                stream.send_reset(Reason::CANCEL);
                deliver(delivery, Delivered::TooSlow);
                return Ended::Answered;
            }
        }
    }
    let delivered = since.map_or(Delivered::AtOnce, |_| Delivered::Slowly);
    deliver(delivery, delivered);
    Ended::Answered
}

/// What comes of a wait for the client's window.
enum Granted {
    Bytes(usize),
    /// The stream or its connection has ended.
    Gone,
    /// The client has had its time.
    TooLate,
}

fn deliver(delivery: Option<Delivery>, delivered: Delivered) {
    if let Some(delivery) = delivery {
        delivery.ended(delivered);
    }
}
