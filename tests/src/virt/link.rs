//! The network between the nodes: slow it, cut it.

use super::{Bed, Node, Result};
use crate::lab::inner::run;
use std::process::Command;

/// The device of the link in each node.
const DEVICE: &str = "eth0";

impl Bed {
    /// Puts the two ends of a cable into the nodes.
    pub(super) fn connect(&self) -> Result<()> {
        let netns = |node: &Node| node.init().to_string();
        run(Command::new("ip")
            .args(["link", "add", "name", DEVICE, "netns", &netns(self.a())])
            .args(["type", "veth", "peer", "name", DEVICE])
            .args(["netns", &netns(self.b())]))?;
        for node in [self.a(), self.b()] {
            node.run_ok(&format!(
                "ip address add {}/24 dev {DEVICE} && ip link set {DEVICE} up",
                node.ip()
            ))?;
        }
        Ok(())
    }

    /// Lets no more than `rate` through each way, in words of tc(8): "20mbit".
    ///
    /// # Errors
    /// A node does not answer.
    pub fn slow_link(&self, rate: &str) -> Result<()> {
        let script =
            format!("tc qdisc replace dev {DEVICE} root tbf rate {rate} burst 64kb latency 200ms");
        self.a().run_ok(&script)?;
        self.b().run_ok(&script).map(drop)
    }

    /// Lets nothing through and tells neither node, as when a switch in the middle fails: each sends to an address of
    /// hardware that nobody has.
    ///
    /// # Errors
    /// A node does not answer.
    pub fn cut_link(&self) -> Result<()> {
        for (node, peer) in [(self.a(), self.b()), (self.b(), self.a())] {
            node.run_ok(&format!(
                "ip neighbour replace {} lladdr 02:00:00:00:00:ff dev {DEVICE} nud permanent",
                peer.ip()
            ))?;
        }
        Ok(())
    }

    /// Undoes [`slow_link`](Self::slow_link) and [`cut_link`](Self::cut_link).
    ///
    /// # Errors
    /// A node does not answer.
    pub fn mend_link(&self) -> Result<()> {
        for (node, peer) in [(self.a(), self.b()), (self.b(), self.a())] {
            node.run_ok(&format!(
                "ip neighbour flush to {} nud permanent
                 if tc qdisc show dev {DEVICE} | grep -q tbf; then tc qdisc del dev {DEVICE} root; fi",
                peer.ip()
            ))?;
        }
        Ok(())
    }
}
