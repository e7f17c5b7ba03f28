//! A root of Debian, fresh for each test: what debootstrap makes is kept in the lab's cache, and a test writes to an overlay.

use crate::lab::inner::{cache_dir, capture, run, Context};
use crate::lab::{Error, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tempfile::TempDir;

/// How long making a root may take, or one command in it: apt downloads.
const MAX: Duration = Duration::from_secs(1200);

/// What a host of libvirt's VMs has.
const HYPERVISOR: &str =
    "iproute2 libvirt-clients libvirt-daemon-system openssh-client openssh-server procps \
                          qemu-system-x86 qemu-utils seabios";

/// How old apt's lists may be.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12, of which Proxmox VE 8 is made.
    Bookworm,
    /// Debian 13, of which Proxmox VE 9 is made.
    Trixie,
}

impl Suite {
    /// Its name on a mirror.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
        }
    }
}

/// Runs `main` in a mount namespace of its own, so that no mount outlives this process however it ends.
pub fn alone(main: impl FnOnce() -> ExitCode) -> ExitCode {
    const MARK: &str = "PACKAGES_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return main();
    }
    let again = std::env::current_exe().map(|exe| {
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(exe)
            .args(std::env::args_os().skip(1))
            .env(MARK, "1")
            .status()
    });
    match again {
        Ok(Ok(status)) => status.code().map_or(ExitCode::FAILURE, |code| {
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }),
        Ok(Err(error)) | Err(error) => {
            eprintln!("cannot start unshare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A root that is changed by one test alone.
pub struct Root {
    // In this order: what is mounted in it goes first.
    mounts: Vec<PathBuf>,
    dir: TempDir,
}

impl Root {
    /// A minimal installation of Debian, with apt's lists, in which no service may be started.
    ///
    /// # Errors
    /// Not root, no debootstrap, no mirror.
    pub fn fresh(suite: Suite) -> Result<Root> {
        Root::on(&base(suite)?, suite)
    }

    /// One that is over the tree of `base`, which stays as it is.
    ///
    /// # Errors
    /// Not root.
    pub fn on(base: &Path, suite: Suite) -> Result<Root> {
        let cache = roots()?;
        let dir = TempDir::new().context(|| "no temporary directory")?;
        for name in ["upper", "work", "root"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).context(|| format!("cannot make {}", path.display()))?;
        }
        let mut root = Root {
            mounts: Vec::new(),
            dir,
        };
        let at = root.path("");
        let within = |name: &str| root.dir.path().join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            within("upper"),
            within("work")
        );
        root.mount(&["-t", "overlay", "overlay", "-o", &options], &at)?;
        root.mount(&["-t", "proc", "proc"], &at.join("proc"))?;
        let archives = cache.join(format!("{}.archives", suite.name()));
        fs::create_dir_all(archives.join("partial"))
            .context(|| format!("cannot make {}", archives.display()))?;
        let archives = archives.display().to_string();
        root.mount(&["--bind", &archives], &at.join("var/cache/apt/archives"))?;
        root.write(
            "/usr/sbin/policy-rc.d",
            "#!/bin/sh\necho \"$@\" >> /var/log/policy-rc.d\nexit 101\n",
            0o755,
        )?;
        Ok(root)
    }

    fn mount(&mut self, words: &[&str], at: &Path) -> Result<()> {
        run(Command::new("mount").args(words).arg(at))?;
        self.mounts.push(at.to_owned());
        Ok(())
    }

    /// Where a path of it is in this machine's tree.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// Writes a file, and makes its directories.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.path(path);
        let cannot = || format!("cannot write {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).context(cannot)?;
        }
        fs::write(&path, text).context(cannot)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context(cannot)
    }

    /// Text of a file; empty if there is none.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Whether there is something under this name.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Runs a script of sh in it, and gives its exit code and all that it says.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn run(&self, script: &str) -> Result<(i32, String)> {
        let mut command = Command::new("chroot");
        command
            .arg(self.path(""))
            .args(["/bin/sh", "-c"])
            .arg(format!("exec 2>&1\n{script}"));
        command.env_clear();
        for (name, value) in std::env::vars_os() {
            if name
                .to_string_lossy()
                .to_ascii_lowercase()
                .ends_with("_proxy")
            {
                command.env(name, value);
            }
        }
        command
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        let done = capture(&mut command, None, MAX)?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        Ok((done.status.code().unwrap_or(-1), said))
    }

    /// The same for a script that must end with 0.
    ///
    /// # Errors
    /// It does not.
    pub fn run_ok(&self, script: &str) -> Result<String> {
        match self.run(script)? {
            (0, said) => Ok(said),
            (code, said) => Err(Error::new(format!("{script:?} ended with {code}:\n{said}"))),
        }
    }

    /// Installs package files as `apt install` does, with what they depend on.
    ///
    /// # Errors
    /// apt does not.
    pub fn install(&self, packages: &[PathBuf]) -> Result<String> {
        let names = self.take_in(packages)?;
        self.run_ok(&format!(
            "cd /tmp && apt-get install -y --no-install-recommends{names}"
        ))
    }

    /// Has apt download what package files depend on or recommend and what is not there, and gives those packages' files.
    ///
    /// # Errors
    /// apt does not.
    pub fn fetch(&self, packages: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let names = self.take_in(packages)?;
        self.run_ok(&format!(
            "mkdir -p /fetched/partial && cd /tmp \
             && apt-get install -y --download-only -o Dir::Cache::archives=/fetched{names}"
        ))?;
        let dir = self.path("/fetched");
        let failed = || format!("cannot list {}", dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).context(failed)? {
            let path = entry.context(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Copies package files to /tmp, and gives their names for apt, each after a blank.
    fn take_in(&self, packages: &[PathBuf]) -> Result<String> {
        let mut names = String::new();
        for package in packages {
            let name = package.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let to = self.path("/tmp").join(name);
            fs::copy(package, &to).context(|| format!("cannot copy {}", package.display()))?;
            names.push_str(" ./");
            names.push_str(name);
        }
        Ok(names)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The namespace takes with it what cannot be unmounted.
        for at in self.mounts.iter().rev() {
            run(Command::new("umount").arg("--lazy").arg(at)).ok();
        }
    }
}

/// The tree of a host of libvirt's VMs with nothing of the product on it, made now or earlier. It is shared: nothing may be
/// written to it.
///
/// # Errors
/// As of [`Root::fresh`], or apt does not install libvirt.
pub fn hypervisor(suite: Suite) -> Result<PathBuf> {
    let made = roots()?.join(format!("{}.hypervisor", suite.name()));
    if made.exists() {
        return Ok(made);
    }
    let root = Root::fresh(suite)?;
    root.run_ok(&format!(
        "apt-get install -y --no-install-recommends {HYPERVISOR}"
    ))?;
    let new = made.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).context(|| format!("cannot remove {}", new.display()))?;
    }
    // What is mounted in it is none of it.
    run(Command::new("cp")
        .args(["--archive", "--one-file-system", "--"])
        .arg(root.path("").join("."))
        .arg(&new))?;
    fs::rename(&new, &made).context(|| format!("cannot rename {}", new.display()))?;
    Ok(made)
}

/// Where all roots are kept.
fn roots() -> Result<PathBuf> {
    Ok(cache_dir()?.join("roots"))
}

/// What debootstrap made, now or earlier.
fn base(suite: Suite) -> Result<PathBuf> {
    let cache = roots()?;
    let name = suite.name();
    let base = cache.join(name);
    if base.exists() {
        let lists = base.join("var/lib/apt/lists");
        let written = fs::metadata(&lists).and_then(|m| m.modified());
        let age = written.ok().and_then(|at| at.elapsed().ok());
        // Packages that the lists name are replaced on the mirror by newer ones.
        if age.is_none_or(|age| age > LISTS_AGE_MAX) {
            update(&base)?;
        }
        return Ok(base);
    }
    let new = cache.join(format!("{name}.new"));
    if new.exists() {
        fs::remove_dir_all(&new).context(|| format!("cannot remove {}", new.display()))?;
    }
    fs::create_dir_all(&cache).context(|| format!("cannot make {}", cache.display()))?;
    let mirror = mirror()?;
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", name])
        .arg(&new)
        .arg(mirror);
    let done = capture(&mut command, None, MAX)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let end = said.lines().last().unwrap_or_default();
        return Err(Error::new(format!("debootstrap of {name} failed: {end}")));
    }
    run(Command::new("chroot")
        .arg(&new)
        .args(["apt-get", "update", "-q"]))?;
    fs::rename(&new, &base).context(|| format!("cannot rename {}", new.display()))?;
    Ok(base)
}

fn update(root: &Path) -> Result<()> {
    run(Command::new("chroot")
        .arg(root)
        .args(["apt-get", "update", "-q"]))
    .map(drop)
}

/// Debian's mirror, as apt of this machine knows it.
fn mirror() -> Result<String> {
    let out = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let text = String::from_utf8_lossy(&out);
    let mirror = text.lines().find_map(|line| line.strip_prefix("Debian "));
    mirror
        .map(str::to_owned)
        .ok_or_else(|| Error::new("apt of this machine knows no mirror of Debian"))
}
