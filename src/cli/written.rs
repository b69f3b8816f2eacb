//! `bowline completions SHELL` and `bowline man FOLDER`: what a package installs beside the program, made
//! from the definition of the command line.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{complain, definition, exit};

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    generate(shell, &mut definition(), "bowline", &mut text);
    match io::stdout().write_all(&text) {
        Ok(()) => exit::OK,
        Err(_) => exit::IO.into(),
    }
}

/// Writes the man pages of the program and of its commands into a folder.
pub(super) fn man(folder: &Path) -> ExitCode {
    match pages(folder) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format_args!("{}: {error}", folder.display()));
            exit::IO.into()
        }
    }
}

fn pages(folder: &Path) -> io::Result<()> {
    let mut program = definition();
    program.build();
    page(folder, &program)
}

/// The page of a command, and those of its own commands.
fn page(folder: &Path, command: &clap::Command) -> io::Result<()> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    // `bowline-run`
    let name = command.get_display_name();
    let name = name.unwrap_or_else(|| command.get_name());
    fs::write(folder.join(format!("{name}.1")), text)?;
    let commands = command.get_subcommands();
    let mut shown =
        commands.filter(|command| !command.is_hide_set() && command.get_name() != "help");
    shown.try_for_each(|command| page(folder, command))
}
