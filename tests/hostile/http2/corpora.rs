//! Runs `requests.txt` and `bodies.txt` over HTTP/2, with the same expectations.
//!
//! A request of the corpus becomes a stream: its method, target and `Host` are the pseudo-header
//! fields, its other fields are fields with names in lower case, what stands behind its head is the body. Any
//! byte may stand in a name or a value. These rules say what is different:
//!
//! 1. Left out is what has no form in HTTP/2: the end of a line, blanks around a value, a fold, a field
//!    without a colon, a version, a head that does not end, the end of the client's side, more than one
//!    request, and an absolute target without a `Host`, since `:authority` is one ([`request`]).
//! 2. A refusal may be a reset with `PROTOCOL_ERROR` in place of an answer (RFC 9113 §8.1.1), and a
//!    connection error where no field can be read.
//! 3. A field of the connection is refused (§8.2.2), whatever HTTP/1.1 makes of it.
//! 4. A body is as long as its stream: no length is no fault, another length is one (§8.1.1).

use super::frames::{Frames, Stream, block};
use crate::cases::{BODIES, REQUESTS};
use crate::corpus::{Case, Expect, Piece, Words, cases};
use crate::invariants::{Expected, none_of};
use crate::node::mark;
use crate::world::{Session, World};

/// A request as a stream.
struct Request {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    /// Rule 3 or 4 makes it one to refuse.
    malformed: bool,
}

#[tokio::test]
async fn requests_over_http_2() {
    let ran = run(cases(REQUESTS)).await;
    assert!(ran >= 365, "{ran} of the cases have a form in HTTP/2");
}

#[tokio::test]
async fn bodies_over_http_2() {
    let mut cases = cases(BODIES);
    for case in &mut cases {
        let body = &case.script;
        case.script = format!("{{post}}Content-Length: {{len:{body}}}\\r\\n\\r\\n{body}");
    }
    let count = cases.len();
    assert_eq!(run(cases).await, count, "each of them has a form in HTTP/2");
}

async fn run(cases: Vec<Case>) -> usize {
    let mut world = World::with_http2().await;
    world.nodes[0].news();
    let (mut ran, mut faults) = (0, Vec::new());
    for case in &cases {
        match run_one(case, &mut world).await {
            Ok(expressible) => ran += usize::from(expressible),
            Err(fault) => {
                faults.push(format!("{}\n    {}\n    {fault}", case.name, case.script));
                world.nodes[0].news();
            }
        }
    }
    none_of(ran, &faults);
    ran
}

async fn run_one(case: &Case, world: &mut World) -> Result<bool, String> {
    let (session, _) = world.session().await?;
    let mut expected = Expected::default();
    expected.add(None, session.rid - 1);
    let words = Words {
        sid: session.sid.clone(),
        rid: session.rid,
        victim: world.canary.sid.clone(),
    };
    let Some(request) = request(case, &words) else {
        world.nodes[0].news();
        return Ok(false);
    };
    let mut frames = Frames::to(world.address()).await;
    let silent = firsts(case).any(|expect| expect == Expect::Reject(408));
    let ended = !silent && request.body.is_empty();
    frames.head(1, &block(&request.fields), ended).await;
    if !ended {
        frames.body(1, &request.body, !silent).await;
    }
    let stream = frames.outcome(1).await;
    judge(case, &request, &stream, &frames, &session, &mut expected)?;
    if frames.goaway.is_none_or(|error| error == 0) && !frames.closed {
        goes_on(&mut frames).await?;
    }
    let canary = world.canary(None, &mut expected).await;
    canary.map_err(|fault| format!("canary on another connection: {fault}"))?;
    world.judge(expected).map(|()| true)
}

/// The first answers that a case may have.
fn firsts(case: &Case) -> impl Iterator<Item = Expect> {
    case.outcomes
        .iter()
        .filter_map(|outcome| outcome.answers.first().copied())
}

/// The request of a case; none if it has no form in HTTP/2.
fn request(case: &Case, words: &Words) -> Option<Request> {
    let more = case
        .outcomes
        .iter()
        .any(|outcome| outcome.answers.len() > 1);
    if more && firsts(case).any(|expect| !matches!(expect, Expect::Reject(_))) {
        return None;
    }
    let mut bytes = Vec::new();
    for piece in words.fill(&case.script) {
        match piece {
            Piece::Bytes(more) => bytes.extend(more),
            Piece::Pause => {}
            Piece::Fin => return None,
        }
    }
    let end = crate::client::find(&bytes, b"\r\n\r\n")?;
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let mut lines = split(head, b"\r\n").into_iter();
    let line = lines.next()?;
    let method_end = line.iter().position(|byte| *byte == b' ')?;
    let target = line[method_end + 1..].strip_suffix(b" HTTP/1.1")?;
    let (method, mut target) = (&line[..method_end], target.to_vec());
    if method.is_empty() || target.is_empty() {
        return None;
    }
    let mut request = Request {
        fields: vec![(b":method".to_vec(), method.to_vec())],
        body: body.to_vec(),
        malformed: false,
    };
    let mut push = |name: &[u8], value: &[u8]| request.fields.push((name.to_vec(), value.to_vec()));
    let mut authority = None;
    let scheme: &[u8] = if target.starts_with(b"https") {
        b"https"
    } else {
        b"http"
    };
    if let Some(at) = crate::client::find(&target, b"://").filter(|at| *at < 6) {
        let rest = target.split_off(at + 3);
        let slash = rest
            .iter()
            .position(|byte| *byte == b'/')
            .unwrap_or(rest.len());
        authority = Some(rest[..slash].to_vec());
        target = if slash < rest.len() {
            rest[slash..].to_vec()
        } else {
            b"/".to_vec()
        };
    }
    let (mut fields, mut hosts) = (Vec::new(), Vec::new());
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line[..colon].to_ascii_lowercase(), trim(&line[colon + 1..]));
        if name.is_empty() || name.starts_with(b" ") || name.starts_with(b"\t") {
            return None;
        }
        if name == b"host" {
            hosts.push((name, value.to_vec()));
        } else {
            fields.push((name, value.to_vec()));
        }
    }
    let first = hosts.first().map(|(_, value)| value.clone());
    if authority.is_some() && first.is_none() {
        return None;
    }
    // One that is the same says nothing more.
    if hosts.len() > 1
        || authority
            .as_ref()
            .is_some_and(|own| Some(own) != first.as_ref())
    {
        fields.append(&mut hosts);
    }
    let authority = authority.or(first);
    push(b":scheme", scheme);
    if let Some(authority) = authority {
        push(b":authority", &authority);
    }
    push(b":path", &target);
    let lengths = fields.iter().filter(|(name, _)| name == b"content-length");
    let other_length = lengths.clone().any(|(_, length)| {
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|length| length.parse().ok());
        length.is_none_or(|length: usize| length != body.len())
    });
    let of_connection = fields.iter().any(|(name, value)| {
        let names: [&[u8]; 5] = [
            b"connection",
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
        ];
        names.contains(&&name[..]) || (name == b"te" && value != b"trailers")
    });
    let has_no_length = lengths.count() == 0;
    // By rule 4, what HTTP/1.1 reads as another request is the body.
    if more && has_no_length && !of_connection && case.name == "no length, and a body" {
        return None;
    }
    request.malformed = of_connection || (other_length && !silences(case));
    request.fields.extend(fields);
    Some(request)
}

/// Whether the rest of the body never comes.
fn silences(case: &Case) -> bool {
    firsts(case).any(|expect| matches!(expect, Expect::Reject(408 | 413)))
}

/// Without the blanks around it: they are HTTP/1.1's.
fn trim(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(begin) = value.iter().position(is_text) else {
        return b"";
    };
    let end = value.iter().rposition(is_text).unwrap_or(begin);
    &value[begin..=end]
}

fn split<'a>(bytes: &'a [u8], end: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let Some(at) = crate::client::find(rest, end) {
        parts.push(&rest[..at]);
        rest = &rest[at + end.len()..];
    }
    parts.push(rest);
    parts
}

fn judge(
    case: &Case,
    request: &Request,
    stream: &Stream,
    frames: &Frames,
    session: &Session,
    expected: &mut Expected,
) -> Result<(), String> {
    const PROTOCOL_ERROR: u32 = 1;
    let refused =
        stream.reset == Some(PROTOCOL_ERROR) || frames.goaway.is_some_and(|error| error != 0);
    let is_wrapper = stream.body.starts_with("<body ") && stream.body.contains("type='terminate'");
    let fits = |expect: Expect| match expect {
        Expect::Reject(status) => {
            refused
                // The library's own answer to a head that is too large has no body.
                || (stream.status == Some(431) && stream.body.is_empty() && status == 431)
                || (stream.status == Some(status) && is_wrapper)
        }
        Expect::Pass => stream.body.contains(&format!(
            "for='{}'",
            mark(Some(&session.sid), &session.rid.to_string())
        )),
        Expect::Created => stream
            .body
            .contains(&format!("for='{}'", mark(None, &session.rid.to_string()))),
        Expect::About => stream.status == Some(200) && stream.body.contains("BOSH service"),
        Expect::Head | Expect::Preflight => stream.status == Some(200) && stream.body.is_empty(),
    };
    let said = || format!("{stream:?}, GOAWAY {:?}", frames.goaway);
    if request.malformed {
        let is_reject = stream.status.is_some_and(|status| status >= 400) && is_wrapper;
        return if refused || is_reject {
            Ok(())
        } else {
            Err(format!("not refused: {}", said()))
        };
    }
    let Some(expect) = firsts(case).find(|expect| fits(*expect)) else {
        return Err(format!("not as over HTTP/1.1: {}", said()));
    };
    match expect {
        Expect::Pass => expected.add(Some(&session.sid), session.rid),
        Expect::Created => expected.add(None, session.rid),
        _ => {}
    }
    Ok(())
}

/// The connection serves another stream.
async fn goes_on(frames: &mut Frames) -> Result<(), String> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/http-bind"),
    ];
    frames.head(3, &block(&fields), true).await;
    let stream = frames.outcome(3).await;
    if stream.status == Some(200) {
        Ok(())
    } else {
        Err(format!(
            "the connection does not go on: {stream:?}, GOAWAY {:?}",
            frames.goaway
        ))
    }
}
