//! How lenient servers read the bytes that reached a node. Each reader is written from what is known
//! of its model, not from what Bowline does, and each must see the same requests as Bowline saw.

mod markup;
mod web;

/// A request as a reader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) sid: Option<String>,
    pub(crate) rid: String,
}

/// What a reader makes of the bytes of a connection: the requests in it, up to where it gives up.
pub(crate) type Reading = Vec<Seen>;

/// A reader: its name, and what it sees.
pub(crate) type Reader = (&'static str, fn(&[u8]) -> Reading);

/// All readers.
pub(crate) const READERS: [Reader; 5] = [
    ("Tigase", markup::tigase),
    ("Prosody", web::prosody),
    ("ejabberd", web::ejabberd),
    (
        "a reader that trusts chunks first and takes LF for a line's end",
        web::chunked_first,
    ),
    ("a regular expression", markup::expression),
];

/// The first request in a body, as a conforming parser reads it.
pub(crate) fn first_request(body: &str) -> Option<Seen> {
    web::roots(body.as_bytes(), true).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sid: &str, rid: &str) -> Seen {
        let sid = (!sid.is_empty()).then(|| sid.to_owned());
        Seen {
            sid,
            rid: rid.to_owned(),
        }
    }

    fn request(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn every_reader_reads_plain_requests() {
        let body =
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid=\"x\"><a>b</a></body>";
        let bytes = [request(body), request("<body rid='2'/>")].concat();
        for (name, reader) in READERS {
            assert_eq!(reader(&bytes), [seen("x", "1"), seen("", "2")], "{name}");
        }
    }

    #[test]
    fn readers_are_as_lenient_as_their_models() {
        let by = |name: &str, bytes: &[u8]| {
            let reader = READERS.iter().find(|(reader, _)| *reader == name);
            reader.expect("a reader of that name").1(bytes)
        };
        let head = b"POST / HTTP/1.1\r\nX: <body rid='3' sid='v'/>\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(by("Tigase", head), [seen("v", "3")]);
        let section = request("<body rid='1'><![CDATA[></body><body rid='2' sid='v'/>]]></body>");
        assert_eq!(by("Tigase", &section), [seen("", "1"), seen("v", "2")]);
        assert_eq!(by("Prosody", &section), [seen("", "1")]);
        let reference = request("<body rid='1' sid='a&#98;c'/>");
        assert_eq!(by("Tigase", &reference), [seen("a&#98;c", "1")]);
        assert_eq!(by("Prosody", &reference), [seen("abc", "1")]);
        let twice =
            b"POST / HTTP/1.1\r\nContent-Length: 15\r\nContent-Length: 0\r\n\r\n<body rid='1'/>";
        assert_eq!(by("ejabberd", twice), [seen("", "1")]);
        assert_eq!(by("Prosody", twice), []);
        let json = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n<body rid='1'/>";
        assert_eq!(by("ejabberd", json), []);
        let hidden = request("<body to=\" sid='v' rid='1'\" sid='x' rid='2'/>");
        assert_eq!(by("a regular expression", &hidden), [seen("v", "1")]);
    }
}
