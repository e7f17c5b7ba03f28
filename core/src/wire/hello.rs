//! The handshake: who speaks, and which versions of the protocol it knows.

use super::codec::Fields;
use crate::error::{Error, Kind, Result};

/// Newest version of the protocol spoken here. History, newest first:
///
/// * 1: the first. Extents, segment digests, leaf fingerprints, patches; JSON requests.
pub const VERSION: u16 = 2;
/// Oldest version still spoken here.
pub const VERSION_MIN: u16 = 2;

const MAGIC: [u8; 8] = *b"\x89rblock\n";

/// First frame of each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version the sender speaks.
    pub version_min: u16,
    /// Newest protocol version the sender speaks.
    pub version_max: u16,
    /// The sender's program and release, for messages.
    pub program: String,
}

impl Hello {
    /// What this build says.
    pub fn ours(program: &str) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            program: format!("{program} {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// The newest version that both sides speak.
    pub fn agree(&self, peer: &Hello) -> Result<u16> {
        let version = self.version_max.min(peer.version_max);
        if version < self.version_min || version < peer.version_min {
            return Err(Error::new(
                Kind::Protocol,
                format!(
                    "{} speaks protocol versions {} to {}, but {} speaks {} to {}",
                    peer.program,
                    peer.version_min,
                    peer.version_max,
                    self.program,
                    self.version_min,
                    self.version_max
                ),
            )
            .advise("install the same release on both hosts"));
        }
        Ok(version)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version_min.to_le_bytes());
        out.extend_from_slice(&self.version_max.to_le_bytes());
        out.extend_from_slice(self.program.as_bytes());
    }

    pub(super) fn decode(mut fields: Fields) -> Result<Hello> {
        if fields.bytes(8)? != MAGIC {
            return Err(Error::new(
                Kind::Protocol,
                "the peer does not speak this protocol",
            ));
        }
        Ok(Hello {
            version_min: fields.u16()?,
            version_max: fields.u16()?,
            program: String::from_utf8_lossy(fields.rest())
                .chars()
                .filter(|c| !c.is_control())
                .collect(),
        })
    }
}
