//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Gives the memory of a burst of logins back, and takes less time than the system's: see
/// docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bowline::cli::main()
}
