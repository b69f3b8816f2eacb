//! What the operating system says of the process: processor time, memory, open files.
//!
//! Read from `/proc` when somebody asks; where there is none, nothing is told.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::VersionLabels;
use std::fs;
use std::io;

/// Of the kernel's clock ticks in `/proc/self/stat`, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the operating system says of the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// Processor time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
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
    /// If `/proc` is not there, or not what it was.
    pub fn read() -> io::Result<Self> {
        Ok(Self {
            cpu_seconds: cpu(&fs::read_to_string("/proc/self/stat")?)
                .ok_or(io::ErrorKind::InvalidData)?,
            resident_bytes: resident(&fs::read_to_string("/proc/self/status")?)
                .ok_or(io::ErrorKind::InvalidData)?,
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

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
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

/// A gauge that is always 1, and not of the type `info`: the older text format has no such type,
/// and its readers then refuse the whole page.
pub(super) fn register_build(registry: &mut Registry) {
    let build = Family::<VersionLabels, Gauge>::default();
    let labels = VersionLabels::from(env!("CARGO_PKG_VERSION"));
    build.get_or_create(&labels).set(1);
    registry.register(
        "build_info",
        "Always 1; the label says which version of the program runs",
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
        assert_eq!(resident(status), Some(2 << 20));
        let limits = "Max stack size   8388608   unlimited   bytes\nMax open files    1024    \
            524288    files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files   unlimited unlimited files"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let before = Process::read().unwrap();
        assert!(before.resident_bytes > 1 << 20);
        let open: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = Process::read().unwrap();
        assert!(after.open_fds >= 50 + 3, "{}", after.open_fds);
        drop(open);
        assert!(after.cpu_seconds >= before.cpu_seconds);
    }
}
