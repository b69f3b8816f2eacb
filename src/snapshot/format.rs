//! The bytes of a snapshot. All numbers are little-endian.
//!
//! ```text
//! header   magic 8 · version u32 · written u32, seconds since the Unix epoch · length of the body u64 ·
//!          XXH3-64 of the body u64
//! body     count of nodes u16, then each: state u8 · length of the name u8 · name
//!          count of pins u32, then a record of 42 bytes for each
//!          the sids, one after the other
//! record   sid's start among the sids u32 · its length u16 · node u16 · owner u16, 0xffff for none ·
//!          wait u16 · inactivity u16 · maxpause u16 · pause u16 · hold u8 · flags u8 ·
//!          rid of the pause u64 · last rid u64 · expiry u32 · group u16, 0 for none
//! flags    bits 0 and 1: live 0, ended 1, lost 2 · 2: legacy · 3: fresh · 4: has a last rid · 5: pauses
//! ```
//!
//! A node in a record is a position in the list of nodes.

use std::fmt;
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::{NodeId, OperatorState, QueryGroup};
use crate::sessions::{Pause, Pin, PinState, Terms};

/// How a snapshot begins.
pub const MAGIC: [u8; 8] = *b"BOWLINE\n";

const VERSION: u32 = 1;
const HEADER: usize = 32;
const RECORD: usize = 42;
const NO_NODE: u16 = u16::MAX;

const STATE: u8 = 0b11;
const LEGACY: u8 = 1 << 2;
const FRESH: u8 = 1 << 3;
const HAS_RID: u8 = 1 << 4;
const PAUSES: u8 = 1 << 5;

/// Why bytes are no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// They do not begin as one does.
    Foreign,
    /// A version that this program does not know.
    Version(u32),
    /// They are cut off, or something follows.
    Length,
    /// The checksum is another.
    Checksum,
    /// The checksum holds and the content does not: no Bowline wrote it.
    Content,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("not a snapshot of Bowline"),
            Self::Version(version) => {
                write!(f, "version {version} of the format, which is not supported")
            }
            Self::Length => f.write_str("cut off"),
            Self::Checksum => f.write_str("the checksum is wrong"),
            Self::Content => f.write_str("the content is invalid"),
        }
    }
}

impl std::error::Error for Broken {}

/// A node in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedNode<'a> {
    /// Its name, at most 255 bytes.
    pub name: &'a str,
    /// What the operator decided about it.
    pub state: OperatorState,
}

/// Seconds since the Unix epoch, as a snapshot counts them: to the year 2106.
pub fn seconds(wall: SystemTime) -> u32 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Writes a snapshot.
#[derive(Debug)]
pub struct Writer {
    /// The header's place, the nodes, and the records.
    bytes: Vec<u8>,
    sids: Vec<u8>,
    /// Where the count of pins is.
    count_at: usize,
    pins: u32,
}

impl Writer {
    /// A snapshot of these nodes, with room for about `pins` pins.
    pub fn new<'a>(nodes: impl Iterator<Item = SavedNode<'a>>, pins: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + pins.saturating_mul(RECORD));
        bytes.resize(HEADER + 2, 0);
        let mut count = 0_u16;
        for node in nodes {
            let Ok(length) = u8::try_from(node.name.len()) else {
                continue;
            };
            count += 1;
            bytes.extend_from_slice(&[number(node.state), length]);
            bytes.extend_from_slice(node.name.as_bytes());
        }
        bytes[HEADER..HEADER + 2].copy_from_slice(&count.to_le_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Self {
            bytes,
            sids: Vec::new(),
            count_at,
            pins: 0,
        }
    }

    /// Adds a pin whose nodes are positions in the list of nodes. A sid longer than 65,535 bytes, or more
    /// than 4 GiB of sids, are left out.
    pub fn add(&mut self, pin: &Pin) {
        let start = u32::try_from(self.sids.len());
        let (Ok(start), Ok(length)) = (start, u16::try_from(pin.sid.len())) else {
            return;
        };
        let state = match pin.state {
            PinState::Live => 0,
            PinState::Ended => 1,
            PinState::Lost => 2,
        };
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let flags = state
            | flag(LEGACY, pin.terms.legacy)
            | flag(FRESH, pin.fresh)
            | flag(HAS_RID, pin.last_rid.is_some())
            | flag(PAUSES, pin.pause.is_some());
        let pause = pin.pause.unwrap_or(Pause { seconds: 0, rid: 0 });
        let owner = pin.owner.map_or(NO_NODE, |owner| owner.0);
        let out = &mut self.bytes;
        out.extend_from_slice(&start.to_le_bytes());
        for short in [
            length,
            pin.node.0,
            owner,
            pin.terms.wait,
            pin.terms.inactivity,
            pin.terms.maxpause,
            pause.seconds,
        ] {
            out.extend_from_slice(&short.to_le_bytes());
        }
        out.extend_from_slice(&[pin.terms.hold, flags]);
        out.extend_from_slice(&pause.rid.to_le_bytes());
        out.extend_from_slice(&pin.last_rid.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&pin.expires.to_le_bytes());
        let group = pin.group.map_or(0, QueryGroup::number);
        out.extend_from_slice(&group.to_le_bytes());
        self.sids.extend_from_slice(pin.sid.as_bytes());
        self.pins += 1;
    }

    /// How many pins it has.
    pub const fn pins(&self) -> u64 {
        self.pins as u64
    }

    /// The bytes, written at `written` seconds since the Unix epoch.
    pub fn finish(mut self, written: u32) -> Vec<u8> {
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&self.pins.to_le_bytes());
        self.bytes.append(&mut self.sids);
        let body = &self.bytes[HEADER..];
        let (length, sum) = (body.len() as u64, xxh3_64(body));
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&written.to_le_bytes());
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(&sum.to_le_bytes());
        self.bytes[..HEADER].copy_from_slice(&header);
        self.bytes
    }
}

/// A snapshot that was checked to its end.
#[derive(Debug)]
pub struct Snapshot<'a> {
    written: u32,
    nodes: Vec<SavedNode<'a>>,
    records: &'a [[u8; RECORD]],
    sids: &'a [u8],
}

impl<'a> Snapshot<'a> {
    /// Reads a snapshot, whole.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut header = Bytes(bytes);
        if header.take::<8>() != Some(MAGIC) {
            return Err(Broken::Foreign);
        }
        let version = header.u32().ok_or(Broken::Length)?;
        if version != VERSION {
            return Err(Broken::Version(version));
        }
        let written = header.u32().ok_or(Broken::Length)?;
        let length = header.u64().ok_or(Broken::Length)?;
        let sum = header.u64().ok_or(Broken::Length)?;
        let body = header.0;
        if body.len() as u64 != length {
            return Err(Broken::Length);
        }
        if xxh3_64(body) != sum {
            return Err(Broken::Checksum);
        }
        Self::body(written, Bytes(body)).ok_or(Broken::Content)
    }

    fn body(written: u32, mut body: Bytes<'a>) -> Option<Self> {
        let mut nodes = Vec::new();
        for _ in 0..body.u16()? {
            let [state, length] = body.take()?;
            let name = std::str::from_utf8(body.slice(length.into())?).ok()?;
            let state = state_of(state)?;
            nodes.push(SavedNode { name, state });
        }
        let count = usize::try_from(body.u32()?).ok()?;
        let records = body.slice(count.checked_mul(RECORD)?)?.as_chunks().0;
        let snapshot = Self {
            written,
            nodes,
            records,
            sids: body.0,
        };
        let valid = records.iter().all(|record| snapshot.pin(record).is_some());
        valid.then_some(snapshot)
    }

    /// When it was written, in seconds since the Unix epoch.
    pub const fn written(&self) -> u32 {
        self.written
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = SavedNode<'a>> {
        self.nodes.iter().copied()
    }

    /// The pins. Their nodes are positions among the nodes.
    pub fn pins(&self) -> impl Iterator<Item = Pin> {
        self.records.iter().filter_map(|record| self.pin(record))
    }

    fn pin(&self, record: &[u8; RECORD]) -> Option<Pin> {
        let mut record = Bytes(record);
        let start = usize::try_from(record.u32()?).ok()?;
        let length = usize::from(record.u16()?);
        let sid = self.sids.get(start..start.checked_add(length)?)?;
        let sid = std::str::from_utf8(sid)
            .ok()
            .filter(|sid| !sid.is_empty())?;
        let node = record.u16()?;
        let owner = record.u16()?;
        let known = |node: u16| usize::from(node) < self.nodes.len();
        if !known(node) || !(owner == NO_NODE || known(owner)) {
            return None;
        }
        let (wait, inactivity, maxpause) = (record.u16()?, record.u16()?, record.u16()?);
        let pause = record.u16()?;
        let [hold, flags] = record.take()?;
        let (pause_rid, last_rid) = (record.u64()?, record.u64()?);
        Some(Pin {
            sid: sid.into(),
            node: NodeId(node),
            owner: (owner != NO_NODE).then_some(NodeId(owner)),
            terms: Terms {
                wait,
                inactivity,
                maxpause,
                hold,
                legacy: flags & LEGACY != 0,
            },
            state: match flags & STATE {
                0 => PinState::Live,
                1 => PinState::Ended,
                2 => PinState::Lost,
                _ => return None,
            },
            fresh: flags & FRESH != 0,
            last_rid: (flags & HAS_RID != 0).then_some(last_rid),
            pause: (flags & PAUSES != 0).then_some(Pause {
                seconds: pause,
                rid: pause_rid,
            }),
            expires: record.u32()?,
            group: QueryGroup::of_number(record.u16()?),
        })
    }
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

const fn number(state: OperatorState) -> u8 {
    match state {
        OperatorState::Ready => 0,
        OperatorState::Drain => 1,
        OperatorState::Maint => 2,
    }
}

const fn state_of(number: u8) -> Option<OperatorState> {
    match number {
        0 => Some(OperatorState::Ready),
        1 => Some(OperatorState::Drain),
        2 => Some(OperatorState::Maint),
        _ => None,
    }
}
