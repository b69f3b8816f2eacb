//! Pictures to the letter, and terminals of any size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use tokio::time::Instant;

use super::super::state::tests::{event, found};
use super::super::state::{Key, State};
use super::draw;

const FOUR: [(&str, &str, &str); 4] = [
    ("t1", "ready", "up"),
    ("tigase-2", "maint", "down"),
    ("t3", "ready", "silent"),
    ("t4", "drain", "held_back"),
];

fn state() -> State {
    let mut state = State::new(false);
    let mut look = found(&FOUR);
    look.events = vec![event("node t2 is up"), event("t2 is down: refused")];
    state.looked(Ok(look));
    state
}

fn terminal(state: &mut State, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal
}

fn picture(state: &mut State, width: u16, height: u16) -> String {
    let terminal = terminal(state, width, height);
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(width.into());
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned() + "\n"
    };
    rows.map(line).collect()
}

#[test]
fn a_wide_picture() {
    let expected = "\
degraded: 2408 sessions, 1960 held, 17.0 new/s, 3000 connections
Bowline 1.2.3 at http://127.0.0.1:9280, started 2d02h ago
  - node t2 is down

  NODE     STATE PROBES     SINCE SESSIONS   HELD  NEW/S  ERR1M   P50MS   P99MS
> t1       ready up         2h00m     1204    980    4.2   1.5%     1.2 12345.6
  tigase-2 maint DOWN       2h00m     1204    980    4.2   1.5%     1.2 12345.6
  t3       ready SILENT     2h00m     1204    980    4.2   1.5%     1.2 12345.6
  t4       drain held back  2h00m     1204    980    4.2   1.5%     1.2 12345.6
Rejects 0.0/s  malformed 120  unknown_session 7
Events (UTC), newest first
03-01 08:58:10  t2 is down: refused
03-01 08:58:10  node t2 is up

↑ ↓ choose   d drain   r ready   m maint   q quit
";
    assert_eq!(picture(&mut state(), 99, 15), expected);
}

#[test]
fn a_narrow_picture_with_a_question() {
    let mut state = state();
    state.key(Key::Down);
    state.key(Key::Letter('d'));
    let expected = "\
degraded: 2408 sessions, 1960 held, 17.0 new/s, 3000 connect
Bowline 1.2.3 at http://127.0.0.1:9280, started 2d02h ago
  - node t2 is down

  NODE     STATE PROBES    SESSIONS   HELD  NEW/S   P99MS
  t1       ready up            1204    980    4.2 12345.6
> tigase-2 maint DOWN          1204    980    4.2 12345.6
  t3       ready SILENT        1204    980    4.2 12345.6
  t4       drain held back     1204    980    4.2 12345.6
Rejects 0.0/s  malformed 120  unknown_session 7
Events (UTC), newest first
08:58:10  t2 is down: refused
08:58:10  node t2 is up

[y/n] drain tigase-2: no new sessions, 1204 stay?
";
    assert_eq!(picture(&mut state, 60, 15), expected);
}

#[test]
fn a_lost_balancer_is_shown() {
    let mut state = state();
    state.lost = Some((
        "no answer from http://x: connection refused".to_owned(),
        Instant::now(),
    ));
    let picture = picture(&mut state, 90, 12);
    let words = "no answer for 0 s, trying again: no answer from http://x: connection refused";
    assert!(picture.contains(words), "{picture}");
    assert!(picture.contains("> t1"), "{picture}");
}

#[test]
fn the_chosen_node_is_shown_among_many() {
    let names: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
    let nodes: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "ready", "up"))
        .collect();
    let mut state = State::new(false);
    state.looked(Ok(found(&nodes)));
    state.key(Key::Last);
    let picture = picture(&mut state, 80, 20);
    assert!(picture.contains("> n999"), "{picture}");
    assert!(picture.contains("Events"), "{picture}");
}

#[test]
fn any_size_is_drawn() {
    for width in [0, 1, 2, 10, 59, 60, 83, 84, 300] {
        for height in 0..30 {
            drop(terminal(&mut state(), width, height));
        }
    }
    assert_eq!(picture(&mut State::new(false), 20, 1), "\n");
}

#[test]
fn what_the_balancer_sends_is_escaped() {
    let mut look = found(&[("t\u{1b}[2J\u{202e}1", "re\nady", "up")]);
    look.health.version = "1\u{1b}c".to_owned();
    look.health.reasons = vec!["bad\r\u{7}".repeat(1000)];
    look.rejects = vec![("x\u{1b}]0;t\u{7}".to_owned(), 1)];
    look.events = vec![event("e\u{1b}[31m\u{9b}31m")];
    let mut state = State::new(false);
    state.looked(Ok(look));
    state.said = Some("no\u{1b}".to_owned());
    let terminal = terminal(&mut state, 120, 20);
    let cells = terminal.backend().buffer().content();
    let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(cells.iter().all(|cell| !cell.symbol().contains(bad)));
    let picture = picture(&mut state, 120, 20);
    assert!(
        picture.contains("t\\u{1b}[2J?1") && picture.contains("e\\u{1b}[31m"),
        "{picture}"
    );
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    for wanted in [false, true] {
        let mut state = state();
        state.colours = wanted;
        let terminal = terminal(&mut state, 99, 15);
        let cells = terminal.backend().buffer().content();
        let coloured = cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, wanted);
    }
}
