//! Whether a running guest can go on on another host: what it must not use here, and what the other host must have.

use crate::connect::{Connection, Domain as Handle};
use crate::domain::{disk_key, Domain};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;
use virt_sys as sys;

/// What the guest sees of its host, beside its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Details {
    /// libvirt knows a domain that moves by it.
    pub uuid: Uuid,
    /// The host's processor in libvirt's XML, if the guest sees it as it is.
    pub cpu: Option<String>,
    /// Disks that it has, and where they are if it may not write them.
    pub disks: Vec<(String, Option<String>)>,
}

/// Refuses a domain that uses what only this host has.
pub(super) fn check_leaves(live: &Domain) -> Result<()> {
    let refused = |what: String| {
        Err(Error::new(
            Kind::Refused,
            format!(
                "domain {} cannot be moved while it runs: {what}",
                live.name()
            ),
        )
        .advise("leave --live out: it is shut down then, and started on the other host"))
    };
    for device in live.devices() {
        match device.name.as_str() {
            "hostdev" | "filesystem" | "shmem" => {
                return refused(format!("it uses a <{}> of this host", device.name));
            }
            "interface" if device.attribute("type") == Some("hostdev") => {
                return refused("it uses a network device of this host".into());
            }
            "tpm" => return refused("the state of its TPM is not moved while it is in use".into()),
            _ => {}
        }
    }
    Ok(())
}

/// The memory that the guest may have at the most, in bytes.
pub(super) fn memory_bytes(live: &Domain) -> Result<u64> {
    let odd = || {
        Error::new(
            Kind::Protocol,
            format!(
                "libvirt does not say how much memory domain {} has",
                live.name()
            ),
        )
    };
    let memory = live.root().child("memory").ok_or_else(odd)?;
    let unit = match memory.attribute("unit") {
        None | Some("KiB" | "k" | "K") => 1 << 10,
        Some("b" | "bytes") => 1,
        Some("MiB" | "M") => 1 << 20,
        Some("GiB" | "G") => 1 << 30,
        _ => return Err(odd()),
    };
    let count: u64 = memory.text().parse().map_err(|_| odd())?;
    count.checked_mul(unit).ok_or_else(odd)
}

fn path_of(disk: &Element) -> Option<String> {
    let source = disk.child("source")?;
    let path = source.attribute("file").or(source.attribute("dev"))?;
    Some(path.to_owned())
}

impl Details {
    pub fn of(handle: &Handle, live: &Domain) -> Result<Details> {
        let mode = live
            .root()
            .child("cpu")
            .and_then(|cpu| cpu.attribute("mode"));
        let cpu = match mode {
            Some("host-passthrough") => Some(host_cpu(handle.connection())?),
            _ => None,
        };
        let disks = live
            .disks()
            .filter(|disk| matches!(disk.attribute("device").unwrap_or("disk"), "disk" | "lun"));
        Ok(Details {
            uuid: handle.uuid(),
            cpu,
            disks: disks
                .map(|disk| {
                    let read_only = disk.child("readonly").is_some();
                    let path = path_of(disk).filter(|_| read_only);
                    (disk_key(disk).to_owned(), path)
                })
                .collect(),
        })
    }

    /// Whether the guest has a disk of this key, and may write to it.
    pub fn writes(&self, key: &str) -> bool {
        self.disks
            .iter()
            .any(|(k, path)| k == key && path.is_none())
    }

    pub fn parse(text: &str) -> Result<Details> {
        serde_json::from_str(text)
            .map_err(|e| Error::new(Kind::Protocol, "cannot read a profile").because(e))
    }

    /// Refuses what could not go on as `replica` on this host.
    pub fn check(&self, connection: &Connection, replica: &Domain) -> Result<()> {
        let refused = |what: String| {
            Err(Error::new(
                Kind::Refused,
                format!("domain {} cannot go on here: {what}", replica.name()),
            )
            .advise("leave --live out: it is shut down then, and started on this host"))
        };
        if replica.uuid() != Some(self.uuid) {
            return refused(
                "libvirt moves domains only under their own UUID, and the replica has another"
                    .into(),
            );
        }
        for (key, path) in &self.disks {
            if replica.disks().any(|disk| disk_key(disk) == key) {
                continue;
            }
            match path {
                Some(path) if Path::new(path).exists() => {}
                Some(path) => {
                    return refused(format!(
                        "its disk {key} is left out, and there is no {path} here"
                    ))
                }
                None => return refused(format!("its disk {key} is left out, and it writes to it")),
            }
        }
        let Some(cpu) = &self.cpu else {
            return Ok(());
        };
        let text = cpu.clone();
        let compared =
            connection.call("compare the processors", move |c| c.compare_cpu(&text, 0))?;
        match compared {
            sys::VIR_CPU_COMPARE_IDENTICAL | sys::VIR_CPU_COMPARE_SUPERSET => Ok(()),
            _ => refused("its guest sees the host's own processor, and this host's lacks some of what that has".into()),
        }
    }
}

/// The processor of the host, as libvirt compares it.
fn host_cpu(connection: &Connection) -> Result<String> {
    let capabilities = Element::parse("the host's capabilities", &connection.capabilities()?)?;
    match capabilities.at(&["host", "cpu"]) {
        Some(cpu) => Ok(cpu.to_string()),
        None => Err(Error::new(
            Kind::Refused,
            "libvirt does not know this host's processor, which the guest sees",
        )
        .advise("leave --live out: the domain is shut down then")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn domain(inside: &str) -> Domain {
        Domain::parse(&format!(
            "<domain><name>web</name><uuid>5b1c0ae8-7d2c-4b8d-9a70-1f2f34a2f0aa</uuid>{inside}</domain>"
        ))
        .unwrap()
    }

    #[test]
    fn memory_is_read_in_its_unit() {
        for (text, bytes) in [
            ("<memory unit='KiB'>32768</memory>", 32 << 20),
            ("<memory>2</memory>", 2048),
            ("<memory unit='GiB'>3</memory>", 3u64 << 30),
        ] {
            assert_eq!(memory_bytes(&domain(text)).unwrap(), bytes);
        }
        for odd in [
            "",
            "<memory unit='parsec'>1</memory>",
            "<memory>x</memory>",
            "<memory unit='GiB'>99999999999999</memory>",
        ] {
            assert!(memory_bytes(&domain(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_only_this_host_has_stays() {
        for device in [
            "<hostdev mode='subsystem'/>",
            "<interface type='hostdev'/>",
            "<tpm model='tpm-crb'/>",
            "<filesystem type='mount'/>",
        ] {
            let error = check_leaves(&domain(&format!("<devices>{device}</devices>"))).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.advice().unwrap().contains("--live"));
        }
        check_leaves(&domain(
            "<devices><disk/><interface type='network'/></devices>",
        ))
        .unwrap();
    }
}
