//! How a VM is synced: the options that all front ends share.

use super::RetentionArgs;
use crate::cli::units::{parse_bytes, parse_time};
use crate::cli::EngineArgs;
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use crate::job::{SourceVm, SyncOptions};
use crate::replica::Maps;
use std::path::PathBuf;
use std::time::Duration;

/// How a VM is synced, whatever for.
#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    // Its brackets are for people, and no links.
    #[allow(rustdoc::broken_intra_doc_links)]
    /// Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, where disks are files; by default what it is
    /// here. May be given more than once; counts when the disk is sent for the first time
    #[arg(long, value_name = "DISK=FORMAT", value_parser = parse_format)]
    pub format: Vec<(String, ImageFormat)>,
    /// Leave this disk out, by its key (scsi1, vdb); may be given more than once
    #[arg(long, value_name = "DISK")]
    pub exclude: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retention: RetentionArgs,
    /// Disks to sync at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub jobs: u32,
    /// Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until
    /// the sync is done there is then no replica that boots
    #[arg(long)]
    pub in_place: bool,
    /// Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it
    /// has to compare everything
    #[arg(long)]
    pub no_base: bool,
    /// Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot:
    /// a running VM's qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub scratch_max: Option<u64>,
    /// Tell what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
    /// Longest time the guest may be held still for a snapshot, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub hold_max: u64,
    /// How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    pub retry_for: Duration,
}

impl SyncArgs {
    /// The same for the workflows: under which id on the target, and on what there. Other names of what it asks of its
    /// host are the front end's to add.
    pub fn options(
        &self,
        target_vm: Option<String>,
        storage_map: Vec<(String, String)>,
    ) -> SyncOptions {
        SyncOptions {
            target_vm,
            storage_map,
            maps: Maps::default(),
            formats: self.format.clone(),
            retention: self.retention.get(),
            jobs: self.jobs as usize,
            in_place: self.in_place,
            keep_base: !self.no_base,
            moves: false,
            scratch: self.scratch.clone(),
            scratch_bytes_max: self.scratch_max,
            dry_run: self.dry_run,
            tuning: self.engine.tuning(),
            streams: self.engine.streams,
            direct: self.engine.direct,
            hold_max: Duration::from_secs(self.hold_max),
            retry_for: self.retry_for,
        }
    }

    /// Refuses formats for disks that are not synced.
    pub fn check_formats(&self, vm: &SourceVm) -> Result<()> {
        let is_disk = |key: &String| vm.disks.iter().any(|d| d.spec.key == *key);
        match self.format.iter().find(|(key, _)| !is_disk(key)) {
            None => Ok(()),
            Some((key, _)) => {
                let what = format!("--format {key}: no such disk is replicated");
                Err(Error::new(Kind::Usage, what))
            }
        }
    }
}

/// Reads `SRC=DST`.
pub fn parse_map(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("write SRC=DST".into()),
    }
}

fn parse_format(text: &str) -> std::result::Result<(String, ImageFormat), String> {
    match text
        .split_once('=')
        .map(|(key, format)| (key, format.parse()))
    {
        Some((key, Ok(format))) if !key.is_empty() => Ok((key.into(), format)),
        _ => Err("write DISK=raw or DISK=qcow2".into()),
    }
}
