//! Keys and configuration of ssh, and the master connection that makes each command in a guest cheap.

use super::error::{Context, Error, Result};
use super::keeper::Keeper;
use super::tool;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Makes the keys of a lab in its run directory, and below `own` the files the guests get of them.
pub(crate) fn make_keys(dir: &Path, own: &Path, hosts: &[(&str, u8)]) -> Result<()> {
    let key = |path: &Path| {
        tool::run(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
                .arg(path),
        )
    };
    let read = |path: PathBuf| {
        fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
    };
    let (root_ssh, host_keys) = (own.join("root/.ssh"), own.join("etc/ssh/host-keys"));
    for made in [&root_ssh, &host_keys] {
        fs::create_dir_all(made).context(|| format!("cannot make {}", made.display()))?;
    }
    key(&dir.join("id"))?;
    let mut known = String::new();
    for (name, number) in hosts {
        key(&host_keys.join(name))?;
        let public = read(host_keys.join(format!("{name}.pub")))?;
        known.push_str(&format!("{name},10.77.0.{number} {public}"));
    }
    let copy = |from: &Path, to: PathBuf| {
        fs::copy(from, &to)
            .map(drop)
            .context(|| format!("cannot make {}", to.display()))
    };
    copy(&dir.join("id"), root_ssh.join("id_ed25519"))?;
    copy(&dir.join("id.pub"), root_ssh.join("authorized_keys"))?;
    let write =
        |to: PathBuf| fs::write(&to, &known).context(|| format!("cannot write {}", to.display()));
    write(dir.join("known_hosts"))?;
    write(root_ssh.join("known_hosts"))
}

/// Writes the ssh configuration by which this host reaches the guests: `ssh -F FILE hva`.
pub(crate) fn write_config(dir: &Path, ports: &[(&str, u16)]) -> Result<()> {
    let quoted = |name: &str| format!("\"{}\"", dir.join(name).display());
    let mut text = String::new();
    for (name, port) in ports {
        text += &format!("Host {name}\n  Port {port}\n  HostKeyAlias {name}\n");
    }
    text += &format!(
        "Host *\n  HostName 127.0.0.1\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  \
         BatchMode yes\n  ConnectTimeout 30\n  LogLevel ERROR\n  KexAlgorithms curve25519-sha256\n  \
         Ciphers aes128-gcm@openssh.com\n  ControlPath {}\n  ControlMaster no\n",
        quoted("id"),
        quoted("known_hosts"),
        quoted("%n.ssh"),
    );
    // By rename, as another thread's ssh may be reading it.
    let new = dir.join("ssh_config.new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, dir.join("ssh_config")))
        .context(|| format!("cannot write {}", dir.join("ssh_config").display()))
}

/// A master connection. Commands of its guest go over it without a new handshake.
#[derive(Debug)]
pub(crate) struct Master {
    process: Child,
}

impl Master {
    /// Connects to `name`; returns when the control socket takes commands.
    pub fn connect(dir: &Path, name: &str, keeper: &Keeper) -> Result<Master> {
        // Left by a master that was killed. None at the first start.
        fs::remove_file(dir.join(format!("{name}.ssh"))).ok();
        let mut process = keeper.spawn("ssh", |command| {
            command
                .arg("-F")
                .arg(dir.join("ssh_config"))
                // LocalCommand runs once the connection stands and the control socket listens.
                .args([
                    "-M",
                    "-N",
                    "-o",
                    "PermitLocalCommand=yes",
                    "-o",
                    "LocalCommand=echo up",
                    "--",
                    name,
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        })?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .context(|| "cannot read from ssh")?;
        }
        if line.trim() == "up" {
            return Ok(Master { process });
        }
        let mut why = String::new();
        if let Some(mut stderr) = process.stderr.take() {
            stderr.read_to_string(&mut why).ok();
        }
        process.kill().ok();
        process.wait().ok();
        Err(Error::new(format!("no ssh to {name}: {}", why.trim())))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// `text` as one word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quoted_text_is_one_word() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's $(x)"), r"'it'\''s $(x)'");
    }
}
