//! The file that a picture goes into: found writable before the sync starts, in its place only when it
//! is complete.

use super::{png, svg, Caption};
use crate::cli::output_file::{parent, Replacing};
use crate::cli::Endpoint;
use crate::error::{Error, Kind, Result};
use crate::sync::BlockMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// A picture to be. Dropped before it is written, it leaves nothing behind.
#[derive(Debug)]
pub struct MapFile {
    path: PathBuf,
    format: Format,
    file: NamedTempFile,
}

impl MapFile {
    /// Makes sure that a picture can be written to `path`, and that none of the images is there.
    pub fn create(path: &Path, images: [&Endpoint; 2]) -> Result<MapFile> {
        let format = format(path)?;
        for image in images {
            if let Endpoint::Local(image) = image {
                is_not(path, image)?;
            }
        }
        MAP.check(path)?;
        let file = tempfile::Builder::new()
            .prefix(".rblocksync-map-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent(path))
            .map_err(|e| Error::io(format!("cannot write {}", path.display()), e))?;
        Ok(MapFile {
            path: path.to_owned(),
            format,
            file,
        })
    }

    /// Draws the map and puts it in its place.
    pub fn write(mut self, map: &BlockMap, caption: &Caption) -> Result<()> {
        let done = match caption.dry_run {
            false => "the sync is done",
            true => "the dry run is done",
        };
        let what = format!(
            "{done}, but not its map: cannot write {}",
            self.path.display()
        );
        let cannot = |e| Error::io(what.clone(), e);
        let bytes = match self.format {
            Format::Svg => svg::render(map, caption).into_bytes(),
            Format::Png => png::render(map, caption)
                .map_err(|e| Error::new(Kind::Io, what.clone()).because(e))?,
        };
        self.file.write_all(&bytes).map_err(cannot)?;
        self.file.as_file().sync_all().map_err(cannot)?;
        self.file.persist(&self.path).map_err(|e| cannot(e.error))?;
        Ok(())
    }
}

fn format(path: &Path) -> Result<Format> {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "svg" => Ok(Format::Svg),
        "png" => Ok(Format::Png),
        _ => Err(Error::new(
            Kind::Usage,
            format!("{} is neither .svg nor .png", path.display()),
        )
        .advise("the name after --map tells what kind of picture it is to be")),
    }
}

/// The entry of a directory that a path names, links to that directory followed.
fn entry(path: &Path) -> Option<PathBuf> {
    let dir = parent(path).canonicalize().ok()?;
    Some(dir.join(path.file_name()?))
}

/// The picture takes the place of what has its name: that must not be an image, by whatever name.
fn is_not(path: &Path, image: &Path) -> Result<()> {
    let Some(place) = entry(path) else {
        return Ok(());
    };
    if entry(image).as_ref() == Some(&place) || image.canonicalize().is_ok_and(|i| i == place) {
        return Err(Error::new(
            Kind::Usage,
            format!("{} cannot be an image and its map", path.display()),
        ));
    }
    Ok(())
}

/// An image of that name may be on its way from another side.
const MAP: Replacing = Replacing {
    name: "map",
    kind: "picture",
    option: "--map",
    is_one: |head| {
        let known: [&[u8]; 3] = [b"\x89PNG\r\n\x1a\n", b"<svg", b"<?xml"];
        known.iter().any(|k| head.starts_with(k))
    },
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(map: &Path, image: &Path) -> Error {
        let image = Endpoint::Local(image.to_owned());
        MapFile::create(map, [&image, &image]).unwrap_err()
    }

    #[test]
    fn the_name_tells_the_kind() {
        assert_eq!(format(Path::new("a/b.SVG")).unwrap(), Format::Svg);
        assert_eq!(format(Path::new("b.x.png")).unwrap(), Format::Png);
        for bad in ["b", "b.jpg", ".svg", "svg", "b.svg.gz", "b.svg/c"] {
            assert_eq!(
                format(Path::new(bad)).unwrap_err().kind(),
                Kind::Usage,
                "{bad}"
            );
        }
    }

    #[test]
    fn an_image_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (image, new) = (at("image.png"), at("new.png"));
        std::fs::write(&image, "data").unwrap();
        std::os::unix::fs::symlink(dir.path(), at("also")).unwrap();
        std::os::unix::fs::symlink(&image, at("link")).unwrap();
        std::os::unix::fs::symlink(at("target"), at("link.png")).unwrap();
        for (map, endpoint) in [
            (&image, &image),
            (&new, &new),
            (&at("also/image.png"), &image),
            (&at("also/new.png"), &new),
            (&image, &at("link")),
        ] {
            let error = refused(map, endpoint);
            assert_eq!(error.kind(), Kind::Usage, "{}", map.display());
        }
        std::fs::create_dir(at("directory.svg")).unwrap();
        for map in ["image.png", "link.png", "directory.svg"] {
            assert_eq!(
                refused(&at(map), &at("other")).kind(),
                Kind::Refused,
                "{map}"
            );
        }
        assert_eq!(
            refused(&at("none/x.svg"), &at("other")).kind(),
            Kind::NotFound
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5);
    }
}
