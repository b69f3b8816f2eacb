//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Returns the memory of a burst of logins to the system, and uses less CPU time than the system's
/// allocator (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bowline::cli::main()
}
