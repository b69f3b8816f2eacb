//! Tests of the wrapper reader: tables of edge cases, properties, bodies from the wire, work.

use std::borrow::Cow;

use super::{HTTPBIND, Malformed, Request, read_request};

mod accepted;
mod answers;
mod properties;
mod refused;
mod wire;
mod work;

/// `{N}` in a table's body stands for the declaration of the wrapper's namespace.
fn body(template: &str) -> String {
    template.replace("{N}", &format!("xmlns='{HTTPBIND}'"))
}

/// The request with rid 1 that says nothing else.
fn bare() -> Request<'static> {
    Request {
        rid: 1,
        empty: true,
        ..Request::default()
    }
}

#[test]
fn ordinary_values_are_borrowed() {
    let body = body("<body {N} rid='1' sid='abc' to='example.com'/>");
    let request = read_request(body.as_bytes()).expect("a good body");
    assert!(matches!(request.sid, Some(Cow::Borrowed("abc"))));
    assert!(matches!(request.to, Some(Cow::Borrowed("example.com"))));
}

#[test]
fn a_cause_is_told_in_words() {
    assert_eq!(Malformed::Comment.to_string(), "a comment");
    assert_eq!(Malformed::MissingRid.to_string(), "there is no rid");
}
