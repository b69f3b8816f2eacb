//! The first step of a request: read its wrapper, and find out where it belongs.

use std::net::IpAddr;
use std::sync::Arc;

use super::create;
use super::exchange::Exchange;
use super::lookup::Joined;
use super::reject::Cause;
use super::request::BoshRequest;
use super::request_record::{Reply, RequestRecord};
use super::session_request;
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::bosh;
use crate::observe::metrics::Kind;

/// What becomes of a request.
pub enum Handled {
    /// It is answered.
    Answered(Reply),
    /// It is at a node, or waits for one.
    Exchange(Exchange),
}

impl Proxy {
    /// Begins one request.
    pub fn begin(self: &Arc<Self>, request: &BoshRequest<'_>) -> Handled {
        let length = u64::try_from(request.body.len()).unwrap_or(0);
        self.metrics.client_received_bytes.inc_by(length);
        match bosh::read_request(request.body) {
            Ok(wrapper) => self.route(request, &wrapper),
            Err(malformed) => {
                tracing::debug!(client = %request.client, %malformed, "malformed wrapper");
                let record = RequestRecord::new(
                    Arc::clone(self),
                    Kind::Other,
                    (request.client, request.protocol),
                    &request.parent,
                );
                Handled::Answered(record.reject(Cause::Malformed, false))
            }
        }
    }

    fn route(self: &Arc<Self>, request: &BoshRequest<'_>, wrapper: &bosh::Request<'_>) -> Handled {
        let pending = self.pending(request, wrapper);
        let Some(sid) = &wrapper.sid else {
            if let Err(cause) = self.admit(request.client) {
                return Handled::Answered(pending.record.reject(cause, pending.legacy));
            }
            return Handled::Exchange(Exchange::new(create::run(Arc::clone(self), pending)));
        };
        pending.record.of_session(sid);
        if let Some(addresses) = &self.addresses {
            addresses.renew(pending.key(), self.now());
        }
        match self.find(sid, &pending) {
            Ok(Some(Joined::Request(found))) => {
                Handled::Exchange(Exchange::new(session_request::run(found, pending)))
            }
            Ok(Some(Joined::Kept(answer))) => {
                pending.record.enters(Phase::Stead);
                Handled::Answered(pending.record.answer(answer))
            }
            Ok(Some(Joined::Waits(session, earlier))) => {
                let run = session_request::run_copy(Arc::clone(self), (session, earlier), pending);
                Handled::Exchange(Exchange::new(run))
            }
            Ok(None) => {
                let sid = sid.as_ref().into();
                let run = session_request::run_unknown(Arc::clone(self), sid, pending);
                Handled::Exchange(Exchange::new(run))
            }
            Err(refused) => Handled::Answered(pending.record.reject(refused.cause, refused.legacy)),
        }
    }

    /// Whether `client` may ask for a new session.
    pub(super) fn admit(&self, client: IpAddr) -> Result<(), Cause> {
        if self.sessions.is_full() {
            return Err(Cause::Full);
        }
        let limits = self.limits();
        let Some(creations) = &limits.creations else {
            return Ok(());
        };
        let may = creations.take(limits.clients.client(client), self.started.elapsed());
        may.then_some(()).ok_or(Cause::CreationRate)
    }
}
