//! The host's journal, in its own protocol: one datagram of fields. For what nobody who looks at a program's output would
//! see.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest message, in bytes: a datagram has its limits.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// How much it matters, as syslog counts.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Priority {
    Warning = 4,
    Info = 6,
}

/// Notes a message under the name of a program, with further fields. Where there is no journal nobody is told; it is never
/// waited for.
pub fn note(priority: Priority, program: &str, message: &str, more: &[(&str, &str)]) {
    send(Path::new(SOCKET), priority, program, message, more);
}

fn send(socket: &Path, priority: Priority, program: &str, message: &str, more: &[(&str, &str)]) {
    let priority = (priority as u8).to_string();
    let mut fields = vec![
        ("MESSAGE", message),
        ("PRIORITY", &priority),
        ("SYSLOG_IDENTIFIER", program),
    ];
    fields.extend(more);
    let sent = UnixDatagram::unbound().and_then(|sender| {
        sender.set_nonblocking(true)?;
        sender.send_to(&datagram(&fields), socket)
    });
    drop(sent);
}

/// Each field is `NAME`, a line feed, the length as 64 little-endian bits, the value and a line feed: so a value may
/// hold anything.
fn datagram(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let value = &value.as_bytes()[..value.len().min(MESSAGE_BYTES_MAX)];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_line_feeds_is_one_field() {
        let bytes = datagram(&[("MESSAGE", "a\nPRIORITY=0")]);
        assert_eq!(bytes, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn a_journal_hears_of_it_and_none_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        send(&path, Priority::Info, "p", "nobody listens", &[]);
        let journal = UnixDatagram::bind(&path).unwrap();
        send(&path, Priority::Warning, "p", "hello", &[("DOMAIN", "web")]);
        let mut bytes = [0; 200];
        let len = journal.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        for part in ["hello", "4", "DOMAIN", "web"] {
            assert!(text.contains(part), "{text:?}");
        }
    }
}
