//! The real processes: nodes, balancer, and the network between them.

pub(crate) mod balancer;
pub(crate) mod net;
pub(crate) mod node;
mod process;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::programs::free_address;
use node::{NodeProcess, Spec};

/// The port of the nodes that have an address of their own.
const NODE_PORT: u16 = 5280;
/// How long something may take to start.
const START: Duration = Duration::from_secs(10);
/// Microseconds since 1970: a clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// A duration in the unit of [`now`].
pub(crate) const fn micros(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000 + duration.subsec_micros() as u64
}

/// The nodes, and where their logs are. Dropping it ends every process.
pub(crate) struct World {
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) folder: PathBuf,
}

impl World {
    /// Starts nodes t1 to tn; each with a network of its own if `separate`.
    pub(crate) async fn start(count: u8, separate: bool, model: &Spec, name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("bowline-{name}-{}", std::process::id()));
        // A run of the same name and process id is long over.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
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
                log: folder.join(format!("{name}.log")),
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

    /// Removes the logs.
    pub(crate) fn clean_up(self) {
        let folder = self.folder.clone();
        drop(self);
        // What is left behind does no harm.
        let _ = fs::remove_dir_all(folder);
    }
}

/// Waits until somebody accepts there.
pub(crate) async fn accepts(address: SocketAddr) -> Result<()> {
    let give_up = Instant::now() + START;
    while let Err(error) = TcpStream::connect(address).await {
        if Instant::now() > give_up {
            return Err(format!("nobody accepts at {address}: {error}").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
