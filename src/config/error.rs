//! What is wrong with a configuration, in the words that an operator reads.

use std::error::Error;
use std::fmt;
use std::io;

use super::excerpt::Excerpt;

/// Why a configuration was refused: one error or more, in the order of the file. Errors that have no
/// line come first.
///
/// Its `Display` is made to be printed as it is. Each error has its line of text with a caret:
/// ```text
/// config/bowline.yaml:12:9: health.rise: must be at least 1, is 0
///   12 |   rise: 0
///      |         ^
/// ```
#[derive(Debug)]
pub struct ConfigErrors {
    pub(super) errors: Vec<ConfigError>,
    /// True if the reading stopped at the most errors that are shown.
    pub(super) stopped: bool,
    pub(super) source: Option<Source>,
}

/// One thing that is wrong with a configuration.
///
/// Its `Display` is one line without the text of the file:
/// `config/bowline.yaml:12:9: health.rise: must be at least 1, is 0`.
#[derive(Debug)]
pub struct ConfigError {
    pub(super) file: String,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) excerpt: Option<Excerpt>,
}

/// The error of another library that lies behind [`ConfigErrors`].
#[derive(Debug)]
pub(super) enum Source {
    Io(io::Error),
    Yaml(serde_yaml::Error),
}

impl ConfigErrors {
    /// The errors, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl ConfigError {
    /// The file's name as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of the error, from 1; none where something is missing from the file as a whole.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.excerpt.as_ref().map(|excerpt| excerpt.line)
    }

    /// The column of the error in characters, from 1; none without a line.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.excerpt.as_ref().map(|excerpt| excerpt.column)
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
        f.write_str(&one_line(&self.file))?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, ":{}:{}", excerpt.line, excerpt.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.errors.iter().enumerate() {
            let gap = if position > 0 { "\n" } else { "" };
            write!(f, "{gap}{error}")?;
            if let Some(excerpt) = &error.excerpt {
                write!(f, "\n{excerpt}")?;
            }
        }
        let (count, more) = (
            self.errors.len(),
            if self.stopped { " or more" } else { "" },
        );
        match &*self.errors {
            [first, _, ..] => write!(f, "\n{count} errors{more} in {}", one_line(&first.file)),
            _ => Ok(()),
        }
    }
}

impl Error for ConfigErrors {
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
