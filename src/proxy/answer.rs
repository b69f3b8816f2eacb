//! What a client is answered, before `downstream` puts it into HTTP.

use std::fmt;

use bytes::Bytes;

use super::reject::Cause;
use crate::http1::KeptFields;
use crate::sessions::KeptAnswer;

/// An answer to one request. Its body may hold a sid, so that `{:?}` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` as the node gave it; `text/xml; charset=utf-8` where there is none.
    pub content_type: Option<Bytes>,
    /// The body.
    pub body: Bytes,
    /// Fields of the node's head that its client gets; none in an answer of the balancer's own.
    pub fields: Option<Box<KeptFields>>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u8>,
    /// Whether the client's connection closes behind it.
    pub close: bool,
    /// The cause, if the balancer wrote it in a node's place.
    pub cause: Option<Cause>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl From<KeptAnswer> for Answer {
    fn from(kept: KeptAnswer) -> Self {
        let head = kept.head.map(|head| *head);
        let (content_type, fields) =
            head.map_or((None, None), |head| (head.content_type, head.fields));
        Self {
            content_type,
            fields,
            ..Self::ok(kept.body)
        }
    }
}

impl Answer {
    /// A wrapper with status 200.
    pub const fn ok(body: Bytes) -> Self {
        Self {
            status: 200,
            content_type: None,
            body,
            fields: None,
            retry_after: None,
            close: false,
            cause: None,
        }
    }

    /// The balancer's own answer to `cause`, for a client that named a `ver` or is `legacy`.
    pub fn reject(cause: Cause, legacy: bool) -> Self {
        let row = cause.row();
        Self {
            status: if legacy {
                row.legacy_status
            } else {
                row.status
            },
            content_type: None,
            body: cause.wrapper(),
            fields: None,
            retry_after: row.retry_after,
            close: row.close,
            cause: Some(cause),
        }
    }
}
