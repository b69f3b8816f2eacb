//! What a balancer's memory grows by: for a session with a poll held, and for an idle connection.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::balancer::Running;
use crate::client::{Client, Failure};
use crate::load::{self, Plan};
use crate::nodes::Nodes;

/// How many clients connect at the same time.
const AT_ONCE: usize = 64;

/// How long all polls may take to their node.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients do before they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// They make a session and poll; the node holds the poll.
    Held,
    /// They make a session and end it, and keep their connection.
    Idle,
    /// They open a WebSocket.
    Tunnel,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Growth {
    /// KiB for each client.
    pub(crate) each: f64,
    /// Clients that did not get what they wanted, or were closed or told something meanwhile.
    pub(crate) failures: u64,
    /// What the first failure was.
    pub(crate) first_failure: Option<Failure>,
}

/// Has `count` clients stay at `balancer`, and says what each costs it.
pub(crate) async fn grow(
    balancer: &Running,
    nodes: &Nodes,
    count: usize,
    stay: Stay,
) -> Result<Growth> {
    let process = balancer.process().ok_or("no balancer")?;
    warm_up(balancer).await?;
    let before = process.settled().await?;
    let (clients, mut failed) = gather(balancer, count, stay).await;
    if stay != Stay::Idle {
        let begun = Instant::now();
        while nodes.seen().await?.held < clients.len() as u64 {
            if begun.elapsed() > PATIENCE {
                failed.push("not every client came to its node".into());
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    let after = process.settled().await?;
    let disturbed = clients.iter().filter(|client| !client.is_quiet()).count();
    for _ in 0..disturbed {
        failed.push("a connection that should stay was closed or told something".into());
    }
    Ok(Growth {
        each: after.saturating_sub(before) as f64 / 1024.0 / clients.len().max(1) as f64,
        failures: failed.len() as u64,
        first_failure: failed.into_iter().next(),
    })
}

/// Lets the balancer allocate what it allocates once.
async fn warm_up(balancer: &Running) -> Result<()> {
    let plan = Plan {
        target: balancer.target,
        connections: AT_ONCE,
        per_session: 10,
        payload: 100,
        warm_up: Duration::ZERO,
        window: Duration::from_millis(200),
        rate: None,
        core: None,
    };
    let outcome = load::run(plan, None).await?;
    match outcome.first_failure {
        None => Ok(()),
        Some(failure) => Err(format!("warm-up: {failure}").into()),
    }
}

async fn gather(balancer: &Running, count: usize, stay: Stay) -> (Vec<Client>, Vec<Failure>) {
    let mut clients = Vec::with_capacity(count);
    let mut failed = Vec::new();
    let mut coming = JoinSet::new();
    for number in 0..count + AT_ONCE {
        if number >= AT_ONCE {
            match coming.join_next().await {
                Some(Ok(Ok(client))) => clients.push(client),
                Some(Ok(Err(failure))) => failed.push(failure),
                Some(Err(error)) => failed.push(error.to_string()),
                None => {}
            }
        }
        if number < count {
            let target = balancer.target;
            coming.spawn(async move {
                let mut client = Client::connect(target, number, 0).await?;
                if stay == Stay::Tunnel {
                    client.open_tunnel().await?;
                    return Ok(client);
                }
                client.create().await?;
                match stay {
                    Stay::Held => client.poll().await?,
                    Stay::Idle | Stay::Tunnel => client.terminate().await?,
                }
                Ok(client)
            });
        }
    }
    (clients, failed)
}
