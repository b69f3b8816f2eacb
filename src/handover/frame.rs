//! The frames of a takeover, as bytes: a kind, a length and a body. No I/O.
//!
//! ```text
//! new process                  old process
//! Hello ───────────────────▶   is it the same user, and the same protocol?
//!                  ◀───────    Socket for each listening socket, with its file; then Offer
//! starts, closed
//! Ready ───────────────────▶   stops accepting
//!                  ◀───────    Pins; then Key and Changes, if answers are kept; then All
//! Loaded ──────────────────▶
//!                  ◀───────    Yours
//! Mine ────────────────────▶   from here on the new process serves
//! accepts          ◀───────    Late and Changes, for what becomes of sessions at the old process meanwhile
//! Passed ──────────────────▶   a third process has taken over from it
//! Leaving ─────────────────▶   it stops in order
//! ```
//!
//! Either one may say `Refused` and why. The end of the connection is a failure before `Mine`: the old process
//! goes on. Behind `Mine`, it is the crash of the new process, unless that has said `Passed` or `Leaving`: the old
//! one accepts again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::config::ListenAddress;

/// The version of the protocol. Another one is refused.
pub(super) const VERSION: u16 = 1;

/// How a `Hello` begins.
const MAGIC: [u8; 8] = *b"BOWLTAKE";

/// The bytes in front of a body: the kind, and the length of the body as a little-endian `u32`.
pub(super) const HEADER: usize = 5;

/// The most pins that are taken, in bytes.
const MOST_PINS: usize = 512 * 1024 * 1024;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The version of the protocol.
    Hello,
    /// A listening socket: [`SocketName`]. A file comes with it.
    Socket,
    /// All sockets are there.
    Offer,
    /// The new process could serve.
    Ready,
    /// Pins and operator states, in the format of a snapshot.
    Pins,
    /// What the hashes of kept answers depend on.
    Key,
    /// Requests of single sessions: their answers, and what their nodes have read.
    Changes,
    /// The sessions are complete.
    All,
    /// The sessions are taken in.
    Loaded,
    /// The new process may serve.
    Yours,
    /// The new process serves.
    Mine,
    /// Pins of sessions that the old process made later, in the same format.
    Late,
    /// A third process has taken over from the new process.
    Passed,
    /// The new process stops in order.
    Leaving,
    /// Why there is no takeover, in UTF-8.
    Refused,
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Hello,
        Self::Socket,
        Self::Offer,
        Self::Ready,
        Self::Pins,
        Self::Key,
        Self::Changes,
        Self::All,
        Self::Loaded,
        Self::Yours,
        Self::Mine,
        Self::Late,
        Self::Passed,
        Self::Leaving,
        Self::Refused,
    ];

    fn number(self) -> u8 {
        let at = Self::ALL.iter().position(|kind| *kind == self);
        at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
    }

    fn of_number(number: u8) -> Option<Self> {
        let at = usize::from(number).checked_sub(1)?;
        Self::ALL.get(at).copied()
    }

    /// The longest body, in bytes.
    const fn most(self) -> usize {
        match self {
            Self::Hello => 64,
            Self::Socket => 512,
            Self::Pins => MOST_PINS,
            Self::Key => 256,
            Self::Late | Self::Changes => 1024 * 1024,
            Self::Refused => 1024,
            Self::Offer
            | Self::Ready
            | Self::All
            | Self::Loaded
            | Self::Yours
            | Self::Mine
            | Self::Passed
            | Self::Leaving => 0,
        }
    }
}

/// The header of a frame; none if the body is too long for its kind.
pub(super) fn header(kind: Kind, body: &[u8]) -> Option<[u8; HEADER]> {
    let length = u32::try_from(body.len()).ok()?;
    let fits = body.len() <= kind.most();
    let [a, b, c, d] = length.to_le_bytes();
    fits.then_some([kind.number(), a, b, c, d])
}

/// The kind and the length of the body; none for a header that no Bowline writes.
pub(super) fn read_header([kind, length @ ..]: [u8; HEADER]) -> Option<(Kind, usize)> {
    let kind = Kind::of_number(kind)?;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    (length <= kind.most()).then_some((kind, length))
}

/// The body of a `Hello`.
pub(super) fn hello() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

/// The version in the body of a `Hello`; none if no Bowline wrote it. A later version may write more.
pub(super) fn read_hello(body: &[u8]) -> Option<u16> {
    let version = body.strip_prefix(&MAGIC)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*version))
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Clients.
    Clients,
    /// The admin listener.
    Admin,
    /// `/live`, `/ready` and `/metrics`.
    Probes,
    /// The next takeover.
    Takeover,
}

impl Role {
    const ALL: [Self; 4] = [Self::Clients, Self::Admin, Self::Probes, Self::Takeover];
}

/// What a socket is for, and the address that the configuration of the old process has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketName {
    /// What it is for.
    pub role: Role,
    /// The address, with port 0 where the file says that.
    pub address: ListenAddress,
}

impl SocketName {
    /// The body of a `Socket`: the role, `t` or `u`, and an IP address with its port or a path.
    pub fn write(&self) -> Vec<u8> {
        let role = Role::ALL.iter().position(|role| *role == self.role);
        let role = role.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
        match &self.address {
            ListenAddress::Tcp(address) => {
                [&[role, b't'][..], address.to_string().as_bytes()].concat()
            }
            ListenAddress::Unix(path) => [&[role, b'u'][..], path.as_os_str().as_bytes()].concat(),
        }
    }

    /// Reads the body of a `Socket`; none if no Bowline wrote it.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [role, kind, address @ ..] = body else {
            return None;
        };
        let role = *Role::ALL.get(usize::from(*role))?;
        let address = match kind {
            b't' => ListenAddress::Tcp(std::str::from_utf8(address).ok()?.parse().ok()?),
            b'u' => {
                let path = Path::new(OsStr::from_bytes(address));
                ListenAddress::Unix(path.is_absolute().then(|| path.to_owned())?)
            }
            _ => return None,
        };
        Some(Self { role, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_come_out_as_they_went_in_and_no_longer_body_is_written_or_read() {
        for kind in Kind::ALL {
            let most = kind.most().min(2048);
            let body = vec![0; most];
            let bytes = header(kind, &body).expect("it fits");
            assert_eq!(read_header(bytes), Some((kind, most)));
            let [number, ..] = bytes;
            let [a, b, c, d] = u32::try_from(kind.most() + 1).unwrap().to_le_bytes();
            assert_eq!(read_header([number, a, b, c, d]), None, "{kind:?}");
        }
        assert_eq!(header(Kind::Ready, b"x"), None);
        assert_eq!(read_header([0, 0, 0, 0, 0]), None);
        assert_eq!(read_header([16, 0, 0, 0, 0]), None);
    }

    #[test]
    fn the_names_of_sockets_come_out_as_they_went_in() {
        let addresses = [
            ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
            ListenAddress::Tcp("[::1]:5280".parse().unwrap()),
            ListenAddress::Unix("/run/bowline/http.sock".into()),
        ];
        for role in Role::ALL {
            for address in addresses.clone() {
                let name = SocketName { role, address };
                assert_eq!(SocketName::read(&name.write()), Some(name));
            }
        }
        for body in [
            &b""[..],
            b"\0",
            b"\0x1",
            b"\x041.2.3.4:1",
            b"\0t1.2.3.4",
            b"\0urelative",
        ] {
            assert_eq!(SocketName::read(body), None, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = SocketName::read(&bytes);
            let hello = read_hello(&bytes);
            prop_assert!(hello.is_none() || bytes.starts_with(&MAGIC));
            if let Some(first) = bytes.first_chunk::<HEADER>()
                && let Some((kind, length)) = read_header(*first)
            {
                prop_assert!(length <= kind.most());
            }
        }
    }

    #[test]
    fn a_hello_names_the_version_and_a_later_one_may_say_more() {
        assert_eq!(read_hello(&hello()), Some(VERSION));
        assert_eq!(read_hello(b"BOWLTAKE\x07\0more"), Some(7));
        assert_eq!(read_hello(b"BOWLTAKE\x07"), None);
        assert_eq!(read_hello(b"GET / HTTP/1.1\r\n"), None);
    }
}
