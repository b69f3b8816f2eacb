//! One request as hyper hands it over: what is answered here, and what becomes an exchange.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, Version};

use super::answer::{CLOSE, response, response_in};
use super::body::Unread;
use super::cors::Allowed;
use super::head::Fields;
use super::wire::Signals;
use super::{Edge, body, client};
use crate::metrics::Kind;
use crate::proxy::{Answer, Ask, Begun, Cause, Exchange, Note};
use crate::upstream::Path;

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
    /// Its answer can be written without hyper, which knows how an old client wants it, and when to
    /// close.
    parks: bool,
}

/// Where the service leaves an exchange that the connection may take over.
#[derive(Default)]
pub(super) struct Hold(Mutex<Option<Held>>);

impl Hold {
    fn put(&self, held: Held) {
        *lock(&self.0) = Some(held);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<(Answer, Allowed)> {
        let mut slot = lock(&self.0);
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

    /// Takes the exchange over, if there is one that can go on without hyper.
    pub(super) fn take(&self) -> Option<Held> {
        lock(&self.0).take_if(|held| held.parks)
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
        self.signals.begin();
        let edge = Arc::clone(&self.edge);
        let hold = Arc::clone(&self.hold);
        let signals = Arc::clone(&self.signals);
        let peer = self.peer;
        Box::pin(async move {
            let hold = (&*hold, &*signals);
            let (response, stays) = edge.handle(request, peer, hold).await;
            signals.answered(stays);
            Ok(response)
        })
    }
}

/// How a request goes on once it was read.
enum Read {
    Answered(Response<Full<Bytes>>),
    Exchange(Exchange, Allowed),
}

/// The configured path that `path` names: itself, or itself with one `/` more at its end. A
/// configured path that ends in `/` is compared to the letter.
fn configured_path<'a>(paths: &'a [String], path: &str) -> Option<&'a str> {
    let find = |wanted: &str| paths.iter().find(|one| *one == wanted).map(String::as_str);
    find(path).or_else(|| find(path.strip_suffix('/').filter(|bare| !bare.ends_with('/'))?))
}

impl Edge {
    /// Answers one request. Says also whether its connection stays open; what closes the
    /// connection may not have been read to its end.
    async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        (hold, signals): (&Hold, &Signals),
    ) -> (Response<Full<Bytes>>, bool) {
        let (head, body) = request.into_parts();
        let fields = Fields::of(&head);
        let stays = fields.stays(head.version);
        let parks = stays && head.version == Version::HTTP_11;
        let read = self.read(&head, &fields, body, peer, signals).await;
        // Its memory is for the response; what it says lies in hyper's buffer, and would keep that.
        let mut headers = head.headers;
        headers.clear();
        let mut response = match read {
            Read::Answered(response) => response,
            Read::Exchange(exchange, allowed) => {
                hold.put(Held {
                    exchange,
                    allowed,
                    parks,
                });
                signals.step();
                let (answer, allowed) = std::future::poll_fn(|context| hold.poll(context)).await;
                response_in(headers, answer, allowed, self.drain.is_closing())
            }
        };
        if !stays {
            // hyper does not see a `close` beside what is not ASCII.
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        let stays = !response.headers().contains_key(CONNECTION);
        if !stays {
            // To an HTTP/1.0 client hyper would add `keep-alive` beside the `close` of an HTTP/1.1
            // response.
            *response.version_mut() = head.version;
        }
        (response, stays)
    }

    /// Reads a request, and answers what needs no node.
    async fn read(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        body: Incoming,
        peer: SocketAddr,
        signals: &Signals,
    ) -> Read {
        let bosh = &self.settings.bosh;
        let allowed = self.cors.allowed(&head.headers);
        let refuse = |cause, allowed| Read::Answered(self.refuse(cause, head, peer, allowed));
        let host = match fields.check(head) {
            Ok(_) if signals.is_doubtful() => return refuse(Cause::BadHead, allowed),
            Ok(host) => host,
            Err(cause) => return refuse(cause, allowed),
        };
        let configured = configured_path(&bosh.paths, head.uri.path());
        let Some(path) = configured.and_then(Path::new) else {
            return Read::Answered(self.off_bosh(head, peer, allowed));
        };
        match head.method {
            Method::POST => {}
            Method::OPTIONS => return Read::Answered(self.preflight(head, peer, allowed)),
            Method::GET | Method::HEAD => return Read::Answered(self.about(head, peer, allowed)),
            _ => {
                let methods = "GET, HEAD, OPTIONS, POST";
                return Read::Answered(self.refuse_method(methods, head, peer, allowed));
            }
        }
        let (patience, memory) = (self.settings.timeouts.body, &self.bodies);
        let body = match body::read(body, bosh.max_body, patience, memory).await {
            Ok(_) if signals.is_doubtful() => return refuse(Cause::BadHead, allowed),
            Ok(body) => body,
            Err(Unread::Refused(cause)) => return refuse(cause, allowed),
            Err(Unread::Gone) => {
                // Counted as that. What is returned reaches nobody.
                drop(self.note(Kind::Other, head, peer));
                let answer = Answer::reject(Cause::BadHead, false);
                return Read::Answered(response(answer, allowed, true));
            }
        };
        let trusted = &self.settings.trusted_proxies;
        let begun = self.proxy.begin(&Ask {
            path,
            host,
            client: client::address(peer.ip(), &head.headers, trusted),
            secure: client::is_secure(peer.ip(), &head.headers, trusted),
            parent: client::parent(peer.ip(), &head.headers, trusted),
            body,
        });
        match begun {
            Begun::Answered(answer) => {
                Read::Answered(response(answer, allowed, self.drain.is_closing()))
            }
            Begun::Exchange(exchange) => Read::Exchange(exchange, allowed),
        }
    }

    fn refuse(
        &self,
        cause: Cause,
        head: &Parts,
        peer: SocketAddr,
        allowed: Allowed,
    ) -> Response<Full<Bytes>> {
        let answer = Answer::reject(cause, false);
        self.note(Kind::Other, head, peer).finish(&answer);
        response(answer, allowed, self.drain.is_closing())
    }

    fn refuse_method(
        &self,
        methods: &'static str,
        head: &Parts,
        peer: SocketAddr,
        allowed: Allowed,
    ) -> Response<Full<Bytes>> {
        let mut response = self.refuse(Cause::Method, head, peer, allowed);
        let methods = HeaderValue::from_static(methods);
        response.headers_mut().insert(ALLOW, methods);
        response
    }

    /// Answers a request whose path is not BOSH: with the list of nodes, if it asks for that.
    fn off_bosh(&self, head: &Parts, peer: SocketAddr, allowed: Allowed) -> Response<Full<Bytes>> {
        let list = self.node_list.as_ref();
        let found = list.and_then(|list| Some((list, list.find(head.uri.path())?)));
        let Some((list, document)) = found else {
            return self.refuse(Cause::NotFound, head, peer, allowed);
        };
        match head.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return self.preflight(head, peer, allowed),
            _ => return self.refuse_method("GET, HEAD, OPTIONS", head, peer, allowed),
        }
        let (answer, cache) = list.answer(&self.proxy.cluster, document);
        self.note(Kind::Other, head, peer).finish(&answer);
        let mut response = response(answer, allowed, self.drain.is_closing());
        response.headers_mut().insert(CACHE_CONTROL, cache);
        response
    }

    fn preflight(&self, head: &Parts, peer: SocketAddr, allowed: Allowed) -> Response<Full<Bytes>> {
        let answer = Answer::ok(Bytes::new());
        self.note(Kind::Preflight, head, peer).finish(&answer);
        let mut response = response(answer, allowed, self.drain.is_closing());
        response.headers_mut().remove(CONTENT_TYPE);
        self.cors.write_preflight(response.headers_mut());
        response
    }

    fn about(&self, head: &Parts, peer: SocketAddr, allowed: Allowed) -> Response<Full<Bytes>> {
        let answer = Answer::ok(Bytes::from_static(ABOUT.as_bytes()));
        self.note(Kind::Other, head, peer).finish(&answer);
        let mut response = response(answer, allowed, self.drain.is_closing());
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response
    }

    fn note(&self, kind: Kind, head: &Parts, peer: SocketAddr) -> Note {
        let trusted = &self.settings.trusted_proxies;
        let client = client::address(peer.ip(), &head.headers, trusted);
        let parent = client::parent(peer.ip(), &head.headers, trusted);
        Note::new(Arc::clone(&self.proxy), kind, client, &parent)
    }
}
