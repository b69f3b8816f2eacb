//! Every node that this process has known, by its id and by its name.
//!
//! Nodes are added and never removed, so a [`NodeId`] names the same node for the life of the
//! process, and `get` needs no lock. A node that left the cluster costs about a kilobyte here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::node::Node;
use super::node_id::NodeId;

/// Nodes in one chunk.
const CHUNK: usize = 256;

/// Chunks. `u16::MAX` is no id: request records use it for "no node".
const CHUNKS: usize = 256;
const MOST: usize = CHUNK * CHUNKS - 1;

type Chunk = Box<[OnceLock<Arc<Node>>]>;

/// There are more names than ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyNodes;

impl std::fmt::Display for TooManyNodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a process knows at most {MOST} names of nodes; restart it"
        )
    }
}

impl std::error::Error for TooManyNodes {}

/// See the module.
#[derive(Debug)]
pub(super) struct Registry {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// How many names it takes; tests lower it.
    pub(super) most: usize,
    names: Mutex<HashMap<String, NodeId>>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| OnceLock::new()),
            most: MOST,
            names: Mutex::default(),
        }
    }

    /// The node `id`, if this registry gave that id away.
    pub(super) fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        let chunk = self.chunks.get(id.index() / CHUNK)?.get()?;
        chunk.get(id.index() % CHUNK)?.get()
    }

    /// The node called `name`.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<Node>> {
        let id = self.names().get(name).copied()?;
        self.get(id)
    }

    /// The node called `name`, and whether `make` has just made it.
    ///
    /// # Errors
    /// [`TooManyNodes`].
    pub(super) fn get_or_add(
        &self,
        name: &str,
        make: impl FnOnce(NodeId) -> Node,
    ) -> Result<(&Arc<Node>, bool), TooManyNodes> {
        if let Some(node) = self.named(name) {
            return Ok((node, false));
        }
        let mut names = self.names();
        let number = Some(names.len()).filter(|number| *number < self.most);
        let id = number.and_then(|number| u16::try_from(number).ok());
        let id = NodeId(id.ok_or(TooManyNodes)?);
        let chunk = self.chunks[id.index() / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let node = chunk[id.index() % CHUNK].get_or_init(|| Arc::new(make(id)));
        names.insert(name.to_owned(), id);
        Ok((node, true))
    }

    /// Every node, in the order of the ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        let chunks = self.chunks.iter().map_while(OnceLock::get);
        chunks.flat_map(|chunk| chunk.iter().map_while(OnceLock::get))
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.names().len()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, NodeId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
