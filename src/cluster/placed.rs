//! Creations under way, as load of the nodes that they were placed at.

use std::sync::atomic::Ordering;

use super::{Node, NodeId};

/// A new session that was placed at a node and is not pinned there yet: it counts as the node's
/// load until this is dropped, so that many creations at once spread.
#[derive(Debug)]
#[must_use = "a placement counts while this is kept"]
pub struct Placed<'a>(&'a Node);

impl<'a> Placed<'a> {
    pub(super) fn at(node: &'a Node) -> Self {
        node.placing.fetch_add(1, Ordering::Relaxed);
        Self(node)
    }

    /// The node.
    pub const fn id(&self) -> NodeId {
        self.0.id
    }

    /// Whether the node may have it: of several placements at the same moment some may be one too
    /// many.
    pub(super) fn fits(&self) -> bool {
        !self.0.is_beyond(0)
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.0.placing.fetch_sub(1, Ordering::Relaxed);
    }
}
