//! The reader of snapshots: it panics for no bytes, and what it reads is written again as the same pins.

use bowline::sessions::Pin;
use bowline::snapshot::format::{MAGIC, Snapshot, Writer};
use xxhash_rust::xxh3::xxh3_64;

/// Holds it for one input: as a file, and as the body of a file with a right header.
pub fn check(input: &[u8]) {
    hold(input);
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&0_u32.to_le_bytes());
    file.extend_from_slice(&(input.len() as u64).to_le_bytes());
    file.extend_from_slice(&xxh3_64(input).to_le_bytes());
    file.extend_from_slice(input);
    hold(&file);
}

fn hold(bytes: &[u8]) {
    let Ok(read) = Snapshot::read(bytes) else {
        return;
    };
    let pins: Vec<Pin> = read.pins().collect();
    let mut writer = Writer::new(read.nodes(), pins.len());
    pins.iter().for_each(|pin| writer.add(pin));
    let again = writer.finish(read.written());
    let again = Snapshot::read(&again).expect("what was written can be read");
    assert!(again.nodes().eq(read.nodes()), "other nodes");
    assert!(again.pins().eq(pins), "other pins");
}
