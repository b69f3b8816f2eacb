//! Networks that can be cut: each node in a network namespace of its own, joined to the balancer's
//! by a virtual cable.
//!
//! The whole program runs in a private namespace, so nothing here touches the machine's own network
//! and everything is gone with the processes. A cut drops packets without a word, in both
//! directions: each end is told a wrong hardware address of the other.

use std::env;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::Result;
use crate::support::program::{Program, must, tethered};

/// Set in the environment of the program that runs in its own namespace.
const ENTERED: &str = "BOWLINE_SYSTEM_NETWORK";
/// Asks for everything that a [`Link`] needs.
const TRIAL: &str = "ip link set lo up && ip link add trial0 type veth peer name trial1 \
                     && unshare -n nsenter --version";

/// Goes on in a private network namespace; false where the machine does not allow that.
pub(crate) fn enter() -> bool {
    if env::var_os(ENTERED).is_some() {
        return must(Command::new("ip").args(["link", "set", "lo", "up"])).is_ok();
    }
    for flags in ["-n", "-rn"] {
        if must(Command::new("unshare").args([flags, "sh", "-c", TRIAL])).is_err() {
            continue;
        }
        let Ok(program) = env::current_exe() else {
            continue;
        };
        let error = Command::new("unshare")
            .arg(flags)
            .arg(program)
            .args(env::args_os().skip(1))
            .env(ENTERED, "1")
            .exec();
        eprintln!("system: cannot go on in a network of its own: {error}");
    }
    false
}

/// Keeps a namespace: says that it is there, and waits for the end of stdin.
pub(crate) fn hold() -> Result<()> {
    println!("held");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The namespace of one node, and the cable to it.
pub(crate) struct Link {
    holder: Program,
    number: u8,
}

impl Link {
    /// Makes both.
    pub(crate) fn new(number: u8) -> Result<Self> {
        let mut command = tethered("unshare");
        command
            .arg("-n")
            .arg(env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = Program::start(&mut command)?;
        let mut said = [0; 5];
        let stdout = holder.child.stdout.as_mut().ok_or("no stdout")?;
        stdout.read_exact(&mut said)?;
        let link = Self { holder, number };
        let (near, pid) = (link.near(), link.holder.id().to_string());
        let (mac, far_mac) = (link.mac(1), link.mac(2));
        ip(&format!(
            "link add {near} address {mac} type veth peer name far address {far_mac} netns {pid}"
        ))?;
        ip(&format!("addr add {}/24 dev {near}", link.ip(1)))?;
        ip(&format!("link set {near} up"))?;
        link.far(&format!("addr add {}/24 dev far", link.ip(2)))?;
        link.far("link set far up")?;
        link.far("link set lo up")?;
        link.mend()?;
        Ok(link)
    }

    /// The node's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.ip(2)
    }

    /// A command that runs in the node's namespace.
    pub(crate) fn command(&self) -> Command {
        let mut command = tethered("nsenter");
        command.args(["-n", "-t", &self.holder.id().to_string()]);
        command
    }

    /// Loses every packet from now on.
    pub(crate) fn cut(&self) -> Result<()> {
        self.point(&self.mac(9), &self.mac(9))
    }

    /// Carries packets again.
    pub(crate) fn mend(&self) -> Result<()> {
        self.point(&self.mac(2), &self.mac(1))
    }

    fn point(&self, far: &str, near: &str) -> Result<()> {
        let (there, here) = (self.ip(2), self.ip(1));
        ip(&format!(
            "neigh replace {there} lladdr {far} dev {} nud permanent",
            self.near()
        ))?;
        self.far(&format!(
            "neigh replace {here} lladdr {near} dev far nud permanent"
        ))
    }

    fn far(&self, arguments: &str) -> Result<()> {
        must(self.command().arg("ip").args(arguments.split(' ')))
    }

    fn near(&self) -> String {
        format!("near{}", self.number)
    }

    fn ip(&self, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, end)
    }

    fn mac(&self, end: u8) -> String {
        format!("02:00:00:00:{:02x}:{end:02x}", self.number)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The kernel would remove it too, some time after the namespace.
        let _ = ip(&format!("link del {}", self.near()));
    }
}

fn ip(arguments: &str) -> Result<()> {
    must(Command::new("ip").args(arguments.split(' ')))
}
