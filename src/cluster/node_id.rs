//! The number of a node, and the share of its weight that it has.

/// A node's number: the same for a name as long as the process lives. Small, so that a pin can hold
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The number, as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How much of its weight a node has: all of it, or less for a while after it came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

impl Share {
    /// All of its weight.
    pub const WHOLE: Self = Self(1000);

    /// As a part of the whole.
    pub fn as_part(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}
