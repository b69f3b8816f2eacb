//! The process that takes over: it starts with the sockets of the other one and a closed gate, takes the pins
//! in, and opens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::error::TakeoverError;
use super::passing::take_changes;
use super::takeover::Phase;
use super::{Server, StartError};
use crate::config::Settings;
use crate::downstream::Drain;
use crate::handover::{Channel, HandoverError, Kind, Predecessor};
use crate::proxy::Proxy;
use crate::snapshot;
use crate::snapshot::format::Snapshot;

/// How long it waits for the first verdict on each node.
const PROBED_WITHIN: Duration = Duration::from_secs(3);

/// From one look at the verdicts to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long the other process may take to send its pins: it encodes them, and stops accepting.
const PINS_WITHIN: Duration = Duration::from_secs(30);

/// How long another step may take.
const STEP: Duration = Duration::from_secs(10);

/// The most bytes of a reason.
const REASON: usize = 1000;

impl Server {
    /// Starts in place of another process, which serves until this one could, and goes on if this one fails.
    ///
    /// # Errors
    ///
    /// [`TakeoverError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn take_over(
        settings: &Settings,
        predecessor: Predecessor,
    ) -> Result<Self, TakeoverError> {
        let Predecessor {
            mut channel,
            sockets,
        } = predecessor;
        let taken = Self::take_over_by(settings, &mut channel, sockets).await;
        let mut server = match taken {
            Ok(server) => server,
            Err(error) => {
                // It logs the reason, if it is still there.
                let mut why = error.to_string().into_bytes();
                why.truncate(REASON);
                let _ = channel.send(Kind::Refused, &why, None, STEP).await;
                return Err(error);
            }
        };
        server.replaced = Some(tokio::spawn(listen(
            channel,
            Arc::clone(&server.proxy),
            Arc::clone(&server.drain),
            server.phase.subscribe(),
        )));
        Ok(server)
    }

    async fn take_over_by(
        settings: &Settings,
        channel: &mut Channel,
        sockets: crate::handover::Sockets,
    ) -> Result<Self, TakeoverError> {
        let mut server = Self::start_closed(settings, sockets).map_err(TakeoverError::Start)?;
        let proxy = Arc::clone(&server.proxy);
        let give_up = Instant::now() + PROBED_WITHIN;
        while !proxy.cluster.ready() && Instant::now() < give_up {
            sleep(LOOK_EVERY).await;
        }
        channel.send(Kind::Ready, b"", None, STEP).await?;
        let bytes = channel.expect(Kind::Pins, PINS_WITHIN).await?;
        let begun = Instant::now();
        let took = take_in(&proxy, &bytes, true).map_err(TakeoverError::Pins)?;
        server.configure_states();
        take_answers(channel, &proxy).await?;
        let load_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        channel.send(Kind::Loaded, b"", None, STEP).await?;
        channel.expect(Kind::Yours, STEP).await?;
        // From here on the other process leaves newcomers to this one.
        channel.send(Kind::Mine, b"", None, STEP).await?;
        server
            .open()
            .map_err(|source| TakeoverError::Start(StartError::Worker(source)))?;
        info!(
            sessions = took.restored,
            dropped = took.dropped,
            load_ms,
            "took over from another process"
        );
        Ok(server)
    }
}

/// Takes in what the other process knows of single sessions.
async fn take_answers(channel: &mut Channel, proxy: &Proxy) -> Result<(), HandoverError> {
    loop {
        let received = timeout(STEP, channel.receive()).await;
        match received.map_err(|_| HandoverError::Late(Kind::All))?? {
            (Kind::Key, key) if proxy.sessions.take_answers_key(&key) => {}
            (Kind::Changes, bytes) => take_changes(proxy, &bytes),
            (Kind::All, _) => return Ok(()),
            _ => return Err(HandoverError::Protocol("a frame out of order")),
        }
    }
}

/// Takes in pins of the other process, and what its operator decided if that is `with_states`.
fn take_in(
    proxy: &Proxy,
    bytes: &[u8],
    with_states: bool,
) -> Result<snapshot::Taken, snapshot::format::Broken> {
    let snapshot = Snapshot::read(bytes)?;
    if with_states {
        snapshot::take_states(&snapshot, &proxy.cluster, SystemTime::now());
    }
    let taken = snapshot::take_pins(&snapshot, &proxy.cluster, &proxy.sessions, proxy.now());
    proxy.metrics.sessions_restored.inc_by(taken.restored);
    Ok(taken)
}

/// Takes in what the other process sends until it has ended, and says when this one stops or is replaced in
/// turn.
async fn listen(
    mut channel: Channel,
    proxy: Arc<Proxy>,
    drain: Arc<Drain>,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        let kind = tokio::select! {
            received = channel.receive() => match received {
                Ok((Kind::Late, bytes)) => {
                    if let Err(error) = take_in(&proxy, &bytes, false) {
                        warn!(%error, "sessions of the process before cannot be read");
                    }
                    continue;
                }
                Ok((Kind::Changes, bytes)) => {
                    take_changes(&proxy, &bytes);
                    continue;
                }
                Err(HandoverError::Gone) => {
                    info!("the process before has ended");
                    return;
                }
                Ok(_) | Err(_) => return,
            },
            passed = phase.wait_for(|phase| phase.is_passed()) => match passed {
                Ok(_) => Kind::Passed,
                Err(_) => return,
            },
            () = drain.begun() => Kind::Leaving,
        };
        // It may have ended.
        let _ = channel.send(kind, b"", None, STEP).await;
        return;
    }
}
