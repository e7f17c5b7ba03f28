//! The file that says what a key is good for.

use super::pattern::Pattern;
use crate::cli::units::parse_rate;
use crate::error::{Error, Kind, Result};
use crate::lvm::LvId;
use crate::trusted_file::{check_trusted, read_trusted};
use serde::{Deserialize, Deserializer};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Largest policy that is read, in bytes.
const POLICY_BYTES_MAX: u64 = 64 << 10;

/// Lowest limit of a policy, in bytes a second: below it the largest message would take longer than a link may be silent.
const RATE_MIN: u64 = 1 << 20;

/// What may be done with what the policy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Volumes may be read. Nothing is written.
    Read,
    /// Generations and files may be added. What is there is neither overwritten nor removed.
    Append,
    /// Volumes and replicas may be written, and generations pruned.
    Write,
    /// The same, and volumes may be read.
    ReadWrite,
}

impl Access {
    /// Whether volumes may be read.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    /// Whether something may be added.
    pub fn adds(self) -> bool {
        self != Access::Read
    }

    /// Whether what is there may be overwritten or removed.
    pub fn overwrites(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }
}

/// What a driver may ask for. All that is not allowed is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What may be done.
    pub access: Access,
    /// A VM may be taken over, started, and handed back. Without it replicas stay replicas.
    #[serde(default)]
    pub roles: bool,
    /// Id of the only host whose replicas may be touched.
    #[serde(default)]
    pub peer: Option<Uuid>,
    /// Ids that replicas may have on this host.
    #[serde(default)]
    pub vms: Vec<Pattern>,
    /// Storages, pools, groups or directories that replicas may be on; `*` alone is any.
    #[serde(default)]
    pub storages: Vec<Pattern>,
    /// What may be synced by itself, and where replicas may be too: `VG/LV`, `/path/of/a/file`, or `/directory/`.
    #[serde(default)]
    pub volumes: Vec<Pattern>,
    /// Most bytes a second, of each connection to an agent.
    #[serde(default, deserialize_with = "rate")]
    pub bandwidth: Option<u64>,
    /// A file that gets a line for each refusal, beside the host's journal.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

impl Policy {
    /// Reads a policy. Only root, or whoever runs this, may be able to change it, or the directories that it is in.
    pub fn load(path: &Path) -> Result<Policy> {
        let cannot = |e| Error::io(format!("cannot read the policy {}", path.display()), e);
        if !path.is_absolute() {
            let what = format!("the policy {} is not an absolute path", path.display());
            return Err(Error::new(Kind::Usage, what));
        }
        let real = std::fs::canonicalize(path).map_err(cannot)?;
        for dir in real.ancestors().skip(1) {
            let meta = std::fs::metadata(dir).map_err(cannot)?;
            // In /tmp and the like others may make files, but move none of root's: only the directory's owner may.
            let own = rustix::process::geteuid().as_raw();
            let is_shared = meta.mode() & 0o1000 != 0 && [0, own].contains(&meta.uid());
            if !is_shared {
                check_trusted(dir, &meta)?;
            }
        }
        let text =
            read_trusted(&real).map_err(|e| e.context(format!("the policy {}", path.display())))?;
        Policy::parse(&text).map_err(|e| e.context(format!("the policy {}", path.display())))
    }

    /// Reads the text of a policy.
    pub fn parse(text: &str) -> Result<Policy> {
        if text.len() as u64 > POLICY_BYTES_MAX {
            return Err(Error::new(Kind::Usage, "it is too long"));
        }
        let policy: Policy = toml::from_str(text)
            .map_err(|e| Error::new(Kind::Usage, "it cannot be understood").because(e))?;
        if policy.roles && !policy.access.overwrites() {
            return Err(Error::new(
                Kind::Usage,
                "roles go only with access = \"write\" or \"read-write\"",
            ));
        }
        if let Some(log) = policy.log.as_ref().filter(|log| !log.is_absolute()) {
            let what = format!("the log {} is not an absolute path", log.display());
            return Err(Error::new(Kind::Usage, what));
        }
        Ok(policy)
    }

    /// Whether a replica may have this id here.
    pub fn allows_vm(&self, vm: &str) -> bool {
        self.vms.iter().any(|p| p.matches(vm.as_bytes()))
    }

    /// Whether replicas may be on this storage.
    pub fn allows_storage(&self, storage: &str) -> bool {
        let mut storages = self.storages.iter();
        storages.any(|p| p.is_any() || p.matches(storage.as_bytes()))
    }

    /// Whether this file or device, by its real path, is named.
    pub fn allows_path(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        let mut paths = self.volumes.iter().filter(|p| p.is_path());
        paths.any(|p| p.matches(path))
    }

    /// Whether this logical volume is named.
    pub fn allows_lv(&self, lv: &LvId) -> bool {
        let name = lv.to_string();
        let path = lv.path();
        let mut names = self.volumes.iter().filter(|p| !p.is_path());
        names.any(|p| p.matches(name.as_bytes())) || self.allows_path(&path)
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_rate(&text).map_err(serde::de::Error::custom)? {
        rate if rate >= RATE_MIN => Ok(Some(rate)),
        _ => Err(serde::de::Error::custom("a bandwidth is 1M or more")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::{set_permissions, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_policy_is_read_and_misspelt_ones_are_not() {
        let policy = Policy::parse(
            "access = \"append\"\npeer = \"6f9619ff-8b86-4d01-b42d-00cf4fc964ff\"\nvms = [\"10?\"]\n\
             storages = [\"local-lvm\"]\nvolumes = [\"vg0/vm-*\", \"/images/\"]\nbandwidth = \"50M\"\n",
        )
        .unwrap();
        assert!(policy.access.adds() && !policy.access.overwrites() && !policy.access.reads());
        assert_eq!(policy.bandwidth, Some(50 << 20));
        assert!(policy.allows_vm("101") && !policy.allows_vm("201") && !policy.allows_vm("1010"));
        assert!(policy.allows_path(Path::new("/images/a/b")));
        assert!(policy.allows_lv(&LvId::new("vg0", "vm-1").unwrap()));
        assert!(!policy.allows_lv(&LvId::new("vg1", "vm-1").unwrap()));
        for text in [
            "",
            "acess = \"read\"",
            "access = \"all\"",
            "access = \"read\"\nroles = true",
            "access = \"append\"\nroles = true",
            "access = \"read\"\nmore = 1",
            "access = \"read\"\nvolumes = [\"/a/../b\"]",
            "access = \"read\"\nbandwidth = \"0\"",
            "access = \"read\"\nbandwidth = \"1K\"",
            "access = \"read\"\npeer = \"host1\"",
            "access = \"read\"\nlog = \"log\"",
            "access = \"read\"\naccess = \"write\"",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
        let nothing = Policy::parse("access = \"read-write\"").unwrap();
        assert!(!nothing.allows_vm("1") && !nothing.allows_storage("a") && !nothing.roles);
        assert!(!nothing.allows_path(Path::new("/a")));
    }

    #[test]
    fn a_policy_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, "access = \"read\"").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Policy::load(&path).unwrap();
        for mode in [0o664, 0o646, 0o666] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Policy::load(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{mode:o}");
        }
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(Policy::load(&path).is_err());
        set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            let give =
                |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
            give(&path, 65534);
            assert!(Policy::load(&path).is_err());
            give(&path, 0);
            Policy::load(&path).unwrap();
            // Its owner could put another file there, sticky or not.
            give(dir.path(), 65534);
            for mode in [0o755, 0o1755, 0o1777] {
                set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
                assert!(Policy::load(&path).is_err(), "{mode:o}");
            }
            give(dir.path(), 0);
            Policy::load(&path).unwrap();
        }
        assert!(Policy::load(Path::new("policy.toml")).is_err());
        assert!(Policy::load(dir.path()).is_err());
    }
}
