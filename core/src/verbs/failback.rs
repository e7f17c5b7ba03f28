//! `failback`: brings a VM back to a host that it was taken over from.

use super::migrate::{refuse_dry_run, MigrateArgs};
use crate::error::Result;
use crate::job::{self, Migration};

/// How to bring it back, besides how to sync.
#[derive(Debug, Clone, clap::Args)]
pub struct FailbackArgs {
    /// Only make the other host a replica host again and sync to it; the VM stays here
    #[arg(long)]
    no_migrate: bool,
    #[command(flatten)]
    migrate: MigrateArgs,
}

impl FailbackArgs {
    /// How the migration is to be done.
    pub fn migrate(&self) -> &MigrateArgs {
        &self.migrate
    }
}

/// Brings the VM back.
pub fn failback(args: &FailbackArgs, migration: &Migration) -> Result<()> {
    refuse_dry_run(migration, "failback")?;
    job::failback(migration, !args.no_migrate)
}
