//! Takes typed values out of the tree. Each read names its key, its default and its range in one
//! line. A value that is refused leaves a fault, and the reading goes on, so that one look at a file
//! finds everything that is wrong with it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::one_line;
use super::excerpt::masked;
pub(super) use super::faults::{Fault, Faults, MOST_FAULTS};
use super::hints::{missing, unexpanded, unsupported};
use super::keys::{self, nearest};
use super::tree::{Entry, Node, Tree};
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// The longest stay of anything, and so the upper bound of every duration.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Of how many entries a key may be the slip for one that is missing.
const MOST_SLIPS: usize = 100;

/// A value, its key, and where its faults go.
#[derive(Debug, Clone)]
pub(super) struct Value<'t> {
    tree: &'t Tree,
    key: String,
    /// The node at which a fault of the value stands.
    number: usize,
    faults: &'t Faults,
}

/// A mapping of which unknown keys and repeated keys have been refused.
#[derive(Debug, Clone)]
pub(super) struct Section<'t> {
    value: Value<'t>,
    entries: &'t [Entry],
    keys: Vec<&'static str>,
}

impl<'t> Value<'t> {
    /// The whole file.
    pub(super) fn root(node: &'t Node, faults: &'t Faults) -> Self {
        Self {
            tree: &node.tree,
            key: String::new(),
            number: node.number,
            faults,
        }
    }

    /// Refuses the value. Returns none of anything, for the caller to return.
    pub(super) fn refuse<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.faults.add(Fault {
            key: self.key.clone(),
            number: self.number,
            reason: reason.into(),
        });
        None
    }

    /// Refuses the value and says what it must be, and what it is.
    pub(super) fn must_be<T>(&self, what: &str) -> Option<T> {
        self.must(&format!("be {what}"))
    }

    /// Refuses the value and says what it must do: `must` is the end of that sentence.
    pub(super) fn must<T>(&self, must: &str) -> Option<T> {
        let fix = self.word().and_then(unexpanded).unwrap_or_default();
        self.refuse(format!("must {must}, is {}{fix}", self.shown()))
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

    /// The key as messages show it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// True for `false` and for the word `off`: YAML 1.1 and YAML 1.2 read the bare word
    /// differently.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.tree, Tree::Bool(false)) || self.is_word("off")
    }

    /// True for `true` and for the word `on`, as [`Value::is_off`].
    pub(super) fn is_on(&self) -> bool {
        matches!(self.tree, Tree::Bool(true)) || self.is_word("on")
    }

    /// True for a key with nothing after it.
    pub(super) fn is_null(&self) -> bool {
        *self.tree == Tree::Null
    }

    /// Whether it is a mapping with this key.
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(self.tree, Tree::Map(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// True for this text.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// The text, if the value is one. Refuses nothing.
    pub(super) fn word(&self) -> Option<&'t str> {
        match self.tree {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as text. Numbers are not taken for text: YAML has already changed how they read.
    pub(super) fn text(&self) -> Option<&'t str> {
        match self.tree {
            Tree::Text(text) => Some(text),
            Tree::Int(_) | Tree::Float(_) | Tree::Bool(_) => self.refuse(format!(
                "must be text, is {}: put it in quotes",
                self.shown()
            )),
            Tree::Null | Tree::List(_) | Tree::Map(_) => self.wrong("text"),
        }
    }

    /// The value as text that keeps a rule; a refusal is the end of the sentence that begins "must".
    pub(super) fn ruled(&self, rule: fn(&str) -> Result<(), &'static str>) -> Option<&'t str> {
        let text = self.text()?;
        match rule(text) {
            Ok(()) => Some(text),
            Err(must) => self.must(must),
        }
    }

    /// The value as a list with a number of entries in `range`; empty if it is refused.
    pub(super) fn list(&self, range: RangeInclusive<usize>) -> Vec<Value<'t>> {
        let Tree::List(items) = self.tree else {
            return self.wrong("a list").unwrap_or_default();
        };
        let (count, most) = (items.len(), range.end());
        let refused: Option<()> = if count < *range.start() {
            self.refuse("must have at least one entry")
        } else if count > *most {
            self.refuse(format!("must have at most {most} entries, has {count}"))
        } else {
            Some(())
        };
        let kept = refused.map_or(&[][..], |()| items);
        let entry = |(position, node): (usize, &'t Node)| Value {
            tree: &node.tree,
            key: format!("{}[{position}]", self.key),
            number: node.number,
            faults: self.faults,
        };
        kept.iter().enumerate().map(entry).collect()
    }

    /// The value as a mapping; no value is an empty one.
    pub(super) fn section(self) -> Option<Section<'t>> {
        self.section_or("a mapping")
    }

    /// As [`Value::section`], in the words for a key that takes something else too.
    pub(super) fn section_or(self, what: &str) -> Option<Section<'t>> {
        let keys = keys::at(&self.key);
        let entries = match self.tree {
            Tree::Map(entries) => entries.as_slice(),
            Tree::Null => &[],
            _ => match self.word().and_then(|text| missing(text, &keys)) {
                Some((_, fix)) => return self.refuse(fix),
                None => return self.must_be(what),
            },
        };
        let section = Section {
            keys,
            value: self,
            entries,
        };
        section.check_keys();
        Some(section)
    }

    /// Refuses a value that is not of its kind.
    fn wrong<T>(&self, what: &str) -> Option<T> {
        if self.is_null() {
            self.refuse("has no value")
        } else {
            self.must_be(what)
        }
    }
}

impl<'t> Section<'t> {
    fn check_keys(&self) {
        for (position, Entry { key, number, .. }) in self.entries.iter().enumerate() {
            if self.value.faults.is_full() {
                return;
            }
            let fault = |at: String, reason: String| {
                self.value.faults.add(Fault {
                    key: at,
                    number: *number,
                    reason,
                });
            };
            if !self.keys.contains(&key.as_str()) {
                fault(self.value.key.clone(), self.unknown(key));
            } else if self.entries[..position].iter().any(|seen| seen.key == *key) {
                fault(self.name(key), "is given twice".to_owned());
            }
        }
    }

    /// The known key that an unknown one was probably meant as, and the words for it.
    fn meant(&self, key: &str) -> Option<(&'static str, String)> {
        let near = |near| {
            let unknown = quoted(key);
            (
                near,
                format!("unknown key {unknown}, did you mean `{near}`?"),
            )
        };
        missing(key, &self.keys).or_else(|| nearest(key, &self.keys).map(near))
    }

    /// The words for an unknown key: the one that was meant, or else the same word elsewhere, or else
    /// what is known here.
    fn unknown(&self, key: &str) -> String {
        if let Some((_, words)) = self.meant(key) {
            return words;
        }
        let unknown = format!("unknown key {}", quoted(key));
        if let Some(fix) = unsupported(key) {
            return format!("{unknown}: {fix}");
        }
        if let Some(path) = keys::elsewhere(key) {
            return format!("{unknown}, did you mean `{path}`?");
        }
        format!("{unknown}, known here: {}", self.keys.join(", "))
    }

    /// Refuses every key but this one.
    pub(super) fn only(&self, key: &str, reason: &str) {
        for entry in self.entries.iter().filter(|entry| entry.key != key) {
            if self.keys.contains(&entry.key.as_str()) {
                self.value.faults.add(Fault {
                    key: self.name(&entry.key),
                    number: entry.number,
                    reason: reason.to_owned(),
                });
            }
        }
    }

    /// The value of a key, if the section has it.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'t>> {
        debug_assert!(
            self.keys.contains(&key),
            "{key} is not in the table of keys"
        );
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let Node { number, tree } = &entry.value;
        // What may span several lines is refused at its key.
        let spans = matches!(tree, Tree::Map(_) | Tree::List(_) | Tree::Null);
        Some(Value {
            tree,
            key: self.name(key),
            number: if spans { entry.number } else { *number },
            faults: self.value.faults,
        })
    }

    /// The value of a key that must be there. If an unknown key was meant as this one, its refusal is
    /// enough.
    pub(super) fn need(&self, key: &'static str) -> Option<Value<'t>> {
        let is_slip = |entry: &Entry| {
            let unknown = !self.keys.contains(&entry.key.as_str());
            unknown
                && self
                    .meant(&entry.key)
                    .is_some_and(|(meant, _)| meant == key)
        };
        self.get(key).or_else(|| {
            let slipped = self.entries.iter().take(MOST_SLIPS).any(is_slip);
            let absent = self.absent(key);
            (!slipped).then(|| absent.refuse("is required")).flatten()
        })
    }

    /// The section under a key; an empty one if it is not there or refused.
    pub(super) fn section(&self, key: &'static str) -> Section<'t> {
        let value = self.get(key).unwrap_or_else(|| self.absent(key));
        let name = value.key.clone();
        value.section().unwrap_or_else(|| Section {
            keys: keys::at(&name),
            value: self.absent(key),
            entries: &[],
        })
    }

    fn absent(&self, key: &'static str) -> Value<'t> {
        Value {
            tree: &Tree::Null,
            key: self.name(key),
            ..self.value.clone()
        }
    }

    /// Refuses the value of a key, if the section has it and it is not refused already.
    pub(super) fn refuse(&self, key: &'static str, reason: impl Into<String>) {
        if let Some(value) = self.get(key).filter(|_| self.is_sound(key)) {
            value.refuse::<()>(reason);
        }
    }

    /// False if the value of a key, or a part of it, was refused: what is compared with it would be compared with its
    /// default.
    pub(super) fn is_sound(&self, key: &'static str) -> bool {
        let name = self.name(key);
        let faults = self.value.faults.borrow();
        let is_below = |fault: &Fault| {
            let below = fault.key.strip_prefix(&name);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
        };
        !faults.iter().any(is_below)
    }

    /// A whole number in a range.
    pub(super) fn count<T>(&self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i128> + TryInto<i128> + Copy,
    {
        let wide = |bound: &T| (*bound).try_into().unwrap_or(i128::MAX);
        let range = wide(range.start())..=wide(range.end());
        let number = |tree: &Tree| match tree {
            Tree::Int(number) => Some(*number),
            _ => None,
        };
        let quoted = |value: &Value<'_>| {
            value
                .word()
                .is_some_and(|text| text.parse::<i128>().is_ok())
        };
        if let Some(value) = self.get(key).filter(quoted) {
            let refused = value.refuse("must be a whole number: remove the quotes");
            return refused.unwrap_or(default);
        }
        let count = self.ranged(key, "a whole number", number, range, |bound| {
            bound.to_string()
        });
        count
            .and_then(|count| T::try_from(count).ok())
            .unwrap_or(default)
    }

    /// A size in bytes, in a range.
    pub(super) fn size(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let what = "a size such as `256KiB`, `1MiB` or a number of bytes";
        let bytes = |tree: &Tree| match tree {
            Tree::Int(number) => Some(*number),
            Tree::Text(text) => parse_size(text).map(i128::from),
            _ => None,
        };
        let show = |bytes: i128| u64::try_from(bytes).map_or_else(|_| bytes.to_string(), show_size);
        let range = *range.start() as i128..=*range.end() as i128;
        let size = self.ranged(key, what, bytes, range, show);
        size.and_then(|size| usize::try_from(size).ok())
            .unwrap_or(default)
    }

    /// A duration from `least` to [`LONGEST`].
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        least: Duration,
    ) -> Duration {
        let what = "a whole number with the unit ms, s, m or h, such as `2s`";
        let duration = |tree: &Tree| match tree {
            Tree::Text(text) => parse_duration(text),
            _ => None,
        };
        let duration = self.ranged(key, what, duration, least..=LONGEST, show_duration);
        duration.unwrap_or(default)
    }

    /// The value of a key as `parse` reads it, in a range; none if it is absent or refused.
    fn ranged<T: PartialOrd + Copy>(
        &self,
        key: &'static str,
        what: &str,
        parse: impl Fn(&Tree) -> Option<T>,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        let value = self.get(key)?;
        let Some(is) = parse(value.tree) else {
            return value.wrong(what);
        };
        let (limit, bound) = if is < *range.start() {
            ("least", *range.start())
        } else if is > *range.end() {
            ("most", *range.end())
        } else {
            return Some(is);
        };
        let (bound, is) = (show(bound), show(is));
        value.refuse(format!("must be at {limit} {bound}, is {is}"))
    }

    /// A switch: `true` or `false`, or the words `on` and `off`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(value) if value.is_on() || value.is_off() => value.is_on(),
            Some(value) if value.is_word("true") || value.is_word("false") => {
                let refused = value.refuse("must be `true` or `false`: remove the quotes");
                refused.unwrap_or(default)
            }
            Some(value) => value.wrong("`true` or `false`").unwrap_or(default),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Clone>(
        &self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let Some(value) = self.get(key) else {
            return default;
        };
        let chosen = words.iter().find(|(name, _)| value.is_word(name));
        if let Some((_, chosen)) = chosen {
            return chosen.clone();
        }
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let what = format!("one of {}", names.join(", "));
        let refused = match value.word().and_then(|word| nearest(word, &names)) {
            Some(near) => {
                let is = value.shown();
                value.refuse(format!("must be {what}, is {is}, did you mean `{near}`?"))
            }
            None => value.wrong(&what),
        };
        refused.unwrap_or(default)
    }

    fn name(&self, key: &str) -> String {
        keys::join(&self.value.key, key)
    }
}

/// Text in back quotes, without control characters, without what may be a secret, and not without
/// end.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let start: String = text.chars().take(MOST).collect();
    let mut shown = one_line(&masked(&start));
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
