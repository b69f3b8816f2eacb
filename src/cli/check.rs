//! `bowline check FILE`: is this configuration right?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::{exit, refuse};
use crate::config::{self, Discovery, Settings};
use crate::tls;

/// Says on stdout that the file is right and what it asks for, or on stderr what is wrong with it.
/// Reads the certificates that it names; what clients may stumble over there goes to stderr and is no
/// error, so that a service with an old certificate starts. Opens no socket and asks no node.
#[must_use]
pub fn check(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(settings) => {
            if !certificates(file, &settings) {
                return exit::CONFIG.into();
            }
            let mut settings = settings;
            if let Some(Discovery::File(nodes)) = &settings.discovery {
                match config::load_nodes(nodes) {
                    Ok(nodes) => settings.nodes = nodes,
                    Err(errors) => return refuse(&errors),
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
