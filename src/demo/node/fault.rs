//! How a simulated node misbehaves: what it does with a request, and how it writes an answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::record::Seen;
use super::words::STREAM_ERROR;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A FIN.
    Eof,
    /// An RST.
    Reset,
}

/// One thing for a connection to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes these bytes.
    Bytes(Bytes),
    /// Writes these bytes, each by itself.
    Bytewise(Bytes),
    /// Does nothing for this time.
    Pause(Duration),
    /// Writes the same bytes again and again, until the client has closed.
    Repeat {
        /// The bytes of one write.
        bytes: Bytes,
        /// The highest number of writes, so that a client without bounds does not fill the memory.
        times: usize,
        /// The time after each write.
        pause: Duration,
    },
    /// Ends the connection.
    End(Ending),
    /// Answers nothing more, and keeps the connection open.
    Stall,
}

/// What a node does with one request.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Serves it as its kind of server does.
    Serve,
    /// Serves it, and writes the answer in this manner.
    ServeAs(Manner),
    /// Ends the connection; the request is not run.
    Close(Ending),
    /// Runs the request, then ends the connection where the answer would be.
    LoseAnswer(Ending),
    /// Neither runs nor answers it; the connection stays open.
    Ignore,
    /// Does these steps; the request is not run.
    Steps(Vec<Step>),
    /// Answers with this HTTP status and a short HTML page; the request is not run.
    Status(u16),
}

/// How the end of an answer's body is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    #[default]
    Length,
    Chunked,
    Close,
}

/// Where an answer stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    AfterHead,
    InBody,
}

/// How an answer is written. The default is one write, framed by `Content-Length`.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub(super) framing: Framing,
    pub(super) cut: Option<Cut>,
    pub(super) delay: Duration,
    pub(super) bytewise: bool,
    pub(super) continue_first: bool,
    pub(super) surplus: bool,
    pub(super) connection_close: bool,
    pub(super) lost: Option<Ending>,
}

impl Manner {
    /// Chunked, in several chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// With no length at all: the end of the connection is the end of the body.
    #[must_use]
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Every byte in a write of its own.
    #[must_use]
    pub fn one_byte_at_a_time(mut self) -> Self {
        self.bytewise = true;
        self
    }

    /// `100 Continue` before it.
    #[must_use]
    pub fn continue_first(mut self) -> Self {
        self.continue_first = true;
        self
    }

    /// A whole second answer after it.
    #[must_use]
    pub fn surplus_bytes(mut self) -> Self {
        self.surplus = true;
        self
    }

    /// With `Connection: close`, and then closed.
    #[must_use]
    pub fn connection_close(mut self) -> Self {
        self.connection_close = true;
        self
    }

    /// So long after it was ready.
    #[must_use]
    pub fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The head, and then nothing more.
    #[must_use]
    pub fn stalling_after_headers(mut self) -> Self {
        self.cut = Some(Cut::AfterHead);
        self
    }

    /// The head and half of the body, and then EOF.
    #[must_use]
    pub fn cutting_the_body(mut self) -> Self {
        self.cut = Some(Cut::InBody);
        self
    }
}

/// What a [`Fault`] changes.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    React(Reaction),
    /// Steps before any byte of a request is read.
    AtAccept(Vec<Step>),
    /// Steps after a part of a request is read.
    AtPart(Vec<Step>),
    CloseWhenIdle(Duration),
}

/// Which connections a [`Fault`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Fresh,
    Reused,
}

type Filter = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// A named misbehaviour: what, for which requests, how often.
#[derive(Clone)]
pub struct Fault {
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    scope: Scope,
    left: Option<u32>,
    filter: Option<Filter>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("name", &self.name)
            .field("left", &self.left)
            .finish()
    }
}

impl Fault {
    fn new(name: &'static str, effect: Effect) -> Self {
        Self {
            name,
            effect,
            scope: Scope::Any,
            left: None,
            filter: None,
        }
    }

    fn manner(name: &'static str, manner: Manner) -> Self {
        Self::new(name, Effect::React(Reaction::ServeAs(manner)))
    }

    /// Any reaction, under a name of the caller's.
    #[must_use]
    pub fn reacting(name: &'static str, reaction: Reaction) -> Self {
        Self::new(name, Effect::React(reaction))
    }

    /// Accepts a connection and resets it at once.
    #[must_use]
    pub fn accepting_and_resetting() -> Self {
        let steps = vec![Step::End(Ending::Reset)];
        Self::new("accepting_and_resetting", Effect::AtAccept(steps))
    }

    /// Does these steps as soon as it has accepted a connection; then it serves it.
    #[must_use]
    pub fn at_accept(steps: Vec<Step>) -> Self {
        Self::new("at_accept", Effect::AtAccept(steps))
    }

    /// Reads a part of a request, does these steps, and then serves the rest. For servers with an
    /// HTTP parser.
    #[must_use]
    pub fn at_part(steps: Vec<Step>) -> Self {
        Self::new("at_part", Effect::AtPart(steps))
    }

    /// Closes a connection that has been idle for so long after an answer.
    #[must_use]
    pub fn closing_when_idle(after: Duration) -> Self {
        Self::new("closing_when_idle", Effect::CloseWhenIdle(after))
    }

    /// Closes a reused connection when the next request arrives on it; the request is not run.
    #[must_use]
    pub fn closing_reused() -> Self {
        let reaction = Reaction::Close(Ending::Eof);
        let scope = Scope::Reused;
        Self {
            scope,
            ..Self::new("closing_reused", Effect::React(reaction))
        }
    }

    /// Closes a fresh connection when its first request arrives; the request is not run.
    #[must_use]
    pub fn closing_fresh() -> Self {
        let reaction = Reaction::Close(Ending::Eof);
        let scope = Scope::Fresh;
        Self {
            scope,
            ..Self::new("closing_fresh", Effect::React(reaction))
        }
    }

    /// Resets the connection when a request arrives; the request is not run.
    #[must_use]
    pub fn resetting() -> Self {
        Self::reacting("resetting", Reaction::Close(Ending::Reset))
    }

    /// Runs the request, and closes the connection instead of answering.
    #[must_use]
    pub fn losing_the_answer() -> Self {
        Self::reacting("losing_the_answer", Reaction::LoseAnswer(Ending::Eof))
    }

    /// Reads the request and never does anything about it.
    #[must_use]
    pub fn never_answering() -> Self {
        Self::reacting("never_answering", Reaction::Ignore)
    }

    /// Writes a bare `<stream:error`, which is no HTTP, and closes.
    #[must_use]
    pub fn answering_stream_error() -> Self {
        let bytes = Bytes::from_static(STREAM_ERROR.as_bytes());
        let steps = vec![Step::Bytes(bytes), Step::End(Ending::Eof)];
        Self::reacting("answering_stream_error", Reaction::Steps(steps))
    }

    /// Writes bytes that are no HTTP and keeps the connection open.
    #[must_use]
    pub fn answering_rubbish(bytes: impl Into<Bytes>) -> Self {
        let steps = vec![Step::Bytes(bytes.into())];
        Self::reacting("answering_rubbish", Reaction::Steps(steps))
    }

    /// Answers with this HTTP status and an HTML page.
    #[must_use]
    pub fn answering_status(code: u16) -> Self {
        Self::reacting("answering_status", Reaction::Status(code))
    }

    /// Writes the head of the answer and then nothing more.
    #[must_use]
    pub fn stalling_after_headers() -> Self {
        Self::manner(
            "stalling_after_headers",
            Manner::default().stalling_after_headers(),
        )
    }

    /// Closes in the middle of the answer's body.
    #[must_use]
    pub fn cutting_the_body() -> Self {
        Self::manner("cutting_the_body", Manner::default().cutting_the_body())
    }

    /// Sends a second, uncalled-for answer after the right one.
    #[must_use]
    pub fn surplus_bytes() -> Self {
        Self::manner("surplus_bytes", Manner::default().surplus_bytes())
    }

    /// Answers in chunks.
    #[must_use]
    pub fn chunked() -> Self {
        Self::manner("chunked", Manner::default().chunked())
    }

    /// Answers with no length, and closes.
    #[must_use]
    pub fn close_delimited() -> Self {
        Self::manner("close_delimited", Manner::default().close_delimited())
    }

    /// Answers in writes of one byte.
    #[must_use]
    pub fn one_byte_at_a_time() -> Self {
        Self::manner("one_byte_at_a_time", Manner::default().one_byte_at_a_time())
    }

    /// Sends `100 Continue` first.
    #[must_use]
    pub fn continue_first() -> Self {
        Self::manner("continue_first", Manner::default().continue_first())
    }

    /// Answers so much later.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        Self::manner("slow", Manner::default().slow(delay))
    }

    /// Answers with `Connection: close`, and closes.
    #[must_use]
    pub fn connection_close() -> Self {
        Self::manner("connection_close", Manner::default().connection_close())
    }

    /// Only this many times.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.left = Some(count);
        self
    }

    /// Only the next time.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Only for the requests that `filter` picks.
    #[must_use]
    pub fn on(mut self, filter: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// The reaction to a request, if it is for this one; counts it.
    pub(super) fn react(&mut self, seen: &Seen) -> Option<(&'static str, Reaction)> {
        let Effect::React(reaction) = &self.effect else {
            return None;
        };
        let fits = match self.scope {
            Scope::Any => true,
            Scope::Fresh => !seen.reused,
            Scope::Reused => seen.reused,
        };
        if !fits || self.filter.as_ref().is_some_and(|filter| !filter(seen)) {
            return None;
        }
        let reaction = reaction.clone();
        self.spend().then_some((self.name, reaction))
    }

    /// Counts one use; false when there is none left.
    pub(super) fn spend(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
