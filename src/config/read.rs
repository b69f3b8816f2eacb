//! Takes typed values out of the tree. Each read names its key, its default and its range in one
//! line, and a fault knows the way to its place.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::one_line;
use super::keys;
use super::nearest::nearest;
use super::tree::{Side, Tree};
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// The longest stay of anything, and so the upper bound of every duration.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wrong, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    /// The key as the message shows it; may name a key that is absent.
    pub(super) key: String,
    /// The way through the tree: positions among entries.
    pub(super) way: Vec<usize>,
    /// Which side of the last step is meant.
    pub(super) side: Side,
    /// The words for it.
    pub(super) reason: String,
}

/// A value and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Value<'t> {
    tree: &'t Tree,
    key: String,
    way: Vec<usize>,
    in_list: bool,
}

/// A mapping whose keys are all known and given once.
#[derive(Debug)]
pub(super) struct Section<'t> {
    value: Value<'t>,
    entries: &'t [(String, Tree)],
    keys: &'static [&'static str],
}

impl<'t> Value<'t> {
    /// The whole file.
    pub(super) fn root(tree: &'t Tree) -> Self {
        Self {
            tree,
            key: String::new(),
            way: Vec::new(),
            in_list: false,
        }
    }

    /// A fault of this value. It is placed at the value itself if that is one word, at its key if it
    /// spans several lines.
    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        let spans = matches!(self.tree, Tree::Map(_) | Tree::List(_) | Tree::Null);
        let side = if spans && !self.in_list {
            Side::Key
        } else {
            Side::Value
        };
        Fault {
            key: self.key.clone(),
            way: self.way.clone(),
            side,
            reason: reason.into(),
        }
    }

    /// A fault that says what the value must be, and what it is.
    pub(super) fn must_be(&self, what: &str) -> Fault {
        self.fault(format!("must be {what}, is {}", self.shown()))
    }

    /// A fault that says what the value must do: `must` is the end of that sentence.
    pub(super) fn must(&self, must: &str) -> Fault {
        self.fault(format!("must {must}, is {}", self.shown()))
    }

    /// The value as a message shows it.
    fn shown(&self) -> String {
        match self.tree {
            Tree::Null => "empty".to_owned(),
            Tree::Bool(value) => value.to_string(),
            Tree::Int(value) => value.to_string(),
            Tree::Float(value) => value.clone(),
            Tree::Text(text) => quoted(text),
            Tree::List(_) => "a list".to_owned(),
            Tree::Map(_) => "a mapping".to_owned(),
        }
    }

    /// True for `false` and for the word `off`: YAML 1.1 and YAML 1.2 read the bare word
    /// differently.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.tree, Tree::Bool(false)) || *self.tree == Tree::Text("off".to_owned())
    }

    /// True for `true` and for the word `on`, as [`Value::is_off`].
    pub(super) fn is_on(&self) -> bool {
        matches!(self.tree, Tree::Bool(true)) || *self.tree == Tree::Text("on".to_owned())
    }

    /// True for a key with nothing after it.
    pub(super) fn is_null(&self) -> bool {
        *self.tree == Tree::Null
    }

    /// The value as text. Numbers are not taken for text: YAML has already changed how they read.
    pub(super) fn text(&self) -> Result<&'t str, Fault> {
        match self.tree {
            Tree::Text(text) => Ok(text),
            Tree::Int(_) | Tree::Float(_) | Tree::Bool(_) => Err(self.fault(format!(
                "must be text, is {}: put it in quotes",
                self.shown()
            ))),
            Tree::Null => Err(self.fault("has no value")),
            Tree::List(_) | Tree::Map(_) => Err(self.must_be("text")),
        }
    }

    /// The value as a list of at most `most` entries.
    pub(super) fn list(&self, most: usize) -> Result<Vec<Value<'t>>, Fault> {
        let items = match self.tree {
            Tree::List(items) => items,
            Tree::Null => return Err(self.fault("has no value")),
            _ => return Err(self.must_be("a list")),
        };
        if items.len() > most {
            let count = items.len();
            return Err(self.fault(format!("must have at most {most} entries, has {count}")));
        }
        Ok(items
            .iter()
            .enumerate()
            .map(|(position, tree)| self.entry(position, tree))
            .collect())
    }

    fn entry(&self, position: usize, tree: &'t Tree) -> Value<'t> {
        Value {
            tree,
            key: format!("{}[{position}]", self.key),
            way: stepped(&self.way, position),
            in_list: true,
        }
    }

    /// The value as a mapping; no value is an empty one.
    pub(super) fn section(self) -> Result<Section<'t>, Fault> {
        self.section_or("a mapping")
    }

    /// As [`Value::section`], in the words for a key that takes something else too.
    pub(super) fn section_or(self, what: &str) -> Result<Section<'t>, Fault> {
        let entries = match self.tree {
            Tree::Map(entries) => entries.as_slice(),
            Tree::Null => &[],
            _ => return Err(self.must_be(what)),
        };
        let keys = keys::at(&place(&self.key));
        let section = Section {
            value: self,
            entries,
            keys,
        };
        section.check_keys()?;
        Ok(section)
    }
}

impl<'t> Section<'t> {
    fn check_keys(&self) -> Result<(), Fault> {
        for (position, (key, _)) in self.entries.iter().enumerate() {
            let fault = |at: String, reason: String| Fault {
                key: at,
                way: stepped(&self.value.way, position),
                side: Side::Key,
                reason,
            };
            if !self.keys.contains(&key.as_str()) {
                return Err(fault(self.value.key.clone(), self.unknown(key)));
            }
            if self.entries[..position].iter().any(|(seen, _)| seen == key) {
                return Err(fault(self.name(key), "is given twice".to_owned()));
            }
        }
        Ok(())
    }

    /// The words for an unknown key: the nearest known one here, or else the same word elsewhere,
    /// or else what is known here.
    fn unknown(&self, key: &str) -> String {
        let unknown = format!("unknown key {}", quoted(key));
        if let Some(near) = nearest(key, self.keys) {
            return format!("{unknown}, did you mean `{near}`?");
        }
        if let Some(path) = keys::elsewhere(key) {
            return format!("{unknown}, did you mean `{path}`?");
        }
        format!("{unknown}, known here: {}", self.keys.join(", "))
    }

    /// A fault of the section as a whole.
    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        self.value.fault(reason)
    }

    /// The value of a key, if the section has it.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'t>> {
        debug_assert!(
            self.keys.contains(&key),
            "{key} is not in the table of keys"
        );
        let position = self.entries.iter().position(|(name, _)| name == key)?;
        Some(Value {
            tree: &self.entries[position].1,
            key: self.name(key),
            way: stepped(&self.value.way, position),
            in_list: false,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &'static str) -> Result<Value<'t>, Fault> {
        self.get(key).ok_or_else(|| {
            let mut fault = self.fault("is required");
            fault.key = self.name(key);
            fault
        })
    }

    /// The section under a key; an empty one if it is not there.
    pub(super) fn section(&self, key: &'static str) -> Result<Section<'t>, Fault> {
        self.get(key)
            .unwrap_or_else(|| Value {
                tree: &Tree::Null,
                key: self.name(key),
                way: Vec::new(),
                in_list: false,
            })
            .section()
    }

    /// A whole number in a range.
    pub(super) fn count<T>(
        &self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> Result<T, Fault>
    where
        T: TryFrom<i128> + TryInto<i128> + Copy,
    {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let Tree::Int(number) = *value.tree else {
            return Err(value.scalar_fault("a whole number"));
        };
        let bound = |limit: T| limit.try_into().unwrap_or(i128::MAX);
        let (least, most) = (bound(*range.start()), bound(*range.end()));
        value.within(number, least, most, |bound| bound.to_string())?;
        T::try_from(number).map_err(|_| value.must_be("a smaller number"))
    }

    /// A switch: `true` or `false`, or the words `on` and `off`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, Fault> {
        match self.get(key) {
            None => Ok(default),
            Some(value) if value.is_on() => Ok(true),
            Some(value) if value.is_off() => Ok(false),
            Some(value) => Err(value.scalar_fault("`true` or `false`")),
        }
    }

    /// A size in bytes, in a range.
    pub(super) fn size(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let parsed = match value.tree {
            Tree::Int(number) => Some(*number),
            Tree::Text(text) => parse_size(text).map(i128::from),
            _ => None,
        };
        let what = "a size such as `256KiB`, `1MiB` or a number of bytes";
        let bytes = parsed.ok_or_else(|| value.scalar_fault(what))?;
        let (least, most) = (*range.start() as i128, *range.end() as i128);
        value.within(bytes, least, most, |bound| {
            u64::try_from(bound).map_or_else(|_| bound.to_string(), show_size)
        })?;
        usize::try_from(bytes).map_err(|_| value.must_be("a smaller size"))
    }

    /// A duration from `least` to [`LONGEST`].
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        least: Duration,
    ) -> Result<Duration, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let parsed = match value.tree {
            Tree::Text(text) => parse_duration(text),
            _ => None,
        };
        let what = "a whole number with the unit ms, s, m or h, such as `2s`";
        let duration = parsed.ok_or_else(|| value.scalar_fault(what))?;
        let bound = |limit: &str, at: Duration| {
            let (at, is) = (show_duration(at), show_duration(duration));
            Err(value.fault(format!("must be at {limit} {at}, is {is}")))
        };
        if duration < least {
            return bound("least", least);
        }
        if duration > LONGEST {
            return bound("most", LONGEST);
        }
        Ok(duration)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> Result<T, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let what = format!("one of {}", names.join(", "));
        let Tree::Text(text) = value.tree else {
            return Err(value.scalar_fault(&what));
        };
        if let Some((_, chosen)) = words.iter().find(|(name, _)| name == text) {
            return Ok(*chosen);
        }
        let mut fault = value.must_be(&what);
        if let Some(near) = nearest(text, &names) {
            fault.reason = format!("{}, did you mean `{near}`?", fault.reason);
        }
        Err(fault)
    }

    fn name(&self, key: &str) -> String {
        if self.value.key.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.value.key)
        }
    }
}

impl Value<'_> {
    /// The fault of a value that is not of its kind.
    fn scalar_fault(&self, what: &str) -> Fault {
        if self.is_null() {
            self.fault("has no value")
        } else {
            self.must_be(what)
        }
    }

    fn within(
        &self,
        number: i128,
        least: i128,
        most: i128,
        show: impl Fn(i128) -> String,
    ) -> Result<(), Fault> {
        let (limit, bound) = if number < least {
            ("least", least)
        } else if number > most {
            ("most", most)
        } else {
            return Ok(());
        };
        let (bound, number) = (show(bound), show(number));
        Err(self.fault(format!("must be at {limit} {bound}, is {number}")))
    }
}

/// Text in back quotes, without control characters and not without end.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown = one_line(&text.chars().take(MOST).collect::<String>());
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// A key's path with its list positions taken out: `nodes[3]` is the place `nodes[]`.
fn place(key: &str) -> String {
    key.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn stepped(way: &[usize], position: usize) -> Vec<usize> {
    way.iter().copied().chain([position]).collect()
}
