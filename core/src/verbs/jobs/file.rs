//! Job files, `/etc/PROGRAM/jobs.d/NAME.toml`: which VMs are replicated where, when and how.
//!
//! What is in them is done as root, so whoever may write them is root: a file, or a directory of it, that others may
//! write is refused. A mistake is told with file and line.

use super::fields::{Hosts, TimeSpan};
use super::options::{unknown, JobKind, Options};
use super::{Fault, Selection};
use crate::cli::replace_file;
use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use crate::job::fleet::Limits;
use crate::trusted_file::{check_trusted, line_of, read_trusted};
use crate::verbs::schedule::{check_name, Calendar};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use toml::Spanned;

/// VMs at once, where neither a job nor the command line says.
const PARALLEL: u32 = 2;

/// What a job file says.
#[derive(Debug, Clone, Default)]
pub struct Job<S> {
    /// Which VMs.
    pub selection: S,
    /// Where to, and when.
    pub plan: Plan,
    /// How: options of `vm`.
    pub options: Options,
}

/// What jobs of all programs say of the run as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// The hosts that keep the replicas.
    pub to: Hosts,
    /// When it runs, for whoever makes the timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Calendar>,
    /// How much later it may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_delay: Option<TimeSpan>,
    /// How old the newest generation may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<TimeSpan>,
    /// VMs at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// Of these to one host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_host: Option<u32>,
}

/// The fields of a [`Plan`].
const PLAN: [&str; 6] = [
    "to",
    "schedule",
    "random_delay",
    "rpo",
    "parallel",
    "per_host",
];

impl Plan {
    /// VMs at once.
    pub(super) fn limits(&self) -> Limits {
        let parallel = self.parallel.unwrap_or(PARALLEL) as usize;
        Limits {
            parallel,
            per_host: self.per_host.map_or(parallel, |n| n as usize),
        }
    }

    fn check(&self) -> std::result::Result<(), Fault> {
        if self.to.hosts().is_empty() {
            let why = "it is not said to which host: to = \"host2\"";
            return Err(Fault::new("to", why));
        }
        if self.rpo.as_ref().is_some_and(|rpo| rpo.get().is_zero()) {
            return Err(Fault::new("rpo", "no replica can be younger than that"));
        }
        for (key, number) in [("parallel", self.parallel), ("per_host", self.per_host)] {
            if number.is_some_and(|n| !(1..=64).contains(&n)) {
                return Err(Fault::new(key, "it is a number from 1 to 64"));
            }
        }
        Ok(())
    }
}

impl<S: Selection> Job<S> {
    /// Reads a job. A mistake is told with the place in the text.
    fn parse(text: &str, kind: &JobKind) -> std::result::Result<Job<S>, (usize, String)> {
        let table = DeTable::parse(text).map_err(at)?;
        let span = table.span();
        let built = kind.built();
        let options = kind.options(&built);
        let key_of = |name: &str| name.replace('_', "-");
        let (mut selection, mut plan) = (DeTable::new(), DeTable::new());
        let mut job = Job::default();
        for (key, value) in table.into_inner() {
            let name = key.get_ref().to_string();
            let named = |arg: &&&clap::Arg| arg.get_long() == Some(key_of(&name).as_str());
            if S::FIELDS.contains(&name.as_str()) {
                selection.insert(key, value);
            } else if PLAN.contains(&name.as_str()) {
                plan.insert(key, value);
            } else if let Some(arg) = options.iter().find(named).filter(|_| !name.contains('-')) {
                job.options
                    .read(arg, value.get_ref())
                    .map_err(|why| (key.span().start, format!("{name}: {why}")))?;
            } else {
                let keys = kind.keys();
                let keys = keys.iter().map(String::as_str);
                let known = S::FIELDS.iter().copied().chain(PLAN).chain(keys);
                return Err((key.span().start, unknown(&name, known)));
            }
        }
        job.selection = fields(Spanned::new(span.clone(), selection))?;
        job.plan = fields(Spanned::new(span, plan))?;
        Ok(job)
    }

    /// As it is written into a file.
    fn text(&self) -> std::result::Result<String, toml::ser::Error> {
        let mut parts = vec![
            toml::Table::try_from(&self.selection)?,
            toml::Table::try_from(&self.plan)?,
        ];
        self.options.to_toml(&mut parts);
        let parts: Vec<String> = parts
            .iter()
            .map(toml::to_string)
            .collect::<std::result::Result<_, _>>()?;
        let (tables, plain) = parts.split_last().map_or(("", &[][..]), |(l, p)| (l, p));
        let gap = if tables.is_empty() { "" } else { "\n" };
        Ok(format!("{}{gap}{tables}", plain.concat()))
    }

    /// What no single field can tell.
    fn check(&self, kind: &JobKind) -> std::result::Result<(), Fault> {
        self.plan.check()?;
        self.selection.check()?;
        self.options.check(kind)
    }
}

/// Where a mistake is, and what it is.
fn at(e: toml::de::Error) -> (usize, String) {
    let start = e.span().map_or(0, |span| span.start);
    (start, e.message().trim_end().to_owned())
}

fn fields<T: DeserializeOwned>(table: Spanned<DeTable>) -> std::result::Result<T, (usize, String)> {
    T::deserialize(toml::Deserializer::from(table)).map_err(at)
}

/// The job files of a host.
pub struct JobsDir<'a, S> {
    pub(super) dir: PathBuf,
    kind: &'a JobKind,
    of: PhantomData<S>,
}

impl<'a, S: Selection> JobsDir<'a, S> {
    /// Those of a program below a host's `root`.
    pub fn new(root: &Path, kind: &'a JobKind) -> JobsDir<'a, S> {
        JobsDir {
            dir: root.join("etc").join(kind.program.name).join("jobs.d"),
            kind,
            of: PhantomData,
        }
    }

    /// The file of a job.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.toml"))
    }

    /// Names of all jobs, sorted; whether their files are in order is found when they are read.
    pub fn names(&self) -> Result<Vec<String>> {
        let failed = |e| Error::io(format!("cannot list {}", self.dir.display()), e);
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            let file = file.to_string_lossy();
            // An editor's backup copy begins with a dot, or ends in something else.
            names.extend(
                file.strip_suffix(".toml")
                    .filter(|name| !name.starts_with('.'))
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Reads a job file.
    pub fn load(&self, name: &str) -> Result<Job<S>> {
        check_name(name)?;
        let path = self.path(name);
        let text = self.read(&path)?;
        let at = |line: usize, why: &str| {
            Error::new(Kind::Usage, format!("{}:{line}: {why}", path.display()))
        };
        let job =
            Job::parse(&text, self.kind).map_err(|(start, why)| at(line_of(&text, start), &why))?;
        job.check(self.kind).map_err(|fault| {
            let line = line_of_key(&text, &fault.key);
            at(line, &format!("{}: {}", fault.key, fault.why))
        })?;
        Ok(job)
    }

    /// Writes a job file. One that is there and says something else is only replaced if `replace` says so. False if
    /// nothing had to be changed.
    pub fn write(&self, name: &str, job: &Job<S>, replace: bool) -> Result<bool> {
        check_name(name)?;
        let path = self.path(name);
        job.check(self.kind)
            .map_err(|fault| Error::new(Kind::Usage, format!("{}: {}", fault.key, fault.why)))?;
        let cannot =
            |e| Error::new(Kind::Usage, format!("cannot write {}", path.display())).because(e);
        let text = job.text().map_err(cannot)?;
        if path.symlink_metadata().is_ok() {
            // It may be written in another way, with comments.
            let present = self.load(name).map(|present| present.text());
            if present.is_ok_and(|present| present.is_ok_and(|present| present == text)) {
                return Ok(false);
            }
            if !replace {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "there is a job {name} already, and it is another: {}",
                        path.display()
                    ),
                )
                .advise("--replace writes it anew, or give this one another name"));
            }
        }
        replace_file(&path, &text, 0o644)?;
        Ok(true)
    }

    /// Removes a job file. False if there was none.
    pub fn remove(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        remove_present(&self.path(name))
    }

    fn read(&self, path: &Path) -> Result<String> {
        for dir in self.dir.ancestors().take(2) {
            let meta = match dir.metadata() {
                Ok(meta) => meta,
                // Then the file is not there either.
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => {
                    return Err(Error::io(format!("cannot read {}", path.display()), e));
                }
            };
            check_trusted(dir, &meta)?;
        }
        read_trusted(path).map_err(|e| match e.kind() {
            Kind::NotFound => e.advise(format!(
                "{} schedule list shows the jobs that there are",
                self.kind.program.name
            )),
            _ => e,
        })
    }
}

/// The line that sets a key, or the table of that name; 1 if there is none.
fn line_of_key(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    1 + text.lines().position(sets).unwrap_or(0)
}
