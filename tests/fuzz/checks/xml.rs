//! A second reader of wrappers: slow and simple, written from XML 1.0 (fifth edition), Namespaces in
//! XML 1.0 and XEP-0124 §5, with nothing of `src/bosh` in it. It goes forward one character at a
//! time, keeps everything, and refuses by `None`.
//!
//! Where Bowline is narrower than XML on purpose, so is this: no comments, processing instructions or
//! DOCTYPE; nothing but white space outside of the root; one of three bounds passed (`DEPTH`,
//! `ROOT_ATTRIBUTES` and `CHILD_ATTRIBUTES`, `PREFIXES`). So is it where lenient readers could see
//! another wrapper: in a value of the root's tag, in a CDATA section, in a wrapper within the wrapper.

const DEPTH: usize = 128;
const ROOT_ATTRIBUTES: usize = 64;
const CHILD_ATTRIBUTES: usize = 128;
/// Prefixes declared by the elements that are open, an outer one of the same name included.
const PREFIXES: usize = 64;

const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// One attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its namespace; none without a prefix.
    pub namespace: Option<String>,
    /// Its name without a prefix.
    pub local: String,
    /// What stands between the quotes.
    pub raw: String,
    /// What it means.
    pub value: String,
}

/// A whole document.
#[derive(Debug)]
pub struct Document {
    /// The root's namespace, empty if it has none.
    pub namespace: String,
    /// The root's name without a prefix.
    pub local: String,
    /// The root's attributes without its declarations of namespaces.
    pub attributes: Vec<Attribute>,
    /// The root has no child, and its text is white space.
    pub empty: bool,
    /// Where the root starts, in bytes.
    pub start: usize,
    /// Where the root's start tag ends, in bytes.
    pub tag_end: usize,
}

/// Reads a document to its end.
pub fn read(bytes: &[u8]) -> Option<Document> {
    let mut reader = Reader::over(bytes)?;
    let (document, name, closed) = reader.root()?;
    (!reader.values.iter().any(|value| misleads(value))).then_some(())?;
    let empty = closed || reader.content(&mut vec![name])?;
    reader.space();
    reader
        .rest()
        .is_empty()
        .then_some(Document { empty, ..document })
}

/// Reads up to the end of the root's start tag; what stands behind it may be anything.
pub fn read_tag(bytes: &[u8]) -> Option<Document> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
    };
    let mut reader = Reader {
        text: valid.chars().collect(),
        ..Reader::default()
    };
    let (document, ..) = reader.root()?;
    let read = &reader.text[..reader.at];
    read.iter().all(|c| is_char(*c)).then_some(document)
}

#[derive(Default)]
struct Reader {
    text: Vec<char>,
    at: usize,
    /// Prefix, name and depth of each declaration; the default namespace has an empty prefix.
    declared: Vec<(String, String, usize)>,
    depth: usize,
    /// What stands between the quotes of the tag that was read last.
    values: Vec<String>,
}

/// A start tag: its name as it stands there, its attributes, and whether it closes itself.
type Tag = (String, Vec<(String, Attribute)>, bool);

impl Reader {
    fn over(bytes: &[u8]) -> Option<Self> {
        let text: Vec<char> = std::str::from_utf8(bytes).ok()?.chars().collect();
        text.iter().all(|c| is_char(*c)).then_some(Self {
            text,
            ..Self::default()
        })
    }

    fn rest(&self) -> &[char] {
        &self.text[self.at..]
    }

    fn sees(&self, word: &str) -> bool {
        let mut rest = self.rest().iter();
        word.chars().all(|c| rest.next() == Some(&c))
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let sees = self.sees(word);
        if sees {
            self.at += word.chars().count();
        }
        sees.then_some(())
    }

    fn next(&mut self) -> Option<char> {
        let c = *self.rest().first()?;
        self.at += 1;
        Some(c)
    }

    /// Takes white space; says whether there was any.
    fn space(&mut self) -> bool {
        let before = self.at;
        while self.rest().first().is_some_and(|c| is_space(*c)) {
            self.at += 1;
        }
        self.at > before
    }

    fn bytes_before(&self, at: usize) -> usize {
        self.text[..at].iter().map(|c| c.len_utf8()).sum()
    }

    /// Prologue and root start tag; beside the document the root's name as it stands, and whether
    /// it closes itself.
    fn root(&mut self) -> Option<(Document, String, bool)> {
        let _ = self.take("\u{FEFF}");
        self.declaration()?;
        self.space();
        let start = self.bytes_before(self.at);
        let (name, attributes, closed) = self.start_tag(ROOT_ATTRIBUTES)?;
        let (prefix, local) = split(&name)?;
        let namespace = self.meaning(&prefix)?;
        let document = Document {
            namespace,
            local,
            attributes: attributes.into_iter().map(|(_, a)| a).collect(),
            empty: closed,
            start,
            tag_end: self.bytes_before(self.at),
        };
        if closed {
            self.leave();
        }
        Some((document, name, closed))
    }

    /// The XML declaration, if there is one (§2.8).
    fn declaration(&mut self) -> Option<()> {
        if !self.sees("<?xml") || !self.text.get(self.at + 5).is_some_and(|c| is_space(*c)) {
            return Some(());
        }
        self.take("<?xml")?;
        let version = self.pseudo("version")?;
        (version? == "1.0").then_some(())?;
        if let Some(encoding) = self.pseudo("encoding")? {
            encoding.eq_ignore_ascii_case("utf-8").then_some(())?;
        }
        if let Some(standalone) = self.pseudo("standalone")? {
            (standalone == "yes" || standalone == "no").then_some(())?;
        }
        self.space();
        self.take("?>")
    }

    /// ` name='value'` in the declaration; the inner none means that another thing stands here.
    fn pseudo(&mut self, name: &str) -> Option<Option<String>> {
        let before = self.at;
        if !self.space() || self.take(name).is_none() {
            self.at = before;
            return Some(None);
        }
        self.space();
        self.take("=")?;
        self.space();
        let quote = self.next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut value = String::new();
        loop {
            match self.next()? {
                c if c == quote => return Some(Some(value)),
                c => value.push(c),
            }
        }
    }

    /// A start tag (§3.1) from its `<`; enters the element.
    fn start_tag(&mut self, most: usize) -> Option<Tag> {
        self.take("<")?;
        let name = self.name()?;
        let mut written: Vec<(String, String)> = Vec::new();
        let closed = loop {
            let spaced = self.space();
            if self.take(">").is_some() {
                break false;
            }
            if self.take("/>").is_some() {
                break true;
            }
            if !spaced || written.len() == most {
                return None;
            }
            let name = self.name()?;
            self.space();
            self.take("=")?;
            self.space();
            written.push((name, self.quoted()?));
        };
        self.values = written.iter().map(|(_, raw)| raw.clone()).collect();
        self.depth += 1;
        (self.depth <= DEPTH).then_some(())?;
        let attributes = self.attributes(&written)?;
        let (prefix, _) = split(&name)?;
        (prefix != "xmlns").then_some(())?;
        self.meaning(&prefix)?;
        Some((name, attributes, closed))
    }

    /// What attributes mean; declarations of namespaces go into scope and are left out.
    fn attributes(&mut self, written: &[(String, String)]) -> Option<Vec<(String, Attribute)>> {
        let mut others = Vec::new();
        for (place, (name, raw)) in written.iter().enumerate() {
            if written[..place].iter().any(|(other, _)| other == name) {
                return None;
            }
            let value = meaning_of(raw)?;
            match split(name)? {
                (prefix, local) if prefix.is_empty() && local == "xmlns" => {
                    (value != XML && value != XMLNS).then_some(())?;
                    self.declared.push((String::new(), value, self.depth));
                }
                (prefix, local) if prefix == "xmlns" => self.declare(local, value)?,
                (prefix, local) => others.push((prefix, local, raw.clone(), value)),
            }
        }
        let mut attributes: Vec<(String, Attribute)> = Vec::new();
        for (prefix, local, raw, value) in others {
            let namespace = match prefix.as_str() {
                "" => None,
                prefix => Some(self.meaning(prefix)?),
            };
            let twice = |(_, other): &(String, Attribute)| {
                other.namespace == namespace && other.local == local
            };
            if attributes.iter().any(twice) {
                return None;
            }
            let attribute = Attribute {
                namespace,
                local,
                raw,
                value,
            };
            attributes.push((prefix, attribute));
        }
        Some(attributes)
    }

    /// `xmlns:prefix='name'` (Namespaces §3).
    fn declare(&mut self, prefix: String, name: String) -> Option<()> {
        if prefix == "xml" {
            return (name == XML).then_some(());
        }
        if prefix == "xmlns" || name.is_empty() || name == XML || name == XMLNS {
            return None;
        }
        let prefixes = self
            .declared
            .iter()
            .filter(|(prefix, ..)| !prefix.is_empty());
        (prefixes.count() < PREFIXES).then_some(())?;
        self.declared.push((prefix, name, self.depth));
        Some(())
    }

    /// The namespace of an element with `prefix`; of an attribute too, if that is not empty.
    fn meaning(&self, prefix: &str) -> Option<String> {
        if prefix == "xml" {
            return Some(XML.to_owned());
        }
        let inner_first = self.declared.iter().rev();
        let found = inner_first.filter(|(declared, ..)| declared == prefix);
        match found.map(|(_, name, _)| name.clone()).next() {
            None if prefix.is_empty() => Some(String::new()),
            found => found,
        }
    }

    fn leave(&mut self) {
        let depth = self.depth;
        self.declared.retain(|(_, _, of)| *of < depth);
        self.depth -= 1;
    }

    /// Content and end tags (§3.1, §2.4, §2.7) until every element of `open` is closed; says whether
    /// there was nothing but white space, and no element.
    fn content(&mut self, open: &mut Vec<String>) -> Option<bool> {
        let mut empty = true;
        while let Some(name) = open.last() {
            if self.sees("</") {
                self.take("</")?;
                self.take(&name.clone())?;
                self.space();
                self.take(">")?;
                self.leave();
                open.pop();
            } else if self.take("<![CDATA[").is_some() {
                while self.take("]]>").is_none() {
                    let c = self.next()?;
                    (c != '<' && c != '>').then_some(())?;
                    empty &= is_space(c);
                }
            } else if self.sees("<") {
                empty = false;
                let (name, attributes, closed) = self.start_tag(CHILD_ATTRIBUTES)?;
                let mut plain = attributes.iter().filter(|(prefix, _)| prefix.is_empty());
                let marked = plain.any(|(_, a)| a.local == "sid" || a.local == "rid");
                (!marked || split(&name)?.1 != "body").then_some(())?;
                if closed {
                    self.leave();
                } else {
                    open.push(name);
                }
            } else if self.sees("&") {
                empty &= is_space(self.reference()?);
            } else if self.sees("]]>") {
                return None;
            } else {
                empty &= is_space(self.next()?);
            }
        }
        Some(empty)
    }

    /// `&…;` (§4.1), from its `&`.
    fn reference(&mut self) -> Option<char> {
        self.take("&")?;
        let mut name = String::new();
        loop {
            match self.next()? {
                ';' => break,
                c => name.push(c),
            }
        }
        referred(&name)
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        while let Some(c) = self.rest().first()
            && (continues_name(*c) || *c == ':')
        {
            name.push(*c);
            self.at += 1;
        }
        split(&name).map(|_| name)
    }

    /// What stands between quotes.
    fn quoted(&mut self) -> Option<String> {
        let quote = self.next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut raw = String::new();
        loop {
            match self.next()? {
                c if c == quote => return Some(raw),
                '<' => return None,
                c => raw.push(c),
            }
        }
    }
}

/// An attribute's value (§2.11, §3.3.3).
fn meaning_of(raw: &str) -> Option<String> {
    let lines = raw.replace("\r\n", "\n").replace('\r', "\n");
    let mut value = String::new();
    let mut rest = lines.as_str();
    while let Some(c) = rest.chars().next() {
        if c == '&' {
            let (name, behind) = rest[1..].split_once(';')?;
            value.push(referred(name)?);
            rest = behind;
        } else {
            value.push(if is_space(c) { ' ' } else { c });
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(value)
}

/// The character that `&name;` stands for.
fn referred(name: &str) -> Option<char> {
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "apos" => return Some('\''),
        "quot" => return Some('"'),
        other => other.strip_prefix('#')?,
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let code = if digits.is_empty() {
        0
    } else {
        u32::from_str_radix(digits, radix).ok()?
    };
    char::from_u32(code).filter(|c| is_char(*c))
}

/// A qualified name at its colon (Namespaces §4).
fn split(name: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = name.split(':').collect();
    let good = |part: &&str| part.chars().next().is_some_and(starts_name);
    if !parts.iter().all(good) {
        return None;
    }
    match parts[..] {
        [local] => Some((String::new(), local.to_owned())),
        [prefix, local] => Some((prefix.to_owned(), local.to_owned())),
        _ => None,
    }
}

/// Whether somebody who looks for `>`, or for `sid=` or `rid=`, finds it in a value.
fn misleads(raw: &str) -> bool {
    let blank = [' ', '\t', '\n', '\r', '\u{c}'];
    let names = raw.split('=').map(|part| part.trim_end_matches(blank));
    let equals = raw.matches('=').count();
    let mut before = names.take(equals);
    raw.contains('>') || before.any(|name| name.ends_with("sid") || name.ends_with("rid"))
}

fn is_space(c: char) -> bool {
    " \t\r\n".contains(c)
}

/// §2.2, production 2.
fn is_char(c: char) -> bool {
    let code = u32::from(c);
    [0x9, 0xA, 0xD].contains(&code)
        || (0x20..=0xD7FF).contains(&code)
        || (0xE000..=0xFFFD).contains(&code)
        || (0x1_0000..=0x10_FFFF).contains(&code)
}

/// §2.3, production 4, without the colon.
fn starts_name(c: char) -> bool {
    const RANGES: [(u32, u32); 15] = [
        (0x41, 0x5A),
        (0x5F, 0x5F),
        (0x61, 0x7A),
        (0xC0, 0xD6),
        (0xD8, 0xF6),
        (0xF8, 0x2FF),
        (0x370, 0x37D),
        (0x37F, 0x1FFF),
        (0x200C, 0x200D),
        (0x2070, 0x218F),
        (0x2C00, 0x2FEF),
        (0x3001, 0xD7FF),
        (0xF900, 0xFDCF),
        (0xFDF0, 0xFFFD),
        (0x1_0000, 0xE_FFFF),
    ];
    let code = u32::from(c);
    RANGES
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&code))
}

/// Production 4a, without the colon.
fn continues_name(c: char) -> bool {
    starts_name(c)
        || "-.0123456789\u{B7}".contains(c)
        || ('\u{300}'..='\u{36F}').contains(&c)
        || ('\u{203F}'..='\u{2040}').contains(&c)
}
