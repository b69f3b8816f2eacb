//! The stub nodes as a process of their own, and what they say they have seen.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;
use crate::support::program::Program;

/// The running nodes; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Nodes {
    _program: Program,
    /// Where they are.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// What the nodes have seen since they started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Polls held now.
    pub(crate) held: u64,
    /// Requests of another node's session.
    pub(crate) misrouted: u64,
    /// Requests on a connection that served another session before.
    pub(crate) shared: u64,
}

impl Nodes {
    /// Starts `count` nodes. They inherit the core of this process.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["nodes", "--count", &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Program::start(&mut command)?;
        let stdout = program
            .child
            .stdout
            .take()
            .ok_or("the nodes have no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addresses = line
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        if addresses.len() != count {
            return Err("the nodes did not start".into());
        }
        Ok(Self {
            _program: program,
            addresses,
        })
    }

    /// Asks what they have seen.
    pub(crate) async fn seen(&self) -> Result<Seen> {
        let mut stream = TcpStream::connect(self.addresses[0]).await?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let body = text.rsplit("\r\n").next().unwrap_or_default();
        let figures: Vec<u64> = body
            .split(' ')
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let &[held, misrouted, shared] = figures.as_slice() else {
            return Err("the nodes count differently".into());
        };
        Ok(Seen {
            held,
            misrouted,
            shared,
        })
    }
}
