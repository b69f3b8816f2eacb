//! The columns of the table: each balancer in turn, round after round.

use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::balancer::{Balancer, Running};
use crate::figures::{Fault, Table};
use crate::load::{self, Outcome, Plan};
use crate::machine::calm;
use crate::memory::{self, Stay};
use crate::nodes::{Nodes, Seen};
use crate::options::Run;
use crate::{plot, report};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Steady,
    Wide,
    Fresh,
    Payload,
    Rate,
    Held,
    Idle,
    Tunnel,
    TlsSteady,
    TlsWide,
    TlsFresh,
    TlsHeld,
    TlsIdle,
    TlsTunnel,
}

impl Column {
    const ALL: [Self; 14] = [
        Self::Steady,
        Self::Wide,
        Self::Fresh,
        Self::Payload,
        Self::Rate,
        Self::Held,
        Self::Idle,
        Self::Tunnel,
        Self::TlsSteady,
        Self::TlsWide,
        Self::TlsFresh,
        Self::TlsHeld,
        Self::TlsIdle,
        Self::TlsTunnel,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Wide => "wide",
            Self::Fresh => "fresh",
            Self::Payload => "payload",
            Self::Rate => "rate",
            Self::Held => "held",
            Self::Idle => "idle",
            Self::Tunnel => "tunnel",
            Self::TlsSteady => "tls",
            Self::TlsWide => "tls-wide",
            Self::TlsFresh => "tls-fresh",
            Self::TlsHeld => "tls-held",
            Self::TlsIdle => "tls-idle",
            Self::TlsTunnel => "tls-tunnel",
        }
    }

    /// Whether it is measured with this balancer: TLS and WebSocket only where both are configured well.
    fn applies(self, balancer: Balancer) -> bool {
        match balancer {
            Balancer::Bowline | Balancer::HaproxyRight => true,
            Balancer::Direct => self == Self::Rate,
            _ => self != Self::Tunnel && !self.is_encrypted(),
        }
    }

    const fn is_encrypted(self) -> bool {
        matches!(
            self,
            Self::TlsSteady
                | Self::TlsWide
                | Self::TlsFresh
                | Self::TlsHeld
                | Self::TlsIdle
                | Self::TlsTunnel
        )
    }

    /// What clients do that stay, and the key of its figure; none where they are busy.
    const fn stay(self) -> Option<(Stay, &'static str)> {
        match self {
            Self::Held => Some((Stay::Held, "held_kib")),
            Self::Idle => Some((Stay::Idle, "idle_kib")),
            Self::Tunnel => Some((Stay::Tunnel, "tunnel_kib")),
            Self::TlsHeld => Some((Stay::Held, "tls_held_kib")),
            Self::TlsIdle => Some((Stay::Idle, "tls_idle_kib")),
            Self::TlsTunnel => Some((Stay::Tunnel, "tls_tunnel_kib")),
            _ => None,
        }
    }

    /// The template of Bowline's configuration, where it has one of its own.
    const fn template(self) -> Option<&'static str> {
        match self {
            Self::Fresh | Self::TlsFresh => Some("bowline-fresh.yaml"),
            Self::Tunnel | Self::TlsTunnel => Some("bowline-websocket.yaml"),
            _ => None,
        }
    }
}

/// Runs the rounds and tells the figures.
pub(crate) async fn run(run: &Run) -> Result<()> {
    let columns = chosen(&Column::ALL, &run.columns, |column| column.name())?;
    let balancers = chosen(&Balancer::ALL, &run.balancers, |balancer| balancer.name())?;
    let (there, missing): (Vec<_>, Vec<_>) = balancers
        .into_iter()
        .partition(|balancer| balancer.is_installed(run));
    for balancer in missing {
        eprintln!("{balancer} is not installed and left out");
    }
    let mut table = Table::default();
    let mut complaints = Vec::new();
    let mut restless = 0;
    for round in 0..run.rounds() {
        for &column in &columns {
            for &balancer in there.iter().filter(|one| column.applies(**one)) {
                eprintln!("round {} {} {balancer}", round + 1, column.name());
                restless += u32::from(!calm(run.patience()).await?);
                let measured = measure(run, column, balancer, round, &mut table).await;
                match measured {
                    Ok(said) => complaints.extend(said),
                    Err(error) => table.fault(column.name(), balancer, broken(&error.to_string())),
                }
            }
        }
    }
    if restless > 0 {
        println!("{restless} measurements began while others were at work on the machine");
    }
    tell(run, &table, &there, &complaints)
}

/// Those of `all` whose names are given; all if none is.
fn chosen<T: Copy>(
    all: &[T],
    names: &[String],
    name: impl Fn(T) -> &'static str,
) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |wanted: &String| all.iter().copied().find(|one| name(*one) == wanted);
    let known: Option<Vec<T>> = names.iter().map(find).collect();
    let all: Vec<&str> = all.iter().map(|one| name(*one)).collect();
    known.ok_or_else(|| format!("there are only {}", all.join(", ")).into())
}

/// One measurement with a balancer and nodes of its own. Says what the balancer complained of.
async fn measure(
    run: &Run,
    column: Column,
    balancer: Balancer,
    round: usize,
    table: &mut Table,
) -> Result<Vec<String>> {
    let nodes = Nodes::start(2)?;
    let running = match balancer {
        Balancer::Direct => Running::direct(&nodes),
        balancer => {
            let core = run.balancer_core.to_string();
            let mut launch = balancer.launch(run, 1, &core);
            launch.encrypted = column.is_encrypted();
            if let Some(template) = column.template().filter(|_| balancer == Balancer::Bowline) {
                launch.template.set_file_name(template);
            }
            Running::start(&launch, &nodes).await?
        }
    };
    let before = nodes.seen().await?;
    let (values, failures, first) = match column.stay() {
        Some(stay) => grown(run, stay, &running, &nodes).await?,
        None => {
            let outcome = load::run(plan(run, column, &running), running.process()).await?;
            table.note_others(balancer, outcome.others);
            (
                values(column, &outcome),
                outcome.failures,
                outcome.first_failure,
            )
        }
    };
    for (key, value) in values {
        table.note(round, key, balancer, value);
    }
    let fault = fault(before, nodes.seen().await?, failures, first);
    table.fault(column.name(), balancer, fault);
    let complaints = running.complaints();
    Ok(complaints
        .into_iter()
        .map(|line| format!("{} {line}", column.name()))
        .collect())
}

type Values = Vec<(&'static str, f64)>;

async fn grown(
    run: &Run,
    (stay, key): (Stay, &'static str),
    running: &Running,
    nodes: &Nodes,
) -> Result<(Values, u64, Option<String>)> {
    let growth = memory::grow(running, nodes, run.held(), stay).await?;
    Ok((
        vec![(key, growth.each)],
        growth.failures,
        growth.first_failure,
    ))
}

fn plan(run: &Run, column: Column, running: &Running) -> Plan {
    Plan {
        target: running.target,
        connections: match column {
            Column::Wide | Column::TlsWide | Column::Rate => run.sessions,
            _ => run.connections,
        },
        per_session: match column {
            Column::Fresh | Column::TlsFresh => 5,
            _ => 200,
        },
        payload: if column == Column::Payload { 2048 } else { 150 },
        // All connections are open when it is over: handshakes take long.
        warm_up: Duration::from_millis(match (run.quick, column.is_encrypted()) {
            (false, true) => 2_000,
            (false, false) => 400,
            (true, true) => 500,
            (true, false) => 100,
        }),
        window: run.span(),
        rate: (column == Column::Rate).then(|| run.rate()),
        core: (!run.unpinned).then_some(run.balancer_core),
    }
}

fn values(column: Column, outcome: &Outcome) -> Values {
    let cpu = outcome.cpu_per_request();
    match column {
        Column::Steady => vec![("steady_cpu", cpu), ("steady_rate", outcome.rate())],
        Column::Wide => vec![("wide_cpu", cpu), ("wide_rate", outcome.rate())],
        Column::Fresh => vec![("fresh_cpu", cpu), ("fresh_rate", outcome.rate())],
        Column::Payload => vec![("payload_cpu", cpu)],
        Column::Rate => vec![
            ("rate_p50", outcome.percentile(0.5)),
            ("rate_p99", outcome.percentile(0.99)),
            ("rate_p999", outcome.percentile(0.999)),
            ("rate_cpu", cpu),
        ],
        Column::TlsSteady => vec![("tls_cpu", cpu)],
        Column::TlsWide => vec![("tls_wide_cpu", cpu)],
        Column::TlsFresh => vec![("tls_fresh_cpu", cpu)],
        _ => Vec::new(),
    }
}

fn fault(before: Seen, after: Seen, failures: u64, first: Option<String>) -> Fault {
    Fault {
        failures,
        misrouted: after.misrouted - before.misrouted,
        shared: after.shared - before.shared,
        first,
    }
}

fn broken(why: &str) -> Fault {
    Fault {
        failures: 1,
        first: Some(why.to_owned()),
        ..Fault::default()
    }
}

fn tell(run: &Run, table: &Table, balancers: &[Balancer], complaints: &[String]) -> Result<()> {
    println!("{}", report::text(table));
    for line in complaints {
        println!("bowline logged: {line}");
    }
    if let Some(file) = &run.json {
        let mut all = table.to_json();
        let versions = balancers.iter();
        all["versions"] = versions
            .filter_map(|balancer| balancer.version(run))
            .collect();
        all["run"] = json!({
            "rounds": run.rounds(), "seconds": run.span().as_secs_f64(),
            "connections": run.connections, "sessions": run.sessions, "rate": run.rate(), "held": run.held(),
            "pinned": !run.unpinned,
            "cores": run.cores,
        });
        all["complaints"] = complaints.into();
        std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    if let Some(file) = &run.plot {
        std::fs::write(file, plot::svg(table))?;
    }
    let ours = |balancer: Balancer| matches!(balancer, Balancer::Bowline);
    let faults = table.faults.iter().filter(|((_, one), _)| ours(*one));
    let wrong = |fault: &Fault| fault.failures + fault.misrouted + fault.shared > 0;
    if faults.map(|(_, fault)| fault).any(wrong) {
        return Err("bowline failed requests".into());
    }
    Ok(())
}
