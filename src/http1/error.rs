//! Why bytes are not an HTTP/1.1 message.

use std::fmt;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It does not begin as HTTP.
    NotHttp,
    /// It breaks a rule of HTTP, or a stricter one of ours; the text names the rule.
    Invalid(&'static str),
    /// The head, the body, or what frames the body is larger than allowed.
    TooLarge,
    /// The head has more than [`MAX_FIELDS`](super::MAX_FIELDS) fields.
    TooManyFields,
    /// A chunked body has more than [`MAX_FIELDS`](super::MAX_FIELDS) trailers.
    TooManyTrailers,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => f.write_str("not HTTP"),
            Self::Invalid(rule) => f.write_str(rule),
            Self::TooLarge => f.write_str("too large"),
            Self::TooManyFields => f.write_str("more than 100 header fields"),
            Self::TooManyTrailers => f.write_str("more than 100 trailers"),
        }
    }
}

impl std::error::Error for Error {}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        Self::Invalid(match error {
            httparse::Error::HeaderName => "the name of a header field",
            httparse::Error::HeaderValue => "the value of a header field",
            httparse::Error::TooManyHeaders => return Self::TooManyFields,
            httparse::Error::NewLine => "the end of a line",
            httparse::Error::Status => "the status",
            httparse::Error::Token | httparse::Error::Version => "the first line",
        })
    }
}
