//! The file that the page goes into: complete, or not there.

use crate::cli::output_file::{parent, Replacing};
use crate::error::{Error, Kind, Result};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How every page begins that is written here. Only a file that begins so is replaced.
pub(super) const BEGINNING: &str = "<!DOCTYPE html>";

/// Reads a mode in octal. The page can be read; to change it, or to run it, is for nobody but its owner.
pub(super) fn parse_mode(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & 0o400 != 0 && mode & !0o644 == 0 => Ok(mode),
        _ => Err(Error::new(
            Kind::Usage,
            "not a mode for a file that others may read at most",
        )
        .advise("600, 640 or 644")),
    }
}

/// A page to be. Dropped before it is written, it leaves nothing behind.
pub(super) struct PageFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl PageFile {
    /// Makes sure that a page can be written to `path`, and that nothing else is there.
    pub(super) fn create(path: &Path, mode: u32) -> Result<PageFile> {
        PAGE.check(path)?;
        let cannot = |e| Error::io(format!("cannot write {}", path.display()), e);
        let file = tempfile::Builder::new()
            .prefix(".rblocksync-report-")
            .tempfile_in(parent(path))
            .map_err(cannot)?;
        // After the creation, so that the umask has no say.
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))
            .map_err(cannot)?;
        let path = path.to_owned();
        Ok(PageFile { path, file })
    }

    /// Puts the page in its place.
    pub(super) fn write(mut self, html: &str) -> Result<()> {
        let cannot = |e| Error::io(format!("cannot write {}", self.path.display()), e);
        self.file.write_all(html.as_bytes()).map_err(cannot)?;
        self.file.as_file().sync_all().map_err(cannot)?;
        self.file
            .persist(&self.path)
            .map(drop)
            .map_err(|e| Error::io(format!("cannot write {}", self.path.display()), e.error))
    }
}

const PAGE: Replacing = Replacing {
    name: "page",
    kind: "page",
    option: "--html",
    is_one: |head| {
        let begins = head.get(..BEGINNING.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(BEGINNING.as_bytes()))
    },
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_page_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("disk.raw"), "data").unwrap();
        std::os::unix::fs::symlink(at("disk.raw"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("none"), at("dangling")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        for name in ["disk.raw", "link", "dangling", "dir"] {
            let refused = PageFile::create(&at(name), 0o600).err().unwrap();
            assert_eq!(refused.kind(), Kind::Refused, "{name}");
        }
        let missing = PageFile::create(&at("none/page.html"), 0o600)
            .err()
            .unwrap();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_page_is_replaced_as_a_whole_and_has_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        for (mode, text) in [(0o600, "long page"), (0o644, "page")] {
            let page = PageFile::create(&path, mode).unwrap();
            page.write(&format!("{BEGINNING}{text}")).unwrap();
            let found = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode);
            let read = std::fs::read_to_string(&path).unwrap();
            assert_eq!(read, format!("{BEGINNING}{text}"));
        }
        drop(PageFile::create(&path, 0o600).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_the_owner_may_change_a_page() {
        for (text, mode) in [("600", 0o600), ("0644", 0o644), ("640", 0o640)] {
            assert_eq!(parse_mode(text).unwrap(), mode);
        }
        for bad in ["", "666", "755", "44", "4644", "-1", "0o644", "888"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
