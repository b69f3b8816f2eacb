//! A strict reader of logfmt: `key=value` pairs with one space between them.
//!
//! The rules are those of the `go-logfmt` decoder, which Grafana Loki uses, without what it forgives: a
//! key has a value, no key comes twice, and quotes hold a JSON string.

use serde_json::{Map, Value};

use super::Result;

/// The fields of a log line, named as in the JSON form of the log.
///
/// # Errors
/// It is no logfmt, or does not begin with time, level and target.
pub(crate) fn read(line: &str) -> Result<Value> {
    let fault = |what: &str| format!("{what}: {line:?}");
    let mut fields = Map::new();
    let mut rest = line;
    let mut keys = Vec::new();
    loop {
        let (key, after) = rest.split_once('=').ok_or_else(|| fault("no `=`"))?;
        if !is_bare(key) {
            return Err(fault("a bad key").into());
        }
        let length = match after.strip_prefix('"') {
            Some(inside) => quoted(inside).ok_or_else(|| fault("an open quote"))? + 1,
            None => after.find(' ').unwrap_or(after.len()),
        };
        let (value, behind) = after.split_at(length);
        let value = if value.starts_with('"') {
            serde_json::from_str(value).map_err(|error| fault(&error.to_string()))?
        } else if is_bare(value) {
            bare(key, value)
        } else {
            return Err(fault("a bad value").into());
        };
        keys.push(key);
        let name = match key {
            "ts" => "timestamp",
            "msg" => "message",
            key => key,
        };
        if fields.insert(name.to_owned(), value).is_some() {
            return Err(fault("a key comes twice").into());
        }
        if behind.is_empty() {
            break;
        }
        rest = behind.strip_prefix(' ').ok_or_else(|| fault("no space"))?;
    }
    if !keys.starts_with(&["ts", "level", "target"]) {
        return Err(fault("not the first fields of a line").into());
    }
    let time = fields["timestamp"].as_str().unwrap_or_default();
    if !(time.len() == "2026-11-28T09:00:00.000000Z".len() && time.ends_with('Z')) {
        return Err(fault("no time").into());
    }
    let level = fields["level"].as_str().unwrap_or_default();
    if !["error", "warn", "info", "debug", "trace"].contains(&level) {
        return Err(fault("no level").into());
    }
    fields["level"] = level.to_uppercase().into();
    Ok(fields.into())
}

/// Whether a text may stand as a key, or as a value without quotes.
fn is_bare(text: &str) -> bool {
    let may = |c: char| c > ' ' && !c.is_control() && !matches!(c, '=' | '"' | '\\' | '\u{fffd}');
    !text.is_empty() && text.chars().all(may)
}

/// The length up to and with the quote that ends it.
fn quoted(inside: &str) -> Option<usize> {
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map(|end| end + 1)
}

/// A value without quotes: a number or a truth value, as far as it is one. The name of a session may have
/// digits alone.
fn bare(key: &str, value: &str) -> Value {
    let is_json = value.starts_with(|c: char| c.is_ascii_digit()) || value.parse::<bool>().is_ok();
    let typed = serde_json::from_str(value).ok();
    typed
        .filter(|_| is_json && key != "session")
        .unwrap_or_else(|| value.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const START: &str = "ts=2026-11-28T09:00:00.000000Z level=info target=a::b";

    #[test]
    fn fields_are_read() {
        let line = format!(r#"{START} msg="a \"b\"=\u001b" n=7 f=0.5 on=true session=123456 e="""#);
        let expected = json!({
            "timestamp": "2026-11-28T09:00:00.000000Z", "level": "INFO", "target": "a::b",
            "message": "a \"b\"=\u{1b}", "n": 7, "f": 0.5, "on": true, "session": "123456", "e": "",
        });
        assert_eq!(read(&line).unwrap(), expected);
    }

    #[test]
    fn what_is_no_logfmt_is_refused() {
        for end in [
            " x",
            " x=",
            " x= y=1",
            "  x=1",
            " x=1 ",
            " =1",
            " x=a\"b",
            " x=a=b",
            " x=\"a",
            " x=\"a\"b",
            " x=\"\\x\"",
            " x=\"\t\"",
            " x=\u{1b}",
            " level=info",
            " x=a\\b",
        ] {
            assert!(read(&format!("{START}{end}")).is_err(), "{end:?}");
        }
        for line in ["", "{}", "level=info ts=1", "ts=1 level=info target=x"] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}
