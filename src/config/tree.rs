//! YAML as an untyped tree, and the way back from a value in the tree to its place in the text.
//!
//! The YAML library gives a position only with an error. So the tree numbers its values in the order in
//! which they are read. To find a place, the text is read again along the branch that has that number,
//! and the reading fails there on purpose: the error carries the position, in block style and in flow
//! style alike.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// How much a tree may hold: values, and bytes of their text. Without aliases a file comes nowhere
/// near; with them the YAML library alone would let 256 KiB become gigabytes.
const MOST: usize = 4 * super::MAX_FILE;

/// Words for what is YAML and no configuration. The library puts the path in front.
pub(super) const ALIASES: &str = "its aliases stand for more than a configuration may hold";
pub(super) const TAGS: &str = "tags (`!name`) have no meaning here";

/// One YAML value with its number, from 0 for the whole document. Keys have numbers too.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) tree: Tree,
}

/// What a value is. Mappings keep their order and their duplicates, for the reader to refuse.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    /// A number that is no integer, as text.
    Float(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a mapping: its key, the number of the key, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) number: usize,
    pub(super) value: Node,
}

/// Why a text is no tree.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// No YAML, or YAML past a bound: depth, or what aliases stand for.
    Yaml(serde_yaml::Error),
    /// More than one document; the offset of the second one's first value.
    Documents(Option<usize>),
}

/// Reads the one document that `text` must be.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Node {
            number: 0,
            tree: Tree::Null,
        });
    };
    let bounds = Bounds {
        room: Cell::new(MOST),
        next: Cell::new(0),
    };
    let tree = Grow(&bounds).deserialize(first);
    let tree = tree.map_err(Unreadable::Yaml)?;
    let Some(second) = documents.next() else {
        return Ok(tree);
    };
    // What cannot be read behind the first document need not be a second one.
    IgnoredAny::deserialize(second).map_err(Unreadable::Yaml)?;
    Err(Unreadable::Documents(stop(
        text,
        1,
        Seek {
            node: None,
            number: 0,
        },
    )))
}

/// The offset, in bytes, at which the value with this number begins in the text of which `root` was
/// read. What stands for an alias begins at its anchor.
pub(super) fn offset(text: &str, root: &Node, number: usize) -> Option<usize> {
    let node = Some(root);
    stop(text, 0, Seek { node, number })
}

fn stop(text: &str, document: usize, seek: Seek<'_>) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).nth(document)?;
    let stopped = seek.deserialize(document).err()?;
    stopped.location().map(|location| location.index())
}

/// What the values of one document share while it is read.
struct Bounds {
    room: Cell<usize>,
    next: Cell<usize>,
}

/// Reads a tree within bounds.
#[derive(Clone, Copy)]
struct Grow<'b>(&'b Bounds);

impl Grow<'_> {
    /// Takes the number of a value, and room for the bytes of its text.
    fn take<E: de::Error>(self, bytes: usize) -> Result<usize, E> {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        let left = self.0.room.get().checked_sub(1 + bytes);
        self.0.room.set(left.ok_or_else(|| E::custom(ALIASES))?);
        Ok(number)
    }

    fn leaf<E: de::Error>(self, tree: Tree) -> Result<Node, E> {
        let bytes = match &tree {
            Tree::Text(text) | Tree::Float(text) => text.len(),
            _ => 0,
        };
        let number = self.take(bytes)?;
        Ok(Node { number, tree })
    }
}

impl<'de> DeserializeSeed<'de> for Grow<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Grow<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Tree::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Tree::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Tree::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Tree::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Tree::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Tree::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        let int = i128::try_from(value);
        self.leaf(int.map_or_else(|_| Tree::Float(value.to_string()), Tree::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Tree::Float(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.leaf(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let number = self.take(0)?;
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            list.push(item);
        }
        let tree = Tree::List(list);
        Ok(Node { number, tree })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let number = self.take(0)?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            entries.push(Entry {
                key: key.tree.into_key(),
                number: key.number,
                value: map.next_value_seed(self)?,
            });
        }
        let tree = Tree::Map(entries);
        Ok(Node { number, tree })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom(TAGS))
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

/// Walks to the value with a number and fails there. Other branches are passed over, and so are the
/// aliases in them.
#[derive(Clone, Copy)]
struct Seek<'n> {
    /// What is read here; none for a key and what else has nothing to look for in it.
    node: Option<&'n Node>,
    number: usize,
}

impl<'n> Seek<'n> {
    /// The tree in which to look on; none at the place itself.
    fn inside<E: de::Error>(self) -> Result<&'n Tree, E> {
        let node = self.node.filter(|node| node.number < self.number);
        node.map(|node| &node.tree)
            .ok_or_else(|| E::custom("the place looked for"))
    }

    fn at(self, node: Option<&'n Node>) -> Self {
        Self { node, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A word is refused by serde itself.
impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place looked for")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Tree::List(items) = self.inside()? else {
            return Ok(());
        };
        let behind = items.partition_point(|item| item.number <= self.number);
        for _ in 1..behind {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(self.at(items[..behind].last()))?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Tree::Map(entries) = self.inside()? else {
            return Ok(());
        };
        let behind = entries.partition_point(|entry| entry.number <= self.number);
        for _ in 1..behind {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        let value = entries[..behind].last().map(|entry| &entry.value);
        let value = value.filter(|value| value.number <= self.number);
        if value.is_none() {
            map.next_key_seed(self.at(None))?;
        } else if map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self.at(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_both_styles() {
        const TEXT: &str =
            "a: 1\nb:\n  - é\n  - { c: 2,\n      d: 3 }\n\n# note\ne: {\n  f: [1,\n  2]}\ng:\n";
        let tree = read(TEXT).expect("YAML");
        // In the order of reading: the document, then keys and values.
        let begin = [
            "a: 1", "a: 1", "1\n", "b:", "- é", "é", "{ c", "c:", "2,", "d:", "3 }", "e:", "{\n",
            "f:", "[1", "1,", "2]", "g:", "",
        ];
        for (number, begin) in begin.iter().enumerate() {
            let found = offset(TEXT, &tree, number).expect(begin);
            assert!(TEXT[found..].starts_with(begin), "{number}: {found}");
        }
    }

    #[test]
    fn duplicates_and_order_are_kept() {
        let Tree::Map(entries) = read("b: 1\na: x\nb: ~\n").expect("YAML").tree else {
            panic!("no mapping");
        };
        let shown: Vec<_> = entries.iter().map(|e| (&*e.key, &e.value.tree)).collect();
        let text = Tree::Text("x".to_owned());
        let expected = [("b", &Tree::Int(1)), ("a", &text), ("b", &Tree::Null)];
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_text_is_no_value() {
        assert_eq!(read("").expect("YAML").tree, Tree::Null);
        assert_eq!(read("# only a note\n").expect("YAML").tree, Tree::Null);
    }
}
