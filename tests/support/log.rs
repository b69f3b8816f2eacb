//! What a program writes, line by line as it comes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::waiting::{PATIENCE, until};
use super::{Result, logfmt};

/// Microseconds since 1970: a clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, micros)
}

/// A duration in the unit of [`now`].
pub(crate) const fn micros(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000 + duration.subsec_micros() as u64
}

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// When it was read; see [`now`].
    pub(crate) at: u64,
    pub(crate) text: String,
}

impl Line {
    /// The fields of the line in either form of the log.
    ///
    /// # Errors
    /// It is not a line of the log.
    pub(crate) fn fields(&self) -> Result<Value> {
        if self.text.starts_with('{') {
            return Ok(serde_json::from_str(&self.text)?);
        }
        logfmt::read(&self.text)
    }

    /// Whether it has this text as its message.
    pub(crate) fn says(&self, message: &str) -> bool {
        self.fields()
            .is_ok_and(|fields| fields["message"] == message)
    }

    /// The value of its field `address`.
    fn address(&self) -> Option<SocketAddr> {
        self.fields().ok()?["address"].as_str()?.parse().ok()
    }
}

/// The lines of one program. A clone is the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    /// Collects the lines of `from` until its end, also into the file `copy`.
    pub(crate) fn read(&self, from: impl Read + Send + 'static, mut copy: Option<File>) {
        let log = self.clone();
        std::thread::spawn(move || {
            for text in BufReader::new(from).lines().map_while(std::io::Result::ok) {
                if let Some(copy) = &mut copy {
                    // The line is in memory too.
                    let _ = writeln!(copy, "{text}");
                }
                log.lock().push(Line { at: now(), text });
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().clone()
    }

    /// All lines so far as one text.
    pub(crate) fn text(&self) -> String {
        let lines = self.lock();
        lines.iter().map(|line| line.text.clone() + "\n").collect()
    }

    /// Whether every program that wrote to it has closed it.
    pub(crate) fn is_complete(&self) -> bool {
        // Each reading thread holds a clone until the end of what it reads.
        Arc::strong_count(&self.0) == 1
    }

    /// The first line that `wanted` picks, once it is there.
    ///
    /// # Errors
    /// It does not come within [`PATIENCE`].
    pub(crate) async fn find(&self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        let mut found = None;
        let mut looked = 0;
        until(PATIENCE, async || {
            let lines = self.lock();
            found = lines[looked..].iter().find(|line| wanted(line)).cloned();
            looked = lines.len();
            found.is_some()
        })
        .await;
        found.ok_or_else(|| format!("no line: {what}\n{}", self.text()).into())
    }

    /// The address in the line with this message.
    ///
    /// # Errors
    /// The line does not come, or has no address.
    pub(crate) async fn address(&self, message: &str) -> Result<SocketAddr> {
        let line = self.find(message, |line| line.says(message)).await?;
        line.address()
            .ok_or_else(|| format!("no address: {}", line.text).into())
    }
}
