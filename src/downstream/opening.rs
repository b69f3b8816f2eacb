//! The opening of an accepted connection: what comes in front of its first request, and which protocol
//! it speaks. What the opening needs is free again when the first request is read.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::h1::Connection;
use super::h2;
use super::io::{Early, Io};
use super::listener::{Counted, Listener};
use super::tls;
use crate::tls::TlsStream;
use crate::transport::Stream;

/// Serves an accepted connection in a task of its own.
pub(super) fn open(listener: &Arc<Listener>, stream: Stream, peer: IpAddr, counted: Counted) {
    let settings = listener.settings();
    let is_plain_http1 = !settings.h2c || settings.redirect_to_https;
    if listener.acceptor().is_none() && is_plain_http1 {
        serve_http1(
            Arc::clone(listener),
            Io::Plain(stream),
            Early::default(),
            peer,
            counted,
        );
        return;
    }
    let listener = Arc::clone(listener);
    tokio::spawn(async move {
        if listener.acceptor().is_none() {
            open_by_preface(listener, Io::Plain(stream), peer, counted).await;
        } else if let Some(stream) = shake_hands(&listener, stream, peer).await {
            let is_http2 = stream.alpn() == Some(b"h2");
            let io = Io::Tls(stream);
            if is_http2 {
                h2::serve(listener, io, Early::default(), peer, counted).await;
            } else {
                serve_http1(listener, io, Early::default(), peer, counted);
            }
        }
    });
}

/// The TLS handshake, within the time for a head; none if it failed.
async fn shake_hands(listener: &Listener, stream: Stream, peer: IpAddr) -> Option<Box<TlsStream>> {
    let deadline = Instant::now() + listener.downstream().settings.timeouts.head;
    let acceptor = listener.acceptor()?;
    tls::handshake(listener, acceptor, stream, (peer, deadline)).await
}

/// Serves HTTP/2 to a client that begins with its preface, and HTTP/1.1 to others.
async fn open_by_preface(listener: Arc<Listener>, io: Io, peer: IpAddr, counted: Counted) {
    let opened = h2::Preface::new(Arc::clone(listener.downstream()), io).await;
    let Some(opened) = opened else { return };
    if opened.http2 {
        h2::serve(listener, opened.io, opened.early, peer, counted).await;
    } else {
        serve_http1(listener, opened.io, opened.early, peer, counted);
    }
}

fn serve_http1(listener: Arc<Listener>, io: Io, early: Early, peer: IpAddr, counted: Counted) {
    tokio::spawn(Served {
        connection: Connection::new(listener, io, peer).having_read(early),
        _counted: counted,
    });
}

/// A connection that counts until it has ended. An `async` block would have room for it twice.
struct Served {
    connection: Connection,
    _counted: Counted,
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.connection).poll(context)
    }
}
