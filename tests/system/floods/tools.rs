//! Suites of others.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::balancer::{Bowline, Launch, Nodes};
use super::cases::Context;
use super::report::Report;
use crate::Result;

/// Debian's slowhttptest in its four modes: slow heads, slow bodies, ranges, slow reading.
pub(super) async fn slowhttptest(context: &Context, report: &mut Report) -> Result<()> {
    if Command::new("slowhttptest").arg("-h").output().is_err() {
        report.figure("skipped", "slowhttptest is not installed");
        return Ok(());
    }
    let nodes = Nodes::start(2)?;
    let bowline = Bowline::start(&context.binary, &nodes, &Launch::default()).await?;
    let url = format!("http://{}/http-bind", bowline.address);
    let (seconds, connections) = if context.quick {
        ("4", "500")
    } else {
        ("40", "4000")
    };
    let modes: [(&str, &[&str]); 4] = [
        ("slow heads", &["-H", "-i", "1"]),
        ("slow bodies", &["-B", "-i", "1", "-s", "8192"]),
        ("ranges", &["-R"]),
        (
            "slow reading",
            &[
                "-X", "-k", "10", "-w", "1", "-y", "512", "-n", "1", "-z", "5",
            ],
        ),
    ];
    for (name, mode) in modes {
        let mut command = Command::new("slowhttptest");
        command.args(mode);
        command.args([
            "-c",
            connections,
            "-r",
            "1000",
            "-l",
            seconds,
            "-p",
            "2",
            "-u",
            &url,
        ]);
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let plain: String = said.split('\u{1b}').collect::<Vec<_>>().join(" ");
        // It says so every few seconds, and once more at its end.
        let told = plain
            .lines()
            .filter(|line| line.contains("service available"));
        let told: Vec<bool> = told.map(|line| line.contains("YES")).collect();
        report.figure(
            name,
            format!("the service was asked for {} times", told.len()),
        );
        report.must(
            &format!("{name}: the service is always available"),
            !told.is_empty() && told.iter().all(|available| *available),
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
