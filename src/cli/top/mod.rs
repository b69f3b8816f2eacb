//! `bowline top`: a running balancer on a terminal, looked at every second, with keys for its nodes.
//!
//! ```text
//! look (admin listener) ──> state <── keys
//!                             └──> view ──> terminal
//! ```

mod look;
mod state;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::ask::Whom;
use super::{complain, exit, operate};
use look::Looked;
use state::{Key, State, Wanted};

/// What may wait to be shown.
const QUEUE: usize = 64;

/// What changes the picture.
enum News {
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The terminal is gone.
    Gone,
    Looked(Box<Looked>),
    /// What became of a change, in words.
    Changed(String),
}

/// Shows the balancer until the key `q`, Ctrl-C or a signal. The terminal is as before then.
#[must_use]
pub fn top(whom: &Whom) -> ExitCode {
    if !io::stdout().is_terminal() {
        complain(&"`top` needs a terminal: use `status --watch` for a pipe or a file");
        return exit::USAGE.into();
    }
    super::block_on(async {
        // It tells a wrong address or token in words that stay on the terminal.
        let (looker, first) = match look::Looker::start(whom).await {
            Ok(started) => started,
            Err(failure) => {
                complain(&failure);
                return failure.code();
            }
        };
        let shown = match ratatui::try_init() {
            Ok(mut terminal) => show(&mut terminal, looker, first, whom).await,
            Err(error) => Err(error),
        };
        ratatui::restore();
        match shown {
            Ok(()) => exit::OK,
            Err(error) => {
                complain(&error);
                exit::IO.into()
            }
        }
    })
}

async fn show(
    terminal: &mut DefaultTerminal,
    looker: look::Looker,
    first: Looked,
    whom: &Whom,
) -> io::Result<()> {
    let (send, mut news) = mpsc::channel(QUEUE);
    read_keys(send.clone())?;
    let looks = tokio::spawn(looker.run(send.clone()));
    let mut end = pin_signals()?;
    let mut state = State::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    state.looked(first);
    let shown = loop {
        terminal.draw(|frame| view::draw(frame, &mut state))?;
        let next = tokio::select! {
            next = news.recv() => next,
            _ = end.recv() => break Ok(()),
        };
        let wanted = match next {
            Some(News::Key(key)) => state.key(key),
            Some(News::Looked(looked)) => {
                state.looked(*looked);
                None
            }
            Some(News::Changed(words)) => {
                state.say(words);
                None
            }
            Some(News::Resized) => None,
            Some(News::Gone) | None => break Ok(()),
        };
        match wanted {
            Some(Wanted::End) => break Ok(()),
            Some(Wanted::Change(node, to)) => {
                let (whom, send) = (whom.clone(), send.clone());
                tokio::spawn(async move {
                    let words = match operate::request(&[node], to, false, &whom).await {
                        Ok(Ok(changed)) => changed.iter().map(operate::told).collect(),
                        Ok(Err(refusal)) => refusal.why,
                        Err(failure) => failure.to_string(),
                    };
                    // The end of the program may be quicker.
                    let _ = send.send(News::Changed(words)).await;
                });
            }
            None => {}
        }
    };
    looks.abort();
    shown
}

/// Each signal that would end the process and leave the terminal as it is.
fn pin_signals() -> io::Result<Receiver<()>> {
    let (send, ends) = mpsc::channel(1);
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        let (mut signals, send) = (signal(kind)?, send.clone());
        tokio::spawn(async move {
            signals.recv().await;
            let _ = send.send(()).await;
        });
    }
    Ok(ends)
}

/// Reads keys on a thread of its own, which nothing waits for: a read ends with the next key, or never.
fn read_keys(send: Sender<News>) -> io::Result<()> {
    let reader = thread::Builder::new().name("keys".into());
    reader.spawn(move || {
        loop {
            let news = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key_of(key.code, control) {
                        Some(key) => News::Key(key),
                        None => continue,
                    }
                }
                Ok(Event::Resize(..)) => News::Resized,
                Ok(_) => continue,
                Err(_) => News::Gone,
            };
            let is_last = matches!(news, News::Gone);
            if send.blocking_send(news).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(())
}

const fn key_of(code: KeyCode, control: bool) -> Option<Key> {
    Some(match (code, control) {
        (KeyCode::Char('c'), true) => Key::Interrupt,
        (_, true) => return None,
        (KeyCode::Char(letter), false) => Key::Letter(letter),
        (KeyCode::Up, false) => Key::Up,
        (KeyCode::Down, false) => Key::Down,
        (KeyCode::PageUp, false) => Key::PageUp,
        (KeyCode::PageDown, false) => Key::PageDown,
        (KeyCode::Home, false) => Key::First,
        (KeyCode::End, false) => Key::Last,
        (KeyCode::Esc, false) => Key::Escape,
        _ => return None,
    })
}
