//! The status in Prometheus' text format, for the textfile collector of its node exporter
//! (prometheus.io/docs/instrumenting/exposition_formats).

use crate::cli::output_file::parent;
use crate::error::{Error, Kind, Result};
use crate::job::PairStatus;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How old the newest generation of a replication may be, where a job says so.
const RPO: (&str, &str) = ("rpo_seconds", "How old the newest generation may be.");
/// When it was written: how monitoring finds out that nobody writes it any more.
const WRITTEN: (&str, &str) = ("status_timestamp_seconds", "When this was written.");

type Value = fn(&PairStatus) -> Option<f64>;

/// Name without prefix, help, and where the value is.
const METRICS: [(&str, &str, Value); 9] = [
    (
        "last_generation_timestamp_seconds",
        "When the newest generation was taken.",
        |s| s.taken_at.map(|at| at.as_millisecond() as f64 / 1e3),
    ),
    (
        "last_generation_number",
        "Number of the newest generation.",
        |s| s.generation.map(|n| n as f64),
    ),
    ("generations", "Generations that are kept.", |s| {
        s.generations.map(|n| n as f64)
    }),
    (
        "last_run_failed",
        "1 if the last run failed or was cut off.",
        |s| {
            s.last
                .as_ref()
                .map(|_| f64::from(u8::from(s.last_problem().is_some())))
        },
    ),
    ("last_run_seconds", "How long the last run took.", |s| {
        let last = s.last.as_ref()?;
        let took = last.ended_at?.duration_since(last.began_at);
        Some(took.as_secs_f64())
    }),
    (
        "last_run_changed_bytes",
        "Bytes that the last run sent, before compression.",
        |s| s.last.as_ref()?.changed.map(|n| n as f64),
    ),
    (
        "last_run_wire_bytes",
        "Bytes that the last run had on the wire.",
        |s| s.last.as_ref()?.wire.map(|n| n as f64),
    ),
    (
        "last_verified_timestamp_seconds",
        "When all of a generation was read again last, and was what had been sealed.",
        |s| {
            let whole = s.checked.as_ref()?.1.whole?;
            Some(whole.as_millisecond() as f64 / 1e3)
        },
    ),
    (
        "damaged_disks",
        "Disks that were not what had been sealed, when a generation was read again last.",
        |s| Some(s.checked.as_ref()?.1.damaged.len() as f64),
    ),
];

/// The names of all metrics, as Prometheus has them.
pub fn metric_names() -> Vec<String> {
    let names = METRICS.iter().map(|(name, ..)| *name);
    names
        .chain([RPO.0, WRITTEN.0])
        .map(|name| format!("rblocksync_{name}"))
        .collect()
}

/// Replaces the file, so that nobody reads half of it. Anybody may read it, as the exporter must.
pub(super) fn write(
    path: &Path,
    found: &[PairStatus],
    expected: &[(PairStatus, u64)],
    now: Timestamp,
) -> Result<()> {
    let cannot = |e| Error::io(format!("cannot write {}", path.display()), e);
    if path.extension().is_none_or(|e| e != "prom") {
        return Err(Error::new(
            Kind::Usage,
            format!("{} does not end in .prom", path.display()),
        )
        .advise("the node exporter reads only such files"));
    }
    let mut file = tempfile::NamedTempFile::new_in(parent(path)).map_err(cannot)?;
    file.write_all(text(found, expected, now).as_bytes())
        .map_err(cannot)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(cannot)?;
    file.persist(path).map(drop).map_err(|e| cannot(e.error))
}

fn text(found: &[PairStatus], expected: &[(PairStatus, u64)], now: Timestamp) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        let values: Vec<String> = found
            .iter()
            .filter_map(|status| {
                let value = value(status)?;
                Some(format!("rblocksync_{name}{{{}}} {value}\n", labels(status)))
            })
            .collect();
        if !values.is_empty() {
            head(&mut text, name, help);
            text.extend(values);
        }
    }
    if !expected.is_empty() {
        head(&mut text, RPO.0, RPO.1);
        // Two jobs may be about the same VM and host. The stricter one counts, and a line may not come twice.
        let mut strictest: BTreeMap<String, u64> = BTreeMap::new();
        for (status, rpo_s) in expected {
            let least = strictest.entry(labels(status)).or_insert(*rpo_s);
            *least = (*least).min(*rpo_s);
        }
        for (labels, rpo_s) in strictest {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "rblocksync_{}{{{labels}}} {rpo_s}", RPO.0);
        }
    }
    head(&mut text, WRITTEN.0, WRITTEN.1);
    let seconds = now.as_millisecond() as f64 / 1e3;
    let _ = writeln!(text, "rblocksync_{} {seconds}", WRITTEN.0);
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP rblocksync_{name} {help}");
    let _ = writeln!(text, "# TYPE rblocksync_{name} gauge");
}

fn labels(status: &PairStatus) -> String {
    let escaped = |text: &str| {
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    format!(
        "side=\"{}\",vm=\"{}\",peer=\"{}\"",
        status.side.name(),
        escaped(&status.vm),
        escaped(&status.peer)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::journal::Side;

    fn status() -> PairStatus {
        PairStatus {
            side: Side::Target,
            vm: "101".into(),
            name: String::new(),
            peer: "a\"b\\c\nd".into(),
            pair: None,
            standing: None,
            generation: Some(3),
            taken_at: Some(Timestamp::new(5, 0).unwrap()),
            generations: Some(2),
            booted: None,
            checked: None,
            last: None,
        }
    }

    #[test]
    fn labels_are_escaped_and_what_is_not_known_is_left_out() {
        let twice = [(status(), 900), (status(), 600)];
        let text = text(&[status()], &twice, Timestamp::new(7, 0).unwrap());
        let labels = r#"{side="target",vm="101",peer="a\"b\\c\nd"}"#;
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                format!("rblocksync_last_generation_timestamp_seconds{labels} 5"),
                format!("rblocksync_last_generation_number{labels} 3"),
                format!("rblocksync_generations{labels} 2"),
                format!("rblocksync_rpo_seconds{labels} 600"),
                "rblocksync_status_timestamp_seconds 7".into(),
            ]
        );
        // Nothing is written under a name that is not told.
        let names = metric_names();
        for line in lines {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }

    #[test]
    fn the_file_is_replaced_and_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rblocksync.prom");
        let now = Timestamp::UNIX_EPOCH;
        write(&path, &[status()], &[], now).unwrap();
        write(&path, &[], &[], now).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("101"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("x.txt"), &[], &[], now).is_err());
    }
}
