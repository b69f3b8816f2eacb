//! One listener for IPv6 and IPv4, and one for each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use bowline::config::Listen;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::balancer::*;
use crate::clients::read_response;
use crate::proxy_protocol::{clients, request};

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Begins a session at an address, as a client behind a proxy at 198.51.100.9.
async fn create(address: IpAddr, port: u16) {
    let mut stream = TcpStream::connect((address, port)).await.unwrap();
    let forwarded = "Host: a\r\nX-Forwarded-For: 198.51.100.9\r\n";
    let request = request().replace("Host: a\r\n", forwarded);
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = timeout(PATIENCE, read_response(&mut stream)).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_wildcard_of_ipv6_takes_both_and_ipv4_counts_as_ipv4() {
    let nodes = tigase_nodes(1).await;
    let mut with = settings(&nodes);
    with.listen = vec![Listen::new(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))];
    let balancer = Balancer::start(&with).await;
    let port = balancer.address().port();
    for address in [IPV4, IPV6] {
        create(address, port).await;
    }
    // Trusted by its IPv4 address.
    with.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let trusting = Balancer::start(&with).await;
    for address in [IPV4, IPV6] {
        create(address, trusting.address().port()).await;
    }
    let expected = ["127.0.0.1", "::1", "198.51.100.9", "::1"];
    assert_eq!(clients(&nodes[0]), expected);
}

#[tokio::test]
async fn the_wildcards_of_both_may_share_a_port_in_any_order() {
    let nodes = tigase_nodes(1).await;
    for turned in [false, true] {
        // A port that is free for both, or another: another program may take it in between.
        let balancer = loop {
            let free = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut with = settings(&nodes);
            let both = [
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                Ipv4Addr::UNSPECIFIED.into(),
            ];
            let listen = both.map(|address| Listen::new(SocketAddr::from((address, port))));
            with.listen = listen.to_vec();
            if turned {
                with.listen.reverse();
            }
            match bowline::server::Server::start(&with) {
                Ok(server) => break Balancer { server },
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_err(),
                        "{text}"
                    );
                }
            }
        };
        eventually("every node has a verdict", || {
            balancer.proxy().cluster.ready()
        })
        .await;
        for address in [IPV4, IPV6] {
            create(address, balancer.address().port()).await;
        }
    }
    let expected = ["127.0.0.1", "::1"].repeat(2);
    assert_eq!(clients(&nodes[0]), expected);
}
