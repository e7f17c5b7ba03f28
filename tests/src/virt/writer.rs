//! The disk that the VMs boot from: the writer of the lab, with a serial line, a power button and more haste.

use super::Result;
use crate::lab::inner::{assemble_writer, Context};
use std::path::Path;

/// Where nodes have it.
pub(super) const PATH: &str = "/usr/share/bed/writer.img";

/// Makes it below `own`.
pub(super) fn make(own: &Path) -> Result<()> {
    let path = own.join(PATH.trim_start_matches('/'));
    let dir = path.parent().unwrap_or(own);
    std::fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))?;
    assemble_writer(&["--defsym", "BED=1"], dir, &path)?;
    std::fs::remove_file(dir.join("pattern.o")).context(|| "cannot remove the object file")
}
