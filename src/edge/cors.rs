//! Cross-origin resource sharing: who may read answers from a page of another origin.
//!
//! Every answer carries it, the balancer's own as well: without it a browser shows the page a
//! network error, and a client that could log in again in a second waits for eleven.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::config::{Cors, Origins};

/// What one request's answer says of origins.
#[derive(Debug, Clone)]
pub(super) enum Allowed {
    /// Every origin.
    Any,
    /// The request's own.
    This(Box<HeaderValue>),
    /// None: the request's origin is not on the list, or it named none.
    Nothing,
}

/// What the answer to a request with `headers` says.
pub(super) fn allowed(cors: &Cors, headers: &HeaderMap) -> Allowed {
    match &cors.origins {
        Origins::Any => Allowed::Any,
        Origins::Only(origins) => match headers.get(ORIGIN) {
            Some(origin)
                if origins
                    .iter()
                    .any(|one| one.as_bytes() == origin.as_bytes()) =>
            {
                Allowed::This(Box::new(origin.clone()))
            }
            _ => Allowed::Nothing,
        },
    }
}

impl Allowed {
    /// Writes the fields that every answer has.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        const ANY: HeaderValue = HeaderValue::from_static("*");
        const ON_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
        match self {
            Self::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            }
            Self::This(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, *origin);
                headers.insert(VARY, ON_ORIGIN);
            }
            Self::Nothing => {
                headers.insert(VARY, ON_ORIGIN);
            }
        }
    }
}

/// Writes what a preflight asks for; browsers keep it for a day, or for as long as they do.
pub(super) fn write_preflight(headers: &mut HeaderMap) {
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Content-Type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}
