//! `test-failover`: does a generation boot?

use super::failover::{parse_command, Words};
use super::Place;
use crate::cli::units::parse_time;
use crate::error::Result;
use crate::hypervisor::TrialHypervisor;
use crate::job::{TrialOptions, TrialRun};
use std::time::Duration;

/// What to test, and how.
#[derive(Debug, clap::Args)]
pub struct TestFailoverArgs {
    /// The VM's id, here or at its source
    vm: String,
    /// Number of the generation; the newest if none is given
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Program, by its absolute path, with arguments, whose exit code 0 says that the clone is fine. It finds the clone's
    /// id in RBLOCKSYNC_VM, the sockets of its monitor and agent in RBLOCKSYNC_QMP and RBLOCKSYNC_QGA. Without it the
    /// guest's agent must answer; if the VM has none, its QEMU must keep running for a minute
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    script: Option<Words>,
    /// Longest time until the verdict
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    timeout: Duration,
    /// Let the clone go on for so long afterwards, to be looked at
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    keep_for: Duration,
    /// Id of the clone [default: a free one from 90000 on]
    #[arg(long, value_name = "VM", visible_alias = "test-name")]
    test_vmid: Option<String>,
}

/// Boots a clone of a generation, and removes it.
pub fn test_failover(
    args: &TestFailoverArgs,
    place: &Place,
    hypervisor: &dyn TrialHypervisor,
) -> Result<()> {
    let run = TrialRun {
        layout: place.layout,
        hypervisor,
        reporter: place.reporter,
        stop: place.stop,
    };
    let script = args.script.clone();
    run.run(&TrialOptions {
        vm: args.vm.clone(),
        generation: args.generation,
        test_vm: args.test_vmid.clone(),
        script: script.map(|Words(program, arguments)| (program, arguments)),
        limit: args.timeout,
        keep_for: args.keep_for,
    })
    .map(drop)
}
