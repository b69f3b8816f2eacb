//! Which prefixes are in scope, and what they mean (Namespaces in XML 1.0).
//!
//! Owns the prefixes only. The default namespace of children is never tracked: it decides neither
//! whether an attribute is a duplicate nor whether a prefix is declared.

use std::borrow::Cow;

use super::malformed::Malformed;

/// At most this many prefixes in scope at once, so that looking one up has a bounded cost.
const MAX_PREFIXES: usize = 64;

const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// A namespace by number: equal numbers are equal namespaces, as long as both are in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespace(usize);

impl Namespace {
    /// Of an attribute without a prefix.
    pub(super) const NONE: Self = Self(usize::MAX);
    /// Of `xml:lang` and its kin.
    const XML: Self = Self(usize::MAX - 1);
    /// Of the declarations themselves.
    pub(super) const XMLNS: Self = Self(usize::MAX - 2);
}

/// A prefix, and the depth of the element that declares it.
#[derive(Debug)]
struct Binding<'a> {
    prefix: &'a str,
    name: Cow<'a, str>,
    namespace: Namespace,
    depth: usize,
}

/// The prefixes in scope, innermost last.
#[derive(Debug, Default)]
pub(super) struct Scopes<'a> {
    bindings: Vec<Binding<'a>>,
}

impl<'a> Scopes<'a> {
    /// Takes `xmlns:prefix='name'` of an element at `depth`.
    pub(super) fn declare(
        &mut self,
        prefix: &'a str,
        name: Cow<'a, str>,
        depth: usize,
    ) -> Result<(), Malformed> {
        match prefix {
            "xml" if name == XML => return Ok(()),
            "xml" | "xmlns" => return Err(Malformed::BadNamespace),
            _ if name.is_empty() => return Err(Malformed::BadNamespace),
            _ => check_default(&name)?,
        }
        if self.bindings.len() >= MAX_PREFIXES {
            return Err(Malformed::TooManyNamespaces);
        }
        // The first binding of that name outlives this one, so its place can be their number.
        let same = |binding: &Binding<'_>| binding.name == name;
        let first = self.bindings.iter().position(same);
        self.bindings.push(Binding {
            prefix,
            name,
            namespace: Namespace(first.unwrap_or(self.bindings.len())),
            depth,
        });
        Ok(())
    }

    /// What a prefix stands for; the empty one means no namespace, as it does for attributes.
    pub(super) fn resolve(&self, prefix: &str) -> Result<Namespace, Malformed> {
        match prefix {
            "" => return Ok(Namespace::NONE),
            "xml" => return Ok(Namespace::XML),
            "xmlns" => return Ok(Namespace::XMLNS),
            _ => {}
        }
        let mut inner_first = self.bindings.iter().rev();
        inner_first
            .find(|binding| binding.prefix == prefix)
            .map(|binding| binding.namespace)
            .ok_or(Malformed::UndeclaredPrefix)
    }

    /// The name of a namespace that a declaration made; empty for the built-in ones.
    pub(super) fn name(&self, namespace: Namespace) -> &str {
        self.bindings
            .get(namespace.0)
            .map_or("", |binding| &binding.name)
    }

    /// Forgets what the element at `depth` declared.
    pub(super) fn leave(&mut self, depth: usize) {
        while self.bindings.last().is_some_and(|last| last.depth >= depth) {
            self.bindings.pop();
        }
    }
}

/// Refuses a default namespace that only the prefixes `xml` and `xmlns` may have.
pub(super) fn check_default(name: &str) -> Result<(), Malformed> {
    if name == XML || name == XMLNS {
        return Err(Malformed::BadNamespace);
    }
    Ok(())
}
