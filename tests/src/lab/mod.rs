//! The lab: two hypervisor guests, hva and hvb, with real LVM-thin, sshd, Proxmox's configuration tree and a real QEMU
//! to run VMs in. Linux on an emulated CPU, so it needs no KVM, no root rights over the host's disks and no network.
//!
//! ```no_run
//! # fn main() -> tests::lab::Result<()> {
//! let lab = tests::lab::Lab::up(tests::lab::Options::default())?;
//! lab.a().run_ok("lvs pve")?;
//! lab.b().power_cut();
//! lab.b().boot_again()?;
//! # Ok(())
//! # }
//! ```
//!
//! See tests/lab/README.md for what the guests hold.

mod artifacts;
mod background;
mod content;
mod error;
mod guest;
mod keeper;
mod kernel;
mod link;
mod machine;
mod paths;
pub mod pattern;
mod programs;
mod qmp;
mod rundir;
mod seed;
mod ssh;
pub mod suite;
mod tool;
mod userland;

pub use background::Background;
pub use content::mib;
pub use error::{Error, Result};
pub use guest::{Guest, Output, RUN_TIMEOUT};
pub use paths::cache;
pub use qmp::Qmp;
pub use rundir::reap;
pub use ssh::quote;

/// What the bed of two libvirtd (`crate::virt`) is made of too.
pub(crate) mod inner {
    pub(crate) use super::artifacts::assemble_writer;
    pub(crate) use super::background::Place;
    pub(crate) use super::error::Context;
    pub(crate) use super::keeper::Keeper;
    pub(crate) use super::paths::cache as cache_dir;
    pub(crate) use super::rundir::RunDir;
    pub(crate) use super::ssh::make_keys;
    pub(crate) use super::tool::{capture, run};
}

use artifacts::Artifacts;
use error::Context;
use guest::Shared;
use keeper::Keeper;
use machine::Spec;
use rundir::RunDir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// How a lab is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the product's programs are, or their Debian packages; `$LAB_DEBS` or else `$LAB_BINARIES` by default. None: the
    /// guests have none.
    pub binaries: Option<PathBuf>,
    /// Memory of each guest in MiB; it is touched only as used.
    pub memory_mib: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            binaries: programs::from_environment(),
            memory_mib: 768,
        }
    }
}

/// Two running guests. Dropped, both are gone without a trace, as they are when this process dies.
#[derive(Debug)]
pub struct Lab {
    a: Guest,
    b: Guest,
    run: RunDir,
}

impl Lab {
    /// Boots both guests on fresh disks and waits until they take commands. The first time on a machine it builds
    /// their image and seeds their disks, which takes longer.
    ///
    /// # Errors
    /// A tool is missing, the build fails, or a guest does not come up (the text has the end of its console).
    pub fn up(options: Options) -> Result<Lab> {
        let artifacts = build()?;
        let seeds = artifacts.seeds();
        Lab::boot(artifacts, &options, |file| seeds.join(file))
    }

    /// Boots both guests on copies of the disks `source` names: it is asked for "hva.vda" and so on.
    fn boot(
        artifacts: Arc<Artifacts>,
        options: &Options,
        source: impl Fn(&str) -> PathBuf,
    ) -> Result<Lab> {
        let run = RunDir::create()?;
        let dir = run.path().to_owned();
        let own = dir.join("own");
        ssh::make_keys(&dir, &own, &[("hva", 1), ("hvb", 2)])?;
        let id = own.join("etc/lab-id");
        fs::write(&id, dir.as_os_str().as_encoded_bytes())
            .context(|| format!("cannot write {}", id.display()))?;
        if let Some(binaries) = &options.binaries {
            programs::install(binaries, &own)?;
        }
        artifacts::make_ext4(&own, &dir.join("own.ext4"))?;
        let memory_mib = options.memory_mib;
        let specs = [("hva", "hvb", 1, "101,102"), ("hvb", "hva", 2, "")].map(
            |(name, peer, number, vms)| Spec {
                name,
                peer,
                number,
                vms,
                memory_mib,
                dir: dir.clone(),
            },
        );
        for disk in specs
            .iter()
            .flat_map(|spec| DISKS.map(|disk| format!("{}.{disk}", spec.name)))
        {
            copy_sparse(&source(&disk), &dir.join(&disk))?;
        }
        let shared = Arc::new(Shared {
            artifacts,
            keeper: Keeper::new()?,
            dir,
            ports: Mutex::new(specs.iter().map(|spec| (spec.name, 0)).collect()),
        });
        let [a, b] = specs.map(|spec| Guest::new(spec, Arc::clone(&shared)));
        let lab = Lab { a, b, run };
        lab.a.start()?;
        lab.b.start()?;
        std::thread::scope(|scope| {
            let a = scope.spawn(|| lab.a.wait_up());
            let b = lab.b.wait_up();
            a.join()
                .unwrap_or_else(|_| Err(Error::new("the wait for hva panicked")))
                .and(b)
        })?;
        Ok(lab)
    }

    /// The guest hva, which has the fixture VMs.
    pub fn a(&self) -> &Guest {
        &self.a
    }

    /// The guest hvb.
    pub fn b(&self) -> &Guest {
        &self.b
    }

    /// A configuration with which this host reaches the guests by name: `ssh -F FILE hva`.
    pub fn ssh_config(&self) -> PathBuf {
        self.run.path().join("ssh_config")
    }
}

/// A guest's writable disks: vda for LVM, vdb the storage "local", vdc the state.
const DISKS: [&str; 3] = ["vda", "vdb", "vdc"];

/// Makes what guests boot from, unless the cache has it: image and seeded disks.
///
/// # Errors
/// A tool is missing, the kernel cannot be downloaded, or a guest does not come up to be seeded.
fn build() -> Result<Arc<Artifacts>> {
    let artifacts = Arc::new(Artifacts::ensure(&say)?);
    seed::ensure(&artifacts)?;
    Ok(artifacts)
}

/// Builds the cache now rather than when the first lab needs it.
///
/// # Errors
/// As [`Lab::up`], short of the boot itself.
pub fn prepare() -> Result<()> {
    build().map(drop)
}

fn say(text: &str) {
    eprintln!("lab: {text}");
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    tool::run(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto", "--"])
            .arg(from)
            .arg(to),
    )
    .map(drop)
}
