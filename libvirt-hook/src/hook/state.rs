//! What this host is for a domain, and whether it may start here.

use super::{note, Answer};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::replica::{read_json, write_json, Layout};
use rblocksync::runbook::Runbook;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

/// Longest guard that is read, in bytes.
const GUARD_BYTES_MAX: u64 = 4 << 10;

/// From the announcement of an arrival to the start of its QEMU. Volumes may have to be made meanwhile.
const ARRIVAL_TIME: Duration = Duration::from_secs(60);

/// The guard's file of a domain: one line, as `rblocksync::replica::set_guard` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    pub role: String,
    pub epoch: u64,
    pub reason: String,
}

impl FromStr for Guard {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Guard, ()> {
        let mut words = text.trim_end().splitn(3, ' ');
        let role = words.next().unwrap_or_default();
        let epoch = words.next().and_then(|word| word.parse().ok()).ok_or(())?;
        match role {
            "primary" | "replica" | "retired" | "held" => Ok(Guard {
                role: role.to_owned(),
                epoch,
                reason: words.next().unwrap_or_default().to_owned(),
            }),
            _ => Err(()),
        }
    }
}

impl Guard {
    /// `None`: nothing is known of the domain. One that is damaged keeps the domain from starting.
    pub fn find(layout: &Layout, vm: &str) -> Result<Option<Guard>> {
        let path = layout.guard(vm);
        let mut text = String::new();
        let read =
            File::open(&path).and_then(|file| file.take(GUARD_BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            // Without the directory nothing is known of any domain.
            Err(_) if !path.exists() => return Ok(None),
            Err(e) => return Err(damaged(vm, &path).because(e)),
        }
        text.parse().map(Some).map_err(|()| damaged(vm, &path))
    }

    pub fn is_primary(&self) -> bool {
        self.role == "primary"
    }

    /// Why the domain must not start here.
    fn refusal(&self, vm: &str) -> Error {
        let (advice, runbook) = match self.role.as_str() {
            "replica" => (
                format!(
                    "if the host that runs it is lost: virt-blocksync failover {vm}; 'virt-blocksync status' tells more"
                ),
                Some(Runbook::SourceHostDead),
            ),
            "retired" => (
                "start it on the host that it has gone to, or have it moved back by 'virt-blocksync migrate' there"
                    .to_owned(),
                None,
            ),
            _ => (
                format!(
                    "look where it runs; if nowhere, remove /var/lib/rblocksync/guard/{vm} and start it"
                ),
                Some(Runbook::BothBack),
            ),
        };
        let reason = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let error = Error::new(
            Kind::Refused,
            format!(
                "domain {vm} must not start on this host, which is {} for it since epoch {}{reason}",
                self.role, self.epoch
            ),
        )
        .advise(advice);
        match runbook {
            Some(runbook) => error.see(runbook),
            None => error,
        }
    }
}

fn damaged(vm: &str, path: &Path) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "what this host is for domain {vm} is not to be found out: {} is damaged",
            path.display()
        ),
    )
    .advise("'virt-blocksync status' tells the roles; if the domain runs nowhere else, remove the file and start it")
}

/// That a domain was announced that comes from another host: what tells its start from one by somebody here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrival {
    uuid: Uuid,
    /// Of the boot of this host, and since then in milliseconds: no clock that somebody can set.
    boot: String,
    at_ms: u64,
}

fn arrival_path(layout: &Layout, vm: &str) -> PathBuf {
    layout
        .root()
        .join("hook/arriving")
        .join(format!("{vm}.json"))
}

/// Notes that `vm` is about to arrive.
pub(super) fn announce(layout: &Layout, vm: &str, uuid: Uuid) -> Result<()> {
    let (boot, at_ms) = now();
    write_json(&arrival_path(layout, vm), &Arrival { uuid, boot, at_ms })
}

/// Takes the announcement away, and tells whether there was one.
pub(super) fn has_arrived(layout: &Layout, vm: &str) -> bool {
    std::fs::remove_file(arrival_path(layout, vm)).is_ok()
}

/// Whether the domain of this definition is one that arrives right now.
fn is_arriving(layout: &Layout, vm: &str, document: &[u8]) -> Result<bool> {
    let Some(arrival) = read_json::<Arrival>(&arrival_path(layout, vm))? else {
        return Ok(false);
    };
    let (boot, now_ms) = now();
    let age = Duration::from_millis(now_ms.saturating_sub(arrival.at_ms));
    // Without /proc nobody can tell.
    if boot.is_empty()
        || boot != arrival.boot
        || age > ARRIVAL_TIME
        || uuid_of(document)? != arrival.uuid
    {
        return Ok(false);
    }
    if let Some(note) = note::find(layout, vm)? {
        note.check_lease(layout, vm)?;
    }
    Ok(door(layout, vm) != Door::Left)
}

/// What a move leaves that does not need more of the hook than to let the domain in: a file with the id of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// There is none.
    None,
    /// The process lives.
    Open,
    /// The process has ended.
    Left,
}

pub(super) fn door(layout: &Layout, vm: &str) -> Door {
    let path = layout.guard(&format!("{vm}.incoming"));
    let Ok(text) = std::fs::read_to_string(path) else {
        return Door::None;
    };
    let pid = text.trim().parse::<u32>().ok();
    match pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
        true => Door::Open,
        false => Door::Left,
    }
}

fn now() -> (String, u64) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split_whitespace().next();
    let seconds: f64 = seconds.and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let ms = Duration::try_from_secs_f64(seconds).map_or(0, |time| time.as_millis());
    let ms = u64::try_from(ms).unwrap_or(0);
    (boot.trim().to_owned(), ms)
}

/// The UUID in a definition.
pub(super) fn uuid_of(document: &[u8]) -> Result<Uuid> {
    let text = String::from_utf8_lossy(document);
    uuid_in(&Element::parse("the domain", &text)?)
}

pub(super) fn uuid_in(domain: &Element) -> Result<Uuid> {
    domain
        .child("uuid")
        .and_then(|uuid| Uuid::parse_str(&uuid.text()).ok())
        .ok_or_else(|| Error::new(Kind::Protocol, "the domain's definition has no UUID"))
}

/// Before a domain starts.
pub(super) fn may_start(layout: &Layout, vm: &str, document: Result<Vec<u8>>) -> Result<Answer> {
    match Guard::find(layout, vm)? {
        None => Ok(Answer::of("nothing is known of it")),
        Some(guard) if guard.is_primary() => Ok(Answer::of("this host is primary for it")),
        Some(guard) => match document.and_then(|document| is_arriving(layout, vm, &document)) {
            Ok(true) => Ok(Answer::of("it arrives from another host")),
            Ok(false) => Err(guard.refusal(vm)),
            Err(e) => Err(guard.refusal(vm).because(e)),
        },
    }
}

/// A domain that libvirt moved from here without us, so that this host keeps its disks and perhaps its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    /// The epoch that its guard had; `None`: it had none.
    pub epoch: Option<u64>,
}

fn away_path(layout: &Layout, vm: &str) -> PathBuf {
    layout.root().join("hook/away").join(format!("{vm}.json"))
}

/// What was noted when libvirt had moved `vm` from here without us.
pub fn away(layout: &Layout, vm: &str) -> Result<Option<Away>> {
    read_json(&away_path(layout, vm))
}

pub(crate) fn note_away(layout: &Layout, vm: &str, away: &Away) -> Result<()> {
    write_json(&away_path(layout, vm), away)
}

/// It is here again.
pub fn forget_away(layout: &Layout, vm: &str) -> Result<()> {
    remove_present(&away_path(layout, vm)).map(drop)
}

/// The epoch and role that the guard's file of a domain tells; for the worker.
pub(crate) fn guard_of(layout: &Layout, vm: &str) -> Result<Option<(String, u64)>> {
    Ok(Guard::find(layout, vm)?.map(|guard| (guard.role, guard.epoch)))
}
