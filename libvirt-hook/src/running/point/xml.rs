//! A backup and its checkpoint, as libvirt wants them described.

use crate::xml::Element;
use std::path::PathBuf;

/// A disk in a backup.
pub(super) struct BackupDisk {
    /// libvirt's name for it.
    pub name: String,
    /// The name of its export.
    pub export: String,
    /// The checkpoint since which what changed is told, and the name under which it is.
    pub since: Option<(String, String)>,
    /// The image that is there already for what the guest overwrites.
    pub scratch: PathBuf,
}

/// A backup in pull mode.
pub(super) struct Backup {
    pub socket: PathBuf,
    pub disks: Vec<BackupDisk>,
    /// Disks that are not in it.
    pub left_out: Vec<String>,
    /// The checkpoint that begins with it.
    pub checkpoint: Option<String>,
    /// The disks of which that records what changes.
    pub recorded: Vec<String>,
}

impl Backup {
    /// <https://libvirt.org/formatbackup.html>
    pub fn job(&self) -> Element {
        let server = Element::new("server")
            .with("transport", "unix")
            .with("socket", self.socket.to_string_lossy());
        let mut disks = Element::new("disks");
        for disk in &self.disks {
            let mut element = Element::new("disk")
                .with("name", &disk.name)
                .with("backup", "yes")
                .with("type", "file")
                .with("exportname", &disk.export);
            match &disk.since {
                Some((since, export)) => {
                    element.set("backupmode", "incremental");
                    element.set("incremental", since);
                    element.set("exportbitmap", export);
                }
                None => element.set("backupmode", "full"),
            }
            let scratch = Element::new("scratch").with("file", disk.scratch.to_string_lossy());
            let driver = Element::new("driver").with("type", "qcow2");
            disks.push(element.holding(driver).holding(scratch));
        }
        for name in &self.left_out {
            disks.push(Element::new("disk").with("name", name).with("backup", "no"));
        }
        Element::new("domainbackup")
            .with("mode", "pull")
            .holding(server)
            .holding(disks)
    }

    /// <https://libvirt.org/formatcheckpoint.html>
    pub fn begun(&self) -> Option<Element> {
        let name = self.checkpoint.as_ref()?;
        let mut disks = Element::new("disks");
        for recorded in &self.recorded {
            disks.push(of_disk(recorded, "bitmap"));
        }
        let backed_up = self.disks.iter().map(|disk| &disk.name);
        // libvirt would want a bitmap of those that it is not told of, and raw disks have none.
        for other in backed_up
            .chain(&self.left_out)
            .filter(|name| !self.recorded.contains(name))
        {
            disks.push(of_disk(other, "no"));
        }
        let checkpoint =
            Element::new("domaincheckpoint").holding(Element::new("name").saying(name));
        Some(checkpoint.holding(disks))
    }
}

fn of_disk(name: &str, checkpoint: &str) -> Element {
    Element::new("disk")
        .with("name", name)
        .with("checkpoint", checkpoint)
}
