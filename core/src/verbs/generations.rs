//! `generations`: what there is, here or on another host.

use super::Place;
use crate::cli::units::{human, printable};
use crate::cli::Reporter;
use crate::error::{Error, Kind, Result};
use crate::job::HostRequest;
use crate::replica::{
    self, list_generations, source_pairs_to, told_by, Boot, Checked, Generation, TargetPair, Told,
};
use serde_json::{json, Value};

/// Whose generations to list.
#[derive(Debug, clap::Args)]
pub struct GenerationsArgs {
    /// Only of this VM
    vm: Option<String>,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
}

/// Lists the generations that a host keeps, or what this host has sent.
pub fn generations(args: &GenerationsArgs, place: &Place) -> Result<()> {
    let vm = args.vm.clone();
    let found: Vec<(TargetPair, Vec<Generation>)> = match &args.to {
        None => list_generations(place.layout, vm.as_deref())?,
        Some(host) => place.ask(host, &HostRequest::Generations(vm.clone()))?,
    };
    if found.is_empty() && args.to.is_none() {
        if let Some(vm) = &vm {
            if tell_sent(place, vm)? {
                return Ok(());
            }
        }
    }
    if found.is_empty() {
        return Err(match vm {
            Some(vm) => Error::new(Kind::NotFound, format!("there is no replica of VM {vm}")),
            None => Error::new(Kind::NotFound, "there are no replicas"),
        });
    }
    for (pair, generations) in &found {
        tell(place, pair, generations, args.to.is_none());
    }
    Ok(())
}

/// What this host knows of the generations that it has sent. False if there are none.
fn tell_sent(place: &Place, vm: &str) -> Result<bool> {
    let sent = replica::sent(place.layout, vm)?;
    for (pair, generations) in &sent {
        place.reporter.say(
            format!("VM {vm}, as it was last sent to {}:", pair.target_name),
            json!({"event": "sent", "pair": pair}),
        );
        let newest = generations.last().map(|g| g.number);
        let told = match source_pairs_to(place.layout, vm)?
            .into_iter()
            .find(|(_, known)| known.pair == pair.pair)
        {
            Some((target, _)) => told_by(place.layout, vm, target, pair.pair),
            None => Told::default(),
        };
        tell_generations(place.reporter, generations, newest, &told);
    }
    Ok(!sent.is_empty())
}

/// Only of a replica `here` it is known what was done with its generations since.
fn tell(place: &Place, pair: &TargetPair, generations: &[Generation], here: bool) {
    let reporter = place.reporter;
    reporter.say(
        format!(
            "VM {} of {}, here {}:",
            pair.vm, pair.source_name, pair.target_vm
        ),
        json!({"event": "replica", "pair": pair}),
    );
    let told = here.then(|| replica::told(place.layout, generations));
    let told = told.and_then(Result::ok).unwrap_or_default();
    tell_generations(reporter, generations, pair.head, &told);
}

/// What the last verification of a generation found: ", verified 2026-03-01T04:05:06Z".
fn verified(checked: &Checked) -> String {
    match (checked.damaged.is_empty(), checked.whole) {
        (false, _) => format!(
            ", found damaged {:.0} ({})",
            checked.at,
            printable(&checked.damaged.join(", "))
        ),
        (true, Some(whole)) => format!(", verified {whole:.0}"),
        (true, None) => format!(", verified in part {:.0}", checked.at),
    }
}

fn tell_generations(
    reporter: &Reporter,
    generations: &[Generation],
    head: Option<u64>,
    told: &Told,
) {
    for generation in generations {
        let changed: u64 = generation.disks.iter().map(|d| d.changed).sum();
        let head = match head == Some(generation.number) {
            true => ", head",
            false => "",
        };
        let mut text = format!(
            "  {}  {:.0}  {}  {} sent{head}",
            generation.name(),
            generation.taken_at,
            generation.consistency,
            human(changed)
        );
        let boot = told.booted.get(&generation.number);
        if let Some(boot) = boot {
            text.push_str(&format!(", booted {:.0} ({})", boot.at, boot.sign));
        }
        let checked = told.checked.get(&generation.number);
        if let Some(checked) = checked {
            text.push_str(&verified(checked));
        }
        for disk in &generation.disks {
            text.push_str(&format!(
                "\n    {}: {} {} {}",
                disk.key,
                disk.target,
                human(disk.size),
                disk.digest
            ));
        }
        reporter.say(text, event(generation, boot, checked));
    }
}

fn event(generation: &Generation, boot: Option<&Boot>, checked: Option<&Checked>) -> Value {
    json!({"event": "generation", "generation": generation.clone().shown(), "boot": boot, "checked": checked})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_tpm_is_not_shown() {
        let kept = json!({
            "version": 1, "pair": uuid::Uuid::nil(), "epoch": 1, "number": 3, "parent": null,
            "taken_at": "2024-05-01T10:00:00Z", "consistency": "offline", "notes": [], "disks": [],
            "excluded": [], "config": "<domain/>", "state": "keys",
        });
        let generation: Generation = serde_json::from_value(kept).unwrap();
        let shown = event(&generation, None, None);
        assert_eq!(shown["generation"]["config"], "<domain/>");
        assert!(!shown.to_string().contains("keys"), "{shown}");
    }
}
