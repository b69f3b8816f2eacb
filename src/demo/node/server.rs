//! The inside of a simulated node: accepts connections, understands requests, chooses between
//! serving and misbehaving, keeps the record.

mod hearing;
mod steps;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::answer::Voice;
use super::clock::Clock;
use super::connection::{Connection, Presence, serve};
use super::fault::{Effect, Fault, Manner, Reaction};
use super::hub::{Asker, Hub};
use super::profile::{Profile, Software};
use super::record::{Fate, Seen};
use super::session::{Line, Request};
use super::socket::{Listener, Socket};
use super::xml::Element;
use hearing::Heard;
use steps::misbehave;

/// How long a failing accept waits before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// One running life of a node: from a start to a kill.
#[derive(Clone)]
struct Life {
    asker: Asker,
    voice: Arc<Voice>,
}

/// What the tasks of a node share.
pub(super) struct Server {
    pub(super) hub: Hub,
    pub(super) number: u32,
    pub(super) changed: Notify,
    profile: Profile,
    life: Mutex<Life>,
    faults: Mutex<Vec<Fault>>,
    record: Mutex<Vec<Seen>>,
    counts: Mutex<BTreeMap<String, usize>>,
    bytes: Mutex<BTreeMap<Line, Vec<u8>>>,
    tasks: Mutex<BTreeMap<Line, JoinHandle<()>>>,
    frozen: watch::Sender<bool>,
    deaf: AtomicBool,
    listening: AtomicBool,
}

/// A listener that the node knows of until it is closed.
pub(super) struct Entrance {
    listener: Option<Listener>,
    server: Arc<Server>,
}

impl Entrance {
    /// Opens it.
    pub(super) fn new(listener: Listener, server: &Arc<Server>) -> Self {
        server.listening.store(true, Ordering::Relaxed);
        Self {
            listener: Some(listener),
            server: Arc::clone(server),
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        drop(self.listener.take());
        self.server.listening.store(false, Ordering::Relaxed);
        self.server.changed.notify_waiters();
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn new(profile: Profile) -> Self {
        let hub = profile.hub.clone();
        let number = hub.join();
        let life = Life::begin(&profile, number);
        Self {
            hub,
            number,
            changed: Notify::new(),
            life: Mutex::new(life),
            faults: Mutex::new(profile.faults.clone()),
            record: Mutex::default(),
            counts: Mutex::default(),
            bytes: Mutex::default(),
            tasks: Mutex::default(),
            frozen: watch::Sender::new(false),
            deaf: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            profile,
        }
    }

    /// Begins a new life, which knows no session.
    pub(super) fn revive(&self) {
        *guard(&self.life) = Life::begin(&self.profile, self.number);
        self.deaf.store(false, Ordering::Relaxed);
        self.frozen.send_replace(false);
    }

    /// Ends the life: no appointments, no sessions.
    pub(super) fn die(&self) {
        self.clock().stop();
        if !(self.profile.shares && self.profile.outlive) {
            self.hub.lose_all(self.number);
        }
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    fn life(&self) -> Life {
        guard(&self.life).clone()
    }

    /// The appointments of this life.
    pub(super) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&guard(&self.life).asker.clock)
    }

    /// Freezes or thaws every task.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Waits until the node is not frozen.
    pub(super) async fn thawed(&self) {
        if *self.frozen.borrow() {
            // The sender lives in `self`: waiting cannot fail.
            let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
        }
    }

    /// Makes it read no more.
    pub(super) fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }

    pub(super) fn notices_gone(&self) -> bool {
        self.profile.rules.notices_gone
    }

    /// Replaces the misbehaviours.
    pub(super) fn set_faults(&self, change: impl FnOnce(&mut Vec<Fault>)) {
        change(&mut guard(&self.faults));
        for connection in self.hub.lines_of(self.number) {
            connection.stir();
        }
    }

    /// How long a connection may be idle.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        guard(&self.faults)
            .iter()
            .find_map(|fault| match fault.effect {
                Effect::CloseWhenIdle(limit) => Some(limit),
                Effect::React(_) | Effect::AtAccept(_) | Effect::AtPart(_) => None,
            })
    }

    /// Counts one closing of an idle connection; false where that is not to be.
    pub(super) fn spend_idle(&self) -> bool {
        self.spend(|effect| matches!(effect, Effect::CloseWhenIdle(_)))
    }

    /// Keeps bytes that came.
    pub(super) fn came(&self, line: Line, bytes: &[u8]) {
        if self.profile.bytes {
            self.bytes()
                .entry(line)
                .or_default()
                .extend_from_slice(bytes);
        }
    }

    /// Every byte so far, by connection.
    pub(super) fn bytes(&self) -> MutexGuard<'_, BTreeMap<Line, Vec<u8>>> {
        guard(&self.bytes)
    }

    fn spend(&self, wanted: impl Fn(&Effect) -> bool) -> bool {
        let mut faults = guard(&self.faults);
        let Some(at) = faults.iter().position(|fault| wanted(&fault.effect)) else {
            return false;
        };
        let spent = faults[at].spend();
        if !spent {
            faults.remove(at);
        }
        spent
    }

    /// What was seen so far.
    pub(super) fn record(&self) -> MutexGuard<'_, Vec<Seen>> {
        guard(&self.record)
    }

    /// How many requests came for each sid.
    pub(super) fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        guard(&self.counts)
    }

    /// The tasks of all connections, to be ended.
    pub(super) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *guard(&self.tasks))
            .into_values()
            .collect()
    }

    /// Closes every connection without a byte.
    pub(super) async fn close_all(&self) {
        let tasks = self.take_tasks();
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            // Aborted or ended: its socket is closed either way.
            let _ = task.await;
        }
    }

    /// Notes that a connection is closed.
    pub(super) fn closed(&self, line: Line) {
        guard(&self.tasks).remove(&line);
        self.changed.notify_waiters();
    }

    /// Accepts until it is aborted.
    pub(super) async fn accept(self: Arc<Self>, mut entrance: Entrance) {
        while let Some(listener) = &mut entrance.listener {
            self.thawed().await;
            match listener.accept().await {
                Ok(socket) => {
                    // Frozen between the wake-up and here: the connection is the kernel's until thaw.
                    self.thawed().await;
                    self.admit(socket);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: Socket) {
        let voice = self.life().voice;
        let connection = self
            .hub
            .connect(|line| Connection::new(line, self.number, voice, socket));
        if let Some(steps) = self.steps_at_accept() {
            connection.put(steps);
        }
        let line = connection.line;
        let presence = Presence::new(connection, self);
        let mut tasks = guard(&self.tasks);
        tasks.insert(line, tokio::spawn(serve(presence)));
        drop(tasks);
        self.changed.notify_waiters();
    }

    /// Looks after sessions until it is aborted.
    pub(super) async fn keep_time(self: Arc<Self>) {
        let clock = self.clock();
        loop {
            let due = clock.due().await;
            self.thawed().await;
            let now = Instant::now();
            for sid in &due {
                self.hub.tick(sid, now);
            }
            self.changed.notify_waiters();
        }
    }

    fn hear(&self, connection: &Connection, read: u64, raw: Bytes, heard: Heard, followed: bool) {
        let before = connection.count_request();
        let now = Instant::now();
        let (kind, sid, rid) = heard.classify();
        let seen = Seen {
            when: now,
            connection: connection.line,
            reused: before > 0,
            followed,
            sid,
            rid,
            kind,
            raw,
            fate: Fate::Served,
        };
        let (name, reaction) = self.react(&seen);
        let at = self.note(&seen);
        let fate = match reaction {
            Reaction::Serve => self.serve(connection, read, heard, Manner::default(), now),
            Reaction::ServeAs(manner) => self.serve(connection, read, heard, manner, now),
            Reaction::LoseAnswer(ending) => {
                let manner = Manner {
                    lost: Some(ending),
                    ..Manner::default()
                };
                self.serve(connection, read, heard, manner, now)
            }
            other => {
                misbehave(connection, other);
                Fate::Misbehaved(name)
            }
        };
        if let Some(seen) = self.record().get_mut(at) {
            seen.fate = fate;
        }
        self.changed.notify_waiters();
    }

    fn react(&self, seen: &Seen) -> (&'static str, Reaction) {
        let mut faults = guard(&self.faults);
        if let Some(reaction) = faults.iter_mut().find_map(|fault| fault.react(seen)) {
            return reaction;
        }
        drop(faults);
        let script = self.profile.script.as_ref();
        (
            "script",
            script.map_or(Reaction::Serve, |script| script(seen)),
        )
    }

    /// Puts a request into the record; where it stands there (nowhere, if none is kept).
    fn note(&self, seen: &Seen) -> usize {
        if let Some(sid) = &seen.sid {
            self.count(sid);
        }
        if !self.profile.recording {
            return usize::MAX;
        }
        let mut record = self.record();
        record.push(seen.clone());
        record.len() - 1
    }

    fn count(&self, sid: &str) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(sid) {
            *count += 1;
        } else {
            counts.insert(sid.to_owned(), 1);
        }
    }

    fn serve(
        &self,
        connection: &Connection,
        read: u64,
        heard: Heard,
        mut manner: Manner,
        now: Instant,
    ) -> Fate {
        let voice = &connection.voice;
        let element = match heard {
            Heard::Wrapper(element) => element,
            Heard::Get { head_only } => {
                if head_only {
                    manner = manner.stalling_after_headers();
                }
                connection.answer(&voice.get(), &manner);
                return Fate::Served;
            }
            Heard::Options => {
                connection.answer(&voice.options(), &manner);
                return Fate::Served;
            }
            Heard::Broken(outs) => {
                connection.answered_raw();
                connection.put(outs);
                return Fate::Refused;
            }
        };
        let asker = self.life().asker;
        let tag = &element.tag;
        let sid = tag.get("sid");
        if sid.is_none() || (sid == Some("") && voice.software == Software::Ejabberd) {
            return self.create(&asker, connection, &element, &manner, now);
        }
        let request = Request {
            line: connection.line,
            read,
            rid: tag.get("rid").and_then(|rid| rid.parse().ok()),
            terminate: tag.get("type") == Some("terminate"),
            restart: tag.get("xmpp:restart").is_some(),
            stanzas: element.stanzas.clone(),
            manner: manner.clone(),
        };
        let fate = self.hub.take(&asker, sid.unwrap_or_default(), request, now);
        fate.unwrap_or_else(|| {
            connection.answer(&voice.unknown_sid(), &manner);
            Fate::Refused
        })
    }

    fn create(
        &self,
        asker: &Asker,
        connection: &Connection,
        element: &Element,
        manner: &Manner,
        now: Instant,
    ) -> Fate {
        let condition = match element.tag.get("to") {
            None => Some("improper-addressing"),
            Some(to) if to != connection.voice.domain => Some("host-unknown"),
            Some(_) => None,
        };
        if let Some(condition) = condition {
            connection.answer(&connection.voice.bad_host(condition), manner);
            return Fate::Refused;
        }
        let sid = self
            .hub
            .create(asker, connection, &element.tag, manner, now);
        self.count(&sid);
        Fate::Served
    }
}

impl Life {
    fn begin(profile: &Profile, number: u32) -> Self {
        let seed = profile.seed.unwrap_or_else(|| fastrand::u64(..));
        let rules = profile.rules;
        let voice = Arc::new(Voice::new(&profile.name, &profile.domain, &rules, seed));
        let clock = Arc::new(Clock::default());
        Self {
            asker: Asker {
                node: number,
                shares: profile.shares,
                rules,
                clock,
            },
            voice,
        }
    }
}
