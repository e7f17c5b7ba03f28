//! /etc/virt-blocksync/hook.toml: what an administrator wants done for single domains.
//!
//! ```toml
//! [domain.web01]
//! # For a plain "virsh migrate --copy-storage-all" to this host: files that are not there are made, sparse. libvirt would
//! # allocate all of them. Sizes in bytes, or with K, M, G, T.
//! disks = { vda = "20G", vdb = "100G" }
//! ```

use rblocksync::error::{Error, Kind, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where it is, unless `VIRT_BLOCKSYNC_HOOK_CONFIG` names another file.
const CONFIG: &str = "/etc/virt-blocksync/hook.toml";

/// Where it is.
pub(super) fn path() -> PathBuf {
    match std::env::var_os("VIRT_BLOCKSYNC_HOOK_CONFIG") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(CONFIG),
    }
}

/// Longest file that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    domain: BTreeMap<String, DomainConfig>,
}

/// What is wanted for a domain.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// Sizes of its disks, by their names in the guest.
    #[serde(default)]
    pub(super) disks: BTreeMap<String, Size>,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Size, String> {
        let (number, shift) = match text.char_indices().last() {
            Some((at, unit)) if unit.is_ascii_alphabetic() => {
                let shift = match unit.to_ascii_uppercase() {
                    'K' => 10,
                    'M' => 20,
                    'G' => 30,
                    'T' => 40,
                    _ => return Err(format!("{text:?}: no such unit")),
                };
                (&text[..at], shift)
            }
            _ => (text.as_str(), 0),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .filter(|bytes| *bytes > 0)
            .map(Size)
            .ok_or_else(|| format!("{text:?} is no size"))
    }
}

impl Config {
    /// Reads the file; one that is not there wants nothing.
    pub fn read(path: &Path) -> Result<Config> {
        let cannot = |e| Error::io(format!("cannot read {}", path.display()), e);
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > CONFIG_BYTES_MAX => {
                return Err(Error::new(
                    Kind::Usage,
                    format!("{} is too large", path.display()),
                ))
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(e) => return Err(cannot(e)),
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        toml::from_str(&text).map_err(|e| {
            Error::new(Kind::Usage, format!("cannot understand {}", path.display())).because(e)
        })
    }

    /// What is wanted for a domain.
    pub fn domain(&self, name: &str) -> Option<&DomainConfig> {
        self.domain.get(name)
    }
}
