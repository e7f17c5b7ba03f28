//! Names in LVM: volumes, tags, and the tag that says a volume is ours.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use uuid::Uuid;

/// LVM's own limit for the name of a volume group or volume.
const NAME_MAX: usize = 127;
/// The kernel's limit for a device-mapper name, its final NUL not counted.
const DM_NAME_MAX: usize = 127;
/// LVM's own limit for a tag.
const TAG_MAX: usize = 1024;

/// A logical volume by name: `VG/NAME`. Both parts keep to LVM's rules for names, so they cannot be taken
/// for an option or another path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LvId {
    vg: String,
    name: String,
}

impl LvId {
    /// Checks both names. Fails with [`Kind::Usage`].
    pub fn new(vg: impl Into<String>, name: impl Into<String>) -> Result<Self> {
        let id = LvId {
            vg: vg.into(),
            name: name.into(),
        };
        check_name("volume group", &id.vg)?;
        check_name("logical volume", &id.name)?;
        if id.mapper_name().len() > DM_NAME_MAX {
            return Err(Error::new(
                Kind::Usage,
                format!("the names {id} are too long together for the device mapper"),
            ));
        }
        Ok(id)
    }

    /// The volume group.
    pub fn vg(&self) -> &str {
        &self.vg
    }

    /// The name inside the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another volume of the same group.
    pub fn sibling(&self, name: impl Into<String>) -> Result<Self> {
        LvId::new(&self.vg, name)
    }

    /// `/dev/VG/NAME`, there while the volume is active.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.vg).join(&self.name)
    }

    /// The device-mapper name, in which a dash of a name is doubled: `pve-vm--101--disk--0`.
    pub fn mapper_name(&self) -> String {
        format!(
            "{}-{}",
            self.vg.replace('-', "--"),
            self.name.replace('-', "--")
        )
    }

    /// The volume a device-mapper name belongs to; `None` for hidden layers (`pve-data-tpool`) and for
    /// names LVM does not make.
    pub fn from_mapper_name(mapper_name: &str) -> Option<Self> {
        let mut parts = vec![String::new()];
        let mut rest = mapper_name.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '-' if rest.peek() != Some(&'-') => parts.push(String::new()),
                '-' => {
                    rest.next();
                    parts.last_mut()?.push('-');
                }
                _ => parts.last_mut()?.push(c),
            }
        }
        match <[String; 2]>::try_from(parts) {
            Ok([vg, name]) => LvId::new(vg, name).ok(),
            Err(_) => None,
        }
    }
}

impl fmt::Display for LvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vg, self.name)
    }
}

impl FromStr for LvId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some((vg, name)) => LvId::new(vg, name),
            None => Err(Error::new(
                Kind::Usage,
                format!("{text:?} does not name a logical volume as VG/NAME"),
            )),
        }
    }
}

impl TryFrom<String> for LvId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LvId> for String {
    fn from(id: LvId) -> String {
        id.to_string()
    }
}

/// Checks the name of a volume group.
pub(super) fn check_vg(vg: &str) -> Result<()> {
    check_name("volume group", vg)
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    let wrong = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it is longer than 127 bytes"
    } else if name.starts_with('-') {
        "it starts with a dash"
    } else if name == "." || name == ".." {
        "it means a directory"
    } else if !name.chars().all(allowed) {
        "only letters, digits and + _ . - are allowed"
    } else {
        return Ok(());
    };
    Err(Error::new(
        Kind::Usage,
        format!("{name:?} cannot be the name of a {what}: {wrong}"),
    ))
}

/// A tag as LVM allows it, without `:`, by which Proxmox splits its lists of volumes, and without the
/// characters that mean something in LVM's selection language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Checks the tag. Fails with [`Kind::Usage`].
    pub fn new(tag: impl Into<String>) -> Result<Self> {
        let tag = tag.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-/=".contains(c);
        if tag.is_empty()
            || tag.len() > TAG_MAX
            || tag.starts_with('-')
            || !tag.chars().all(allowed)
        {
            return Err(Error::new(
                Kind::Usage,
                format!("{tag:?} cannot be a tag of a logical volume"),
            ));
        }
        Ok(Tag(tag))
    }

    /// The text LVM sees.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The mark on everything we create: `rbs.owner=UUID`. Nothing without the expected one is ever written,
/// renamed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerTag(Tag);

impl OwnerTag {
    const PREFIX: &'static str = "rbs.owner=";

    /// The mark of the owner with this id.
    pub fn new(owner: Uuid) -> Self {
        OwnerTag(Tag(format!("{}{}", Self::PREFIX, owner.hyphenated())))
    }

    /// As a tag of a volume.
    pub fn tag(&self) -> &Tag {
        &self.0
    }

    /// The owner's id, if `tag` is a mark of ours.
    pub fn owner_of(tag: &str) -> Option<Uuid> {
        Uuid::try_parse(tag.strip_prefix(Self::PREFIX)?).ok()
    }
}

impl fmt::Display for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_keep_to_the_rules() {
        let long = "x".repeat(128);
        let bad = [
            "", "-a", ".", "..", "a/b", "a b", "a:b", "a;b", "a\nb", "$(x)", "\u{e4}", &long,
        ];
        for name in bad {
            let refused = |r: Result<LvId>| assert_eq!(r.unwrap_err().kind(), Kind::Usage);
            refused(LvId::new("pve", name));
            refused(LvId::new(name, "x"));
        }
        let id: LvId = "pve/vm-101-disk-0".parse().unwrap();
        assert_eq!(id.path(), Path::new("/dev/pve/vm-101-disk-0"));
        assert_eq!(id.mapper_name(), "pve-vm--101--disk--0");
        assert!("/dev/pve/x".parse::<LvId>().is_err());
        assert!(LvId::new("v".repeat(64), "n".repeat(64)).is_err());
        assert_eq!(
            serde_json::from_str::<LvId>("\"pve/x\"").unwrap().name(),
            "x"
        );
        assert!(serde_json::from_str::<LvId>("\"pve/--yes\"").is_err());
    }

    #[test]
    fn hidden_layers_are_no_volumes() {
        for name in ["pve-data-tpool", "pve", "-", "pve-", "pve-a-b", ""] {
            assert_eq!(LvId::from_mapper_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn mapper_names_go_there_and_back(vg in "[a-z0-9+_.][a-z+_.-]{0,20}", lv in "[a-z0-9][a-z+_.-]{0,20}") {
            prop_assume!(vg != "." && vg != "..");
            let id = LvId::new(vg, lv).unwrap();
            prop_assert_eq!(LvId::from_mapper_name(&id.mapper_name()), Some(id));
        }

        #[test]
        fn any_mapper_name_is_survived(name: String) {
            let _ = LvId::from_mapper_name(&name);
        }
    }

    #[test]
    fn owner_tags() {
        let owner = Uuid::new_v4();
        let tag = OwnerTag::new(owner);
        assert!(Tag::new(tag.to_string()).is_ok());
        assert!(!tag.to_string().contains(':'));
        assert_eq!(OwnerTag::owner_of(&tag.to_string()), Some(owner));
        for other in ["", "owner=x", "rbs.owner=", "rbs.owner=1"] {
            assert_eq!(OwnerTag::owner_of(other), None);
        }
        for bad in ["", "-x", "a:b", "a b", "a\"b", "a,b", "a{b"] {
            assert!(Tag::new(bad).is_err(), "{bad}");
        }
    }
}
