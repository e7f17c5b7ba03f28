//! `doctor`: what is unfinished, broken or missing on this host.

use crate::cli::units::printable;
use crate::cli::Reporter;
use crate::error::{Error, Kind, Result};
use crate::job::{examine, Patient};
use serde_json::json;

/// Whether to look only.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Finish what was cut off, and remove what such runs have left
    #[arg(long)]
    repair: bool,
}

/// Says what was found. An error if something is left that is not as it should be.
pub fn doctor(args: &DoctorArgs, patient: &Patient, reporter: &Reporter) -> Result<()> {
    let findings = examine(patient, args.repair)?;
    for finding in &findings {
        let end = match finding.repaired {
            true => "put right".to_owned(),
            false => finding.advice.clone(),
        };
        reporter.say(
            format!("{} ({})", printable(&finding.what), printable(&end)),
            json!({"event": "finding", "finding": finding}),
        );
    }
    match findings.iter().filter(|f| !f.repaired).count() {
        0 => {
            let text = match findings.is_empty() {
                true => "all is well",
                false => "all is well now",
            };
            reporter.say(text, json!({"event": "healthy"}));
            Ok(())
        }
        1 => Err(Error::new(Kind::Io, "one thing is not as it should be")),
        n => Err(Error::new(
            Kind::Io,
            format!("{n} things are not as they should be"),
        )),
    }
}
