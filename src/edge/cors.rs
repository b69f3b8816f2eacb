//! Cross-origin resource sharing: who may read answers from a page of another origin.
//!
//! Every answer carries it, the balancer's own as well: without it a browser shows the page a
//! network error, and a client that could log in again in a second waits for eleven.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::config::{Cors, Origins};

/// The configured policy, in the form that answers need.
#[derive(Debug)]
pub(super) struct Policy {
    origins: Origins,
    credentials: bool,
    /// What a preflight allows a page to send: `Content-Type`, and the configured headers.
    request_headers: HeaderValue,
}

/// What one request's answer says of origins.
#[derive(Debug, Clone)]
pub(super) enum Allowed {
    /// Every origin.
    Any,
    /// The request's own.
    This(Box<HeaderValue>),
    /// The request's own, and its page may have sent credentials.
    WithCredentials(Box<HeaderValue>),
    /// None: the request's origin is not on the list, or it named none.
    Nothing,
}

impl Policy {
    /// The policy of the settings.
    pub(super) fn new(cors: &Cors) -> Self {
        const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("Content-Type");
        let mut names = "Content-Type".to_owned();
        for name in &cors.headers {
            names = names + ", " + name;
        }
        Self {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            // Checked names always fit; settings that were never checked may not.
            request_headers: HeaderValue::try_from(names).unwrap_or(CONTENT_TYPE),
        }
    }

    /// What the answer to a request with `headers` says.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Allowed {
        match &self.origins {
            Origins::Any => Allowed::Any,
            Origins::Only(origins) => match headers.get(ORIGIN) {
                Some(origin)
                    if origins
                        .iter()
                        .any(|one| one.as_bytes() == origin.as_bytes()) =>
                {
                    let origin = Box::new(origin.clone());
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

    /// Writes what a preflight asks for; browsers keep it for a day, or for as long as they do.
    pub(super) fn write_preflight(&self, headers: &mut HeaderMap) {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, OPTIONS"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.request_headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
}

impl Allowed {
    /// Writes the fields that every answer has.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        const ANY: HeaderValue = HeaderValue::from_static("*");
        const ON_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
        const TRUE: HeaderValue = HeaderValue::from_static("true");
        match self {
            Self::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
                return;
            }
            Self::This(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, *origin);
            }
            Self::WithCredentials(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, *origin);
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            Self::Nothing => {}
        }
        headers.insert(VARY, ON_ORIGIN);
    }
}
