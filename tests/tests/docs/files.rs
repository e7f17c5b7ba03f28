//! Files that are made from the programs: they must be what the programs would make today. `make docs` makes them anew.

use super::root;
use rblocksync::cli::config::Program;
use tests::recording::{session, shape, svg};

/// Set by `make docs`: files are written instead of compared.
const UPDATE: &str = "DOCS_UPDATE";

/// Compares a file with what it should be, by what counts of both, or writes it.
fn is_today(file: &str, today: &str, counts: fn(&str) -> Vec<String>) {
    let path = root().join(file);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let (there, here) = (counts(&committed), counts(today));
    if there == here {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, today).expect("the file can be written");
        return;
    }
    let differs = there.iter().zip(&here).find(|(there, here)| there != here);
    panic!("{file} is not what the programs make today: run `make docs`\n{differs:#?}");
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_configuration_files_are_what_is_built_in() {
    let programs: [Program; 3] = [
        rblocksync::cli::CONFIGURED,
        pvesync::args::CONFIGURED,
        virt_blocksync::args::CONFIGURED,
    ];
    for program in programs {
        let file = format!("packaging/config/{}.toml", program.name);
        is_today(&file, &program.defaults_file(), lines);
    }
}

#[test]
fn the_recording_shows_what_the_program_says() {
    let today = session().expect("the session runs");
    is_today("docs/demo.svg", &svg(&today), shape);
}

#[test]
fn the_page_about_what_is_kept_has_the_journals_schema() {
    let page = include_str!("../../../docs/store.md");
    let (_, block) = page.split_once("```sql\n").expect("there is a schema");
    let (block, _) = block.split_once("```").expect("it ends");
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(plain(block), plain(&rblocksync::journal::SCHEMA.concat()));
}
