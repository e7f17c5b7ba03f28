//! What would be defined on the other side, shown before anything is changed.

use crate::cli::Reporter;
use crate::driver::{RemoteAgent, Streams};
use crate::error::Result;
use crate::guest::Left;
use crate::hypervisor::HostDescription;
use crate::job::{Context, HostRequest};
use crate::remote::Remote;
use serde_json::json;

/// Showing a configuration.
#[derive(Debug, clap::Args)]
pub struct PrintArgs {
    /// Show the configuration that the VM would get on the other host, and what of it would be lost; change nothing
    #[arg(long)]
    pub print_config: bool,
    /// What the other host is: auto asks it
    #[arg(
        long,
        value_name = "KIND",
        default_value = "auto",
        requires = "print_config"
    )]
    pub target_kind: TargetKind,
}

/// Kinds of hypervisors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetKind {
    /// To be asked for.
    Auto,
    /// Proxmox VE.
    Pve,
    /// libvirt.
    Libvirt,
}

impl PrintArgs {
    /// The form of configurations on the other host: as it was said, or as the host says.
    pub fn form(&self, context: &Context, program: &str) -> Result<String> {
        let said = match self.target_kind {
            TargetKind::Pve => "pve",
            TargetKind::Libvirt => "libvirt",
            TargetKind::Auto => {
                let asked: HostDescription =
                    Remote::during(context.host, context.ssh, |session| {
                        RemoteAgent::start(session, program, Streams::Fixed(1), context.stop)?
                            .during(|agent| {
                                let request = HostRequest::Describe { keep: false };
                                agent.client().host(&request)
                            })
                    })?;
                return Ok(asked.form);
            }
        };
        Ok(said.to_owned())
    }
}

/// Shows a configuration, and behind it what got lost.
pub fn print_config(reporter: &Reporter, form: &str, text: &str, left: &[Left]) {
    reporter.say(
        text.trim_end(),
        json!({"event": "config", "form": form, "text": text, "left": left}),
    );
    if !reporter.is_json() {
        for left in left {
            reporter.note(&format!("not the same there, or left out: {left}"));
        }
    }
}
