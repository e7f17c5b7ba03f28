//! `pvesync verify`: is a generation still what it was when it was sealed?

use crate::volid::Vmid;
use rblocksync::cli::units::human;
use rblocksync::cli::Reporter;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::HostRequest;
use rblocksync::replica::{self, Verified, VerifiedDisk};
use rblocksync::verbs::Place;
use serde_json::json;

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Id of the VM
    vmid: Vmid,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// Number of the generation; the newest if none is given
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

/// Reads all disks of a generation again, from the medium, and compares them with its manifest.
pub fn verify(args: &VerifyArgs, place: &Place) -> Result<()> {
    let (vm, generation) = (args.vmid.to_string(), args.generation);
    let verified = match &args.to {
        None => replica::verify(place.layout, &vm, generation, place.stop)?,
        Some(host) => place.ask(host, &HostRequest::Verify { vm, generation })?,
    };
    tell(place.reporter, &verified);
    let damaged: Vec<&str> = verified
        .disks
        .iter()
        .filter(|d| !d.is_right())
        .map(|d| d.key.as_str())
        .collect();
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Digest,
            format!(
                "generation {} of VM {} is damaged: {}",
                verified.generation,
                verified.vm,
                damaged.join(", ")
            ),
        )
        .advise("do not boot it; use another generation, and look at the disk that it lies on")),
    }
}

fn tell(reporter: &Reporter, verified: &Verified) {
    reporter.say(
        format!("VM {}, generation {}:", verified.vm, verified.generation),
        json!({"event": "verified", "generation": verified}),
    );
    for disk in &verified.disks {
        if !reporter.is_json() {
            let text = format!("  {}: {} ({})", disk.key, judged(disk), human(disk.size));
            reporter.say(text, json!(null));
        }
    }
}

fn judged(disk: &VerifiedDisk) -> String {
    match (&disk.problem, disk.found) {
        (Some(problem), _) => format!("{} cannot be read: {problem}", disk.volume),
        (None, Some(found)) if found != disk.expected => format!(
            "{} has digest {found}, but was sealed with {}",
            disk.volume, disk.expected
        ),
        _ => format!("{} is as it was sealed", disk.volume),
    }
}
