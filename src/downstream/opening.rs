//! The opening of an accepted connection: what comes in front of its first request, and which protocol
//! it speaks. What the opening needs is free again when the first request is read.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::h1::Connection;
use super::h2;
use super::io::{Early, Io};
use super::listener::{Counted, Listener};
use crate::transport::Stream;

/// Serves an accepted connection in a task of its own.
pub(super) fn open(listener: &Arc<Listener>, stream: Stream, peer: IpAddr, counted: Counted) {
    let (listener, io) = (Arc::clone(listener), Io::Plain(stream));
    if listener.settings().h2c {
        tokio::spawn(open_by_preface(listener, io, peer, counted));
    } else {
        serve_http1(listener, io, Early::default(), peer, counted);
    }
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
