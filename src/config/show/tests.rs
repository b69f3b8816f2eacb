//! What is shown is read as the same settings, and has no secret.

use std::fs;
use std::path::Path;

use super::super::parse::parse;
use super::*;

/// The text of every YAML file of a folder.
pub(in super::super) fn files_of(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    yaml.map(|path| {
        let text = fs::read(&path).unwrap();
        (
            path.display().to_string(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    })
    .collect()
}

#[test]
fn what_is_shown_is_read_as_the_same() {
    let files = [files_of("config"), files_of("tests/config/valid")].concat();
    assert!(files.len() >= 8, "{files:?}");
    for (name, text) in files {
        let settings = parse(&text, &name).unwrap();
        let shown = show(&settings);
        let mut again = parse(&shown, &name).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
        again.log.session_key = settings.log.session_key;
        assert_eq!(again, settings, "{shown}");
        assert_eq!(show(&again), shown, "it says the same again");
    }
}

#[test]
fn rare_values_are_read_as_the_same() {
    for rare in [
        "limits: { creations_per_client: 0, landing: off }",
        "limits: { landing: 20 }",
        "cors: { origins: [] }",
        "health: { probe: tcp }",
        "log: { access: failures }",
        "host_attribute: pass",
        "placement: 'query:room'",
        "admin: off",
        "threads: 3",
    ] {
        let text = format!(
            "listen: [{{ address: '127.0.0.1:0' }}]\nnodes: [{{ name: '1', address: '[::1]:1' }}]\n{rare}\n"
        );
        let settings = parse(&text, "rare").unwrap();
        let shown = show(&settings);
        assert_eq!(parse(&shown, "shown").unwrap(), settings, "{shown}");
    }
}

#[test]
fn a_secret_is_not_shown_and_named() {
    let key = "5ec4e700000000000000000000000abc";
    let text = format!(
        "listen: [{{ address: '127.0.0.1:0' }}]\nnodes: [{{ name: t1, address: 't1:1' }}]\n\
         log: {{ session_key: '{key}' }}\nadmin: {{ token_file: /run/token }}\n"
    );
    let shown = show(&parse(&text, "f").unwrap());
    assert!(shown.starts_with("# redacted: log.session_key."), "{shown}");
    assert!(
        !shown.contains("5ec4e7") && shown.contains("token_file: /run/token"),
        "{shown}"
    );
    assert!(!show(&parse(&shown, "f").unwrap()).contains('#'));
}
