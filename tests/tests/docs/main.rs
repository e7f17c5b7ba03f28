//! The documents, held against the programs: every command in them is one that the programs take, every link leads
//! somewhere, every option that is named exists. docs/contributing.md tells which commands are carried out as well.

mod commands;
mod examples;
mod files;
mod links;
mod packages;
mod units;

use commands::{options_named, our_commands, Said};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The top of the repository.
fn root() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.parent()
        .expect("tests is in the repository")
        .to_path_buf()
}

/// The README and all pages below docs.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut dirs = vec![root().join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("docs can be listed") {
            let path = entry.expect("docs can be listed").path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => dirs.push(path),
                Some("md") => pages.push(path),
                _ => {}
            }
        }
    }
    pages.sort();
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).expect("a page can be read")
}

fn shown(page: &Path) -> String {
    let short = page.strip_prefix(root()).unwrap_or(page);
    short.display().to_string()
}

fn fail_with(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

#[test]
fn every_command_of_ours_is_one_that_the_program_takes() {
    let (mut mistakes, mut count) = (Vec::new(), 0);
    for page in pages() {
        for Said { line, text } in our_commands(&read(&page)) {
            count += 1;
            if let Err(why) = commands::parses(&text) {
                mistakes.push(format!("{}:{line}: {text}\n    {why}", shown(&page)));
            }
        }
    }
    println!("{count} commands of ours parsed");
    assert!(count > 100, "only {count} were found");
    fail_with(&mistakes);
}

#[test]
fn every_verbs_help_ends_with_examples_that_the_program_takes() {
    let mut mistakes = Vec::new();
    for (verb, examples) in commands::examples() {
        if examples.is_empty() {
            mistakes.push(format!("{verb} has no examples"));
        }
        for example in examples {
            if let Err(why) = commands::parses(&example) {
                mistakes.push(format!("{verb}: {example}\n    {why}"));
            }
        }
    }
    fail_with(&mistakes);
}

#[test]
fn every_option_that_is_named_exists() {
    let known: BTreeSet<String> = commands::all_options();
    let mut mistakes = Vec::new();
    for page in pages() {
        for Said { line, text } in options_named(&read(&page)) {
            if !known.contains(&text) {
                mistakes.push(format!("{}:{line}: no program has {text}", shown(&page)));
            }
        }
    }
    fail_with(&mistakes);
}

#[test]
fn every_shell_snippet_is_one_for_a_shell() {
    let (mut mistakes, mut count) = (Vec::new(), 0);
    for page in pages() {
        for Said { line, text } in commands::snippets(&read(&page)) {
            count += 1;
            if let Err(why) = bash_reads(&text) {
                mistakes.push(format!("{}:{line}: {why}", shown(&page)));
            }
        }
    }
    println!("{count} snippets read by bash");
    assert!(count > 30, "only {count} were found");
    fail_with(&mistakes);
}

fn bash_reads(text: &str) -> Result<(), String> {
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut input = bash.stdin.take().ok_or("bash has no input")?;
    input
        .write_all(text.as_bytes())
        .map_err(|e| e.to_string())?;
    drop(input);
    let output = bash.wait_with_output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut mistakes = Vec::new();
    let mut pages = pages();
    for name in ["ARCHITECTURE.md", "packaging/README.md", "fuzz/README.md"] {
        pages.push(root().join(name));
    }
    for page in pages {
        for link in links::links(&read(&page)) {
            if let Err(why) = links::check(&root(), &page, &link.text) {
                mistakes.push(format!("{}:{}: {why}", shown(&page), link.line));
            }
        }
    }
    fail_with(&mistakes);
}

#[test]
fn every_page_is_in_the_index() {
    let index = root().join("docs/README.md");
    let text = read(&index);
    let listed: BTreeSet<PathBuf> = links::links(&text)
        .into_iter()
        .filter_map(|link| links::file_of(&index, &link.text))
        .collect();
    let runbooks = root().join("docs/runbooks");
    let missing: Vec<String> = pages()
        .into_iter()
        .filter(|page| *page != index && *page != root().join("README.md"))
        // They have an index of their own.
        .filter(|page| !page.starts_with(&runbooks) || page.ends_with("README.md"))
        .filter(|page| !listed.contains(page))
        .map(|page| format!("docs/README.md does not name {}", shown(&page)))
        .collect();
    fail_with(&missing);
}
