//! Which requests have a line in the log, and the name under which a line speaks of a session.

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use siphasher::sip::SipHasher24;
use tracing::Level;

use crate::config::{self, Log};

/// The target of the lines.
pub const TARGET: &str = "bowline::access";

/// Letters and digits of names, five bits each: none looks like another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Letters of a name.
const LENGTH: usize = 6;

/// A session as the log names it: 30 bits of a keyed hash of its sid. It leads from line to line, and
/// not to the sid, which is a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionTag(u32);

impl SessionTag {
    /// No session.
    pub(super) const NONE: Self = Self(u32::MAX);

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// Its six characters.
    pub(super) fn write(self, into: &mut [u8; LENGTH]) -> Option<&str> {
        if self == Self::NONE {
            return None;
        }
        for (place, letter) in into.iter_mut().enumerate() {
            *letter = ALPHABET[(self.0 >> (5 * (LENGTH - 1 - place))) as usize & 31];
        }
        std::str::from_utf8(into).ok()
    }
}

/// What the log of requests depends on.
pub struct AccessLogger {
    /// Whether there are lines at all.
    on: AtomicBool,
    keys: (u64, u64),
    /// Of the sessions, one in this many has its ordinary requests logged; 0: none.
    every: AtomicU32,
    /// The process ends, and cuts what is under way.
    cut: AtomicBool,
}

impl std::fmt::Debug for AccessLogger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog")
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl AccessLogger {
    pub(super) fn new(log: &Log) -> Self {
        let key = log.session_key.unwrap_or_else(random_key);
        let logger = Self {
            on: AtomicBool::new(false),
            keys: ((key >> 64) as u64, key as u64),
            every: AtomicU32::new(0),
            cut: AtomicBool::new(false),
        };
        logger.configure(log);
        logger
    }

    /// Takes what `log` says of requests, and what the filter of this moment lets through. The key of
    /// the sessions' names stays.
    pub(super) fn configure(&self, log: &Log) {
        let every = match log.access {
            // With `off` the line is there only if a filter asks for it.
            config::AccessLog::Off | config::AccessLog::On => 1,
            config::AccessLog::Failures => 0,
            config::AccessLog::Sample(every) => every.get(),
        };
        self.every.store(every, Ordering::Relaxed);
        let on = tracing::enabled!(target: TARGET, Level::INFO);
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether there are lines at all.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The name of the session `sid`.
    pub(super) fn name(&self, sid: &str) -> SessionTag {
        let mut hasher = SipHasher24::new_with_keys(self.keys.0, self.keys.1);
        hasher.write(sid.as_bytes());
        SessionTag((hasher.finish() >> 34) as u32)
    }

    /// Whether an ordinary request of this session has a line. Sessions are chosen, not requests:
    /// the whole of one session says more than a request of each.
    pub(super) fn samples(&self, session: SessionTag) -> bool {
        match self.every.load(Ordering::Relaxed) {
            0 => false,
            1 => true,
            every if session == SessionTag::NONE => fastrand::u32(..every) == 0,
            every => session.0.is_multiple_of(every),
        }
    }

    /// From now on a request that is given up is the balancer's doing.
    pub fn begin_cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// A random key for one run of the process.
fn random_key() -> u128 {
    let mut key = [0; 16];
    if getrandom::fill(&mut key).is_err() {
        // No kernel that serves clients is without randomness; sids are long and random themselves.
        key = std::array::from_fn(|_| fastrand::u8(..));
    }
    u128::from_le_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(access: config::AccessLog, key: Option<u128>) -> AccessLogger {
        AccessLogger::new(&Log {
            access,
            session_key: key,
            ..Log::default()
        })
    }

    fn written(name: SessionTag) -> String {
        let mut letters = [0; LENGTH];
        name.write(&mut letters).unwrap().to_owned()
    }

    #[test]
    fn the_same_key_gives_the_same_name_anywhere() {
        let key = Some(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        let (one, two) = (
            access(config::AccessLog::On, key),
            access(config::AccessLog::Off, key),
        );
        let sid = "8a8f2a2e-9e37-4b5a-8c3d-00000000002a";
        assert_eq!(one.name(sid), two.name(sid));
        assert_eq!(written(one.name(sid)), "k4gvzp", "this must never change");
        assert_eq!(written(one.name("")).len(), LENGTH);
    }

    #[test]
    fn without_a_key_no_run_is_like_another() {
        let names = (0..4).map(|_| written(access(config::AccessLog::On, None).name("a")));
        let names: std::collections::BTreeSet<String> = names.collect();
        assert!(names.len() > 1, "{names:?}");
    }

    #[test]
    fn names_are_spread_over_all_characters() {
        let access = access(config::AccessLog::On, None);
        let names: Vec<_> = (0..2000)
            .map(|number| written(access.name(&number.to_string())))
            .collect();
        for place in 0..LENGTH {
            let letters = names.iter().map(|name| name.as_bytes()[place]);
            let letters: std::collections::BTreeSet<u8> = letters.collect();
            assert_eq!(letters.len(), 32, "place {place}");
        }
        assert!(
            written(SessionTag(0)) == "000000"
                && SessionTag::NONE.write(&mut [0; LENGTH]).is_none()
        );
    }

    #[test]
    fn one_session_in_n_is_sampled_with_all_of_its_requests() {
        let sample = access(config::AccessLog::Sample(10.try_into().unwrap()), None);
        let names = (0..10_000).map(|number| sample.name(&number.to_string()));
        let chosen = names.filter(|name| sample.samples(*name)).count();
        assert!((800..1200).contains(&chosen), "{chosen}");
        let nameless = (0..10_000)
            .filter(|_| sample.samples(SessionTag::NONE))
            .count();
        assert!((800..1200).contains(&nameless), "{nameless}");
        let name = sample.name("x");
        assert!((0..9).all(|_| sample.samples(name) == sample.samples(name)));
        let failures = access(config::AccessLog::Failures, None);
        assert!(!failures.samples(name) && !failures.samples(SessionTag::NONE));
        assert!(access(config::AccessLog::On, None).samples(SessionTag::NONE));
    }
}
