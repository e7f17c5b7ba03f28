//! The block nodes of a running QEMU: which of them is a disk's, and its dirty bitmaps.
//!
//! Names and fields are those of QEMU's "QMP reference manual", `query-named-block-nodes`.

use super::qmp::Qmp;
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use serde::Deserialize;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the monitor may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Drivers of the nodes that show a disk's bytes, the best one first.
fn drivers(format: ImageFormat) -> &'static [&'static str] {
    match format {
        ImageFormat::Raw => &["raw", "host_device", "file"],
        ImageFormat::Qcow2 => &["qcow2"],
    }
}

/// Drivers of nodes that show a file as it is, which a node with a format may interpret, and of filters.
const BELOW_FORMATS: [&str; 5] = [
    "host_device",
    "file",
    "throttle",
    "copy-on-read",
    "copy-before-write",
];

/// A node of QEMU's block layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BlockNode {
    pub node_name: String,
    drv: String,
    file: String,
    #[serde(default)]
    pub ro: bool,
    #[serde(default)]
    pub dirty_bitmaps: Vec<DirtyBitmap>,
    image: Image,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    virtual_size: u64,
    #[serde(default)]
    snapshots: Vec<Value>,
    #[serde(default)]
    format_specific: Value,
}

/// A dirty bitmap of a node. One without a name belongs to a block job.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct DirtyBitmap {
    #[serde(default)]
    pub name: String,
    pub recording: bool,
    pub busy: bool,
    /// Bytes that are marked.
    pub count: u64,
    #[serde(default)]
    pub inconsistent: bool,
}

impl BlockNode {
    pub fn bitmap(&self, name: &str) -> Option<&DirtyBitmap> {
        self.dirty_bitmaps.iter().find(|bitmap| bitmap.name == name)
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.image.virtual_size
    }

    /// Whether a bitmap of it can outlive QEMU without being in anybody's way: QEMU refuses to roll an image with
    /// persistent bitmaps back to an internal snapshot, and those of version 2 cannot hold any.
    pub fn keeps_bitmaps(&self) -> bool {
        self.drv == "qcow2"
            && !self.ro
            && self.image.snapshots.is_empty()
            && self.image.format_specific["data"]["compat"] != "0.10"
    }

    fn is_of(&self, path: &Path) -> bool {
        file_name(&self.file).is_some_and(|file| {
            file == path || std::fs::canonicalize(file).is_ok_and(|file| file == path)
        })
    }
}

/// The path in QEMU's name for a node: plain, or in JSON if the node has unusual options.
fn file_name(name: &str) -> Option<PathBuf> {
    let Some(text) = name.strip_prefix("json:") else {
        return Some(name.into());
    };
    let value: Value = serde_json::from_str(text).ok()?;
    let mut node = &value;
    // As deep as formats and filters are stacked; JSON's own depth is limited.
    loop {
        match node.get("filename") {
            Some(name) => return name.as_str().map(PathBuf::from),
            None => node = node.get("file")?,
        }
    }
}

/// All nodes.
pub(super) fn nodes(qmp: &mut Qmp) -> Result<Vec<BlockNode>> {
    let answer = qmp.execute(
        "query-named-block-nodes",
        json!({"flat": true}),
        ANSWER_TIMEOUT,
    )?;
    serde_json::from_value(answer)
        .map_err(|e| Error::new(Kind::Protocol, "QEMU describes its block nodes oddly").because(e))
}

/// The node of the disk in the file or device `path`, which has no links in it.
pub(super) fn find(nodes: &[BlockNode], path: &Path, format: ImageFormat) -> Result<BlockNode> {
    for driver in drivers(format) {
        let formats = |n: &&BlockNode| !BELOW_FORMATS.contains(&n.drv.as_str()) && n.is_of(path);
        if BELOW_FORMATS.contains(driver) && nodes.iter().any(|n| formats(&n)) {
            // What it shows is the container, not the disk.
            break;
        }
        let mut found = nodes.iter().filter(|n| n.drv == *driver && n.is_of(path));
        if let Some(node) = found.next() {
            if found.next().is_none() {
                return Ok(node.clone());
            }
            return Err(Error::new(
                Kind::Refused,
                format!("QEMU has {} open more than once", path.display()),
            ));
        }
    }
    Err(Error::new(
        Kind::NotFound,
        format!("QEMU does not have {} open as {format:?}", path.display()),
    )
    .advise("the configuration may have been changed since the VM was started: restart the VM"))
}

/// Bytes that bitmap `name` of the disk marks as changed, if it is there and can be trusted.
pub fn dirty_bytes(
    monitor: &Path,
    path: &Path,
    format: ImageFormat,
    name: &str,
) -> Result<std::result::Result<u64, String>> {
    let mut qmp = Qmp::connect(monitor, ANSWER_TIMEOUT)?;
    let path = std::fs::canonicalize(path)
        .map_err(|e| Error::io(format!("cannot find {}", path.display()), e))?;
    let node = find(&nodes(&mut qmp)?, &path, format)?;
    Ok(trusted(&node, name).map(|bitmap| bitmap.count))
}

/// The bitmap of this name if it has recorded every write since it was made; else why that cannot be relied on.
pub(super) fn trusted<'a>(
    node: &'a BlockNode,
    name: &str,
) -> std::result::Result<&'a DirtyBitmap, String> {
    match node.bitmap(name) {
        None => Err("QEMU has no bitmap of what changed since: it was started anew".into()),
        Some(bitmap) if bitmap.inconsistent => Err(
            "QEMU's bitmap of what changed is inconsistent: it was not shut down cleanly".into(),
        ),
        Some(bitmap) if !bitmap.recording => {
            Err("QEMU's bitmap of what changed was disabled".into())
        }
        Some(bitmap) if bitmap.busy => Err("QEMU's bitmap of what changed is in use".into()),
        Some(bitmap) => Ok(bitmap),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(drv: &str, file: &str) -> BlockNode {
        serde_json::from_value(json!({
            "node-name": drv, "drv": drv, "file": file, "image": {"virtual-size": 1},
        }))
        .unwrap()
    }

    #[test]
    fn a_disk_is_found_by_its_file() {
        let inner = r#"json:{"driver": "raw", "file": {"driver": "file", "filename": "/a, b"}}"#;
        let over = r#"json:{"backing": {"driver": "raw", "file": {"filename": "/a, b"}}, "driver": "qcow2",
                            "file": {"driver": "file", "filename": "/scratch"}}"#;
        let nodes = [
            node("file", "/a, b"),
            node("raw", inner),
            node("qcow2", over),
            node("throttle", inner),
        ];
        let found = find(&nodes, Path::new("/a, b"), ImageFormat::Raw).unwrap();
        assert_eq!(found.node_name, "raw");
        let found = find(&nodes, Path::new("/scratch"), ImageFormat::Qcow2).unwrap();
        assert_eq!(found.node_name, "qcow2");
        let error = find(&nodes, Path::new("/a, b"), ImageFormat::Qcow2).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        let below = [
            node("file", "/y"),
            node("qcow2", "/y"),
            node("throttle", "/y"),
        ];
        assert!(find(&below, Path::new("/y"), ImageFormat::Raw).is_err());
        let plain = [node("throttle", "/y"), node("host_device", "/y")];
        let found = find(&plain, Path::new("/y"), ImageFormat::Raw).unwrap();
        assert_eq!(found.node_name, "host_device");
        let twice = [node("raw", "/x"), node("raw", "/x")];
        assert!(find(&twice, Path::new("/x"), ImageFormat::Raw).is_err());
        assert_eq!(file_name("json:{"), None);
        assert_eq!(file_name(r#"json:{"file": {"driver": "nbd"}}"#), None);
    }
}
