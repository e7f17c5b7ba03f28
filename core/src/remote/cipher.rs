//! Which cipher ssh is to use: what it encrypts is most of what sending costs.
//!
//! OpenSSH prefers chacha20-poly1305, which takes about twice the processor time of AES-GCM where the processor
//! has instructions for AES. Both authenticate what they encrypt. A user who has chosen ciphers for this host, or an
//! administrator for all, is not overruled.

use super::master::{host_arguments, SshOptions};
use super::HostSpec;
use std::ffi::OsString;
use std::time::Duration;

/// Which ciphers to offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cipher {
    /// AES-GCM first, if this processor has instructions for AES and ssh's configuration names no ciphers.
    #[default]
    Auto,
    /// As ssh's configuration says.
    Configured,
    /// These: a list as for `Ciphers` in ssh_config(5).
    List(String),
}

/// Put before ssh's own preferences: ssh_config(5), `Ciphers`, "^".
const AES_FIRST: &str = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com";

/// Asking ssh for its configuration may involve looking up a name.
const ASK_TIME: Duration = Duration::from_secs(10);

impl Cipher {
    /// The same with [`Cipher::Auto`] decided, so that further connections to the host need not ask again.
    pub(super) fn decided(&self, host: &HostSpec, options: &SshOptions) -> Cipher {
        match self.choice(host, options) {
            Some(list) => Cipher::List(list),
            None => Cipher::Configured,
        }
    }

    /// The value for ssh's `Ciphers`; `None` to say nothing.
    pub(super) fn choice(&self, host: &HostSpec, options: &SshOptions) -> Option<String> {
        match self {
            Cipher::Configured => None,
            Cipher::List(list) => Some(list.clone()),
            Cipher::Auto => {
                let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                if !has_aes(&cpu) {
                    return None;
                }
                // `none` reads no configuration file at all: ssh(1), `-F`.
                let configured = ciphers(host_arguments(host, options))?;
                let default = ciphers(vec!["-F".into(), "none".into(), "localhost".into()])?;
                (configured == default).then(|| AES_FIRST.to_owned())
            }
        }
    }
}

/// Whether the processors have instructions for AES: proc(5), `/proc/cpuinfo`.
fn has_aes(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        // x86 and ARM.
        .find(|(name, _)| matches!(name.trim(), "flags" | "Features"))
        .is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "aes"))
}

/// The ciphers that ssh would offer with these arguments, best first. `None` if it does not say: then
/// connecting will tell what is wrong.
fn ciphers(args: Vec<OsString>) -> Option<String> {
    let text = ask_config(args)?;
    let value = text.lines().find_map(|line| line.strip_prefix("ciphers "));
    value.map(str::to_owned)
}

/// What ssh would do with these arguments, a setting a line. `None` if it does not say.
pub(super) fn ask_config(args: Vec<OsString>) -> Option<String> {
    let ask = duct::cmd("ssh", std::iter::once("-G".into()).chain(args))
        .stdin_null()
        .stdout_capture()
        .stderr_null();
    let handle = ask.start().ok()?;
    let Ok(Some(output)) = handle.wait_timeout(ASK_TIME) else {
        let _ = handle.kill();
        return None;
    };
    let said = output.status.success();
    said.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_chosen_is_not_overruled() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let host = HostSpec::parse("somewhere").unwrap();
        let options = SshOptions {
            config_file: Some(file.path().to_owned()),
            ..SshOptions::default()
        };
        let choice = |cipher: Cipher| cipher.choice(&host, &options);
        let aes = has_aes(&std::fs::read_to_string("/proc/cpuinfo").unwrap());
        assert_eq!(choice(Cipher::Auto), aes.then(|| AES_FIRST.to_owned()));
        assert_eq!(choice(Cipher::Configured), None);
        let list = || "aes256-ctr".to_owned();
        assert_eq!(choice(Cipher::List(list())), Some(list()));
        std::fs::write(&file, "Host somewhere\nCiphers aes256-ctr\n").unwrap();
        assert_eq!(choice(Cipher::Auto), None);
        std::fs::write(&file, "Host elsewhere\nCiphers aes256-ctr\n").unwrap();
        assert_eq!(choice(Cipher::Auto), aes.then(|| AES_FIRST.to_owned()));
        std::fs::write(&file, "NoSuchOption yes\n").unwrap();
        assert_eq!(choice(Cipher::Auto), None);
    }

    #[test]
    fn instructions_for_aes_are_recognised() {
        assert!(has_aes(
            "processor\t: 0\nflags\t\t: fpu pclmulqdq aes xsave\n"
        ));
        assert!(has_aes("processor\t: 0\nFeatures\t: fp asimd aes sha1\n"));
        assert!(!has_aes("processor\t: 0\nflags\t\t: fpu vaes aesx\n"));
        assert!(!has_aes("flags"));
        assert!(!has_aes(""));
    }
}
