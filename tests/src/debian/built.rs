//! The packages under test.

use crate::cli::{binary, pvesync, virt_blocksync};
use crate::lab::inner::{capture, run, Context};
use crate::lab::{Error, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long building them may take: the programs are there already.
const BUILD_MAX: Duration = Duration::from_secs(900);

/// The names of the packages.
pub const PACKAGES: [&str; 3] = ["rblocksync", "pvesync", "virt-blocksync"];

/// The three packages, as files.
pub struct Built {
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Built {
    /// Those in `$LAB_DEBS`, as `make deb` has built them, or ones that are put together now from the programs that the
    /// other tests use. What cargo does for them is then not tested.
    ///
    /// # Errors
    /// They cannot be built; the text has the end of what was said.
    pub fn get() -> Result<Built> {
        if let Some(dir) = std::env::var_os("LAB_DEBS").filter(|dir| !dir.is_empty()) {
            return Ok(Built {
                dir: dir.into(),
                _temporary: None,
            });
        }
        let temporary = TempDir::new().context(|| "no temporary directory")?;
        let programs = temporary.path().join("programs");
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let dir = programs.join(triple).join("release");
        fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        for program in [binary(), pvesync(), virt_blocksync()] {
            let name = program.file_name().unwrap_or_default();
            symlink(program, dir.join(name))
                .context(|| format!("cannot link {}", program.display()))?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb.sh");
        let done = capture(
            Command::new(script)
                .arg(temporary.path())
                .env("DEB_PREBUILT", &programs)
                .env("DEB_BUILD_OPTIONS", "noautodbgsym"),
            None,
            BUILD_MAX,
        )?;
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let mut end: Vec<&str> = said.lines().rev().take(30).collect();
            end.reverse();
            return Err(Error::new(format!("no packages:\n{}", end.join("\n"))));
        }
        Ok(Built {
            dir: temporary.path().join("build"),
            _temporary: Some(temporary),
        })
    }

    /// The file of a package.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn file(&self, package: &str) -> Result<PathBuf> {
        let failed = || format!("cannot list {}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).context(failed)? {
            let path = entry.context(failed)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let rest = name.strip_prefix(package).unwrap_or("");
            if rest.starts_with('_') && rest.ends_with(".deb") {
                found.push(path);
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            count => Err(Error::new(format!(
                "{} has {count} packages {package}",
                self.dir.display()
            ))),
        }
    }
}

/// What a package would install: a line each of mode, owner and path, sorted by path. Left out are directories that other
/// packages have too, and the pages of the manual.
///
/// # Errors
/// It is no package.
pub fn listing(package: &Path) -> Result<String> {
    let out = run(Command::new("dpkg-deb").arg("-c").arg(package))?;
    let text = String::from_utf8_lossy(&out);
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [mode, owner, _, _, _, path @ ..] = words.as_slice() else {
            return Err(Error::new(format!("dpkg-deb says {line:?}")));
        };
        let path = path.join(" ");
        let is_own = PACKAGES.iter().any(|name| path.contains(name));
        let is_page = path.contains("/docs/") && !path.ends_with("/docs/");
        if (is_own || !mode.starts_with('d')) && !is_page {
            lines.push((path.clone(), format!("{mode} {owner} {path}\n")));
        }
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// The same package again, in `dir`, as one of a version before all others.
///
/// # Errors
/// dpkg-deb fails.
pub fn lower_version(package: &Path, dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("lower");
    run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let cannot = || format!("cannot change {}", control.display());
    let text = fs::read_to_string(&control).context(cannot)?;
    let mut changed = String::new();
    for line in text.lines() {
        let line = match line.starts_with("Version: ") {
            true => "Version: 0.0.1-1",
            false => line,
        };
        changed.push_str(line);
        changed.push('\n');
    }
    fs::write(&control, changed).context(cannot)?;
    let name = package.file_name().unwrap_or_default();
    let lower = dir.join(name);
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "-b"])
        .arg(&tree)
        .arg(&lower))?;
    fs::remove_dir_all(&tree).context(|| format!("cannot remove {}", tree.display()))?;
    Ok(lower)
}
