//! What is wrong with a configuration, in the words that an operator reads.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a configuration was refused.
///
/// Its `Display` is one line, made to be printed as it is:
/// `config/bowline.yaml:12: health.rise: must be at least 1, is 0`. Of several faults in a file it
/// names one.
#[derive(Debug)]
pub struct ConfigError {
    pub(super) file: String,
    pub(super) line: Option<usize>,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) source: Option<Source>,
}

/// The error of another library that lies behind a [`ConfigError`].
#[derive(Debug)]
pub(super) enum Source {
    Io(io::Error),
    Yaml(serde_yaml::Error),
}

impl ConfigError {
    /// The file's name as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of the fault, from 1; none where the fault is that something is missing from the
    /// file as a whole.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The key at fault, such as `nodes[1].weight` (list entries count from 0); empty for the file
    /// as a whole.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong, without file, line and key.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.source.as_ref()? {
            Source::Io(error) => Some(error),
            Source::Yaml(error) => Some(error),
        }
    }
}

/// `text` with its control characters escaped. Others wrote it, a YAML library that quotes keys as they
/// stand or whoever answers on a port, and it is for the operator to read, not for the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
