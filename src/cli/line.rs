//! The form of a log line. Lines in logfmt are written here, and so are lines about requests in every
//! form: there may be one for each request, and the library's way takes several times as long.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::admin::rfc3339;
use crate::proxy::TARGET;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For a person at a terminal: the library's form.
    Terminal {
        /// Whether the terminal gets colours.
        colours: bool,
    },
    /// `key=value` pairs, as Grafana Loki and other collectors read them.
    Logfmt,
    /// One JSON object.
    Json,
}

/// Writes lines in logfmt and all lines about requests. `others` writes the rest.
pub(super) struct Formatter<F> {
    form: Form,
    others: F,
}

impl<F> Formatter<F> {
    /// Lines of this form; `others` is the library's way to write it.
    pub(super) const fn new(form: Form, others: F) -> Self {
        Self { form, others }
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
        let (target, form) = (metadata.target(), self.form);
        let is_request = target == TARGET;
        if !is_request && form != Form::Logfmt {
            return self.others.format_event(context, writer, event);
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.reserve(USUAL);
            begin(line, form, metadata);
            event.record(&mut LineFields {
                form,
                is_request,
                line,
            });
            line.push_str(match form {
                Form::Json => ",\"target\":\"bowline::access\"}\n",
                Form::Terminal { .. } | Form::Logfmt => "\n",
            });
            writer.write_str(line)
        })
    }
}

/// What stands in front of the fields. Only a line in logfmt may be about something else than a request.
fn begin(line: &mut String, form: Form, metadata: &Metadata<'_>) {
    let level = metadata.level();
    match form {
        Form::Json => {
            line.push_str("{\"timestamp\":\"");
            push_time(line);
            line.push_str("\",\"level\":\"");
            line.push_str(level.as_str());
            line.push('"');
        }
        Form::Terminal { .. } => {
            push_time(line);
            line.push_str("  ");
            line.push_str(level.as_str());
            line.push_str(" bowline::access:");
        }
        Form::Logfmt => {
            line.push_str("ts=");
            push_time(line);
            line.push_str(" level=");
            line.push_str(match *level {
                Level::ERROR => "error",
                Level::WARN => "warn",
                Level::INFO => "info",
                Level::DEBUG => "debug",
                Level::TRACE => "trace",
            });
            line.push_str(" target=");
            line.push_str(metadata.target());
        }
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
    form: Form,
    is_request: bool,
    line: &'a mut String,
}

impl LineFields<'_> {
    fn begin(&mut self, name: &str) {
        if self.form == Form::Json {
            self.line.push(',');
            self.line.push('"');
            self.line.push_str(name);
            self.line.push('"');
            self.line.push(':');
        } else {
            self.line.push(' ');
            self.line.push_str(name);
            self.line.push('=');
        }
    }

    fn quote(&mut self) {
        if self.form == Form::Json {
            self.line.push('"');
        }
    }
}

impl Visit for LineFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = match (field.name(), self.form) {
            // A person sees that it is one.
            ("message", Form::Terminal { .. }) => return,
            ("message", Form::Logfmt) => "msg",
            (name, _) => name,
        };
        self.begin(name);
        self.quote();
        let start = self.line.len();
        let written = write!(self.line, "{value:?}");
        debug_assert!(written.is_ok(), "a String takes every write");
        self.quote();
        if self.form == Form::Logfmt {
            quote_logfmt(self.line, start);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.begin(field.name());
        self.quote();
        let start = self.line.len();
        self.line.push_str(value);
        self.quote();
        if self.is_request {
            // Words of the program, addresses, names of nodes and of sessions: no character of them
            // is special.
            debug_assert!(value.bytes().all(is_plain) && !value.is_empty(), "{value}");
        } else {
            quote_logfmt(self.line, start);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.begin(field.name());
        push_number(self.line, value);
    }
}

/// Whether a value with this byte may stand without quotes.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

/// Puts the value that begins at `start` in quotes if logfmt needs them. Escapes are those of JSON.
fn quote_logfmt(line: &mut String, start: usize) {
    if line.len() > start && line[start..].bytes().all(is_plain) {
        return;
    }
    let value = line.split_off(start);
    line.push('"');
    for letter in value.chars() {
        match letter {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                let written = write!(line, "\\u{:04x}", u32::from(control));
                debug_assert!(written.is_ok(), "a String takes every write");
            }
            letter => line.push(letter),
        }
    }
    line.push('"');
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
