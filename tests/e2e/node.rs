//! A scripted node as a program: a Tigase node at a port, for clients that are programs too.

use std::net::{Ipv4Addr, SocketAddr};

use bowline::demo::node::{Node, Profile};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let port = args.next().and_then(|port| port.parse().ok());
    let (Some(port), Some(domain)) = (port, args.next()) else {
        eprintln!("usage: node PORT DOMAIN");
        std::process::exit(64);
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let profile = Profile::tigase("t1").at(address).domain(domain);
    let _node = Node::start(profile.without_record())
        .await
        .expect("a free port");
    std::future::pending::<()>().await;
}
