//! Exit codes, as `sysexits.h` numbers them, so that a service manager can tell causes apart.

use std::process::ExitCode;

/// The command did what it was asked for.
pub const OK: ExitCode = ExitCode::SUCCESS;
/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// `status`: new sessions have a node, but not all is well.
pub const DEGRADED: u8 = 1;
/// `status`: no node takes new sessions.
pub const DOWN: u8 = 2;
/// The balancer that was asked does not answer (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A defect of the program (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// The operating system refused something: a port in use, no permission to bind, no more threads
/// (`EX_OSERR`).
pub const OS: u8 = 71;
/// Input or output failed, such as a pipe that the reader closed (`EX_IOERR`).
pub const IO: u8 = 74;
/// The balancer refuses a change that would leave no node for new sessions (`EX_TEMPFAIL`).
pub const REFUSED: u8 = 75;
/// What answers is no balancer that this program understands (`EX_PROTOCOL`).
pub const PROTOCOL: u8 = 76;
/// The balancer wants a token, or another one (`EX_NOPERM`).
pub const FORBIDDEN: u8 = 77;
/// The configuration is missing, unreadable or wrong (`EX_CONFIG`). Starting again without a change
/// of the file cannot help.
pub const CONFIG: u8 = 78;
