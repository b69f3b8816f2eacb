//! The fields of a head.

use std::mem::MaybeUninit;

use super::{Error, MAX_FIELDS};

/// One field: its name, and its value without blanks around it.
pub type Field<'a> = httparse::Header<'a>;

/// Where httparse puts the fields of one head. It lies on the stack of the caller, and is not
/// initialised, so it costs nothing.
#[derive(Debug)]
pub struct Room<'a>(pub(super) [MaybeUninit<Field<'a>>; MAX_FIELDS]);

impl Room<'_> {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "it is memory and no value")]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_FIELDS])
    }
}

/// The fields of one head, in their order. Names compare without regard to case. Values have no blanks
/// around them, and may hold bytes past ASCII.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a>(pub(super) &'a [Field<'a>]);

impl<'a> Fields<'a> {
    /// These fields.
    pub const fn of(fields: &'a [Field<'a>]) -> Self {
        Self(fields)
    }

    /// The values of every field called `name`.
    pub fn all(self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let named = self.0.iter().filter(move |field| is(field, name));
        named.map(|field| field.value)
    }

    /// The value of the first field called `name`.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// All fields.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().map(|field| (field.name, field.value))
    }
}

/// Fields of an answer that are of interest beside the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedFields {
    /// Their names, in lower case.
    pub names: Vec<String>,
    /// `Vary`, and all whose names begin with `Access-Control-`.
    pub cors: bool,
}

impl WantedFields {
    /// None.
    pub const NONE: &'static Self = &Self {
        names: Vec::new(),
        cors: false,
    };

    /// Whether no field is wanted.
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.cors
    }

    fn wants(&self, name: &str) -> bool {
        const CORS: &str = "access-control-";
        let is_cors = || {
            let begins = name.get(..CORS.len());
            begins.is_some_and(|begins| begins.eq_ignore_ascii_case(CORS))
                || name.eq_ignore_ascii_case("vary")
        };
        let listed = self.names.iter().any(|one| name.eq_ignore_ascii_case(one));
        listed || (self.cors && is_cors())
    }
}

/// The most fields that are kept of an answer, and the most bytes of them.
const MOST_KEPT: (usize, usize) = (32, 4096);

/// Fields of an answer that were [wanted](WantedFields), in their order: at most 32, and 4 KiB in all. What
/// goes beyond that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFields(Vec<(Box<str>, Box<[u8]>)>);

impl KeptFields {
    /// Those of `fields` that are wanted; none if no field is wanted.
    pub(super) fn of(fields: &[Field<'_>], wanted: &WantedFields) -> Option<Box<Self>> {
        if wanted.is_empty() {
            return None;
        }
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for field in fields.iter().filter(|field| wanted.wants(field.name)) {
            bytes += field.name.len() + field.value.len();
            if kept.len() < MOST_KEPT.0 && bytes <= MOST_KEPT.1 {
                kept.push((field.name.to_ascii_lowercase().into(), field.value.into()));
            }
        }
        Some(Box::new(Self(kept)))
    }

    /// Names in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About how much memory they take, in bytes.
    pub fn bytes(&self) -> usize {
        let text = |(name, value): (&str, &[u8])| name.len() + value.len();
        self.0.capacity() * size_of::<(Box<str>, Box<[u8]>)>()
            + self.iter().map(text).sum::<usize>()
    }
}

/// Whether a field is called `name`.
pub(super) fn is(field: &Field<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

/// Whether a `Connection` field lists `option`.
pub(super) fn lists(value: &[u8], option: &[u8]) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
}

/// The value of a `Content-Length`: digits only; past 64 bits it is `u64::MAX`.
pub(super) fn length(value: &[u8]) -> Result<u64, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Error::Invalid("a Content-Length that is no number"));
    }
    let append = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Ok(value.iter().fold(0, append))
}
