//! From a file's bytes to settings, and from a fault to the line it stands on.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::error::{ConfigError, Source};
use super::read::{Fault, Value};
use super::sections;
use super::settings::Settings;
use super::tree::{self, Tree, Unreadable};

/// The largest configuration file, in bytes: 1 MiB, several times what 1024 nodes need.
pub const MAX_FILE: usize = 1024 * 1024;

/// The deepest nesting of brackets; a configuration needs two. The YAML library's time grows with
/// the square of it.
const MAX_BRACKETS: usize = 64;

/// Reads the configuration file at `path`.
///
/// # Errors
/// The first fault found: the file cannot be read, is no YAML, or says something that it may not.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| ConfigError {
            reason: format!("cannot be read: {error}"),
            source: Some(Source::Io(error)),
            ..whole_file(&name)
        })?;
    check_size(bytes.len(), &name)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            Err(ConfigError {
                line: Some(line),
                reason: "is not UTF-8".to_owned(),
                ..whole_file(&name)
            })
        }
    }
}

/// Reads a configuration from its text; `name` stands for the file in messages.
///
/// # Errors
/// The first fault found, with the line it stands on.
pub fn parse(text: &str, name: &str) -> Result<Settings, ConfigError> {
    check_size(text.len(), name)?;
    check_brackets(text, name)?;
    let tree = tree::read(text).map_err(|unreadable| not_yaml(unreadable, name))?;
    if tree == Tree::Null {
        return Err(ConfigError {
            reason: "is empty: `listen` and `nodes` are required".to_owned(),
            ..whole_file(name)
        });
    }
    Value::root(&tree)
        .section()
        .and_then(|root| sections::settings(&root))
        .map_err(|fault| located(fault, text, name))
}

fn located(fault: Fault, text: &str, name: &str) -> ConfigError {
    let line = if fault.way.is_empty() {
        None
    } else {
        tree::line_of(text, &fault.way, fault.side)
    };
    ConfigError {
        line,
        key: fault.key,
        reason: fault.reason,
        ..whole_file(name)
    }
}

fn not_yaml(unreadable: Unreadable, name: &str) -> ConfigError {
    match unreadable {
        Unreadable::Yaml(error) => ConfigError {
            line: error.location().map(|location| location.line()),
            reason: format!("cannot be read as YAML: {error}"),
            source: Some(Source::Yaml(error)),
            ..whole_file(name)
        },
        Unreadable::Documents(line) => ConfigError {
            line,
            reason: "a second YAML document begins here; one is allowed".to_owned(),
            ..whole_file(name)
        },
    }
}

fn check_size(bytes: usize, name: &str) -> Result<(), ConfigError> {
    if bytes <= MAX_FILE {
        return Ok(());
    }
    Err(ConfigError {
        reason: "is larger than 1MiB".to_owned(),
        ..whole_file(name)
    })
}

/// Refuses text with brackets open without end, wherever they stand: also in a note or in quotes,
/// where nothing of the kind is ever needed.
fn check_brackets(text: &str, name: &str) -> Result<(), ConfigError> {
    let mut open = 0usize;
    for (index, line) in text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        if open > MAX_BRACKETS {
            return Err(ConfigError {
                line: Some(index + 1),
                reason: format!("more than {MAX_BRACKETS} brackets are open here"),
                ..whole_file(name)
            });
        }
    }
    Ok(())
}

fn whole_file(name: &str) -> ConfigError {
    ConfigError {
        file: name.to_owned(),
        line: None,
        key: String::new(),
        reason: String::new(),
        source: None,
    }
}
