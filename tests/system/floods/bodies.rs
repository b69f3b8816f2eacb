//! The worst request bodies of a mebibyte that this suite knows: how long reading one takes.

use std::time::Duration;

use bowline::bosh;

use super::report::Report;

/// The size of each body.
const SIZE: usize = 1024 * 1024;

/// What reading one may take.
const MOST: Duration = Duration::from_millis(50);

const BEGIN: &str = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='a'>";
const END: &str = "</body>";

/// Reads each of them several times. The kernel tells the time in steps of a few milliseconds.
pub(super) fn run(report: &mut Report, quick: bool) {
    let rounds = if quick { 10 } else { 50 };
    let mut worst = Duration::ZERO;
    for (name, body) in bodies() {
        let begun = on_processor();
        let read = (0..rounds).filter(|_| bosh::read_request(body.as_bytes()).is_ok());
        let said = if read.count() > 0 { "taken" } else { "refused" };
        let took = on_processor().saturating_sub(begun) / rounds;
        let ms = took.as_secs_f64() * 1000.0;
        report.figure(name, format!("{ms:.2} ms, {said}"));
        worst = worst.max(took);
    }
    report.must("time is told", worst > Duration::ZERO);
    report.must("the worst body of 1 MiB takes at most 50 ms", worst <= MOST);
}

/// Processor time of this thread: other work of the machine is not in it.
fn on_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next();
    Duration::from_nanos(nanos.and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// `unit` over and over within a wrapper.
fn filled(unit: &str) -> String {
    let room = SIZE - BEGIN.len() - END.len();
    format!("{BEGIN}{}{END}", unit.repeat(room / unit.len()))
}

/// As `filled`, with every repetition numbered.
fn numbered(unit: impl Fn(usize) -> String, begin: &str, end: &str) -> String {
    let mut body = begin.to_owned();
    let mut number = 0;
    while body.len() + 64 < SIZE {
        body += &unit(number);
        number += 1;
    }
    body + end
}

fn bodies() -> Vec<(&'static str, String)> {
    let wrapper = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='a' ";
    let attribute = |number: usize| format!("a{number}='' ");
    let prefix = |number: usize| format!("xmlns:p{number}='u' ");
    let nested = 100;
    let deep = format!("{}{}", "<a>".repeat(nested), "</a>".repeat(nested));
    let namespaces: String = (0..40).map(prefix).collect();
    vec![
        ("text", filled("x")),
        ("empty elements", filled("<a/>")),
        ("elements", filled("<a></a>")),
        (
            "elements with namespaces",
            filled("<a xmlns='jabber:client'/>"),
        ),
        (
            "elements with prefixes",
            filled("<p:a xmlns:p='u' p:b=''/>"),
        ),
        ("nested to the limit", filled(&deep)),
        (
            "forty prefixes on each",
            filled(&format!("<a {namespaces}/>")),
        ),
        (
            "one element with attributes to its end",
            numbered(attribute, &format!("{BEGIN}<a "), "/></body>"),
        ),
        (
            "one element with prefixes to its end",
            numbered(prefix, &format!("{BEGIN}<a "), "/></body>"),
        ),
        (
            "a wrapper with attributes to its end",
            numbered(attribute, wrapper, "/>"),
        ),
        (
            "a wrapper with prefixes to its end",
            numbered(prefix, wrapper, "/>"),
        ),
        ("character references", filled("&#x41;")),
        ("entities", filled("&amp;")),
        (
            "references in an attribute",
            format!("{wrapper}x='{}'/>", "&#65;".repeat(SIZE / 5 - 20)),
        ),
        (
            "a long name",
            format!("{BEGIN}<{}/>{END}", "a".repeat(SIZE - 100)),
        ),
        ("start tags only", filled("<a>")),
        ("angle brackets", filled("<")),
        (
            "a CDATA section",
            format!("{BEGIN}<![CDATA[{}]]>{END}", "]".repeat(SIZE - 100)),
        ),
        ("CDATA sections", filled("<![CDATA[]]>")),
        ("comments", filled("<!---->")),
        ("characters of four bytes", filled("\u{1F980}")),
        ("elements of such names", filled("<\u{10400}/>")),
        ("line ends", filled("\r\n")),
    ]
}
