//! The commands and options in a page.

use clap::error::ErrorKind;
use clap::Command;
use std::collections::BTreeSet;
use tests::markdown::{page, Block, CodeLine};

/// Something that a page says, and in which line.
pub struct Said {
    pub line: usize,
    pub text: String,
}

/// Our programs.
fn programs() -> [Command; 3] {
    [
        rblocksync::cli::command(),
        pvesync::command(),
        virt_blocksync::command(),
    ]
}

/// First words that programs take before clap is asked: what they call each other with, or systemd and libvirt them.
const WITHOUT_CLAP: [&str; 4] = ["agent", "hook", "watchdog", "work"];

/// Options of other programs that the pages name by themselves.
const FOREIGN: [&str; 9] = [
    "--copy-storage-all",
    "--inplace",
    "--locked",
    "--managed-save",
    "--offline",
    "--privsep",
    "--release",
    "--remove-all-storage",
    "--write-devices",
];

/// Programs by which a block of code is known as one for a shell.
const SHELL: [&str; 34] = [
    "apt",
    "cat",
    "cp",
    "dd",
    "echo",
    "export",
    "for",
    "grep",
    "if",
    "journalctl",
    "lvchange",
    "lvconvert",
    "lvcreate",
    "lvremove",
    "lvrename",
    "lvs",
    "make",
    "mkdir",
    "mount",
    "mv",
    "pvesm",
    "qemu-img",
    "qm",
    "rm",
    "scp",
    "ssh",
    "ssh-copy-id",
    "sudo",
    "systemctl",
    "touch",
    "truncate",
    "vgs",
    "virsh",
    "cargo",
];

/// The line of a block without its prompt, if it has one or needs none.
fn without_prompt(text: &str) -> (&str, bool) {
    let prompt = ["$ ", "# "].iter().find_map(|p| text.strip_prefix(p));
    match prompt {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// The command lines of a block, those that go on over the end of a line put together.
fn lines(block: &Block) -> Vec<(usize, String, bool)> {
    let mut lines: Vec<(usize, String, bool)> = Vec::new();
    let mut goes_on = false;
    for CodeLine { line, text } in &block.lines {
        if goes_on {
            if let Some((_, last, _)) = lines.last_mut() {
                last.push(' ');
                last.push_str(text.trim());
            }
        } else {
            let (text, prompt) = without_prompt(text);
            lines.push((*line, text.to_owned(), prompt));
        }
        goes_on = false;
        if let Some((_, last, _)) = lines.last_mut() {
            if let Some(cut) = last.strip_suffix('\\') {
                *last = cut.trim_end().to_owned();
                goes_on = true;
            }
        }
    }
    lines
}

/// The words of a command of ours in this line, from the program's name on: also behind variables, `sudo`, and others
/// before a pipe.
fn ours(line: &str) -> Vec<Vec<String>> {
    // What is cut out of the middle cannot be read.
    let Some(words) = shlex::split(line) else {
        return Vec::new();
    };
    let ends = ["|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1"];
    words
        .split(|word| ends.contains(&word.as_str()))
        .filter_map(|part| {
            let is_before = |word: &&String| {
                let variable = word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
                });
                variable || ["sudo", "time", "nohup", "exec"].contains(&word.as_str())
            };
            let start = part.iter().take_while(is_before).count();
            let words = &part[start..];
            let name = words.first()?.rsplit('/').next()?;
            let known = programs().iter().any(|p| p.get_name() == name);
            known.then(|| words.to_vec())
        })
        .collect()
}

/// All commands of ours in a page.
pub fn our_commands(text: &str) -> Vec<Said> {
    let page = page(text);
    let mut said = Vec::new();
    let mut add = |line: usize, text: &str| {
        for words in ours(text) {
            if let Ok(text) = shlex::try_join(words.iter().map(String::as_str)) {
                said.push(Said { line, text });
            }
        }
    };
    for block in &page.blocks {
        // Of a recording, only what was typed; of others, each line that begins like a command.
        let recorded = lines(block).iter().any(|(_, _, prompt)| *prompt);
        for (line, text, prompt) in lines(block) {
            let output = text.contains(": ") && !text.contains('\'') && !prompt;
            if (prompt || !recorded) && !output {
                add(line, &text);
            }
        }
    }
    for CodeLine { line, text } in &page.inline {
        // A name by itself is no command.
        if text.contains(' ') {
            add(*line, text);
        }
    }
    said
}

/// Says why no program of ours takes a command.
pub fn parses(text: &str) -> Result<(), String> {
    let words = shlex::split(text).ok_or("a quote is not closed")?;
    let name = words
        .first()
        .map_or("", |w| w.rsplit('/').next().unwrap_or(w));
    let program = programs().into_iter().find(|p| p.get_name() == name);
    let program = program.ok_or_else(|| format!("there is no program {name}"))?;
    if words
        .get(1)
        .is_some_and(|word| WITHOUT_CLAP.contains(&word.as_str()))
    {
        return Ok(());
    }
    if is_mention(&program, &words[1..]) {
        return Ok(());
    }
    match program.try_get_matches_from(&words) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(e) => Err(e.to_string().lines().take(3).collect::<Vec<_>>().join(" ")),
    }
}

/// Whether the words name a verb, and no more.
fn is_mention(program: &Command, words: &[String]) -> bool {
    match words.split_first() {
        None => true,
        Some((verb, rest)) => match program.find_subcommand(verb) {
            Some(inner) => is_mention(inner, rest),
            None => false,
        },
    }
}

/// The examples at the end of the help of each verb of each program.
pub fn examples() -> Vec<(String, Vec<String>)> {
    fn collect(command: &Command, path: &str, found: &mut Vec<(String, Vec<String>)>) {
        let path = format!("{path} {}", command.get_name());
        let inner: Vec<&Command> = command.get_subcommands().collect();
        if inner.is_empty() {
            let help = command.get_after_long_help().or(command.get_after_help());
            let text = help.map(ToString::to_string).unwrap_or_default();
            let (_, examples) = text.split_once("Examples:\n").unwrap_or_default();
            let lines = examples.lines().take_while(|line| line.starts_with("  "));
            let commands = lines
                .flat_map(ours)
                .filter_map(|words| shlex::try_join(words.iter().map(String::as_str)).ok());
            found.push((path.trim().to_owned(), commands.collect()));
        }
        inner
            .into_iter()
            .for_each(|inner| collect(inner, &path, found));
    }
    let mut found = Vec::new();
    for program in programs() {
        collect(&program, "", &mut found);
    }
    found
}

/// All long options of all programs, and of others that the pages name.
pub fn all_options() -> BTreeSet<String> {
    fn collect(command: &Command, found: &mut BTreeSet<String>) {
        for arg in command.get_arguments() {
            let aliases = arg.get_visible_aliases().unwrap_or_default();
            let longs = arg.get_long().into_iter().chain(aliases);
            found.extend(longs.map(|long| format!("--{long}")));
        }
        command
            .get_subcommands()
            .for_each(|inner| collect(inner, found));
    }
    let mut found: BTreeSet<String> = FOREIGN.iter().map(ToString::to_string).collect();
    for mut program in programs() {
        program.build();
        collect(&program, &mut found);
    }
    found
}

/// The options that stand by themselves as code within text.
pub fn options_named(text: &str) -> Vec<Said> {
    let page = page(text);
    let named = page
        .inline
        .into_iter()
        .filter_map(|CodeLine { line, text }| {
            let option = text.split([' ', '=']).next()?.to_owned();
            let of_agent = text.starts_with("--restrict");
            (option.starts_with("--") && option.len() > 2 && !of_agent)
                .then_some(Said { line, text: option })
        });
    named.collect()
}

/// What a shell would be given: each command of a recording, and whole blocks without prompts.
pub fn snippets(text: &str) -> Vec<Said> {
    let mut said = Vec::new();
    for block in &page(text).blocks {
        let lines = lines(block);
        let recorded = lines.iter().any(|(_, _, prompt)| *prompt);
        let word = |text: &str| {
            text.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let is_shell = ["sh", "bash"].contains(&block.info.split(' ').next().unwrap_or_default());
        let begins = lines
            .first()
            .map_or(String::new(), |(_, text, _)| word(text));
        let known =
            SHELL.contains(&begins.as_str()) || programs().iter().any(|p| p.get_name() == begins);
        if recorded {
            let typed = lines.into_iter().filter(|(_, _, prompt)| *prompt);
            said.extend(typed.map(|(line, text, _)| Said { line, text }));
        } else if is_shell || (block.info.is_empty() && known) {
            let line = lines.first().map_or(0, |(line, ..)| *line);
            let text: Vec<String> = lines.into_iter().map(|(_, text, _)| text).collect();
            said.push(Said {
                line,
                text: text.join("\n"),
            });
        }
    }
    said
}

#[test]
fn commands_are_found_where_they_stand() {
    let text = "`pvesync status 101` and `rblocksync`\n\n    # PVESYNC_KEEP=5 pvesync vm 101 \\\n        --to host2   # why\n    VM 101: pvesync x\n\n```sh\nx | sudo pvesync check > y\n```\n";
    let found: Vec<(usize, String)> = our_commands(text)
        .into_iter()
        .map(|s| (s.line, s.text))
        .collect();
    assert_eq!(
        found,
        [
            (3, "pvesync vm 101 --to host2".into()),
            (8, "pvesync check".into()),
            (1, "pvesync status 101".into()),
        ]
    );
}

#[test]
fn what_a_program_does_not_take_is_found() {
    for good in [
        "pvesync migrate",
        "pvesync vm 101 --to h",
        "pvesync vm --help",
        "virt-blocksync hook",
    ] {
        parses(good).unwrap_or_else(|why| panic!("{good}: {why}"));
    }
    for bad in [
        "pvesync vm 1",
        "pvesync move",
        "pvesync vm 101 --to h --quick",
        "rblocksync a",
    ] {
        parses(bad).expect_err(bad);
    }
}
