//! YAML as an untyped tree, and the way back from a place in the tree to its line.
//!
//! The YAML library tells a position only with an error. So the tree is built without positions, and
//! when something is wrong with a value, a second pass walks to that value and fails there on
//! purpose: the error then carries the line, in block style, in flow style and in lists alike.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde::{Deserialize, de};

/// How much a tree may hold: values, and bytes of their text. Without aliases a file comes nowhere
/// near; with them the YAML library alone would let 256 KiB become gigabytes.
const MOST: usize = 4 * super::MAX_FILE;

/// One YAML value. Mappings keep their order and their duplicates, for the reader to refuse.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    /// A number that is no integer, as text.
    Float(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// What the text of a file is.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// No YAML, or YAML past a bound of the library (depth, repetition of aliases).
    Yaml(serde_yaml::Error),
    /// More than one document; the line where the second one has its first value.
    Documents(Option<usize>),
}

/// Which side of a mapping's entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Key,
    Value,
}

/// Reads the one document that `text` must be.
pub(super) fn read(text: &str) -> Result<Tree, Unreadable> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Tree::Null);
    };
    let room = Cell::new(MOST);
    let tree = Grow(&room).deserialize(first);
    let tree = tree.map_err(Unreadable::Yaml)?;
    let Some(second) = documents.next() else {
        return Ok(tree);
    };
    // What cannot be read after the first document need not be a second one.
    IgnoredAny::deserialize(second).map_err(Unreadable::Yaml)?;
    let again = serde_yaml::Deserializer::from_str(text).nth(1);
    let line = again.and_then(|second| stop_at(Finder::new(&[], Side::Value), second));
    Err(Unreadable::Documents(line))
}

/// The line, from 1, of the place that `path` leads to: at each step the position among the entries
/// of a mapping or of a list. `side` says which side of the last step is meant.
pub(super) fn line_of(text: &str, path: &[usize], side: Side) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    stop_at(Finder::new(path, side), document)
}

fn stop_at(finder: Finder<'_>, document: serde_yaml::Deserializer<'_>) -> Option<usize> {
    let stopped = finder.deserialize(document).err()?;
    stopped.location().map(|location| location.line())
}

/// Reads a tree, as long as there is room for it.
#[derive(Clone, Copy)]
struct Grow<'r>(&'r Cell<usize>);

impl Grow<'_> {
    /// Takes the room of a value with so many bytes of text.
    fn take<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(1 + bytes);
        self.0.set(left.ok_or_else(|| {
            E::custom("its aliases stand for more than a configuration may hold")
        })?);
        Ok(())
    }

    fn leaf<E: de::Error>(self, leaf: Tree) -> Result<Tree, E> {
        let bytes = match &leaf {
            Tree::Text(text) | Tree::Float(text) => text.len(),
            _ => 0,
        };
        self.take(bytes)?;
        Ok(leaf)
    }
}

impl<'de> DeserializeSeed<'de> for Grow<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Grow<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        self.leaf(Tree::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        self.leaf(Tree::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        self.leaf(Tree::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        self.leaf(Tree::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        self.leaf(Tree::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Tree, E> {
        self.leaf(Tree::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Tree, E> {
        let int = i128::try_from(value);
        self.leaf(int.map_or_else(|_| Tree::Float(value.to_string()), Tree::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        self.leaf(Tree::Float(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        self.leaf(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        self.take(0)?;
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        self.take(0)?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            entries.push((key.into_key(), map.next_value_seed(self)?));
        }
        Ok(Tree::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Tree, A::Error> {
        Err(A::Error::custom("tags (`!name`) have no meaning here"))
    }
}

impl Tree {
    /// A key as text; one that is no word is written so that no known key can equal it.
    fn into_key(self) -> String {
        match self {
            Tree::Text(text) | Tree::Float(text) => text,
            Tree::Int(number) => number.to_string(),
            Tree::Bool(value) => value.to_string(),
            Tree::Null => "~".to_owned(),
            Tree::List(_) => "[...]".to_owned(),
            Tree::Map(_) => "{...}".to_owned(),
        }
    }
}

/// Walks along a path and fails at its end.
struct Finder<'p> {
    path: &'p [usize],
    side: Side,
}

impl<'p> Finder<'p> {
    fn new(path: &'p [usize], side: Side) -> Self {
        Self { path, side }
    }
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            deserializer.deserialize_any(Stop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value on the way to another")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if let Some((position, rest)) = self.path.split_first() {
            for _ in 0..*position {
                seq.next_element::<IgnoredAny>()?;
            }
            seq.next_element_seed(Finder::new(rest, self.side))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some((position, rest)) = self.path.split_first() {
            for _ in 0..*position {
                map.next_entry::<IgnoredAny, IgnoredAny>()?;
            }
            if rest.is_empty() && self.side == Side::Key {
                map.next_key_seed(Finder::new(rest, self.side))?;
            } else if map.next_key::<IgnoredAny>()?.is_some() {
                map.next_value_seed(Finder::new(rest, self.side))?;
            }
        }
        Ok(())
    }
}

/// Refuses every value there is, so that the error tells where it stands.
struct Stop;

impl<'de> Visitor<'de> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place looked for")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("the place looked for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a: 1\nb:\n  - x\n  - { c: 2,\n      d: 3 }\n\n# note\ne: {\n  f: [1,\n  2]}\ng:\n";

    #[test]
    fn lines_are_found_in_both_styles() {
        let line = |path: &[usize], side| line_of(TEXT, path, side);
        assert_eq!(line(&[0], Side::Key), Some(1));
        assert_eq!(line(&[1], Side::Key), Some(2));
        assert_eq!(line(&[1, 0], Side::Value), Some(3));
        assert_eq!(line(&[1, 1, 0], Side::Value), Some(4));
        assert_eq!(line(&[1, 1, 1], Side::Key), Some(5));
        assert_eq!(line(&[1, 1, 1], Side::Value), Some(5));
        assert_eq!(line(&[2], Side::Key), Some(8));
        assert_eq!(line(&[2, 0, 1], Side::Value), Some(10));
        assert_eq!(line(&[3], Side::Value), Some(11));
    }

    #[test]
    fn a_path_to_nowhere_has_no_line() {
        assert_eq!(line_of("a: 1", &[7, 7], Side::Key), None);
    }

    #[test]
    fn duplicates_and_order_are_kept() {
        let tree = read("b: 1\na: x\nb: ~\n").expect("YAML");
        let entry = |key: &str, value| (key.to_owned(), value);
        assert_eq!(
            tree,
            Tree::Map(vec![
                entry("b", Tree::Int(1)),
                entry("a", Tree::Text("x".to_owned())),
                entry("b", Tree::Null),
            ])
        );
    }

    #[test]
    fn no_text_is_no_value() {
        assert_eq!(read("").expect("YAML"), Tree::Null);
        assert_eq!(read("# only a note\n").expect("YAML"), Tree::Null);
    }
}
