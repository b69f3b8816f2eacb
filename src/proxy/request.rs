//! One request: as `downstream` hands it in, and as it is kept until it is answered.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::protocol::Protocol;
use super::request_record::RequestRecord;
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::bosh;
use crate::cluster::{PlacementKey, QueryGroup};
use crate::config::CreationFrom;
use crate::observe::metrics::Kind;
use crate::observe::traces::Parent;
use crate::sessions::Time;
use crate::upstream::{
    self, Authority, OriginValue, Path, Proto, Query, RequestHead, StoredRequest,
};

/// What `downstream` knows of a request, all of it checked. Its body holds a sid, so that `{:?}` leaves it
/// out.
#[derive(Clone)]
pub struct BoshRequest<'a> {
    /// One of the configured BOSH paths.
    pub path: Path<'a>,
    /// The query that nodes get.
    pub query: Query<'a>,
    /// The group of the query parameter that placement looks at, if it does and there is one.
    pub group: Option<QueryGroup>,
    /// The `Origin` that nodes get.
    pub origin: Option<OriginValue<'a>>,
    /// The `Host` of the request.
    pub host: Authority<'a>,
    /// The client's address.
    pub client: IpAddr,
    /// When its connection opened. Behind a trusted proxy that says nothing of the client, and is the
    /// beginning of time.
    pub connected: Time,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whether the client's side is encrypted.
    pub secure: bool,
    /// The span that a trusted proxy says it belongs to.
    pub parent: Parent,
    /// The whole body.
    pub body: &'a [u8],
}

impl BoshRequest<'_> {
    const fn proto(&self) -> Proto {
        if self.secure {
            Proto::Https
        } else {
            Proto::Http
        }
    }
}

impl fmt::Debug for BoshRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoshRequest")
            .field("path", &self.path)
            .field("host", &self.host)
            .field("client", &self.client)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The memory that a thread keeps for the next request, in bytes.
const KEPT: usize = 64 * 1024;

thread_local! {
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What one request needs until it is answered. It holds a sid: never to be shown.
pub(super) struct PendingRequest {
    /// What goes to the node; the same for every node.
    stored: StoredRequest,
    pub(super) rid: u64,
    /// When its connection opened, as in [`BoshRequest`].
    pub(super) connected: Time,
    /// What it is placed by, if it is a query parameter.
    pub(super) group: Option<QueryGroup>,
    /// The pause that was asked for, in seconds.
    pub(super) pause: Option<u32>,
    /// The wait that a creation asked for, in seconds.
    pub(super) wait: u16,
    pub(super) terminate: bool,
    pub(super) legacy: bool,
    /// How far its rid is ahead of its `ack`; 0 if it has none.
    ack_behind: u16,
    pub(super) record: RequestRecord,
}

impl PendingRequest {
    /// Its client's address.
    pub(super) fn client(&self) -> IpAddr {
        self.record.client()
    }

    /// What it is placed by.
    pub(super) fn key(&self) -> PlacementKey {
        self.group
            .map_or_else(|| self.client().into(), PlacementKey::Query)
    }

    /// Its `ack`; 0 if it has none.
    pub(super) fn ack(&self) -> u64 {
        match self.ack_behind {
            0 => 0,
            behind => self.rid.saturating_sub(behind.into()),
        }
    }

    /// Its body, as nodes get it.
    pub(super) fn body(&self) -> &[u8] {
        self.stored.body()
    }

    /// Hands the bytes for a node to `take`, in memory of this thread that is used again.
    pub(super) fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = OUT.take();
        self.stored.write(self.client(), &mut bytes);
        let taken = take(&bytes);
        if bytes.capacity() <= KEPT {
            bytes.clear();
            OUT.set(bytes);
        }
        taken
    }
}

impl Proxy {
    /// What is kept of a request until it is answered.
    pub(super) fn pending(
        self: &Arc<Self>,
        request: &BoshRequest<'_>,
        wrapper: &bosh::Request<'_>,
    ) -> PendingRequest {
        let record = RequestRecord::new(
            Arc::clone(self),
            kind_of(wrapper),
            (request.client, request.protocol),
            &request.parent,
        );
        record.enters(Phase::Queue);
        let body = self.for_node(request.body, wrapper);
        PendingRequest {
            stored: StoredRequest::new(
                (request.path, request.query),
                request.host,
                (request.proto(), request.origin),
                &body,
            ),
            rid: wrapper.rid,
            connected: request.connected,
            group: request.group,
            pause: wrapper.pause,
            wait: seconds(wrapper.wait.unwrap_or(60)),
            // With `stream` it ends one stream of several (XEP-0124 §16), not the session.
            terminate: wrapper.terminate && wrapper.stream.is_none(),
            legacy: wrapper.sid.is_none() && !wrapper.ver,
            ack_behind: ack_behind(wrapper),
            record,
        }
    }

    /// The part of a request's body that goes to a node.
    fn for_node<'a>(&self, body: &'a [u8], wrapper: &bosh::Request<'_>) -> Cow<'a, [u8]> {
        let root = body.get(wrapper.start..).unwrap_or_default();
        let is_kept = wrapper.sid.is_some() || self.live().creation_from == CreationFrom::Pass;
        let from = wrapper.from.as_ref().filter(|_| !is_kept);
        let parts = from.and_then(|from| {
            let front = body.get(wrapper.start..from.start)?;
            Some([front, body.get(from.end..)?])
        });
        parts.map_or(Cow::Borrowed(root), |parts| Cow::Owned(parts.concat()))
    }
}

/// The bytes of a request for a node, with this body.
pub fn request_for_node(request: &BoshRequest<'_>, body: &[u8]) -> Box<[u8]> {
    upstream::write_request(&request_head(request), body)
}

/// The head of a request for a node.
const fn request_head<'a>(request: &BoshRequest<'a>) -> RequestHead<'a> {
    RequestHead {
        path: request.path,
        query: request.query,
        host: request.host,
        forwarded_for: request.client,
        forwarded_proto: request.proto(),
        forwarded_host: Some(request.host),
        origin: request.origin,
    }
}

fn kind_of(wrapper: &bosh::Request<'_>) -> Kind {
    if wrapper.sid.is_none() {
        Kind::Creation
    } else if wrapper.terminate && wrapper.stream.is_none() {
        Kind::Terminate
    } else if wrapper.restart {
        Kind::Restart
    } else if wrapper.empty {
        Kind::Poll
    } else {
        Kind::Send
    }
}

/// How far the rid is ahead of the `ack`, if that is a lower rid.
fn ack_behind(wrapper: &bosh::Request<'_>) -> u16 {
    let ack = wrapper.ack.unwrap_or(wrapper.rid);
    u16::try_from(wrapper.rid.saturating_sub(ack)).unwrap_or(0)
}

/// Seconds as a pin keeps them; longer than 18 hours is 18 hours.
pub(super) fn seconds(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
