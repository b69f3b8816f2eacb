//! Commands in the documents: in blocks ` ```sh ` each line is one, in ` ```console ` each line that
//! begins with `$ `. Commands of Bowline must parse with its own definition, also those in running
//! text. Other programs are on a list, so that a misspelt name is found.

use super::{Page, assert_none, documents, planted, root, spans};

/// Other programs that the documents may start.
const PROGRAMS: [&str; 31] = [
    "apt-get",
    "cargo",
    "cat",
    "cd",
    "chmod",
    "chown",
    "cp",
    "curl",
    "docker",
    "echo",
    "ejabberdctl",
    "git",
    "haproxy",
    "install",
    "journalctl",
    "kill",
    "mkdir",
    "nginx",
    "node",
    "npm",
    "openssl",
    "promtool",
    "prosody",
    "prosodyctl",
    "sed",
    "service",
    "socat",
    "ss",
    "sysctl",
    "systemctl",
    "tee",
];

/// Words of the shell itself that may stand in front of a command.
const KEYWORDS: [&str; 6] = ["do", "else", "export", "if", "then", "while"];

/// Words that are a whole command of the shell, whatever follows them.
const BUILT_IN: [&str; 4] = ["done", "exit", "fi", "for"];

/// The words of a command line: quotes removed, comments left out, operators as words of their own.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote, mut quoted) = (String::new(), None, false);
    let end = |word: &mut String, quoted: &mut bool, words: &mut Vec<String>| {
        if !word.is_empty() || *quoted {
            words.push(std::mem::take(word));
        }
        *quoted = false;
    };
    for letter in line.chars() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.push(letter),
            ('\'' | '"', None) => (quote, quoted) = (Some(letter), true),
            ('#', None) if word.is_empty() => break,
            ('|' | ';' | '&', None) => {
                end(&mut word, &mut quoted, &mut words);
                words.push(";".to_owned());
            }
            (' ', None) => end(&mut word, &mut quoted, &mut words),
            (_, None) => word.push(letter),
        }
    }
    end(&mut word, &mut quoted, &mut words);
    words
}

/// Whether a quote of these lines has no end yet.
fn is_quote_open(text: &str) -> bool {
    let (mut quote, mut is_comment, mut last) = (None, false, ' ');
    for letter in text.chars() {
        match quote {
            _ if is_comment => is_comment = letter != '\n',
            Some(open) if letter == open => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None => is_comment = letter == '#' && last.is_whitespace(),
            _ => {}
        }
        last = letter;
    }
    quote.is_some()
}

/// The command lines of a block, each with its number from the block's first line.
fn lines(info: &str, text: &str) -> Vec<(usize, String)> {
    let (mut lines, mut joined): (Vec<(usize, String)>, bool) = (Vec::new(), false);
    let mut document: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(end) = &document {
            if line.trim() == end {
                document = None;
            }
            continue;
        }
        let command = match (info, joined) {
            ("console", false) => line.strip_prefix("$ "),
            _ => Some(line),
        };
        let Some(command) = command else { continue };
        let (command, goes_on) = match command.strip_suffix('\\') {
            Some(start) => (start, true),
            None => (command, false),
        };
        match lines.last_mut() {
            Some((_, last)) if joined => last.push_str(command),
            _ => lines.push((number, command.to_owned())),
        }
        let whole = lines.last().map_or("", |(_, line)| line.as_str());
        joined = goes_on || is_quote_open(whole);
        if joined && !goes_on {
            lines.last_mut().expect("just added").1.push('\n');
        }
        if let Some((_, end)) = command.split_once("<<") {
            document = Some(end.trim_matches(['-', '\'', '"', ' ']).to_owned());
        }
    }
    lines
}

/// What is wrong with one command; `is_mention` allows one without its arguments.
fn fault(command: &[String], is_mention: bool) -> Option<String> {
    let is_assignment = |word: &str| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    };
    let mut words = command.iter().map(String::as_str).peekable();
    while words
        .next_if(|word| is_assignment(word) || *word == "sudo" || KEYWORDS.contains(word))
        .is_some()
    {}
    let program = words.next()?;
    if program.starts_with("tests/") || program.starts_with(".ci/") {
        return (!root().join(program).is_file()).then(|| format!("there is no {program}"));
    }
    let mut arguments: Vec<&str> = match program.rsplit('/').next() {
        Some("bowline") => words.collect(),
        _ if program == "cargo" && command.contains(&"--".to_owned()) => {
            let rest = words.collect::<Vec<_>>();
            let (cargo, ours) = rest.split_at(rest.iter().position(|word| *word == "--")?);
            if cargo.first() != Some(&"run") {
                return None;
            }
            ours[1..].to_vec()
        }
        _ if PROGRAMS.contains(&program) || BUILT_IN.contains(&program) => return None,
        _ => return Some(format!("unknown program `{program}`")),
    };
    if let Some(redirection) = arguments.iter().position(|word| word.contains(['>', '<'])) {
        arguments.truncate(redirection);
    }
    arguments.insert(0, "bowline");
    let error = bowline::cli::definition()
        .try_get_matches_from(&arguments)
        .err()?;
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
        MissingRequiredArgument, MissingSubcommand,
    };
    let allowed = match error.kind() {
        DisplayHelp | DisplayVersion => true,
        MissingRequiredArgument | MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand => {
            is_mention
        }
        _ => false,
    };
    (!allowed).then(|| {
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// What is wrong with the commands of these pages, and how many of Bowline's own there are.
fn findings(pages: &[Page]) -> (usize, Vec<String>) {
    let (mut own, mut findings) = (0, Vec::new());
    let mut check = |place: String, line: &str, is_mention: bool| {
        for command in words(line).split(|word| word == ";") {
            own += usize::from(command.iter().any(|word| word == "bowline"));
            let fault = fault(command, is_mention);
            findings.extend(fault.map(|fault| format!("{place}: {fault}: {line}")));
        }
    };
    for page in pages {
        for block in page.blocks() {
            if !["sh", "console"].contains(&block.info.as_str()) {
                continue;
            }
            for (number, line) in lines(&block.info, &block.text) {
                check(
                    format!("{}:{}", page.path, block.line + number),
                    &line,
                    false,
                );
            }
        }
        for (number, line) in page.prose() {
            let mentions = spans(line).filter(|span| span.starts_with("bowline "));
            // `bowline drain|maint|ready NODE` stands for three commands.
            for span in mentions.filter(|span| !span.contains(['|', '…'])) {
                check(format!("{}:{number}", page.path), span, true);
            }
        }
    }
    (own, findings)
}

#[test]
fn every_command_is_right() {
    let (own, findings) = findings(&documents());
    assert_none(&findings);
    assert!(own >= 10, "{own}");
}

#[test]
fn a_wrong_command_is_found() {
    let block = |info, text| planted("p.md", &format!("```{info}\n{text}\n```\n"));
    for wrong in [
        block("sh", "bowline run --conf FILE"),
        block("sh", "curl x | target/release/bowline chek FILE"),
        block("sh", "sudo RUST_LOG=debug bowline run --confg FILE"),
        block("sh", "cargo run --release -- demo --fro 3"),
        block("sh", "bowline drain \\\n  --admin"),
        block("sh", "curll x  # no such program"),
        block("sh", "tests/no_such_suite"),
        block("sh", "for n in 1 2; do\n  bowline chek $n\ndone"),
        block("sh", "curl -d 'a\nb' x | bowline chek"),
        block("console", "$ bowline status --jsn\nbowline is fine"),
        planted("p.md", "Ask `bowline statsu`."),
    ] {
        assert_eq!(
            findings(std::slice::from_ref(&wrong)).1.len(),
            1,
            "{}",
            wrong.text
        );
    }
    for right in [
        block(
            "sh",
            "bowline run -c 'a b' 2>log  # don't\n\n# only a comment",
        ),
        block(
            "sh",
            "cat >a.yaml <<'END'\nno command\nEND\nbowline check a.yaml && curl -s x",
        ),
        block("sh", "curl -d 'a\ncurll b' x\nexport A_B=c"),
        block("console", "$ bowline status\nok: 12 sessions"),
        planted("p.md", "`bowline drain` and `bowline --help`."),
    ] {
        assert_none(&findings(std::slice::from_ref(&right)).1);
    }
}
