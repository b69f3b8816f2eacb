//! The header of the PROXY protocol (`transport::ProxyHeader`) against a second, simple reading of the whole
//! input, and against itself on each beginning of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bowline::transport::{MAX_PROXY_HEADER, ProxyHeader};

/// Holds it for one input: the first bytes of a connection.
pub fn check(bytes: &[u8]) {
    let parsed = ProxyHeader::parse(bytes);
    let read = read_line(bytes).or_else(|| read_binary(bytes));
    let found = parsed.ok().flatten();
    assert_eq!(
        found.map(|header| (header.length, header.client)),
        read,
        "{bytes:x?}"
    );
    let Some(header) = found else {
        assert!(parsed.is_err() || bytes.len() < MAX_PROXY_HEADER, "it ends");
        return;
    };
    assert!(header.length <= bytes.len().min(MAX_PROXY_HEADER));
    assert!(ProxyHeader::begins(bytes));
    for cut in [0, header.length / 2, header.length - 1] {
        assert_eq!(ProxyHeader::parse(&bytes[..cut]), Ok(None));
    }
    assert_eq!(ProxyHeader::parse(&bytes[..header.length]), Ok(found));
}

/// A good line of version 1.
fn read_line(bytes: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    let length = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    // An earlier LF would have ended the line without its CR.
    if length > 107 || bytes[..length - 1].contains(&b'\n') {
        return None;
    }
    let line = std::str::from_utf8(&bytes[..length - 2]).ok()?;
    if line == "PROXY UNKNOWN" || line.starts_with("PROXY UNKNOWN ") {
        return Some((length, None));
    }
    let words: Vec<&str> = line.split(' ').collect();
    let &["PROXY", family, from, to, from_port, to_port] = words.as_slice() else {
        return None;
    };
    for port in [from_port, to_port] {
        let number: u16 = port.parse().ok()?;
        if number.to_string() != port {
            return None;
        }
    }
    let client = match family {
        "TCP4" => {
            to.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(from.parse().ok()?)
        }
        "TCP6" => {
            to.parse::<Ipv6Addr>().ok()?;
            from.parse::<Ipv6Addr>().ok()?.to_canonical()
        }
        _ => return None,
    };
    Some((length, Some(client)))
}

/// A good header of version 2.
fn read_binary(bytes: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    let rest = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let length = 16 + usize::from(*rest.get(2)?) * 256 + usize::from(*rest.get(3)?);
    if length > MAX_PROXY_HEADER || length > bytes.len() {
        return None;
    }
    let block = &bytes[16..length];
    match (rest[0], rest[1]) {
        (0x20, _) => return Some((length, None)),
        (0x21, 0x00..=0x02) => return Some((length, None)),
        (0x21, 0x10..=0x12) if block.len() >= 12 => {}
        (0x21, 0x20..=0x22) if block.len() >= 36 => {}
        (0x21, 0x30..=0x32) if block.len() >= 216 => {}
        _ => return None,
    }
    let client = match rest[1] {
        0x11 => Some(IpAddr::V4(Ipv4Addr::new(
            block[0], block[1], block[2], block[3],
        ))),
        0x21 => {
            let address: [u8; 16] = block[..16].try_into().unwrap();
            Some(Ipv6Addr::from(address).to_canonical())
        }
        _ => None,
    };
    Some((length, client))
}
