//! Who may ask what of the admin listener: the token, the `Host` that a browser names, and the
//! mark by which a request that changes something shows that no foreign web page sent it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use subtle::ConstantTimeEq as _;
use tracing::warn;

use crate::config::{ADMIN_TOKEN, Admin, Role};

/// The shortest and the longest token, in characters.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// The header that a request which changes something must have, unless its body is JSON. A web page
/// of another origin can send neither without being asked for leave first, which nobody gives.
pub const MARK: &str = "x-bowline";

/// Why the token file is not good.
#[derive(Debug)]
pub struct TokenError {
    file: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Io(io::Error),
    Form,
    /// Another file has the same token, so that an audit line could not name one of them.
    Same(PathBuf),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.reason {
            Reason::Io(error) => write!(f, "token file {file}: cannot be read: {error}"),
            Reason::Form => write!(
                f,
                "token file {file}: must hold one line of {} to {} printable ASCII characters \
                 without space",
                TOKEN_LENGTHS.start(),
                TOKEN_LENGTHS.end()
            ),
            Reason::Same(other) => write!(
                f,
                "token file {file}: has the same token as {}: give each name a token of its own",
                other.display()
            ),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Io(error) => Some(error),
            Reason::Form | Reason::Same(_) => None,
        }
    }
}

/// Reads a token from its file; the line's end is not part of it.
///
/// # Errors
/// If the file cannot be read, or does not hold a token.
pub fn read_token(file: &Path) -> Result<String, TokenError> {
    let fault = |reason| TokenError {
        file: file.to_owned(),
        reason,
    };
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(4096).read_to_end(&mut text))
        .map_err(|error| fault(Reason::Io(error)))?;
    let token = text.trim_ascii();
    let good = TOKEN_LENGTHS.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(token) {
        Ok(token) if good => Ok(token.to_owned()),
        _ => Err(fault(Reason::Form)),
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are tokens, and the request has none of them.
    Token,
    /// The request changes something, and its token only reads.
    Role,
    /// The request names this listener by a name that is not its own.
    Host,
    /// The request changes something and may come from a foreign web page.
    Origin,
}

/// A token and whose it is.
struct Token {
    caller: Caller,
    secret: String,
}

/// Whose token a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token's name.
    pub(super) name: Arc<str>,
    /// What the token opens.
    role: Role,
}

impl Caller {
    /// Whether it may change something, and see what opens a session.
    pub(super) fn operates(&self) -> bool {
        self.role == Role::Operate
    }
}

/// What is asked of a request before it is looked at.
#[derive(Default)]
pub struct AccessControl {
    tokens: Vec<Token>,
    hosts: Vec<String>,
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl")
            .field("tokens", &self.tokens.len())
            .field("hosts", &self.hosts)
            .finish()
    }
}

impl AccessControl {
    /// What the settings ask for.
    ///
    /// # Errors
    /// If a token file does not hold a token, or two of them hold the same.
    pub fn load(admin: &Admin) -> Result<Self, TokenError> {
        let first = admin.token_file.iter();
        let first = first.map(|file| (ADMIN_TOKEN, file, Role::Operate));
        let named = admin.tokens.iter();
        let named = named.map(|token| (token.name.as_str(), &token.file, token.role));
        let mut tokens: Vec<(Token, &PathBuf)> = Vec::new();
        for (name, file, role) in first.chain(named) {
            if let Ok(metadata) = std::fs::metadata(file)
                && metadata.permissions().mode() & 0o004 != 0
            {
                warn!(file = %file.display(), "every user of this machine can read the admin token");
            }
            let secret = read_token(file)?;
            if let Some((_, other)) = tokens.iter().find(|(other, _)| other.secret == secret) {
                return Err(TokenError {
                    file: file.clone(),
                    reason: Reason::Same((*other).clone()),
                });
            }
            let name = name.into();
            let caller = Caller { name, role };
            tokens.push((Token { caller, secret }, file));
        }
        Ok(Self {
            tokens: tokens.into_iter().map(|(token, _)| token).collect(),
            hosts: admin.hosts.clone(),
        })
    }

    /// Whose token the request has; none if requests need no token. Takes as long for any wrong token
    /// of one length.
    pub(super) fn token(&self, headers: &HeaderMap) -> Result<Option<&Caller>, Refused> {
        if self.tokens.is_empty() {
            return Ok(None);
        }
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| {
            let (scheme, rest) = given.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
        });
        let given = given.ok_or(Refused::Token)?;
        // All are compared, so that the time does not show which of them is near.
        let mut found = None;
        for Token { caller, secret } in &self.tokens {
            if bool::from(given.ct_eq(secret.as_bytes())) {
                found = Some(caller);
            }
        }
        found.map(Some).ok_or(Refused::Token)
    }

    /// Whether the request names this listener rightly: by an IP address, as `localhost`, or by a
    /// configured name. A web page that had its own name point here (DNS rebinding) names itself.
    pub(super) fn host(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            // No browser leaves it out.
            (None, _) => return Ok(()),
            (Some(host), None) => host.to_str().ok(),
            (Some(_), Some(_)) => None,
        };
        if named.is_some_and(|host| self.is_own(host)) {
            Ok(())
        } else {
            Err(Refused::Host)
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(&name);
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.hosts.contains(&name)
    }

    /// Whether a request that changes something shows that no foreign web page sent it: with the
    /// [`MARK`] or a JSON body, and from no other origin.
    pub(super) fn change(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let json = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .and_then(|kind| kind.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let own = match (headers.get(ORIGIN), headers.get(HOST)) {
            (None, _) => true,
            (Some(origin), Some(host)) => {
                let origin = origin.to_str().unwrap_or_default();
                let authority = origin.split_once("://").map(|(_, authority)| authority);
                authority.is_some_and(|authority| authority.as_bytes() == host.as_bytes())
            }
            (Some(_), None) => false,
        };
        if own && (json || headers.contains_key(MARK)) {
            Ok(())
        } else {
            Err(Refused::Origin)
        }
    }
}

/// `host` of `host:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse::<HeaderValue>().unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_token_is_compared_whole() {
        let caller = |name: &str, role| Caller {
            name: name.into(),
            role,
        };
        let token = |name, role, secret: &str| Token {
            caller: caller(name, role),
            secret: secret.into(),
        };
        let access = AccessControl {
            tokens: vec![
                token("admin", Role::Operate, "0123456789abcdef"),
                token("grafana", Role::Read, "fedcba9876543210"),
            ],
            hosts: vec![],
        };
        let token = |value| {
            let found = access.token(&headers(&[("authorization", value)]));
            found.map(|caller| caller.expect("a token is needed").clone())
        };
        let admin = caller("admin", Role::Operate);
        assert_eq!(token("Bearer 0123456789abcdef"), Ok(admin.clone()));
        assert_eq!(token("bearer 0123456789abcdef"), Ok(admin.clone()));
        let grafana = caller("grafana", Role::Read);
        assert_eq!(token("Bearer fedcba9876543210"), Ok(grafana.clone()));
        assert!(admin.operates() && !grafana.operates());
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "Bearer",
            "",
        ] {
            assert_eq!(token(wrong), Err(Refused::Token), "{wrong}");
        }
        assert_eq!(access.token(&HeaderMap::new()), Err(Refused::Token));
        assert_eq!(AccessControl::default().token(&HeaderMap::new()), Ok(None));
        assert!(!format!("{access:?}").contains("0123"));
    }

    #[test]
    fn a_token_is_one_line_of_plain_characters() {
        let name = format!("bowline-access-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let read = |text: &[u8]| {
            std::fs::write(&file, text).unwrap();
            read_token(&file).ok()
        };
        let longest = "x".repeat(256);
        for good in ["0123456789abcdef", &longest] {
            assert_eq!(read(good.as_bytes()).as_deref(), Some(good));
            let line = format!("{good}\r\n");
            assert_eq!(read(line.as_bytes()).as_deref(), Some(good));
        }
        for wrong in [
            "",
            "0123456789abcde",
            &"x".repeat(257),
            &"x".repeat(5000),
            "0123456789 abcdef",
            "0123456789abcdef\n0123456789abcdef",
            "0123456789abcdef\u{7f}",
            "0123456789abcdéf",
        ] {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(read(b"0123456789abcdef\xff"), None);
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn only_own_names_are_hosts() {
        let access = AccessControl {
            tokens: vec![],
            hosts: vec!["bowline.example.com".into()],
        };
        let host = |value| access.host(&headers(&[("host", value)]));
        for own in [
            "127.0.0.1:9280",
            "127.0.0.1",
            "[::1]:9280",
            "[::1]",
            "localhost:9280",
            "LOCALHOST",
            "bowline.example.com:9280",
            "10.0.0.7:1",
        ] {
            assert_eq!(host(own), Ok(()), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example:9280",
            "127.0.0.1.evil.example",
            "",
            // Without brackets it reads as a name and a port.
            "::1",
            "bowline.example.com.",
        ] {
            assert_eq!(host(foreign), Err(Refused::Host), "{foreign}");
        }
        let two = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(access.host(&two), Err(Refused::Host));
        assert_eq!(access.host(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn a_change_needs_what_a_foreign_page_cannot_send() {
        let change = |lines: &[(&str, &str)]| AccessControl::default().change(&headers(lines));
        assert_eq!(change(&[("x-bowline", "1")]), Ok(()));
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(change(&[json]), Ok(()));
        assert_eq!(change(&[]), Err(Refused::Origin));
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(change(&[form]), Err(Refused::Origin));
        let host = ("host", "localhost:9280");
        assert_eq!(
            change(&[json, host, ("origin", "http://localhost:9280")]),
            Ok(())
        );
        for foreign in ["http://evil.example", "null", "http://localhost"] {
            let sent = [json, host, ("origin", foreign)];
            assert_eq!(change(&sent), Err(Refused::Origin), "{foreign}");
        }
    }
}
