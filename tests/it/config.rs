//! Configuration files and what is said of them: every shipped file is good, every bad file gets
//! its message to the letter, and the documentation names what the parser knows.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bowline::config::{
    self, AccessLog, Affinity, ConfigError, CorsOwner, CreationFrom, HostAttribute, LogFormat,
    Origins, Placement, Probe, QueryPolicy, Settings,
};

use crate::support::folder::Folder;
use crate::support::program::Program;
use crate::support::tls::{Authority, Issued};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(path: &Path) -> Settings {
    config::load(path).unwrap_or_else(|error| panic!("{error}"))
}

/// The files below a folder, in order; none if there is no such folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn yaml_below(folder: &str) -> Vec<PathBuf> {
    let mut paths = files_below(&root().join(folder));
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths
}

fn bowline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .current_dir(root())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_shipped_configuration_is_good() {
    let mut paths = yaml_below("config");
    assert!(paths.len() >= 2, "{paths:?}");
    paths.extend(yaml_below("deploy"));
    paths.retain(|path| {
        let in_deploy = path.starts_with(root().join("deploy"));
        !in_deploy || path.file_name().is_some_and(|name| name == "bowline.yaml")
    });
    for path in paths {
        load(&path);
    }
}

#[test]
fn odd_but_good_files_are_read() {
    let paths = yaml_below("tests/config/valid");
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        load(&path);
    }
}

/// An error as the bad files have it: its line, its key and its reason.
fn said(error: &ConfigError) -> String {
    let line = error.line().map(|line| format!("{line}: "));
    let key = Some(error.key()).filter(|key| !key.is_empty());
    let key = key.map(|key| format!("{key}: "));
    let (line, key) = (line.unwrap_or_default(), key.unwrap_or_default());
    format!("{line}{key}{}", error.reason())
}

#[test]
fn every_bad_file_gets_its_messages_to_the_letter() {
    let paths = yaml_below("tests/config/invalid");
    assert!(paths.len() >= 35, "{paths:?}");
    let mut with_several = 0;
    for path in paths {
        let aside = path.with_extension("txt");
        let expected: Vec<String> = if aside.exists() {
            vec![read(&aside).trim_end().to_owned()]
        } else {
            let text = read(&path);
            let errors = text
                .lines()
                .map_while(|line| line.strip_prefix("# error: "));
            errors.map(str::to_owned).collect()
        };
        let Err(errors) = config::load(&path) else {
            panic!("{} is taken", path.display());
        };
        let errors: Vec<String> = errors.iter().map(said).collect();
        assert_eq!(errors, expected, "{}", path.display());
        with_several += usize::from(errors.len() > 1);
    }
    assert!(with_several >= 3, "{with_several}");
}

#[test]
fn every_key_has_its_effect() {
    let settings = load(&root().join("tests/config/valid/every_key_flow_style.yaml"));
    let defaults = Settings::for_nodes(Vec::new());
    assert_eq!(settings.listen.len(), 4);
    let tls = settings.listen[1].tls.as_ref().expect("there");
    assert_eq!(tls.certificates.len(), 2);
    assert_eq!(tls.certificates[1].certificate, Path::new("b.pem"));
    assert_eq!(tls.certificates[1].key, Path::new("b.key"));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("ca.pem")));
    let socket = PathBuf::from("/run/a.sock").into();
    assert_eq!(settings.listen[2].address, socket);
    assert_eq!(settings.listen[2].mode, 0o777);
    assert!(settings.listen[3].redirect_to_https);
    let proxies = settings.listen[3].proxy_protocol.as_ref().expect("there");
    let expected = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
    assert_eq!(proxies.from, expected);
    assert_eq!(settings.limits.handshakes, 1);
    assert_eq!(settings.bosh.paths, ["/"]);
    assert_eq!(settings.bosh.max_body, 1024);
    assert_eq!(settings.bosh.max_answer, 64 * 1024 * 1024);
    assert_eq!(settings.bosh.creation_from, CreationFrom::Pass);
    assert_eq!(settings.bosh.query, QueryPolicy::Pass);
    assert_eq!(settings.bosh.answer_headers, ["x-jitsi-shard", "x-b"]);
    assert_eq!(settings.cors.owner, CorsOwner::Pass);
    let name = HostAttribute::Rewrite("chat.example.com".into());
    assert_eq!(settings.host_attribute, name);
    assert_eq!(settings.affinity, Affinity::ClientIp);
    assert_eq!(settings.affinity_ttl.as_secs(), 86_400);
    assert_eq!(settings.placement, Placement::LeastSessions);
    assert!(settings.placement_wait.is_zero());
    let proxies: Vec<String> = settings
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]);
    assert!(matches!(&settings.cors.origins, Origins::Only(origins) if origins.len() == 3));
    assert!(settings.cors.credentials);
    assert_eq!(settings.cors.headers, ["Authorization", "X-Foo"]);
    let list = settings.node_list.as_ref().expect("there");
    assert_eq!((&*list.path, list.host_meta), ("/n", false));
    assert!(list.max_age.is_zero());
    let url = settings.nodes[0].public_url.as_deref();
    assert_eq!(url, Some("https://[2001:db8::1]:5280/b"));
    assert_eq!(settings.nodes[0].weight, 256);
    let path = "/status".to_owned();
    assert_eq!(settings.health.probe, Probe::Http { path });
    let host = settings.health.host.as_deref();
    assert_eq!(host, Some("chat.example.com:8080"));
    assert_eq!(settings.health.interval.as_millis(), 10);
    assert_eq!(settings.health.fast_interval.as_millis(), 10);
    assert_eq!((settings.health.rise, settings.health.fall), (100, 1));
    assert_ne!(settings.health.silence, defaults.health.silence);
    assert_ne!(settings.health.slow_start, defaults.health.slow_start);
    assert_ne!(settings.health.penalty, defaults.health.penalty);
    assert_ne!(settings.health.penalty_max, defaults.health.penalty_max);
    assert_eq!(settings.upstream.connecting, 10_000);
    assert_eq!(settings.upstream.connects_per_second, 0);
    assert_ne!(settings.admin, defaults.admin);
    assert_eq!(settings.limits.connections, 1);
    assert_eq!(settings.limits.connections_per_client, 0);
    assert_eq!(settings.limits.streams, 1000);
    assert!(settings.listen[0].h2c && !settings.listen[1].h2c);
    assert_eq!(settings.limits.body_memory, 1024 * 1024);
    assert_eq!(settings.limits.answer_memory, 0);
    assert_eq!(settings.limits.sessions, 100_000_000);
    assert_eq!(settings.limits.creations_per_client, 1);
    assert_eq!(settings.limits.creations_burst, 1);
    assert_eq!(settings.limits.unknown_sids_per_second, 0);
    assert_eq!(settings.limits.unknown_sids_per_client, 1_000_000);
    assert!(settings.limits.exempt.is_empty());
    assert_eq!(settings.nodes[0].max_sessions, 5);
    let (given, usual) = (&settings.timeouts, &defaults.timeouts);
    assert_ne!(given.head, usual.head);
    assert_ne!(given.body, usual.body);
    assert_ne!(given.write_stall, usual.write_stall);
    assert_ne!(given.idle, usual.idle);
    assert_ne!(given.connect, usual.connect);
    assert_ne!(given.retry, usual.retry);
    assert_ne!(given.drain_notice, usual.drain_notice);
    assert_ne!(given.drain, usual.drain);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.filter, "info,bowline::proxy=debug");
    let sample = AccessLog::Sample(100.try_into().expect("not 0"));
    assert_eq!(settings.log.access, sample);
    assert_eq!(settings.log.session_key, Some(0xabc));
    assert_eq!(settings.threads, 256);
}

#[test]
fn the_log_of_requests_is_switched_by_words() {
    let minimal = read(&root().join("config/minimal.yaml"));
    let cases = [
        ("on", AccessLog::On),
        ("true", AccessLog::On),
        ("'on'", AccessLog::On),
        ("off", AccessLog::Off),
        ("false", AccessLog::Off),
        ("failures", AccessLog::Failures),
    ];
    for (word, access) in cases {
        let text = format!("{minimal}log: {{ access: {word} }}\n");
        let settings = config::parse(&text, "f").expect(word);
        assert_eq!(settings.log.access, access, "{word}");
    }
}

#[test]
fn traces_are_for_a_build_that_has_them() {
    let minimal = read(&root().join("config/minimal.yaml"));
    let text = format!("{minimal}traces: {{ endpoint: 'http://[::1]:4318' }}\n");
    let traces = config::parse(&text, "f").map(|settings| settings.traces);
    if cfg!(feature = "otlp") {
        let traces = traces.expect("good").expect("there");
        assert_eq!(traces.endpoint, "http://[::1]:4318/v1/traces");
        assert_eq!(traces.sample, 1);
    } else {
        let errors = traces.expect_err("no feature");
        let reason = errors.iter().next().expect("an error").reason();
        assert_eq!(
            reason,
            "needs a Bowline that was built with `--features otlp`"
        );
    }
}

#[test]
fn sections_without_content_leave_the_defaults() {
    let settings = load(&root().join("tests/config/valid/sections_without_content.yaml"));
    let expected = Settings {
        listen: settings.listen.clone(),
        admin: None,
        ..Settings::for_nodes(settings.nodes.clone())
    };
    assert_eq!(settings, expected);
    assert_eq!(settings.nodes[1].name, "007");
}

#[test]
fn no_default_of_health_is_above_the_interval() {
    let settings = load(&root().join("tests/config/valid/no_other_origin.yaml"));
    assert_eq!(settings.health.timeout.as_millis(), 100);
    assert_eq!(settings.health.fast_interval.as_millis(), 100);
    assert_eq!(settings.cors.origins, Origins::Only(Vec::new()));
}

#[test]
fn what_cannot_be_read_is_told_without_a_line() {
    let missing = root().join("config/no-such-file.yaml");
    for path in [missing.as_path(), root()] {
        let error = config::load(path).expect_err("nothing to read");
        assert!(error.iter().all(|error| error.line().is_none()));
        let start = format!("{}: cannot be read: ", path.display());
        assert!(error.to_string().starts_with(&start), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn check_says_what_a_good_file_asks_for() {
    let output = bowline(&["check", "config/bowline.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        "config/bowline.yaml: ok (3 nodes, listening on 0.0.0.0:5280)\n"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn check_says_on_stderr_what_is_wrong() {
    let output = bowline(&["check", "tests/config/invalid/health_rise_0.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(
        text(&output.stderr),
        "tests/config/invalid/health_rise_0.yaml:8:9: health.rise: must be at least 1, is 0\n   \
            8 |   rise: 0\n     |         ^\n"
    );
}

#[test]
fn check_says_all_that_is_wrong_with_lines_and_carets() {
    let file = "tests/config/invalid/several_errors.yaml";
    let output = bowline(&["check", file]);
    assert_eq!(output.status.code(), Some(78));
    let report = format!(
        "\
{file}:11:5: nodes[0]: unknown key `wieght`, did you mean `weight`?
  11 |     wieght: 2
     |     ^^^^^^
{file}:13:12: health.penalty: must be at most `penalty_max`, which is 1m, is 2m
  13 |   penalty: 2m
     |            ^^
{file}:15:1: unknown key `limit`, did you mean `limits`?
  15 | limit: {{ sessions: 0 }}
     | ^^^^^
{file}:18:16: log.session_key: must be 32 hexadecimal digits in quotes
  18 |   session_key: ***********
     |                ^^^^^^^^^^^
{file}:19:11: log.format: must be one of text, json, is `yaml`
  19 |   format: yaml
     |           ^^^^
5 errors in {file}
"
    );
    assert_eq!(text(&output.stderr), report);
}

#[test]
fn run_refuses_what_check_refuses() {
    let file = "tests/config/invalid/threads_0.yaml";
    let (check, run) = (
        bowline(&["check", file]),
        bowline(&["run", "--config", file]),
    );
    assert_eq!(run.status.code(), Some(78));
    assert_eq!(run.stderr, check.stderr);
}

/// What `run` logs until it serves, with a token file of this mode.
fn log_of_a_start(mode: u32) -> String {
    let folder = Folder::new("start").unwrap();
    let token = folder.write("token", "correct-horse-battery\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
    let listen = "listen: [{ address: '127.0.0.1:0' }]\n";
    let nodes = "nodes: [{ name: t1, address: '127.0.0.1:9' }]\n";
    let admin = format!(
        "admin: {{ address: '127.0.0.1:0', token_file: '{}' }}\n",
        token.display()
    );
    let text = format!("{listen}{nodes}{admin}");
    let file = folder.write("bowline.yaml", &text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(["run", "--config"]).arg(&file);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    let mut program = Program::start(command.stderr(Stdio::piped())).unwrap();
    let mut log = String::new();
    for line in BufReader::new(program.child.stderr.take().unwrap()).lines() {
        log = log + &line.unwrap() + "\n";
        if log.contains("admin listening") {
            break;
        }
    }
    log
}

#[test]
fn mistakes_of_the_operator_are_warned_of() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    for (mode, is_open) in [(0o600, false), (0o644, true)] {
        let log = log_of_a_start(mode);
        assert!(log.contains("admin listening"), "{log}");
        let told = |words| log.lines().any(|line| line.contains(words));
        let warned =
            told("level=warn target=bowline::admin::access msg=\"every user of this machine can");
        assert_eq!(warned, is_open, "{log}");
        let warned = told("level=warn target=bowline::cli::run msg=\"running as root");
        assert_eq!(warned, is_root, "{log}");
    }
}

/// Of a file without an end no more is read than a good one could have.
#[test]
fn files_without_end_are_refused() {
    for (command, told) in [
        ("check /dev/zero", "/dev/zero: is larger than 256KiB"),
        ("status --token-file /dev/zero", "must hold one line"),
    ] {
        let script = format!("ulimit -v 4000000 && exec \"$0\" {command}");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_bowline")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert!(text(&output.stderr).contains(told), "{output:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_mistakes_to_stderr() {
    let help = bowline(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("bowline check config/bowline.yaml"));
    let version = bowline(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = concat!("bowline ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(text(&version.stdout), expected);
    for mistake in [&[][..], &["run"], &["check"], &["chek"]] {
        let output = bowline(mistake);
        assert_eq!(output.status.code(), Some(64), "{mistake:?}");
        assert_eq!(text(&output.stdout), "", "{mistake:?}");
        assert!(!output.stderr.is_empty(), "{mistake:?}");
    }
}

#[test]
fn the_documentation_names_every_key_and_no_other() {
    let text = read(&root().join("docs/configuration.md"));
    let named: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    let known: BTreeSet<String> = config::keys().collect();
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(named.len(), known.len(), "a key is documented twice");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let text = read(&root().join("docs/configuration.md"));
    let (_, after) = text
        .split_once("```yaml defaults\n")
        .expect("a block of all defaults");
    let (block, _) = after.split_once("```").expect("its end");
    let minimal = read(&root().join("config/minimal.yaml"));
    let documented = config::parse(&format!("{minimal}{block}"), "docs").expect("a good block");
    assert_eq!(
        documented,
        config::parse(&minimal, "minimal").expect("good")
    );
}

#[test]
fn the_tables_show_the_same_defaults() {
    let text = read(&root().join("docs/configuration.md"));
    let minimal = read(&root().join("config/minimal.yaml"));
    let expected = config::parse(&minimal, "minimal").expect("good");
    let mut compared = 0;
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').map(|cell| cell.split('`').nth(1));
        let (Some(Some(key)), Some(Some(default))) = (cells.nth(1), cells.nth(1)) else {
            continue;
        };
        let setting = match key.split_once('.') {
            None => format!("{key}: {default}"),
            Some((section, _)) if section.ends_with("[]") => continue,
            Some((_, key)) if key.contains("[]") => continue,
            Some(_) if key == "health.path" => continue,
            Some((section, key)) => format!("{section}: {{ {key}: {default} }}"),
        };
        let settings = config::parse(&format!("{minimal}{setting}\n"), key);
        assert_eq!(settings.expect("a good default"), expected, "{setting}");
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
}

#[test]
fn the_example_shows_every_key_and_its_defaults() {
    let text = read(&root().join("config/bowline.yaml"));
    for key in config::keys() {
        let last = key.rsplit('.').next().expect("a last part");
        let shown = text.contains(&format!("{last}:")) || key == "health.path";
        assert!(shown, "{key}");
    }
    let uncommented: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                format!("{indent}{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented, text);
    let all = config::parse(&uncommented, "uncommented").expect("good settings");
    assert_eq!(all, config::parse(&text, "example").expect("good"));
}

#[test]
fn check_reads_the_authorities_of_nodes() {
    let authority = Authority::new();
    let folder = authority.folder.path().display().to_string();
    let write = |name: &str, text: &str| authority.folder.write(name, text).unwrap();
    write("text.pem", "no certificate");
    write("good.pem", &authority.pem);
    let cases = [
        (format!("{{ ca: {folder}/good.pem }}"), true, ""),
        (
            "{ verify: false }".to_owned(),
            true,
            "warning: the certificate of the node is not verified",
        ),
        (
            format!("{{ ca: {folder}/none.pem }}"),
            false,
            "none.pem cannot be read: ",
        ),
        (
            format!("{{ ca: {folder}/text.pem }}"),
            false,
            "text.pem has no certificate (PEM)",
        ),
    ];
    for (tls, good, words) in cases {
        let text = format!(
            "listen: [{{ address: '127.0.0.1:0' }}]\n\
             nodes: [{{ name: t1, address: 't1:5281', tls: {tls} }}]\n"
        );
        let path = write("bowline.yaml", &text);
        let path = path.to_str().unwrap();
        let output = bowline(&["check", path]);
        assert_eq!(
            output.status.code(),
            Some(if good { 0 } else { 78 }),
            "{output:?}"
        );
        let told = self::text(&output.stderr);
        let begins = words.is_empty() || told.contains(&format!("{path}: node t1: tls: "));
        assert!(begins && told.contains(words), "{told}");
        assert_eq!(words.is_empty(), told.is_empty(), "{told}");
        if !good {
            let output = bowline(&["run", "--config", path]);
            assert_eq!(output.status.code(), Some(78), "{output:?}");
            assert!(
                self::text(&output.stderr).contains("`tls` of node t1: "),
                "{output:?}"
            );
        }
    }
}

#[test]
fn check_reads_certificates() {
    let authority = Authority::new();
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    let file = |name: &str, issued: &Issued, mode: u32| {
        let files = authority.write(name, issued);
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let text = format!(
            "listen: [{{ address: '127.0.0.1:0', tls: {{ certificate: {certificate}, key: {key} }} }}]\n\
             nodes: [{{ name: t1, address: 't1:5280' }}]\n"
        );
        let path = authority.folder.write(&format!("{name}.yaml"), &text);
        path.unwrap().to_str().unwrap().to_owned()
    };
    let with_issuer = |mut issued: Issued| {
        issued.certificate += &authority.pem;
        issued
    };
    let good = with_issuer(authority.issue("a"));
    let other = with_issuer(authority.issue("a"));
    let mismatched = Issued {
        certificate: good.certificate.clone(),
        key: other.key,
    };
    let ends = |at| with_issuer(authority.issue_with("a", |params| params.not_after = at));
    let cases = [
        ("good", &good, 0o600, true, ""),
        (
            "open",
            &good,
            0o604,
            true,
            "can be read by every user (mode 604)",
        ),
        (
            "alone",
            &authority.issue("a"),
            0o600,
            true,
            "has no certificate of its issuer",
        ),
        ("old", &ends((now - day).into()), 0o600, true, "expired on "),
        (
            "soon",
            &ends((now + 3 * day).into()),
            0o600,
            true,
            "expires on ",
        ),
        (
            "mismatched",
            &mismatched,
            0o600,
            false,
            "is not the key of the certificate in ",
        ),
    ];
    for (name, issued, mode, taken, said) in cases {
        let output = bowline(&["check", &file(name, issued, mode)]);
        let stderr = text(&output.stderr);
        let code = if taken { 0 } else { 78 };
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        assert_eq!(stderr.is_empty(), said.is_empty(), "{name}: {stderr}");
    }
    let path = file("missing", &good, 0o600);
    fs::remove_file(authority.folder.path().join("missing.key")).unwrap();
    let output = bowline(&["check", &path]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("missing.key cannot be read: "));
}

#[test]
fn check_reads_tokens() {
    let folder = Folder::new("check-tokens").unwrap();
    let token = folder.path().join("token");
    let file = folder.path().join("a.yaml");
    let minimal = read(&root().join("config/minimal.yaml"));
    let admin = format!("admin: {{ token_file: '{}' }}\n", token.display());
    fs::write(&file, minimal + &admin).unwrap();
    let check = || bowline(&["check", file.to_str().unwrap()]);
    let missing = check();
    assert_eq!(missing.status.code(), Some(78));
    let said = text(&missing.stderr);
    assert!(said.contains("a.yaml: admin: token file "), "{said}");
    fs::write(&token, "0123456789abcdef").unwrap();
    assert_eq!(check().status.code(), Some(0));
}

#[tokio::test]
async fn check_asks_nodes_and_takes_addresses_when_it_is_to_probe() {
    let node = crate::balancer::tigase_nodes(1).await.remove(0);
    let folder = Folder::new("check-probe").unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = crate::support::program::free_address().unwrap();
    for (name, listen, nodes, code, said) in [
        (
            "good",
            "127.0.0.1:0".to_owned(),
            vec![node.address()],
            0,
            "",
        ),
        (
            "gone",
            "127.0.0.1:0".to_owned(),
            vec![node.address(), gone],
            69,
            "node t2 at ",
        ),
        (
            "used",
            held.local_addr().unwrap().to_string(),
            vec![node.address()],
            71,
            "cannot listen on ",
        ),
    ] {
        let file = folder.path().join(format!("{name}.yaml"));
        let nodes = nodes.iter().zip(1..);
        let nodes =
            nodes.map(|(address, n)| format!("  - {{ name: t{n}, address: '{address}' }}\n"));
        let nodes: String = nodes.collect();
        let config = format!(
            "listen: [{{ address: '{listen}' }}]\nadmin: {{ address: 127.0.0.1:0 }}\nnodes:\n{nodes}"
        );
        fs::write(&file, config).unwrap();
        let file = file.to_str().unwrap().to_owned();
        let output = tokio::task::spawn_blocking(move || bowline(&["check", "--probe", &file]));
        let output = output.await.unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        assert_eq!(stderr.is_empty(), said.is_empty(), "{name}: {stderr}");
    }
}

#[test]
fn the_shown_configuration_is_one_and_the_schema_is_json() {
    let file = "config/bowline.yaml";
    let shown = bowline(&["config", "show", file]);
    assert_eq!(shown.status.code(), Some(0));
    let again = config::parse(text(&shown.stdout), "shown").unwrap();
    assert_eq!(again, load(&root().join(file)));
    assert!(text(&shown.stdout).contains("penalty_max: 5m\n"));
    let bad = bowline(&["config", "show", "tests/config/invalid/threads_0.yaml"]);
    assert_eq!(bad.status.code(), Some(78));
    assert_eq!(text(&bad.stdout), "");
    let schema = bowline(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    let rise = &schema["properties"]["health"]["anyOf"][0]["properties"]["rise"];
    assert_eq!(rise["maximum"], 100);
}
