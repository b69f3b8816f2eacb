//! Single key presses on a terminal, for the demo.
//!
//! The terminal hands over each key at once and does not show it, until this ends. Everything else
//! stays as it was: Ctrl-C is a signal still, and lines that are written begin at the margin.

use std::io::{self, IsTerminal as _, Read as _};

use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::sync::mpsc;

use crate::demo::{Key, Keys};

/// Key presses that may wait; more are dropped.
const WAITING: usize = 64;

/// The terminal on stdin while keys are read. It is as before when this is dropped.
pub(super) struct Keyboard {
    before: Termios,
}

impl Keyboard {
    /// None where stdin is no terminal, or where another program has it: a job in the background
    /// would be stopped for touching it.
    pub(super) fn open() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || tcgetpgrp(&stdin).ok()? != getpgrp() {
            return None;
        }
        let keyboard = Self {
            before: tcgetattr(&stdin).ok()?,
        };
        keyboard.take_keys().ok()?;
        Some(keyboard)
    }

    /// Makes the terminal hand over single keys; also after a shell has stopped the demo and let it
    /// go on, which changes the terminal.
    pub(super) fn take_keys(&self) -> io::Result<()> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin)? != getpgrp() {
            return Ok(());
        }
        let mut single = self.before.clone();
        single
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        single.special_codes[SpecialCodeIndex::VMIN] = 1;
        single.special_codes[SpecialCodeIndex::VTIME] = 0;
        Ok(tcsetattr(&stdin, OptionalActions::Now, &single)?)
    }

    /// The demo's keys, as they are pressed.
    ///
    /// # Errors
    /// If there is no thread to read them on.
    pub(super) fn keys(&self) -> io::Result<Keys> {
        let (pressed, keys) = mpsc::channel(WAITING);
        // A thread of its own, which nothing waits for: a read ends with the next key, or never.
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || {
                let mut byte = [0];
                while matches!(io::stdin().read(&mut byte), Ok(1)) {
                    if let Some(key) = Key::of(byte[0])
                        && let Err(mpsc::error::TrySendError::Closed(_)) = pressed.try_send(key)
                    {
                        return;
                    }
                }
            })?;
        Ok(Some(keys))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
