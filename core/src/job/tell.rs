//! What a run says of itself.

use super::sync::Job;
use crate::cli::units::{human, human_time};
use crate::hypervisor::HostDescription;
use crate::replica::{Generation, SealReport, TargetPlan};
use crate::snapshot::PointInTime;
use crate::sync::Summary;
use serde_json::json;

impl Job<'_> {
    pub(super) fn tell_plan(&self, target: &HostDescription, plan: &TargetPlan) {
        let say = |text: String| {
            self.context
                .reporter
                .say(text, json!({"event": "plan-line"}))
        };
        let what = match plan.head {
            Some(n) => format!("generation {} onto {n}", plan.number),
            None => "first generation".to_owned(),
        };
        let disks: Vec<_> = self.vm.disks.iter().zip(&plan.placements).collect();
        self.context.reporter.say(
            format!("VM {} ({}) to {} ({}): {what}", self.vm.id, self.vm.name, target.name, target.hypervisor),
            json!({
                "event": "plan",
                "vm": self.vm.id,
                "target": target,
                "target_vm": plan.vm,
                "parent": plan.head,
                "number": plan.number,
                "disks": disks.iter().map(|(d, p)| json!({"spec": d.spec, "placement": p})).collect::<Vec<_>>(),
                "excluded": self.vm.excluded,
                "notes": self.vm.notes.iter().chain(&plan.notes).collect::<Vec<_>>(),
            }),
        );
        if self.context.reporter.is_json() {
            return;
        }
        for (disk, placement) in disks {
            say(format!(
                "  {}: {} -> {} ({}, {} used)",
                disk.spec.key,
                disk.spec.volume,
                placement.volume,
                human(disk.spec.size),
                human(disk.spec.used)
            ));
        }
        for (key, why) in &self.vm.excluded {
            say(format!("  {key}: not replicated: {why}"));
        }
        for note in self.vm.notes.iter().chain(&plan.notes) {
            say(format!("  note: {note}"));
        }
    }

    pub(super) fn note(&self, note: &str) {
        self.context.reporter.note(note);
    }

    pub(super) fn tell_point(&self, point: &PointInTime) {
        self.context.reporter.say(
            format!(
                "  point in time: {} consistent{}",
                point.consistency,
                match point.held_ms {
                    0 => String::new(),
                    ms => format!(", guest held for {ms} ms"),
                }
            ),
            json!({"event": "point-in-time", "consistency": point.consistency, "held_ms": point.held_ms, "notes": point.notes}),
        );
        point.notes.iter().for_each(|note| self.note(note));
    }

    pub(super) fn tell_sealed(
        &self,
        generation: &Generation,
        summaries: &[Summary],
        report: &SealReport,
    ) {
        let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        self.context.reporter.say(
            format!(
                "generation {} sealed: {} sent, {} compared, {} on the wire, {}; kept: {}",
                generation.name(),
                human(sum(|s| s.changed)),
                human(sum(|s| s.compared)),
                human(sum(|s| s.wire_out + s.wire_in)),
                human_time(self.began.elapsed()),
                report.kept.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
            ),
            json!({
                "event": "sealed",
                "generation": generation.name(),
                "consistency": generation.consistency,
                "seconds": self.began.elapsed().as_secs_f64(),
                "disks": generation.disks.iter().zip(summaries)
                    .map(|(d, s)| json!({"key": d.key, "volume": d.target, "summary": s})).collect::<Vec<_>>(),
                "kept": report.kept,
                "notes": report.notes,
            }),
        );
        report.notes.iter().for_each(|note| self.note(note));
    }
}
