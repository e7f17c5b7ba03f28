//! What a VM of the bed is: its name, its disks, and the XML that describes it to libvirt.

/// What a disk lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A qcow2 file.
    Qcow2,
    /// A raw file.
    Raw,
    /// A block device under a name that is a symbolic link, as logical volumes are.
    Block,
}

impl Medium {
    /// What libvirt and QEMU call the format.
    pub fn format(self) -> &'static str {
        match self {
            Medium::Qcow2 => "qcow2",
            Medium::Raw | Medium::Block => "raw",
        }
    }
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the guest: vda, vdb and so on.
    pub target: String,
    /// What it lies in.
    pub medium: Medium,
    /// Where it is in the node.
    pub path: String,
    /// Its size in MiB.
    pub mib: u64,
}

/// A VM that numbers its writes over all its disks: see tests/lab/guest/pattern.S. It takes the power button for an
/// answer.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
    /// How QEMU caches them. The guest flushes nothing: only "directsync" keeps all of a qcow2 disk when QEMU is killed.
    pub cache: String,
    /// More devices, in libvirt's XML.
    pub devices: String,
}

/// A disk's size in MiB, unless another one is asked for.
const MIB: u64 = 64;

impl Vm {
    /// A VM without disks.
    pub fn new(name: &str) -> Vm {
        let sum = blake3::hash(name.as_bytes()).to_hex();
        let (a, b) = (&sum[..8], &sum[8..20]);
        Vm {
            name: name.to_owned(),
            uuid: format!("{a}-0000-4000-8000-{b}"),
            disks: Vec::new(),
            cache: "none".to_owned(),
            devices: String::new(),
        }
    }

    /// With three disks, one of each kind: vda qcow2, vdb a raw file, vdc a block device.
    pub fn with_all_kinds(name: &str) -> Vm {
        [Medium::Qcow2, Medium::Raw, Medium::Block]
            .into_iter()
            .fold(Vm::new(name), Vm::disk)
    }

    /// The same with one more disk of the usual size.
    pub fn disk(self, medium: Medium) -> Vm {
        self.disk_of(medium, MIB)
    }

    /// The same with one more disk.
    pub fn disk_of(mut self, medium: Medium, mib: u64) -> Vm {
        let letter = (b'a'..=b'y').nth(self.disks.len()).map_or('z', char::from);
        let (name, target) = (&self.name, format!("vd{letter}"));
        let path = match medium {
            Medium::Qcow2 => format!("/var/lib/libvirt/images/{name}-{target}.qcow2"),
            Medium::Raw => format!("/var/lib/libvirt/images/{name}-{target}.raw"),
            Medium::Block => format!("/dev/vg-bed/{name}-{target}"),
        };
        self.disks.push(Disk {
            target,
            medium,
            path,
            mib,
        });
        self
    }

    /// Where its progress is written in the node.
    pub fn serial(&self) -> String {
        format!("/var/log/libvirt/qemu/{}.serial", self.name)
    }

    /// Its description for libvirt. It boots from a read-only disk, vdz, that all nodes have.
    pub fn xml(&self) -> String {
        let disks = self.disks.iter().zip(2..);
        let disks: String = disks.map(|(disk, n)| self.disk_xml(disk, n)).collect();
        format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{boot}'/>
      <target dev='vdz' bus='virtio'/>
      <readonly/>
      <boot order='1'/>
    </disk>
{disks}    <controller type='usb' model='none'/>
    <serial type='file'><source path='{serial}' append='on'/></serial>
    <memballoon model='none'/>
{more}  </devices>
</domain>
",
            name = self.name,
            uuid = self.uuid,
            boot = super::writer::PATH,
            serial = self.serial(),
            more = self.devices,
        )
    }

    /// The BIOS knows only disks that it may boot from: so each has an order.
    fn disk_xml(&self, disk: &Disk, order: usize) -> String {
        let (kind, attribute) = match disk.medium {
            Medium::Block => ("block", "dev"),
            Medium::Qcow2 | Medium::Raw => ("file", "file"),
        };
        format!(
            "    <disk type='{kind}' device='disk'>
      <driver name='qemu' type='{format}' cache='{cache}'/>
      <source {attribute}='{path}'/>
      <target dev='{target}' bus='virtio'/>
      <boot order='{order}'/>
    </disk>
",
            format = disk.medium.format(),
            cache = self.cache,
            path = disk.path,
            target = disk.target,
        )
    }
}
