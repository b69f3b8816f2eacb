//! Bowline's reading of requests (`http1`) against hyper's: whatever Bowline accepts, hyper reads as the
//! same request at the same place, with the same body.
//!
//! Held one way: Bowline refuses what hyper reads in one of several ways.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bowline::http1::{Chunked, Framing, HeadEnd, MAX_HEAD, Method, RequestHead, Room};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// The largest body.
const MAX_BODY: usize = 512 * 1024;

/// How often hyper is polled at most: it yields now and then.
const POLLS: usize = 10_000;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    method: String,
    path: String,
    host: Vec<u8>,
    body: Vec<u8>,
}

/// Holds it for all the bytes of a client's connection.
pub fn check(bytes: &[u8]) {
    let ours = requests(bytes);
    if ours.is_empty() {
        return;
    }
    let theirs = by_hyper(bytes);
    assert!(ours.len() <= theirs.len(), "hyper reads fewer requests");
    for (our, their) in ours.iter().zip(&theirs) {
        assert_eq!(our, their);
    }
}

/// The requests that Bowline reads, up to the first that closes the connection.
pub fn requests(mut bytes: &[u8]) -> Vec<Asked> {
    let mut requests = Vec::new();
    while let Some((asked, rest)) = request(bytes) {
        requests.push(asked);
        match rest {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    requests
}

/// The first request, and what stands behind it if the connection goes on.
fn request(bytes: &[u8]) -> Option<(Asked, Option<&[u8]>)> {
    let end = HeadEnd::of_request().find(bytes).ok()??;
    let (bytes, rest) = bytes.split_at(end);
    let mut room = Room::new();
    let head = RequestHead::parse(bytes, &mut room).ok()?;
    let request = head.request().ok()?;
    let (body, rest) = match request.framing {
        Framing::Empty => (Vec::new(), rest),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok().filter(|l| *l <= MAX_BODY)?;
            let (body, rest) = rest.split_at_checked(length)?;
            (body.to_vec(), rest)
        }
        Framing::Chunked => {
            let (mut chunked, mut body) = (Chunked::new(), Vec::new());
            let taken = chunked.decode(rest, &mut body, MAX_BODY).ok()?;
            chunked.is_done().then_some(())?;
            (body, &rest[taken..])
        }
        Framing::UntilClose => panic!("a request has an end"),
    };
    let method = match head.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Post => "POST",
        // It is refused, and the connection ends.
        Method::Other => return None,
    };
    let asked = Asked {
        method: method.to_owned(),
        path: request.path.to_owned(),
        host: request.host.as_bytes().to_vec(),
        body,
    };
    let goes_on = head.stays() && !request.coded;
    Some((asked, goes_on.then_some(rest)))
}

/// The requests that hyper reads whole.
fn by_hyper(bytes: &[u8]) -> Vec<Asked> {
    let requests = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let requests = &requests;
        async move {
            if let Some(asked) = whole(request).await {
                requests.borrow_mut().push(asked);
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(Script(bytes), service);
    let mut connection = std::pin::pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    requests.take()
}

/// A request of hyper's with its body, if that has an end.
async fn whole(request: Request<Incoming>) -> Option<Asked> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        // Trailers are dropped.
        bytes.extend_from_slice(frame.ok()?.data_ref().map_or(&[], |data| data));
    }
    Some(Asked {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        host: head.headers.get("host")?.as_bytes().to_vec(),
        body: bytes,
    })
}

/// A connection whose bytes are all there, and whose answers go nowhere.
struct Script<'a>(&'a [u8]);

impl Read for Script<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let (some, rest) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(some);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Script<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
