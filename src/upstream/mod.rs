//! One HTTP/1.1 exchange with a node: a connection, a request, an answer.
//!
//! Owns how bytes go to a node and come back, and what is an answer. Decides nothing about
//! sessions, nodes or sending again; it says precisely what happened, so that others can:
//!
//! - did the connection open ([`Error::is_connect`]), and was it this machine's fault
//!   ([`Error::is_local`])?
//! - did a byte of the request leave ([`Error::request_left`])?
//! - did a byte come back ([`Error::answer_began`]), and was it HTTP at all ([`Error::NotHttp`])?
//!
//! A general client hides these, pools connections between sessions, and keeps a read buffer for
//! each. Here a connection has one owner, and a held poll costs its socket and under a hundred bytes:
//! reading goes through a buffer on the stack of the thread that polls, and only an answer that
//! comes in pieces takes memory before it is whole.
//!
//! The reader of answers stands on `http1`, does no I/O and reads no clock. What it refuses is listed
//! at [`Reader`]; in doubt it refuses, for a connection whose next byte is in doubt could show one
//! session's stanzas to its next request.

mod connect_limiter;
mod connection;
mod error;
mod heard;
mod proxy_header;
mod race;
mod request;
mod response;
mod stream;
mod tls;

pub use connect_limiter::{ConnectLimiter, ConnectPermit, Priority};
pub use connection::{Connection, Receiving, Sending};
pub use error::Error;
pub use heard::Heard;
pub use proxy_header::ProxyHeader;
pub use race::Candidates;
pub use request::{
    Authority, OriginValue, Path, Preflight, Proto, Query, RequestHead, StoredRequest,
    write_request,
};
pub use response::{Reader, Response};
pub use stream::{NodeStream, Opening};
pub use tls::{TlsClient, TlsFault, TlsLoadError, check_tls};
