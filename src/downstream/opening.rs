//! The opening of an accepted connection: what comes in front of its first request, and which protocol
//! it speaks. What the opening needs is free again when the first request is read.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::h1::Connection;
use super::io::Io;
use super::listener::{Counted, Listener};
use crate::transport::Stream;

/// Serves an accepted connection in a task of its own.
pub(super) fn open(listener: &Arc<Listener>, stream: Stream, peer: IpAddr, counted: Counted) {
    tokio::spawn(Served {
        connection: Connection::new(Arc::clone(listener), Io::Plain(stream), peer),
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
