//! The network between the guests: slow it, lose packets, cut it. Their connection to this host is another one.

use super::error::Result;
use super::Lab;

impl Lab {
    /// Delays each packet between the guests by `delay_ms`, each way, and loses `loss_percent` of them.
    ///
    /// # Errors
    /// A guest does not answer.
    pub fn set_link(&self, delay_ms: u32, loss_percent: f32) -> Result<()> {
        self.on_both(&format!(
            "tc qdisc replace dev eth1 root netem delay {delay_ms}ms loss {loss_percent}%"
        ))
    }

    /// Lets nothing through between the guests and tells neither: as when a switch in the middle fails.
    ///
    /// # Errors
    /// A guest does not answer.
    pub fn cut_link(&self) -> Result<()> {
        self.on_both("tc qdisc replace dev eth1 root netem loss 100%")
    }

    /// Undoes [`set_link`](Self::set_link) and [`cut_link`](Self::cut_link).
    ///
    /// # Errors
    /// A guest does not answer.
    pub fn mend_link(&self) -> Result<()> {
        self.on_both(
            "if tc qdisc show dev eth1 | grep -q netem; then tc qdisc del dev eth1 root; fi",
        )
    }

    fn on_both(&self, script: &str) -> Result<()> {
        self.a().run_ok(script)?;
        self.b().run_ok(script).map(drop)
    }
}
