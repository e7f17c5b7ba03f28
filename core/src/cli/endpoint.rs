//! SRC and DST as they are written: a local path, `[user@]host:path`, or `ssh://[user@]host[:port]/path`.

use crate::error::{Error, Kind, Result};
use crate::remote::HostSpec;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One end of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A path on this host.
    Local(PathBuf),
    /// A path on another host.
    Remote(HostSpec, PathBuf),
}

impl Endpoint {
    /// Reads an endpoint. As with scp, a colon before the first slash makes it remote; a local name
    /// with a colon is written with its directory: `./vm:1.img`.
    pub fn parse(text: &OsStr) -> Result<Endpoint> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(Error::new(Kind::Usage, "an empty path was given"));
        }
        if let Some(rest) = bytes.strip_prefix(b"ssh://") {
            let slash = rest.iter().position(|b| *b == b'/');
            let Some(slash) = slash.filter(|s| *s > 0) else {
                return Err(
                    Error::new(Kind::Usage, format!("{} has no path", text.display()))
                        .advise("write ssh://host/path"),
                );
            };
            let host = host_text(&bytes[..6 + slash], text)?;
            return Ok(Endpoint::Remote(
                HostSpec::parse(host)?,
                path(&rest[slash..]),
            ));
        }
        // The colon after a bracketed IPv6 address ends the host, those inside it do not.
        let head = bytes.split(|b| *b == b'/').next().unwrap_or(bytes);
        let from = match head.iter().position(|b| *b == b']') {
            Some(end) if head.contains(&b'[') => end,
            _ => 0,
        };
        let colon = bytes[from..]
            .iter()
            .position(|b| *b == b':')
            .map(|i| from + i);
        let slash = bytes.iter().position(|b| *b == b'/');
        match colon {
            Some(colon) if slash.is_none_or(|slash| colon < slash) => {
                if std::fs::symlink_metadata(text).is_ok() {
                    return Err(Error::new(
                        Kind::Usage,
                        format!(
                            "{} is the name of a local file but reads as host:path",
                            text.display()
                        ),
                    )
                    .advise("write ./NAME for the file, or ssh://HOST/PATH for the host"));
                }
                if colon + 1 == bytes.len() {
                    return Err(Error::new(
                        Kind::Usage,
                        format!("{} names no path", text.display()),
                    ));
                }
                let host = HostSpec::parse(host_text(&bytes[..colon], text)?)?;
                Ok(Endpoint::Remote(host, path(&bytes[colon + 1..])))
            }
            _ => Ok(Endpoint::Local(PathBuf::from(text))),
        }
    }

    /// True if it is on another host.
    pub fn is_remote(&self) -> bool {
        matches!(self, Endpoint::Remote(..))
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn host_text<'a>(bytes: &'a [u8], all: &OsStr) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| {
        Error::new(
            Kind::Usage,
            format!("the host in {} is not text", all.display()),
        )
    })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Local(path) => write!(f, "{}", path.display()),
            Endpoint::Remote(host, path) => write!(f, "{host}:{}", path.display()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint> {
        Endpoint::parse(OsStr::new(text))
    }

    fn remote(text: &str) -> (String, String) {
        match parse(text).unwrap() {
            Endpoint::Remote(host, path) => (host.to_string(), path.display().to_string()),
            local => panic!("{text} was read as {local:?}"),
        }
    }

    #[test]
    fn a_colon_before_the_first_slash_makes_it_remote() {
        for local in [
            "a.img",
            "/dev/sdb",
            "./vm:1.img",
            "dir/vm:1.img",
            "-y.img",
            "a b;$(c)'\"\n",
        ] {
            assert_eq!(parse(local).unwrap(), Endpoint::Local(local.into()));
        }
        let (host, path) = remote("root@h1:/dev/pve/a b;$(x)");
        assert_eq!(
            (host.as_str(), path.as_str()),
            ("root@h1", "/dev/pve/a b;$(x)")
        );
        assert_eq!(remote("h1:-y.img").1, "-y.img");
        assert_eq!(remote("h1:a:b").1, "a:b");
        assert_eq!(remote("ssh://root@h1:2222/x/y").1, "/x/y");
        assert_eq!(remote("[fe80::1]:/x").1, "/x");
        assert_eq!(remote("h1:/a[x]").1, "/a[x]");
    }

    #[test]
    fn what_has_no_host_or_path_is_refused() {
        for bad in [
            "",
            "h1:",
            ":/x",
            "ssh://h1",
            "ssh:///x",
            "-oProxyCommand=x:/y",
            "ssh://-x/y",
            "h 1:/x",
        ] {
            let e = parse(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{bad}: {e}");
        }
    }
}
