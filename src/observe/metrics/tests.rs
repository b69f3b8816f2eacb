//! What the page says, and that it is well formed.

use super::*;

fn page() -> String {
    let metrics = Metrics::new();
    metrics.count_request(Kind::Poll, Outcome::Ok);
    metrics.count_request(Kind::Poll, Outcome::Ok);
    metrics.count_reject("malformed");
    metrics.connections.set(12);
    metrics.set_process(&Process {
        cpu_seconds: 1.5,
        resident_bytes: 4096,
        virtual_bytes: 8192,
        threads: 3,
        open_fds: 7,
        max_fds: Some(1024),
    });
    let node = metrics.node("t1");
    node.set_verdict(1, true);
    node.created.inc();
    node.connect_failures.inc();
    node.connect_seconds.observe(0.002);
    metrics.exposition()
}

#[test]
fn what_was_counted_is_told() {
    let page = page();
    for line in [
        "bowline_requests_total{kind=\"poll\",outcome=\"ok\"} 2",
        "bowline_requests_total{kind=\"creation\",outcome=\"client_gone\"} 0",
        "bowline_rejects_total{cause=\"malformed\"} 1",
        "bowline_rejects_total{cause=\"full\"} 0",
        "bowline_sessions_created_total{node=\"t1\"} 1",
        "bowline_connections 12",
        "bowline_node_up{node=\"t1\"} 1",
        "bowline_upstream_connects_total{node=\"t1\",outcome=\"failed\"} 1",
        "# UNIT bowline_upstream_connect_seconds seconds",
        "bowline_upstream_connect_seconds_bucket{le=\"0.001\",node=\"t1\"} 0",
        "bowline_upstream_connect_seconds_bucket{le=\"0.0025\",node=\"t1\"} 1",
        "bowline_upstream_connect_seconds_count{node=\"t1\"} 1",
        &format!(
            "bowline_build_info{{version=\"{}\",os=\"{}\",arch=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
        "process_cpu_seconds_total 1.5",
        "process_resident_memory_bytes 4096",
        "process_virtual_memory_bytes 8192",
        "process_threads 3",
        "process_open_fds 7",
        "process_max_fds 1024",
    ] {
        assert!(page.lines().any(|told| told == line), "{line}\nin\n{page}");
    }
}

#[test]
fn a_node_that_is_hidden_counts_on_and_is_shown_with_its_counts() {
    let metrics = Metrics::new();
    let (first, second) = (metrics.node("t1"), metrics.node("t2"));
    first.created.inc();
    metrics.hide_node("t1");
    first.created.inc();
    second.created.inc();
    let page = metrics.exposition();
    assert!(!page.contains("node=\"t1\""), "{page}");
    assert!(page.contains("bowline_sessions_created_total{node=\"t2\"} 1\n"));
    metrics.show_node("t1", &first);
    let page = metrics.exposition();
    assert!(page.contains("bowline_sessions_created_total{node=\"t1\"} 2\n"));
}

#[test]
fn the_page_is_well_formed() {
    let page = page();
    assert!(page.ends_with("\n# EOF\n"));
    let (mut family, mut kind) = ("", "");
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let known = ["bowline_", "process_"];
            assert!(
                known.iter().any(|prefix| name.starts_with(prefix)),
                "{line}"
            );
            let begins = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
            assert!(help.starts_with(begins) && help.ends_with('.'), "{line}");
            family = name;
        } else if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, told) = told.split_once(' ').unwrap();
            assert_eq!(name, family);
            kind = told;
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert!(name == family && name.ends_with(unit), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let suffix = name
                .strip_prefix(family)
                .expect("samples follow their family");
            let allowed: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other}: {line}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
