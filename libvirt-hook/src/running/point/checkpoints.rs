//! The checkpoints of a domain: which there are, whether what they record can be relied on, and removing ours.

use super::disks;
use crate::connect::{code_of, Domain};
use crate::ffi::{self, CheckpointDelete};
use rblocksync::error::Result;
use virt::error::ErrorNumber;

/// The checkpoints of a domain, by name, each behind those that it depends on.
pub(super) struct Checkpoints(Vec<String>);

impl Checkpoints {
    pub fn list(domain: &Domain) -> Result<Checkpoints> {
        let names = domain.call("list the checkpoints of", ffi::checkpoint_names)?;
        Ok(Checkpoints(names))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// For each disk that checkpoint `name` is of and whose bitmaps are sound: how many bytes changed since. Or why nobody
    /// can tell.
    pub fn trusted(
        &self,
        domain: &Domain,
        name: &str,
    ) -> Result<std::result::Result<Vec<(String, u64)>, String>> {
        if !self.has(name) {
            return Ok(Err(
                "libvirt has no checkpoint of the generation that was sent last".into(),
            ));
        }
        let wanted = name.to_owned();
        // QEMU is asked for the size, so it has to look at the bitmaps.
        let looked = domain.call(
            "look at a checkpoint of",
            move |d| match ffi::checkpoint_xml(d, &wanted, true) {
                Ok(xml) => Ok(Ok(xml)),
                Err(e) => match code_of(&e) {
                    ErrorNumber::CheckpointInconsistent
                    | ErrorNumber::InvalidDomainCheckpoint
                    | ErrorNumber::NoDomainCheckpoint => Ok(Err(e.message().to_owned())),
                    _ => Err(e),
                },
            },
        )?;
        let xml = match looked {
            Ok(xml) => disks::parse(&xml, domain.name())?,
            Err(why) => {
                return Ok(Err(format!("libvirt's bitmaps cannot be relied on: {why}")));
            }
        };
        let of = xml
            .child("disks")
            .into_iter()
            .flat_map(|disks| disks.all("disk"));
        let recorded = of.filter_map(|disk| {
            let is_in = disk.attribute("checkpoint") == Some("bitmap");
            let name = disk.attribute("name").filter(|_| is_in)?;
            // It is left out where a bitmap is missing or inconsistent.
            let size = disk.attribute("size")?.parse().ok()?;
            Some((name.to_owned(), size))
        });
        Ok(Ok(recorded.collect()))
    }

    /// Removes those that are to go, the newest first: what they mark goes to the one before them. Returns what is left.
    pub fn sweep(self, domain: &Domain, goes: impl Fn(&str) -> bool) -> Result<Checkpoints> {
        let (old, left): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|name| goes(name));
        for name in old.into_iter().rev() {
            domain.call("delete a checkpoint of", move |d| delete(d, &name))?;
        }
        Ok(Checkpoints(left))
    }

    /// Has libvirt forget those that are to go; their bitmaps stay in the disks, where nobody asks for them any more.
    pub fn forget(self, domain: &Domain, goes: impl Fn(&str) -> bool) -> Result<()> {
        for name in self.0.into_iter().rev().filter(|name| goes(name)) {
            domain.call("forget a checkpoint of", move |d| {
                ffi::checkpoint_delete(d, &name, CheckpointDelete::Metadata)
            })?;
        }
        Ok(())
    }
}

fn delete(domain: &virt::domain::Domain, name: &str) -> crate::connect::VirResult<()> {
    match ffi::checkpoint_delete(domain, name, CheckpointDelete::Bitmaps) {
        Err(e) if code_of(&e) == ErrorNumber::NoDomainCheckpoint => Ok(()),
        // Its bitmap is gone: the disk was replaced, or somebody has removed it.
        Err(_) => ffi::checkpoint_delete(domain, name, CheckpointDelete::Metadata),
        done => done,
    }
}

pub(super) fn not_of_it(name: &str) -> String {
    format!(
        "its bitmap for the checkpoint {name} is missing or inconsistent: QEMU did not end cleanly, or the disk was replaced"
    )
}
