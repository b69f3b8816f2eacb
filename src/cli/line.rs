//! The form of a log line. Lines about requests are written here, since there may be one for each
//! request, and the library's way to write one takes several times as long; all others are the
//! library's.

use std::cell::RefCell;
use std::fmt;
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
        if self.json {
            writer.write_str("{\"timestamp\":\"")?;
            write_time(&mut writer)?;
            writer.write_str("\",\"level\":\"")?;
            writer.write_str(level)?;
            writer.write_str("\"")?;
        } else {
            write_time(&mut writer)?;
            writer.write_str("  ")?;
            writer.write_str(level)?;
            writer.write_str(" bowline::access:")?;
        }
        let mut fields = Fields {
            json: self.json,
            writer,
            result: Ok(()),
        };
        event.record(&mut fields);
        let Fields {
            mut writer, result, ..
        } = fields;
        result?;
        writer.write_str(match self.json {
            true => ",\"target\":\"bowline::access\"}\n",
            false => "\n",
        })
    }
}

/// Writes fields one behind the other: ` name=value`, or `,"name":value`.
struct Fields<'a> {
    json: bool,
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn field(
        &mut self,
        field: &Field,
        quoted: bool,
        value: impl FnOnce(&mut Writer<'_>) -> fmt::Result,
    ) {
        if self.result.is_err() || (field.name() == "message" && !self.json) {
            return;
        }
        let [before, between, after] = match (self.json, quoted) {
            (false, _) => [" ", "=", ""],
            (true, false) => [",\"", "\":", ""],
            (true, true) => [",\"", "\":\"", "\""],
        };
        let writer = &mut self.writer;
        self.result = writer
            .write_str(before)
            .and_then(|()| writer.write_str(field.name()))
            .and_then(|()| writer.write_str(between))
            .and_then(|()| value(writer))
            .and_then(|()| writer.write_str(after));
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, true, |writer| write!(writer, "{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Words of the program, names of nodes and of sessions: no character of them is special.
        debug_assert!(
            value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"')
        );
        self.field(field, true, |writer| writer.write_str(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, false, |writer| write_number(writer, value));
    }
}

fn write_number(writer: &mut Writer<'_>, mut value: u64) -> fmt::Result {
    let mut digits = [b'0'; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    writer.write_str(std::str::from_utf8(&digits[begin..]).map_err(|_| fmt::Error)?)
}

/// Writes the time as RFC 3339, with microseconds. A second is put into words once.
fn write_time(writer: &mut Writer<'_>) -> fmt::Result {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, words)| {
        if *second != since.as_secs() || words.is_empty() {
            *second = since.as_secs();
            *words = rfc3339(now).trim_end_matches('Z').to_owned();
        }
        writer.write_str(words)
    })?;
    let mut micros = since.subsec_micros();
    let mut fraction = *b".000000Z";
    for digit in fraction[1..7].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    writer.write_str(std::str::from_utf8(&fraction).map_err(|_| fmt::Error)?)
}
