//! The section `bosh`, and what becomes of the attribute `host`: what the balancer takes and changes of
//! the protocol.

use super::check;
use super::defaults::HOST_ATTRIBUTE;
use super::read::{Fault, Section, Value};
use super::sections::{KIB, MIB, texts};
use super::settings::{Bosh, CreationFrom, HostAttribute};

const CREATION_FROM: [(&str, CreationFrom); 2] =
    [("strip", CreationFrom::Strip), ("pass", CreationFrom::Pass)];

pub(super) fn bosh(section: &Section<'_>) -> Result<Bosh, Fault> {
    let default = Bosh::default();
    Ok(Bosh {
        paths: match section.get("paths") {
            Some(value) => paths(&value)?,
            None => default.paths,
        },
        max_body: section.size("max_body", default.max_body, KIB..=16 * MIB)?,
        max_answer: section.size("max_answer", default.max_answer, KIB..=64 * MIB)?,
        creation_from: section.choice("creation_from", default.creation_from, &CREATION_FROM)?,
    })
}

pub(super) fn host_attribute(value: Option<Value<'_>>) -> Result<HostAttribute, Fault> {
    const FORM: &str = "one of strip, pass, or a mapping with `rewrite`";
    let Some(value) = value else {
        return Ok(HOST_ATTRIBUTE);
    };
    match value.text() {
        Ok("strip") => return Ok(HostAttribute::Strip),
        Ok("pass") => return Ok(HostAttribute::Pass),
        Ok("rewrite") => {
            let form = "needs a name: write `host_attribute: { rewrite: chat.example.com }`";
            return Err(value.fault(form));
        }
        _ if value.is_null() => return Err(value.fault("has no value")),
        _ => {}
    }
    let section = value.section_or(FORM)?;
    let name = section.need("rewrite")?;
    let text = name.text()?;
    check::host_name(text).map_err(|must| name.must(must))?;
    Ok(HostAttribute::Rewrite(text.into()))
}

fn paths(value: &Value<'_>) -> Result<Vec<String>, Fault> {
    let paths = texts(value, check::path)?;
    if paths.is_empty() {
        return Err(value.fault("must have at least one entry"));
    }
    Ok(paths)
}
