//! Where the lab's sources, its cache and its run directories are.

use super::error::{Context, Result};
use std::path::{Path, PathBuf};

/// Directory `tests/lab` of the checkout this was compiled in.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab")
}

/// Directory `tests/fixtures` of the checkout this was compiled in.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The cache: `$LAB_CACHE`, else `tests/lab/out`. Made if it is not there.
pub fn cache() -> Result<PathBuf> {
    let dir = match std::env::var_os("LAB_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => sources().join("out"),
    };
    std::fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    dir.canonicalize()
        .context(|| format!("cannot resolve {}", dir.display()))
}

/// Where run directories go: `$LAB_RUN`, else /var/tmp: on disk everywhere, and a name short enough for the
/// 108 bytes a unix socket's path may have.
pub(crate) fn runs() -> PathBuf {
    std::env::var_os("LAB_RUN").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
