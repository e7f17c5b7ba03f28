//! Completions: what a shell offers when the tabulator key is pressed.

use crate::Files;
use clap::Command;
use clap_complete::{generate, Shell};
use std::io;
use std::path::Path;

/// Adds the scripts of a program, each under the name that its shell looks for.
pub fn scripts(program: &Command, files: &mut Files) -> io::Result<()> {
    let name = program.get_name();
    for (shell, file) in [
        (Shell::Bash, name.to_owned()),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ] {
        let mut text = Vec::new();
        generate(shell, &mut program.clone(), name, &mut text);
        let dir = Path::new("completions").join(shell.to_string());
        files.insert(dir.join(file), text);
    }
    Ok(())
}
