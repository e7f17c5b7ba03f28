//! Names that come from the API and go into paths again: a node, and the id of a task.

use rblocksync::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a node: a label of DNS.
const NODE_MAX_BYTES: usize = 63;
/// Longest id of a task taken: the id of its object and the user's name have no bound of their own.
const UPID_MAX_BYTES: usize = 1024;

/// The name of a node: letters, digits and dashes, as Proxmox VE wants it. So it is safe in a path and as a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Node(String);

impl Node {
    /// Takes a name that Proxmox VE would take.
    pub fn new(name: &str) -> Result<Node> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let outer = |c: char| c.is_ascii_alphanumeric();
        match name.len() <= NODE_MAX_BYTES
            && name.starts_with(outer)
            && name.ends_with(outer)
            && name.bytes().all(inner)
        {
            true => Ok(Node(name.to_owned())),
            false => Err(Error::new(
                Kind::Usage,
                format!("\"{}\" is not the name of a node", name.escape_default()),
            )),
        }
    }

    /// The plain name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Node {
    type Error = Error;

    fn try_from(name: String) -> Result<Node> {
        Node::new(&name)
    }
}

impl From<Node> for String {
    fn from(node: Node) -> String {
        node.0
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a task: `UPID:node:pid:pstart:starttime:type:id:user:`, with the three numbers in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upid {
    text: String,
    node: Node,
    /// Seconds since 1970 at which it was started.
    pub started_s: u64,
    /// What it does: `qmstart`.
    pub task: String,
    /// On what: the VM's id, or nothing.
    pub object: String,
    /// Who started it: `root@pam`, or a token.
    pub user: String,
}

impl Upid {
    /// The node that it runs on, where its status is asked for.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl FromStr for Upid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Upid> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Error::new(
                Kind::Protocol,
                format!(
                    "\"{}\" is not the id of a task: {why}",
                    shown.escape_default()
                ),
            )
        };
        if text.len() > UPID_MAX_BYTES {
            return Err(bad("it is too long"));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let ["UPID", node, pid, pstart, started, task, object, user, ""] = parts.as_slice() else {
            return Err(bad("it has not the parts of one"));
        };
        let hex = |field: &str| match field.len() {
            8 | 9 if field.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(field, 16).map_err(|_| bad("a number is not hexadecimal"))
            }
            _ => Err(bad("a number has not eight or nine hexadecimal digits")),
        };
        hex(pid)?;
        hex(pstart)?;
        let plain = |s: &str| s.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if task.is_empty() || user.is_empty() || ![task, object, user].iter().all(|s| plain(s)) {
            return Err(bad("a part is empty, or holds what has no place there"));
        }
        Ok(Upid {
            text: text.to_owned(),
            node: Node::new(node).map_err(|_| bad("it names no node"))?,
            started_s: hex(started)?,
            task: (*task).to_owned(),
            object: (*object).to_owned(),
            user: (*user).to_owned(),
        })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_is_taken_apart() {
        let text = "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:sync@pve!token:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.to_string(), text);
        assert_eq!(upid.node().as_str(), "pve1");
        assert_eq!(
            (upid.task.as_str(), upid.object.as_str()),
            ("qmstart", "101")
        );
        assert_eq!(upid.user, "sync@pve!token");
        assert_eq!(upid.started_s, 0x66F2_A3B4);
        // Nine digits, after a long time up; no object.
        "UPID:pve1:0003E8A1:1BC614E11:66F2A3B4:vzdump::root@pam:"
            .parse::<Upid>()
            .unwrap();
    }

    #[test]
    fn what_is_no_task_id_is_refused() {
        for text in [
            "",
            "UPID",
            "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam",
            "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam::",
            "upid:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam:",
            "UPID:../x:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam:",
            "UPID:pve1:3E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam:",
            "UPID:pve1:0003E8AG:00BC614E:66F2A3B4:qmstart:101:root@pam:",
            "UPID:pve1:0003E8A1:00BC614E:66F2A3B4::101:root@pam:",
            "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:1/1:root@pam:",
            "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root\n@pam:",
        ] {
            let e = text.parse::<Upid>().unwrap_err();
            assert!(!e.to_string().contains(char::is_control), "{text:?}");
        }
        assert!(format!("UPID:{}", "x".repeat(2000))
            .parse::<Upid>()
            .is_err());
    }

    #[test]
    fn only_what_is_harmless_in_a_path_and_to_ssh_is_a_node() {
        for good in ["pve1", "a", "x-y-2"] {
            Node::new(good).unwrap();
        }
        for bad in ["", "-l", "a-", "a.b", "a/b", "..", "a b", "a\n", "\u{e4}"] {
            Node::new(bad).unwrap_err();
        }
    }
}
