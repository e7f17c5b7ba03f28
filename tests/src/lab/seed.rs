//! Seeds the guests' disks: boots both once on empty ones, lets them make the pool and the fixture VMs, and keeps what
//! they wrote. Under emulation that takes far longer than a boot, and it comes out the same each time.

use super::artifacts::{lock_file, Artifacts};
use super::error::{Context, Result};
use super::{content, copy_sparse, say, Lab, Options, DISKS};
use rustix::fs::{flock, FlockOperation};
use std::fs::{self, File};
use std::sync::Arc;

/// Makes the seeds unless they are there.
pub(crate) fn ensure(artifacts: &Arc<Artifacts>) -> Result<()> {
    let seeds = artifacts.seeds();
    let makers = lock_file(&seeds.with_extension("lock"))?;
    flock(&makers, FlockOperation::LockExclusive).context(|| "cannot lock the seeds")?;
    if seeds.exists() {
        return Ok(());
    }
    say("seeding the guests' disks (once; half a minute)");
    let new = seeds.with_extension("new");
    // What an earlier try left.
    fs::remove_dir_all(&new).ok();
    fs::create_dir(&new).context(|| format!("cannot make {}", new.display()))?;
    let empty = new.join("empty");
    File::create(&empty)
        .and_then(|file| file.set_len(content::mib(24 << 10)))
        .context(|| format!("cannot make {}", empty.display()))?;
    let options = Options {
        binaries: None,
        ..Options::default()
    };
    let lab = Lab::boot(Arc::clone(artifacts), &options, |disk| {
        match disk.rsplit('.').next() {
            Some("vda") => empty.clone(),
            Some("vdb") => artifacts.vz(),
            _ => artifacts.state(),
        }
    })?;
    for guest in [lab.a(), lab.b()] {
        guest.shut_down()?;
        for disk in DISKS.map(|disk| format!("{}.{disk}", guest.name())) {
            copy_sparse(&guest.run_dir().join(&disk), &new.join(&disk))?;
        }
    }
    fs::remove_file(&empty).context(|| format!("cannot remove {}", empty.display()))?;
    fs::rename(&new, &seeds).context(|| format!("cannot make {}", seeds.display()))
}
