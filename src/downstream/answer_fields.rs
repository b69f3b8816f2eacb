//! The fields of an answer's head that HTTP/1.1 and HTTP/2 have in common.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::Downstream;
use super::cors::Allowed;
use super::handler::{Extra, Response};
use crate::http1::{FieldWriter, KnownField};
use crate::timers;

impl Response {
    /// Writes the fields of its head, all but those that frame it.
    #[inline]
    pub(super) fn write_fields(
        &self,
        allowed: &Allowed,
        downstream: &Downstream,
        head: &mut impl FieldWriter,
    ) {
        let answer = &self.answer;
        if !matches!(self.extra, Extra::Preflight) {
            match answer.content_type.as_deref() {
                Some(other) if other != KnownField::XML.value().as_bytes() => {
                    head.add("content-type", other);
                }
                _ => head.add_known(KnownField::XML),
            }
        }
        downstream.cors.write(allowed, answer, head);
        match &self.extra {
            Extra::Nothing => {}
            Extra::Allow(methods) => head.add("allow", methods.as_bytes()),
            Extra::WebSocket => {
                head.add("upgrade", b"websocket");
                head.add("sec-websocket-version", b"13");
            }
            Extra::Preflight => downstream.cors.write_preflight(head),
            Extra::Location(url) => head.add("location", url),
            Extra::Cache(age) => head.add("cache-control", age),
        }
        if let Some(seconds) = answer.retry_after {
            head.add(
                "retry-after",
                itoa::Buffer::new().format(seconds).as_bytes(),
            );
        }
        head.add("date", &date());
    }
}

/// The `Date` of now (RFC 9110 §6.6.1). The clock is looked at once in each tick of the timers, so it
/// may be 50 ms late.
#[inline]
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
