//! One request to the admin listener of a running balancer, from the command line.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exit;
use crate::admin::{MARK, read_token};

/// Where a balancer is that is configured with the default.
const DEFAULT: &str = "http://127.0.0.1:9280";
/// The variable with the address, and the one with the token's file.
const ADDRESS_VARIABLE: &str = "BOWLINE_ADMIN";
const TOKEN_VARIABLE: &str = "BOWLINE_TOKEN_FILE";
/// How long an answer may take, from the connection to its last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes: `/health` of 1024 nodes has less than one.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Which balancer is meant, and what opens it.
#[derive(Debug, Clone, clap::Args)]
pub struct Whom {
    /// URL of the admin listener [default: BOWLINE_ADMIN, or http://127.0.0.1:9280].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with the admin token [default: BOWLINE_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why there is no answer to work with.
#[derive(Debug)]
pub(super) enum AskError {
    /// The address is none.
    Address(String),
    /// The token cannot be read.
    Token(crate::admin::TokenError),
    /// Nobody answers there, or not in time.
    Unavailable(String, String),
    /// What answers is not a balancer that this program understands.
    Foreign(String, String),
    /// The balancer wants a token, or another one, or another name.
    Forbidden(String, String),
}

impl AskError {
    /// The exit code for it.
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Address(_) => exit::USAGE.into(),
            Self::Token(_) => exit::CONFIG.into(),
            Self::Unavailable(..) => exit::UNAVAILABLE.into(),
            Self::Foreign(..) => exit::PROTOCOL.into(),
            Self::Forbidden(..) => exit::FORBIDDEN.into(),
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(
                f,
                "{address:?} is not the URL of an admin listener, such as {DEFAULT}"
            ),
            Self::Token(error) => write!(f, "{error}"),
            Self::Unavailable(url, why) => write!(f, "no answer from {url}: {why}"),
            Self::Foreign(url, why) => write!(f, "{url} does not answer like Bowline: {why}"),
            Self::Forbidden(url, why) => write!(f, "{url} refuses: {why}"),
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    /// Who gave it.
    pub(super) url: String,
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Bytes,
}

impl Reply {
    /// The reason of an error, in the balancer's words.
    pub(super) fn error(&self) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(value.get("error")?.as_str()?.to_owned())
    }

    /// The body as JSON of the shape `T`.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, AskError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let why = format!("status {}, {error}", self.status);
            AskError::Foreign(self.url.clone(), why)
        })
    }
}

/// What a request changes.
#[derive(Debug)]
pub(super) enum Change {
    /// `PUT` with this body.
    Put(String),
    /// `DELETE`.
    Delete,
}

/// Asks for `path`; with a `body` it is a change.
pub(super) async fn ask(whom: &Whom, path: &str, body: Option<String>) -> Result<Reply, AskError> {
    send(whom, path, body.map(Change::Put)).await
}

/// Changes what is at `path`.
pub(super) async fn change(whom: &Whom, path: &str, change: Change) -> Result<Reply, AskError> {
    send(whom, path, Some(change)).await
}

async fn send(whom: &Whom, path: &str, change: Option<Change>) -> Result<Reply, AskError> {
    let address = whom.admin.clone().or_else(|| variable(ADDRESS_VARIABLE));
    let address = address.unwrap_or_else(|| DEFAULT.to_owned());
    let authority = authority(&address).ok_or(AskError::Address(address))?;
    let token_file = whom.token_file.clone();
    let token_file = token_file.or_else(|| variable(TOKEN_VARIABLE).map(PathBuf::from));
    let token = token_file.as_deref().map(read_token).transpose();
    let token = token.map_err(AskError::Token)?;
    let url = format!("http://{authority}");
    let request = request(&authority, path, token.as_deref(), change)
        .ok_or_else(|| AskError::Address(url.clone()))?;
    let reply = match timeout(LIMIT, exchange(&authority, &url, request)).await {
        Ok(reply) => reply?,
        Err(_) => {
            let why = format!("nothing within {} s", LIMIT.as_secs());
            return Err(AskError::Unavailable(url, why));
        }
    };
    if matches!(reply.status, 401 | 403 | 421) {
        let why = reply.error();
        let why = why.unwrap_or_else(|| format!("status {}", reply.status));
        return Err(AskError::Forbidden(url, why));
    }
    Ok(reply)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// `host:port` of an address; the port may be left out where it is 80.
fn authority(address: &str) -> Option<String> {
    let rest = match address.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => address,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let uri: Uri = format!("http://{rest}/").parse().ok()?;
    let authority = uri.authority()?;
    if uri.path() != "/" || authority.as_str() != rest || rest.contains('@') {
        return None;
    }
    // The crate takes a port that is too large for none.
    match authority.as_str().strip_prefix(authority.host())? {
        "" => Some(format!("{}:80", authority.host())),
        port if authority.port_u16().is_some() && port != ":" => Some(rest.to_owned()),
        _ => None,
    }
}

fn request(
    authority: &str,
    path: &str,
    token: Option<&str>,
    change: Option<Change>,
) -> Option<Request<Full<Bytes>>> {
    let changes = change.is_some();
    let (method, body) = match change {
        None => (Method::GET, String::new()),
        Some(Change::Put(body)) => (Method::PUT, body),
        Some(Change::Delete) => (Method::DELETE, String::new()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if changes {
        request = request
            .header(CONTENT_TYPE, "application/json")
            .header(MARK, "1");
    }
    request.body(body.into()).ok()
}

async fn exchange(
    authority: &str,
    url: &str,
    request: Request<Full<Bytes>>,
) -> Result<Reply, AskError> {
    let unavailable = |why: String| AskError::Unavailable(url.to_owned(), why);
    let foreign = |why: String| AskError::Foreign(url.to_owned(), why);
    let stream = TcpStream::connect(authority).await;
    let stream = stream.map_err(|error| unavailable(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    let talk = async {
        let answer = sender.send_request(request).await;
        let (head, body) = answer
            .map_err(|error| foreign(error.to_string()))?
            .into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| foreign(error.to_string()))?;
        Ok(Reply {
            url: url.to_owned(),
            status: head.status.as_u16(),
            body: body.to_bytes(),
        })
    };
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        reply = &mut talk => reply,
        // Whatever ended it, the exchange knows it too.
        _ = connection => talk.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("http://127.0.0.1:9280", "127.0.0.1:9280"),
            ("http://127.0.0.1:9280/", "127.0.0.1:9280"),
            ("127.0.0.1:9280", "127.0.0.1:9280"),
            ("http://[::1]:9280", "[::1]:9280"),
            ("http://bowline.example.com", "bowline.example.com:80"),
        ] {
            assert_eq!(authority(address).as_deref(), Some(expected), "{address}");
        }
        for wrong in [
            "",
            "https://127.0.0.1:9280",
            "http://127.0.0.1:9280/health",
            "http://user@127.0.0.1:9280",
            "http://127.0.0.1:99999",
            "http://a b",
            "::1",
        ] {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }
}
