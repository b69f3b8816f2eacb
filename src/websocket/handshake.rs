//! The opening handshake (RFC 6455 §4): what a client asks for, and what a node's answer agrees to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::http1::{Fields, RequestHead, Version};

/// The subprotocol (RFC 7395 §3.1).
pub const SUBPROTOCOL: &str = "xmpp";

/// What every accept key is made with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The most fields in the head of an answer.
const MOST_FIELDS: usize = 64;

/// What a client's upgrade says that its node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`: 16 bytes in base64.
    pub key: &'a str,
}

/// Why a request on a WebSocket path is no upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeFault {
    /// It asks for no upgrade to WebSocket, or for another version than 13.
    NotWebSocket,
    /// It breaks a rule; which, in words.
    Invalid(&'static str),
}

/// Why a node's answer is no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFault {
    /// It has another status than 101.
    Status(u16),
    /// It breaks a rule; which, in words.
    Invalid(&'static str),
}

impl std::fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the node answered an upgrade with status {status}"),
            Self::Invalid(rule) => write!(f, "the answer to an upgrade is invalid: {rule}"),
        }
    }
}

/// Checks a client's opening handshake (RFC 6455 §4.2.1) for the subprotocol `xmpp`. Its method is
/// `GET`.
///
/// # Errors
/// [`UpgradeFault`].
pub fn check_upgrade<'a>(head: &RequestHead<'a>) -> Result<Upgrade<'a>, UpgradeFault> {
    let fields = head.fields;
    if !lists(fields, "upgrade", "websocket") {
        return Err(UpgradeFault::NotWebSocket);
    }
    if head.version != Version::Http11 {
        return Err(UpgradeFault::Invalid("an upgrade in HTTP/1.0"));
    }
    if !lists(fields, "connection", "upgrade") {
        return Err(UpgradeFault::Invalid("no `Connection: upgrade`"));
    }
    if only(fields, "sec-websocket-version") != Some(b"13") {
        return Err(UpgradeFault::NotWebSocket);
    }
    let key = only(fields, "sec-websocket-key").filter(|key| is_key(key));
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    let key = key.ok_or(UpgradeFault::Invalid("not exactly one good key"))?;
    if !lists_exactly(fields, "sec-websocket-protocol", SUBPROTOCOL) {
        return Err(UpgradeFault::Invalid(
            "the subprotocol `xmpp` is not offered",
        ));
    }
    Ok(Upgrade { key })
}

/// Checks a node's answer to an upgrade with `key`: a whole head.
///
/// # Errors
/// [`AnswerFault`].
pub fn check_answer(head: &[u8], key: &str) -> Result<(), AnswerFault> {
    let mut room = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut room);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return Err(AnswerFault::Invalid("its head")),
    }
    match answer.code {
        Some(101) => {}
        status => return Err(AnswerFault::Status(status.unwrap_or_default())),
    }
    let fields = Fields::of(answer.headers);
    let fault = |rule| Err(AnswerFault::Invalid(rule));
    if !lists(fields, "upgrade", "websocket") || !lists(fields, "connection", "upgrade") {
        return fault("it upgrades to something else");
    }
    if only(fields, "sec-websocket-accept") != Some(accept_key(key).as_bytes()) {
        return fault("its Sec-WebSocket-Accept");
    }
    if only(fields, "sec-websocket-protocol") != Some(SUBPROTOCOL.as_bytes()) {
        return fault("its subprotocol is not `xmpp`");
    }
    if fields.first("sec-websocket-extensions").is_some() {
        return fault("an extension that was not offered");
    }
    Ok(())
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// Whether a value is 16 bytes in base64.
fn is_key(value: &[u8]) -> bool {
    let mut bytes = [0; 18];
    value.len() == 24 && STANDARD.decode_slice(value, &mut bytes) == Ok(16)
}

/// The value of a field that stands exactly once.
fn only<'a>(fields: Fields<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = fields.all(name);
    let value = values.next();
    value.filter(|_| values.next().is_none())
}

/// The entries of all lists in the fields called `name`.
fn entries<'a>(fields: Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let values = fields.all(name);
    values.flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

fn lists(fields: Fields<'_>, name: &str, entry: &str) -> bool {
    entries(fields, name).any(|one| one.eq_ignore_ascii_case(entry.as_bytes()))
}

fn lists_exactly(fields: Fields<'_>, name: &str, entry: &str) -> bool {
    entries(fields, name).any(|one| one == entry.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Room;

    /// The example of RFC 6455 §1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn upgrade() -> String {
        format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Protocol: chat, xmpp\r\n\r\n"
        )
    }

    fn answer() -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
        )
    }

    fn checked(head: &str) -> Result<String, UpgradeFault> {
        let mut room = Room::new();
        let head = RequestHead::parse(head.as_bytes(), &mut room).unwrap();
        check_upgrade(&head).map(|upgrade| upgrade.key.to_owned())
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept_key(KEY), ACCEPT);
        assert_eq!(checked(&upgrade()), Ok(KEY.to_owned()));
        assert_eq!(check_answer(answer().as_bytes(), KEY), Ok(()));
    }

    #[test]
    fn what_is_no_websocket_is_told_from_what_is_a_bad_one() {
        for (old, new) in [
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Upgrade: websocket", "X: websocket"),
            ("Version: 13", "Version: 8"),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
        ] {
            let head = upgrade().replace(old, new);
            assert_eq!(checked(&head), Err(UpgradeFault::NotWebSocket), "{new}");
        }
        for (old, new) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("chat, xmpp", "chat"),
            ("chat, xmpp", "XMPP"),
            ("Protocol: chat, xmpp", "Protocol2: xmpp"),
            (KEY, "dGhlIHNhbXBsZSBub25jZQ="),
            (KEY, "dGhlIHNhbXBsZSBub25jZR=="),
            (KEY, "dGhlIHNhbXBsZSBub25jZSBsb25n"),
            (KEY, "!GhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Key", "X-Key"),
            (
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key",
            ),
        ] {
            let head = upgrade().replace(old, new);
            let fault = checked(&head);
            assert!(
                matches!(fault, Err(UpgradeFault::Invalid(_))),
                "{new}: {fault:?}"
            );
        }
    }

    #[test]
    fn an_answer_agrees_to_exactly_what_was_asked() {
        let refused = answer().replace("101 Switching Protocols", "403 Forbidden");
        let status = Err(AnswerFault::Status(403));
        assert_eq!(check_answer(refused.as_bytes(), KEY), status);
        for (old, new) in [
            ("WebSocket", "h2c"),
            ("Connection: Upgrade", "Connection: close"),
            (ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("Protocol: xmpp", "Protocol: chat"),
            ("Sec-WebSocket-Protocol: xmpp\r\n", ""),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ),
            ("HTTP/1.1", "HTTP/3.1"),
        ] {
            let head = answer().replace(old, new);
            let fault = check_answer(head.as_bytes(), KEY);
            assert!(
                matches!(fault, Err(AnswerFault::Invalid(_))),
                "{new}: {fault:?}"
            );
        }
    }
}
