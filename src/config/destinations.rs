//! The sections `snapshot` and `traces`: where the program writes to.

use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::defaults::SNAPSHOT_INTERVAL;
use super::read::Value;
use super::settings::{Snapshot, Traces};

/// The shortest interval of snapshots.
const SECOND: Duration = Duration::from_secs(1);
/// One request in this many, at most, begins a trace.
const MOST_SAMPLE: u32 = 1_000_000;

pub(super) fn snapshot(value: Option<Value<'_>>) -> Option<Snapshot> {
    let value = value.filter(|value| !value.is_null() && !value.is_off())?;
    let section = value.section()?;
    let interval = section.duration("interval", SNAPSHOT_INTERVAL, SECOND);
    let file = section.need("file")?;
    match file.text()? {
        "" => file.must_be("a file's path"),
        path => Some(Snapshot {
            file: PathBuf::from(path),
            interval,
        }),
    }
}

pub(super) fn traces(value: Option<Value<'_>>) -> Option<Traces> {
    let value = value.filter(|value| !value.is_null())?;
    let section = value.clone().section()?;
    let sample = section.count("sample", 1, 1..=MOST_SAMPLE);
    let endpoint_value = section.need("endpoint")?;
    let endpoint = match check::collector(endpoint_value.text()?) {
        Ok(endpoint) => endpoint,
        Err(must) => return endpoint_value.must(must),
    };
    if !cfg!(feature = "otlp") && section.is_sound("sample") {
        return value.refuse("needs a Bowline that was built with `--features otlp`");
    }
    Some(Traces { endpoint, sample })
}
