//! The real processes: nodes, balancer, and the network between them.

pub(crate) mod balancer;
pub(crate) mod net;
pub(crate) mod node;

use std::net::SocketAddr;

use crate::Result;
use crate::support::folder::Folder;
use crate::support::program::free_address;
use crate::support::waiting::accepts;
use node::{NodeProcess, Spec};

/// The port of the nodes that have an address of their own.
const NODE_PORT: u16 = 5280;

/// The nodes, and where their logs are. Dropping it ends every process and removes the logs.
pub(crate) struct World {
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) folder: Folder,
}

impl World {
    /// Starts nodes t1 to tn; each with a network of its own if `separate`.
    pub(crate) async fn start(count: u8, separate: bool, model: &Spec, name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let mut nodes = Vec::new();
        for number in 1..=count {
            let link = separate.then(|| net::Link::new(number)).transpose()?;
            let address = match &link {
                Some(link) => SocketAddr::from((link.address(), NODE_PORT)),
                None => free_address()?,
            };
            let name = format!("t{number}");
            let spec = Spec {
                address,
                log: folder.path().join(format!("{name}.log")),
                name,
                ..model.clone()
            };
            let mut node = NodeProcess::new(spec, link);
            node.start()?;
            nodes.push(node);
        }
        for node in &nodes {
            accepts(node.spec.address).await?;
        }
        Ok(Self { nodes, folder })
    }

    /// The names and addresses of the nodes.
    pub(crate) fn places(&self) -> Vec<(String, SocketAddr)> {
        let specs = self.nodes.iter().map(|node| &node.spec);
        specs
            .map(|spec| (spec.name.clone(), spec.address))
            .collect()
    }
}
