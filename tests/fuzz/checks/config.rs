//! The configuration: any text gives settings or an error that an operator can use, never a panic;
//! what is accepted keeps the ranges that docs/configuration.md names.

use std::time::Duration;

use bowline::config::{ConfigErrors, HostAttribute, Probe, Settings, parse};

/// Holds it for one text.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let read = parse(text, "f");
    // A byte order mark changes nothing, and neither does a second look.
    if !text.starts_with('\u{FEFF}') {
        match (&read, parse(&format!("\u{FEFF}{text}"), "f")) {
            (Ok(one), Ok(other)) => assert_eq!(*one, other),
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            (one, other) => panic!("{one:?} and with a byte order mark {other:?}"),
        }
    }
    match read {
        Ok(settings) => check_ranges(&settings),
        Err(errors) => check_errors(&errors, text),
    }
}

fn check_errors(errors: &ConfigErrors, text: &str) {
    let lines = text
        .matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
        .count()
        + 1;
    let report = errors.to_string();
    for line in report.split('\n') {
        assert!(!line.contains(char::is_control), "control: {line:?}");
    }
    let count = errors.iter().count();
    assert!((1..=20).contains(&count), "{count} errors");
    let places: Vec<_> = errors
        .iter()
        .map(|error| (error.line(), error.column()))
        .collect();
    assert!(places.is_sorted(), "not in the order of the file: {report}");
    for error in errors.iter() {
        let message = error.to_string();
        assert!(message.starts_with("f:"), "{message}");
        let plain = !message.contains(char::is_control);
        assert!(plain, "more than one plain line: {message:?}");
        assert!(!error.reason().is_empty(), "{message}");
        match error.line() {
            // What is not there at the end of the text is missed in the line behind it.
            Some(line) => assert!((1..=lines + 1).contains(&line), "{lines} lines: {message}"),
            // What is wrong with the file as a whole has no line; anything else has one.
            None => {
                let whole = [
                    "required",
                    "is empty",
                    "must be a mapping",
                    "cannot be read",
                ];
                let whole = whole.iter().any(|words| error.reason().contains(words));
                // A hint about a file that is one text stands alone.
                assert!(whole || count == 1, "no line: {message}");
            }
        }
    }
}

fn check_ranges(settings: &Settings) {
    let day = Duration::from_secs(24 * 60 * 60);
    let short = Duration::from_millis(10);
    assert!((1..=256).contains(&settings.listen.len()));
    assert!((1..=1024).contains(&settings.nodes.len()));
    assert!((1..=256).contains(&settings.threads));
    for (place, node) in settings.nodes.iter().enumerate() {
        let others = &settings.nodes[..place];
        assert!(
            !others
                .iter()
                .any(|other| other.name == node.name || other.address == node.address)
        );
        assert!((1..=64).contains(&node.name.len()) && node.name.is_ascii());
        assert!((1..=256).contains(&node.weight));
        let (_, port) = node.address.rsplit_once(':').expect("a port");
        assert!(port.parse::<u16>().is_ok_and(|port| port > 0));
    }
    assert!(!settings.bosh.paths.is_empty());
    for path in settings
        .bosh
        .paths
        .iter()
        .chain(match &settings.health.probe {
            Probe::Http { path } => Some(path),
            Probe::Bosh | Probe::Tcp => None,
        })
    {
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"<>\"#?\\^`{|}".contains(&byte);
        assert!(path.starts_with('/') && path.bytes().all(fits), "{path}");
    }
    assert!((1024..=16 << 20).contains(&settings.bosh.max_body));
    assert!((1024..=64 << 20).contains(&settings.bosh.max_answer));
    if let HostAttribute::Rewrite(name) = &settings.host_attribute {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(fits), "{name}");
    }
    assert!((1..=10_000_000).contains(&settings.limits.connections));
    assert!((1..=100_000_000).contains(&settings.limits.sessions));
    let health = &settings.health;
    assert!((1..=100).contains(&health.rise) && (1..=100).contains(&health.fall));
    assert!((short..=day).contains(&health.interval));
    assert!((short..=health.interval).contains(&health.fast_interval));
    assert!((short..=health.interval).contains(&health.timeout));
    assert!(health.silence >= health.timeout && health.silence <= day);
    assert!(health.slow_start <= day && health.penalty <= health.penalty_max);
    let timeouts = &settings.timeouts;
    for timeout in [
        timeouts.head,
        timeouts.body,
        timeouts.write_stall,
        timeouts.idle,
        timeouts.connect,
    ] {
        assert!((short..=day).contains(&timeout));
    }
    assert!(timeouts.drain_notice <= day && timeouts.drain <= day);
}
