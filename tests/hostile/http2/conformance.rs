//! The rules of RFC 9113 and RFC 7541 that a client can break, one case each, as raw frames. Bowline
//! answers each with the error of its rule, or with `PROTOCOL_ERROR`, which the h2 library says in place
//! of some special errors (RFC 9113 §7 has it as the general one). Cases that change nothing prove
//! that the others are refused for their own fault.

mod field_cases;
mod frame_cases;
mod request_cases;

use super::frames::*;
use crate::invariants::none_of;
use crate::world::World;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What must come of a case.
enum Expect {
    /// The connection ends with a GOAWAY of one of these errors, or without one.
    Connection(&'static [u32]),
    /// Stream 1 is reset with one of these errors, or the connection ends with one of them.
    Stream(&'static [u32]),
    /// Stream 1 is answered with this status, or reset with `PROTOCOL_ERROR`.
    Refused(u16),
    /// Stream 1 is answered with 200.
    Served,
    /// The ping that follows is answered.
    Goes,
}

struct Case {
    /// The rule, and what breaks it.
    name: &'static str,
    bytes: Vec<u8>,
    expect: Expect,
}

fn case(name: &'static str, frames: &[Vec<u8>], expect: Expect) -> Case {
    Case {
        name,
        bytes: frames.concat(),
        expect,
    }
}

type Field = (&'static str, &'static str);

/// The fields of a request that is served.
const GET: [Field; 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/http-bind"),
];
const POST: [Field; 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/http-bind"),
];

/// A whole request on a stream.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET))
}

/// A request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&POST))
}

/// A request with these fields in place of its own.
fn with(fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

/// A good request with more fields.
fn and(fields: &[Field]) -> Vec<u8> {
    with(&[&GET, fields].concat())
}

/// A head of this block.
fn coded(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

fn setting(id: u8, value: u32) -> Vec<u8> {
    let mut payload = vec![0, id];
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// Runs the cases, each on a connection of its own.
async fn run(cases: Vec<Case>) {
    let mut world = World::with_http2().await;
    let mut faults = Vec::new();
    for case in &cases {
        let mut frames = Frames::to(world.address()).await;
        frames.write(&case.bytes).await;
        if let Err(fault) = judge(case, &mut frames).await {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    let mut expected = crate::invariants::Expected::default();
    world.nodes[0].news();
    world.canary(None, &mut expected).await.unwrap();
    world.judge(expected).unwrap();
    none_of(cases.len(), &faults);
}

/// Whether an error is one of these, or the general one.
fn says(errors: &[u32]) -> impl Fn(u32) -> bool {
    move |error| error == PROTOCOL_ERROR || errors.contains(&error)
}

async fn judge(case: &Case, frames: &mut Frames) -> Result<(), String> {
    match &case.expect {
        Expect::Connection(errors) => {
            let error = frames.error().await;
            let fits = error.is_none_or(says(errors));
            return if fits {
                Ok(())
            } else {
                Err(format!("GOAWAY {error:?}"))
            };
        }
        Expect::Goes => {
            frames.frame(PING, 0, 0, b"a  ping ").await;
            frames
                .until(|frames| frames.pongs.contains(b"a  ping "))
                .await;
            let goes = frames.pongs.contains(b"a  ping ");
            return if goes {
                Ok(())
            } else {
                Err("no pong".to_owned())
            };
        }
        Expect::Stream(_) | Expect::Refused(_) | Expect::Served => {}
    }
    let stream = frames.outcome(1).await;
    let error = stream.reset.or(frames.goaway);
    let fits = match case.expect {
        Expect::Stream(errors) => error.is_some_and(says(errors)),
        Expect::Refused(status) => {
            error == Some(PROTOCOL_ERROR) || (stream.status == Some(status) && stream.ended)
        }
        _ => stream.status == Some(200) && stream.ended && error.is_none(),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{stream:?}, GOAWAY {:?}", frames.goaway))
    }
}

#[tokio::test]
async fn frames_that_break_a_rule_of_rfc_9113() {
    run(frame_cases::frames()).await;
}

#[tokio::test]
async fn requests_that_break_a_rule_of_rfc_9113() {
    run(request_cases::requests()).await;
}

#[tokio::test]
async fn fields_that_break_a_rule_of_rfc_7541() {
    run(field_cases::fields()).await;
}

/// RFC 9113 §3.4, where nothing but HTTP/2 is expected: what is no preface ends the connection. A port
/// that takes both protocols reads it as HTTP/1.1.
#[tokio::test]
async fn what_is_no_preface_is_http_1() {
    let world = World::with_http2().await;
    let mut wire = crate::client::Wire::to(world.address()).await;
    wire.write(b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n").await;
    let heard = wire.hear(false).await;
    assert!(matches!(heard, Ok(crate::client::Heard::End)), "{heard:?}");
}
