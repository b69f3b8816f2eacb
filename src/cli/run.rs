//! `bowline run --config FILE`: serve until a signal ends it.

use std::path::Path;
use std::process::ExitCode;

use super::{exit, logging};
use crate::config;

/// Reads the configuration, starts logging and serves.
#[must_use]
pub fn run(config: &Path) -> ExitCode {
    let settings = match config::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return exit::CONFIG.into();
        }
    };
    if let Err(error) = logging::init(&settings.log) {
        eprintln!("{error}");
        return exit::CONFIG.into();
    }
    tracing::error!("this build has no server yet");
    exit::UNAVAILABLE.into()
}
