//! What the operating system says of the process, under the names that other programs use
//! (`process_*`), and the version of the program.
//!
//! It comes from `/proc`. Without `/proc` the metrics stay at 0.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::BuildLabels;
use super::{Fraction, Limit};

/// Clock ticks in `/proc/self/stat`: the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the operating system says of the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// Processor time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes. Most of it is never touched.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many may be open; none if there is no limit.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Asks the operating system. Takes some 50 µs; on a kernel before Linux 6.2 up to some
    /// milliseconds with many open files, so that it belongs on a thread that may wait.
    ///
    /// # Errors
    /// If `/proc` is not mounted, or has another format.
    pub fn read() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name| number_of(&status, name).ok_or(io::ErrorKind::InvalidData);
        Ok(Self {
            cpu_seconds: cpu(&fs::read_to_string("/proc/self/stat")?)
                .ok_or(io::ErrorKind::InvalidData)?,
            resident_bytes: number("VmRSS:")? * 1024,
            virtual_bytes: number("VmSize:")? * 1024,
            threads: number("Threads:")?,
            open_fds: open_fds()?,
            max_fds: max_fds(&fs::read_to_string("/proc/self/limits")?),
        })
    }
}

/// The 14th and 15th fields of `stat`; the second is the program's name, which may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The number in the line of `status` that begins with `name`; sizes are in KiB.
fn number_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the size of the folder is the number of its entries.
fn open_fds() -> io::Result<u64> {
    match fs::metadata("/proc/self/fd")?.len() {
        // The listing holds the descriptor of the listing itself.
        0 => Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64),
        known => Ok(known),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The metrics `process_*`.
#[derive(Debug, Default)]
pub(super) struct ProcessMetrics {
    start: Fraction,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl ProcessMetrics {
    /// Registers them with a registry that has no prefix.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let process = Self::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        process.start.set(now.unwrap_or_default().as_secs_f64());
        registry.register_with_unit(
            "process_start_time",
            "Start time of the process, in seconds since 1970",
            Unit::Seconds,
            process.start.clone(),
        );
        registry.register_with_unit(
            "process_cpu",
            "Processor time of the process since its start",
            Unit::Seconds,
            process.cpu.clone(),
        );
        for (name, help, gauge) in [
            (
                "process_resident_memory",
                "Resident memory",
                &process.resident,
            ),
            (
                "process_virtual_memory",
                "Address space",
                &process.virtual_memory,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        for (name, help, gauge) in [
            (
                "process_threads",
                "Threads of the process",
                &process.threads,
            ),
            (
                "process_open_fds",
                "Open file descriptors",
                &process.open_fds,
            ),
            (
                "process_max_fds",
                "Limit of open file descriptors",
                &process.max_fds,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        process
    }

    pub(super) fn set(&self, process: &Process) {
        let set = |gauge: &Gauge, count| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        let cpu = process.cpu_seconds.to_bits();
        self.cpu.inner().store(cpu, Ordering::Relaxed);
        set(&self.resident, process.resident_bytes);
        set(&self.virtual_memory, process.virtual_bytes);
        set(&self.threads, process.threads);
        set(&self.open_fds, process.open_fds);
        set(&self.max_fds, process.max_fds.unwrap_or(u64::MAX));
    }

    /// Resident memory in bytes, as last set; 0 before.
    pub(super) fn resident_bytes(&self) -> u64 {
        u64::try_from(self.resident.get()).unwrap_or(0)
    }

    /// File descriptors, as last set.
    pub(super) fn open_files(&self) -> Limit {
        Limit {
            what: "file descriptors",
            used: self.open_fds.get(),
            most: self.max_fds.get(),
        }
    }
}

/// A gauge that is always 1, and not of the type `info`: the older text format has no such type,
/// and its readers then refuse the whole page.
pub(super) fn register_build(registry: &mut Registry) {
    let build = Family::<BuildLabels, Gauge>::default();
    build.get_or_create(&BuildLabels::of_this_program()).set(1);
    registry.register(
        "build_info",
        "Always 1; the labels describe the program",
        build,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(cpu("7 (a"), None);
        let status = "FixedLabel:\tx\nVmRSS:\t    2048 kB\n";
        assert_eq!(number_of(status, "VmRSS:"), Some(2048));
        assert_eq!(number_of(status, "Threads:"), None);
        let limits = "Max stack size   8388608   unlimited   bytes\nMax open files    1024    \
            524288    files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files   unlimited unlimited files"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let before = Process::read().unwrap();
        assert!(before.resident_bytes > 1 << 20);
        assert!(before.virtual_bytes > before.resident_bytes);
        assert!(before.threads >= 1, "{}", before.threads);
        let open: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = Process::read().unwrap();
        assert!(after.open_fds >= 50 + 3, "{}", after.open_fds);
        drop(open);
        assert!(after.cpu_seconds >= before.cpu_seconds);
    }
}
