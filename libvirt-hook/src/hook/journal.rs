//! The host's journal, in its own protocol: one datagram of fields.

use super::call::Call;
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest message, in bytes: a datagram has its limits.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// How much it matters, as syslog counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Priority {
    Warning = 4,
    Info = 6,
}

/// Notes a call and what came of it. Where there is no journal nobody is told; it is never waited for.
pub(super) fn note(priority: Priority, call: &Call, code: u8, message: &str) {
    let message = format!(
        "{} {} {}: {message}",
        call.name(),
        call.operation(),
        call.stage()
    );
    let fields = [
        ("MESSAGE", message.as_str()),
        ("PRIORITY", &(priority as u8).to_string()),
        ("SYSLOG_IDENTIFIER", "virt-blocksync-hook"),
        ("DOMAIN", call.name()),
        ("OPERATION", call.operation()),
        ("EXIT_CODE", &code.to_string()),
    ];
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(&datagram(&fields), SOCKET)
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
mod tests {
    use super::*;

    #[test]
    fn a_value_with_line_feeds_is_one_field() {
        let bytes = datagram(&[("MESSAGE", "a\nPRIORITY=0")]);
        assert_eq!(bytes, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }
}
