//! What `bowline top` knows, and what keys do with it. Draws nothing and sends nothing.

use std::collections::VecDeque;

use ratatui::widgets::TableState;
use tokio::time::Instant;

use super::look::{Found, Happened, Looked};
use crate::admin::report::NodeHealth;
use crate::cluster::OperatorState;

/// The events that are kept.
const EVENTS: usize = 200;
/// How far a page goes.
const PAGE: usize = 10;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The end.
    End,
    /// Another state of a node.
    Change(String, OperatorState),
}

/// Everything that is shown.
pub(super) struct State {
    /// Whether the terminal gets colours.
    pub(super) colours: bool,
    /// The last look that had an answer.
    pub(super) found: Option<Found>,
    /// Why there is no answer now, and since when.
    pub(super) lost: Option<(String, Instant)>,
    /// What happened, newest first.
    pub(super) events: VecDeque<Happened>,
    /// Answers of the balancer's own in a second, between the last two looks.
    pub(super) rejects_per_second: f64,
    /// The chosen node, and the first one shown.
    pub(super) table: TableState,
    /// The name of the chosen node: it may stand elsewhere after a reload.
    chosen: Option<String>,
    /// The change that waits for `y`.
    pub(super) asked: Option<(String, OperatorState)>,
    /// What became of the last change.
    pub(super) said: Option<String>,
}

impl State {
    pub(super) fn new(colours: bool) -> Self {
        Self {
            colours,
            found: None,
            lost: None,
            events: VecDeque::new(),
            rejects_per_second: 0.0,
            table: TableState::default().with_selected(Some(0)),
            chosen: None,
            asked: None,
            said: None,
        }
    }

    /// Takes what a look found.
    pub(super) fn looked(&mut self, looked: Looked) {
        let found = match looked {
            Ok(found) => found,
            Err(why) => {
                let since = self.lost.take().map(|(_, since)| since);
                self.lost = Some((why, since.unwrap_or_else(Instant::now)));
                return;
            }
        };
        self.lost = None;
        if found.is_new {
            self.events.clear();
        }
        self.rejects_per_second = match &self.found {
            Some(last) if !found.is_new => rate(last, &found),
            _ => 0.0,
        };
        for event in &found.events {
            self.events.push_front(event.clone());
        }
        self.events.truncate(EVENTS);
        let is_there = |name: &String| found.health.nodes.iter().any(|node| node.name == *name);
        if self.asked.as_ref().is_some_and(|(name, _)| !is_there(name)) {
            self.asked = None;
        }
        self.found = Some(found);
        let place = self.chosen.as_ref().and_then(|name| self.place_of(name));
        self.choose(place.or(self.table.selected()).unwrap_or(0));
    }

    /// Says what became of a change.
    pub(super) fn say(&mut self, words: String) {
        self.said = Some(words);
    }

    /// The nodes.
    pub(super) fn nodes(&self) -> &[NodeHealth] {
        self.found.as_ref().map_or(&[], |found| &found.health.nodes)
    }

    /// The chosen node.
    pub(super) fn node(&self) -> Option<&NodeHealth> {
        self.nodes().get(self.table.selected()?)
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: Key) -> Option<Wanted> {
        if key == Key::Interrupt {
            return Some(Wanted::End);
        }
        if let Some((node, to)) = self.asked.take() {
            // Any other key is a no.
            let agreed = matches!(key, Key::Letter('y' | 'Y'));
            self.said = agreed.then(|| format!("{node}: asking for {} …", to.word()));
            return agreed.then_some(Wanted::Change(node, to));
        }
        self.said = None;
        let at = self.table.selected().unwrap_or(0);
        match key {
            Key::Letter('q' | 'Q') => return Some(Wanted::End),
            Key::Up | Key::Letter('k') => self.choose(at.saturating_sub(1)),
            Key::Down | Key::Letter('j') => self.choose(at + 1),
            Key::PageUp => self.choose(at.saturating_sub(PAGE)),
            Key::PageDown => self.choose(at + PAGE),
            Key::First => self.choose(0),
            Key::Last => self.choose(usize::MAX),
            Key::Letter('d') => self.ask(OperatorState::Drain),
            Key::Letter('m') => self.ask(OperatorState::Maint),
            Key::Letter('r') => self.ask(OperatorState::Ready),
            Key::Letter(_) | Key::Escape | Key::Interrupt => {}
        }
        None
    }

    /// Asks whether the chosen node is to have this state.
    fn ask(&mut self, to: OperatorState) {
        let Some(node) = self.node() else { return };
        if node.state == to.word() {
            self.said = Some(format!("{} is already in {}", node.name, to.word()));
        } else {
            self.asked = Some((node.name.clone(), to));
        }
    }

    fn choose(&mut self, at: usize) {
        let at = at.min(self.nodes().len().saturating_sub(1));
        self.table.select(Some(at));
        self.chosen = self.node().map(|node| node.name.clone());
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.nodes().iter().position(|node| node.name == name)
    }
}

/// Rejects in a second between two looks.
fn rate(last: &Found, found: &Found) -> f64 {
    let sum = |found: &Found| found.rejects.iter().map(|(_, count)| count).sum::<u64>();
    let seconds = (found.at - last.at).as_secs_f64().max(0.001);
    sum(found).saturating_sub(sum(last)) as f64 / seconds
}

#[cfg(test)]
pub(super) mod tests;
