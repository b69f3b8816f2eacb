//! A connection between the old process and the new one: frames, and the files that come with them.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::frame::{self, HEADER, Kind};

/// The most bytes of a body that are read at once. A body takes no more memory than has come of it.
const PIECE: usize = 256 * 1024;

/// The most files that wait for their frame.
const MOST_FILES: usize = 4;

/// Why a takeover came to nothing.
#[derive(Debug)]
pub enum HandoverError {
    /// The other process has gone.
    Gone,
    /// It took too long.
    Late(Kind),
    /// It speaks another protocol.
    Protocol(&'static str),
    /// Its version of the protocol is another.
    Version(u16),
    /// It belongs to this user.
    OtherUser(u32),
    /// It gives this reason.
    Refused(String),
    /// What the system says.
    Io(io::Error),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the other process has gone"),
            Self::Late(kind) => write!(f, "the other process took too long ({kind:?})"),
            Self::Protocol(what) => write!(f, "the other process is no Bowline: {what}"),
            Self::Version(version) => write!(
                f,
                "the other process has version {version} of the takeover's protocol, and this one has version \
                 {}: restart Bowline instead",
                frame::VERSION
            ),
            Self::OtherUser(user) => write!(
                f,
                "the other process belongs to user {user}, and this one does not: run both as one user"
            ),
            Self::Refused(why) => write!(f, "the other process refuses: {why}"),
            Self::Io(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for HandoverError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Io(source),
        }
    }
}

/// A connection to the other process.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// What has come of the next frame.
    partial: Vec<u8>,
    files: VecDeque<OwnedFd>,
}

impl Channel {
    /// A channel over this connection.
    ///
    /// # Errors
    /// [`HandoverError::OtherUser`]: its peer is a process of another user.
    pub fn new(socket: UnixStream) -> Result<Self, HandoverError> {
        let peer = socket.peer_cred()?.uid();
        check_user(rustix::process::geteuid().as_raw(), peer)?;
        Ok(Self {
            socket,
            partial: Vec::new(),
            files: VecDeque::new(),
        })
    }

    /// Sends a frame, with a file if there is one, within this time.
    ///
    /// # Errors
    /// [`HandoverError`]; the channel is of no use then.
    pub async fn send(
        &mut self,
        kind: Kind,
        body: &[u8],
        file: Option<BorrowedFd<'_>>,
        within: Duration,
    ) -> Result<(), HandoverError> {
        let header = frame::header(kind, body).ok_or(HandoverError::Protocol("too long"))?;
        let sent = self.send_all(&header, body, file);
        match timeout(within, sent).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(HandoverError::Late(kind)),
        }
    }

    async fn send_all(
        &self,
        header: &[u8],
        body: &[u8],
        mut file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < header.len() + body.len() {
            let write = || {
                let files: &[BorrowedFd<'_>] = file.as_slice();
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                    return Err(io::Error::other("no room for a file"));
                }
                let pieces = [
                    IoSlice::new(header.get(done..).unwrap_or_default()),
                    IoSlice::new(&body[done.saturating_sub(header.len())..]),
                ];
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                let sent = rustix::net::sendmsg(self.socket.as_fd(), &pieces, &mut control, flags);
                Ok(sent?)
            };
            done += self.socket.async_io(Interest::WRITABLE, write).await?;
            // It went with the first bytes.
            file = None;
        }
        Ok(())
    }

    /// The next frame. Dropped half-way, it goes on where it was the next time.
    ///
    /// # Errors
    /// [`HandoverError`]; the channel is of no use then.
    pub async fn receive(&mut self) -> Result<(Kind, Vec<u8>), HandoverError> {
        loop {
            let missing = match self.partial.first_chunk::<HEADER>() {
                None => HEADER - self.partial.len(),
                Some(header) => {
                    let Some((kind, length)) = frame::read_header(*header) else {
                        return Err(HandoverError::Protocol("an invalid frame"));
                    };
                    match HEADER + length - self.partial.len() {
                        0 => {
                            let mut body = std::mem::take(&mut self.partial);
                            body.drain(..HEADER);
                            return Ok((kind, body));
                        }
                        missing => missing,
                    }
                }
            };
            self.read_some(missing.min(PIECE)).await?;
        }
    }

    /// The body of the next frame, which is to be of this kind and to come within this time.
    ///
    /// # Errors
    /// [`HandoverError`]; the channel is of no use then.
    pub async fn expect(&mut self, kind: Kind, within: Duration) -> Result<Vec<u8>, HandoverError> {
        let received = timeout(within, self.receive()).await;
        match received.map_err(|_| HandoverError::Late(kind))?? {
            (received, body) if received == kind => Ok(body),
            (Kind::Refused, why) => {
                let why = String::from_utf8_lossy(&why);
                Err(HandoverError::Refused(why.into_owned()))
            }
            _ => Err(HandoverError::Protocol("a frame out of order")),
        }
    }

    /// The file that came with the last frame.
    ///
    /// # Errors
    /// There was none.
    pub fn file(&mut self) -> Result<OwnedFd, HandoverError> {
        let file = self.files.pop_front();
        file.ok_or(HandoverError::Protocol("a socket is missing"))
    }

    /// Takes no more bytes, so that the other process cannot send any. What it has sent already is received
    /// still; then the channel ends.
    pub fn shut(&self) {
        // A peer that has gone sends nothing either.
        let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Read);
    }

    async fn read_some(&mut self, most: usize) -> Result<(), HandoverError> {
        let socket = &self.socket;
        let mut piece = vec![0; most];
        let mut files = Vec::new();
        let read = socket.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut pieces = [IoSliceMut::new(&mut piece)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let received = rustix::net::recvmsg(socket.as_fd(), &mut pieces, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    files.extend(some);
                }
            }
            Ok((received.bytes, received.flags.contains(ReturnFlags::CTRUNC)))
        });
        let (bytes, too_many) = read.await?;
        self.partial.extend_from_slice(&piece[..bytes]);
        self.files.extend(files);
        if too_many || self.files.len() > MOST_FILES {
            return Err(HandoverError::Protocol("too many files"));
        }
        if bytes == 0 {
            return Err(HandoverError::Gone);
        }
        Ok(())
    }
}

/// Allows only processes of one user.
fn check_user(own: u32, peer: u32) -> Result<(), HandoverError> {
    if own == peer {
        return Ok(());
    }
    Err(HandoverError::OtherUser(peer))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn pair() -> (Channel, Channel) {
        let (one, two) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(two).unwrap())
    }

    #[tokio::test]
    async fn frames_and_a_file_come_out_as_they_went_in() {
        let (mut one, mut two) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let pins: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let sent = async {
            let file = Some(socket.as_fd());
            one.send(Kind::Socket, b"name", file, WITHIN).await.unwrap();
            one.send(Kind::Offer, b"", None, WITHIN).await.unwrap();
            one.send(Kind::Pins, &pins, None, WITHIN).await.unwrap();
        };
        let received = async {
            assert_eq!(two.expect(Kind::Socket, WITHIN).await.unwrap(), b"name");
            let file = TcpListener::from(two.file().unwrap());
            assert_eq!(file.local_addr().unwrap(), socket.local_addr().unwrap());
            assert_eq!(two.expect(Kind::Offer, WITHIN).await.unwrap(), b"");
            assert!(two.file().is_err(), "no second file came");
            two.expect(Kind::Pins, WITHIN).await.unwrap()
        };
        let ((), received) = tokio::join!(sent, received);
        assert!(received == pins);
    }

    #[tokio::test]
    async fn a_receive_that_is_given_up_loses_nothing() {
        let (mut one, mut two) = pair();
        let header = frame::header(Kind::Late, b"pins").unwrap();
        for byte in [&header[..], b"pins"].concat() {
            let waited = timeout(Duration::from_millis(1), two.receive()).await;
            assert!(waited.is_err(), "the frame is not there yet");
            one.send_all(&[byte], b"", None).await.unwrap();
        }
        assert_eq!(two.expect(Kind::Late, WITHIN).await.unwrap(), b"pins");
        one.send(Kind::Mine, b"", None, WITHIN).await.unwrap();
        two.expect(Kind::Mine, WITHIN).await.unwrap();
    }

    #[tokio::test]
    async fn every_error_has_its_reason() {
        let (mut one, mut two) = pair();
        one.send(Kind::Refused, b"why", None, WITHIN).await.unwrap();
        let error = two.expect(Kind::Offer, WITHIN).await.unwrap_err();
        assert_eq!(error.to_string(), "the other process refuses: why");
        one.send(Kind::Mine, b"", None, WITHIN).await.unwrap();
        let error = two.expect(Kind::Yours, WITHIN).await.unwrap_err();
        assert!(error.to_string().contains("out of order"), "{error}");
        let error = two.expect(Kind::Yours, Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("too long (Yours)"), "{error}");
        one.send_all(b"GET / HTTP/1.1", b"", None).await.unwrap();
        let error = two.expect(Kind::Yours, WITHIN).await.unwrap_err();
        assert!(error.to_string().contains("an invalid frame"), "{error}");
        let (one, mut two) = pair();
        drop(one);
        let error = two.expect(Kind::Yours, WITHIN).await.unwrap_err();
        assert!(matches!(error, HandoverError::Gone), "{error}");
    }

    #[tokio::test]
    async fn more_files_than_frames_are_refused() {
        let (one, mut two) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let header = frame::header(Kind::Socket, &[0; 100]).unwrap();
        one.send_all(&header, b"", None).await.unwrap();
        for _ in 0..=MOST_FILES {
            one.send_all(b"a", b"", Some(socket.as_fd())).await.unwrap();
        }
        let error = two.expect(Kind::Socket, WITHIN).await.unwrap_err();
        assert!(error.to_string().contains("too many files"), "{error}");
    }

    #[tokio::test]
    async fn what_was_sent_before_the_channel_shut_arrives_and_nothing_later() {
        let (mut one, mut two) = pair();
        one.send(Kind::Mine, b"", None, WITHIN).await.unwrap();
        two.shut();
        let error = one.send(Kind::Leaving, b"", None, WITHIN).await;
        assert!(matches!(error, Err(HandoverError::Gone)), "{error:?}");
        two.expect(Kind::Mine, WITHIN).await.unwrap();
        let error = two.receive().await.unwrap_err();
        assert!(matches!(error, HandoverError::Gone), "{error}");
    }

    #[test]
    fn a_process_of_another_user_is_refused_even_if_one_of_them_is_root() {
        assert!(check_user(1000, 1000).is_ok());
        for (own, peer) in [(1000, 1001), (0, 1000), (1000, 0)] {
            let error = check_user(own, peer).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains(&format!("belongs to user {peer}")),
                "{error}"
            );
        }
    }
}
