//! Draws what `bowline top` knows.
//!
//! What a balancer sends is cut and has its control characters escaped: it may be another program.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::look::Found;
use super::state::State;
use crate::admin::report::{NodeHealth, Status, Verdict};
use crate::cli::status::age;
use crate::cluster::OperatorState;
use crate::config::one_line;

/// From this width on, every column has room.
const WIDE: u16 = 84;
/// The reasons that are shown at most.
const REASONS: usize = 3;
/// The rows that events have at least, with their title, where there is room for anything.
const EVENT_ROWS: u16 = 4;
/// The longest text that is shown, in characters; more has no room on any terminal.
const LONGEST: usize = 400;

/// Draws the whole picture.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let Some(found) = &state.found else { return };
    let head = head(found, state);
    let rejects = rejects(found, state.rejects_per_second);
    let area = frame.area();
    let nodes = u16::try_from(state.nodes().len()).unwrap_or(u16::MAX);
    let fixed = u16::try_from(head.len())
        .unwrap_or(u16::MAX)
        .saturating_add(3);
    let free = area.height.saturating_sub(fixed);
    let table = nodes
        .saturating_add(1)
        .min(free.saturating_sub(EVENT_ROWS).max(2));
    let [top, _, middle, sums, bottom, foot] = Layout::vertical([
        Constraint::Length(fixed - 3),
        Constraint::Length(1),
        Constraint::Length(table),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    draw_nodes(frame, middle, state);
    frame.render_widget(rejects, sums);
    draw_events(frame, bottom, state);
    draw_foot(frame, foot, state);
}

/// A style of one colour, or none.
fn colour(state: &State, colour: Color) -> Style {
    if state.colours {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

/// What a balancer sends, as a terminal may get it.
fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let cut: String = text.chars().take(LONGEST).collect();
    one_line(&cut).replace(turns, "?")
}

fn head<'a>(found: &Found, state: &State) -> Vec<Line<'a>> {
    let health = &found.health;
    let (word, shade) = match health.status {
        Status::Ok => ("ok", Color::Green),
        Status::Degraded => ("degraded", Color::Yellow),
        Status::Down => ("DOWN", Color::Red),
    };
    let made: f64 = health
        .nodes
        .iter()
        .map(|node| node.creations_per_second)
        .sum();
    let counts = format!(
        ": {} sessions, {} held, {made:.1} new/s, {} connections",
        health.sessions, health.held, health.connections,
    );
    let word = Span::styled(word, colour(state, shade).add_modifier(Modifier::BOLD));
    let mut head = vec![Line::from(vec![word, counts.into()])];
    head.push(match &state.lost {
        Some((why, since)) => {
            let why = format!(
                "no answer for {} s, trying again: {}",
                since.elapsed().as_secs(),
                clean(why)
            );
            let style = colour(state, Color::Red).add_modifier(Modifier::BOLD);
            Line::from(why).style(style)
        }
        None => Line::from(format!(
            "Bowline {} at {}, started {} ago",
            clean(&health.version),
            clean(&found.url),
            age(&health.started, &health.now),
        )),
    });
    let more = health.reasons.len().saturating_sub(REASONS);
    for (number, reason) in health.reasons.iter().take(REASONS).enumerate() {
        let more = match more {
            more if more > 0 && number + 1 == REASONS => format!(" (and {more} more)"),
            _ => String::new(),
        };
        head.push(Line::from(format!("  - {}{more}", clean(reason))));
    }
    head
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, state: &mut State) {
    let is_wide = area.width >= WIDE;
    let names = state
        .nodes()
        .iter()
        .map(|node| clean(&node.name).chars().count());
    let name = u16::try_from(names.max().unwrap_or(0).max(4)).unwrap_or(u16::MAX);
    let heads = [
        ("NODE", true, Constraint::Max(name)),
        ("STATE", true, Constraint::Length(5)),
        ("PROBES", true, Constraint::Length(9)),
        ("SINCE", is_wide, Constraint::Length(6)),
        ("SESSIONS", true, Constraint::Length(8)),
        ("HELD", true, Constraint::Length(6)),
        ("NEW/S", true, Constraint::Length(6)),
        ("ERR1M", is_wide, Constraint::Length(6)),
        ("P50MS", is_wide, Constraint::Length(7)),
        ("P99MS", true, Constraint::Length(7)),
    ];
    let is_shown = |column: usize| heads[column].1;
    let now = state.found.as_ref().map(|found| found.health.now.clone());
    let now = now.unwrap_or_default();
    let rows: Vec<Row<'_>> = state
        .nodes()
        .iter()
        .map(|node| {
            let cells = cells(node, &now, state).into_iter().enumerate();
            Row::new(cells.filter_map(|(column, cell)| is_shown(column).then_some(cell)))
        })
        .collect();
    let titles = heads.iter().enumerate().filter(|(_, (_, shown, _))| *shown);
    let titles = titles.map(|(column, (title, _, _))| aligned(column, (*title).to_owned()));
    let widths = heads.iter().filter(|(_, shown, _)| *shown);
    let table = Table::new(rows, widths.map(|(_, _, width)| *width))
        .header(Row::new(titles).style(Style::new().add_modifier(Modifier::BOLD)))
        .highlight_symbol("> ")
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut state.table);
}

/// Columns from the left that hold words; the others are numbers, to the right.
const WORDS: usize = 3;

fn aligned<'a>(column: usize, text: String) -> Cell<'a> {
    let side = if column < WORDS {
        Alignment::Left
    } else {
        Alignment::Right
    };
    Cell::from(Line::from(text).alignment(side))
}

fn cells<'a>(node: &NodeHealth, now: &str, state: &State) -> Vec<Cell<'a>> {
    let none = || "-".to_owned();
    let (verdict, shade) = match node.verdict {
        Verdict::Up => ("up", Color::Green),
        Verdict::Silent => ("SILENT", Color::Yellow),
        Verdict::HeldBack => ("held back", Color::Yellow),
        Verdict::Down => ("DOWN", Color::Red),
        Verdict::Unknown => ("unknown", Color::Yellow),
    };
    let ms = |ms: Option<f64>| ms.map_or_else(none, |ms| format!("{ms:.1}"));
    let share = node.error_share_1m;
    let share = share.map_or_else(none, |share| format!("{:.1}%", share * 100.0));
    let since = node.since.as_deref();
    let texts = [
        clean(&node.name),
        clean(&node.state),
        verdict.to_owned(),
        since.map_or_else(none, |since| age(since, now)),
        node.sessions.to_string(),
        node.held.to_string(),
        format!("{:.1}", node.creations_per_second),
        share,
        ms(node.p50_ms),
        ms(node.p99_ms),
    ];
    let cells = texts.into_iter().enumerate().map(|(column, text)| {
        let cell = aligned(column, text);
        match column {
            1 if node.state != "ready" => cell.style(colour(state, Color::Yellow)),
            2 => cell.style(colour(state, shade)),
            _ => cell,
        }
    });
    cells.collect()
}

/// What the balancer answered itself, the most frequent cause first.
fn rejects<'a>(found: &Found, per_second: f64) -> Line<'a> {
    let mut causes: Vec<_> = found.rejects.iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = format!("Rejects {per_second:.1}/s");
    for (cause, count) in causes {
        text.push_str(&format!("  {} {count}", clean(cause)));
    }
    Line::from(text)
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::from("Events (UTC), newest first").style(bold)];
    lines.extend(state.events.iter().take(area.height.into()).map(|event| {
        // `2026-03-01T09:00:15Z`. The day has room only on a wide terminal.
        let start = if area.width >= WIDE { 5 } else { 11 };
        let when = clean(&event.when).replace('T', " ");
        let when = when.get(start..19).unwrap_or_default().to_owned();
        Line::from(format!("{when}  {}", clean(&event.text)))
    }));
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let line = if let Some((node, to)) = &state.asked {
        Line::from(question(state, node, *to)).style(reversed)
    } else if let Some(said) = &state.said {
        Line::from(clean(said)).style(bold)
    } else if area.width < 60 {
        Line::from("↑↓  d drain  r ready  m maint  q quit")
    } else {
        Line::from("↑ ↓ choose   d drain   r ready   m maint   q quit")
    };
    frame.render_widget(line, area);
}

/// What a change would do, short enough for a narrow terminal: the answer stands first.
fn question(state: &State, name: &str, to: OperatorState) -> String {
    let node = state.nodes().iter().find(|node| node.name == name);
    let sessions = node.map_or(0, |node| node.sessions);
    let effect = match to {
        OperatorState::Ready => "new sessions again".to_owned(),
        OperatorState::Drain => format!("no new sessions, {sessions} stay"),
        OperatorState::Maint => format!("{sessions} sessions move away"),
    };
    format!("[y/n] {} {}: {effect}?", to.word(), clean(name))
}

#[cfg(test)]
mod tests;
