//! The state of an emulated TPM, which is no disk: small files that swtpm keeps in a directory of the domain's.
//!
//! It is carried with each generation. swtpm writes a file anew beside the old one and renames it, so what is read is always
//! one whole state; while a guest is held still nothing asks its TPM for another. What swtpm keeps from one start to the
//! next is one file, the permanent state. Everything else there belongs to a process that runs.

mod owner;

use crate::domain::Domain;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How the state is written down: the files of swtpm's own form, by their names, in hexadecimal.
const FORM: &str = "swtpm-files-1";
/// Most bytes of all files. What libtpms keeps can grow to some 200 KiB.
const BYTES_MAX: u64 = 512 << 10;
/// What the names of the files end with that are kept.
const PERMANENT: &str = ".permall";

/// Where the states of this host's domains are.
#[derive(Debug, Clone)]
pub struct TpmStore {
    /// A directory for each domain, by its UUID.
    pub dir: PathBuf,
    /// libvirt's configuration of QEMU, which says as whom swtpm runs.
    pub conf: PathBuf,
}

impl Default for TpmStore {
    /// Those of libvirt's system daemon.
    fn default() -> Self {
        TpmStore {
            dir: "/var/lib/libvirt/swtpm".into(),
            conf: "/etc/libvirt/qemu.conf".into(),
        }
    }
}

/// The state of a TPM in a generation.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    form: String,
    /// The directory below that of the domain, which tells the TPM's version.
    version: String,
    files: BTreeMap<String, String>,
}

/// The definition of the TPM that is emulated for a domain, if one is.
pub fn emulated(domain: &Domain) -> Option<&Element> {
    let mut devices = domain.devices().filter(|device| device.name == "tpm");
    devices.find_map(|tpm| {
        tpm.child("backend")
            .filter(|b| b.attribute("type") == Some("emulator"))
    })
}

/// Why its state cannot be replicated, if so.
pub fn out_of_reach(backend: &Element) -> Option<&'static str> {
    let is_elsewhere = backend.child("source").is_some();
    is_elsewhere.then_some("the state of its emulated TPM is in a place of its own")
}

/// What the user should know of it.
pub fn notes(backend: &Element) -> Vec<String> {
    let mut notes = vec![
        "the state of its TPM is a part of the generation: where the guest runs, it is copied while that is held still"
            .to_owned(),
    ];
    if backend.child("encryption").is_some() {
        notes.push(
            "its TPM's state is encrypted with a secret that libvirt keeps: the other host must have the same"
                .to_owned(),
        );
    }
    notes
}

/// libvirt's name of the directory for a TPM of this version.
fn version_dir(backend: &Element) -> &'static str {
    match backend.attribute("version") {
        Some("1.2") => "tpm1.2",
        _ => "tpm2",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

/// Names of files become a part of a path.
fn is_permanent(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    name.ends_with(PERMANENT) && !name.starts_with('.') && name.bytes().all(fits)
}

fn cannot(what: &str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let what = format!("cannot {what} {}", path.display());
    move |e| Error::io(what.clone(), e)
}

impl TpmStore {
    fn of_domain(&self, uuid: Uuid) -> PathBuf {
        self.dir.join(uuid.to_string())
    }

    /// The state of the TPM of `domain`, to be carried with a generation; nothing if there is none yet, as before the first
    /// start.
    pub fn read(&self, domain: &Domain) -> Result<Option<String>> {
        let (Some(backend), Some(uuid)) = (emulated(domain), domain.uuid()) else {
            return Ok(None);
        };
        if out_of_reach(backend).is_some() {
            return Ok(None);
        }
        let version = version_dir(backend);
        let dir = self.of_domain(uuid).join(version);
        let files = read_all(&dir)?;
        if files.is_empty() {
            return Ok(None);
        }
        let kept = Kept {
            form: FORM.to_owned(),
            version: version.to_owned(),
            files,
        };
        let text = serde_json::to_string(&kept);
        text.map(Some).map_err(|e| {
            Error::new(Kind::Protocol, "cannot write down the state of a TPM").because(e)
        })
    }

    /// Makes `state` that of the TPM of `domain`, which is off. Returns notes. Safe to repeat.
    pub fn write(&self, domain: &Domain, state: &str) -> Result<Vec<String>> {
        let (Some(backend), Some(uuid)) = (emulated(domain), domain.uuid()) else {
            return Ok(Vec::new());
        };
        let files = parse(state, version_dir(backend))?;
        let (owner, notes) = owner::of_swtpm(&self.conf);
        // As libvirt makes them.
        let whole = self.of_domain(uuid);
        for dir in [&self.dir, &whole] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(dir)
                .map_err(cannot("make", dir))?;
        }
        let dir = whole.join(version_dir(backend));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(cannot("make", &dir))?;
        let opened = File::open(&dir).map_err(cannot("open", &dir))?;
        owner::give(&opened, &dir, owner)?;
        for (name, bytes) in &files {
            write_one(&dir, name, bytes, owner)?;
        }
        // Of another state, or of a process that has ended.
        for entry in std::fs::read_dir(&dir).map_err(cannot("read", &dir))? {
            let entry = entry.map_err(cannot("read", &dir))?;
            if !files.keys().any(|name| entry.file_name() == name.as_str()) {
                remove_present(&entry.path())?;
            }
        }
        opened.sync_all().map_err(cannot("write", &dir))?;
        Ok(notes)
    }

    /// Removes the state of a domain that was made for a test.
    pub fn remove(&self, uuid: Uuid) -> Result<()> {
        let dir = self.of_domain(uuid);
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(cannot("remove", &dir)(e)),
            _ => Ok(()),
        }
    }
}

fn read_all(dir: &Path) -> Result<BTreeMap<String, String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(cannot("read", dir))?,
    };
    let (mut files, mut left) = (BTreeMap::new(), BYTES_MAX);
    for entry in entries {
        let entry = entry.map_err(cannot("read", dir))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if !is_permanent(&name) {
            continue;
        }
        let path = entry.path();
        // Its directory is swtpm's, which may be another user.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(cannot("open", &path))?;
        let is_file = file.metadata().map_err(cannot("look at", &path))?.is_file();
        let mut bytes = Vec::new();
        file.take(left + 1)
            .read_to_end(&mut bytes)
            .map_err(cannot("read", &path))?;
        left = left
            .checked_sub(bytes.len() as u64)
            .filter(|_| is_file)
            .ok_or_else(|| {
                Error::new(
                    Kind::Refused,
                    format!("{} is no state of a TPM", path.display()),
                )
                .advise("go without it: --exclude tpm")
            })?;
        files.insert(name, hex(&bytes));
    }
    Ok(files)
}

fn parse(state: &str, version: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let odd = |why: &str| {
        Error::new(
            Kind::Protocol,
            format!("the state of the TPM in the generation cannot be used: {why}"),
        )
    };
    let kept: Kept = serde_json::from_str(state).map_err(|e| odd("").because(e))?;
    if kept.form != FORM {
        return Err(odd(&format!("its form is {:?}", kept.form)));
    }
    if kept.version != version {
        return Err(odd(&format!("it is of {:?}, not {version}", kept.version)));
    }
    let files = kept.files.into_iter().map(|(name, text)| {
        let bytes = unhex(&text).filter(|_| is_permanent(&name));
        let bytes = bytes.ok_or_else(|| odd(&format!("its file {name:?} is damaged")))?;
        Ok((name, bytes))
    });
    files.collect()
}

/// Replaces a file.
fn write_one(dir: &Path, name: &str, bytes: &[u8], owner: owner::Owner) -> Result<()> {
    let (path, fresh) = (dir.join(name), dir.join(format!(".{name}.rbs-new")));
    remove_present(&fresh)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(cannot("make", &fresh))?;
    file.write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o600)))
        .and_then(|()| file.sync_all())
        .map_err(cannot("write", &fresh))?;
    owner::give(&file, &fresh, owner)?;
    std::fs::rename(&fresh, &path).map_err(cannot("write", &path))
}

#[cfg(test)]
impl TpmStore {
    /// States below `dir`, of the user who runs the test.
    pub(crate) fn below(dir: &Path) -> TpmStore {
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let (user, group) = (user.as_raw(), group.as_raw());
        let conf = dir.join("qemu.conf");
        let text = format!("swtpm_user = \"+{user}\"\nswtpm_group = \"+{group}\"\n");
        std::fs::write(&conf, text).expect("a file of the test's");
        TpmStore {
            dir: dir.join("swtpm"),
            conf,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const UUID: &str = "5b1c0ae8-7d2c-4b8d-9a70-1f2f34a2f0aa";

    fn domain(backend: &str) -> Domain {
        Domain::parse(&format!(
            "<domain><name>web</name><uuid>{UUID}</uuid><devices><tpm model='tpm-crb'>{backend}</tpm></devices></domain>"
        ))
        .unwrap()
    }

    #[test]
    fn a_state_is_the_same_on_the_other_host() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (TpmStore::below(here.path()), TpmStore::below(there.path()));
        let domain = domain("<backend type='emulator' version='2.0'/>");
        assert_eq!(here.read(&domain).unwrap(), None, "it was never started");
        let tpm2 = here.dir.join(UUID).join("tpm2");
        std::fs::create_dir_all(&tpm2).unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        std::fs::write(tpm2.join("tpm2-00.permall"), &bytes).unwrap();
        std::fs::write(tpm2.join("tpm2-00.volatilestate"), "of a process").unwrap();
        std::fs::write(tpm2.join(".lock"), "").unwrap();
        let state = here.read(&domain).unwrap().unwrap();

        let old = there.dir.join(UUID).join("tpm2");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("tpm2-00.permall"), "an older one").unwrap();
        std::fs::write(old.join("tpm2-00.savestate"), "of another state").unwrap();
        for _ in 0..2 {
            assert!(there.write(&domain, &state).unwrap().is_empty());
            assert_eq!(std::fs::read(old.join("tpm2-00.permall")).unwrap(), bytes);
            assert_eq!(std::fs::read_dir(&old).unwrap().count(), 1);
            let meta = std::fs::metadata(old.join("tpm2-00.permall")).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(there.read(&domain).unwrap().unwrap(), state);
        there.remove(UUID.parse().unwrap()).unwrap();
        there.remove(UUID.parse().unwrap()).unwrap();
        assert_eq!(there.read(&domain).unwrap(), None);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = TpmStore::below(dir.path());
        let domain = domain("<backend type='emulator' version='2.0'/>");
        for odd in [
            "",
            "{}",
            r#"{"form":"x","version":"tpm2","files":{}}"#,
            r#"{"form":"swtpm-files-1","version":"tpm1.2","files":{}}"#,
            r#"{"form":"swtpm-files-1","version":"tpm2","files":{"../../x.permall":"00"}}"#,
            r#"{"form":"swtpm-files-1","version":"tpm2","files":{"a.permall":"0"}}"#,
            r#"{"form":"swtpm-files-1","version":"tpm2","files":{"a.permall":"0g"}}"#,
        ] {
            let refused = store.write(&domain, odd).unwrap_err();
            assert_eq!(refused.kind(), Kind::Protocol, "{odd}");
        }
        assert!(!store.dir.exists());
        let tpm2 = store.dir.join(UUID).join("tpm2");
        std::fs::create_dir_all(&tpm2).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", tpm2.join("tpm2-00.permall")).unwrap();
        assert!(store.read(&domain).is_err(), "a link is not followed");
    }

    #[test]
    fn only_what_libvirt_keeps_itself_is_in_reach() {
        let elsewhere = domain("<backend type='emulator'><source type='dir' path='/x'/></backend>");
        assert!(out_of_reach(emulated(&elsewhere).unwrap()).is_some());
        assert!(emulated(&domain("<backend type='passthrough'/>")).is_none());
    }
}
