//! The guests' userland: tools of the build host with the shared objects they need, kernel modules, busybox for the
//! rest, and the tree `lab/guest/rootfs` on top, all staged in one directory.

use super::error::{Context, Error, Result};
use super::kernel::Kernel;
use super::tool;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One line's worth of tools.list, found on this host.
#[derive(Debug)]
pub(crate) struct Tool {
    /// The path the guest is to have it under.
    pub path: PathBuf,
    /// The file behind it, symbolic links followed.
    pub real: PathBuf,
}

/// Finds every tool of `list` (the text of tools.list). A missing one is an error unless marked optional.
pub(crate) fn find_tools(list: &str) -> Result<Vec<Tool>> {
    let mut tools = Vec::new();
    let mut missing = Vec::new();
    for word in words(list) {
        let (name, optional) = match word.strip_prefix('?') {
            Some(name) => (name, true),
            None => (word, false),
        };
        let found = match name.strip_suffix("/*") {
            Some(dir) => all_of(Path::new(dir)),
            None => locate(name).into_iter().collect(),
        };
        if found.is_empty() && !optional {
            missing.push(name);
        }
        tools.extend(found);
    }
    if missing.is_empty() {
        return Ok(tools);
    }
    Err(Error::new(format!(
        "this host lacks {}; run tests/lab/deps.sh",
        missing.join(", ")
    )))
}

/// The words of a list file, comments left out.
pub(crate) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
}

/// All files of a directory; none if there is none.
fn all_of(dir: &Path) -> Vec<Tool> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter_map(|path| locate(path.to_str()?))
        .filter(|tool| tool.real.is_file())
        .collect()
}

fn locate(name: &str) -> Option<Tool> {
    // Not $PATH: the lab also runs where it lacks sbin. Only merged-/usr paths, as in the guest.
    let found = if name.starts_with('/') {
        PathBuf::from(name)
    } else {
        ["/usr/bin", "/usr/sbin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.exists())?
    };
    let real = found.canonicalize().ok()?;
    Some(Tool { path: found, real })
}

/// Makes the whole tree below `root`, an empty directory.
pub(crate) fn stage(
    root: &Path,
    tools: &[Tool],
    kernel: &Kernel,
    modules: &[String],
    skeleton: &Path,
) -> Result<()> {
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib64",
        "usr/local/bin",
        "usr/local/sbin",
        "usr/share/lab",
        "etc/pve",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "mnt",
        "root/.ssh",
        "var/lib",
        "var/log",
        "var/tmp",
        "var/cache",
    ] {
        make_dir(&root.join(dir))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
        ("var/lock", "/run/lock"),
    ] {
        symlink(target, root.join(link)).context(|| format!("cannot link {link}"))?;
    }
    for tool in tools {
        copy(&tool.real, &below(root, &tool.real))?;
        let name = below(root, &tool.path);
        if !name.exists() {
            make_parent(&name)?;
            symlink(&tool.real, &name).context(|| format!("cannot link {}", name.display()))?;
        }
    }
    for object in shared_objects(tools)? {
        copy(&object, &below(root, &object))?;
    }
    stage_busybox(root)?;
    stage_modules(root, kernel, modules)?;
    tool::run(
        Command::new("cp")
            .arg("-r")
            .arg(skeleton.join("."))
            .arg(root),
    )?;
    Ok(())
}

/// What the dynamic linker would load for all of `tools`, by the names it would use.
fn shared_objects(tools: &[Tool]) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    for tool in tools {
        ldd.arg(&tool.real);
    }
    // It fails if one of them is a script; the list it prints is complete all the same.
    let done = tool::capture(&mut ldd, None, tool::BUILD_TIMEOUT)?;
    let text = String::from_utf8_lossy(&done.stdout);
    Ok(text
        .lines()
        .filter(|line| line.starts_with('\t'))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

/// busybox, and a link to it for each of its applets that no real tool provides. The boot script has a directory with
/// links to all of them.
fn stage_busybox(root: &Path) -> Result<()> {
    let busybox =
        locate("busybox").ok_or_else(|| Error::new("no busybox; run tests/lab/deps.sh"))?;
    copy(&busybox.real, &root.join("usr/bin/busybox"))?;
    let applets = tool::run(Command::new(&busybox.real).arg("--list"))?;
    let all = root.join("usr/lib/lab/busybox");
    make_dir(&all)?;
    for applet in String::from_utf8_lossy(&applets).lines() {
        symlink("/usr/bin/busybox", all.join(applet))
            .context(|| format!("cannot link {applet}"))?;
        let known = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|dir| fs::symlink_metadata(root.join(dir).join(applet)).is_ok());
        if !known {
            symlink("busybox", root.join("usr/bin").join(applet))
                .context(|| format!("cannot link {applet}"))?;
        }
    }
    Ok(())
}

/// Copies `modules` and what they depend on, uncompressed, and indexes them for modprobe.
fn stage_modules(root: &Path, kernel: &Kernel, modules: &[String]) -> Result<()> {
    let dir = Path::new("usr/lib/modules").join(&kernel.release);
    for module in modules {
        for object in module_closure(kernel, module)? {
            let inside = object
                .strip_prefix(kernel.root.join("lib/modules").join(&kernel.release))
                .context(|| format!("{} is not the kernel's", object.display()))?;
            copy_module(&object, &root.join(&dir).join(inside))?;
        }
    }
    for index in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        let from = kernel
            .root
            .join("lib/modules")
            .join(&kernel.release)
            .join(index);
        copy(&from, &root.join(&dir).join(index))?;
    }
    tool::run(
        Command::new("/usr/sbin/depmod")
            .arg("-b")
            .arg(root)
            .arg(&kernel.release),
    )?;
    Ok(())
}

/// The files to load for `module`, in order; none if it is built in.
pub(crate) fn module_closure(kernel: &Kernel, module: &str) -> Result<Vec<PathBuf>> {
    let out = tool::run(
        Command::new("/usr/sbin/modprobe")
            .arg("-d")
            .arg(&kernel.root)
            .args(["-S", &kernel.release, "--show-depends", module]),
    )?;
    Ok(String::from_utf8_lossy(&out)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("insmod "))
        .map(|path| PathBuf::from(path.trim()))
        .collect())
}

/// Copies a module to `to`, decompressed and without its debugging and type information, which make it several times
/// larger and slow to load under emulation. `to` may have the compressed name; returns the name it got.
pub(crate) fn copy_module(from: &Path, to: &Path) -> Result<PathBuf> {
    let program = match from.extension().and_then(|e| e.to_str()) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    let to = match program {
        Some(_) => to.with_extension(""),
        None => to.to_owned(),
    };
    if to.exists() {
        return Ok(to);
    }
    make_parent(&to)?;
    let bytes = match program {
        Some(program) => tool::run(Command::new(program).args(["-dc"]).arg(from))?,
        None => fs::read(from).context(|| format!("cannot read {}", from.display()))?,
    };
    fs::write(&to, bytes).context(|| format!("cannot write {}", to.display()))?;
    tool::run(
        Command::new("objcopy")
            .args(["--strip-debug", "--remove-section=.BTF", "--"])
            .arg(&to),
    )?;
    Ok(to)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))
}

fn make_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), make_dir)
}

/// Copies a file with its mode, unless it is there already.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    make_parent(to)?;
    fs::copy(from, to)
        .map(drop)
        .context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_and_many_words_a_line() {
        let list = "# a comment\na b\n\n ?c\n";
        assert_eq!(words(list).collect::<Vec<_>>(), ["a", "b", "?c"]);
    }

    #[test]
    fn a_missing_tool_is_named_and_an_optional_one_is_not_missed() {
        let error = find_tools("sh no-such-tool-x ?no-such-tool-y").unwrap_err();
        assert!(
            error.to_string().contains("lacks no-such-tool-x;"),
            "{error}"
        );
        let tools = find_tools("sh ?no-such-tool-y").unwrap();
        assert_eq!(tools.len(), 1);
        assert!(tools[0].real.exists());
    }

    #[test]
    fn the_linker_is_asked_for_all_tools_at_once() {
        let objects = shared_objects(&find_tools("bash cat").unwrap()).unwrap();
        assert!(
            objects.iter().any(|o| o.ends_with("libc.so.6")),
            "{objects:?}"
        );
    }
}
