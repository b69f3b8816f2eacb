//! The pieces of a tree of YAML.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde_yaml::{Mapping, Value};

use super::super::units::{show_duration, show_size};

/// A mapping that is put together.
pub(super) struct Map(Mapping);

impl Map {
    pub(super) fn new() -> Self {
        Self(Mapping::new())
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    pub(super) fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Mapping(map.0)
    }
}

/// The word for a value, from the table by which it is read.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    let found = words.iter().find(|(_, other)| other == value);
    found.map_or("", |(word, _)| word)
}

pub(super) fn list<T, V: Into<Value>>(items: &[T], show: impl Fn(&T) -> V) -> Value {
    Value::Sequence(items.iter().map(|item| show(item).into()).collect())
}

pub(super) fn texts(items: &[String]) -> Value {
    list(items, text)
}

pub(super) fn networks(items: &[IpNet]) -> Value {
    list(items, text)
}

pub(super) fn or_off<T>(section: Option<&T>, show: impl Fn(&T) -> Map) -> Value {
    section.map_or_else(|| "off".into(), |section| show(section).into())
}

pub(super) fn text(value: &impl Display) -> Value {
    value.to_string().into()
}

pub(super) fn path(path: &Path) -> Value {
    text(&path.display())
}

pub(super) fn duration(duration: Duration) -> Value {
    show_duration(duration).into()
}

pub(super) fn size(bytes: usize) -> Value {
    show_size(bytes as u64).into()
}
