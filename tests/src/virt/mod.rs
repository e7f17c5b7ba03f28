//! The bed: two real libvirtd, the nodes kva and kvb, as two hosts on this one: each has its own processes, network,
//! host name and files, and reaches the other by SSH and by libvirt's TCP.
//!
//! Everything runs in namespaces of this machine, so a node is up in a second, its guests are emulated, and nothing is
//! left when the bed is dropped, or when the process that holds it dies. It needs root.
//!
//! ```no_run
//! # fn main() -> tests::virt::Result<()> {
//! use tests::virt::{Bed, Medium, Vm};
//! let bed = Bed::up()?;
//! let vm = Vm::new("web01").disk(Medium::Qcow2).disk(Medium::Raw).disk(Medium::Block);
//! bed.a().make_disks(&vm)?;
//! bed.a().define(&vm)?;
//! bed.a().virsh_ok("start web01")?;
//! bed.a().wait_for_writes(&vm, 20)?;
//! bed.cut_link()?;
//! bed.a().virsh_ok("destroy web01")?;
//! bed.a().check(&vm)?;
//! # Ok(())
//! # }
//! ```

mod daemon;
mod disks;
mod guest;
mod link;
mod moving;
mod node;
pub mod suite;
mod vm;
mod writer;

pub use crate::lab::{Background, Error, Output, Result, RUN_TIMEOUT};
pub use daemon::QEMU_CONF;
pub use moving::repetitions;
pub use node::Node;
pub use vm::{Disk, Medium, Vm};

use crate::lab::inner::{make_keys, Keeper, RunDir};
use std::path::Path;
use std::sync::Arc;

/// Name and number of each node: the number is the last part of its address.
const NODES: [(&str, u8); 2] = [("kva", 1), ("kvb", 2)];

/// Two nodes with a libvirtd each. Dropped, both are gone without a trace, as they are when this process dies.
#[derive(Debug)]
pub struct Bed {
    // In this order: the nodes end before their directory goes.
    a: Node,
    b: Node,
    run: RunDir,
}

impl Bed {
    /// Starts both nodes, connects them, and waits until both libvirtd take commands.
    ///
    /// # Errors
    /// This is not root, a program is missing (tests/lab/deps.sh libvirt-daemon-system libvirt-clients), or a daemon
    /// does not come up.
    pub fn up() -> Result<Bed> {
        Bed::on(Path::new("/"))
    }

    /// The same of nodes that are like another system than this machine's: one whose tree is in `base`, which stays as it
    /// is. It must have libvirtd, virsh, QEMU, sshd and ip.
    ///
    /// # Errors
    /// As of [`up`](Self::up).
    pub fn on(base: &Path) -> Result<Bed> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(
                "the libvirt bed needs namespaces: run it as root",
            ));
        }
        let run = RunDir::create()?;
        let keys = run.path().join("keys");
        make_keys(&keys, &keys.join("own"), &NODES)?;
        writer::make(&keys.join("own"))?;
        let keeper = Arc::new(Keeper::new()?);
        let start = |(name, number)| Node::start(name, number, base, run.path(), &keys, &keeper);
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| start(NODES[0]));
            let b = start(NODES[1]);
            let a = a
                .join()
                .unwrap_or_else(|_| Err(Error::new("starting kva panicked")));
            (a, b)
        });
        let bed = Bed { a: a?, b: b?, run };
        bed.connect()?;
        std::thread::scope(|scope| {
            let a = scope.spawn(|| bed.a.start_services());
            let b = bed.b.start_services();
            a.join()
                .unwrap_or_else(|_| Err(Error::new("starting libvirtd of kva panicked")))
                .and(b)
        })?;
        Ok(bed)
    }

    /// The node kva.
    pub fn a(&self) -> &Node {
        &self.a
    }

    /// The node kvb.
    pub fn b(&self) -> &Node {
        &self.b
    }

    /// Where on this machine everything of the bed is, while it is up.
    pub fn run_dir(&self) -> &Path {
        self.run.path()
    }
}
