//! Disk keys (`scsi0`, `efidisk0`, ...) and their values: what a drive line of a VM configuration says.
//!
//! The value is a property string: one part without a name, or named `file=` or `volume=`, says where the
//! data is; the others are options. Options are kept in their order and unread, so that a replica's line
//! carries also those that a newer Proxmox knows and we do not.

use crate::volid::Volid;
use rblocksync::error::{Error, Kind, Result};
use std::fmt;

/// What a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bus {
    /// IDE, 4 drives.
    Ide,
    /// SATA, 6 drives.
    Sata,
    /// SCSI, 31 drives.
    Scsi,
    /// virtio-blk, 16 drives.
    Virtio,
    /// The UEFI variable store.
    Efidisk,
    /// The state of the emulated TPM.
    Tpmstate,
    /// Not attached: a volume Proxmox remembers for the VM.
    Unused,
}

/// Every bus with its name and how many drives Proxmox allows on it.
const BUSES: [(Bus, &str, u16); 7] = [
    (Bus::Ide, "ide", 4),
    (Bus::Sata, "sata", 6),
    (Bus::Scsi, "scsi", 31),
    (Bus::Virtio, "virtio", 16),
    (Bus::Efidisk, "efidisk", 1),
    (Bus::Tpmstate, "tpmstate", 1),
    (Bus::Unused, "unused", 256),
];

/// The key of a disk line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskKey {
    bus: Bus,
    index: u16,
}

impl DiskKey {
    /// The disk key spelled so, if Proxmox knows it as one. `cdrom` is an old name of `ide2`.
    pub fn parse(text: &str) -> Option<DiskKey> {
        if text == "cdrom" {
            return DiskKey::parse("ide2");
        }
        let digits = text.find(|c: char| c.is_ascii_digit())?;
        let (name, number) = text.split_at(digits);
        let (bus, _, count) = *BUSES.iter().find(|(_, n, _)| *n == name)?;
        let index: u16 = number.parse().ok()?;
        // One spelling only: scsi00 and scsi+0 are not scsi0.
        (index < count && number == index.to_string()).then_some(DiskKey { bus, index })
    }

    /// What the disk hangs on.
    pub fn bus(self) -> Bus {
        self.bus
    }

    /// Whether the volume is only remembered, not attached to the VM.
    pub fn is_unused(self) -> bool {
        self.bus == Bus::Unused
    }

    /// Whether a key that is not a disk key was probably meant as one: `scsi31`, `SCSI0`, `ide`.
    pub fn is_lookalike(text: &str) -> bool {
        let lower = text.trim().to_ascii_lowercase();
        let name = lower.trim_end_matches(|c: char| c.is_ascii_digit());
        name == "cdrom" || BUSES.iter().any(|(_, n, _)| *n == name)
    }
}

impl fmt::Display for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = BUSES
            .iter()
            .find(|(bus, _, _)| *bus == self.bus)
            .map_or("", |(_, name, _)| name);
        write!(f, "{name}{}", self.index)
    }
}

/// Where the data of a drive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveTarget {
    /// `none`: a CD drive without a medium.
    None,
    /// `cdrom`: the host's own CD drive.
    HostCdrom,
    /// An absolute path, usually a device passed through.
    Path(String),
    /// A cloud-init drive that Proxmox generates from the configuration.
    CloudInit(Volid),
    /// A volume of a storage.
    Volume(Volid),
}

impl fmt::Display for DriveTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriveTarget::None => f.write_str("none"),
            DriveTarget::HostCdrom => f.write_str("cdrom"),
            DriveTarget::Path(path) => f.write_str(path),
            DriveTarget::CloudInit(volid) | DriveTarget::Volume(volid) => volid.fmt(f),
        }
    }
}

/// One drive of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Where it hangs.
    pub key: DiskKey,
    /// Where its data is.
    pub target: DriveTarget,
    /// All options but the target, in their order.
    pub options: Vec<(String, String)>,
}

impl Drive {
    /// Reads the value of a disk line.
    pub fn parse(key: DiskKey, value: &str) -> Result<Drive> {
        let wrong = |why: String| {
            Error::new(
                Kind::Refused,
                format!("cannot understand disk {key}: {why}"),
            )
        };
        if value.chars().any(char::is_control) {
            return Err(wrong(format!("{value:?} holds a control character")));
        }
        let mut file = None;
        let mut options: Vec<(String, String)> = Vec::new();
        for part in value.split(',') {
            let (name, content) = part.split_once('=').unwrap_or(("file", part));
            if name == "file" || name == "volume" {
                if file.replace(content).is_some() {
                    return Err(wrong(format!("{value:?} names two volumes")));
                }
                continue;
            }
            let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
            if !well_formed {
                return Err(wrong(format!("{part:?} is not an option")));
            }
            if options.iter().any(|(n, _)| n == name) {
                return Err(wrong(format!("option {name} is given twice")));
            }
            options.push((name.to_owned(), content.to_owned()));
        }
        let Some(file) = file.filter(|f| !f.is_empty()) else {
            return Err(wrong(format!("{value:?} names no volume")));
        };
        let target = match file {
            "none" => DriveTarget::None,
            "cdrom" => DriveTarget::HostCdrom,
            path if path.starts_with('/') => DriveTarget::Path(path.to_owned()),
            bare if !bare.contains(':') => {
                return Err(wrong(format!("{bare:?} is neither a volume id nor a path"))
                    .advise("write it as STORAGE:VOLUME, as qm set does"));
            }
            volid => {
                let volid = Volid::parse(volid).map_err(|e| e.context(format!("disk {key}")))?;
                if volid.is_cloudinit() {
                    DriveTarget::CloudInit(volid)
                } else {
                    DriveTarget::Volume(volid)
                }
            }
        };
        let drive = Drive {
            key,
            target,
            options,
        };
        if let Some(size) = drive.option("size") {
            if parse_size(size).is_none() {
                return Err(wrong(format!("{size:?} is not a size")));
            }
        }
        Ok(drive)
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a yes/no option; `default` when it is absent. Proxmox's spellings of yes and no.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        match self.option(name).map(str::to_ascii_lowercase).as_deref() {
            Some("1" | "on" | "yes" | "true") => true,
            Some("0" | "off" | "no" | "false") => false,
            _ => default,
        }
    }

    /// Whether the drive is a CD drive (generated cloud-init drives are, too).
    pub fn is_cdrom(&self) -> bool {
        self.option("media") == Some("cdrom")
            || matches!(self.target, DriveTarget::None | DriveTarget::HostCdrom)
    }

    /// The size in bytes the configuration gives. Informative: Proxmox does not keep it exact for every
    /// storage, the volume itself has the truth.
    pub fn size(&self) -> Option<u64> {
        self.option("size").and_then(parse_size)
    }

    /// The line's value again, with the target first, as Proxmox writes it.
    pub fn value(&self) -> String {
        let mut text = self.target.to_string();
        for (name, content) in &self.options {
            text.push_str(&format!(",{name}={content}"));
        }
        text
    }
}

/// Reads a size as Proxmox writes it: bytes, or a number (with a fraction or not) and K, M, G or T.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 1u128 << 10),
        'M' => (&text[..text.len() - 1], 1 << 20),
        'G' => (&text[..text.len() - 1], 1 << 30),
        'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 20 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 15 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    u64::try_from(scaled * unit / scale).ok()
}

/// Writes a size as Proxmox does: the largest unit that leaves no remainder.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    for (shift, unit) in UNITS {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn drive(key: &str, value: &str) -> Result<Drive> {
        Drive::parse(DiskKey::parse(key).unwrap(), value)
    }

    #[test]
    fn keys_are_those_of_proxmox_and_no_others() {
        let mut count = 0;
        for name in [
            "ide", "sata", "scsi", "virtio", "efidisk", "tpmstate", "unused",
        ] {
            for n in 0..400 {
                let text = format!("{name}{n}");
                if let Some(key) = DiskKey::parse(&text) {
                    assert_eq!(key.to_string(), text);
                    count += 1;
                }
            }
        }
        assert_eq!(count, 4 + 6 + 31 + 16 + 1 + 1 + 256);
        assert_eq!(DiskKey::parse("cdrom"), DiskKey::parse("ide2"));
        for no in ["scsi", "scsi00", "scsi31", "scsihw", "SCSI0", "net0", ""] {
            assert!(DiskKey::parse(no).is_none(), "{no}");
        }
        for alike in ["scsi31", " scsi0", "SCSI0", "efidisk1", "scsi", "CDROM"] {
            assert!(DiskKey::is_lookalike(alike), "{alike}");
        }
        for not in ["scsihw", "net0", "bootdisk", "name", ""] {
            assert!(!DiskKey::is_lookalike(not), "{not}");
        }
    }

    #[test]
    fn the_volume_may_be_spelled_in_three_ways() {
        let bare = drive("scsi0", "local-lvm:vm-101-disk-0,cache=none,size=32G").unwrap();
        for other in [
            "file=local-lvm:vm-101-disk-0,cache=none,size=32G",
            "cache=none,volume=local-lvm:vm-101-disk-0,size=32G",
        ] {
            assert_eq!(drive("scsi0", other).unwrap(), bare);
        }
        assert_eq!(bare.size(), Some(32 << 30));
        assert_eq!(bare.value(), "local-lvm:vm-101-disk-0,cache=none,size=32G");
        assert!(!bare.is_cdrom());
    }

    #[test]
    fn values_that_hide_where_the_data_is_are_errors() {
        for bad in [
            "",
            "size=32G",
            "file=",
            "local-lvm:vm-101-disk-0,local-lvm:vm-101-disk-1",
            "local-lvm:vm-101-disk-0,file=local-lvm:vm-101-disk-1",
            "vm-101-disk-0.qcow2",
            "local-lvm:vm-101-disk-0,size=32G,size=33G",
            "local-lvm:vm-101-disk-0,size=big",
            "local-lvm:vm-101-disk-0,Size=32G",
            "local-lvm:vm-101-disk-0,=x",
            "local:../x.raw",
            "/dev/disk/by-id/a=b",
        ] {
            assert!(drive("scsi0", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flags_take_all_of_proxmox_spellings() {
        let d = drive("scsi0", "aa:b,replicate=Off,ro=yes,backup=0").unwrap();
        assert!(!d.flag("replicate", true));
        assert!(d.flag("ro", false));
        assert!(!d.flag("backup", true));
        assert!(d.flag("absent", true));
    }

    #[test]
    fn sizes_are_read_and_written_as_proxmox_does() {
        for (text, bytes) in [
            ("512K", 512 << 10),
            ("32G", 32 << 30),
            ("4M", 4 << 20),
            ("528K", 528 << 10),
            ("1T", 1 << 40),
            ("1234567", 1_234_567),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_size("1.5G"), Some(3 << 29));
        assert_eq!(format_size(2 << 40), "2T");
        assert_eq!(format_size(1025 << 10), "1025K");
        assert_eq!(format_size(0), "0");
        for bad in [
            "",
            "G",
            "1.G",
            ".5G",
            "1g",
            "-1",
            "1 G",
            "99999999T",
            "1.5.5G",
            "+5",
            "\u{e4}G",
        ] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
