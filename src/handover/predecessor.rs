//! The process that this one replaces: its sockets, and the connection on which it hands over.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UnixStream;

use super::activation::check;
use super::channel::{Channel, HandoverError};
use super::frame::{self, Kind, SocketName};
use super::{PassedSocket, Sockets};
use crate::config::ListenAddress;

/// The most sockets that are taken: as many listeners as a configuration may have, and three more.
const MOST_SOCKETS: usize = 256 + 3;

/// How long a process may take that has nothing to do but answer.
const STEP: Duration = Duration::from_secs(5);

/// A process that is to be replaced, and has passed its sockets.
#[derive(Debug)]
pub struct Predecessor {
    /// The connection to it.
    pub channel: Channel,
    /// Its listening sockets.
    pub sockets: Sockets,
}

/// Asks the process that listens at `path` for its sockets. None if no process does.
///
/// # Errors
/// [`HandoverError`].
pub async fn connect(path: &Path) -> Result<Option<Predecessor>, HandoverError> {
    let socket = match UnixStream::connect(path).await {
        Ok(socket) => socket,
        Err(error) => {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            return match error.kind() {
                NotFound | ConnectionRefused => Ok(None),
                _ => Err(HandoverError::Io(error)),
            };
        }
    };
    let mut channel = Channel::new(socket)?;
    channel
        .send(Kind::Hello, &frame::hello(), None, STEP)
        .await?;
    let mut sockets = Sockets::default();
    loop {
        let received = tokio::time::timeout(STEP, channel.receive()).await;
        match received.map_err(|_| HandoverError::Late(Kind::Offer))?? {
            (Kind::Socket, name) if sockets.len() < MOST_SOCKETS => {
                let name = SocketName::read(&name);
                let name = name.ok_or(HandoverError::Protocol("an invalid socket"))?;
                let socket = listening(channel.file()?, &name.address)?;
                sockets.add_named(name, socket);
            }
            (Kind::Offer, _) => return Ok(Some(Predecessor { channel, sockets })),
            (Kind::Refused, why) => {
                let why = String::from_utf8_lossy(&why).into_owned();
                return Err(HandoverError::Refused(why));
            }
            _ => return Err(HandoverError::Protocol("a frame out of order")),
        }
    }
}

/// A file that came as a listening socket for this address.
fn listening(file: OwnedFd, address: &ListenAddress) -> Result<PassedSocket, HandoverError> {
    check(&SockRef::from(&file))?;
    Ok(match address {
        ListenAddress::Tcp(_) => PassedSocket::Tcp(TcpListener::from(file)),
        ListenAddress::Unix(_) => PassedSocket::Unix(UnixListener::from(file)),
    })
}

/// Takes the `Hello` of a process that wants to take over.
///
/// # Errors
/// [`HandoverError::Version`]; that process was told then.
pub async fn answer_hello(channel: &mut Channel) -> Result<(), HandoverError> {
    let hello = channel.expect(Kind::Hello, STEP).await?;
    let version = frame::read_hello(&hello);
    let version = version.ok_or(HandoverError::Protocol("an invalid hello"))?;
    if version == frame::VERSION {
        return Ok(());
    }
    let error = HandoverError::Version(version);
    let why = format!(
        "it has version {} of the takeover's protocol: restart Bowline instead",
        frame::VERSION
    );
    channel
        .send(Kind::Refused, why.as_bytes(), None, STEP)
        .await?;
    Err(error)
}
