//! One request as hyper hands it over: what is answered here, and what becomes an exchange.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, Version};

use super::answer::response;
use super::cors::{self, Allowed};
use super::wire::Signals;
use super::{Edge, body, client, head};
use crate::metrics::Kind;
use crate::proxy::{Answer, Ask, Begun, Cause, Exchange, Note};
use crate::timers::Coarse;
use crate::upstream::Path;

/// An exchange that is answered within this stays with hyper; a longer one is held, and hyper's
/// buffers are given up. As long hyper stays behind an answer, for a client that goes on at once.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(20);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What a `GET` shows: to a person who looks whether the service is there.
const ABOUT: &str = "This is a BOSH service (XEP-0124, XEP-0206), balanced by Bowline.\n\
    It is made for XMPP clients, which send their requests by POST.\n";

/// What a held exchange needs beside itself to be answered.
pub(super) struct Held {
    /// The exchange.
    pub(super) exchange: Exchange,
    /// What its answer says of origins.
    pub(super) allowed: Allowed,
}

/// Where the service leaves an exchange that the connection may take over.
#[derive(Default)]
pub(super) struct Hold {
    held: Mutex<Option<Held>>,
    ripe: Mutex<bool>,
}

impl Hold {
    fn put(&self, held: Held) {
        *lock(&self.held) = Some(held);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<(Answer, Allowed)> {
        let mut slot = lock(&self.held);
        let Some(held) = slot.as_mut() else {
            return Poll::Pending;
        };
        let Poll::Ready(answer) = held.exchange.as_mut().poll(context) else {
            return Poll::Pending;
        };
        let allowed = std::mem::replace(&mut held.allowed, Allowed::Nothing);
        *slot = None;
        Poll::Ready((answer, allowed))
    }

    /// Takes the exchange over, if it has been waited for long enough.
    pub(super) fn take_ripe(&self) -> Option<Held> {
        if !std::mem::take(&mut *lock(&self.ripe)) {
            return None;
        }
        lock(&self.held).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service of one connection.
pub(super) struct Requests {
    pub(super) edge: Arc<Edge>,
    pub(super) peer: SocketAddr,
    pub(super) signals: Arc<Signals>,
    pub(super) hold: Arc<Hold>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let content_lengths = self.signals.begin();
        let edge = Arc::clone(&self.edge);
        let hold = Arc::clone(&self.hold);
        let signals = Arc::clone(&self.signals);
        let peer = self.peer;
        let stays = request.version() == Version::HTTP_11 && !says_close(request.headers());
        Box::pin(async move {
            let response = edge
                .handle(request, peer, content_lengths, (&hold, stays))
                .await;
            // What closes the connection may not have been read to its end.
            if stays && !says_close(response.headers()) {
                signals.answered();
            }
            Ok(response)
        })
    }
}

impl Edge {
    async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        content_lengths: u8,
        (hold, stays): (&Hold, bool),
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let allowed = cors::allowed(&self.settings.cors, &head.headers);
        let host = match head::check(&head, content_lengths) {
            Ok(host) => host,
            Err(cause) => return self.refuse(cause, &head, peer, allowed),
        };
        let known = self
            .settings
            .bosh
            .paths
            .iter()
            .any(|path| path == head.uri.path());
        let Some(path) = Path::new(head.uri.path()).filter(|_| known) else {
            return self.refuse(Cause::NotFound, &head, peer, allowed);
        };
        match head.method {
            Method::POST => {}
            Method::OPTIONS => return self.preflight(&head, peer, allowed),
            Method::GET | Method::HEAD => return self.about(&head, peer, allowed),
            _ => {
                let mut response = self.refuse(Cause::Method, &head, peer, allowed);
                let methods = HeaderValue::from_static("GET, HEAD, OPTIONS, POST");
                response.headers_mut().insert(ALLOW, methods);
                return response;
            }
        }
        let body = match body::read(
            body,
            self.settings.bosh.max_body,
            self.settings.timeouts.body,
        )
        .await
        {
            Ok(body) => body,
            Err(cause) => return self.refuse(cause, &head, peer, allowed),
        };
        let trusted = &self.settings.trusted_proxies;
        let begun = self.proxy.begin(&Ask {
            path,
            host,
            client: client::address(peer.ip(), &head.headers, trusted),
            secure: client::is_secure(peer.ip(), &head.headers, trusted),
            body,
        });
        let exchange = match begun {
            Begun::Answered(answer) => return response(answer, allowed, self.drain.is_closing()),
            Begun::Exchange(exchange) => exchange,
        };
        drop(head);
        hold.put(Held { exchange, allowed });
        let (answer, allowed) = hold.wait(stays).await;
        response(answer, allowed, self.drain.is_closing())
    }

    fn refuse(
        &self,
        cause: Cause,
        head: &Parts,
        peer: SocketAddr,
        allowed: Allowed,
    ) -> Response<Full<Bytes>> {
        let answer = Answer::reject(cause, false);
        self.note(Kind::Other, head, peer).finish(&answer, None);
        response(answer, allowed, self.drain.is_closing())
    }

    fn preflight(&self, head: &Parts, peer: SocketAddr, allowed: Allowed) -> Response<Full<Bytes>> {
        let answer = Answer::ok(Bytes::new());
        self.note(Kind::Preflight, head, peer).finish(&answer, None);
        let mut response = response(answer, allowed, self.drain.is_closing());
        response.headers_mut().remove(CONTENT_TYPE);
        cors::write_preflight(response.headers_mut());
        response
    }

    fn about(&self, head: &Parts, peer: SocketAddr, allowed: Allowed) -> Response<Full<Bytes>> {
        let answer = Answer::ok(Bytes::from_static(ABOUT.as_bytes()));
        self.note(Kind::Other, head, peer).finish(&answer, None);
        let mut response = response(answer, allowed, self.drain.is_closing());
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response
    }

    fn note(&self, kind: Kind, head: &Parts, peer: SocketAddr) -> Note {
        let client = client::address(peer.ip(), &head.headers, &self.settings.trusted_proxies);
        Note::new(Arc::clone(&self.proxy.metrics), kind, client)
    }
}

impl Hold {
    /// Waits for the answer, and offers the exchange to the connection if it takes long and the
    /// connection `stays` open behind it.
    async fn wait(&self, stays: bool) -> (Answer, Allowed) {
        let mut answer = std::pin::pin!(std::future::poll_fn(|context| self.poll(context)));
        tokio::select! {
            biased;
            answered = answer.as_mut() => return answered,
            () = Coarse::after(PARK_AFTER) => {}
        }
        if stays {
            *lock(&self.ripe) = true;
            // The connection looks when hyper has nothing more to do; wake it once for that.
            wake_once().await;
        }
        answer.await
    }
}

async fn wake_once() {
    let mut woken = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        Waker::wake_by_ref(context.waker());
        Poll::Pending
    })
    .await;
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .any(|option| option.trim().eq_ignore_ascii_case("close"))
        })
    })
}
