//! Why a wrapper was refused: one value per cause, in words for a log line.
//!
//! Owns the list of causes. Never says what the client is told; that is the reject's choice.

use std::fmt;

/// Why a body is no wrapper that the balancer may forward.
///
/// Each cause is one value, so that it can be a label; the values carry nothing of the body. Where
/// several causes hold, the one that the reader meets first is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// No byte, or nothing but white space.
    Empty,
    /// Not UTF-8 (XEP-0124 §5 asks for it).
    NotUtf8,
    /// A character that XML 1.0 §2.2 does not know: NUL, control characters, U+FFFE, U+FFFF.
    BadCharacter,
    /// Something that XML does not allow and no other cause names.
    NotXml,
    /// An XML declaration that is not version 1.0 in UTF-8.
    BadDeclaration,
    /// A document type declaration (XEP-0124 §5 forbids it).
    Doctype,
    /// A processing instruction, or an XML declaration that is not at the very start.
    ProcessingInstruction,
    /// A comment (XEP-0124 §5 forbids it).
    Comment,
    /// An element or attribute name that XML or its namespaces do not allow.
    BadName,
    /// An attribute that is not ` name='value'`: no quotes, no space before it, a `<` in it.
    BadAttribute,
    /// The same attribute twice in one tag, by its name or by namespace and local name.
    DuplicateAttribute,
    /// More attributes in one tag than the bound.
    TooManyAttributes,
    /// A value in the root's tag with a `>`, or with `sid=` or `rid=` in it.
    HiddenAttribute,
    /// A prefix that nothing declares.
    UndeclaredPrefix,
    /// A namespace declaration that XML Namespaces 1.0 §3 forbids.
    BadNamespace,
    /// More prefixes in scope at once than the bound.
    TooManyNamespaces,
    /// A reference that is neither one of the five entities nor a legal character.
    BadReference,
    /// An end tag that does not match its start tag.
    MismatchedTag,
    /// A CDATA section with `<` or `>` in it: Tigase ends it at the first `>`.
    MarkupInSection,
    /// An element `body` with a `sid` or a `rid` inside of the wrapper.
    NestedWrapper,
    /// Elements nested deeper than the bound.
    TooDeep,
    /// The root's local name is not `body`.
    NotBody,
    /// The root is a `body` of another namespace than httpbind, or of none.
    WrongNamespace,
    /// A second root element.
    SecondRoot,
    /// Something else than white space after the root.
    TrailingBytes,
    /// The body ends before its root does.
    Truncated,
    /// A `sid` that is empty, longer than 256 bytes, or not printable ASCII.
    BadSid,
    /// A `rid` that is not 1 to 16 digits up to 2^53 − 1 (XEP-0124 §7).
    BadRid,
    /// No `rid` (XEP-0124 §7: every request has one).
    MissingRid,
    /// A `wait`, `hold` or `pause` that is no number.
    BadNumber,
    /// A `content` that could inject a header: control characters, `<`, or not ASCII.
    BadContent,
}

impl Malformed {
    /// The cause in words, for a log line or a label's description.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the body is empty",
            Self::NotUtf8 => "the body is not UTF-8",
            Self::BadCharacter => "a character that XML does not allow",
            Self::NotXml => "not well-formed XML",
            Self::BadDeclaration => "an XML declaration other than version 1.0 in UTF-8",
            Self::Doctype => "a document type declaration",
            Self::ProcessingInstruction => "a processing instruction",
            Self::Comment => "a comment",
            Self::BadName => "a name that XML does not allow",
            Self::BadAttribute => "an attribute that is not well-formed",
            Self::DuplicateAttribute => "an attribute given twice",
            Self::TooManyAttributes => "too many attributes in one tag",
            Self::HiddenAttribute => "an attribute whose value looks like markup",
            Self::UndeclaredPrefix => "an undeclared namespace prefix",
            Self::BadNamespace => "a namespace declaration that is not allowed",
            Self::TooManyNamespaces => "too many namespace prefixes in scope",
            Self::BadReference => "an unknown reference",
            Self::MismatchedTag => "an end tag that does not match its start tag",
            Self::MarkupInSection => "a CDATA section with markup in it",
            Self::NestedWrapper => "a wrapper inside the wrapper",
            Self::TooDeep => "elements nested too deep",
            Self::NotBody => "the root element is not body",
            Self::WrongNamespace => "the root element is not in the httpbind namespace",
            Self::SecondRoot => "a second root element",
            Self::TrailingBytes => "text after the root element",
            Self::Truncated => "the body ends before its root element does",
            Self::BadSid => "the sid is not 1 to 256 printable ASCII characters",
            Self::BadRid => "the rid is not a number up to 2^53 - 1",
            Self::MissingRid => "there is no rid",
            Self::BadNumber => "wait, hold or pause is not a number",
            Self::BadContent => "the content type has characters that no header may have",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Malformed {}
