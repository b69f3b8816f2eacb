//! The head of an answer.

use super::super::Downstream;
use super::super::cors::Allowed;
use super::super::handler::Response;
use crate::http1::{AnswerHead, Method, RequestHead, Version};

/// What a request says of the form of its answer.
#[derive(Debug)]
pub(super) struct Form {
    version: Version,
    /// The connection stays open, as far as the client says.
    stays: bool,
    /// The answer has no body.
    bodiless: bool,
    allowed: Allowed,
}

impl Form {
    /// The form of the answer to a request.
    pub(super) fn of(head: &RequestHead<'_>, downstream: &Downstream) -> Self {
        Self {
            version: head.version,
            stays: head.stays(),
            bodiless: head.method == Method::Head,
            allowed: downstream.allowed(head.fields),
        }
    }

    /// The form of the answer to what is not a request.
    pub(super) fn of_nothing(downstream: &Downstream) -> Self {
        Self {
            version: Version::Http11,
            stays: false,
            bodiless: false,
            allowed: downstream.allowed(crate::http1::Fields::default()),
        }
    }

    /// The form of the last answer on its connection.
    pub(super) fn closing(self) -> Self {
        Self {
            stays: false,
            ..self
        }
    }

    /// Writes an answer. Says whether the connection closes behind it.
    pub(super) fn write(
        &self,
        response: &Response,
        downstream: &Downstream,
        out: &mut Vec<u8>,
    ) -> bool {
        let answer = &response.answer;
        let closes = !self.stays || answer.close || downstream.is_closing();
        let mut head = AnswerHead::begin(out, self.version, answer.status);
        response.write_fields(&self.allowed, downstream, &mut head);
        if closes {
            head.field("connection", b"close");
        } else if self.version == Version::Http10 {
            head.field("connection", b"keep-alive");
        }
        head.end(answer.body.len());
        if !self.bodiless {
            out.extend_from_slice(&answer.body);
        }
        closes
    }
}
