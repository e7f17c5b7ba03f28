//! The network between the nodes: slow it, lose packets, cut it.

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

    /// Delays each packet by `delay_ms` each way, and lets `rate` through, in words of tc(8): "20mbit".
    ///
    /// # Errors
    /// A node does not answer.
    pub fn set_link(&self, delay_ms: u32, rate: &str) -> Result<()> {
        self.on_both(&format!(
            "tc qdisc replace dev {DEVICE} root netem delay {delay_ms}ms rate {rate} limit 10000"
        ))
    }

    /// Lets nothing through and tells neither node: as when a switch in the middle fails.
    ///
    /// # Errors
    /// A node does not answer.
    pub fn cut_link(&self) -> Result<()> {
        self.on_both(&format!(
            "tc qdisc replace dev {DEVICE} root netem loss 100%"
        ))
    }

    /// Undoes [`set_link`](Self::set_link) and [`cut_link`](Self::cut_link).
    ///
    /// # Errors
    /// A node does not answer.
    pub fn mend_link(&self) -> Result<()> {
        self.on_both(&format!(
            "if tc qdisc show dev {DEVICE} | grep -q netem; then tc qdisc del dev {DEVICE} root; fi"
        ))
    }

    fn on_both(&self, script: &str) -> Result<()> {
        self.a().run_ok(script)?;
        self.b().run_ok(script).map(drop)
    }
}
