//! A seam for the fuzz targets: on a thread that records, a request that `edge` hands over goes no
//! further, and is written down as the bytes that a node would get. In no build of the product.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Answer, Ask, request_head};
use crate::upstream::write_request;

/// What a request that was recorded is answered with.
pub const RECORDED: &[u8] = b"<recorded/>";

thread_local! {
    static RECORD: RefCell<Option<Vec<Box<[u8]>>>> = const { RefCell::new(None) };
}

/// Begins a new record on this thread; says the one before.
pub fn record() -> Vec<Box<[u8]>> {
    RECORD.with_borrow_mut(|record| record.replace(Vec::new()).unwrap_or_default())
}

/// Records a request, if this thread does.
pub(super) fn take(ask: &Ask<'_>) -> Option<Answer> {
    RECORD.with_borrow_mut(|record| {
        let request = write_request(&request_head(ask), &ask.body);
        record.as_mut()?.push(request);
        Some(Answer::ok(Bytes::from_static(RECORDED)))
    })
}
