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
use super::proxy_protocol;
use super::tls;
use crate::transport::Stream;
use crate::transport::TlsStream;

/// Serves an accepted connection in a task of its own.
pub(super) fn open(listener: &Arc<Listener>, stream: Stream, peer: IpAddr, counted: Counted) {
    let settings = listener.settings();
    let is_plain_http1 = !settings.h2c || settings.redirect_to_https;
    let is_proxied = settings.expects_proxy_header(peer);
    if listener.acceptor().is_none() && is_plain_http1 && !is_proxied {
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
        let deadline = Instant::now() + listener.downstream().settings.timeouts.head;
        let opened = if is_proxied {
            read_proxy_header(&listener, stream, (peer, deadline), counted).await
        } else {
            Some((stream, Early::default(), peer, counted))
        };
        let Some((stream, early, peer, counted)) = opened else {
            return;
        };
        if listener.acceptor().is_none() {
            let io = Io::Plain(stream);
            if is_plain_http1 {
                serve_http1(listener, io, early, peer, counted);
            } else {
                open_by_preface(listener, io, early, peer, counted).await;
            }
        } else if let Some(stream) = shake_hands(&listener, stream, &early, (peer, deadline)).await
        {
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

/// Reads the header of a proxy, and counts the connection for the client in it, who is the peer from then
/// on. None if there is no good header, or the client has too many connections.
async fn read_proxy_header(
    listener: &Listener,
    mut stream: Stream,
    (peer, deadline): (IpAddr, Instant),
    mut counted: Counted,
) -> Option<(Stream, Early, IpAddr, Counted)> {
    let (client, early) = proxy_protocol::read(listener, &mut stream, (peer, deadline)).await?;
    let Some(client) = client else {
        return Some((stream, early, peer, counted));
    };
    let is_counted = counted.count_for(client, listener.downstream());
    is_counted.then_some((stream, early, client, counted))
}

/// The TLS handshake; none if it failed. `early` is what was read of it.
async fn shake_hands(
    listener: &Listener,
    stream: Stream,
    early: &Early,
    until: (IpAddr, Instant),
) -> Option<Box<TlsStream>> {
    let acceptor = listener.acceptor()?;
    tls::handshake(listener, acceptor, (stream, early), until).await
}

/// Serves HTTP/2 to a client that begins with its preface, and HTTP/1.1 to others.
async fn open_by_preface(
    listener: Arc<Listener>,
    io: Io,
    early: Early,
    peer: IpAddr,
    counted: Counted,
) {
    let preface = h2::Preface::new(Arc::clone(listener.downstream()), io);
    let opened = preface.having_read(early).await;
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
