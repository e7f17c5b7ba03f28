//! What a dry run says of bytes and time, found out before anything moves.

use super::base::Base;
use super::sync::Job;
use crate::cli::units::{human, human_time};
use crate::error::Result;
use crate::journal::{Journal, Side};
use crate::snapshot::VmRuntime;
use serde_json::json;
use std::time::Duration;

/// A run that moved less than this says nothing about how fast others are.
const PACE_BYTES_MIN: u64 = 16 << 20;

impl Job<'_> {
    /// Tells for each disk how much would be read and sent at the most.
    pub(super) fn predict(
        &self,
        bases: Vec<std::result::Result<Base, String>>,
        vm: &VmRuntime,
        is_first: bool,
    ) -> Result<()> {
        let (mut total, mut all_known) = (0, true);
        for (disk, base) in self.vm.disks.iter().zip(bases) {
            let (key, used) = (&disk.spec.key, disk.spec.used);
            let changed = base.and_then(|base| base.count(disk, vm, &self.listing));
            let (text, most, why) = match changed {
                Ok(bytes) => {
                    let text = format!("at most {} changed, which alone is read", human(bytes));
                    (text, bytes, None)
                }
                Err(_) if is_first => (
                    format!("{} to be sent at the most", human(used)),
                    used,
                    None,
                ),
                Err(why) => {
                    let text = format!("all {} are compared: {why}", human(used));
                    (text, used, Some(why))
                }
            };
            total += most;
            all_known &= why.is_none();
            self.context.reporter.say(
                format!("  {key}: {text}"),
                json!({
                    "event": "prediction",
                    "key": key,
                    "first": is_first,
                    "bytes_max": most,
                    "compared_because": why,
                }),
            );
        }
        if let (true, Some(time)) = (all_known, self.time_for(total)?) {
            let text = format!(
                "  to move that takes about {} at the pace of the last run",
                human_time(time)
            );
            let seconds = time.as_secs();
            self.context
                .reporter
                .say(text, json!({"event": "predicted-time", "seconds": seconds}));
        }
        Ok(())
    }

    /// Time to send so many bytes, if the last run tells how fast that is.
    fn time_for(&self, bytes: u64) -> Result<Option<Duration>> {
        let Some(journal) = Journal::look(&self.context.layout.journal())? else {
            return Ok(None);
        };
        let last = journal.newest(Side::Source, &self.vm.id)?;
        let pace = last.and_then(|run| {
            let took = run.ended_at?.duration_since(run.began_at).as_secs_f64();
            let changed = run.changed.filter(|changed| *changed >= PACE_BYTES_MIN)?;
            (took > 0.0).then_some(changed as f64 / took)
        });
        Ok(pace.map(|pace| Duration::from_secs_f64(bytes as f64 / pace)))
    }
}
