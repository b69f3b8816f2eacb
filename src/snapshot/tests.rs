//! What one process saves, the next one has.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use tokio::time::Instant;

use super::format::Broken;
use super::*;
use crate::cluster::QueryGroup;
use crate::cluster::tests::settings;
use crate::config::Placement;
use crate::sessions::{Insert, Pause, PinState, Terms};

const TERMS: Terms = Terms {
    wait: 60,
    inactivity: 30,
    maxpause: 120,
    hold: 1,
    legacy: false,
};

/// A wall clock, and the sessions' clock, which lags by an hour of suspension.
const WALL: u64 = 1_800_000_000;
const NOW: u64 = WALL - 3600;

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn time(seconds: u64) -> Time {
    Time::after(Duration::from_secs(seconds))
}

/// A process with two nodes, t1 and t2.
fn process(file: &Path) -> Store {
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(&settings(2, Placement::RoundRobin), &metrics));
    let sessions = Sessions::new(200_000, Arc::clone(&cluster), Arc::clone(&metrics));
    let settings = config::Snapshot {
        file: file.to_owned(),
        interval: Duration::from_secs(5),
    };
    Store::new(&settings, cluster, Arc::new(sessions), metrics)
}

fn insert(store: &Store, sid: &str, node: u16) {
    let made = store
        .sessions
        .insert(sid, NodeId(node), TERMS, (7, None), time(NOW));
    assert!(matches!(made, Insert::Made(_)), "{made:?}");
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bowline-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("sessions")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_next_process_has_the_pins_and_the_operator_states() {
    let folder = Folder::new("next");
    let old = process(&folder.file());
    insert(&old, "one", 0);
    insert(&old, "two", 1);
    old.cluster
        .set_state(NodeId(1), OperatorState::Drain, true, wall(WALL))
        .unwrap();
    old.save(Moment::Ending, time(NOW), wall(WALL));
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Its clock starts at the wall clock, a second later.
    let new = process(&folder.file());
    new.restore(time(WALL + 1), wall(WALL + 1));
    for (sid, node) in [("one", 0), ("two", 1)] {
        let session = new.sessions.find(sid).expect("it is there");
        assert_eq!(session.node(), NodeId(node), "{sid}");
        let pin = session.pin(time(WALL + 1)).unwrap();
        assert_eq!(pin.last_rid, Some(7));
        assert_eq!(u64::from(pin.expires), WALL + 30 + 5);
        assert_eq!(new.cluster.node(NodeId(node)).sessions.get(), 1);
    }
    assert_eq!(new.cluster.node(NodeId(0)).state(), OperatorState::Ready);
    assert_eq!(new.cluster.node(NodeId(1)).state(), OperatorState::Drain);
    assert_eq!(new.metrics.sessions_restored.get(), 2);
}

#[test]
fn a_snapshot_of_a_process_that_goes_on_has_no_rid() {
    let folder = Folder::new("goes-on");
    let old = process(&folder.file());
    insert(&old, "one", 0);
    old.save(Moment::Running, time(NOW), wall(WALL));
    let new = process(&folder.file());
    new.restore(time(WALL), wall(WALL));
    let pin = new.sessions.find("one").unwrap().pin(time(WALL)).unwrap();
    assert_eq!(pin.last_rid, None);
}

#[test]
fn what_has_expired_is_dropped() {
    let folder = Folder::new("expired");
    let old = process(&folder.file());
    insert(&old, "one", 0);
    old.save(Moment::Ending, time(NOW), wall(WALL));
    let late = WALL + 36;
    let new = process(&folder.file());
    new.restore(time(late), wall(late));
    assert!(new.sessions.is_empty());
    assert_eq!(new.cluster.node(NodeId(0)).sessions.get(), 0);
}

#[test]
fn a_pin_of_a_node_that_is_not_configured_any_more_is_dropped() {
    let folder = Folder::new("node");
    let nodes = [("t9", OperatorState::Maint), ("t2", OperatorState::Ready)];
    let nodes = nodes.map(|(name, state)| SavedNode { name, state });
    let mut writer = Writer::new(nodes.into_iter(), 2);
    for (sid, node) in [("one", 0), ("two", 1)] {
        writer.add(&Pin {
            owner: Some(NodeId(0)),
            ..pin(sid, node)
        });
    }
    fs::write(folder.file(), writer.finish(1)).unwrap();
    let new = process(&folder.file());
    new.restore(time(WALL), wall(WALL));
    assert!(new.sessions.find("one").is_none());
    let two = new.sessions.find("two").unwrap().pin(time(WALL)).unwrap();
    assert_eq!((two.node, two.owner), (NodeId(1), None));
}

#[test]
fn without_a_file_the_process_starts_empty() {
    let folder = Folder::new("empty");
    let new = process(&folder.file());
    new.restore(time(WALL), wall(WALL));
    assert!(new.sessions.is_empty());
    assert_eq!(new.metrics.snapshot_failures.get(), 0);
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside() {
    let folder = Folder::new("aside");
    let old = process(&folder.file());
    insert(&old, "one", 0);
    old.save(Moment::Ending, time(NOW), wall(WALL));
    let good = fs::read(folder.file()).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [
        &good[..good.len() - 1],
        &changed[..],
        b"",
        b"<html>",
        &good[..8],
    ] {
        fs::write(folder.file(), bytes).unwrap();
        let new = process(&folder.file());
        new.restore(time(WALL), wall(WALL));
        assert!(new.sessions.is_empty());
        assert_eq!(new.metrics.snapshot_failures.get(), 1);
        assert!(!folder.file().exists());
        assert_eq!(fs::read(folder.0.join("sessions.broken")).unwrap(), bytes);
        // The next snapshot takes its place.
        new.save(Moment::Running, time(WALL), wall(WALL));
        assert!(folder.file().exists());
    }
}

#[test]
fn a_gibibyte_of_noise_is_set_aside_at_once() {
    let folder = Folder::new("noise");
    for begin in [&b"noise"[..], &format::MAGIC[..]] {
        fs::write(folder.file(), begin).unwrap();
        let file = File::options().write(true).open(folder.file()).unwrap();
        file.set_len(1 << 30).unwrap();
        let begun = Instant::now();
        let new = process(&folder.file());
        new.restore(time(WALL), wall(WALL));
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(!folder.file().exists());
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_counted_and_ends_nothing() {
    let folder = Folder::new("unwritable");
    let store = process(&folder.0.join("missing").join("sessions"));
    insert(&store, "one", 0);
    store.save(Moment::Running, time(NOW), wall(WALL));
    store.save(Moment::Running, time(NOW), wall(WALL));
    assert_eq!(store.metrics.snapshot_failures.get(), 2);
}

#[test]
fn a_paused_process_leaves_the_file_alone() {
    let folder = Folder::new("paused");
    let store = process(&folder.file());
    store.pause(true);
    store.save(Moment::Ending, time(NOW), wall(WALL));
    assert!(!folder.file().exists());
    store.pause(false);
    store.save(Moment::Ending, time(NOW), wall(WALL));
    assert!(folder.file().exists());
}

/// Its time is in docs/benchmarks.md; here it is bounded for a build without optimisation.
#[test]
fn a_hundred_thousand_pins_come_back() {
    let folder = Folder::new("many");
    let old = process(&folder.file());
    for number in 0..100_000_u32 {
        insert(&old, &format!("{number:040x}"), 0);
    }
    let begun = Instant::now();
    old.save(Moment::Ending, time(NOW), wall(WALL));
    let saved = begun.elapsed();
    let new = process(&folder.file());
    let begun = Instant::now();
    new.restore(time(WALL), wall(WALL));
    let loaded = begun.elapsed();
    let bytes = fs::metadata(folder.file()).unwrap().len();
    println!("100,000 pins: {bytes} bytes, saved in {saved:?}, loaded in {loaded:?}");
    assert_eq!(new.sessions.len(), 100_000);
    assert!(loaded < Duration::from_secs(10), "{loaded:?}");
}

fn pin(sid: &str, node: u16) -> Pin {
    Pin {
        sid: sid.into(),
        node: NodeId(node),
        owner: None,
        terms: TERMS,
        state: PinState::Live,
        fresh: false,
        last_rid: None,
        pause: None,
        expires: u32::MAX,
        group: None,
    }
}

prop_compose! {
    fn any_pin()(
        sid in "[ -~äß☃]{1,60}",
        node in 0_u16..3,
        owner in proptest::option::of(0_u16..3),
        terms in any::<(u16, u16, u16, u8, bool)>(),
        state in prop_oneof![Just(PinState::Live), Just(PinState::Ended), Just(PinState::Lost)],
        fresh in any::<bool>(),
        last_rid in any::<Option<u64>>(),
        pause in any::<Option<(u16, u64)>>(),
        expires in any::<u32>(),
        group in any::<u16>(),
    ) -> Pin {
        let (wait, inactivity, maxpause, hold, legacy) = terms;
        Pin {
            sid: sid.into(),
            node: NodeId(node),
            owner: owner.map(NodeId),
            terms: Terms { wait, inactivity, maxpause, hold, legacy },
            state,
            fresh,
            last_rid,
            pause: pause.map(|(seconds, rid)| Pause { seconds, rid }),
            expires,
            group: QueryGroup::of_number(group),
        }
    }
}

fn snapshot_of(pins: &[Pin]) -> Vec<u8> {
    let nodes = [
        ("t1", OperatorState::Ready),
        ("t-2.example", OperatorState::Drain),
        ("", OperatorState::Maint),
    ];
    let nodes = nodes.map(|(name, state)| SavedNode { name, state });
    let mut writer = Writer::new(nodes.into_iter(), pins.len());
    pins.iter().for_each(|pin| writer.add(pin));
    writer.finish(9)
}

proptest! {
    #[test]
    fn pins_come_out_as_they_went_in(pins in proptest::collection::vec(any_pin(), 0..20)) {
        let bytes = snapshot_of(&pins);
        let read = Snapshot::read(&bytes).unwrap();
        prop_assert_eq!(read.written(), 9);
        prop_assert_eq!(read.nodes().count(), 3);
        prop_assert_eq!(read.pins().collect::<Vec<_>>(), pins.clone());
        for (read, pin) in read.pins().zip(&pins) {
            prop_assert_eq!(&read.sid, &pin.sid);
        }
    }

    #[test]
    fn no_other_bytes_are_a_snapshot(
        pins in proptest::collection::vec(any_pin(), 0..5),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut bytes = snapshot_of(&pins);
        let at = at.index(bytes.len());
        // The time of writing has no checksum: it is shown only.
        prop_assume!(!(12..16).contains(&at));
        bytes[at] ^= flip;
        prop_assert!(Snapshot::read(&bytes).is_err());
        prop_assert!(Snapshot::read(&bytes[..at]).is_err());
    }
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = snapshot_of(&[]);
    bytes[8] = 2;
    assert_eq!(Snapshot::read(&bytes).unwrap_err(), Broken::Version(2));
}
