//! `prune`, `pin` and `unpin`: which generations stay.

use super::Place;
use crate::cli::units::parse_time;
use crate::error::Result;
use crate::job::HostRequest;
use crate::replica::{self, Pruned, Retention};
use serde_json::json;
use std::time::Duration;

/// What stays.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct RetentionArgs {
    /// Generations to keep there; pinned ones stay besides
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    keep: u32,
    /// Keep also all taken within this time before the newest: 36h, 7d, 4w
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    keep_within: Option<Duration>,
}

impl RetentionArgs {
    /// What was asked for.
    pub fn get(&self) -> Retention {
        Retention {
            keep: self.keep,
            within_s: self.keep_within.map(|time| time.as_secs()),
        }
    }
}

/// What to prune.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// The VM's id, there or at its source
    vm: String,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    #[command(flatten)]
    retention: RetentionArgs,
    /// Tell which generations would go; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Which generation to pin.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// The VM's id, there or at its source
    vm: String,
    /// Number of the generation
    generation: u64,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
}

/// Drops the generations that are not to be kept.
pub fn prune(args: &PruneArgs, place: &Place) -> Result<()> {
    let retention = args.retention.get();
    let pruned: Pruned = match &args.to {
        None => replica::prune(
            place.layout,
            place.hypervisor,
            &args.vm,
            retention,
            args.dry_run,
        )?,
        Some(host) => {
            let request = HostRequest::Prune {
                vm: args.vm.clone(),
                retention,
                dry_run: args.dry_run,
            };
            place.ask(host, &request)?
        }
    };
    let list = |numbers: &[u64]| match numbers {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let went = match args.dry_run {
        true => "would go",
        false => "gone",
    };
    place.reporter.say(
        format!(
            "VM {}: {went}: {}; kept: {}",
            pruned.vm,
            list(&pruned.gone),
            list(&pruned.kept)
        ),
        json!({"event": "pruned", "dry_run": args.dry_run, "pruned": pruned}),
    );
    place.reporter.notes(&pruned.notes);
    Ok(())
}

/// Keeps a generation from being pruned, or no longer does.
pub fn pin(args: &PinArgs, pinned: bool, place: &Place) -> Result<()> {
    match &args.to {
        None => replica::pin(place.layout, &args.vm, args.generation, pinned)?,
        Some(host) => {
            let request = HostRequest::Pin {
                vm: args.vm.clone(),
                generation: args.generation,
                pinned,
            };
            place.ask::<()>(host, &request)?;
        }
    }
    let text = match pinned {
        true => "is pinned: it stays until it is unpinned",
        false => "is not pinned any more",
    };
    place.reporter.say(
        format!("generation {} of VM {} {text}", args.generation, args.vm),
        json!({"event": "pin", "vm": args.vm, "generation": args.generation, "pinned": pinned}),
    );
    Ok(())
}
