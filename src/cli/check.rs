//! `bowline check FILE`: is this configuration right?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::{exit, refuse};
use crate::admin::AccessControl;
use crate::cluster::Cluster;
use crate::config::{self, Discovery, Listen, Settings, one_line};
use crate::downstream::{ListeningSocket, SocketFile};
use crate::health;
use crate::observe::metrics::Metrics;
use crate::tls;
use crate::upstream::TlsClient;

/// From one look at the verdicts to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a probe may take beside its own timeout.
const GRACE: Duration = Duration::from_secs(1);

/// Says on stdout that the file is right and what it asks for, or on stderr what is wrong with it.
/// Reads the certificates and tokens that it names; what clients may stumble over there goes to stderr and
/// is no error, so that a service with an old certificate starts. Opens no socket and asks no node unless
/// it is to `probe`: then it looks whether the addresses are free, and asks each node once.
#[must_use]
pub fn check(file: &Path, probe: bool) -> ExitCode {
    match config::load(file) {
        Ok(settings) => {
            // Each says all that is wrong.
            let good = [certificates(file, &settings), tokens(file, &settings)];
            if good.contains(&false) {
                return exit::CONFIG.into();
            }
            let mut settings = settings;
            if let Some(Discovery::File(nodes)) = &settings.discovery {
                match config::load_nodes(nodes) {
                    Ok(nodes) => settings.nodes = nodes,
                    Err(errors) => return refuse(&errors),
                }
            }
            if !node_certificates(file, &settings) {
                return exit::CONFIG.into();
            }
            if probe {
                let free = addresses(file, &settings);
                let mut answer = false;
                let asked = super::block_on(async {
                    answer = nodes(file, &settings).await;
                    exit::OK
                });
                if asked != exit::OK {
                    return asked;
                }
                if !free {
                    return exit::OS.into();
                }
                if !answer {
                    return exit::UNAVAILABLE.into();
                }
            }
            match writeln!(io::stdout(), "{}: {}", file.display(), verdict(&settings)) {
                Ok(()) => exit::OK,
                Err(_) => exit::IO.into(),
            }
        }
        Err(errors) => refuse(&errors),
    }
}

/// Looks at the certificates of all listeners. False if some cannot be used.
fn certificates(file: &Path, settings: &Settings) -> bool {
    let (mut good, now) = (true, SystemTime::now());
    for (position, listen) in settings.listen.iter().enumerate() {
        let Some(tls) = &listen.tls else { continue };
        let place = format!("{}: listen[{position}].tls", file.display());
        match tls::warnings_of(tls, now) {
            Ok(warnings) => {
                for warning in warnings {
                    let _ = writeln!(io::stderr(), "{place}: warning: {warning}");
                }
            }
            Err(error) => {
                good = false;
                let _ = writeln!(io::stderr(), "{place}: {error}");
            }
        }
    }
    good
}

/// Reads the authorities of all nodes. False if some cannot be used.
fn node_certificates(file: &Path, settings: &Settings) -> bool {
    let mut good = true;
    for node in &settings.nodes {
        let Some(tls) = &node.tls else { continue };
        let place = format!("{}: node {}: tls", file.display(), node.name);
        if let Err(error) = TlsClient::new(tls, &node.address).check() {
            good = false;
            let _ = writeln!(io::stderr(), "{place}: {error}");
        } else if !tls.verify {
            let what = "warning: the certificate of the node is not verified";
            let _ = writeln!(io::stderr(), "{place}: {what}");
        }
    }
    good
}

/// Reads the tokens of the admin listener. False if some cannot be used.
fn tokens(file: &Path, settings: &Settings) -> bool {
    let access = settings.admin.as_ref().map(AccessControl::load);
    if let Some(Err(error)) = access {
        let _ = writeln!(io::stderr(), "{}: admin: {error}", file.display());
        return false;
    }
    true
}

/// Looks whether this process could listen where the file says. False if it could not.
fn addresses(file: &Path, settings: &Settings) -> bool {
    let listen = settings
        .listen
        .iter()
        .map(|one| (one.clone(), &*settings.listen));
    let admin = settings.admin.as_ref();
    let admin = admin.map(|admin| [Some(admin.address), admin.probes]);
    let admin = admin.into_iter().flatten().flatten();
    let admin = admin.map(|address| (Listen::new(address), &[][..]));
    let mut good = true;
    for (listen, all) in listen.chain(admin) {
        let address = &listen.address;
        if let Err(error) = free(&listen, all) {
            good = false;
            let place = file.display();
            let _ = writeln!(io::stderr(), "{place}: cannot listen on {address}: {error}");
        }
    }
    good
}

/// Takes the address of `listen`, one of `all`, and gives it back.
fn free(listen: &Listen, all: &[Listen]) -> io::Result<()> {
    let (socket, address) = ListeningSocket::bind(listen, all)?;
    // Dropped, it removes the file of a Unix socket.
    drop(SocketFile::of(&address));
    drop(socket);
    Ok(())
}

/// Asks each node once, as a running balancer does. False if some do not answer as they should. Nodes from
/// the DNS are not known here.
async fn nodes(file: &Path, settings: &Settings) -> bool {
    if settings.nodes.is_empty() {
        return true;
    }
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(settings, &metrics));
    let probes = health::start(&cluster, settings, &metrics);
    let known = async {
        while !cluster.ready() {
            sleep(LOOK_EVERY).await;
        }
    };
    let _ = timeout(settings.health.timeout + GRACE, known).await;
    drop(probes);
    let mut good = true;
    for node in cluster.nodes().iter().filter(|node| !node.is_up()) {
        good = false;
        let failure = node.last_failure();
        let what = failure.map_or_else(|| "no answer".to_owned(), |failure| failure.what);
        let (place, name, address) = (file.display(), &node.name, node.address());
        let _ = writeln!(
            io::stderr(),
            "{place}: node {name} at {address} does not pass its probe: {}",
            one_line(&what)
        );
    }
    good
}

fn verdict(settings: &Settings) -> String {
    let nodes = match settings.nodes.len() {
        _ if let Some(Discovery::Dns(dns)) = &settings.discovery => {
            format!("nodes of {}", dns.name)
        }
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    let addresses: Vec<String> = settings
        .listen
        .iter()
        .map(|listen| listen.address.to_string())
        .collect();
    format!("ok ({nodes}, listening on {})", addresses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeSettings;

    #[test]
    fn the_verdict_counts_nodes_and_names_addresses() {
        let node = |name: &str| NodeSettings::new(name.to_owned(), format!("{name}:5280"));
        let one = Settings::for_nodes(vec![node("t1")]);
        assert_eq!(verdict(&one), "ok (1 node, listening on 127.0.0.1:0)");
        let two = Settings::for_nodes(vec![node("t1"), node("t2")]);
        assert_eq!(verdict(&two), "ok (2 nodes, listening on 127.0.0.1:0)");
    }
}
