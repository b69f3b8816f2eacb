//! `bowline demo`: a cluster of simulated nodes with the balancer before it, in one process.

use std::process::ExitCode;

use super::exit;

/// Starts the demo and keeps it running until a signal ends it.
#[must_use]
pub fn demo() -> ExitCode {
    eprintln!("this build has no demo yet");
    exit::SOFTWARE.into()
}
