//! Opens the reading of requests to the fuzz targets (`tests/fuzz`); in no build of the product.
//!
//! One connection's bytes go the way they go in `service`, through hyper with the settings that it
//! has there, but the request ends where it is written for a node.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{cell::RefCell, io};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::answer::response;
use super::connection::parser;
use super::cors::Allowed;
use super::service::stays_open;
use super::wire::{Downstream, Next, Wire};
use super::{body, client, head};
use crate::proxy::{Answer, Cause};
use crate::upstream::{Path, Proto, RequestHead, write_request};

/// The largest body, in bytes.
pub const MAX_BODY: usize = 1024;

/// The paths that are BOSH.
pub const PATHS: [&str; 2] = ["/http-bind", "/bosh"];

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It would be sent to a node as these bytes.
    Sent(Box<[u8]>),
    /// It is answered with this status, and the connection goes on behind it or not.
    Answered(u16, bool),
}

/// What the service does with the bytes of one connection, read in `pieces`, from a trusted peer.
pub fn serve(
    pieces: impl IntoIterator<Item = Bytes>,
    peer: IpAddr,
    trusted: &[IpNet],
) -> Vec<Seen> {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(
            Builder::new_current_thread().enable_time().build().expect("a runtime without sockets"),
        );
    }
    let seen = Mutex::new(Vec::new());
    let note = |one| {
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(one)
    };
    let stream = Memory(
        pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
    );
    let (wire, signals) = Wire::new((stream, Bytes::new()), Duration::from_secs(30));
    let service = service_fn(|request: Request<Incoming>| {
        let signals = Arc::clone(&signals);
        let content_lengths = signals.begin();
        let stays = stays_open(&request);
        let note = &note;
        async move {
            let answer = match read(request, content_lengths, peer, trusted).await {
                Ok(sent) => {
                    note(Seen::Sent(sent));
                    Answer::ok(Bytes::new())
                }
                Err(answer) => {
                    note(Seen::Answered(answer.status, !answer.close));
                    answer
                }
            };
            let response: Response<Full<Bytes>> = response(answer, Allowed::Any, false);
            if stays && !super::service::says_close(response.headers()) {
                signals.answered();
            }
            Ok::<_, Infallible>(response)
        }
    });
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let connection = parser(&signals, Duration::from_secs(10));
            // How it ended does not matter: what was seen before does.
            let _ = connection
                .serve_connection(TokioIo::new(wire), service)
                .await;
        });
    });
    seen.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The way of one request in `Edge::handle`.
async fn read(
    request: Request<Incoming>,
    content_lengths: u8,
    peer: IpAddr,
    trusted: &[IpNet],
) -> Result<Box<[u8]>, Answer> {
    let refuse = |cause| Answer::reject(cause, false);
    let (head, body) = request.into_parts();
    let host = head::check(&head, content_lengths).map_err(refuse)?;
    let known = PATHS.contains(&head.uri.path());
    let path = Path::new(head.uri.path()).filter(|_| known);
    let path = path.ok_or_else(|| refuse(Cause::NotFound))?;
    match head.method {
        Method::POST => {}
        Method::OPTIONS | Method::GET | Method::HEAD => return Err(Answer::ok(Bytes::new())),
        _ => return Err(refuse(Cause::Method)),
    }
    let body = body::read(body, MAX_BODY, Duration::from_secs(15)).await;
    let body = body.map_err(refuse)?;
    let secure = client::is_secure(peer, &head.headers, trusted);
    let head = RequestHead {
        path,
        host,
        forwarded_for: client::address(peer, &head.headers, trusted),
        forwarded_proto: if secure { Proto::Https } else { Proto::Http },
        forwarded_host: Some(host),
    };
    Ok(write_request(&head, &body))
}

/// Who the client is: see `client`.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    client::address(peer, headers, trusted)
}

/// A connection whose bytes are all there, in pieces; what is written to it is gone.
struct Memory(VecDeque<Bytes>);

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let some = piece.len().min(into.remaining());
            into.put_slice(&piece.split_to(some));
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
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

impl Downstream for Memory {
    fn poll_next(&self, _: &mut Context<'_>) -> Poll<Next> {
        Poll::Ready(if self.0.is_empty() {
            Next::End
        } else {
            Next::Bytes
        })
    }

    fn poll_closed(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
