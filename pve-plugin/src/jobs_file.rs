//! Job files, `/etc/pvesync/jobs.d/NAME.toml`: which VMs are replicated where, when and how.
//!
//! What is in them is done as root, so whoever may write them is root: a file, or a directory of it, that others may
//! write is refused. A mistake is told with file and line.

mod fields;

pub use fields::{Hosts, Rate, TimeSpan};

use crate::fleet::IdList;
use rblocksync::cli::replace_file;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::trusted_file::{check_trusted, line_of, read_trusted};
use rblocksync::verbs::schedule::{check_name, Calendar};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a job file says. The fields are those of the options of `pvesync vm`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct JobFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vms: Option<IdList>,
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_vms: Option<IdList>,
    pub to: Hosts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Calendar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_delay: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_host: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bwlimit: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    pub in_place: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub no_base: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_for: Option<TimeSpan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bridge: BTreeMap<String, String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl JobFile {
    /// The options for the run of each VM, beside the field each of them comes from.
    pub fn options(&self) -> Vec<(&'static str, OsString)> {
        let mut options = Vec::new();
        let mut add = |key: &'static str, value: Option<String>| {
            let option = key.replace('_', "-");
            options.extend(value.map(|v| (key, OsString::from(format!("--{option}={v}")))));
        };
        add("keep", self.keep.map(|n| n.to_string()));
        add(
            "keep_within",
            self.keep_within.as_ref().map(ToString::to_string),
        );
        add("bwlimit", self.bwlimit.as_ref().map(ToString::to_string));
        add("compress", self.compress.clone());
        add("streams", self.streams.clone());
        add("jobs", self.jobs.map(|n| n.to_string()));
        add(
            "retry_for",
            self.retry_for.as_ref().map(ToString::to_string),
        );
        add("hold_max", self.hold_max.map(|n| n.to_string()));
        for (from, to) in &self.storage {
            add("storage", Some(format!("{from}={to}")));
        }
        for (from, to) in &self.bridge {
            add("bridge", Some(format!("{from}={to}")));
        }
        add("cpu", self.cpu.clone());
        for (key, is_set) in [
            ("in_place", self.in_place),
            ("no_base", self.no_base),
            ("verify", self.verify),
        ] {
            let option = key.replace('_', "-");
            options.extend(is_set.then(|| (key, OsString::from(format!("--{option}")))));
        }
        options
    }

    /// What no single field can tell. `takes` says whether the program takes an option.
    fn check(&self, takes: &dyn Fn(&[OsString]) -> Result<()>) -> std::result::Result<(), Fault> {
        let fault = |key: &'static str, why: &str| Fault {
            key,
            why: why.to_owned(),
        };
        if self.to.hosts().is_empty() {
            return Err(fault("to", "it is not said to which host: to = \"host2\""));
        }
        if self.vms.is_none() && !self.all && self.tags.is_empty() && self.pools.is_empty() {
            return Err(fault("vms", "it names no VMs: vms, all, tags or pools"));
        }
        for (key, list) in [("tags", &self.tags), ("pools", &self.pools)] {
            if list.iter().any(String::is_empty) {
                return Err(fault(key, "one of them has no name"));
            }
        }
        if self.rpo.as_ref().is_some_and(|rpo| rpo.get().is_zero()) {
            return Err(fault("rpo", "no replica can be younger than that"));
        }
        for (key, number) in [("parallel", self.parallel), ("per_host", self.per_host)] {
            if number.is_some_and(|n| !(1..=64).contains(&n)) {
                return Err(fault(key, "it is a number from 1 to 64"));
            }
        }
        for (key, option) in self.options() {
            let words = ["vm".into(), "100".into(), "--to=host".into(), option];
            takes(&words).map_err(|e| fault(key, &e.message()))?;
        }
        Ok(())
    }
}

/// What is wrong with a field.
struct Fault {
    key: &'static str,
    why: String,
}

/// The job files of a host.
pub struct JobsDir<'a> {
    dir: PathBuf,
    takes: &'a dyn Fn(&[OsString]) -> Result<()>,
}

impl<'a> JobsDir<'a> {
    /// Those below a host's `root`. `takes` says whether the program takes an option.
    pub fn new(root: &Path, takes: &'a dyn Fn(&[OsString]) -> Result<()>) -> JobsDir<'a> {
        JobsDir {
            dir: root.join("etc/pvesync/jobs.d"),
            takes,
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
    pub fn load(&self, name: &str) -> Result<JobFile> {
        check_name(name)?;
        let path = self.path(name);
        let text = self.read(&path)?;
        let at = |line: usize, why: &str| {
            Error::new(Kind::Usage, format!("{}:{line}: {why}", path.display()))
        };
        let job: JobFile = toml::from_str(&text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            at(line_of(&text, start), e.message().trim_end())
        })?;
        job.check(self.takes).map_err(|fault| {
            let line = line_of_key(&text, fault.key);
            at(line, &format!("{}: {}", fault.key, fault.why))
        })?;
        Ok(job)
    }

    /// Writes a job file. One that is there and says something else is only replaced if `replace` says so. False if
    /// nothing had to be changed.
    pub fn write(&self, name: &str, job: &JobFile, replace: bool) -> Result<bool> {
        check_name(name)?;
        let path = self.path(name);
        job.check(self.takes)
            .map_err(|fault| Error::new(Kind::Usage, format!("{}: {}", fault.key, fault.why)))?;
        if path.symlink_metadata().is_ok() {
            let present = self.load(name);
            if present.as_ref().is_ok_and(|present| present == job) {
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
        let text = toml::to_string(job).map_err(|e| {
            Error::new(Kind::Usage, format!("cannot write {}", path.display())).because(e)
        })?;
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
            Kind::NotFound => e.advise("pvesync schedule list shows the jobs that there are"),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "jobs_file/tests.rs"]
mod tests;
