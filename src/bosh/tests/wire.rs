//! Bodies as they went over the wire between real clients and a Tigase 8.4 cluster, one to a line:
//! `>` for a request, `<` for an answer. The order of attributes is random per node.

use crate::bosh::{Malformed, read_request, read_response};

const BODIES: &str = include_str!("wire.txt");

fn bodies(mark: char) -> impl Iterator<Item = &'static str> {
    BODIES
        .lines()
        .filter_map(move |line| line.strip_prefix(mark))
}

#[test]
fn every_request_is_read() {
    let mut creations = 0;
    for body in bodies('>') {
        let request = read_request(body.as_bytes()).expect(body);
        assert_eq!(body.contains("sid="), request.sid.is_some(), "{body}");
        assert_eq!(body.contains("xmpp:restart="), request.restart, "{body}");
        assert_eq!(
            body.contains("type='terminate'"),
            request.terminate,
            "{body}"
        );
        creations += u32::from(request.sid.is_none());
    }
    assert!(creations > 0);
}

#[test]
fn every_answer_is_read_and_is_well_formed() {
    let mut creations = 0;
    for body in bodies('<') {
        let answer = read_response(body.as_bytes()).expect(body);
        // To its end, too: it lacks a rid and nothing else.
        assert_eq!(
            read_request(body.as_bytes()),
            Err(Malformed::MissingRid),
            "{body}"
        );
        assert_eq!(
            body.contains("condition="),
            answer.condition.is_some(),
            "{body}"
        );
        if answer.sid.is_some() {
            creations += 1;
            assert_eq!(answer.sid.map(|sid| sid.len()), Some(36), "{body}");
            assert_eq!(answer.requests, Some(2), "{body}");
            assert_eq!(answer.inactivity, Some(10), "{body}");
            assert_eq!(answer.maxpause, Some(10), "{body}");
            assert!(answer.wait.is_some() && answer.ver, "{body}");
        }
    }
    assert!(creations > 1);
}

/// Bodies that Tigase took, each with an effect of its own: an answer on a second session, a header
/// that the client chose, raw `<stream:error…`.
#[test]
fn what_misled_a_node_is_refused() {
    use Malformed::{BadContent, BadRid, MismatchedTag, MissingRid, SecondRoot, Truncated};
    const START: &str = "<body xmlns='http://jabber.org/protocol/httpbind'";
    for (rest, cause) in [
        (
            " to='example.com' rid='77' wait='5' hold='1'/><body \
             xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='00000000'></body>",
            SecondRoot,
        ),
        (
            " rid='77' content='text/xml&#13;&#10;X-Injected: 1'/>",
            BadContent,
        ),
        (
            " rid='77' content='text/xml\r\nX-Injected: 1'/>",
            BadContent,
        ),
        (" rid='1'><a></b></body>", MismatchedTag),
        (" rid='1'", Truncated),
        (" rid='abc' sid='s'><iq/></body>", BadRid),
        (" sid='s'><iq/></body>", MissingRid),
        (" to='example.com'/>", MissingRid),
    ] {
        let body = format!("{START}{rest}");
        assert_eq!(read_request(body.as_bytes()), Err(cause), "{body}");
    }
}
