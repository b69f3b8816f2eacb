//! Cases from lines of text: `name | outcome | bytes`.

use crate::client::post;

/// The namespace of wrappers, as an attribute.
pub(crate) const NAMESPACE: &str = "xmlns='http://jabber.org/protocol/httpbind'";

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// What may happen, any of these.
    pub(crate) outcomes: Vec<Outcome>,
    /// What is sent, not yet filled in.
    pub(crate) script: String,
}

/// What may happen to a case's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The answers, in order.
    pub(crate) answers: Vec<Expect>,
    /// Whether the connection ends behind them; else it must go on.
    pub(crate) closes: bool,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The answer of the node to the session's next request, which reached it.
    Pass,
    /// A new session.
    Created,
    /// A wrapper of the balancer with this status; nothing reached a node.
    Reject(u16),
    /// The text for people.
    About,
    /// The head of that text.
    Head,
    /// The answer to a preflight.
    Preflight,
}

/// A part of what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// What follows is sent later, in a packet of its own.
    Pause,
    /// Our side ends.
    Fin,
}

/// The cases of a file; `{each:a||b}` in the bytes makes one of each.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    });
    lines.flat_map(case).collect()
}

fn case(line: &str) -> Vec<Case> {
    let mut columns = line.splitn(3, " | ").map(str::trim);
    let mut column = || {
        columns
            .next()
            .unwrap_or_else(|| panic!("three columns: {line}"))
    };
    let (name, outcome, script) = (column(), column(), column());
    let outcomes: Vec<Outcome> = outcome.split(" or ").map(outcome_of).collect();
    let case = |name: String, script: String| Case {
        name,
        outcomes: outcomes.clone(),
        script,
    };
    let Some((before, rest)) = script.split_once("{each:") else {
        return vec![case(name.to_owned(), script.to_owned())];
    };
    let (each, after) = rest.split_once('}').expect("a closing brace");
    each.split("||")
        .map(|one| case(format!("{name}: {one}"), format!("{before}{one}{after}")))
        .collect()
}

fn outcome_of(text: &str) -> Outcome {
    let mut outcome = Outcome {
        answers: Vec::new(),
        closes: false,
    };
    for word in text.split([' ', '+']).filter(|word| !word.is_empty()) {
        let expect = match word {
            "closes" => {
                outcome.closes = true;
                continue;
            }
            "pass" => Expect::Pass,
            "created" => Expect::Created,
            "about" => Expect::About,
            "head" => Expect::Head,
            "preflight" => Expect::Preflight,
            status => Expect::Reject(status.parse().unwrap_or_else(|_| panic!("{text}"))),
        };
        outcome.answers.push(expect);
    }
    outcome
}

/// What the words in braces stand for.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    /// The session of the case, with the rid of its next request.
    pub(crate) sid: String,
    pub(crate) rid: u64,
    /// A session of somebody else.
    pub(crate) victim: String,
}

/// A poll.
pub(crate) fn poll(sid: &str, rid: u64) -> String {
    format!("<body {NAMESPACE} rid='{rid}' sid='{sid}'/>")
}

/// A creation.
pub(crate) fn creation(rid: u64) -> String {
    format!("<body {NAMESPACE} rid='{rid}' to='example.com' wait='5' hold='1' ver='1.6'/>")
}

impl Words {
    /// The bytes of a case.
    pub(crate) fn fill(&self, script: &str) -> Vec<Piece> {
        let mut pieces = vec![Piece::Bytes(Vec::new())];
        self.fill_into(script, &mut pieces);
        pieces.retain(|piece| !matches!(piece, Piece::Bytes(bytes) if bytes.is_empty()));
        pieces
    }

    /// The same, for a script without pauses.
    pub(crate) fn bytes(&self, script: &str) -> Vec<u8> {
        let pieces = self.fill(script);
        let bytes = pieces.into_iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            other => panic!("{other:?} has no place in {script}"),
        });
        bytes.collect::<Vec<_>>().concat()
    }

    fn fill_into(&self, mut script: &str, pieces: &mut Vec<Piece>) {
        while let Some(next) = script.chars().next() {
            match next {
                '\\' => {
                    let (byte, taken) = escape(script);
                    append(pieces, &[byte]);
                    script = &script[taken..];
                }
                '{' => {
                    let end = closing(script);
                    self.word(&script[1..end], pieces);
                    script = &script[end + 1..];
                }
                other => {
                    let taken = other.len_utf8();
                    append(pieces, &script.as_bytes()[..taken]);
                    script = &script[taken..];
                }
            }
        }
    }

    fn word(&self, word: &str, pieces: &mut Vec<Piece>) {
        let (name, argument) = word.split_once(':').unwrap_or((word, ""));
        match name {
            "pause" | "fin" => {
                let piece = if name == "fin" {
                    Piece::Fin
                } else {
                    Piece::Pause
                };
                pieces.extend([piece, Piece::Bytes(Vec::new())]);
            }
            _ => append(pieces, &self.meaning(name, argument)),
        }
    }

    fn meaning(&self, name: &str, argument: &str) -> Vec<u8> {
        let body = poll(&self.sid, self.rid);
        let second = poll(&self.sid, self.rid + 1);
        let held = format!(
            "<body {NAMESPACE} rid='{}' sid='{}'><hold xmlns='urn:test'/></body>",
            self.rid, self.sid
        );
        match name {
            "N" => NAMESPACE.into(),
            "sid" => self.sid.clone().into(),
            "rid" => self.rid.to_string().into(),
            "rid2" => (self.rid + 1).to_string().into(),
            "victim" => self.victim.clone().into(),
            "poll" => body.into(),
            "poll2" => second.into(),
            "create" => creation(self.rid).into(),
            "held" => held.into(),
            "post" => "POST /http-bind HTTP/1.1\r\nHost: a\r\n".into(),
            "cl" => format!("Content-Length: {}\r\n", body.len()).into(),
            "te" => "Transfer-Encoding: chunked\r\n".into(),
            "good" => post(&body),
            "good2" => post(&second),
            "theft" => post(&poll(&self.victim, 7)),
            "chunks" => [self.bytes("{chunk:{poll}}"), b"0\r\n\r\n".into()].concat(),
            "chunk" => {
                let inside = self.bytes(argument);
                let size = format!("{:x}\r\n", inside.len());
                [size.as_bytes(), &inside, b"\r\n"].concat()
            }
            "len" => self.bytes(argument).len().to_string().into(),
            "hex" => format!("{:x}", self.bytes(argument).len()).into(),
            "times" => {
                let (count, text) = argument.split_once(':').expect("{times:COUNT:TEXT}");
                let count = count.parse().expect("a count");
                self.bytes(text).repeat(count)
            }
            "count" => {
                let (count, text) = argument.split_once(':').expect("{count:COUNT:TEXT}");
                let count: usize = count.parse().expect("a count");
                let each = (0..count).map(|i| text.replace('%', &i.to_string()));
                self.bytes(&each.collect::<String>())
            }
            _ => panic!("no word {{{name}}}"),
        }
    }
}

fn append(pieces: &mut [Piece], more: &[u8]) {
    let Some(Piece::Bytes(bytes)) = pieces.last_mut() else {
        panic!("bytes are last");
    };
    bytes.extend_from_slice(more);
}

/// The byte of `\r`, `\n`, `\t`, `\0`, `\\`, `\{`, `\}` or `\xHH`, and the escape's length.
fn escape(script: &str) -> (u8, usize) {
    let letter = script.as_bytes().get(1).expect("a letter after \\");
    match letter {
        b'r' => (b'\r', 2),
        b'n' => (b'\n', 2),
        b't' => (b'\t', 2),
        b'0' => (0, 2),
        b'x' => {
            let digits = script.get(2..4).expect("two digits after \\x");
            (u8::from_str_radix(digits, 16).expect("hexadecimal"), 4)
        }
        b'\\' | b'{' | b'}' => (*letter, 2),
        other => panic!("no escape \\{}", *other as char),
    }
}

/// Where the brace closes that opens at the start.
pub(crate) fn closing(script: &str) -> usize {
    let mut depth = 0;
    let mut escaped = false;
    for (at, byte) in script.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    panic!("an open brace in {script}")
}

#[test]
fn a_line_is_a_case() {
    let words = Words {
        sid: "S".to_owned(),
        rid: 7,
        victim: "V".to_owned(),
    };
    let cases = cases(
        "# not this\n\nx y | 400 closes or pass+pass | a{each:1||2}\\r\\n{len:{rid}{rid2}}\n",
    );
    let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["x y: 1", "x y: 2"]);
    assert_eq!(words.bytes(&cases[1].script), b"a2\r\n2");
    let expected = [
        Outcome {
            answers: vec![Expect::Reject(400)],
            closes: true,
        },
        Outcome {
            answers: vec![Expect::Pass, Expect::Pass],
            closes: false,
        },
    ];
    assert_eq!(cases[0].outcomes, expected);
    let pieces = words.fill("a{pause}\\x62{times:3:c}{fin}");
    let expected = [
        Piece::Bytes(b"a".into()),
        Piece::Pause,
        Piece::Bytes(b"bccc".into()),
        Piece::Fin,
    ];
    assert_eq!(pieces, expected);
}
