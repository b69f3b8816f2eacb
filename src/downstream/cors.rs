//! Cross-origin resource sharing: who may read answers from a page of another origin.
//!
//! Every answer carries it, the balancer's own as well: without it a browser shows the page a
//! network error, and a client that could log in again in a second waits for eleven.

use crate::config::{Cors, CorsOwner, Origins};
use crate::http1::{FieldWriter, Fields, KnownField};
use crate::proxy::Answer;

/// The configured policy, in the form that answers need.
#[derive(Debug)]
pub(super) struct Policy {
    origins: Origins,
    credentials: bool,
    /// What a preflight allows a page to send: `Content-Type`, and the configured headers.
    request_headers: String,
    /// The fields of a node's answer that pages may read; empty if there are none.
    exposed: String,
    owner: CorsOwner,
}

/// What one request's answer says of origins.
#[derive(Debug, Clone)]
pub(super) enum Allowed {
    /// Every origin.
    Any,
    /// The request's own.
    This(Box<[u8]>),
    /// The request's own, and its page may have sent credentials.
    WithCredentials(Box<[u8]>),
    /// None: the request's origin is not on the list, or it named none.
    Nothing,
}

impl Policy {
    /// The policy of the settings.
    pub(super) fn new(cors: &Cors, answer_headers: &[String]) -> Self {
        let mut names = "Content-Type".to_owned();
        for name in &cors.headers {
            names = names + ", " + name;
        }
        Self {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            request_headers: names,
            exposed: answer_headers.join(", "),
            owner: cors.owner,
        }
    }

    /// What the answer to a request with `fields` says.
    pub(super) fn allowed(&self, fields: Fields<'_>) -> Allowed {
        match &self.origins {
            Origins::Any => Allowed::Any,
            Origins::Only(origins) => match fields.first("origin") {
                Some(origin) if origins.iter().any(|one| one.as_bytes() == origin) => {
                    let origin = origin.into();
                    if self.credentials {
                        Allowed::WithCredentials(origin)
                    } else {
                        Allowed::This(origin)
                    }
                }
                _ => Allowed::Nothing,
            },
        }
    }

    /// Whether a page of the origin of a request with `fields` may open a WebSocket: a browser asks no
    /// preflight for it. A client that names no origin is no browser.
    pub(super) fn lets_in(&self, fields: Fields<'_>) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Only(origins) => fields
                .all("origin")
                .all(|origin| origins.iter().any(|one| one.as_bytes() == origin)),
        }
    }

    /// Writes what every answer says of origins, and the fields of a node's answer that pass.
    #[inline]
    pub(super) fn write(&self, allowed: &Allowed, answer: &Answer, head: &mut impl FieldWriter) {
        let Some(fields) = &answer.fields else {
            allowed.write(head);
            return;
        };
        if self.owner == CorsOwner::Own {
            allowed.write(head);
            if !fields.is_empty() {
                head.add("access-control-expose-headers", self.exposed.as_bytes());
            }
        }
        for (name, value) in fields.iter() {
            head.add(name, value);
        }
    }

    /// Writes what a preflight asks for; browsers keep it for a day, or for as long as they do.
    pub(super) fn write_preflight(&self, head: &mut impl FieldWriter) {
        head.add("access-control-allow-methods", b"GET, POST, OPTIONS");
        let names = self.request_headers.as_bytes();
        head.add("access-control-allow-headers", names);
        head.add("access-control-max-age", b"86400");
    }
}

impl Allowed {
    /// Writes the fields that every answer has.
    #[inline]
    pub(super) fn write(&self, head: &mut impl FieldWriter) {
        const ORIGIN: &str = "access-control-allow-origin";
        match self {
            Self::Any => {
                head.add_known(KnownField::ANY_ORIGIN);
                return;
            }
            Self::This(origin) => {
                head.add(ORIGIN, origin);
            }
            Self::WithCredentials(origin) => {
                head.add(ORIGIN, origin);
                head.add("access-control-allow-credentials", b"true");
            }
            Self::Nothing => {}
        }
        head.add("vary", b"Origin");
    }
}
