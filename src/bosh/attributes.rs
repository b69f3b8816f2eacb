//! One start tag: its name and its attributes, read to the letter of XML 1.0 §3.1.
//!
//! Owns the scan inside `<…>`. quick-xml finds where a tag ends, but inside it would take
//! attributes without space between, any bytes for a name and `<` in a value; so its attribute
//! reader is never used, and nodes and balancer cannot come to read different sids.

use std::borrow::Cow;

use super::chars;
use super::malformed::Malformed;
use super::namespaces::{Namespace, Scopes, check_default};
use super::reference;

/// Attributes that fit without an allocation: a message and its answer have 8, a creation twice as many.
const INLINE: usize = 10;

/// A name, split at its colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QualifiedName<'a> {
    /// Empty if the name has none.
    pub(super) prefix: &'a str,
    pub(super) local: &'a str,
}

impl QualifiedName<'_> {
    /// The name as it is written at the start of `tag`.
    pub(super) fn written<'t>(&self, tag: &'t str) -> &'t str {
        let colon = usize::from(!self.prefix.is_empty());
        let length = self.prefix.len() + colon + self.local.len();
        tag.get(..length).unwrap_or_default()
    }
}

/// One attribute: its references are known to be good, but not decoded yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) name: QualifiedName<'a>,
    /// What the prefix stands for; set once the whole tag is read.
    pub(super) namespace: Namespace,
    /// What stands between the quotes.
    pub(super) raw: &'a str,
    /// Where the white space before it starts, in bytes from the start of the tag's text.
    pub(super) start: usize,
    /// Where its closing quote ends, likewise.
    pub(super) end: usize,
}

impl<'a> Attribute<'a> {
    const NOTHING: Self = Self {
        name: QualifiedName {
            prefix: "",
            local: "",
        },
        namespace: Namespace::NONE,
        raw: "",
        start: 0,
        end: 0,
    };

    /// The value, decoded and normalised; borrowed where that changes nothing.
    pub(super) fn value(&self) -> Result<Cow<'a, str>, Malformed> {
        reference::normalise(self.raw)
    }
}

/// The attributes of one tag. The store is used again for the next tag.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    few: [Attribute<'a>; INLINE],
    /// How many of `few` count; zero once `many` took over.
    len: usize,
    many: Vec<Attribute<'a>>,
}

impl<'a> Attributes<'a> {
    pub(super) const fn new() -> Self {
        Self {
            few: [Attribute::NOTHING; INLINE],
            len: 0,
            many: Vec::new(),
        }
    }

    pub(super) fn as_slice(&self) -> &[Attribute<'a>] {
        if self.many.is_empty() {
            self.few.get(..self.len).unwrap_or_default()
        } else {
            &self.many
        }
    }

    /// Reads a tag's text, which is what stands between `<` and `>` or `/>`; says its name.
    ///
    /// Afterwards [`Self::bind`] has to look at namespaces and duplicates.
    pub(super) fn scan(
        &mut self,
        text: &'a str,
        limit: usize,
    ) -> Result<QualifiedName<'a>, Malformed> {
        self.len = 0;
        self.many.clear();
        let mut tag = AttributeScan { text, at: 0 };
        let name = tag.name()?;
        while let Some(attribute) = tag.attribute()? {
            if self.as_slice().len() >= limit {
                return Err(Malformed::TooManyAttributes);
            }
            self.push(attribute);
        }
        Ok(name)
    }

    /// Takes the tag's declarations into `scopes`, then resolves its prefixes and refuses
    /// duplicates (XML 1.0 §3.1, Namespaces 1.0 §6.3). `depth` is that of the tag's element.
    pub(super) fn bind(&mut self, scopes: &mut Scopes<'a>, depth: usize) -> Result<(), Malformed> {
        for attribute in self.as_slice() {
            match (attribute.name.prefix, attribute.name.local) {
                ("xmlns", prefix) => scopes.declare(prefix, attribute.value()?, depth)?,
                ("", "xmlns") => check_default(&attribute.value()?)?,
                _ => {}
            }
        }
        for attribute in self.as_mut_slice() {
            attribute.namespace = match (attribute.name.prefix, attribute.name.local) {
                ("", "xmlns") => Namespace::XMLNS,
                (prefix, _) => scopes.resolve(prefix)?,
            };
        }
        self.refuse_duplicates()
    }

    /// Pairwise, which the bound on attributes keeps cheap: no hash to attack, nothing to allocate.
    fn refuse_duplicates(&self) -> Result<(), Malformed> {
        let mut rest = self.as_slice();
        while let Some((one, others)) = rest.split_first() {
            let same = |other: &Attribute<'_>| {
                other.name.local == one.name.local && other.namespace == one.namespace
            };
            if others.iter().any(same) {
                return Err(Malformed::DuplicateAttribute);
            }
            rest = others;
        }
        Ok(())
    }

    fn as_mut_slice(&mut self) -> &mut [Attribute<'a>] {
        if self.many.is_empty() {
            self.few.get_mut(..self.len).unwrap_or_default()
        } else {
            &mut self.many
        }
    }

    fn push(&mut self, attribute: Attribute<'a>) {
        match self.few.get_mut(self.len) {
            Some(slot) if self.many.is_empty() => {
                *slot = attribute;
                self.len += 1;
            }
            _ => {
                if self.many.is_empty() {
                    self.many.extend_from_slice(&self.few);
                }
                self.many.push(attribute);
            }
        }
    }
}

/// A place in a tag's text.
struct AttributeScan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> AttributeScan<'a> {
    /// The next attribute, or `None` where the tag ends.
    fn attribute(&mut self) -> Result<Option<Attribute<'a>>, Malformed> {
        let start = self.at;
        self.skip_space();
        if self.peek().is_none() {
            return Ok(None);
        }
        if self.at == start {
            return Err(Malformed::BadAttribute);
        }
        let name = self.name()?;
        self.skip_space();
        if self.peek() != Some(b'=') {
            return Err(Malformed::BadAttribute);
        }
        self.at += 1;
        self.skip_space();
        let raw = self.quoted()?;
        Ok(Some(Attribute {
            name,
            namespace: Namespace::NONE,
            raw,
            start,
            end: self.at,
        }))
    }

    /// The name that starts here.
    fn name(&mut self) -> Result<QualifiedName<'a>, Malformed> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (name, length) = match chars::plain_name(rest) {
            Some(plain) => plain,
            None => {
                let ends = |b: u8| chars::is_space(b) || b == b'=';
                let length = rest.bytes().position(ends).unwrap_or(rest.len());
                let name = chars::split_name(rest.get(..length).unwrap_or_default());
                (name.ok_or(Malformed::BadName)?, length)
            }
        };
        self.at += length;
        let (prefix, local) = name;
        Ok(QualifiedName { prefix, local })
    }

    /// What stands between the quotes that start here; its references are checked.
    fn quoted(&mut self) -> Result<&'a str, Malformed> {
        let quote = self.peek().filter(|b| matches!(b, b'\'' | b'"'));
        let quote = quote.ok_or(Malformed::BadAttribute)?;
        self.at += 1;
        let from = self.at;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            self.at += memchr::memchr3(quote, b'<', b'&', rest).ok_or(Malformed::BadAttribute)?;
            match self.peek() {
                Some(b'&') => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let (_, length) = reference::at_start(rest)?;
                    self.at += length;
                }
                Some(byte) if byte == quote => break,
                _ => return Err(Malformed::BadAttribute),
            }
        }
        let raw = self.text.get(from..self.at).unwrap_or_default();
        self.at += 1;
        Ok(raw)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(chars::is_space) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
