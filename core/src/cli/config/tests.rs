use super::*;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[arg(long, global = true)]
    quiet: bool,
    #[arg(long, requires = "ca")]
    api: Option<String>,
    #[arg(long, conflicts_with = "fingerprint")]
    ca: Option<String>,
    #[arg(long)]
    fingerprint: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Vm(Sync),
    Migrate(Sync),
    Prune {
        #[arg(long)]
        to: Option<String>,
    },
    Job {
        #[command(subcommand)]
        verb: JobVerb,
    },
}

#[derive(clap::Args, Debug, PartialEq)]
struct Sync {
    ids: Vec<u32>,
    /// The host
    #[arg(long, value_name = "HOST")]
    to: String,
    /// How many
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    keep: u32,
    #[arg(long, value_parser = crate::cli::units::parse_time)]
    within: Option<Duration>,
    #[arg(long, value_parser = crate::verbs::parse_map)]
    map: Vec<(String, String)>,
    #[arg(long, conflicts_with = "cold")]
    live: bool,
    #[arg(long)]
    cold: bool,
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand, Debug)]
enum JobVerb {
    Run {
        #[arg(long, default_value = "1s", value_parser = crate::cli::units::parse_time)]
        wait: Duration,
    },
}

const PROGRAM: Program = Program {
    name: "x-sync",
    command: Cli::command,
    one_run: &[],
};

struct Place {
    dir: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Place {
    fn new(text: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place {
            dir,
            variables: Vec::new(),
        };
        fs::write(place.file(), text).unwrap();
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).unwrap();
        place
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Place {
        self.variables.push((variable, value));
        self
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("x-sync.toml")
    }

    fn parse(&self, line: &str) -> std::result::Result<Cli, String> {
        let variable = |name: &str| {
            let found = self.variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let line: Vec<OsString> = format!("x-sync {line}")
            .split_whitespace()
            .map(OsString::from)
            .collect();
        match PROGRAM.matches_with(&line, &variable, &self.file()) {
            Ok(matches) => Cli::from_arg_matches(&matches).map_err(|e| e.to_string()),
            Err(Early::Clap(e)) => Err(e.to_string()),
            Err(Early::Configuration(failed)) => Err(failed.error.to_string()),
        }
    }

    fn sync(&self, line: &str) -> Sync {
        match self.parse(line).unwrap().verb {
            Verb::Vm(sync) | Verb::Migrate(sync) => sync,
            other => panic!("{other:?}"),
        }
    }

    /// What is wrong with the file, without the path in front of each line.
    fn wrong(&self) -> String {
        let said = self.parse("vm 1 --to=h").unwrap_err();
        said.replace(&format!("{}:", self.file().display()), "")
    }
}

#[test]
fn the_command_line_is_above_the_environment_above_the_file_above_what_is_built_in() {
    let empty = Place::new("");
    assert_eq!(empty.sync("vm 1 --to h").keep, 3);
    let file = "keep = 4\n[vm]\nkeep = 5\nto = \"host2\"\n";
    let place = Place::new(file);
    assert_eq!(place.sync("vm 1").keep, 5);
    assert_eq!(place.sync("vm 1").to, "host2");
    assert_eq!(place.sync("migrate 1 --to=h").keep, 4);
    let place = Place::new(file).with("X_SYNC_KEEP", "6");
    assert_eq!(place.sync("vm 1").keep, 6);
    assert_eq!(place.sync("vm 1 --keep 7").keep, 7);
    // An empty variable says nothing.
    assert_eq!(
        Place::new(file).with("X_SYNC_KEEP", "").sync("vm 1").keep,
        5
    );
    // What is for the verb is not for another one, which still misses it.
    let missing = Place::new(file).parse("migrate 1").unwrap_err();
    assert!(missing.contains("--to <HOST>"), "{missing}");
}

#[test]
fn values_are_written_as_on_the_command_line() {
    let text = "within = \"36h\"\nmap = { a = \"b\", c = \"d\" }\nquiet = true\n[job.run]\nwait = \"2m\"\n";
    let place = Place::new(text);
    let sync = place.sync("vm 1 --to h");
    assert_eq!(sync.within, Some(Duration::from_secs(36 * 3600)));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(sync.map, [pair("a", "b"), pair("c", "d")]);
    // A list of the command line replaces the whole of it.
    assert_eq!(place.sync("vm 1 --to h --map e=f").map, [pair("e", "f")]);
    let cli = place.parse("job run").unwrap();
    assert!(cli.quiet);
    let Verb::Job {
        verb: JobVerb::Run { wait },
    } = cli.verb
    else {
        panic!()
    };
    assert_eq!(wait, Duration::from_secs(120));
}

#[test]
fn a_flag_that_is_on_can_be_switched_off() {
    let place = Place::new("quiet = true\n[vm]\nlive = true\n");
    assert!(place.sync("vm 1 --to h").live);
    assert!(place.sync("vm 1 --to h --live").live);
    assert!(!place.sync("vm 1 --to h --live=false").live);
    assert!(!place.sync("migrate 1 --to h").live);
    assert!(place.parse("vm 1 --to h").unwrap().quiet);
    assert!(!place.parse("vm 1 --to h --quiet=false").unwrap().quiet);
    let place = Place::new("").with("X_SYNC_LIVE", "yes");
    assert!(place.sync("vm 1 --to h").live);
    let place = Place::new("").with("X_SYNC_LIVE", "maybe");
    let said = place.parse("vm 1 --to h").unwrap_err();
    assert!(
        said.starts_with("X_SYNC_LIVE: it is true or false"),
        "{said}"
    );
}

#[test]
fn what_is_stronger_also_rules_out_what_it_excludes() {
    let place = Place::new("ca = \"c\"\n[vm]\nlive = true\n");
    let sync = place.sync("vm 1 --to h --cold");
    assert!(sync.cold && !sync.live);
    let cli = place.parse("--fingerprint f vm 1 --to h").unwrap();
    assert_eq!((cli.ca, cli.fingerprint), (None, Some("f".into())));
    let place = Place::new("live = true\n").with("X_SYNC_COLD", "1");
    assert!(!place.sync("vm 1 --to h").live);
    let place = Place::new("live = true\ncold = true\n");
    let said = place.parse("vm 1 --to h").unwrap_err();
    assert!(said.contains("exclude each other"), "{said}");
}

#[test]
fn mistakes_are_all_told_with_their_lines_and_what_may_be_meant() {
    let text = "\
kep = 4
[vm]
keep = 10
within = \"36\"
dry-run = true
to = [\"a\", \"b\"]
[migrte]
keep = 1
[job.run]
wait = 1.5
";
    let said = Place::new(text).wrong();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 7, "{said}");
    assert_eq!(
        lines[0],
        "1: x-sync has no option or verb \"kep\"; did you mean keep?"
    );
    assert!(
        lines[1].starts_with("3: keep: invalid value '10' for '--keep"),
        "{said}"
    );
    assert!(
        lines[2].starts_with("4: within: invalid value '36'"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("5: dry-run is about a single run"),
        "{said}"
    );
    assert_eq!(lines[4], "6: to: it takes one value, not several");
    assert!(lines[5].ends_with("did you mean migrate?"), "{said}");
    assert!(
        lines[6].starts_with("10: wait: write it in quotes"),
        "{said}"
    );
    assert!(Place::new("keep = 1\nkeep = 2\n")
        .wrong()
        .starts_with("2: duplicate key"));
    assert!(Place::new("to = \"h\"\n")
        .wrong()
        .starts_with("1: to means something else"));
}

#[test]
fn help_is_true_and_can_be_had_with_a_broken_file() {
    let place = Place::new("[vm]\nkeep = 8\n");
    assert!(place
        .parse("vm --help")
        .unwrap_err()
        .contains("[default: 8]"));
    assert!(place
        .parse("migrate --help")
        .unwrap_err()
        .contains("[default: 3]"));
    let broken = Place::new("nonsense");
    assert!(broken
        .parse("vm --help")
        .unwrap_err()
        .contains("[default: 3]"));
    assert!(broken
        .parse("vm 1 --to h")
        .unwrap_err()
        .contains("x-sync.toml:1:"));
}

#[test]
fn a_file_that_is_named_must_be_there_and_the_usual_one_need_not() {
    let place = Place::new("keep = 4\n");
    let other = place.dir.path().join("other");
    let line = format!("vm 1 --to h --config {}", other.display());
    assert!(place.parse(&line).unwrap_err().starts_with("cannot read"));
    fs::write(&other, "keep = 5\n").unwrap();
    assert_eq!(place.sync(&line).keep, 5);
    assert_eq!(place.sync("--config /dev/null vm 1 --to h").keep, 3);
    fs::remove_file(place.file()).unwrap();
    assert_eq!(place.sync("vm 1 --to h").keep, 3);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let place = Place::new("keep = 4\n");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&place.file(), 0o666);
    assert!(place
        .parse("vm 1 --to h")
        .unwrap_err()
        .contains("writable by others"));
    mode(&place.file(), 0o644);
    mode(place.dir.path(), 0o777);
    assert!(place
        .parse("vm 1 --to h")
        .unwrap_err()
        .contains("writable by others"));
    mode(place.dir.path(), 0o755);
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(place.file(), &link).unwrap();
    let line = format!("vm 1 --to h --config {}", link.display());
    assert!(place.parse(&line).unwrap_err().contains("is a link"));
}

#[test]
fn the_file_that_changes_nothing_changes_nothing() {
    let text = PROGRAM.defaults_file();
    assert!(Place::new(&text).parse("vm 1 --to h").is_ok(), "{text}");
    // Nor when what has a default is said.
    let said: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("#keep = 3") {
            Some(_) => "keep = 3",
            None => line,
        })
        .collect();
    assert!(said.contains(&"keep = 3"), "{text}");
    assert_eq!(
        Place::new(&said.join("\n")).sync("vm 1 --to h"),
        Place::new("").sync("vm 1 --to h")
    );
    assert!(text.contains("\n# How many\n#keep = 3\n"), "{text}");
    assert!(text.contains("\n[job.run]\n"), "{text}");
    assert!(!text.contains("dry-run"), "{text}");
}

#[test]
fn what_is_configured_is_a_file_again_and_says_where_it_is_from() {
    let place = Place::new("within = \"1h\"\n[vm]\nkeep = 5\n");
    let command = built(&(PROGRAM.command)());
    let (_, text) = PROGRAM
        .text(Some(&place.file()), &|_| None, &place.file())
        .unwrap();
    let settings = PROGRAM.settings(&command, &place.file(), &text).unwrap();
    let variable = |name: &str| (name == "X_SYNC_KEEP").then(|| OsString::from("6"));
    let at = |verb: &[&str], long: &str| {
        let chosen = PROGRAM
            .chosen(&command, verb, &settings, &variable)
            .unwrap();
        let found = chosen
            .iter()
            .find(|c| c.arg.get_long() == Some(long))
            .unwrap();
        (found.values.join(" "), found.origin.clone())
    };
    assert_eq!(
        at(&["vm"], "keep"),
        ("6".into(), Origin::Variable("X_SYNC_KEEP".into()))
    );
    assert_eq!(at(&["vm"], "within"), ("1h".into(), Origin::Line(1)));
    assert_eq!(at(&["job", "run"], "wait"), ("1s".into(), Origin::BuiltIn));
}
