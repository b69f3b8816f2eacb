//! The balancer's process: `bowline`, or HAProxy for comparison.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use super::World;
use crate::Result;
use crate::support::metrics;
use crate::support::process::{Process, Start};
use crate::support::program::{Program, free_address, tethered};
use crate::support::waiting::accepts;

/// Starts `bowline`; `further` are lines of its configuration.
pub(crate) async fn bowline(binary: &Path, world: &World, further: &str) -> Result<Process> {
    let more = format!(
        "placement: round-robin\ntrusted_proxies: [127.0.0.0/8] # clients send their addresses\n\
         threads: 2\nlog: {{ format: json }}\n{further}"
    );
    let start = Start {
        more: &more,
        binary: Some(binary),
        copy: Some(&world.folder.path().join("bowline.log")),
        tethered: true,
        ..Start::default()
    };
    Process::launch(&world.places(), &start, None).await
}

/// The sum of the series of the metric `name`.
pub(crate) async fn metric(process: &Process, name: &str) -> Result<f64> {
    let page = crate::support::admin::get(process.admin, "/metrics").await?;
    Ok(metrics::family(page.text(), name))
}

/// How many connections to nodes a balancer has, those that are being opened included.
pub(crate) fn upstream_connections(process: &Process, world: &World) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", process.program.id()))?;
    let far: Vec<String> = world
        .places()
        .iter()
        .map(|(_, at)| hexadecimal(at))
        .collect();
    let open = table.lines().filter(|line| {
        let mut words = line.split_whitespace().skip(2);
        let (remote, state) = (words.next(), words.next());
        // Established, being opened, left half open by this side.
        let open = matches!(state, Some("01" | "02" | "08"));
        open && remote.is_some_and(|remote| far.iter().any(|far| far == remote))
    });
    Ok(open.count())
}

/// An address as the kernel's table has it: the IP's bytes in reverse.
fn hexadecimal(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", v4.port())
        }
        SocketAddr::V6(_) => String::new(),
    }
}

/// Starts HAProxy, pinned by sid, and says where it listens.
pub(crate) async fn haproxy(world: &World) -> Result<(Program, SocketAddr)> {
    let address = free_address()?;
    let text = haproxy_configuration(address, world);
    let file = world.folder.write("haproxy.cfg", &text)?;
    let log = fs::File::create(world.folder.path().join("haproxy.log"))?;
    let mut command = tethered("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let program = Program::start(command.stderr(log))?;
    accepts(address).await?;
    Ok((program, address))
}

/// The sid is read with a regular expression and kept in a table; no connection to a node is shared
/// between sessions; the sessions of a node that is called down are shut.
fn haproxy_configuration(address: SocketAddr, world: &World) -> String {
    let servers = world.places().into_iter().map(|(name, at)| {
        format!("  server {name} {at} check inter 1s on-marked-down shutdown-sessions\n")
    });
    let servers: String = servers.collect();
    let sid = r"regsub('^[^>]* sid=.([-0-9a-f]+).*','\1')";
    let has = "-m reg \"^[^>]* sid=\"";
    format!(
        "global\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 2s\n  \
         timeout client 90s\n  timeout server 90s\nfrontend clients\n  bind {address}\n  \
         http-request wait-for-body time 5s\n  default_backend nodes\nbackend nodes\n  \
         balance roundrobin\n  http-reuse never\n  retries 2\n  option redispatch 1\n  \
         option httpchk GET /http-bind\n  \
         stick-table type string len 64 size 100k expire 5m\n  \
         stick match \"req.body,{sid}\" if {{ req.body {has} }}\n  \
         http-response wait-for-body time 5s\n  \
         stick store-response \"res.body,{sid}\" if {{ res.body {has} }}\n{servers}"
    )
}
