//! The form of a log line. Lines about requests are written here, since there may be one for each
//! request, and the library's way to write one takes several times as long; all others are the
//! library's.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::admin::rfc3339;
use crate::proxy::TARGET;

/// Writes lines about requests itself, and has `others` write the others in the same form.
pub(super) struct Formatter<F> {
    json: bool,
    others: F,
}

impl<F> Formatter<F> {
    /// Lines as text.
    pub(super) const fn text(others: F) -> Self {
        Self {
            json: false,
            others,
        }
    }

    /// One JSON object a line.
    pub(super) const fn json(others: F) -> Self {
        Self { json: true, others }
    }
}

impl<S, N, F> FormatEvent<S, N> for Formatter<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target() != TARGET {
            return self.others.format_event(context, writer, event);
        }
        let level = metadata.level().as_str();
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.reserve(USUAL);
            if self.json {
                line.push_str("{\"timestamp\":\"");
                push_time(line);
                line.push_str("\",\"level\":\"");
                line.push_str(level);
                line.push('"');
            } else {
                push_time(line);
                line.push_str("  ");
                line.push_str(level);
                line.push_str(" bowline::access:");
            }
            event.record(&mut LineFields {
                json: self.json,
                line,
            });
            line.push_str(match self.json {
                true => ",\"target\":\"bowline::access\"}\n",
                false => "\n",
            });
            writer.write_str(line)
        })
    }
}

/// More than a usual line takes, in bytes.
const USUAL: usize = 512;

thread_local! {
    /// Where a line is put together: one write for the whole of it.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The last second that was put into words.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes fields one behind the other: ` name=value`, or `,"name":value`.
struct LineFields<'a> {
    json: bool,
    line: &'a mut String,
}

impl LineFields<'_> {
    fn begin(&mut self, field: &Field) {
        if self.json {
            self.line.push(',');
            self.line.push('"');
            self.line.push_str(field.name());
            self.line.push('"');
            self.line.push(':');
        } else {
            self.line.push(' ');
            self.line.push_str(field.name());
            self.line.push('=');
        }
    }

    fn quote(&mut self) {
        if self.json {
            self.line.push('"');
        }
    }
}

impl Visit for LineFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && !self.json {
            return;
        }
        self.begin(field);
        self.quote();
        let written = write!(self.line, "{value:?}");
        debug_assert!(written.is_ok(), "a String takes every write");
        self.quote();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Words of the program, addresses, names of nodes and of sessions: no character of them is
        // special.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        debug_assert!(value.bytes().all(plain), "{value}");
        self.begin(field);
        self.quote();
        self.line.push_str(value);
        self.quote();
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.begin(field);
        push_number(self.line, value);
    }
}

fn push_number(line: &mut String, value: u64) {
    let digit = |value: u64| char::from(b'0' + (value % 10) as u8);
    // Most are short: a status, a few milliseconds.
    if value >= 1000 {
        push_number(line, value / 1000);
    }
    if value >= 100 {
        line.push(digit(value / 100));
    }
    if value >= 10 {
        line.push(digit(value / 10));
    }
    line.push(digit(value));
}

/// Adds the time as RFC 3339, with microseconds. A second is put into words once.
fn push_time(line: &mut String) {
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, words)| {
        if *second != since.as_secs() || words.is_empty() {
            *second = since.as_secs();
            *words = rfc3339(now).trim_end_matches('Z').to_owned();
        }
        line.push_str(words);
    });
    let mut micros = since.subsec_micros();
    let mut fraction = *b".000000Z";
    for digit in fraction[1..7].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    line.push_str(std::str::from_utf8(&fraction).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_usual() {
        for value in [
            0,
            9,
            10,
            99,
            100,
            200,
            999,
            1000,
            1001,
            27_004,
            1_000_000,
            u64::MAX,
        ] {
            let mut line = String::new();
            push_number(&mut line, value);
            assert_eq!(line, value.to_string());
        }
    }

    #[test]
    fn a_time_has_microseconds() {
        let mut line = String::new();
        push_time(&mut line);
        let (seconds, fraction) = line.split_once('.').unwrap();
        let told = crate::admin::seconds_of(&format!("{seconds}Z")).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.as_secs() - told < 60, "{line}");
        let digits = fraction.strip_suffix('Z').unwrap();
        assert!(digits.len() == 6 && digits.parse::<u32>().is_ok(), "{line}");
    }
}
