//! The conforming reader: one root element `body`, well-formed to its end.
//!
//! Owns the shape of a document: prologue, root, children, end. quick-xml tells tags from text and
//! matches end tags; what it is lenient about is checked here, in `attributes` and in `chars`.
//! Never hands a DOCTYPE, a comment or a processing instruction to quick-xml, and never interprets
//! an attribute other than the declarations of namespaces. Time is linear in the body, whatever it
//! says, since depth, attributes and prefixes are bounded.

use quick_xml::Reader;
use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::Event;

use super::attributes::{Attribute, Attributes, QualifiedName};
use super::chars;
use super::malformed::Malformed;
use super::namespaces::{Namespace, Scopes};
use super::reference;

/// The namespace of the wrapper (XEP-0124 §20).
pub const HTTPBIND: &str = "http://jabber.org/protocol/httpbind";

/// The namespace of the attributes that XEP-0206 adds.
pub const XBOSH: &str = "urn:xmpp:xbosh";

/// Elements may be nested this deep, the wrapper included.
pub const MAX_DEPTH: usize = 128;

/// The wrapper may have this many attributes, declarations of namespaces included.
pub const MAX_ATTRIBUTES: usize = 64;

/// Each element inside the wrapper may have this many.
pub const MAX_CHILD_ATTRIBUTES: usize = 128;

/// A document whose root start tag is read.
#[derive(Debug)]
pub(super) struct Wrapper<'a, 's> {
    text: &'a str,
    /// Where the root starts.
    start: usize,
    /// Where the part that is read so far ends.
    position: usize,
    /// The root's name as it is written, and its end tag has to be.
    name: &'a str,
    scopes: Scopes<'a>,
    /// Lent, since it is large and a wrapper is moved.
    attributes: &'s mut Attributes<'a>,
    depth: usize,
    /// The root is `<body/>`.
    closed: bool,
}

impl<'a, 's> Wrapper<'a, 's> {
    /// Reads prologue and root start tag; nothing behind the tag is looked at. The attributes of
    /// one tag at a time are kept in `attributes`.
    pub(super) fn open(
        text: &'a str,
        attributes: &'s mut Attributes<'a>,
    ) -> Result<Self, Malformed> {
        let start = root_start(text)?;
        let root = text.get(start..).unwrap_or_default();
        refuse_declarations(root)?;
        let end = start.saturating_add(tag_end(root)?);
        let tag = text.get(start..end).unwrap_or_default();
        let mut wrapper = Self {
            text,
            start,
            position: end,
            name: "",
            scopes: Scopes::default(),
            attributes,
            depth: 0,
            closed: tag.ends_with("/>"),
        };
        let name = wrapper.element(start, wrapper.closed, MAX_ATTRIBUTES)?;
        wrapper.check_root(name)?;
        wrapper.name = name.written(&tag[1..]);
        Ok(wrapper)
    }

    /// The root's attributes, in the order of the document.
    pub(super) fn attributes(&self) -> &[Attribute<'a>] {
        self.attributes.as_slice()
    }

    /// Whether an attribute of the root is in the namespace `name`.
    pub(super) fn is_in(&self, attribute: &Attribute<'_>, name: &str) -> bool {
        self.scopes.name(attribute.namespace) == name
    }

    /// Where the root starts, in bytes.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Where the part that is read so far ends, in bytes.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Reads to the end of the document; says whether the root has no payload, which means neither
    /// a child nor text that is more than white space.
    pub(super) fn finish(mut self) -> Result<bool, Malformed> {
        if self.closed {
            self.leave();
        }
        let mut reader = Content::behind(self.text, self.position);
        let mut empty = true;
        if !self.closed {
            // A byte order mark is text here, and the reader would pass over it.
            empty = reader.from == self.position;
            self.position = reader.from;
        }
        while self.depth > 0 {
            let from = self.position();
            refuse_declarations(self.text.get(from..).unwrap_or_default())?;
            let event = reader.next().map_err(|error| cause(&error))?;
            self.position = reader.position();
            let blank = match event {
                Event::Start(_) => {
                    self.child(from, false)?;
                    false
                }
                Event::Empty(_) => {
                    self.child(from, true)?;
                    self.leave();
                    false
                }
                Event::End(end) => {
                    // quick-xml has seen the start tags of all others.
                    if self.depth == 1 && end.name().as_ref() != self.name {
                        return Err(Malformed::MismatchedTag);
                    }
                    self.leave();
                    true
                }
                Event::Text(text) if ends_section(&text) => return Err(Malformed::NotXml),
                Event::Text(text) => chars::is_blank(&text),
                Event::CData(text) if text.contains(['<', '>']) => {
                    return Err(Malformed::MarkupInSection);
                }
                Event::CData(text) => chars::is_blank(&text),
                Event::GeneralRef(name) => matches!(reference::resolve(&name)?, '\t'..=' '),
                Event::Eof => return Err(Malformed::Truncated),
                Event::Comment(_) => return Err(Malformed::Comment),
                Event::DocType(_) => return Err(Malformed::Doctype),
                Event::Decl(_) | Event::PI(_) => return Err(Malformed::ProcessingInstruction),
            };
            empty &= blank;
        }
        let rest = self.text.get(self.position()..).unwrap_or_default();
        refuse_rest(rest)?;
        Ok(empty)
    }

    /// Enters the element whose start tag lies between `from` and the present position.
    fn element(
        &mut self,
        from: usize,
        empty: bool,
        limit: usize,
    ) -> Result<QualifiedName<'a>, Malformed> {
        if self.depth >= MAX_DEPTH {
            return Err(Malformed::TooDeep);
        }
        self.depth += 1;
        let tag = self.text.get(from..self.position()).unwrap_or_default();
        let end = if empty { "/>" } else { ">" };
        let inside = tag.strip_prefix('<').and_then(|tag| tag.strip_suffix(end));
        let name = self.attributes.scan(inside.unwrap_or_default(), limit)?;
        self.attributes.bind(&mut self.scopes, self.depth)?;
        if self.scopes.resolve(name.prefix)? == Namespace::XMLNS {
            return Err(Malformed::BadName);
        }
        Ok(name)
    }

    /// Enters an element inside of the root.
    fn child(&mut self, from: usize, empty: bool) -> Result<(), Malformed> {
        let name = self.element(from, empty, MAX_CHILD_ATTRIBUTES)?;
        // The text of a message is a `body` as well, but has neither.
        let marks =
            |a: &Attribute<'_>| a.name.prefix.is_empty() && matches!(a.name.local, "sid" | "rid");
        if name.local == "body" && self.attributes().iter().any(marks) {
            return Err(Malformed::NestedWrapper);
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.scopes.leave(self.depth);
        self.depth = self.depth.saturating_sub(1);
    }

    fn check_root(&self, name: QualifiedName<'a>) -> Result<(), Malformed> {
        if name.local != "body" {
            return Err(Malformed::NotBody);
        }
        let right = if name.prefix.is_empty() {
            let default = |a: &&Attribute<'_>| a.name.prefix.is_empty() && a.name.local == "xmlns";
            match self.attributes().iter().find(default) {
                Some(declaration) => declaration.value()? == HTTPBIND,
                None => false,
            }
        } else {
            self.scopes.name(self.scopes.resolve(name.prefix)?) == HTTPBIND
        };
        right.then_some(()).ok_or(Malformed::WrongNamespace)
    }
}

/// What stands behind the root's start tag, read by quick-xml. The root's own tag is not read by it: it
/// would take memory for the name of each tag that it opens, and answers and polls have no other.
struct Content<'a> {
    reader: Reader<&'a [u8]>,
    /// Where it began, in bytes of the text.
    from: usize,
}

impl<'a> Content<'a> {
    /// Reads on `from` the end of the root's start tag, or from behind the byte order marks there.
    fn behind(text: &'a str, from: usize) -> Self {
        let rest = text.get(from..).unwrap_or_default();
        let rest = rest.trim_start_matches('\u{FEFF}');
        let mut reader = Reader::from_str(rest);
        // The root's, whose name is compared here.
        reader.config_mut().allow_unmatched_ends = true;
        Self {
            reader,
            from: text.len() - rest.len(),
        }
    }

    fn next(&mut self) -> Result<Event<'a>, Error> {
        self.reader.read_event()
    }

    fn position(&self) -> usize {
        // No overflow: what was read lies in memory.
        let read = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
        self.from.saturating_add(read)
    }
}

/// The length of the start tag with which `root` begins, up to and with its `>`. Quotes hide a `>`.
fn tag_end(root: &str) -> Result<usize, Malformed> {
    // An end tag, or a section: what else begins with `<!` was refused.
    for (begin, end, refused) in [
        ("</", ">", Malformed::MismatchedTag),
        ("<!", "]]>", Malformed::NotXml),
    ] {
        if root.starts_with(begin) {
            return Err(if root.contains(end) {
                refused
            } else {
                Malformed::Truncated
            });
        }
    }
    let mut quote = None;
    for at in memchr::memchr3_iter(b'>', b'\'', b'"', root.as_bytes()) {
        match (quote, root.as_bytes().get(at)) {
            (None, Some(b'>')) => return Ok(at + 1),
            (None, mark) => quote = mark,
            (Some(begun), mark) if mark == Some(begun) => quote = None,
            (Some(_), _) => {}
        }
    }
    Err(Malformed::Truncated)
}

/// Where the root's `<` is: after a byte order mark, an XML declaration and white space.
fn root_start(text: &str) -> Result<usize, Malformed> {
    let mut rest = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let declared = rest.strip_prefix("<?xml");
    if let Some(declared) = declared.filter(|text| text.starts_with(['?', ' ', '\t', '\r', '\n'])) {
        let (inside, after) = declared.split_once("?>").ok_or(Malformed::Truncated)?;
        check_declaration(inside)?;
        rest = after;
    }
    let root = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    match root.bytes().next() {
        Some(b'<') => Ok(text.len() - root.len()),
        Some(_) => Err(Malformed::NotXml),
        None if rest.len() < text.len() && text.contains('<') => Err(Malformed::Truncated),
        None => Err(Malformed::Empty),
    }
}

/// What stands between `<?xml` and `?>` (XML 1.0 §2.8): version 1.0, then maybe UTF-8, then maybe
/// `standalone`.
fn check_declaration(inside: &str) -> Result<(), Malformed> {
    // The scan starts at a name, and the rest of a declaration is like a tag's.
    let mut attributes = Attributes::new();
    let tag = format!("xml{inside}");
    let bad = |_| Malformed::BadDeclaration;
    attributes.scan(&tag, 3).map_err(bad)?;
    let mut places = ["version", "encoding", "standalone"].iter();
    let mut version = false;
    for attribute in attributes.as_slice() {
        let good = match (attribute.name.prefix, attribute.name.local) {
            ("", "version") => {
                version = true;
                attribute.raw == "1.0"
            }
            ("", "encoding") => attribute.raw.eq_ignore_ascii_case("utf-8"),
            ("", "standalone") => matches!(attribute.raw, "yes" | "no"),
            _ => false,
        };
        if !good || !places.any(|&place| place == attribute.name.local) {
            return Err(Malformed::BadDeclaration);
        }
    }
    version.then_some(()).ok_or(Malformed::BadDeclaration)
}

/// Refuses what starts here, if it is markup that no wrapper may have.
fn refuse_declarations(rest: &str) -> Result<(), Malformed> {
    if rest.starts_with("<?") {
        return Err(Malformed::ProcessingInstruction);
    }
    let Some(bang) = rest.strip_prefix("<!") else {
        return Ok(());
    };
    let doctype = bang
        .get(..7)
        .is_some_and(|word| word.eq_ignore_ascii_case("DOCTYPE"));
    match bang {
        _ if bang.starts_with("[CDATA[") => Ok(()),
        _ if bang.starts_with("--") => Err(Malformed::Comment),
        _ if doctype => Err(Malformed::Doctype),
        "" | "-" => Err(Malformed::Truncated),
        _ if "DOCTYPE".starts_with(bang) || "[CDATA[".starts_with(bang) => {
            Err(Malformed::Truncated)
        }
        _ => Err(Malformed::NotXml),
    }
}

/// Refuses anything but white space behind the root.
fn refuse_rest(rest: &str) -> Result<(), Malformed> {
    let rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    if rest.is_empty() {
        return Ok(());
    }
    if let refused @ Err(
        Malformed::ProcessingInstruction | Malformed::Comment | Malformed::Doctype,
    ) = refuse_declarations(rest)
    {
        return refused;
    }
    let tag = rest.strip_prefix('<');
    let element = tag.is_some_and(|tag| !tag.starts_with(['/', '!']));
    Err(if element {
        Malformed::SecondRoot
    } else {
        Malformed::TrailingBytes
    })
}

/// What an error of quick-xml means here.
fn cause(error: &Error) -> Malformed {
    match error {
        Error::Encoding(_) => Malformed::NotUtf8,
        Error::IllFormed(
            IllFormedError::MismatchedEndTag { .. } | IllFormedError::UnmatchedEndTag(_),
        ) => Malformed::MismatchedTag,
        Error::IllFormed(IllFormedError::UnclosedReference) => Malformed::BadReference,
        Error::Syntax(
            SyntaxError::UnclosedTag
            | SyntaxError::UnclosedCData
            | SyntaxError::UnclosedSingleQuotedAttributeValue
            | SyntaxError::UnclosedDoubleQuotedAttributeValue,
        ) => Malformed::Truncated,
        _ => Malformed::NotXml,
    }
}

/// Whether a text has `]]>`, which ends a CDATA section and may stand nowhere else (XML 1.0 §2.4).
fn ends_section(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b']', bytes).any(|at| bytes[at..].starts_with(b"]]>"))
}
