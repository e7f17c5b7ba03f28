//! What the API answers, as far as the product looks at it. Fields that it does not need are skipped, and those that a
//! version may leave out are optional.

use super::lenient::{flag, number, optional_number, optional_text, text};
use super::names::Node;
use crate::volid::Vmid;
use rblocksync::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Version of Proxmox VE, of the node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// "9.1.7"
    pub version: String,
    /// "9.1"
    pub release: String,
}

/// What kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestType {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
    /// What we do not know.
    #[serde(other)]
    Other,
}

/// A guest somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Guest {
    /// Its id, unique in the cluster.
    #[serde(deserialize_with = "vmid")]
    pub vmid: Vmid,
    /// The node that has it.
    pub node: Node,
    /// VM or container.
    #[serde(rename = "type")]
    pub kind: GuestType,
    /// running, stopped; unknown while its node does not answer.
    #[serde(default, deserialize_with = "optional_text")]
    pub status: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "optional_text")]
    pub name: Option<String>,
    /// Its tags, separated by semicolons.
    #[serde(default, deserialize_with = "optional_text")]
    pub tags: Option<String>,
    /// The resource pool that it is in.
    #[serde(default, deserialize_with = "optional_text")]
    pub pool: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "flag")]
    pub template: bool,
    /// Its state in the HA stack, if it is under it.
    #[serde(default, deserialize_with = "optional_text")]
    pub hastate: Option<String>,
    /// The lock on its configuration.
    #[serde(default, deserialize_with = "optional_text")]
    pub lock: Option<String>,
}

fn vmid<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vmid, D::Error> {
    let id = number(from)?;
    u32::try_from(id)
        .ok()
        .and_then(|id| Vmid::new(id).ok())
        .ok_or_else(|| serde::de::Error::custom(format!("{id} is not a VM id")))
}

/// One entry of the cluster's status: the cluster itself, or a node.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum StatusEntry {
    Cluster {
        name: String,
        #[serde(default, deserialize_with = "flag")]
        quorate: bool,
    },
    Node {
        name: Node,
        #[serde(default, deserialize_with = "flag")]
        local: bool,
        #[serde(default, deserialize_with = "flag")]
        online: bool,
        #[serde(default, deserialize_with = "optional_text")]
        ip: Option<String>,
    },
}

/// How the cluster stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its name, and whether it has a quorum. Nothing on a node that is in no cluster.
    pub cluster: Option<(String, bool)>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: Node,
    /// Whether it is the one that answered.
    pub local: bool,
    /// Whether it is up.
    pub online: bool,
    /// Its address in the cluster's network.
    pub ip: Option<String>,
}

impl From<Vec<StatusEntry>> for ClusterStatus {
    fn from(entries: Vec<StatusEntry>) -> Self {
        let mut status = ClusterStatus {
            cluster: None,
            nodes: Vec::new(),
        };
        for entry in entries {
            match entry {
                StatusEntry::Cluster { name, quorate } => status.cluster = Some((name, quorate)),
                StatusEntry::Node {
                    name,
                    local,
                    online,
                    ip,
                } => status.nodes.push(NodeStatus {
                    name,
                    local,
                    online,
                    ip,
                }),
            }
        }
        status
    }
}

/// Something that the HA stack looks after.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HaResource {
    /// `vm:101`, `ct:102`
    pub sid: String,
    /// What it is to be: started, stopped, disabled, ignored.
    #[serde(default, deserialize_with = "optional_text")]
    pub state: Option<String>,
}

/// A job of Proxmox VE's own storage replication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReplicationJob {
    /// `101-0`
    pub id: String,
    /// The VM or container.
    #[serde(deserialize_with = "vmid")]
    pub guest: Vmid,
    /// The node that it replicates to.
    pub target: Node,
    /// Whether it is switched off.
    #[serde(default, deserialize_with = "flag")]
    pub disable: bool,
}

/// Privileges on paths: which, and whether they count below that path too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Permissions(BTreeMap<String, BTreeMap<String, Flag>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Flag(#[serde(deserialize_with = "flag")] bool);

impl Permissions {
    /// Whether there is this privilege on exactly this path, which must be the one that was asked for.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        self.0
            .get(path)
            .is_some_and(|held| held.contains_key(privilege))
    }

    /// Whether what is granted on this path also counts below it.
    pub fn propagates(&self, path: &str, privilege: &str) -> bool {
        self.0
            .get(path)
            .and_then(|held| held.get(privilege))
            .is_some_and(|flag| flag.0)
    }
}

/// A certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Certificate {
    /// `pve-ssl.pem`, `pveproxy-ssl.pem`: the latter is the one in use if there is one.
    #[serde(default)]
    pub filename: Option<String>,
    /// SHA-256, `AA:BB:...`
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Names and addresses that it is for.
    #[serde(default)]
    pub san: Vec<String>,
    /// When it ends, in seconds since 1970.
    #[serde(default, deserialize_with = "optional_number")]
    pub notafter: Option<u64>,
}

/// A storage as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StorageEntry {
    /// Its id.
    pub storage: String,
    /// How it stands.
    #[serde(flatten)]
    pub status: StorageStatus,
}

/// How a storage stands on one node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StorageStatus {
    /// lvmthin, dir, zfspool ...
    #[serde(rename = "type")]
    pub kind: String,
    /// What it may hold: `images,rootdir`
    pub content: String,
    /// Whether it can be used now.
    #[serde(default, deserialize_with = "flag")]
    pub active: bool,
    /// Whether all nodes see the same.
    #[serde(default, deserialize_with = "flag")]
    pub shared: bool,
    /// Bytes in all.
    #[serde(default, deserialize_with = "optional_number")]
    pub total: Option<u64>,
    /// Bytes in use.
    #[serde(default, deserialize_with = "optional_number")]
    pub used: Option<u64>,
    /// Bytes free.
    #[serde(default, deserialize_with = "optional_number")]
    pub avail: Option<u64>,
}

impl StorageStatus {
    /// Whether it may hold disks of VMs.
    pub fn holds_images(&self) -> bool {
        self.content.split(',').any(|c| c.trim() == "images")
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// File or device on the node.
    pub path: String,
    /// raw, qcow2 ...
    pub format: String,
    /// Bytes of the disk.
    #[serde(deserialize_with = "number")]
    pub size: u64,
    /// Bytes that it takes up, where the storage can tell.
    #[serde(default, deserialize_with = "optional_number")]
    pub used: Option<u64>,
}

/// A VM's configuration as it is now, without what is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSettings {
    /// SHA-1 of the file: given back with a change, it keeps that from overwriting somebody else's.
    pub digest: String,
    /// Everything else, by its key.
    pub values: BTreeMap<String, String>,
}

impl VmSettings {
    pub(super) fn read(all: BTreeMap<String, Text>) -> Result<VmSettings> {
        let mut values: BTreeMap<String, String> =
            all.into_iter().map(|(key, value)| (key, value.0)).collect();
        match values.remove("digest") {
            Some(digest) => Ok(VmSettings { digest, values }),
            None => Err(Error::new(
                rblocksync::error::Kind::Protocol,
                "it has no digest",
            )),
        }
    }
}

/// A text that may come as a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Text(#[serde(deserialize_with = "text")] pub(super) String);

/// One setting with what is pending for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PendingSetting {
    /// Its key.
    pub key: String,
    /// What holds now.
    #[serde(default, deserialize_with = "optional_text")]
    pub value: Option<String>,
    /// What will hold after the next start.
    #[serde(default, deserialize_with = "optional_text")]
    pub pending: Option<String>,
    /// Whether it will be gone then: 1, or 2 by force.
    #[serde(default, deserialize_with = "optional_number")]
    pub delete: Option<u64>,
}

/// How a VM is right now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VmStatus {
    /// running or stopped.
    pub status: String,
    /// QEMU's own word: running, paused, prelaunch ...
    #[serde(default, deserialize_with = "optional_text")]
    pub qmpstatus: Option<String>,
    /// The lock on its configuration.
    #[serde(default, deserialize_with = "optional_text")]
    pub lock: Option<String>,
    /// Whether the guest agent is switched on in its configuration.
    #[serde(default, deserialize_with = "flag")]
    pub agent: bool,
    /// What the HA stack says of it.
    #[serde(default)]
    pub ha: HaStatus,
    /// The machine version that it runs with: `pc-q35-9.0`.
    #[serde(
        default,
        rename = "running-machine",
        deserialize_with = "optional_text"
    )]
    pub running_machine: Option<String>,
    /// The QEMU that it runs in: `9.0.2`.
    #[serde(default, rename = "running-qemu", deserialize_with = "optional_text")]
    pub running_qemu: Option<String>,
}

/// A VM in the HA stack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct HaStatus {
    /// Whether it is in it.
    #[serde(default, deserialize_with = "flag")]
    pub managed: bool,
    /// started, error, fence ...
    #[serde(default, deserialize_with = "optional_text")]
    pub state: Option<String>,
}

/// A snapshot of a VM, or the pseudo entry `current`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SnapshotEntry {
    /// Its name.
    pub name: String,
    /// The snapshot before it.
    #[serde(default, deserialize_with = "optional_text")]
    pub parent: Option<String>,
    /// When it was taken, in seconds since 1970.
    #[serde(default, deserialize_with = "optional_number")]
    pub snaptime: Option<u64>,
    /// Whether memory is in it.
    #[serde(default, deserialize_with = "flag")]
    pub vmstate: bool,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TaskStatus {
    /// running or stopped.
    pub status: String,
    /// How it ended: `OK`, `WARNINGS: 2`, or what went wrong.
    #[serde(default, deserialize_with = "optional_text")]
    pub exitstatus: Option<String>,
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// Its number, from 1.
    #[serde(deserialize_with = "number")]
    pub n: u64,
    /// What it says.
    #[serde(deserialize_with = "text")]
    pub t: String,
}

/// What the guest agent answered, through QEMU.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AgentAnswer<T> {
    pub(super) result: T,
}
