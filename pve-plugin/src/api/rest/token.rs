//! The API token: where it comes from, and where it never goes.
//!
//! It comes from a file or from the environment, never from an argument, which everybody on the host could read. It goes
//! into one header, marked as a secret, and into no message and no log.

use rblocksync::error::{Error, Kind, Result};
use reqwest::header::HeaderValue;
use rustix::process::{set_dumpable_behavior, DumpableBehavior};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The variable that may hold the token.
pub const VARIABLE: &str = "PVESYNC_API_TOKEN";
const SCHEME: &str = "PVEAPIToken=";
/// Far above any token.
const MAX_BYTES: u64 = 4096;

/// `USER@REALM!ID=SECRET`.
#[derive(Clone)]
pub struct Token {
    name: String,
    secret: String,
}

impl Token {
    /// Takes what was given when the token was made, with or without `PVEAPIToken=` before it. `from` is for messages.
    pub fn parse(text: &str, from: &str) -> Result<Token> {
        // A core dump would hold it, and so would what a debugger of the same user reads. The kernel knows the call: it
        // cannot fail.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let bad = |why: &str| {
            Error::new(Kind::Usage, format!("{from} holds no API token: {why}"))
                .advise("it is one line: USER@REALM!ID=SECRET")
        };
        let text = text.trim();
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (name, secret) = text.split_once('=').ok_or_else(|| bad("there is no '='"))?;
        let (user, id) = name.split_once('!').ok_or_else(|| bad("there is no '!'"))?;
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic());
        if !user.contains('@') || ![user, id, secret].iter().all(|s| plain(s)) {
            return Err(bad("a part is missing, or holds what has no place there"));
        }
        Ok(Token {
            name: name.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// Reads it from a file that others cannot read.
    pub fn from_file(path: &Path) -> Result<Token> {
        let cannot = |e| {
            Error::io(
                format!("cannot read the API token in {}", path.display()),
                e,
            )
        };
        let file = File::open(path).map_err(cannot)?;
        let meta = file.metadata().map_err(cannot)?;
        if meta.is_file() && meta.permissions().mode() & 0o007 != 0 {
            return Err(Error::new(
                Kind::Refused,
                format!("everybody can read the API token in {}", path.display()),
            )
            .advise(format!("chmod 600 {}", path.display())));
        }
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(cannot)?;
        Token::parse(&text, &path.display().to_string())
    }

    /// From the file, or else from what the variable [`VARIABLE`] holds.
    pub fn find(file: Option<&Path>, variable: Option<&OsStr>) -> Result<Token> {
        match (file, variable) {
            (Some(path), _) => Token::from_file(path),
            (None, Some(value)) => {
                let text = value.to_str().unwrap_or_default();
                Token::parse(text, &format!("the variable {VARIABLE}"))
            }
            (None, None) => Err(Error::new(Kind::Usage, "there is no API token").advise(format!(
                "give --api-token-file, or set {VARIABLE}; docs/permissions.md tells how to make one"
            ))),
        }
    }

    /// The token without its secret: `USER@REALM!ID`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the request carries.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let text = format!("{SCHEME}{}={}", self.name, self.secret);
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Error::new(Kind::Usage, "the API token does not fit into a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    const SECRET: &str = "12345678-aaaa-bbbb-cccc-1234567890ab";

    #[test]
    fn it_is_read_with_and_without_its_scheme() {
        for text in [
            format!("sync@pve!mine={SECRET}"),
            format!("  PVEAPIToken=sync@pve!mine={SECRET}\n"),
        ] {
            let token = Token::parse(&text, "x").unwrap();
            assert_eq!(token.name(), "sync@pve!mine");
            assert!(!format!("{token:?}").contains(SECRET));
            let header = token.header().unwrap();
            assert!(header.is_sensitive());
            assert_eq!(
                header.to_str().unwrap(),
                format!("PVEAPIToken=sync@pve!mine={SECRET}")
            );
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for text in [
            SECRET.to_owned(),
            format!("sync@pve={SECRET}"),
            format!("sync!mine={SECRET}"),
            format!("sync@pve!={SECRET}"),
            format!("sync@pve!mine={SECRET}\nX-Header: 1"),
            "sync@pve!mine=".to_owned(),
        ] {
            let e = Token::parse(&text, "x").unwrap_err();
            assert!(!e.to_string().contains(SECRET), "{e}");
        }
    }

    #[test]
    fn whoever_holds_a_token_leaves_no_core_dump() {
        Token::parse(&format!("a@pam!b={SECRET}"), "x").unwrap();
        let now = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(now, DumpableBehavior::NotDumpable);
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, format!("sync@pve!mine={SECRET}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let e = Token::from_file(&path).unwrap_err();
        assert_eq!(e.kind(), Kind::Refused);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Token::from_file(&path).unwrap();
        assert_eq!(Token::find(None, None).unwrap_err().kind(), Kind::Usage);
    }
}
