//! What a simulated node writes: wrappers in the words of its server, HTTP around them, and the
//! pieces in which a misbehaving node sends them. It decides nothing about sessions.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fault::{Cut, Ending, Framing, Manner, Step};
use super::profile::{Rules, Software};
use super::session::{REQUESTS, Reply, Session};
use super::words::{CORS_OTHERS, CORS_TIGASE, GET_TEXT, SERVER_TIGASE};
use super::xml::push_attribute;

const HTTPBIND: &str = "http://jabber.org/protocol/httpbind";
const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// An HTTP answer before it is written.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    pub(super) content_type: Option<String>,
    pub(super) body: String,
    /// Whether the head says `Connection: close`.
    pub(super) says_close: bool,
    /// Whether the connection ends after it.
    pub(super) ends: bool,
}

impl Answer {
    fn ok(body: String) -> Self {
        let (status, reason) = (200, "OK");
        Self {
            status,
            reason,
            content_type: None,
            body,
            says_close: false,
            ends: false,
        }
    }

    fn failing(status: u16, reason: &'static str, body: String) -> Self {
        Self {
            status,
            reason,
            says_close: true,
            ends: true,
            ..Self::ok(body)
        }
    }
}

/// How one start of a node speaks.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) software: Software,
    name: String,
    pub(super) domain: String,
    names_host: bool,
    order: ahash::RandomState,
}

type Attributes = Vec<(&'static str, String)>;

impl Voice {
    pub(super) fn new(name: &str, domain: &str, rules: &Rules, seed: u64) -> Self {
        Self {
            software: rules.software,
            name: name.to_owned(),
            domain: domain.to_owned(),
            names_host: rules.names_host,
            order: ahash::RandomState::with_seeds(seed, 1, 2, 3),
        }
    }

    /// The answer to a creation.
    pub(super) fn creation(&self, session: &Session, rules: &Rules, rid: Option<u64>) -> Answer {
        let sid = session.sid.to_string();
        let mut attributes: Attributes = vec![
            ("sid", sid.clone()),
            ("wait", session.terms.wait.to_string()),
            ("requests", REQUESTS.to_string()),
            ("inactivity", rules.inactivity.to_string()),
            ("polling", rules.polling.to_string()),
            ("from", self.domain.clone()),
            ("secure", "true".to_owned()),
            ("ver", "1.6".to_owned()),
            ("hold", session.terms.hold.to_string()),
        ];
        if rules.maxpause > 0 {
            attributes.push(("maxpause", rules.maxpause.to_string()));
        }
        match self.software {
            Software::Tigase => {
                attributes.push(("authid", super::hub::uuid()));
                attributes.extend(rid.map(|rid| ("ack", rid.to_string())));
                attributes.push(("xmpp:version", "1.0".to_owned()));
            }
            Software::Prosody => attributes.push(("authid", sid)),
            Software::Ejabberd => attributes.push(("xmpp:restartlogic", "true".to_owned())),
        }
        let body = self.wrapper(attributes, &[]);
        Answer {
            content_type: session.terms.content.clone(),
            ..Answer::ok(body)
        }
    }

    /// The answer to a later request.
    pub(super) fn reply(&self, session: &Session, reply: &Reply) -> Answer {
        let mut attributes = Attributes::new();
        match self.software {
            Software::Tigase => {
                attributes.push(("from", self.domain.clone()));
                attributes.push(("secure", "true".to_owned()));
                attributes.push(("xmpp:version", "1.0".to_owned()));
                attributes.extend(reply.ack.map(|ack| ("ack", ack.to_string())));
            }
            Software::Prosody => attributes.push(("sid", session.sid.to_string())),
            Software::Ejabberd => {}
        }
        if reply.terminate {
            attributes.push(("type", "terminate".to_owned()));
        }
        if let Some(condition) = reply.condition {
            attributes.push(("condition", condition.to_owned()));
        }
        let body = self.wrapper(attributes, &reply.stanzas);
        Answer {
            content_type: session.terms.content.clone(),
            ..Answer::ok(body)
        }
    }

    fn wrapper(&self, mut attributes: Attributes, stanzas: &[String]) -> String {
        if self.names_host {
            attributes.push(("host", self.name.clone()));
        }
        attributes.push(("xmlns:xmpp", "urn:xmpp:xbosh".to_owned()));
        attributes.push((
            "xmlns:stream",
            "http://etherx.jabber.org/streams".to_owned(),
        ));
        attributes.push(("xmlns", HTTPBIND.to_owned()));
        let quote = match self.software {
            Software::Tigase => {
                attributes.sort_by_key(|(key, _)| self.order.hash_one(key));
                '"'
            }
            Software::Prosody => {
                fastrand::shuffle(&mut attributes);
                '\''
            }
            Software::Ejabberd => '\'',
        };
        let mut out = String::from("<body");
        for (key, value) in &attributes {
            push_attribute(&mut out, key, value, quote);
        }
        if stanzas.is_empty() {
            return out + "/>";
        }
        out.push('>');
        stanzas.iter().for_each(|stanza| out.push_str(stanza));
        out + "</body>"
    }

    /// The answer to an unknown sid.
    pub(super) fn unknown_sid(&self) -> Answer {
        let body = ended("item-not-found");
        match self.software {
            Software::Tigase => Answer::failing(404, "Invalid SID", body),
            Software::Prosody => Answer::ok(body),
            Software::Ejabberd => Answer {
                reason: "Session ID mismatch",
                ..Answer::ok(body)
            },
        }
    }

    /// The answer to a creation that cannot be: `improper-addressing`, `host-unknown`.
    pub(super) fn bad_host(&self, condition: &str) -> Answer {
        match self.software {
            Software::Tigase => Answer::failing(405, "Invalid hostname.", ended(condition)),
            Software::Prosody | Software::Ejabberd => Answer::ok(ended(condition)),
        }
    }

    /// The answer of an HTTP server to a body that is no wrapper.
    pub(super) fn unreadable(&self) -> Answer {
        match self.software {
            Software::Ejabberd => Answer::failing(400, "Bad Request", String::new()),
            Software::Tigase | Software::Prosody => Answer::ok(ended("bad-request")),
        }
    }

    /// The answer to a `GET`.
    pub(super) fn get(&self) -> Answer {
        let ends = self.software == Software::Tigase;
        Answer {
            ends,
            ..Answer::ok(GET_TEXT.to_owned())
        }
    }

    /// The answer to an `OPTIONS`.
    pub(super) fn options(&self) -> Answer {
        Answer::ok(String::new())
    }

    /// A page with a status, as a proxy or a broken server would send.
    pub(super) fn page(&self, status: u16) -> Answer {
        let body = format!("<html><body><h1>{status}</h1></body></html>");
        let content_type = Some("text/html".to_owned());
        Answer {
            status,
            reason: "Simulated",
            content_type,
            ..Answer::ok(body)
        }
    }

    /// Puts an answer into bytes, pauses and ends.
    pub(super) fn write(&self, answer: &Answer, manner: &Manner) -> VecDeque<Step> {
        let mut outs = VecDeque::new();
        if let Some(ending) = manner.lost {
            return VecDeque::from([Step::End(ending)]);
        }
        if !manner.delay.is_zero() {
            outs.push_back(Step::Pause(manner.delay));
        }
        let mut bytes = Vec::new();
        if manner.continue_first {
            bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        bytes.extend_from_slice(self.head(answer, manner).as_bytes());
        match manner.cut {
            Some(Cut::AfterHead) => {}
            Some(Cut::InBody) => {
                bytes.extend_from_slice(&answer.body.as_bytes()[..answer.body.len() / 2]);
            }
            None if manner.framing == Framing::Chunked => chunk(&answer.body, &mut bytes),
            None => bytes.extend_from_slice(answer.body.as_bytes()),
        }
        if manner.surplus {
            let second = Answer::ok(ended("undefined-condition"));
            bytes.extend_from_slice(self.head(&second, &Manner::default()).as_bytes());
            bytes.extend_from_slice(second.body.as_bytes());
        }
        let bytes = Bytes::from(bytes);
        outs.push_back(if manner.bytewise {
            Step::Bytewise(bytes)
        } else {
            Step::Bytes(bytes)
        });
        let stalls = manner.cut == Some(Cut::AfterHead);
        let ends = answer.ends
            || manner.connection_close
            || manner.framing == Framing::Close
            || manner.cut == Some(Cut::InBody);
        if ends && !stalls {
            outs.push_back(Step::End(Ending::Eof));
        }
        outs
    }

    fn head(&self, answer: &Answer, manner: &Manner) -> String {
        let content_type = answer.content_type.as_deref().unwrap_or(CONTENT_TYPE);
        let framing = match manner.framing {
            Framing::Length => format!("Content-Length: {}\r\n", answer.body.len()),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Close => String::new(),
        };
        let says_close =
            answer.says_close || manner.connection_close || manner.framing == Framing::Close;
        let close = if says_close {
            "Connection: close\r\n"
        } else {
            ""
        };
        let (cors, server) = match self.software {
            Software::Tigase => (CORS_TIGASE, SERVER_TIGASE),
            Software::Prosody | Software::Ejabberd => (CORS_OTHERS, ""),
        };
        let (status, reason) = (answer.status, answer.reason);
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{framing}{cors}{close}{server}\r\n"
        )
    }
}

fn ended(condition: &str) -> String {
    format!("<body type='terminate' condition='{condition}' xmlns='{HTTPBIND}'/>")
}

fn chunk(body: &str, out: &mut Vec<u8>) {
    for piece in body.as_bytes().chunks(64) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::node::profile::Profile;

    fn voice(seed: u64) -> Voice {
        let profile = Profile::tigase("t1");
        Voice::new(&profile.name, &profile.domain, &profile.rules, seed)
    }

    #[test]
    fn the_attribute_order_is_that_of_the_start() {
        let names = || vec![("from", "a".to_owned()), ("ack", "1".to_owned())];
        let order = |seed| voice(seed).wrapper(names(), &[]);
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }

    #[test]
    fn chunks_end_with_an_empty_one() {
        let mut out = Vec::new();
        chunk(&"x".repeat(65), &mut out);
        assert_eq!(
            out,
            format!("40\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(64)).as_bytes()
        );
    }

    #[test]
    fn a_lost_answer_is_only_an_end() {
        let voice = voice(1);
        let manner = Manner {
            lost: Some(Ending::Reset),
            ..Manner::default()
        };
        let outs = voice.write(&voice.unknown_sid(), &manner);
        assert!(matches!(
            outs.iter().collect::<Vec<_>>()[..],
            [Step::End(Ending::Reset)]
        ));
    }
}
