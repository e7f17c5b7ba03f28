//! The guests' kernel: Debian's, downloaded but not installed, as a plain ELF.
//!
//! QEMU starts an ELF with a PVH note directly, which skips the decompressor inside the bzImage: under emulation that
//! alone takes longer than the whole boot. The "cloud" flavour has all the lab needs at a third of the size.

use super::error::{Context, Error, Result};
use super::tool;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The directory that holds `boot` and `lib/modules`.
    pub root: PathBuf,
}

/// The kernel in the cache, downloaded first if there is none.
pub(crate) fn fetch(cache: &Path) -> Result<Kernel> {
    let dir = cache.join("kernel");
    if let Some(kernel) = find(&dir)? {
        return Ok(kernel);
    }
    let package = concrete_package()?;
    let work = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(cache)
        .context(|| format!("cannot make a directory in {}", cache.display()))?;
    tool::run(
        Command::new("apt-get")
            .args(["download", "-q", &package])
            .current_dir(work.path()),
    )?;
    let deb = fs::read_dir(work.path())
        .context(|| "cannot list the download")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .ok_or_else(|| Error::new(format!("apt-get download {package} left no .deb")))?;
    let unpacked = work.path().join("kernel");
    tool::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&unpacked))?;
    // Since the merge of /usr the package may have its modules there.
    if !unpacked.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", unpacked.join("lib"))
            .context(|| "cannot link lib to usr/lib")?;
    }
    fs::rename(&unpacked, &dir)
        .context(|| format!("cannot move the kernel to {}", dir.display()))?;
    find(&dir)?.ok_or_else(|| Error::new(format!("{package} holds no /boot/vmlinuz-*")))
}

fn find(dir: &Path) -> Result<Option<Kernel>> {
    let Ok(entries) = fs::read_dir(dir.join("boot")) else {
        return Ok(None);
    };
    let release = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    let Some(release) = release else {
        return Ok(None);
    };
    if !dir
        .join("lib/modules")
        .join(&release)
        .join("modules.dep")
        .exists()
    {
        tool::run(
            Command::new("/usr/sbin/depmod")
                .arg("-b")
                .arg(dir)
                .arg(&release),
        )?;
    }
    Ok(Some(Kernel {
        release,
        root: dir.to_owned(),
    }))
}

/// The package the meta package stands for now.
fn concrete_package() -> Result<String> {
    let out = tool::run(Command::new("apt-cache").args(["depends", META_PACKAGE]))
        .map_err(|e| Error::new(format!("{e}; run tests/lab/deps.sh")))?;
    String::from_utf8_lossy(&out)
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|rest| format!("linux-image-{rest}"))
        .ok_or_else(|| {
            Error::new(format!(
                "apt knows no {META_PACKAGE}; run tests/lab/deps.sh, or apt-get update"
            ))
        })
}

/// Writes the ELF inside the bzImage to `to`.
pub(crate) fn extract_elf(kernel: &Kernel, to: &Path) -> Result<()> {
    let image = kernel
        .root
        .join("boot")
        .join(format!("vmlinuz-{}", kernel.release));
    let bytes = fs::read(&image).context(|| format!("cannot read {}", image.display()))?;
    let payload =
        payload(&bytes).ok_or_else(|| Error::new(format!("{} is no bzImage", image.display())))?;
    let program: &[&str] = match payload {
        [0xfd, b'7', b'z', ..] => &["xz", "-dc", "--single-stream"],
        [0x28, 0xb5, 0x2f, 0xfd, ..] => &["zstd", "-dcq"],
        [0x1f, 0x8b, ..] => &["gzip", "-dc"],
        [0x02, b'!', b'L', 0x18, ..] => &["lz4", "-dcq"],
        [0x7f, b'E', b'L', b'F', ..] => &["cat"],
        _ => {
            return Err(Error::new(format!(
                "{} has a payload of unknown compression",
                image.display()
            )))
        }
    };
    // The decompressors grumble about the four bytes behind the payload (its length): the result is what counts.
    let done = tool::capture(
        Command::new(program[0]).args(&program[1..]),
        Some(payload.to_vec()),
        tool::BUILD_TIMEOUT,
    )?;
    if !done.stdout.starts_with(b"\x7fELF") {
        return Err(Error::new(format!(
            "{} made no ELF of {}: {}",
            program[0],
            image.display(),
            String::from_utf8_lossy(&done.stderr).trim()
        )));
    }
    fs::write(to, &done.stdout).context(|| format!("cannot write {}", to.display()))
}

/// The compressed kernel in a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let word = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    image.get(start..start + word(0x24c)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::payload;

    #[test]
    fn payload_lies_behind_the_setup_sectors() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&7u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&3u32.to_le_bytes());
        image[1024 + 7..1024 + 10].copy_from_slice(b"abc");
        assert_eq!(payload(&image).unwrap(), b"abc");
        image.truncate(1024 + 9);
        assert_eq!(payload(&image), None, "a payload beyond the end");
        image[0x202] = 0;
        assert_eq!(payload(&image), None, "no boot header");
    }
}
