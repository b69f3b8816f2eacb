//! A terminal of its own for a program, and what a person sees on it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::Command;

use super::program::bowline;

/// Both ends of a terminal.
pub(crate) struct Terminal {
    /// The person's end: keys go in, and what is shown comes out.
    pub(crate) keyboard: File,
    /// The program's end.
    pub(crate) program: OwnedFd,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let program = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        Self {
            keyboard: File::from(keyboard),
            program,
        }
    }

    /// The program under test on this terminal, which becomes its controlling one.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(bowline(None).unwrap())
            .stdin(Stdio::from(self.program.try_clone().unwrap()))
            .kill_on_drop(true);
        command
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes it this large, in characters.
    pub(crate) fn resize(&self, width: u16, height: u16) {
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Whether it gathers whole lines and shows what is typed, as a shell expects.
    pub(crate) fn is_as_before(&self) -> bool {
        let expected = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcgetattr(&self.program)
            .unwrap()
            .local_modes
            .contains(expected)
    }

    /// Collects what is shown.
    pub(crate) fn screen(&self) -> Screen {
        let screen = Screen::default();
        let (written, mut from) = (Arc::clone(&screen.0), self.keyboard.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(some @ 1..) = from.read(&mut bytes) {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                written.extend_from_slice(&bytes[..some]);
            }
        });
        screen
    }
}

/// What was written to a terminal so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    /// What stands on the screen now, a line a row. Only what `bowline top` uses is understood: texts,
    /// the cursor's place, and clearing.
    pub(crate) fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = String::from_utf8_lossy(&written).into_owned();
        let (mut rows, mut row, mut column) = (vec![Vec::<char>::new()], 0, 0);
        let mut letters = written.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\u{1b}' => {
                    if letters.next() != Some('[') {
                        continue;
                    }
                    let mut numbers = String::new();
                    let end = letters.by_ref().find(|letter| {
                        let is_end = ('@'..='~').contains(letter);
                        if !is_end {
                            numbers.push(*letter);
                        }
                        is_end
                    });
                    match (end, numbers.as_str()) {
                        (Some('H'), place) => {
                            let (at, across) = place.split_once(';').unwrap_or(("1", "1"));
                            row = at.parse::<usize>().unwrap_or(1) - 1;
                            column = across.parse::<usize>().unwrap_or(1) - 1;
                        }
                        (Some('J'), "2") => rows = vec![Vec::new()],
                        _ => {}
                    }
                }
                '\r' => column = 0,
                '\n' => row += 1,
                letter => {
                    rows.resize(rows.len().max(row + 1), Vec::new());
                    let line = &mut rows[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = letter;
                    column += 1;
                }
            }
        }
        let lines = rows
            .into_iter()
            .map(|row| row.into_iter().collect::<String>());
        lines
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }
}
