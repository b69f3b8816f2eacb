//! How fast sessions whose node is gone are released.

use std::num::NonZeroU32;

/// How fast sessions whose node is gone may log in elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LandingMode {
    /// As fast as the surviving nodes log clients in.
    Auto,
    /// All at once.
    Off,
    /// This many in a second; 1 to 100 000.
    PerSecond(NonZeroU32),
}
