//! The Debian packages, as far as that is seen without building them: what debian/ names is there, what packaging/ has is in
//! some package, and the lists of files that `make test-packages` compares are of today. docs/packages.md.

use super::{fail_with, read, root};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 3] = ["rblocksync", "pvesync", "virt-blocksync"];

/// Where in a package there is only what debian/ takes from packaging/.
const TAKEN: [&str; 6] = [
    "./etc/",
    "./lib/systemd/",
    "./usr/share/bash-completion/",
    "./usr/share/fish/",
    "./usr/share/man/",
    "./usr/share/zsh/",
];

/// The files of the source tree that a pattern of debhelper's names: a `*` may stand in the last part.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = root().join(pattern);
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let Some((begin, end)) = name.split_once('*') else {
        return path.exists().then_some(path).into_iter().collect();
    };
    let entries = fs::read_dir(path.parent().unwrap_or(&path)).into_iter();
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        })
        .collect();
    found.sort();
    found
}

/// The lines of debian/PACKAGE.KIND, in words; none if there is no such file.
fn lines(package: &str, kind: &str) -> Vec<Vec<String>> {
    let path = root().join(format!("debian/{package}.{kind}"));
    let text = fs::read_to_string(path).unwrap_or_default();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines().map(words).collect()
}

/// What debian/ takes from packaging/ for a package: the file, and where it is put.
fn taken(package: &str) -> Vec<(PathBuf, String)> {
    let mut taken = Vec::new();
    let mut take = |pattern: &str, dir: &str, end: &str| {
        for file in matching(pattern) {
            let name = file.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let to = format!("./{dir}/{name}{end}");
            taken.push((file, to));
        }
    };
    for line in lines(package, "install") {
        if let [pattern, dir] = line.as_slice() {
            take(pattern, dir, "");
        }
    }
    for pattern in lines(package, "manpages").concat() {
        take(&pattern, "usr/share/man/man1", ".gz");
    }
    for pattern in lines(package, "examples").concat() {
        take(&pattern, &format!("usr/share/doc/{package}/examples"), "");
    }
    let config = format!("packaging/config/{package}.toml");
    take(&config, &format!("etc/{package}"), "");
    taken
}

#[test]
fn what_debian_names_is_there() {
    let mut mistakes = Vec::new();
    for package in PACKAGES {
        for kind in ["install", "manpages", "examples", "docs"] {
            for line in lines(package, kind) {
                let pattern = line.first().map_or("", String::as_str);
                let is_built = pattern == format!("usr/bin/{package}");
                if !is_built && matching(pattern).is_empty() {
                    mistakes.push(format!("debian/{package}.{kind}: there is no {pattern}"));
                }
            }
        }
    }
    fail_with(&mistakes);
}

#[test]
fn what_is_to_be_installed_is_in_a_package() {
    let taken: BTreeSet<PathBuf> = PACKAGES
        .iter()
        .flat_map(|package| taken(package))
        .map(|(file, _)| file)
        .collect();
    let mut mistakes = Vec::new();
    for pattern in [
        "packaging/completions/bash/*",
        "packaging/completions/fish/*",
        "packaging/completions/zsh/*",
        "packaging/config/*",
        "packaging/examples/*",
        "packaging/examples/virt-blocksync/*",
        "packaging/grafana/*",
        "packaging/hooks/*",
        "packaging/man/*",
        "packaging/prometheus/*",
        "packaging/systemd/*",
    ] {
        for file in matching(pattern).into_iter().filter(|file| file.is_file()) {
            if !taken.contains(&file) {
                mistakes.push(format!("no package has {}", file.display()));
            }
        }
    }
    fail_with(&mistakes);
}

#[test]
fn the_lists_of_files_are_of_today() {
    let mut mistakes = Vec::new();
    for package in PACKAGES {
        let list = format!("tests/tests/packages/files/{package}.list");
        let text = read(&root().join(&list));
        let listed: BTreeSet<&str> = text.lines().filter(|line| !line.starts_with('d')).collect();
        let mut wanted = BTreeSet::new();
        for (file, to) in taken(package) {
            let mode = match fs::metadata(&file).map(|m| m.permissions().mode() & 0o100) {
                Ok(0) => "-rw-r--r--",
                _ => "-rwxr-xr-x",
            };
            wanted.insert(format!("{mode} root/root {to}"));
        }
        let missing = wanted.iter().filter(|line| !listed.contains(line.as_str()));
        mistakes.extend(missing.map(|line| format!("{list} does not have: {line}")));
        let examples = format!("./usr/share/doc/{package}/examples/");
        let unknown = listed.iter().filter(|line| {
            let path = line.split(' ').nth(2).unwrap_or("");
            let is_taken =
                TAKEN.iter().any(|dir| path.starts_with(dir)) || path.starts_with(&examples);
            is_taken && !wanted.contains(**line)
        });
        mistakes.extend(unknown.map(|line| format!("{list} has what is not there: {line}")));
    }
    if !mistakes.is_empty() {
        mistakes.push("after a look at it: PACKAGES_UPDATE=1 make test-packages".to_owned());
    }
    fail_with(&mistakes);
}

/// shellcheck looks at them as well, where it is installed.
#[test]
fn the_scripts_are_ones_for_a_plain_shell() {
    let mut scripts = matching("packaging/*.sh");
    scripts.extend(matching("packaging/hooks/*"));
    for kind in ["preinst", "postinst", "prerm", "postrm"] {
        scripts.extend(matching(&format!("debian/*.{kind}")));
    }
    assert!(scripts.len() > 10, "only {} were found", scripts.len());
    let mut mistakes = Vec::new();
    for script in scripts {
        mistakes.extend(complaint(Command::new("sh").arg("-n"), &script));
        mistakes.extend(complaint(
            Command::new("shellcheck").args(["-s", "sh", "-S", "warning"]),
            &script,
        ));
    }
    fail_with(&mistakes);
}

/// What a program finds wrong with a script; nothing if it is not installed.
fn complaint(command: &mut Command, script: &Path) -> Option<String> {
    match command.arg(script).output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            Some(format!("{}: {said}", script.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    }
}
