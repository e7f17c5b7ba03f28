//! What is written into a VM's configuration, checked before it goes out: a new VM only takes over volumes that exist,
//! and a change says which configuration it is a change of.

use crate::drive::{DiskKey, Drive, DriveTarget};
use crate::volid::is_storage_id;
use rblocksync::error::{Error, Kind, Result};
use std::collections::BTreeMap;

/// Parameters of the two calls that are no settings of a VM: each makes them do something else.
const NOT_SETTINGS: [&str; 16] = [
    "archive",
    "background_delay",
    "delete",
    "digest",
    "force",
    "import-working-storage",
    "live-restore",
    "node",
    "pool",
    "revert",
    "skiplock",
    "start",
    "storage",
    "unique",
    "vmid",
    "bwlimit",
];

/// A VM to be made of volumes that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVm {
    settings: BTreeMap<String, String>,
}

impl NewVm {
    /// Takes settings as they stand in a configuration file. Refuses disks that Proxmox VE would have to allocate or
    /// import, except cloud-init drives, which it makes itself.
    pub fn new(settings: BTreeMap<String, String>) -> Result<NewVm> {
        for (key, value) in &settings {
            check_key(key)?;
            check_drive(key, value)?;
        }
        Ok(NewVm { settings })
    }

    /// Keys and values.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }
}

/// A change of a VM's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    digest: String,
    set: BTreeMap<String, String>,
    delete: Vec<String>,
}

impl Change {
    /// A change of the configuration with this digest: it is refused if somebody else has changed it meanwhile.
    pub fn of(digest: &str) -> Result<Change> {
        let hex = digest.len() == 40 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        match hex {
            true => Ok(Change {
                digest: digest.to_owned(),
                set: BTreeMap::new(),
                delete: Vec::new(),
            }),
            false => Err(Error::new(
                Kind::Usage,
                format!(
                    "\"{}\" is not the digest of a configuration",
                    digest.escape_default()
                ),
            )),
        }
    }

    /// Sets a key. Disks must exist, as in [`NewVm::new`].
    pub fn set(mut self, key: &str, value: &str) -> Result<Change> {
        check_key(key)?;
        check_drive(key, value)?;
        self.set.insert(key.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Takes a key away. A disk becomes an unused one, and its volume stays.
    pub fn delete(mut self, key: &str) -> Result<Change> {
        check_key(key)?;
        if key.starts_with("unused") {
            // Deleting that entry deletes the volume.
            return Err(Error::new(
                Kind::Refused,
                format!("{key} is not deleted: its volume would be removed with it"),
            ));
        }
        self.delete.push(key.to_owned());
        Ok(self)
    }

    /// As parameters of the call.
    pub(super) fn params(&self) -> Vec<(&str, String)> {
        let mut params: Vec<(&str, String)> = vec![("digest", self.digest.clone())];
        params.extend(self.set.iter().map(|(k, v)| (k.as_str(), v.clone())));
        if !self.delete.is_empty() {
            params.push(("delete", self.delete.join(",")));
        }
        params
    }
}

fn check_key(key: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let good = key.starts_with(|c: char| c.is_ascii_lowercase()) && key.bytes().all(plain);
    match good && !NOT_SETTINGS.contains(&key) {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Usage,
            format!("\"{}\" is not a setting of a VM", key.escape_default()),
        )),
    }
}

/// `STORE:32` would allocate 32 GiB, and `import-from` copy something.
fn check_drive(key: &str, value: &str) -> Result<()> {
    let Some(disk) = DiskKey::parse(key) else {
        return match DiskKey::is_lookalike(key) {
            true => Err(refused(key, "Proxmox VE has no such disk")),
            false => Ok(()),
        };
    };
    let drive = Drive::parse(disk, value)?;
    if drive.option("import-from").is_some() {
        return Err(refused(key, "it would be imported"));
    }
    match &drive.target {
        DriveTarget::Volume(volid)
            if volid
                .volname()
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.') =>
        {
            Err(refused(key, "it would be allocated"))
        }
        _ => Ok(()),
    }
}

fn refused(key: &str, why: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("disk {key} is not taken over: {why}"),
    )
}

/// A storage's name that is safe in a path.
pub(super) fn storage_id(storage: &str) -> Result<&str> {
    match is_storage_id(storage) {
        true => Ok(storage),
        false => Err(Error::new(
            Kind::Usage,
            format!("\"{}\" is not a storage name", storage.escape_default()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn vm(key: &str, value: &str) -> Result<NewVm> {
        NewVm::new(BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn only_volumes_that_exist_are_taken_over() {
        vm("scsi0", "local-lvm:vm-101-disk-0,discard=on").unwrap();
        vm("ide2", "local-lvm:cloudinit,media=cdrom").unwrap();
        vm("ide2", "none,media=cdrom").unwrap();
        vm("memory", "2048").unwrap();
        for (key, value) in [
            ("scsi0", "local-lvm:32"),
            ("scsi0", "local-lvm:0,import-from=/etc/shadow"),
            ("scsi0", "local-lvm:0.5"),
            ("virtio99", "local-lvm:vm-101-disk-0"),
            ("skiplock", "1"),
            ("force", "1"),
            ("archive", "x"),
            ("-x", "1"),
            ("", "1"),
        ] {
            vm(key, value).unwrap_err();
        }
    }

    #[test]
    fn a_change_names_its_configuration_and_removes_no_volume() {
        let digest = "0123456789abcdef0123456789abcdef01234567";
        let change = Change::of(digest)
            .unwrap()
            .set("onboot", "0")
            .unwrap()
            .delete("lock")
            .unwrap();
        assert_eq!(
            change.params(),
            [
                ("digest", digest.to_owned()),
                ("onboot", "0".to_owned()),
                ("delete", "lock".to_owned())
            ]
        );
        Change::of("").unwrap_err();
        assert_eq!(change.delete("unused0").unwrap_err().kind(), Kind::Refused);
    }
}
