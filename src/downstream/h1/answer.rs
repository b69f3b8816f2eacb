//! The head of an answer.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::super::Downstream;
use super::super::cors::Allowed;
use super::super::handler::{Extra, Response};
use crate::http1::{AnswerHead, Method, RequestHead, Version};
use crate::timers;

const XML: &[u8] = b"text/xml; charset=utf-8";

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
        let closes = !self.stays || answer.close || downstream.drain.is_closing();
        let mut head = AnswerHead::begin(out, self.version, answer.status);
        if !matches!(response.extra, Extra::Preflight) {
            head.field(
                "content-type",
                answer.content_type.as_deref().unwrap_or(XML),
            );
        }
        self.allowed.write(&mut head);
        match &response.extra {
            Extra::Nothing => {}
            Extra::Allow(methods) => drop(head.field("allow", methods.as_bytes())),
            Extra::Preflight => downstream.cors.write_preflight(&mut head),
            Extra::Cache(age) => drop(head.field("cache-control", age)),
        }
        if let Some(seconds) = answer.retry_after {
            head.field(
                "retry-after",
                itoa::Buffer::new().format(seconds).as_bytes(),
            );
        }
        head.field("date", &date());
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

/// The `Date` of now (RFC 9110 §6.6.1). The clock is looked at once in each tick of the timers, so it
/// may be 50 ms late.
fn date() -> [u8; 29] {
    thread_local! {
        /// The tick, the second, and its text.
        static LAST: Cell<Option<(u32, u64, [u8; 29])>> = const { Cell::new(None) };
    }
    let tick = timers::present_tick();
    let last = LAST.get();
    if let Some((last_tick, _, text)) = last
        && last_tick == tick
    {
        return text;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.unwrap_or(Duration::ZERO).as_secs();
    let text = match last {
        Some((_, second, text)) if second == now => text,
        _ => {
            let written =
                httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
            written.as_bytes().try_into().unwrap_or([b' '; 29])
        }
    };
    LAST.set(Some((tick, now, text)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_its_form() {
        for _ in 0..2 {
            let text = String::from_utf8(date().to_vec()).unwrap();
            assert!(text.ends_with(" GMT"), "{text:?}");
        }
    }
}
