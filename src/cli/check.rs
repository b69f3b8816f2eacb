//! `bowline check FILE`: is this configuration right?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::{exit, refuse};
use crate::config::{self, Settings};

/// Says on stdout that the file is right and what it asks for, or on stderr what is wrong with it.
/// Opens no socket and asks no node.
#[must_use]
pub fn check(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(settings) => {
            match writeln!(io::stdout(), "{}: {}", file.display(), verdict(&settings)) {
                Ok(()) => exit::OK,
                Err(_) => exit::IO.into(),
            }
        }
        Err(errors) => refuse(&errors),
    }
}

fn verdict(settings: &Settings) -> String {
    let nodes = match settings.nodes.len() {
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
