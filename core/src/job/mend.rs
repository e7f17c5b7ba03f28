//! Putting a damaged replica right from what its VM still has on this host.

use super::messages::HostRequest;
use super::vm::SourceDisk;
use crate::agent::{path_bytes, BlockEnd, BlockRequest, Mend, OpenTarget, Opened};
use crate::digest::Digest;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::lvm;
use crate::remote::Remote;
use crate::replica::{Unsealed, Verified, VerifiedDisk};
use crate::snapshot::DiskSource;
use crate::stop::Stop;
use serde::Serialize;
use std::path::PathBuf;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Mended {
    /// Bytes that are right again.
    pub bytes: u64,
    /// Bytes of which this host has nothing better: the guest has written there since.
    pub left: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Sends the damaged segments of a generation on the host of `session` as far as the VM's `disks` still have just what
/// was sealed. All else stays as it is.
pub fn mend(
    session: &Remote,
    program: &'static str,
    verified: &Verified,
    disks: &[SourceDisk],
    stop: &Stop,
) -> Result<Mended> {
    let damaged: Vec<&VerifiedDisk> = verified
        .disks
        .iter()
        .filter(|disk| !disk.damaged.is_empty())
        .collect();
    let mut mended = Mended {
        bytes: 0,
        left: damaged.iter().map(|disk| disk.damaged_bytes).sum(),
        notes: Vec::new(),
    };
    let control = RemoteAgent::start(session, program, Streams::Fixed(1), stop)?;
    control.during(|agent| {
        let client = agent.client();
        let unsealed: Vec<Unsealed> = client.host(&HostRequest::Unseal {
            vm: verified.vm.clone(),
            generation: verified.number,
            disks: damaged.iter().map(|disk| disk.key.clone()).collect(),
        })?;
        let mut send_all = || -> Result<()> {
            for disk in &damaged {
                let to = unsealed.iter().find(|u| u.key == disk.key);
                let from = disks.iter().find(|d| d.spec.key == disk.key);
                let (Some(to), Some(from)) = (to, from) else {
                    continue;
                };
                let sent = one(session, program, disk, to, from, stop)
                    .map_err(|e| e.context(format!("disk {}", disk.key)))?;
                let is_sent = |segment: &u64| sent.contains(segment);
                let right = disk.damaged.iter().filter(|d| is_sent(&d.segment));
                mended.bytes += right.map(|d| d.bytes.len()).sum::<u64>();
            }
            Ok(())
        };
        let sent = send_all();
        let notes: Result<Vec<String>> = client.host(&HostRequest::Reseal);
        sent?;
        mended.notes.extend(notes?);
        Ok(())
    })?;
    mended.left -= mended.bytes.min(mended.left);
    Ok(mended)
}

/// Sends one disk's segments; tells which.
fn one(
    session: &Remote,
    program: &'static str,
    disk: &VerifiedDisk,
    to: &Unsealed,
    from: &SourceDisk,
    stop: &Stop,
) -> Result<Vec<u64>> {
    let (source, _active) = present(&from.source)?;
    let (mut image, opened) = BlockEnd::from_medium(&source, from.spec.format)?;
    if opened.size < disk.size {
        return Ok(Vec::new());
    }
    let wanted: Vec<(u64, Option<Digest>)> = disk
        .damaged
        .iter()
        .map(|damaged| (damaged.segment, damaged.digest))
        .collect();
    RemoteAgent::start(session, program, Streams::Fixed(1), stop)?.during(|agent| {
        let client = agent.client();
        let open = OpenTarget {
            path: path_bytes(&to.path),
            create: false,
            dry_run: false,
            // Past the cache in any case where it is a container.
            direct: to.format.is_raw(),
            format: to.format,
        };
        let there: Opened = client.block(BlockRequest::OpenTarget(open))?;
        if there.size < disk.size {
            return Err(Error::new(
                Kind::Remote,
                format!("{} is too small", to.path.display()),
            ));
        }
        client.block::<()>(BlockRequest::Mend(Mend {
            params: to.params,
            table: path_bytes(&to.table),
            digest: to.digest,
        }))?;
        let sent = image.send_segments(&to.params, client.link(), &wanted)?;
        client.block::<()>(BlockRequest::Commit)?;
        Ok(sent)
    })
}

/// Deactivates a volume that was activated to be read.
struct Activated(lvm::LvId);

impl Drop for Activated {
    fn drop(&mut self) {
        // An active volume does no harm.
        let _ = lvm::deactivate(&self.0);
    }
}

/// The disk as it is now. It may be written meanwhile: each segment that is sent is proved by its digest.
fn present(source: &DiskSource) -> Result<(PathBuf, Option<Activated>)> {
    match source {
        DiskSource::Path(path) => Ok((path.clone(), None)),
        DiskSource::Lv(id) => {
            let active = lvm::get(id)?.active;
            if !active {
                lvm::activate(id)?;
            }
            Ok((id.path(), (!active).then(|| Activated(id.clone()))))
        }
    }
}
