//! Writes what is made of the command lines of the three programs: man pages and completions of shells.
//!
//! `generate DIR` writes them into `DIR/man` and `DIR/completions`; `generate` alone, into those of this source tree. They
//! are committed, so that a build of the packages needs none of this, and a test says so if they are not what would be
//! written now.

mod completions;
mod man;
mod programs;
mod texts;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Text of each file, by its path below `packaging`.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn main() -> ExitCode {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(committed, PathBuf::from);
    match write(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where they are in this source tree.
fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything there is to write.
fn all() -> io::Result<Files> {
    let mut files = Files::new();
    for program in programs::all() {
        man::pages(&program, &mut files)?;
        completions::scripts(&program, &mut files)?;
    }
    Ok(files)
}

fn write(dir: &Path) -> io::Result<()> {
    let named = |path: &Path, e: io::Error| {
        io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display()))
    };
    let files = all()?;
    for (path, text) in &files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| named(parent, e))?;
        }
        std::fs::write(&path, text).map_err(|e| named(&path, e))?;
    }
    for path in present(dir)? {
        if !files.contains_key(&path) {
            let path = dir.join(path);
            std::fs::remove_file(&path).map_err(|e| named(&path, e))?;
        }
    }
    Ok(())
}

/// What such files there are below `dir`.
fn present(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for sub in [
        man::DIR,
        "completions/bash",
        "completions/zsh",
        "completions/fish",
    ] {
        match std::fs::read_dir(dir.join(sub)) {
            Ok(entries) => {
                for entry in entries {
                    found.push(Path::new(sub).join(entry?.file_name()));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_the_command_lines_say() {
        let dir = committed();
        // `make generate`: the tests are built already, the program is not.
        if std::env::var_os("GENERATE").is_some() {
            write(&dir).unwrap();
        }
        let wanted = all().unwrap();
        let names: Vec<PathBuf> = wanted.keys().cloned().collect();
        let hint = "run: make generate";
        assert_eq!(present(&dir).unwrap(), names, "{hint}");
        for (path, text) in &wanted {
            let found = std::fs::read(dir.join(path)).unwrap();
            assert!(&found == text, "{} is out of date; {hint}", path.display());
        }
    }

    #[test]
    fn written_files_replace_those_of_verbs_that_are_gone() {
        let dir = std::env::temp_dir().join(format!("generate-{}", std::process::id()));
        let stale = dir.join(man::DIR).join("pvesync-gone.1");
        std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
        std::fs::write(&stale, "").unwrap();
        write(&dir).unwrap();
        assert!(!stale.exists());
        assert_eq!(present(&dir).unwrap().len(), all().unwrap().len());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
