//! `report`: one HTML file that tells how all replications stand that this host has a part in. It needs nothing else: no
//! script to be read, no style sheet, no picture, no font.
//!
//! What it shows is read in [`facts`], judged in [`health`] and [`advice`], and written in [`page`]. Names, errors and
//! notes come from guests and users: the templates escape whatever they are given.

mod advice;
mod card;
mod facts;
mod file;
mod health;
mod map;
mod page;
mod stores;
mod timeline;
mod words;

#[cfg(test)]
mod tests;

use super::Promised;
use crate::cli::units::{human, parse_time};
use crate::cli::Reporter;
use crate::clock;
use crate::error::Result;
use crate::hypervisor::TargetHypervisor;
use crate::replica::{Generation, Layout};
use facts::{Facts, Limit};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Where to write it.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// The file; it is replaced as a whole
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
    /// The oldest that a newest generation may be, for all of them: 15m. By default each with the RPO of its job; where
    /// there is none, none is called late
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    rpo: Option<Duration>,
    /// Who may read the file: 600 for its owner only, 644 for everybody, such as a web server
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = file::parse_mode)]
    mode: u32,
}

/// Who writes it.
pub struct Writer<'a> {
    /// The front end's program, as it is called in commands.
    pub program: &'static str,
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn TargetHypervisor,
    /// Finds the VM's name in the configuration of a generation.
    pub name_of: &'a dyn Fn(&Generation) -> Option<String>,
    /// What the jobs of this host promise.
    pub promised: Promised<'a>,
    /// Who is told.
    pub reporter: &'a Reporter,
}

/// Writes the page. If the state cannot be read, the page says so instead of showing what was true some time ago, and
/// the error is returned as well.
pub fn report(args: &ReportArgs, writer: &Writer) -> Result<()> {
    let place = file::PageFile::create(&args.html, args.mode)?;
    let now = clock::now();
    let host = writer.hypervisor.describe().map(|(_, name)| name);
    let host = host.unwrap_or_else(|_| "this host".to_owned());
    let rpo_s = args.rpo.map(|time| time.as_secs());
    let mut notes = Vec::new();
    let promised = match rpo_s {
        Some(_) => Vec::new(),
        // A job that cannot be read is no reason to show nothing of what is.
        None => (writer.promised)().unwrap_or_else(|e| {
            notes.push(format!("how old generations may be: {}", e.message()));
            Vec::new()
        }),
    };
    let limit = match rpo_s {
        Some(rpo_s) => Limit::All(rpo_s),
        None if promised.is_empty() => Limit::None,
        None => Limit::Jobs,
    };
    let facts = match facts::collect(writer.layout, writer.name_of, &promised, rpo_s) {
        Ok(mut found) => Facts {
            program: writer.program,
            host,
            now,
            limit,
            found: {
                found.notes.extend(notes);
                found
            },
        },
        Err(e) => {
            place.write(&page::failure(&host, now, &e))?;
            return Err(e.context("the page says that the state cannot be read"));
        }
    };
    let problems = advice::problems(&facts);
    let html = page::render(&facts, &problems);
    place.write(&html)?;
    let count = facts.found.replications.len();
    writer.reporter.say(
        format!(
            "{}: {count} replications, {} with something to do, {}",
            args.html.display(),
            problems.len(),
            human(html.len() as u64)
        ),
        json!({
            "event": "report",
            "html": args.html,
            "replications": count,
            "problems": problems.len(),
            "bytes": html.len(),
        }),
    );
    Ok(())
}
