//! The header of the PROXY protocol, versions 1 and 2, in which a proxy names its client: the first bytes of
//! a connection. No I/O.
//!
//! The format: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header that is read, in bytes: version 2 allows 65,551, for additions that are skipped here.
pub const MAX_PROXY_HEADER: usize = 4096;

/// The longest line of version 1, with its CRLF.
const MAX_LINE: usize = 107;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the command, the family and the length of version 2.
const FIXED: usize = 16;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The address of the proxy's client, an IPv4-mapped one as IPv4. None if the header names no IP address
    /// over TCP: `UNKNOWN`, `LOCAL`, a Unix socket, or a family that is not specified.
    pub client: Option<IpAddr>,
    /// How many bytes it has.
    pub length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// They do not begin as one.
    Missing,
    /// They begin as one and break its format.
    Malformed,
    /// It is longer than [`MAX_PROXY_HEADER`].
    TooLong,
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the connection does not begin with a PROXY header",
            Self::Malformed => "the PROXY header is malformed",
            Self::TooLong => "the PROXY header is longer than 4096 bytes",
        })
    }
}

impl std::error::Error for ProxyHeaderError {}

impl ProxyHeader {
    /// Reads the header at the start of `bytes`; none while more bytes are needed.
    ///
    /// # Errors
    /// [`ProxyHeaderError`], with the first byte that shows it. An address is looked at when the header is
    /// whole.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ProxyHeaderError> {
        let begins = |start: &[u8]| {
            let both = bytes.len().min(start.len());
            bytes[..both] == start[..both]
        };
        if begins(LINE_START) {
            version_1(bytes)
        } else if begins(SIGNATURE) {
            version_2(bytes)
        } else {
            Err(ProxyHeaderError::Missing)
        }
    }

    /// Whether `bytes` begin as a header does, to say so of bytes that should be something else.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(LINE_START) || bytes.starts_with(SIGNATURE)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let most = bytes.len().min(MAX_LINE);
    let Some(end) = bytes[..most].iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < MAX_LINE {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Malformed)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r");
    let line = line.and_then(|line| line.strip_prefix(LINE_START));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let client = line.and_then(line_client);
    Ok(Some(ProxyHeader {
        client: client.ok_or(ProxyHeaderError::Malformed)?,
        length: end + 1,
    }))
}

/// The client that a line names, if it names one; none if the line breaks the format.
fn line_client(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let client = address(words.next()?)?;
    address(words.next()?)?;
    let ports = [words.next()?, words.next()?];
    let sound = ports.into_iter().all(is_port) && words.next().is_none();
    sound.then_some(Some(client.to_canonical()))
}

fn is_port(word: &str) -> bool {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = word.len() > 1 && word.starts_with('0');
    digits && !leading_zero && word.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(ProxyHeaderError::Malformed),
    };
    let Some(&[family, high, low]) = bytes.get(13..FIXED) else {
        return Ok(None);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + rest > MAX_PROXY_HEADER {
        return Err(ProxyHeaderError::TooLong);
    }
    // The bytes that the addresses of a family have, and the transport in the low half.
    let addresses = match (family >> 4, family & 15) {
        _ if command == Command::Local => 0,
        (0, 0..=2) => 0,
        (1, 0..=2) => 12,
        (2, 0..=2) => 36,
        (3, 0..=2) => 216,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    if rest < addresses {
        return Err(ProxyHeaderError::Malformed);
    }
    let Some(block) = bytes.get(FIXED..FIXED + rest) else {
        return Ok(None);
    };
    let client = match family {
        _ if command == Command::Local => None,
        0x11 => block.first_chunk::<4>().map(|&address| address.into()),
        0x21 => block.first_chunk::<16>().map(|&address| address.into()),
        _ => None,
    };
    Ok(Some(ProxyHeader {
        client: client.map(|client: IpAddr| client.to_canonical()),
        length: FIXED + rest,
    }))
}

/// What a header of version 2 is for.
#[derive(PartialEq, Eq)]
enum Command {
    /// The proxy speaks for itself.
    Local,
    /// The proxy speaks for a client.
    Proxy,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(length);
        header.extend(block);
        header
    }

    /// The client that a whole header names. Each part of it wants more, and bytes behind it change nothing.
    fn client(header: &[u8]) -> Option<String> {
        for cut in 0..header.len() {
            let part = ProxyHeader::parse(&header[..cut]);
            assert_eq!(part, Ok(None), "{cut} of {header:x?}");
        }
        let longer = [header, b"GET / HTTP/1.1\r\n"].concat();
        let parsed = ProxyHeader::parse(&longer).unwrap().unwrap();
        assert_eq!(parsed.length, header.len());
        assert!(ProxyHeader::begins(&longer));
        parsed.client.map(|client| client.to_string())
    }

    fn refusal(header: &[u8]) -> ProxyHeaderError {
        ProxyHeader::parse(header).unwrap_err()
    }

    #[test]
    fn version_1_names_a_client_or_none() {
        for (line, named) in [
            ("TCP4 192.0.2.1 198.51.100.2 1 65535", Some("192.0.2.1")),
            (
                "TCP4 255.255.255.255 255.255.255.255 0 0",
                Some("255.255.255.255"),
            ),
            ("TCP6 2001:db8::1 ::1 56324 443", Some("2001:db8::1")),
            ("TCP6 ::ffff:192.0.2.1 ::1 56324 443", Some("192.0.2.1")),
            ("UNKNOWN", None),
            ("UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
        ] {
            let header = format!("PROXY {line}\r\n");
            assert_eq!(client(header.as_bytes()).as_deref(), named, "{line}");
        }
        // The longest that the format has.
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(
            (longest.len(), client(longest.as_bytes())),
            (MAX_LINE, None)
        );
        let long = format!("PROXY UNKNOWN {all} {all} 65535 655350\r\n");
        assert_eq!(refusal(long.as_bytes()), ProxyHeaderError::Malformed);
    }

    #[test]
    fn version_1_is_read_strictly() {
        for line in [
            "TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 -1\r\n",
            "TCP4 192.0.2.1 198.51.100.2 +1 1\r\n",
            "TCP4 192.0.2.1 198.51.100.2 01 1\r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 \r\n",
            "TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 1 \r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 1\n",
            "TCP4  192.0.2.1 198.51.100.2 1 1\r\n",
            "TCP4 192.0.2.1\t198.51.100.2 1 1\r\n",
            "TCP4 192.0.2 198.51.100.2 1 1\r\n",
            "TCP4 192.0.2.01 198.51.100.2 1 1\r\n",
            "TCP4 2001:db8::1 ::1 1 1\r\n",
            "TCP6 192.0.2.1 ::1 1 1\r\n",
            "TCP6 fe80::1%eth0 ::1 1 1\r\n",
            "tcp4 192.0.2.1 198.51.100.2 1 1\r\n",
            "UDP4 192.0.2.1 198.51.100.2 1 1\r\n",
            "UNKNOWNS\r\n",
            "\r\n",
            "UNKNOWN \u{fe}\n",
        ] {
            let header = format!("PROXY {line}");
            assert_eq!(
                refusal(header.as_bytes()),
                ProxyHeaderError::Malformed,
                "{line}"
            );
        }
        assert_eq!(
            refusal(b"PROXY UNKNOWN \xff\r\n"),
            ProxyHeaderError::Malformed
        );
    }

    #[test]
    fn version_2_names_a_client_or_none() {
        let ipv4 = [192, 0, 2, 1, 198, 51, 100, 2, 0, 1, 0, 2];
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[255, 255, 192, 0, 2, 1]);
        for (header, named) in [
            (v2(0x21, 0x11, &ipv4), Some("192.0.2.1")),
            (v2(0x21, 0x21, &ipv6), Some("2001:db8::")),
            (v2(0x21, 0x21, &mapped), Some("192.0.2.1")),
            // Additions are skipped, whatever they are.
            (
                v2(0x21, 0x11, &[&ipv4[..], &[4, 0, 1, 0, 3]].concat()),
                Some("192.0.2.1"),
            ),
            (
                v2(0x21, 0x11, &[&ipv4[..], &[255; 4068]].concat()),
                Some("192.0.2.1"),
            ),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &ipv4), None),
            (v2(0x20, 0xff, &[1, 2, 3]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x00, &[9; 20]), None),
            (v2(0x21, 0x12, &ipv4), None),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
        ] {
            assert_eq!(client(&header).as_deref(), named, "{header:x?}");
        }
    }

    #[test]
    fn version_2_is_read_strictly() {
        for header in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
        ] {
            assert_eq!(refusal(&header), ProxyHeaderError::Malformed, "{header:x?}");
        }
        let long = v2(0x21, 0x11, &[0; MAX_PROXY_HEADER - FIXED + 1]);
        assert_eq!(refusal(&long[..FIXED]), ProxyHeaderError::TooLong);
    }

    #[test]
    fn other_protocols_are_no_header_from_their_first_byte_on() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST",
            b"PRI * HTTP/2.0\r\n",
            b"proxy TCP4",
            b"\x16\x03\x01",
            b"\r\n\r\nGET",
            b"\r\n\r\n\0\r\nQUIT\r\n",
        ] {
            assert_eq!(refusal(bytes), ProxyHeaderError::Missing, "{bytes:x?}");
            assert!(!ProxyHeader::begins(bytes));
        }
        assert_eq!(ProxyHeader::parse(b""), Ok(None));
    }
}
