//! What the start tag of an answer's wrapper says (XEP-0124 §7.2, §13, §17).
//!
//! Owns the meaning of its attributes. Never looks behind the start tag: the payload passes
//! untouched, and a node's mistake in it is for the client to see.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::attributes::{Attribute, Attributes};
use super::chars;
use super::fields;
use super::malformed::Malformed;
use super::namespaces::Namespace;
use super::wrapper::Wrapper;

/// Where the start tag nearly always ends, in bytes.
const USUAL_HEAD: usize = 1024;

/// The start tag has to end within this many bytes; what is behind them is not looked at.
const MAX_HEAD: usize = 64 * 1024;

/// Where an attribute stands, in bytes of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeRange {
    /// From the white space in front of its name to its closing quote.
    pub whole: Range<usize>,
    /// What is between its quotes.
    pub value: Range<usize>,
}

impl AttributeRange {
    /// The place of an attribute of the root, which starts at `start`.
    pub(super) fn of(attribute: &Attribute<'_>, start: usize) -> Self {
        // Attributes count from the tag's text, which starts behind its `<`.
        let tag = start.saturating_add(1);
        let (from, to) = (tag + attribute.start, tag + attribute.end);
        let quote = to.saturating_sub(1);
        Self {
            whole: from..to,
            value: quote.saturating_sub(attribute.raw.len())..quote,
        }
    }
}

/// What the start tag of an answer's wrapper says; borrows from the body.
///
/// Attributes count without a prefix only. A number that is none is taken for absent: a node's
/// answer is passed on even if it says `inactivity='soon'`. A sid is a credential, so that `{:?}`
/// leaves it out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// The session: 1 to 256 bytes of printable ASCII without space. Tigase says it at the
    /// creation only, Prosody in most answers (XEP-0124 §7.2).
    pub sid: Option<Cow<'a, str>>,
    /// How long the node holds a request, in seconds (§7.2).
    pub wait: Option<u32>,
    /// How long a session without a request lives, in seconds (§7.2).
    pub inactivity: Option<u32>,
    /// The shortest time between two polls, in seconds (§7.2).
    pub polling: Option<u32>,
    /// The longest pause that a client may ask for, in seconds (§10).
    pub maxpause: Option<u32>,
    /// How many requests may be under way at once (§7.2).
    pub requests: Option<u32>,
    /// How many requests the node holds at once (§7.2).
    pub hold: Option<u32>,
    /// Whether the node named a `ver` (§7.2).
    pub ver: bool,
    /// `type='terminate'`: the session is over (§13, §17.2).
    pub terminate: bool,
    /// `type='error'`: the request is to be sent again (§17.3).
    pub error: bool,
    /// Why the session is over, as the node put it; not checked (§17.2).
    pub condition: Option<Cow<'a, str>>,
    /// Where ` accept='…'` stands, the space before it included, in bytes of the body. It invites
    /// compressed requests (§7.2), so a balancer that refuses those cuts it out.
    pub accept: Option<Range<usize>>,
    /// Where `host` stands: a client that honours it sends its next request there (§7.2), past the
    /// balancer.
    pub host: Option<AttributeRange>,
    /// Where the start tag ends, in bytes: behind its `>`.
    pub end: usize,
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("sid", &self.sid.as_ref().map(|_| "…"))
            .field("wait", &self.wait)
            .field("inactivity", &self.inactivity)
            .field("maxpause", &self.maxpause)
            .field("terminate", &self.terminate)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Reads the start tag of an answer's wrapper, and what is before it.
///
/// The tag is read just as a request's; the bytes behind it may be anything, or not there yet.
///
/// # Errors
///
/// [`Malformed::Truncated`] or [`Malformed::Empty`] if the tag does not end within the body (or its
/// first 64 KiB); any other cause if the tag is not that of a wrapper, or its `sid` cannot be one.
pub fn read_response(body: &[u8]) -> Result<Response<'_>, Malformed> {
    // Tags are short, bodies are not: the rest is not even looked at.
    match read_within(body, USUAL_HEAD) {
        Err(_) if body.len() > USUAL_HEAD => read_within(body, MAX_HEAD),
        read => read,
    }
}

fn read_within(body: &[u8], most: usize) -> Result<Response<'_>, Malformed> {
    let head = body.get(..most).unwrap_or(body);
    let (text, broken) = match std::str::from_utf8(head) {
        Ok(text) => (text, false),
        Err(error) => {
            let valid = head.get(..error.valid_up_to()).unwrap_or_default();
            let text = std::str::from_utf8(valid).unwrap_or_default();
            (text, error.error_len().is_some())
        }
    };
    let mut attributes = Attributes::new();
    let wrapper = match Wrapper::open(text, &mut attributes) {
        Err(Malformed::Truncated | Malformed::Empty) if broken => return Err(Malformed::NotUtf8),
        opened => opened?,
    };
    let end = wrapper.position();
    if !chars::all_legal(text.get(..end).unwrap_or(text)) {
        return Err(Malformed::BadCharacter);
    }
    let mut answer = Response {
        end,
        ..Response::default()
    };
    for attribute in wrapper.attributes() {
        if attribute.namespace == Namespace::NONE {
            answer.take(attribute, wrapper.start())?;
        }
    }
    Ok(answer)
}

impl<'a> Response<'a> {
    /// Takes what an attribute without a prefix says; the root starts at `start`.
    fn take(&mut self, attribute: &Attribute<'a>, start: usize) -> Result<(), Malformed> {
        match attribute.name.local {
            "sid" => self.sid = Some(fields::sid(attribute)?),
            "wait" => self.wait = fields::number(attribute).ok(),
            "inactivity" => self.inactivity = fields::number(attribute).ok(),
            "polling" => self.polling = fields::number(attribute).ok(),
            "maxpause" => self.maxpause = fields::number(attribute).ok(),
            "requests" => self.requests = fields::number(attribute).ok(),
            "hold" => self.hold = fields::number(attribute).ok(),
            "ver" => self.ver = true,
            "type" => {
                let kind = attribute.value()?;
                self.terminate = kind == "terminate";
                self.error = kind == "error";
            }
            "condition" => self.condition = Some(attribute.value()?),
            "accept" => self.accept = Some(AttributeRange::of(attribute, start).whole),
            "host" => self.host = Some(AttributeRange::of(attribute, start)),
            _ => {}
        }
        Ok(())
    }
}
