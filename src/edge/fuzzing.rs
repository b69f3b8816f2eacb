//! Opens a client's connection to the fuzz targets (`tests/fuzz`) and to the simulation
//! (`tests/simulation`), over streams in memory; in no build of the product.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::header::HeaderMap;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::connection::Connection;
use super::wire::{Downstream, Next};
use super::{Drain, Edge, client};
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::limits::Files;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::proxy::fuzzing::record;
use crate::upstream::memory::Memory;

/// What a client's connection came to.
#[derive(Debug)]
pub struct Served {
    /// The requests for nodes, as they would be sent.
    pub requests: Vec<Box<[u8]>>,
    /// What the client was sent.
    pub answers: Vec<u8>,
}

/// Serves a connection whose bytes come in `pieces`, from `peer`; what is for a node is recorded and
/// answered with [`RECORDED`](crate::proxy::fuzzing::RECORDED).
pub fn serve(settings: &Settings, pieces: impl IntoIterator<Item = Bytes>, peer: IpAddr) -> Served {
    thread_local! {
        static SERVING: RefCell<Option<(Runtime, Arc<Edge>)>> = const { RefCell::new(None) };
    }
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let script = Script {
        pieces: pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
        written: Arc::clone(&written),
    };
    record();
    SERVING.with_borrow_mut(|serving| {
        let (runtime, edge) = serving.get_or_insert_with(|| {
            let runtime = Builder::new_current_thread().enable_time().build();
            (runtime.expect("a runtime without sockets"), edge(settings))
        });
        runtime.block_on(connection(Arc::clone(edge), script, (peer, 40_000).into()));
    });
    let answers = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
    Served {
        requests: record(),
        answers,
    }
}

/// The client's side of a balancer in front of `nodes`, with every default.
#[cfg(test)]
pub(super) fn edge_for_nodes(nodes: Vec<crate::config::NodeSettings>) -> Arc<Edge> {
    edge(&Settings::for_nodes(nodes))
}

/// The client's side of a balancer before the nodes of `settings`.
fn edge(settings: &Settings) -> Arc<Edge> {
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(settings, &metrics));
    let proxy = Proxy::new(settings, cluster, metrics).expect("no traces are sent");
    let proxy = Arc::new(proxy);
    Arc::new(Edge::new(
        proxy,
        settings.clone(),
        Arc::new(Drain::default()),
        Files::raise(1, 1, 1),
    ))
}

/// Serves a client's connection in memory to its end.
#[expect(
    private_bounds,
    reason = "the streams are here and in `upstream::memory`"
)]
pub fn connection<S: Downstream>(
    edge: Arc<Edge>,
    stream: S,
    peer: SocketAddr,
) -> impl Future<Output = ()> + Send {
    Connection::new(edge, stream, peer)
}

/// Who the client is: see `client`.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    client::address(peer, headers, trusted)
}

impl Downstream for Memory {
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        Self::poll_next(self, context).map(|bytes| if bytes { Next::Bytes } else { Next::End })
    }

    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        match Self::poll_next(self, context) {
            Poll::Ready(false) => Poll::Ready(()),
            Poll::Ready(true) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A connection whose bytes are all there, in pieces.
struct Script {
    pieces: VecDeque<Bytes>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.pieces.front_mut() {
            let some = piece.len().min(into.remaining());
            into.put_slice(&piece.split_to(some));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Downstream for Script {
    fn poll_next(&self, _: &mut Context<'_>) -> Poll<Next> {
        Poll::Ready(if self.pieces.is_empty() {
            Next::End
        } else {
            Next::Bytes
        })
    }

    fn poll_closed(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
