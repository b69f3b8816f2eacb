//! Which session a request with a sid belongs to.
//!
//! A session in the table is found at once. A sid that is not there is located as a step of the exchange,
//! which may wait; the requests of known sessions pay nothing for it.

use std::future::{Future, ready};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::answer::Answer;
use super::reject::Cause;
use super::request::PendingRequest;
use super::session_request::SessionRequest;
use super::shared::Proxy;
use crate::bosh;
use crate::cluster::NodeId;
use crate::limits::Unasked;
use crate::observe::metrics::Kind;
use crate::sessions::{Asked, Refusal, Session, Start};

/// Resolves when the same request, which came earlier, is over.
pub(super) type Earlier = oneshot::Receiver<()>;

/// What becomes of a request whose session was found.
pub(super) enum Joined {
    /// It is under way there.
    Request(SessionRequest),
    /// Its node has answered it before, and the answer was kept.
    Kept(Answer),
    /// The same request is under way. It is to be joined again when this resolves.
    Waits(Arc<Session>, Earlier),
}

/// Why a request gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// What its client is answered.
    pub(super) cause: Cause,
    /// The client expects HTTP status codes in place of conditions.
    pub(super) legacy: bool,
}

impl From<Cause> for Refused {
    /// For a session that is not known: its client is taken for one of today.
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            legacy: false,
        }
    }
}

impl Proxy {
    /// The request as one of its session `sid`, counted as under way there; none if no session of that sid
    /// is in the table.
    pub(super) fn find(
        self: &Arc<Self>,
        sid: &str,
        request: &PendingRequest,
    ) -> Result<Option<Joined>, Refused> {
        match self.sessions.find(sid) {
            Some(session) => self.join(session, request, false),
            None => Ok(None),
        }
    }

    /// The same for a sid that [`Self::find`] did not find. It becomes a provisional session at the
    /// rendezvous node of its client's address, or of its room, which every balancer agrees on.
    pub(super) fn locate(
        self: &Arc<Self>,
        sid: &str,
        request: &PendingRequest,
    ) -> impl Future<Output = Result<Joined, Refused>> + use<> {
        ready(self.assume(sid, request))
    }

    fn assume(self: &Arc<Self>, sid: &str, request: &PendingRequest) -> Result<Joined, Refused> {
        // A session can be forgotten between the look-up and its beginning; then it is unknown.
        for _ in 0..3 {
            let session = match self.sessions.find(sid) {
                Some(session) => session,
                None => self.provisional(sid, request)?,
            };
            if let Some(joined) = self.join(session, request, false)? {
                return Ok(joined);
            }
        }
        Err(Cause::SessionLost.into())
    }

    /// A request, as answers are kept for it.
    fn asked(&self, request: &PendingRequest) -> Asked {
        Asked {
            rid: request.rid,
            hash: self.sessions.hash(request.body()),
            is_poll: request.record.kind() == Kind::Poll && request.pause.is_none(),
            ack: request.ack(),
        }
    }

    /// None if the session has just been forgotten. `has_waited` says that it waited for the end of the same
    /// request.
    pub(super) fn join(
        self: &Arc<Self>,
        session: Arc<Session>,
        request: &PendingRequest,
        has_waited: bool,
    ) -> Result<Option<Joined>, Refused> {
        let refused = |cause| Refused {
            cause,
            legacy: session.terms().legacy,
        };
        let mut hash = 0;
        let start = if self.sessions.keeps_answers() {
            let asked = self.asked(request);
            hash = asked.hash;
            let may_wait = request.record.kind() == Kind::Send;
            let connected = may_wait.then_some(request.connected);
            let asked_for = (request.pause, connected, has_waited);
            self.sessions.begin(&session, asked, asked_for)
        } else {
            session.begin(request.rid, request.pause).map(Start::Begun)
        };
        match start {
            Ok(Start::Replayed(kept)) => Ok(Some(Joined::Kept(kept.into()))),
            Ok(Start::Overtaken) => Ok(Some(Joined::Kept(Answer::ok(bosh::empty())))),
            Ok(Start::Waits(earlier)) => Ok(Some(Joined::Waits(session, earlier))),
            Ok(Start::Begun(begun)) => {
                let owing = begun
                    .provisional
                    .then(|| self.limits().clients.client(request.client()));
                Ok(Some(Joined::Request(SessionRequest {
                    proxy: Arc::clone(self),
                    session,
                    place: begun.place,
                    late: begun.late,
                    hash,
                    owing,
                    finished: false,
                })))
            }
            Err(Refusal::TooMany) => Err(refused(Cause::TooMany)),
            Err(Refusal::Lost) => Err(refused(Cause::SessionLost)),
            Err(Refusal::Closed) => Err(refused(Cause::SessionClosed)),
            Err(Refusal::Gone) => Ok(None),
        }
    }

    fn provisional(&self, sid: &str, request: &PendingRequest) -> Result<Arc<Session>, Cause> {
        self.metrics.unknown_sids.inc();
        let now = self.now();
        let limits = self.limits();
        let asker = limits.clients.client(request.client());
        limits
            .unknown
            .ask(&limits.clients, sid, asker, self.clock.since_start(now))
            .map_err(|why| match why {
                Unasked::Remembered => Cause::UnknownSid,
                Unasked::Budget => Cause::UnknownBudget,
            })?;
        let tied = self
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.find(request.key(), now));
        let node = tied
            .or_else(|| self.cluster.home(request.key(), &[]))
            .unwrap_or(NodeId(0));
        let session = self.sessions.find_or_provisional(sid, node, now);
        session.ok_or(Cause::Full)
    }
}
