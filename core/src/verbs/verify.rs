//! `verify`: is a generation still what it was when it was sealed? And if not, can it be made so again?

use super::Place;
use crate::cli::units::human;
use crate::cli::Reporter;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::job::{ask, mend, HostRequest, Mended, SourceDisk};
use crate::range::{ByteRange, RangeSet};
use crate::remote::{HostSpec, Remote};
use crate::replica::{self, Verified, VerifiedDisk, VerifyRequest};
use crate::runbook::Runbook;
use serde_json::json;

/// Damaged ranges of a disk that are printed.
const RANGES_TOLD: usize = 20;

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The VM's id, there or at its source
    vm: String,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// Number of the generation; the newest if none is given
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Only so much of it, in percent, and the next time what comes behind: for a timer
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    slice: Option<u8>,
    /// Put damage right from the VM's disks on this host, as far as the guest has not written there since
    #[arg(long, requires = "to")]
    repair: bool,
}

/// Finds the disks of a VM on this host.
pub type DisksOf<'a> = &'a dyn Fn(&str) -> Result<Vec<SourceDisk>>;

/// Reads a generation again, from the medium, and compares it with what was sealed.
pub fn verify(args: &VerifyArgs, place: &Place, disks_of: DisksOf) -> Result<()> {
    let request = VerifyRequest {
        vm: args.vm.clone(),
        generation: args.generation,
        slice: args.slice,
    };
    let Some(host) = &args.to else {
        let verified = replica::verify(place.layout, &request, place.stop)?;
        return judge(place.reporter, &verified);
    };
    let host = HostSpec::parse(host)?;
    Remote::during(&host, &place.ssh.options(place.stop), |session| {
        let look = |request: VerifyRequest| -> Result<Verified> {
            let is_slice = request.slice.is_some();
            let request = HostRequest::Verify(request);
            let found = ask(session, place.program, &request, place.stop)?;
            // So that what is shown here tells it, too.
            if let Err(e) =
                replica::note_verified(place.layout, &args.vm, &found, is_slice, clock::now())
            {
                place.reporter.note(&e.message());
            }
            Ok(found)
        };
        let mut verified = look(request.clone())?;
        if args.repair && verified.disks.iter().any(|d| !d.damaged.is_empty()) {
            tell(place.reporter, &verified);
            let disks = disks_of(&args.vm)?;
            let mended = mend(session, place.program, &verified, &disks, place.stop)?;
            tell_mended(place.reporter, &mended);
            // All of it, as nothing is known of how far a slice would have come.
            verified = look(VerifyRequest {
                generation: Some(verified.number),
                slice: None,
                ..request.clone()
            })?;
        }
        judge(place.reporter, &verified)
    })
}

fn judge(reporter: &Reporter, verified: &Verified) -> Result<()> {
    tell(reporter, verified);
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
        .advise(
            "do not boot it; use another generation, try --repair from the source host, and look at the disk that it lies on",
        )
        .see(Runbook::ReplicaDamaged)),
    }
}

fn tell(reporter: &Reporter, verified: &Verified) {
    reporter.say(
        format!("VM {}, generation {}:", verified.vm, verified.generation),
        json!({"event": "verified", "generation": verified}),
    );
    if reporter.is_json() {
        return;
    }
    for disk in &verified.disks {
        let text = format!("  {}: {}", disk.key, judged(disk));
        reporter.say(text, json!(null));
    }
}

fn judged(disk: &VerifiedDisk) -> String {
    let volume = &disk.volume;
    if disk.damaged_bytes > 0 {
        return format!(
            "{volume} is damaged, {} of {}: bytes {}",
            human(disk.damaged_bytes),
            human(disk.checked),
            ranges(disk)
        );
    }
    match (disk.found, &disk.problem) {
        (Some(found), problem) if found != disk.expected => format!(
            "{volume} has digest {found}, but was sealed with {}{}",
            disk.expected,
            problem.as_ref().map_or(String::new(), |p| format!("; {p}"))
        ),
        (None, Some(problem)) => format!("{volume} cannot be read: {problem}"),
        (Some(_), _) => format!("{volume} is as it was sealed ({})", human(disk.size)),
        (None, None) => format!(
            "{volume} is as it was sealed, as far as it was read ({} of {})",
            human(disk.checked),
            human(disk.size)
        ),
    }
}

fn ranges(disk: &VerifiedDisk) -> String {
    let mut all = RangeSet::new();
    disk.damaged.iter().for_each(|d| all.insert(d.bytes));
    let told: Vec<String> = all
        .iter()
        .take(RANGES_TOLD)
        .map(ByteRange::to_string)
        .collect();
    match all.iter().count() > told.len() {
        true => told.join(", ") + " and more",
        false => told.join(", "),
    }
}

fn tell_mended(reporter: &Reporter, mended: &Mended) {
    let mut text = format!("put right: {}", human(mended.bytes));
    if mended.left > 0 {
        text.push_str(&format!(
            "; {} are not on the source any more as they were: the next sync makes a whole generation",
            human(mended.left)
        ));
    }
    reporter.say(text, json!({"event": "mended", "mended": mended}));
    reporter.notes(&mended.notes);
}
