//! Where connections are opened: through TCP, or on a thread that has a network of its own through
//! that. A network in memory lets a whole cluster run in one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::pipe::{Pipe, pair};

/// What becomes of a connect.
#[derive(Debug, Clone)]
pub enum Door {
    /// It is accepted, and the other end handed out.
    Open(UnboundedSender<Pipe>),
    /// It is refused.
    Shut,
    /// Nothing comes back, as long as it stays so.
    Swallows,
}

thread_local! {
    static NET: RefCell<BTreeMap<SocketAddr, Door>> = const { RefCell::new(BTreeMap::new()) };
}

/// Sets the door of an address on this thread.
pub fn set_door(address: SocketAddr, door: Door) {
    NET.with_borrow_mut(|net| drop(net.insert(address, door)));
}

/// When the first packet of a connection is sent again that nobody answered, as Linux does, in seconds.
const AGAIN: [u64; 4] = [1, 2, 4, 8];

/// Opens a connection if this thread has a net; an address without a door refuses.
pub(super) fn connect(
    address: SocketAddr,
) -> Option<impl Future<Output = io::Result<Pipe>> + Send> {
    NET.with_borrow(|net| (!net.is_empty()).then_some(()))?;
    Some(async move {
        for pause in AGAIN.map(Duration::from_secs) {
            match NET.with_borrow(|net| net.get(&address).cloned()) {
                Some(Door::Open(listener)) => {
                    let (near, far) = pair();
                    return match listener.send(far) {
                        Ok(()) => Ok(near),
                        Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
                    };
                }
                Some(Door::Swallows) => sleep(pause).await,
                Some(Door::Shut) | None => break,
            }
        }
        let refused = NET.with_borrow(|net| !matches!(net.get(&address), Some(Door::Swallows)));
        Err(if refused {
            io::ErrorKind::ConnectionRefused.into()
        } else {
            io::ErrorKind::TimedOut.into()
        })
    })
}
