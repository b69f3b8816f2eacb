//! `snapshot`, `takeover` and `traces`: where the program writes to, and where the next one finds it.

use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::defaults::SNAPSHOT_INTERVAL;
use super::read::Value;
use super::settings::{Listen, ListenAddress, Snapshot, Traces};

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

pub(super) fn takeover(value: Option<Value<'_>>, listen: &[Listen]) -> Option<PathBuf> {
    let value = value.filter(|value| !value.is_null() && !value.is_off())?;
    let path = value.text()?;
    if let Err(must) = check::unix_path(path) {
        // A relative path, or one that is too long.
        let relative = !path.starts_with('/');
        let absolute = "be an absolute path such as `/run/bowline/takeover.sock`";
        return value.must(if relative { absolute } else { must });
    }
    let path = PathBuf::from(path);
    let address = ListenAddress::Unix(path.clone());
    if listen.iter().any(|listen| listen.address == address) {
        return value.refuse("is the socket of a listener in `listen`");
    }
    Some(path)
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
