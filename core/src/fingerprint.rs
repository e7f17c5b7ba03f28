//! Fingerprints of leaves: 64 bits that tell which leaves of a segment differ.
//!
//! They only find differences, they prove nothing: what a patch makes of a segment is checked against
//! the segment's digest before a byte is written. So they need not withstand an attacker, but two leaves must not have
//! the same one by design of whoever writes the guest's disk, or that segment could never be synced:
//! each sync has a random key of its own, on which every fingerprint depends.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;
use uuid::Uuid;

/// The key of one sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// A random key.
    pub fn random() -> Key {
        // Of its 128 bits 122 are the kernel's random ones.
        Key(Uuid::new_v4().into_bytes())
    }
}

/// Makes fingerprints with one key: XXH3, 64 bits, with a secret derived from the key.
pub struct Fingerprints {
    secret: [u8; 192],
}

impl Fingerprints {
    /// With this key.
    pub fn new(key: Key) -> Self {
        let mut secret = [0; 192];
        let mut hasher = blake3::Hasher::new_derive_key("rblocksync leaf fingerprints v1");
        hasher.update(&key.0);
        hasher.finalize_xof().fill(&mut secret);
        Fingerprints { secret }
    }

    /// The fingerprint of one leaf.
    pub fn of(&self, leaf: &[u8]) -> u64 {
        // It fails only for secrets below 136 bytes.
        XxHash3_64::oneshot_with_secret(&self.secret, leaf).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_every_byte_and_on_the_key() {
        let (a, b) = (
            Fingerprints::new(Key([1; 16])),
            Fingerprints::new(Key([2; 16])),
        );
        for len in [1, 100, 512, 4096, 16 << 20] {
            let mut leaf = vec![7u8; len];
            let whole = a.of(&leaf);
            assert_eq!(whole, Fingerprints::new(Key([1; 16])).of(&leaf));
            assert_ne!(whole, b.of(&leaf), "{len}");
            for at in [0, len / 2, len - 1] {
                leaf[at] ^= 0x80;
                assert_ne!(whole, a.of(&leaf), "byte {at} of {len}");
                leaf[at] ^= 0x80;
            }
        }
    }

    /// Both ends must agree, whatever release of the library they were built with.
    #[test]
    fn is_pinned() {
        let fingerprints = Fingerprints::new(Key(*b"0123456789abcdef"));
        let leaves = [&[0x55; 4096], &b"x"[..]];
        let known = [0xd6a5_fe06_ffdb_3089, 0xbfdb_75aa_c544_97eb];
        assert_eq!(leaves.map(|leaf| fingerprints.of(leaf)), known);
    }

    #[test]
    fn no_two_syncs_have_the_same_key() {
        assert_ne!(Key::random(), Key::random());
    }
}
