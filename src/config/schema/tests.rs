//! The schema against the parser: each takes what the other takes, as far as a schema can tell.

use super::super::keys::keys;
use super::super::show::{show, tests::files_of};
use super::*;

/// What is wrong with a value; nothing if the schema takes it. The keywords that are not known here
/// must not be in the schema.
fn faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let number = value.as_i64();
    let length = value.as_str().map(|text| text.chars().count() as u64);
    let items = value.as_array();
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "null" => value.is_null(),
                other => panic!("type {other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => {
                let mut kinds = rule.as_array().unwrap().iter();
                kinds.any(|kind| self::faults(kind, value, place).is_empty())
            }
            "minimum" => number.is_none_or(|number| number >= rule.as_i64().unwrap()),
            "maximum" => number.is_none_or(|number| number <= rule.as_i64().unwrap()),
            "minLength" => length.is_none_or(|length| length >= rule.as_u64().unwrap()),
            "minItems" => items.is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => items.is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "pattern" => value
                .as_str()
                .is_none_or(|text| fits(rule.as_str().unwrap(), text)),
            "items" => {
                for item in items.into_iter().flatten() {
                    faults.extend(self::faults(rule, item, &format!("{place}[]")));
                }
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let place = keys::join(place, key);
                    match rule.get(key) {
                        Some(rule) => faults.extend(self::faults(rule, value, &place)),
                        None => faults.push(format!("{place} is unknown")),
                    }
                }
                true
            }
            "additionalProperties" => rule == false,
            "required" => value.as_object().is_none_or(|map| {
                let mut needed = rule.as_array().unwrap().iter();
                needed.all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            other => panic!("the keyword {other}"),
        };
        if !good {
            faults.push(format!("{place}: {keyword} {rule}: {value}"));
        }
    }
    faults
}

/// The patterns of the schema, read without an engine for them.
fn fits(pattern: &str, text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let starts = digits.len() < text.len();
    match pattern {
        DURATION => starts && ["ms", "s", "m", "h"].contains(&digits),
        SIZE => starts && ["", "KiB", "MiB"].contains(&digits),
        "^0[0-7]{3}$" => {
            text.len() == 4 && text.starts_with('0') && u32::from_str_radix(text, 8).is_ok()
        }
        "^[0-9A-Fa-f]{32}$" => text.len() == 32 && u128::from_str_radix(text, 16).is_ok(),
        "^query:[A-Za-z0-9._~-]{1,64}$" => text.strip_prefix("query:").is_some_and(|name| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
            (1..=64).contains(&name.len()) && name.chars().all(known)
        }),
        other => panic!("the pattern {other}"),
    }
}

fn json_of(yaml: &str) -> Option<Value> {
    serde_yaml::from_str(yaml.trim_start_matches('\u{feff}')).ok()
}

/// Every value in the schema with its path.
fn values(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    found.push((path.to_owned(), schema.clone()));
    for kind in schema["anyOf"].as_array().into_iter().flatten() {
        values(kind, path, found);
    }
    if let Some(items) = schema.get("items") {
        values(items, &format!("{path}[]"), found);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        values(value, &keys::join(path, key), found);
    }
}

fn all_values() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    values(&schema(), "", &mut found);
    found
}

#[test]
fn every_key_has_a_kind_and_a_description() {
    for key in keys() {
        assert!(value(&key, &[]).is_some(), "{key} is missing in `value`");
        let description = description(&key).unwrap_or_default();
        assert!(!description.is_empty(), "{key}");
        assert!(
            !description.contains("](") && !description.contains('|'),
            "{description}"
        );
    }
    let known: Vec<String> = keys().collect();
    for key in REQUIRED {
        assert!(known.iter().any(|known| known == key), "{key}");
    }
}

#[test]
fn defaults_are_those_of_the_settings() {
    let default = |path: &str| {
        let found = all_values()
            .into_iter()
            .find(|(other, value)| other == path && value.get("default").is_some());
        found
            .map(|(_, value)| value["default"].clone())
            .unwrap_or_default()
    };
    for (path, expected) in [
        ("health.rise", json!(2)),
        ("bosh.max_body", json!("1MiB")),
        ("cors.origins", json!(["*"])),
        ("websocket.idle", json!("1m")),
        ("nodes[].weight", json!(1)),
        ("snapshot", json!("off")),
        ("snapshot.interval", json!("5s")),
        ("threads", Value::Null),
        ("nodes", Value::Null),
        ("nodes[].public_url", Value::Null),
    ] {
        assert_eq!(default(path), expected, "{path}");
    }
}

#[test]
fn good_files_are_taken() {
    let schema = schema();
    let folders = ["config", "tests/config/valid", "deploy/docker"];
    let mut files: Vec<_> = folders.into_iter().flat_map(files_of).collect();
    files.retain(|(name, text)| !name.ends_with("compose.yaml") && parse(text, name).is_ok());
    assert!(files.len() >= 11, "{}", files.len());
    for (name, text) in files {
        let shown = show(&parse(&text, &name).unwrap());
        for text in [&text, &shown] {
            let faults = faults(&schema, &json_of(text).unwrap(), "");
            assert!(faults.is_empty(), "{name}: {faults:?}\n{text}");
        }
    }
}

/// Unknown and missing keys, and what is out of its range or of another kind.
#[test]
fn what_a_schema_can_tell_is_refused() {
    let schema = schema();
    let (mut unknown, mut refused, mut taken) = (0, 0, Vec::new());
    for (name, text) in files_of("tests/config/invalid") {
        let Some(json) = json_of(&text) else { continue };
        let faults = faults(&schema, &json, "");
        if text.contains("unknown key") && !text.contains("\n<<") {
            unknown += 1;
            assert!(!faults.is_empty(), "{name}");
        }
        if faults.is_empty() {
            taken.push(name);
        } else {
            refused += 1;
        }
    }
    assert!(unknown >= 10, "{unknown}");
    assert!(
        refused > taken.len(),
        "{refused} refused, taken: {taken:#?}"
    );
}

/// The file with this value at a path, and what else it needs.
fn with(path: &str, value: Value) -> String {
    let mut file = json_of(PLAIN).unwrap();
    let mut place = &mut file;
    for part in path.split('.') {
        let key = part.trim_end_matches("[]");
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
        if key != part {
            if !place.is_array() {
                *place = json!([{}]);
            }
            place = &mut place[0];
        }
    }
    *place = value;
    file.to_string()
}

/// What the parser says of a value at a path: of its kind or range alone, or anything.
fn said(path: &str, value: Value, of_its_kind: bool) -> Vec<String> {
    let Err(errors) = parse(&with(path, value), "f") else {
        return Vec::new();
    };
    let kinds = [
        "must be at",
        "must be one",
        "must have at",
        "must be a whole",
        "must be a size",
    ];
    errors
        .iter()
        .filter(|error| error.key().replace("[0]", "[]") == path)
        .map(|error| error.reason().to_owned())
        .filter(|reason| !of_its_kind || kinds.iter().any(|kind| reason.starts_with(kind)))
        .collect()
}

#[test]
fn ranges_and_words_are_those_of_the_parser() {
    let mut compared = 0;
    for (path, kind) in all_values() {
        // Octal.
        if path == "listen[].mode" {
            continue;
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        if let (Some(least), Some(most)) = (kind["minimum"].as_i64(), kind["maximum"].as_i64()) {
            good.extend([json!(least), json!(most)]);
            bad.extend([json!(least - 1), json!(most + 1)]);
        }
        if let (Some(least), Some(most)) = (kind["minItems"].as_u64(), kind["maxItems"].as_u64()) {
            good.push(vec![json!("/a"); most as usize].into());
            bad.push(vec![json!("/a"); most as usize + 1].into());
            if least > 0 {
                bad.push(json!([]));
            }
        }
        for word in kind["enum"].as_array().into_iter().flatten() {
            good.push(word.clone());
            bad.push("another-word".into());
        }
        match kind["pattern"].as_str() {
            Some(DURATION) => {
                good.push("1s".into());
                bad.push("1d".into());
            }
            Some(SIZE) => {
                good.push("2MiB".into());
                bad.push("2MB".into());
            }
            _ => {}
        }
        compared += good.len();
        for value in good {
            let said = said(&path, value.clone(), true);
            assert!(said.is_empty(), "{path}: {value}: {said:?}");
        }
        for value in bad {
            let told = said(&path, value.clone(), false);
            assert!(!told.is_empty(), "{path}: {value} is taken");
        }
    }
    assert!(compared >= 100, "{compared}");
}
