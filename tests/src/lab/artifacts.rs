//! What guests boot from, built once and kept in the cache under a hash of everything that goes into it.

use super::content;
use super::error::{Context, Error, Result};
use super::kernel::{self, Kernel};
use super::paths;
use super::tool;
use super::userland::{self, Tool};
use rustix::fs::{flock, FlockOperation};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources of the build: a change in any of them makes another image.
const BUILDER: [&str; 4] = [
    include_str!("artifacts.rs"),
    include_str!("content.rs"),
    include_str!("kernel.rs"),
    include_str!("userland.rs"),
];

/// The built files. They are kept as long as this lives: it holds a shared lock on their directory.
#[derive(Debug)]
pub(crate) struct Artifacts {
    dir: PathBuf,
    _in_use: File,
}

impl Artifacts {
    /// The kernel as an ELF, for QEMU's `-kernel`.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// busybox and the modules that reach the root disk.
    pub(crate) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// The userland: ext4, read-only, shared by all guests.
    pub(crate) fn tools(&self) -> PathBuf {
        self.dir.join("tools.ext4")
    }

    /// An empty ext4 for a guest's state. Sparse.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state.ext4")
    }

    /// An empty XFS for a guest's /var/lib/vz. Sparse.
    pub(crate) fn vz(&self) -> PathBuf {
        self.dir.join("vz.xfs")
    }

    /// The directory with the disks of guests that booted once: the pool and the fixture VMs are made.
    pub(crate) fn seeds(&self) -> PathBuf {
        self.dir.join("seeds")
    }

    /// Finds the files in the cache, or builds them, all but the seeds. `say` is told of work that takes a while.
    ///
    /// # Errors
    /// A tool is missing (the text tells to run deps.sh), the kernel cannot be downloaded, or no space.
    pub(crate) fn ensure(say: &dyn Fn(&str)) -> Result<Artifacts> {
        let cache = paths::cache()?;
        let builders = lock_file(&cache.join("build.lock"))?;
        flock(&builders, FlockOperation::LockExclusive).context(|| "cannot lock the build")?;
        let kernel = kernel::fetch(&cache)?;
        let inputs = Inputs::read()?;
        let dir = cache.join(format!("image-{}", inputs.key(&kernel)?));
        if !dir.exists() {
            say("building the guests' image (once; a few seconds)");
            remove_unused(&cache)?;
            build(&cache, &dir, &kernel, &inputs)?;
        }
        let in_use = lock_file(&dir.join("lock"))?;
        flock(&in_use, FlockOperation::LockShared).context(|| "cannot lock the image")?;
        Ok(Artifacts {
            dir,
            _in_use: in_use,
        })
    }
}

/// Everything that decides what the files hold, besides the kernel.
struct Inputs {
    tools: Vec<Tool>,
    early: Vec<String>,
    modules: Vec<String>,
    guest: PathBuf,
}

impl Inputs {
    fn read() -> Result<Inputs> {
        let guest = paths::sources().join("guest");
        let read = |name: &str| {
            let path = guest.join(name);
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
        };
        let tools = userland::find_tools(&read("tools.list")?)?;
        let list = read("modules.list")?;
        let of = |kind: &'static str| {
            list.lines()
                .filter_map(move |line| line.strip_prefix(kind))
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
        };
        let early: Vec<String> = of("early ").collect();
        let modules = early.iter().cloned().chain(of("late ")).collect();
        Ok(Inputs {
            tools,
            early,
            modules,
            guest,
        })
    }

    fn key(&self, kernel: &Kernel) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        BUILDER.iter().for_each(|source| add(source.as_bytes()));
        add(kernel.release.as_bytes());
        for tool in &self.tools {
            let meta = fs::metadata(&tool.real)
                .context(|| format!("cannot stat {}", tool.real.display()))?;
            let what = format!("{:?} {} {}", tool, meta.size(), meta.mtime());
            add(what.as_bytes());
        }
        for dir in [&self.guest, &paths::fixtures()] {
            for path in files(dir)? {
                let bytes =
                    fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
                let mode = fs::metadata(&path).map_or(0, |meta| meta.mode() & 0o111);
                add(path
                    .strip_prefix(dir)
                    .unwrap_or(&path)
                    .as_os_str()
                    .as_encoded_bytes());
                add(&mode.to_le_bytes());
                add(&bytes);
            }
        }
        Ok(hash.finalize().to_hex()[..16].to_owned())
    }
}

/// All regular files below `dir`, in a fixed order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(|| format!("cannot list {}", dir.display()))? {
        let path = entry
            .context(|| format!("cannot list {}", dir.display()))?
            .path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn build(cache: &Path, dir: &Path, kernel: &Kernel, inputs: &Inputs) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix(".image-")
        .tempdir_in(cache)
        .context(|| format!("cannot make a directory in {}", cache.display()))?;
    let (stage, out) = (work.path().join("stage"), work.path().join("out"));
    userland::make_dir(&stage)?;
    userland::make_dir(&out)?;
    userland::stage(
        &stage,
        &inputs.tools,
        kernel,
        &inputs.modules,
        &inputs.guest.join("rootfs"),
    )?;
    let share = stage.join("usr/share/lab");
    userland::make_dir(&share.join("disks"))?;
    content::write_disks(&share.join("disks"))?;
    tool::run(
        Command::new("cp")
            .arg("-r")
            .arg(paths::fixtures().join("pve"))
            .arg(&share),
    )?;
    assemble_writer(&[], work.path(), &share.join("pattern.img"))?;
    make_ext4(&stage, &out.join("tools.ext4"))?;
    make_initrd(work.path(), kernel, inputs, &out.join("initrd"))?;
    kernel::extract_elf(kernel, &out.join("vmlinux"))?;
    empty_disk(
        &out.join("state.ext4"),
        content::mib(2048),
        "mke2fs",
        &["-q", "-F", "-t", "ext4"],
    )?;
    empty_disk(
        &out.join("vz.xfs"),
        content::mib(4096),
        "mkfs.xfs",
        &["-q", "-m", "reflink=1"],
    )?;
    fs::rename(&out, dir).context(|| format!("cannot move the image to {}", dir.display()))
}

/// Packs a directory into an ext4 image just large enough, without a journal: nobody writes to it.
pub(crate) fn make_ext4(from: &Path, to: &Path) -> Result<()> {
    let du = tool::run(Command::new("du").args(["-sk", "--"]).arg(from))?;
    let kib: u64 = String::from_utf8_lossy(&du)
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Error::new(format!("du tells no size of {}", from.display())))?;
    // Room for inodes and block maps; what is too much stays a hole.
    let size = format!("{}k", kib + kib / 4 + 8192);
    tool::run(
        Command::new(sbin("mke2fs"))
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-m",
                "0",
                "-i",
                "16384",
                "-d",
            ])
            .arg(from)
            .arg(to)
            .arg(size),
    )?;
    Ok(())
}

fn empty_disk(path: &Path, size: u64, mkfs: &str, args: &[&str]) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(size))
        .context(|| format!("cannot make {}", path.display()))?;
    tool::run(Command::new(sbin(mkfs)).args(args).arg(path))?;
    Ok(())
}

/// Assembles the boot sector, on a disk large enough for the BIOS to give it a geometry. `options` are the assembler's.
pub(crate) fn assemble_writer(options: &[&str], work: &Path, to: &Path) -> Result<()> {
    let object = work.join("pattern.o");
    tool::run(
        Command::new("as")
            .args(options)
            .args(["--32", "-o"])
            .arg(&object)
            .arg(paths::sources().join("guest/pattern.S")),
    )?;
    tool::run(
        Command::new("ld")
            .args([
                "-m",
                "elf_i386",
                "-Ttext=0x7c00",
                "--oformat",
                "binary",
                "-o",
            ])
            .arg(to)
            .arg(&object),
    )?;
    File::options()
        .write(true)
        .open(to)
        .and_then(|file| file.set_len(content::mib(1)))
        .context(|| format!("cannot extend {}", to.display()))
}

fn make_initrd(work: &Path, kernel: &Kernel, inputs: &Inputs, to: &Path) -> Result<()> {
    let root = work.join("initrd");
    for dir in ["bin", "dev", "modules"] {
        userland::make_dir(&root.join(dir))?;
    }
    let busybox = userland::find_tools("busybox")?;
    userland::copy(&busybox[0].real, &root.join("bin/busybox"))?;
    userland::copy(&inputs.guest.join("initramfs-init"), &root.join("init"))?;
    let mut order = Vec::new();
    for module in &inputs.early {
        for object in userland::module_closure(kernel, module)? {
            let name = object.file_name().unwrap_or_default();
            let placed = userland::copy_module(&object, &root.join("modules").join(name))?;
            let name = placed
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !order.contains(&name) {
                order.push(name);
            }
        }
    }
    fs::write(root.join("modules/order"), order.join("\n") + "\n")
        .context(|| "cannot write the module order")?;
    // The kernel unpacks in order: directories first.
    let names: Vec<u8> = ["bin", "dev", "modules"]
        .map(|dir| root.join(dir))
        .iter()
        .chain(&files(&root)?)
        .filter_map(|path| path.strip_prefix(&root).ok())
        .flat_map(|path| [path.as_os_str().as_encoded_bytes(), b"\0"].concat())
        .collect();
    let done = tool::capture(
        Command::new("cpio")
            .args(["--null", "-o", "-H", "newc", "--quiet", "-R", "0:0"])
            .current_dir(&root),
        Some(names),
        tool::BUILD_TIMEOUT,
    )?;
    if !done.status.success() {
        return Err(Error::new(format!(
            "cpio failed: {}",
            String::from_utf8_lossy(&done.stderr)
        )));
    }
    fs::write(to, done.stdout).context(|| format!("cannot write {}", to.display()))
}

/// Removes images no lab uses. Called with the build locked.
fn remove_unused(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).context(|| format!("cannot list {}", cache.display()))? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().to_string_lossy().starts_with("image-") {
            continue;
        }
        let lock = lock_file(&entry.path().join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(entry.path())
                .context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

pub(crate) fn lock_file(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .context(|| format!("cannot open {}", path.display()))
}

/// The path of a system tool that a user's $PATH may lack.
fn sbin(name: &str) -> PathBuf {
    Path::new("/usr/sbin").join(name)
}
