//! Man pages: one for each program and verb. Options are from the command line; `texts` adds what it cannot say.

use crate::texts::{self, Text};
use crate::Files;
use clap::Command;
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;
use rblocksync::cli::EXIT_CODES;
use std::io;
use std::path::Path;

/// Where they are, below `packaging`.
pub const DIR: &str = "man";
const SECTION: &str = "1";

/// Adds the pages of a program.
pub fn pages(program: &Command, files: &mut Files) -> io::Result<()> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let name = program.get_name().to_owned();
    page(&name, &name, &program, files)
}

/// The page called `title`, and those of its verbs.
fn page(program: &str, title: &str, command: &Command, files: &mut Files) -> io::Result<()> {
    let verbs: Vec<&Command> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .collect();
    for verb in &verbs {
        // What every verb has is on the program's page.
        let own = (*verb).clone().mut_args(|arg| match arg.is_global_set() {
            true => arg.hide(true),
            false => arg,
        });
        let title = format!("{title}-{}", verb.get_name());
        page(program, &title, &own.display_name(title.clone()), files)?;
    }
    let text = texts::of(title);
    let is_program = title == program;
    let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(title)
        .section(SECTION)
        .source(format!("rblocksync {version}"))
        .manual("rblocksync");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    synopsis(command).to_writer(&mut out)?;
    man.render_description_section(&mut out)?;
    paragraphs(text.more).to_writer(&mut out)?;
    man.render_options_section(&mut out)?;
    if !is_program {
        let mut roff = Roff::new();
        roff.text([
            roman("Those that all verbs have, like --json and --quiet, are in "),
            bold(program),
            roman("(1)."),
        ]);
        let mut lines = Roff::new();
        lines.control("PP", []);
        lines.extend([roff]);
        lines.to_writer(&mut out)?;
    }
    if !verbs.is_empty() {
        man.render_subcommands_section(&mut out)?;
    }
    exit_status(program, is_program, &text).to_writer(&mut out)?;
    list("FILES", text.files).to_writer(&mut out)?;
    list("ENVIRONMENT", text.environment).to_writer(&mut out)?;
    examples(text.examples).to_writer(&mut out)?;
    see_also(program, is_program, &verbs, &text).to_writer(&mut out)?;
    let path = Path::new(DIR).join(format!("{title}.{SECTION}"));
    files.insert(path, tidy(&out));
    Ok(())
}

/// As `--help` has it: all options one after another would say nothing.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (i, line) in usage.lines().enumerate() {
        if i > 0 {
            roff.control("PP", []);
        }
        let line = line.trim_start_matches("Usage:").trim();
        roff.text([bold(line)]);
    }
    roff
}

fn paragraphs(text: &[&str]) -> Roff {
    let mut roff = Roff::new();
    for paragraph in text {
        roff.control("PP", []).text([roman(*paragraph)]);
    }
    roff
}

/// From the text of `--help`, so that they are written down once.
fn exit_status(program: &str, is_program: bool, text: &Text) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    if !text.exit_status.is_empty() {
        terms(&mut roff, text.exit_status);
    } else if is_program {
        for line in EXIT_CODES.lines().skip(1) {
            if let Some((code, meaning)) = line.trim_start().split_once("  ") {
                terms(&mut roff, &[(code, meaning.trim_start())]);
            }
        }
    } else {
        roff.text([roman("As in "), bold(program), roman("(1).")]);
    }
    roff
}

fn list(heading: &str, items: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    if !items.is_empty() {
        roff.control("SH", [heading]);
        terms(&mut roff, items);
    }
    roff
}

fn terms(roff: &mut Roff, items: &[(&str, &str)]) {
    for (term, meaning) in items {
        roff.control("TP", [])
            .text([bold(*term)])
            .text([roman(*meaning)]);
    }
}

/// What each does, and the line as it is typed.
fn examples(examples: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
    }
    for (what, line) in examples {
        roff.control("PP", []).text([roman(*what)]);
        roff.control("PP", [])
            .control("RS", ["4"])
            .control("nf", []);
        roff.text([bold(*line)]);
        roff.control("fi", []).control("RE", []);
    }
    roff
}

fn see_also(program: &str, is_program: bool, verbs: &[&Command], text: &Text) -> Roff {
    let mut pages: Vec<String> = verbs
        .iter()
        .filter(|_| is_program)
        .map(|verb| format!("{program}-{}", verb.get_name()))
        .collect();
    if !is_program {
        pages.push(program.to_owned());
    }
    pages.extend(text.see.iter().map(|page| (*page).to_owned()));
    let mut words = Vec::new();
    for (i, page) in pages.iter().enumerate() {
        let (name, section) = page.split_once('(').unwrap_or((page, "1)"));
        words.push(bold(name));
        let comma = if i + 1 < pages.len() { ", " } else { "" };
        words.push(roman(format!("({section}{comma}")));
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]).text(words);
    if is_program {
        roff.control("PP", []).text([roman(format!(
            "/usr/share/doc/{program} has the manual and the runbooks."
        ))]);
    }
    roff
}

/// Every part begins with the same definition, of which one is enough. Paragraphs of a help text come as empty lines, which
/// are bad style in a man page; blanks at the ends of lines are of no use.
fn tidy(page: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(page);
    let mut tidied = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = match line.trim_end() {
            "" => ".sp",
            ".br" => continue,
            line if i > 1 && (line.starts_with(".ie ") || line.starts_with(".el ")) => continue,
            line => line,
        };
        // There is no date, so that the same source gives the same page; without quotes what follows would be taken for it.
        let title = line
            .starts_with(".TH ")
            .then(|| line.replacen("  ", " \"\" ", 1));
        let line = title.as_deref().unwrap_or(line);
        // Nothing is parted from a heading.
        let follows_heading =
            tidied.ends_with(b".SH DESCRIPTION\n") || tidied.ends_with(b".SH EXAMPLES\n");
        if follows_heading && line == ".PP" {
            continue;
        }
        tidied.extend_from_slice(line.as_bytes());
        tidied.push(b'\n');
    }
    tidied
}
