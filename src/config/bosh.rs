//! The section `bosh`, and what becomes of the attribute `host`: what the balancer takes and changes of
//! the protocol.

use super::check;
use super::defaults::HOST_ATTRIBUTE;
use super::read::{Section, Value};
use super::sections::{KIB, MIB, MOST_ENTRIES, texts};
use super::settings::{Bosh, CreationFrom, HostAttribute, QueryPolicy};

pub(super) const CREATION_FROM: [(&str, CreationFrom); 2] =
    [("strip", CreationFrom::Strip), ("pass", CreationFrom::Pass)];

pub(super) const QUERY: [(&str, QueryPolicy); 2] =
    [("drop", QueryPolicy::Drop), ("pass", QueryPolicy::Pass)];

/// The most names in `bosh.answer_headers`.
const MOST_ANSWER_HEADERS: usize = 16;

pub(super) fn bosh(section: &Section<'_>) -> Bosh {
    let default = Bosh::default();
    let paths = section.get("paths");
    let answer_headers = section.get("answer_headers");
    Bosh {
        paths: paths.map_or(default.paths, |value| {
            texts(&value, 1..=MOST_ENTRIES, check::path)
        }),
        max_body: section.size("max_body", default.max_body, KIB..=16 * MIB),
        max_answer: section.size("max_answer", default.max_answer, KIB..=64 * MIB),
        creation_from: section.choice("creation_from", default.creation_from, &CREATION_FROM),
        query: section.choice("query", default.query, &QUERY),
        answer_headers: answer_headers.map_or(default.answer_headers, |value| {
            texts(&value, 0..=MOST_ANSWER_HEADERS, check::answer_header)
        }),
    }
}

/// None if it is refused.
pub(super) fn host_attribute(value: Option<Value<'_>>) -> Option<HostAttribute> {
    let Some(value) = value else {
        return Some(HOST_ATTRIBUTE);
    };
    if value.is_word("strip") {
        return Some(HostAttribute::Strip);
    }
    if value.is_word("pass") {
        return Some(HostAttribute::Pass);
    }
    if value.is_word("rewrite") {
        let form = "needs a name: write `host_attribute: { rewrite: chat.example.com }`";
        return value.refuse(form);
    }
    if value.is_null() {
        return value.refuse("has no value");
    }
    let section = value.section_or("one of strip, pass, or a mapping with `rewrite`")?;
    let name = section.need("rewrite")?.ruled(check::host_name)?;
    Some(HostAttribute::Rewrite(name.into()))
}
