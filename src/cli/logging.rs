//! Starts the log: to stderr, as text or as JSON lines, filtered. Text is logfmt, except at a terminal.
//!
//! Log lines go to stderr, as those of Envoy do: stdout belongs to results. The environment
//! variable `RUST_LOG`, if it is set and not empty, overrides the file's filter. Whether requests
//! are logged is a setting of its own (`log.access`), unless the filter itself speaks of them.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, JsonFields};
use tracing_subscriber::reload;

use super::line::{Form, Formatter};
use crate::config::{AccessLog, Log, LogFormat};
use crate::observe::log::{self, Flush};
use crate::proxy::TARGET;

/// The variable whose filter overrides the file's.
const VARIABLE: &str = "RUST_LOG";

/// Why the log could not be started.
#[derive(Debug)]
pub enum LoggingError {
    /// A filter that cannot be read; where it came from, and what it says.
    Filter {
        /// `RUST_LOG` or `log.filter`.
        origin: &'static str,
        /// The filter's text.
        text: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A filter with characters beyond ASCII, which its parser cannot take; where it came from.
    NotAscii(&'static str),
    /// The process already has a log.
    Started,
    /// The system gives no thread, or no descriptor, for it.
    System(io::Error),
}

/// The process's log. It is to be kept until the end: dropping it waits a moment until everything is
/// written.
pub struct Logging {
    _flush: Flush,
    variable: Option<String>,
    exchange: Exchange,
}

/// Puts another filter in place of the one in force.
type Exchange = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").finish_non_exhaustive()
    }
}

impl Logging {
    /// Takes the filter of these settings, unless `RUST_LOG` overrides it.
    ///
    /// # Errors
    /// If the filter cannot be read; then the one in force stays.
    pub fn reload(&self, log: &Log) -> Result<(), LoggingError> {
        let filter = filter(self.variable.clone(), log)?;
        (self.exchange)(filter).map_err(|error| LoggingError::System(io::Error::other(error)))
    }
}

/// Starts the process's log.
///
/// # Errors
/// If `RUST_LOG` or the filter cannot be read, if the process already has a log, or if the system
/// has no thread for it.
pub fn init(log: &Log) -> Result<Logging, LoggingError> {
    let variable = env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
    let filter = filter(variable.clone(), log)?;
    let form = match (log.format, io::stderr().is_terminal()) {
        (LogFormat::Json, _) => Form::Json,
        (LogFormat::Text, false) => Form::Logfmt,
        (LogFormat::Text, true) => Form::Terminal {
            colours: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        },
    };
    // A descriptor of its own: whoever writes to `io::stderr` holds a lock, and a pipe that nobody
    // reads must not hold up whoever comes after.
    let out = io::stderr().as_fd().try_clone_to_owned();
    let out = File::from(out.map_err(LoggingError::System)?);
    let (lines, flush) = log::start(out).map_err(LoggingError::System)?;
    let (dispatch, exchange) = dispatch(form, filter, lines);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LoggingError::Started)?;
    Ok(Logging {
        _flush: flush,
        variable,
        exchange,
    })
}

fn filter(variable: Option<String>, log: &Log) -> Result<EnvFilter, LoggingError> {
    let (origin, text) = match variable.filter(|text| !text.trim().is_empty()) {
        Some(text) => (VARIABLE, text),
        None => ("log.filter", log.filter.clone()),
    };
    if !text.is_ascii() {
        return Err(LoggingError::NotAscii(origin));
    }
    // The word on requests is the file's, unless the filter has one itself.
    let speaks = text.split(',').any(|one| one.trim().starts_with(TARGET));
    let filter = match log.access {
        _ if speaks => text.clone(),
        AccessLog::Off => format!("{text},{TARGET}=off"),
        AccessLog::On | AccessLog::Failures | AccessLog::Sample(_) => {
            format!("{text},{TARGET}=info")
        }
    };
    EnvFilter::builder()
        .parse(&filter)
        .map_err(|source| LoggingError::Filter {
            origin,
            text,
            source,
        })
}

fn dispatch<W>(form: Form, filter: EnvFilter, writer: W) -> (Dispatch, Exchange)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written is lost. To say so there would panic: the disk is full.
        .log_internal_errors(false)
        .with_writer(writer);
    if form == Form::Json {
        let formatter = Formatter::new(form, format::format().json().flatten_event(true));
        let lines = lines.fmt_fields(JsonFields::new()).with_ansi(false);
        let lines = lines.event_format(formatter).with_filter_reloading();
        let handle = lines.reload_handle();
        let exchange = Box::new(move |filter| handle.reload(filter));
        return (lines.finish().into(), exchange);
    }
    let colours = form == Form::Terminal { colours: true };
    let formatter = Formatter::new(form, format::format().with_ansi(colours));
    let lines = lines.with_ansi(colours).event_format(formatter);
    let lines = lines.with_filter_reloading();
    let handle = lines.reload_handle();
    let exchange = Box::new(move |filter| handle.reload(filter));
    (lines.finish().into(), exchange)
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoggingError::Filter {
                origin,
                text,
                source,
            } => write!(f, "{origin}: `{text}` is no log filter: {source}"),
            LoggingError::NotAscii(origin) => {
                write!(f, "{origin}: a log filter has ASCII characters only")
            }
            LoggingError::Started => f.write_str("the process already has a log"),
            LoggingError::System(source) => write!(f, "cannot start the log: {source}"),
        }
    }
}

impl std::error::Error for LoggingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoggingError::Filter { source, .. } => Some(source),
            LoggingError::NotAscii(_) | LoggingError::Started => None,
            LoggingError::System(source) => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic held it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(filter: &str) -> Log {
        Log {
            filter: filter.to_owned(),
            ..Log::default()
        }
    }

    fn written(form: Form, log: &Log, variable: Option<&str>) -> String {
        written_by(form, log, variable, || {
            tracing::info!(node = "t1", "node is up");
            tracing::debug!("detail");
        })
    }

    fn written_by(form: Form, log: &Log, variable: Option<&str>, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let filter = filter(variable.map(str::to_owned), log).expect("a good filter");
        let writer = lines.clone();
        let (dispatch, _) = dispatch(form, filter, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, events);
        let bytes = lines.0.lock().expect("no panic held it").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_terminal_has_colours_unless_they_are_off() {
        for colours in [false, true] {
            let text = written(Form::Terminal { colours }, &log("info"), None);
            assert!(text.contains("node is up"), "{text}");
            assert_eq!(text.contains('\u{1b}'), colours, "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }

    #[test]
    fn text_is_logfmt_and_quotes_what_needs_it() {
        let all = Log {
            access: AccessLog::On,
            ..log("info")
        };
        let text = written_by(Form::Logfmt, &all, None, || {
            tracing::warn!(
                node = "t1", empty = "", sign = "a=b", quote = %"\"\\", lines = "a\r\n\tb\u{1b}\u{85}",
                list = ?["a"], letters = %"ü", count = 7, share = 0.5, flag = true, none = None::<u64>,
                error = &io::Error::other("no \"way\"") as &dyn std::error::Error,
                "node is down",
            );
            tracing::info!(target: "bowline::access", client = "::1", status = 200_u64, "request");
        });
        let untimed: Vec<&str> = text
            .lines()
            .filter_map(|line| {
                let (time, rest) = line.split_once(' ')?;
                (time.len() == "ts=2026-11-28T09:00:00.000000Z".len()).then_some(rest)
            })
            .collect();
        let expected = [
            "level=warn target=bowline::cli::logging::tests msg=\"node is down\" node=t1 empty=\"\" \
             sign=\"a=b\" quote=\"\\\"\\\\\" lines=\"a\\r\\n\\tb\\u001b\\u0085\" list=\"[\\\"a\\\"]\" \
             letters=\"ü\" count=7 share=0.5 flag=true error=\"no \\\"way\\\"\"",
            "level=info target=bowline::access msg=request client=::1 status=200",
        ];
        assert_eq!(untimed, expected);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(Form::Json, &log("debug"), None);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(value.get("message").is_some(), "{line}");
        }
    }

    #[test]
    fn another_filter_applies_at_once() {
        let lines = Lines::default();
        let file = log("info");
        let writer = lines.clone();
        let first = filter(None, &file).expect("a good filter");
        let (dispatch, exchange) = dispatch(Form::Logfmt, first, move || writer.clone());
        let count = || {
            lines
                .0
                .lock()
                .expect("no panic held it")
                .split(|b| *b == b'\n')
                .count()
                - 1
        };
        tracing::dispatcher::with_default(&dispatch, || {
            for (text, expected) in [("debug", 1), ("error", 1), ("info,bowline=debug", 2)] {
                exchange(filter(None, &log(text)).expect("a good filter"))
                    .expect("the log is there");
                tracing::debug!("detail");
                assert_eq!(count(), expected, "{text}");
            }
        });
    }

    #[test]
    fn the_variable_goes_before_the_file() {
        let file = log("info");
        assert_eq!(
            written(Form::Logfmt, &file, Some("debug")).lines().count(),
            2
        );
        assert_eq!(written(Form::Logfmt, &file, Some("error")), "");
        assert_eq!(written(Form::Logfmt, &file, Some(" ")).lines().count(), 1);
    }

    #[test]
    fn a_bad_filter_says_where_it_came_from() {
        let file = log("info");
        let error = filter(Some("a=b=c".to_owned()), &file).expect_err("a bad filter");
        let text = error.to_string();
        assert!(
            text.starts_with("RUST_LOG: `a=b=c` is no log filter: "),
            "{text}"
        );
    }

    /// `tracing-subscriber` 0.3.23 panics in the middle of a character.
    #[test]
    fn a_filter_beyond_ascii_is_refused() {
        let file = log("info");
        let error = filter(Some("4 } -\u{feff}[[".to_owned()), &file).expect_err("no filter");
        let expected = "RUST_LOG: a log filter has ASCII characters only";
        assert_eq!(error.to_string(), expected);
    }
}
