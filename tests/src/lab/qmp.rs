//! A client for QEMU's monitor protocol, as small as the lab needs it. Independent of the product's own.

use super::error::{Context, Error, Result};
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to a monitor. QEMU serves one client at a time: drop it to let others in.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path` and negotiates.
    ///
    /// # Errors
    /// Nobody listens, or no greeting comes within ten seconds (another client holds the monitor).
    pub fn connect(path: &Path) -> Result<Qmp> {
        let stream = UnixStream::connect(path)
            .context(|| format!("cannot connect to the monitor {}", path.display()))?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .context(|| "cannot set a timeout")?;
        let mut qmp = Qmp {
            stream: BufReader::new(stream),
        };
        qmp.read()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result; events in between are skipped.
    ///
    /// # Errors
    /// The monitor's own error text, or the connection broke.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context(|| format!("cannot send {command} to the monitor"))?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(Error::new(format!(
                    "the monitor refuses {command}: {error}"
                )));
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .context(|| "cannot read from the monitor")?;
        serde_json::from_str(&line).context(|| format!("the monitor says {line:?}"))
    }
}
