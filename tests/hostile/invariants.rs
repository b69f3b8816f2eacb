//! What reached a node, against what may have.

use std::net::SocketAddr;

use crate::node::Recording;
use crate::readers::{READERS, Seen};

/// Holds that none of `count` cases had a fault.
pub(crate) fn none_of(count: usize, faults: &[String]) {
    let told = faults.join("\n");
    assert!(
        faults.is_empty(),
        "{} of {count} cases:\n{told}",
        faults.len()
    );
}

/// The requests that Bowline let through, in any order.
#[derive(Debug, Default)]
pub(crate) struct Expected(Vec<Seen>);

impl Expected {
    pub(crate) fn add(&mut self, sid: Option<&str>, rid: u64) {
        self.0.push(Seen {
            sid: sid.map(str::to_owned),
            rid: rid.to_string(),
        });
    }

    /// Judges what reached a node at `address` on its connections.
    ///
    /// # Errors
    /// Who saw what.
    pub(crate) fn judge(mut self, address: SocketAddr, news: &[Recording]) -> Result<(), String> {
        self.0.sort();
        let own = format!("\r\nHost: {address}\r\n");
        let news = news.iter().filter(|recording| !is_probe(recording, &own));
        let news: Vec<_> = news.collect();
        for (name, reader) in READERS {
            let mut seen: Vec<Seen> = news.iter().flat_map(|news| reader(&news.bytes)).collect();
            seen.sort();
            if seen != self.0 {
                return Err(format!(
                    "{name} sees {seen:?}, Bowline {:?}, in {:?}",
                    self.0,
                    texts(&news)
                ));
            }
        }
        for recording in &news {
            if recording.pipelined {
                return Err("two requests at a time on a connection".to_owned());
            }
            heads_are_fresh(&recording.bytes)?;
        }
        Ok(())
    }
}

fn texts(news: &[&Recording]) -> Vec<String> {
    let texts = news.iter().map(|news| String::from_utf8_lossy(&news.bytes));
    texts.map(std::borrow::Cow::into_owned).collect()
}

/// A probe: one request to the node by its own address. No case can write that `Host`.
fn is_probe(recording: &Recording, own: &str) -> bool {
    let text = String::from_utf8_lossy(&recording.bytes);
    text.find(own)
        .is_some_and(|at| !text[..at].contains("\r\n\r\n"))
}

/// Every head is line by line what Bowline writes, and nothing else.
fn heads_are_fresh(mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        let (head, _) = text.split_once("\r\n\r\n").ok_or("a head without an end")?;
        let lines: Vec<&str> = head.split("\r\n").collect();
        let wrong = || format!("the head {head:?}");
        let [post, host, kind, length, client, proto, asked] = lines[..] else {
            return Err(wrong());
        };
        let name = host.strip_prefix("Host: ").ok_or_else(wrong)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let length: Option<usize> = length
            .strip_prefix("Content-Length: ")
            .and_then(|length| length.parse().ok());
        let fresh = ["POST /http-bind HTTP/1.1", "POST /bosh HTTP/1.1"].contains(&post)
            && name.bytes().all(plain)
            && kind == "Content-Type: text/xml; charset=utf-8"
            && client == "X-Forwarded-For: 127.0.0.1"
            && proto == "X-Forwarded-Proto: http"
            && asked.strip_prefix("X-Forwarded-Host: ") == Some(name);
        let end = length.and_then(|length| (head.len() + 4).checked_add(length));
        match end.and_then(|end| bytes.get(end..)) {
            Some(rest) if fresh && head.is_ascii() => bytes = rest,
            _ => return Err(wrong()),
        }
    }
    Ok(())
}
