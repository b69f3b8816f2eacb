//! Reading and writing BOSH wrappers (XEP-0124, XEP-0206).
//!
//! Owns: what a request's wrapper and an answer's wrapper say, and the wrappers that the balancer
//! writes itself. Never: I/O, clocks, HTTP, or a word about nodes and sessions. It keeps nothing
//! between two calls, and no input makes it panic.
//!
//! A request is read to its end, since a node that sees a second root or a comment reads something
//! other than the balancer did. Of an answer only the start tag is read; the rest passes untouched.
//!
//! ```text
//! request, answer   attributes → fields
//! fields            one attribute value → sid, rid, number
//! wrapper           the conforming reader over quick-xml
//! attributes        one start tag → names and values; namespaces: prefixes in scope
//! reference, chars  what XML 1.0 says of references, names and characters
//! edit              an attribute of an answer's start tag out, or another value in
//! write             conditions, and the terminate wrappers
//! ```

mod attributes;
mod chars;
mod edit;
mod fields;
mod malformed;
mod namespaces;
mod reference;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod wrapper;
mod write;

pub use edit::{with, without};
pub use malformed::Malformed;
pub use request::{Request, read_request};
pub use response::{AttributeRange, Response, read_response};
pub use wrapper::{HTTPBIND, MAX_ATTRIBUTES, MAX_CHILD_ATTRIBUTES, MAX_DEPTH, XBOSH};
pub use write::{Condition, empty, terminate};
