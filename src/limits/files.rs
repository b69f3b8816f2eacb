//! Open files: how many this process may have, and how they are shared out.
//!
//! The kernel gives the lowest free number to each new file. So the number of a new connection says
//! how many files are open at least, and one at or above [`Files::ceiling`] belongs to the reserve
//! for probes and for the operator.

use rlimit::Resource;

/// Files of the process itself: the log, timers, wake-ups, and a few for what opens one for a moment.
const OWN: u64 = 24;

/// Files for each worker thread: epoll, its waker, a signal pipe.
const PER_THREAD: u64 = 4;

/// Files for each node's probes, which overlap while it is silent.
const PER_NODE: u64 = 5;

/// Connections to the admin listener.
const ADMIN: u64 = 64;

/// Files that one client connection takes: its own, and the one to its node while a request is held.
const PER_CONNECTION: u64 = 2;

/// The limit of open files, and what of it is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    limit: u64,
    reserve: u64,
}

impl Files {
    /// Raises the soft limit to the hard one, and reckons with what it is then: a balancer has a use
    /// for each. A limit that cannot be read is taken for none.
    pub fn raise(nodes: usize, threads: usize, listeners: usize) -> Self {
        let limit = match Resource::NOFILE.get() {
            Ok((soft, hard)) if soft < hard && Resource::NOFILE.set(hard, hard).is_ok() => hard,
            Ok((soft, _)) => soft,
            Err(_) => rlimit::INFINITY,
        };
        Self::of(limit, nodes, threads, listeners)
    }

    fn of(limit: u64, nodes: usize, threads: usize, listeners: usize) -> Self {
        let [nodes, threads, listeners] =
            [nodes, threads, listeners].map(|count| u64::try_from(count).unwrap_or(0));
        let wanted =
            OWN + ADMIN + PER_NODE * nodes + threads * (PER_THREAD + listeners) + listeners;
        Self {
            limit,
            reserve: wanted.min(limit / 2),
        }
    }

    /// How many files may be open.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How many client connections there can be, two files for each; 1 at least.
    pub fn connections(&self) -> usize {
        let fit = (self.limit - self.reserve) / PER_CONNECTION;
        usize::try_from(fit).unwrap_or(usize::MAX).max(1)
    }

    /// Files for this many client connections, the reserve included.
    pub fn wanted(&self, connections: usize) -> u64 {
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        connections
            .saturating_mul(PER_CONNECTION)
            .saturating_add(self.reserve)
    }

    /// The number from which on files are the reserve's: neither clients nor their requests at nodes
    /// may keep one.
    pub fn ceiling(&self) -> i32 {
        // The process's own files have the low numbers; of the reserve only the rest is above.
        i32::try_from(self.limit - self.reserve / 2).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_below_the_limit_with_a_reserve() {
        let small = Files::of(256, 3, 2, 1);
        assert_eq!((small.limit(), small.reserve), (256, 114));
        assert_eq!(small.connections(), 71);
        assert_eq!(small.ceiling(), 199);
        let large = Files::of(524_288, 3, 8, 2);
        assert!(large.connections() > 250_000);
        assert!(large.wanted(100_000) < 201_000);
        assert_eq!(
            Files::of(16, 1000, 64, 9).connections(),
            4,
            "half of it at least"
        );
        assert!(Files::of(rlimit::INFINITY, 3, 2, 1).connections() > 1 << 40);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let files = Files::raise(1, 1, 1);
        let (soft, hard) = Resource::NOFILE.get().unwrap();
        assert_eq!(soft, hard);
        assert_eq!(files.limit(), hard);
    }
}
