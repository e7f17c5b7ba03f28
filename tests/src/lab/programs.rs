//! The product's programs, as the guests get them: from a directory of programs, or of Debian packages.

use super::error::{Context, Result};
use super::tool;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Put into /usr/bin of both guests if the directory of programs has them.
const PROGRAMS: [&str; 2] = ["rblocksync", "pvesync"];

/// Where they are: `$LAB_DEBS` has packages, `$LAB_BINARIES` programs. None: the guests have none.
pub fn from_environment() -> Option<PathBuf> {
    let named = |variable| std::env::var_os(variable).filter(|dir| !dir.is_empty());
    let dir = named("LAB_DEBS").or_else(|| named("LAB_BINARIES"))?;
    Some(dir.into())
}

/// Puts what is in `from` below `root`, which lies over a guest's own files. Of packages all files are taken, as if they
/// were installed: programs, units, configuration.
pub fn install(from: &Path, root: &Path) -> Result<()> {
    let packages = packages(from)?;
    if packages.is_empty() {
        return copy(from, &root.join("usr/bin"));
    }
    let unpacked = root.with_extension("unpacked");
    for package in packages {
        tool::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(package)
                .arg(&unpacked),
        )?;
    }
    // In the guests /lib is a link to /usr/lib.
    for (part, to) in [("usr", "usr"), ("etc", "etc"), ("lib", "usr/lib")] {
        let (part, to) = (unpacked.join(part), root.join(to));
        if part.is_dir() {
            fs::create_dir_all(&to).context(|| format!("cannot make {}", to.display()))?;
            let what = part.join(".");
            tool::run(Command::new("cp").args(["-a", "--"]).arg(what).arg(&to))?;
        }
    }
    fs::remove_dir_all(&unpacked).context(|| format!("cannot remove {}", unpacked.display()))
}

/// Those that `PROGRAMS` come in. Others depend on libraries that the guests have not.
fn packages(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(failed)? {
        let path = entry.context(failed)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        let is_ours = |program: &str| {
            name.strip_prefix(program)
                .is_some_and(|rest| rest.starts_with('_'))
        };
        if name.ends_with(".deb") && PROGRAMS.iter().any(|program| is_ours(program)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).context(|| format!("cannot make {}", to.display()))?;
    for name in PROGRAMS {
        let program = from.join(name);
        if program.exists() {
            fs::copy(&program, to.join(name))
                .context(|| format!("cannot copy {}", program.display()))?;
        }
    }
    Ok(())
}
