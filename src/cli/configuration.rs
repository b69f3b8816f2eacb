//! `bowline config show` and `bowline config schema`: the configuration as Bowline understands it.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::{exit, refuse};
use crate::config;

/// Prints the settings of a file with every default, as YAML that `run` takes; no secret is in it.
#[must_use]
pub fn show(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(settings) => print(&config::show(&settings)),
        Err(errors) => refuse(&errors),
    }
}

/// Prints the JSON Schema of a configuration file.
#[must_use]
pub fn schema() -> ExitCode {
    print(&format!("{:#}\n", config::schema()))
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit::OK,
        Err(_) => exit::IO.into(),
    }
}
