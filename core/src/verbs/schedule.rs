//! Schedules: a systemd timer for each job, and the units that all jobs of a program share.
//!
//! The shared ones are templates, `PROGRAM-job@.service` and `PROGRAM-notify@.service`. A package has them already;
//! where there is none they are written here, and taken away with the last timer. Everything may be repeated: a command
//! that was cut off is simply run again.

mod calendar;

pub use calendar::Calendar;

use crate::cli::replace_file;
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first line of each unit that is written here: only such files are ever replaced or removed.
pub const MARK: &str =
    "# Made by rblocksync's schedules: changes are lost, use a drop-in (systemctl edit).";
/// Where packages put the program; units that are written here name the one that runs.
const PACKAGED: &str = "/usr/bin/";
/// The longest name of a job, in bytes: a unit's may have 255.
const NAME_BYTES_MAX: usize = 64;

/// The name of a job: it becomes a part of file and unit names.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        format!("\"{}\" is no name for a job", name.escape_default()),
    )
    .advise("use letters, digits, - and _, beginning with a letter or digit, 64 at the most"))
}

/// How systemd is spoken to. Tests have one of their own.
pub trait Systemd {
    /// Runs systemctl with these words, and gives what it prints.
    fn call(&self, args: &[&str]) -> Result<String>;
}

/// This host's.
pub struct HostSystemd;

impl Systemd for HostSystemd {
    fn call(&self, args: &[&str]) -> Result<String> {
        let output = Cmd::new(Tool::Systemctl).args(args).run()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The shared units of a program, as it comes with them.
pub struct Templates {
    /// The program, with a job's name after `job run`.
    pub program: &'static str,
    /// `PROGRAM-job@.service`
    pub job: &'static str,
    /// `PROGRAM-notify@.service`, started when a job has failed.
    pub notify: &'static str,
}

/// The timers of a program's jobs on a host.
pub struct Schedules<'a> {
    /// Where the host's file tree is: `/`, but for tests.
    pub root: PathBuf,
    /// The program's units.
    pub templates: &'a Templates,
    /// What the units are to run.
    pub executable: PathBuf,
    /// The host's systemd.
    pub systemd: &'a dyn Systemd,
}

/// A timer as systemd sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct TimerState {
    /// Whether it waits for its next time.
    pub active: bool,
    /// Whether it is started with the host.
    pub enabled: bool,
    /// When it fires next, in seconds since 1970.
    pub next_s: Option<i64>,
    /// When it fired last.
    pub last_s: Option<i64>,
    /// Whether the job runs now.
    pub running: bool,
    /// What came of the last run: `success`, or what systemd calls it.
    pub result: String,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
}

impl Schedules<'_> {
    /// Lets systemd run a job. Whatever is so already is left alone.
    pub fn add(&self, name: &str, calendar: &Calendar, delay: Duration) -> Result<()> {
        check_name(name)?;
        let dir = self.dir();
        self.check_executable()?;
        let program = self.templates.program;
        for (file, text) in [
            (format!("{program}-job@.service"), self.templates.job),
            (format!("{program}-notify@.service"), self.templates.notify),
        ] {
            if !self.is_packaged(&file) {
                self.ensure(&dir.join(file), &self.shared_text(text))?;
            }
        }
        let timer = self.timer(name);
        let path = dir.join(&timer);
        let is_new = !path.exists();
        let changed = self.ensure(&path, &self.timer_text(name, calendar, delay))?;
        self.systemd.call(&["daemon-reload"])?;
        self.systemd.call(&["enable", "--now", "--", &timer])?;
        if changed && !is_new {
            // It waits for a time of its former text.
            self.systemd.call(&["restart", "--", &timer])?;
        }
        Ok(())
    }

    /// Takes the timer of a job away, and with the last one what all share. A run that is under way is left alone. False
    /// if there was no timer.
    pub fn remove(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let dir = self.dir();
        let timer = self.timer(name);
        let path = dir.join(&timer);
        let existed = self.is_ours(&path)?;
        if existed {
            self.systemd.call(&["disable", "--now", "--", &timer])?;
            // When it fired last is kept in a file. A timer that never fired has none.
            let _ = self.systemd.call(&["clean", "--what=state", "--", &timer]);
            remove_present(&path)?;
        }
        let is_last = self.timers()?.is_empty();
        let program = self.templates.program;
        let mut shared_gone = false;
        for file in [
            format!("{program}-job@.service"),
            format!("{program}-notify@.service"),
        ] {
            let path = dir.join(file);
            if is_last && self.is_ours(&path)? {
                remove_present(&path)?;
                shared_gone = true;
            }
        }
        if existed || shared_gone {
            self.systemd.call(&["daemon-reload"])?;
            // A failed run would be listed for ever. There may have been none.
            let service = self.service(name);
            let _ = self.systemd.call(&["reset-failed", "--", &service]);
        }
        Ok(existed)
    }

    /// Names of jobs that have a timer of ours, sorted.
    pub fn timers(&self) -> Result<Vec<String>> {
        let dir = self.dir();
        let failed = |e| Error::io(format!("cannot list {}", dir.display()), e);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let prefix = format!("{}-job@", self.templates.program);
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            let name = file
                .to_str()
                .and_then(|f| f.strip_prefix(&prefix)?.strip_suffix(".timer"));
            if let Some(name) = name.filter(|name| check_name(name).is_ok()) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// How the timer of a job stands.
    pub fn state(&self, name: &str) -> Result<TimerState> {
        check_name(name)?;
        let show = |unit: &str, properties: &str| {
            let property = format!("--property={properties}");
            let said = self
                .systemd
                .call(&["show", "--timestamp=unix", &property, "--", unit])?;
            Ok(Properties(said))
        };
        let timer = show(
            &self.timer(name),
            "ActiveState,UnitFileState,NextElapseUSecRealtime,LastTriggerUSec",
        )?;
        let service = show(
            &self.service(name),
            "ActiveState,Result,ExecMainStatus,ExecMainExitTimestamp",
        )?;
        let has_run = service.time("ExecMainExitTimestamp").is_some();
        Ok(TimerState {
            active: timer.get("ActiveState") == "active",
            enabled: timer.get("UnitFileState") == "enabled",
            next_s: timer.time("NextElapseUSecRealtime"),
            last_s: timer.time("LastTriggerUSec"),
            running: matches!(service.get("ActiveState"), "activating" | "active"),
            result: service.get("Result").to_owned(),
            exit_code: match has_run {
                true => service.get("ExecMainStatus").parse().ok(),
                false => None,
            },
        })
    }

    /// The timer's unit.
    pub fn timer(&self, name: &str) -> String {
        format!("{}-job@{name}.timer", self.templates.program)
    }

    /// The unit that runs the job.
    pub fn service(&self, name: &str) -> String {
        format!("{}-job@{name}.service", self.templates.program)
    }

    fn dir(&self) -> PathBuf {
        self.root.join("etc/systemd/system")
    }

    fn is_packaged(&self, file: &str) -> bool {
        let dirs = ["usr/lib/systemd/system", "lib/systemd/system"];
        dirs.iter()
            .any(|dir| self.root.join(dir).join(file).exists())
    }

    /// In a unit, blanks and percent signs mean something else.
    fn check_executable(&self) -> Result<()> {
        let path = self.executable.to_str().unwrap_or_default();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._+-".contains(&b);
        if path.starts_with('/') && path.bytes().all(is_plain) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            format!("systemd cannot be told to run {:?}", self.executable),
        )
        .advise(format!(
            "install it as {PACKAGED}{}",
            self.templates.program
        )))
    }

    fn shared_text(&self, text: &str) -> String {
        let packaged = format!("{PACKAGED}{}", self.templates.program);
        let own = self.executable.to_string_lossy();
        format!("{MARK}\n{}", text.replace(&packaged, &own))
    }

    fn timer_text(&self, name: &str, calendar: &Calendar, delay: Duration) -> String {
        let program = self.templates.program;
        // Persistent: what was missed while the host was off is made up for. The accuracy is a minute by default.
        format!(
            "{MARK}\n[Unit]\nDescription=Schedule of the {program} job {name}\n\n[Timer]\nOnCalendar={calendar}\n\
             RandomizedDelaySec={}s\nAccuracySec=1s\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
            delay.as_secs()
        )
    }

    /// Sees to it that a unit has this text. True if it had not.
    fn ensure(&self, path: &Path, text: &str) -> Result<bool> {
        if path.symlink_metadata().is_ok() {
            if fs::read_to_string(path).is_ok_and(|present| present == text) {
                return Ok(false);
            }
            if !self.is_ours(path)? {
                return Err(Error::new(
                    Kind::Refused,
                    format!("{} is there already, and was not made here", path.display()),
                )
                .advise("remove it, or give the job another name"));
            }
        }
        replace_file(path, text, 0o644)?;
        Ok(true)
    }

    fn is_ours(&self, path: &Path) -> Result<bool> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(text.lines().next() == Some(MARK)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format!("cannot read {}", path.display()), e)),
        }
    }
}

/// What `systemctl show` prints.
struct Properties(String);

impl Properties {
    fn get(&self, key: &str) -> &str {
        let value = |line: &'_ str| -> Option<usize> {
            let rest = line.strip_prefix(key)?;
            rest.starts_with('=').then(|| key.len() + 1)
        };
        self.0
            .lines()
            .find_map(|line| value(line).map(|at| line[at..].trim()))
            .unwrap_or_default()
    }

    fn time(&self, key: &str) -> Option<i64> {
        let seconds = self.get(key).strip_prefix('@')?.parse().ok()?;
        (seconds > 0).then_some(seconds)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "schedule/tests.rs"]
mod tests;
