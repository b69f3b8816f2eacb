//! What a request's wrapper says (XEP-0124 §7 to §14, XEP-0206 §5).
//!
//! Owns the meaning of its attributes. Never changes a body, and never looks into the payload
//! except to see that it is there and well-formed.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::attributes::{Attribute, Attributes};
use super::chars;
use super::fields;
use super::malformed::Malformed;
use super::namespaces::Namespace;
use super::response::AttributeRange;
use super::wrapper::{Wrapper, XBOSH};

/// What a request's wrapper says; borrows from the body.
///
/// Attributes count without a prefix only, except `restart`, which counts in the namespace
/// [`XBOSH`]. A sid is a credential, so that `{:?}` leaves it out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The session: 1 to 256 bytes of printable ASCII without space. None at a creation.
    pub sid: Option<Cow<'a, str>>,
    /// The request's number, up to 2^53 − 1 (XEP-0124 §7).
    pub rid: u64,
    /// The domain that the client wants to talk to; not checked (XEP-0124 §7.1).
    pub to: Option<Cow<'a, str>>,
    /// The longest time that the client wants an answer to be held, in seconds (§7.1).
    pub wait: Option<u32>,
    /// How many requests the client wants to be held at once (§7.1).
    pub hold: Option<u32>,
    /// Whether the client named a `ver`; one that did not is a legacy client (§7.1, §17.2).
    pub ver: bool,
    /// How long the client wants to be quiet, in seconds (§10).
    pub pause: Option<u32>,
    /// The highest rid that the client has the answers up to (§9.2). What is no rid says nothing.
    pub ack: Option<u64>,
    /// `type='terminate'` (§13).
    pub terminate: bool,
    /// `xmpp:restart='true'`: the XMPP stream starts anew (XEP-0206 §5).
    pub restart: bool,
    /// The stream that this request is about, where a session has several; not checked (§15).
    pub stream: Option<Cow<'a, str>>,
    /// The root has neither a child nor text other than white space: a poll, mostly.
    pub empty: bool,
    /// Where ` from='…'` stands, the white space in front of it included, in bytes of the body. A
    /// Tigase with see-other-host never answers a creation that names another node's user there.
    pub from: Option<Range<usize>>,
    /// Where the root starts, in bytes. What is before it (a byte order mark, an XML declaration,
    /// white space) says nothing and need not be sent on.
    pub start: usize,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("sid", &self.sid.as_ref().map(|_| "…"))
            .field("rid", &self.rid)
            .field("to", &self.to)
            .field("wait", &self.wait)
            .field("ver", &self.ver)
            .field("pause", &self.pause)
            .field("terminate", &self.terminate)
            .field("restart", &self.restart)
            .field("empty", &self.empty)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Reads a request's body to its end.
///
/// UTF-8 only; a byte order mark at the very start is skipped, as XML 1.0 §4.3.3 allows it.
///
/// # Errors
///
/// What is no wrapper that every node reads alike is [`Malformed`]; so is a wrapper without a
/// `rid` (XEP-0124 §7), and one whose `sid`, `rid`, `wait`, `hold`, `pause` or `content` cannot be.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::NotUtf8)?;
    if !chars::all_legal(text) {
        return Err(Malformed::BadCharacter);
    }
    let mut attributes = Attributes::new();
    let wrapper = Wrapper::open(text, &mut attributes)?;
    let mut request = Request {
        start: wrapper.start(),
        ..Request::default()
    };
    let mut rid = None;
    for attribute in wrapper.attributes() {
        fields::hides_nothing(attribute)?;
        match attribute.name.local {
            "rid" if attribute.namespace == Namespace::NONE => rid = Some(fields::rid(attribute)?),
            "restart" if wrapper.is_in(attribute, XBOSH) => {
                request.restart = matches!(&*attribute.value()?, "true" | "1");
            }
            "from" if attribute.namespace == Namespace::NONE => {
                request.from = Some(AttributeRange::of(attribute, wrapper.start()).whole);
            }
            _ if attribute.namespace == Namespace::NONE => request.take(attribute)?,
            _ => {}
        }
    }
    request.rid = rid.ok_or(Malformed::MissingRid)?;
    request.empty = wrapper.finish()?;
    Ok(request)
}

impl<'a> Request<'a> {
    /// Takes what an attribute without a prefix says.
    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), Malformed> {
        match attribute.name.local {
            "sid" => self.sid = Some(fields::sid(attribute)?),
            "to" => self.to = Some(attribute.value()?),
            "wait" => self.wait = Some(fields::number(attribute)?),
            "hold" => self.hold = Some(fields::number(attribute)?),
            "ver" => self.ver = true,
            "pause" => self.pause = Some(fields::number(attribute)?),
            "ack" => self.ack = fields::rid(attribute).ok(),
            "type" => self.terminate = attribute.value()? == "terminate",
            "stream" => self.stream = Some(attribute.value()?),
            "content" => fields::content(attribute)?,
            _ => {}
        }
        Ok(())
    }
}
