//! Keys of ours for other hosts, each good for one restricted agent there: made by the verb `setup`.

use super::HostSpec;
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use crate::lock::private_dir;
use std::path::{Path, PathBuf};

/// Longest public key that is read, in bytes.
const PUBLIC_BYTES_MAX: u64 = 16 << 10;

/// Where the key for a host is, or would be, in a directory of keys.
pub fn key_path(dir: &Path, host: &HostSpec) -> PathBuf {
    let user = host.user().map(|user| format!("{user}@"));
    let port = host.port().map(|port| format!(":{port}"));
    // None of the three can hold a slash.
    dir.join(format!(
        "to-{}{}{}",
        user.unwrap_or_default(),
        host.host(),
        port.unwrap_or_default()
    ))
}

/// The key for a host, if there is one.
pub(super) fn key_for(dir: Option<&Path>, host: &HostSpec) -> Option<PathBuf> {
    let path = key_path(dir?, host);
    path.is_file().then_some(path)
}

/// Makes a key unless it is there, and gives its public part, one line without a comment. True: it is new.
pub fn make_key(path: &Path) -> Result<(String, bool)> {
    let is_new = !path.exists();
    if is_new {
        private_dir(path.parent().unwrap_or(path))?;
        Cmd::new(Tool::SshKeygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "rblocksync", "-f"])
            .arg(path)
            .run()?;
    }
    let public = public_of(path);
    let meta = std::fs::metadata(&public)
        .map_err(|e| Error::io(format!("cannot look at {}", public.display()), e))?;
    let text = match meta.len() <= PUBLIC_BYTES_MAX {
        true => std::fs::read_to_string(&public)
            .map_err(|e| Error::io(format!("cannot read {}", public.display()), e))?,
        false => String::new(),
    };
    let mut words = text.split_whitespace();
    let is_key = |word: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=-".contains(&b);
        !word.is_empty() && word.bytes().all(plain)
    };
    match (words.next(), words.next()) {
        (Some("ssh-ed25519"), Some(key)) if is_key(key) => {
            Ok((format!("ssh-ed25519 {key}"), is_new))
        }
        _ => Err(
            Error::new(Kind::Io, format!("{} is no public key", public.display()))
                .advise(format!("remove it and {}, and try again", path.display())),
        ),
    }
}

/// Removes a key. False: there was none.
pub fn remove_key(path: &Path) -> Result<bool> {
    let mut was_there = false;
    for path in [path, &public_of(path)] {
        was_there |= remove_present(path)?;
    }
    Ok(was_there)
}

fn public_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_key_is_made_once_and_for_us_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let host = HostSpec::parse("ssh://root@h:22").unwrap();
        let path = key_path(&keys, &host);
        assert_eq!(key_for(Some(&keys), &host), None);
        let (public, is_new) = make_key(&path).unwrap();
        assert!(is_new && public.starts_with("ssh-ed25519 AAAA") && !public.contains('\n'));
        assert_eq!(make_key(&path).unwrap(), (public, false));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(&keys).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(key_for(Some(&keys), &host), Some(path.clone()));
        assert_eq!(key_for(Some(&keys), &HostSpec::parse("h").unwrap()), None);
        assert_eq!(key_for(None, &host), None);
        assert!(remove_key(&path).unwrap());
        assert!(!remove_key(&path).unwrap());
        assert_eq!(std::fs::read_dir(&keys).unwrap().count(), 0);
    }

    #[test]
    fn no_host_leads_out_of_the_directory() {
        for host in ["..", "a", "u@..", "[::1]:22", "ssh://u@h:1"] {
            let path = key_path(Path::new("/keys"), &HostSpec::parse(host).unwrap());
            assert_eq!(path.parent(), Some(Path::new("/keys")), "{host}");
            assert!(path.file_name().is_some_and(|name| name.len() > 3));
        }
    }
}
