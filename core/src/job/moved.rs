//! What a migration that is done says: where the VM is, how long it stood still, and what that time went into.

use super::handover::{HandedOver, Handover};
use super::migrate::{Figures, Migration};
use crate::cli::units::{human, human_time};
use crate::error::Result;
use crate::journal::State;
use serde_json::json;
use std::time::Duration;

impl Migration<'_> {
    pub(super) fn tell(
        &self,
        handover: &Handover,
        figures: &Figures,
        done: HandedOver,
    ) -> Result<()> {
        let times = &figures.times;
        let HandedOver {
            adopted,
            compared,
            ill,
        } = done;
        for note in &adopted.notes {
            self.context.reporter.note(note);
        }
        for key in &compared {
            self.context.reporter.note(&format!(
                "{key}: the first sync back has to compare all of it"
            ));
        }
        let downtime = match (figures.asked_at.or(times.still_since), times.running_at) {
            (Some(from), Some(to)) => Some(to.duration_since(from)),
            _ => None,
        };
        let steps = match handover.seeded {
            // It ran meanwhile.
            true => Vec::new(),
            false => figures.standing_still(),
        };
        let sync: Duration = steps.iter().map(|(_, took)| *took).sum();
        let sync_parts: Vec<String> = steps
            .iter()
            .map(|(state, took)| format!("{} {}", state.name(), human_time(*took)))
            .collect();
        let what = match downtime {
            Some(downtime) => format!(", {} of downtime", human_time(downtime)),
            None if handover.started && handover.live => ", and has gone on there".to_owned(),
            None if handover.started => ", started".to_owned(),
            None => ", not started".to_owned(),
        };
        let wait = match times.receive_early {
            Some(before) => format!("waited for {} before", human_time(before)),
            None => format!("wait {}", human_time(times.receive)),
        };
        let memory = match handover.live {
            true => format!("{wait}, memory {}, ", human_time(times.memory)),
            false => String::new(),
        };
        self.say(
            format!(
                "VM {} is on {} now as VM {}{what}\n  stop {}, sync {} ({}), {memory}retire {}, flip {}, start {}, health {}; {} changed in all, {} on the wire",
                self.vm,
                handover.target_name,
                handover.target_vm,
                human_time(figures.stop),
                human_time(sync),
                sync_parts.join(", "),
                human_time(times.retire.unwrap_or_default()),
                human_time(times.flip),
                human_time(times.start),
                human_time(times.health),
                human(figures.moved.changed),
                human(figures.moved.wire),
            ),
            json!({
                "event": "migrated",
                "vm": self.vm,
                "target": handover.target_name,
                "target_vm": handover.target_vm,
                "epoch": handover.epoch,
                "rounds": figures.rounds,
                "started": handover.started,
                "downtime_s": downtime.map(|d| d.as_secs_f64()),
                "stop_s": figures.stop.as_secs_f64(),
                "sync_s": sync.as_secs_f64(),
                "sync_steps": steps.iter().map(|(state, took)| json!({"step": state.name(), "seconds": took.as_secs_f64()})).collect::<Vec<_>>(),
                "live": handover.live,
                "seeded": handover.seeded,
                "receive_early_s": times.receive_early.map(|d| d.as_secs_f64()),
                "receive_s": times.receive.as_secs_f64(),
                "memory_s": times.memory.as_secs_f64(),
                "retire_s": times.retire.unwrap_or_default().as_secs_f64(),
                "flip_s": times.flip.as_secs_f64(),
                "start_s": times.start.as_secs_f64(),
                "health_s": times.health.as_secs_f64(),
                "sent": figures.moved,
                "way_back": adopted.generation.name(),
                "read_again": adopted.read,
                "healthy": ill.is_none(),
            }),
        );
        match ill {
            None => Ok(()),
            Some(e) => Err(e
                .context(format!(
                    "VM {} was moved to {}, but does not do well there",
                    self.vm, handover.target_name
                ))
                .advise(format!(
                    "it stays there, as its guest may have written. To bring it back, run there: {} failback {} --to {}",
                    self.program,
                    handover.target_vm,
                    self.roles.describe().map_or_else(|_| "HOST".into(), |(_, here)| here)
                ))),
        }
    }
}

impl Figures {
    /// The steps of the last sync while the VM stood still, and how long they took: ending it comes in the middle of one.
    fn standing_still(&self) -> Vec<(State, Duration)> {
        let steps = self.last.iter().flat_map(|last| &last.steps);
        let steps =
            steps.filter(|(state, _)| matches!(state, State::Snap | State::Transfer | State::Seal));
        steps
            .map(|(state, took)| match state {
                State::Snap => (*state, took.saturating_sub(self.stop)),
                _ => (*state, *took),
            })
            .collect()
    }
}
