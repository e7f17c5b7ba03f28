//! Devices: what a guest may have several of, or none.

use serde::{Deserialize, Serialize};

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its key in the configuration that it comes from: `scsi0`, `vda`.
    pub key: String,
    /// The volume that it is in, as that hypervisor names it.
    pub volume: String,
    /// The storage or pool of that volume, if it has one: what is mapped to another on the target.
    pub storage: Option<String>,
    /// What it is for.
    pub role: DiskUse,
    /// What the hypervisor does with the guest's writes.
    pub cache: Cache,
    /// How it does input and output, if that is said.
    pub aio: Option<Aio>,
    /// What the guest discards becomes free.
    pub discard: bool,
    /// Zeros that are written become holes; `None` is the hypervisor's own choice.
    pub detect_zeroes: Option<bool>,
    /// A thread of its own for it.
    pub iothread: bool,
    /// The guest takes it for a disk without moving parts.
    pub ssd: bool,
    /// The guest cannot write.
    pub read_only: bool,
    /// Serial number that the guest sees.
    pub serial: Option<String>,
    /// World wide name that the guest sees, in hexadecimal: `5000c50015ea71aa`.
    pub wwn: Option<String>,
    /// Bounds of what it may do.
    pub rates: Rates,
}

impl Disk {
    /// A disk without anything special.
    pub fn new(key: impl Into<String>, volume: impl Into<String>, role: DiskUse) -> Disk {
        Disk {
            key: key.into(),
            volume: volume.into(),
            storage: None,
            role,
            cache: Cache::None,
            aio: None,
            discard: false,
            detect_zeroes: None,
            iothread: false,
            ssd: false,
            read_only: false,
            serial: None,
            wwn: None,
            rates: Rates::default(),
        }
    }
}

/// What a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskUse {
    /// The guest's data.
    Data {
        /// What it hangs on.
        bus: Bus,
        /// Its place there, from 0.
        slot: u16,
    },
    /// Variables of UEFI firmware.
    Vars,
    /// State of the TPM.
    Tpm,
    /// Not attached; kept with the VM.
    Unused,
}

/// What disks and CD drives hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// IDE.
    Ide,
    /// SATA.
    Sata,
    /// SCSI, whatever the controller.
    Scsi,
    /// virtio-blk.
    Virtio,
}

/// Controllers of SCSI disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScsiController {
    /// LSI 53C895A.
    #[default]
    Lsi,
    /// LSI 53C810.
    Lsi53c810,
    /// virtio-scsi, one for all disks.
    Virtio,
    /// virtio-scsi, one for each disk.
    VirtioSingle,
    /// LSI MegaRAID SAS 8708EM2.
    Megasas,
    /// VMware's PVSCSI.
    Pvscsi,
}

/// What is done with writes of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Past the host's page cache.
    None,
    /// On the medium at once, kept in the page cache.
    Writethrough,
    /// In the page cache, on the medium when the guest flushes.
    Writeback,
    /// The same, and the guest's flushes are ignored.
    Unsafe,
    /// On the medium at once, past the page cache.
    Directsync,
}

/// How input and output is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aio {
    /// By threads.
    Threads,
    /// By Linux's asynchronous I/O.
    Native,
    /// By io_uring.
    IoUring,
}

/// Bounds of a disk: bytes and operations a second. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Bytes, read and written.
    pub bytes: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Operations.
    pub operations: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// A CD drive. It is empty on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CdDrive {
    /// Its key in the configuration that it comes from: `ide2`, `hdc`.
    pub key: String,
    /// What it hangs on.
    pub bus: Bus,
    /// Its place there, from 0.
    pub slot: u16,
}

impl CdDrive {
    /// A drive at this place.
    pub fn new(key: impl Into<String>, bus: Bus, slot: u16) -> CdDrive {
        CdDrive {
            key: key.into(),
            bus,
            slot,
        }
    }
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its key: `net0`.
    pub key: String,
    /// QEMU's name of it: `virtio`, `e1000`.
    pub model: String,
    /// Its address, `bc:24:11:5a:10:01`; `None`: the hypervisor gives it one.
    pub mac: Option<String>,
    /// What it is plugged into.
    pub network: Network,
    /// VLAN of what it sends.
    pub vlan: Option<u16>,
    /// Largest packet in bytes, if it is not what the network says.
    pub mtu: Option<u32>,
    /// Queues, if there are several.
    pub queues: Option<u32>,
    /// Whether it is plugged in.
    pub link: bool,
    /// Whether the hypervisor's firewall looks at what goes through.
    pub firewall: bool,
}

/// What a network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Network {
    /// A bridge of the host.
    Bridge(String),
    /// A network that the hypervisor knows by this name.
    Named(String),
    /// QEMU's own network, which goes out through the host.
    User,
}

/// A source of random numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rng {
    /// The host's device: `/dev/urandom`.
    pub source: String,
    /// At most so many bytes in `period_ms`; 0 is no bound.
    pub bytes: u64,
    /// Milliseconds.
    pub period_ms: u64,
}

/// A watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// QEMU's name of it: `i6300esb`.
    pub model: String,
    /// What happens when the guest does not answer.
    pub action: WatchdogAction,
}

/// What a watchdog does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogAction {
    /// Resets the VM.
    Reset,
    /// Asks the guest to shut down.
    Shutdown,
    /// Turns the VM off.
    Poweroff,
    /// Holds it still.
    Pause,
    /// Nothing.
    None,
}

/// What a VM shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Display {
    /// Its card.
    pub video: Video,
    /// The card's memory, if that is said.
    pub memory_mib: Option<u32>,
}

/// Video cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Video {
    /// VGA with Bochs' extensions.
    #[default]
    Std,
    /// Cirrus Logic GD5446.
    Cirrus,
    /// VMware's SVGA II.
    Vmware,
    /// SPICE's, for so many screens.
    Qxl(u8),
    /// virtio-vga.
    Virtio,
    /// The same with 3D.
    VirtioGl,
    /// None: the serial port of this number is the terminal.
    Serial(u8),
    /// None at all.
    None,
}
