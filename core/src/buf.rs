//! Page-aligned buffers, as direct I/O wants them, and the test for zeros.

/// Alignment in bytes that every direct read and write here keeps to.
pub const ALIGN: usize = 4096;

/// A byte buffer whose first byte lies on an [`ALIGN`] boundary.
///
/// Made without `unsafe`: the vector is one alignment unit longer than asked and used from the first
/// aligned byte on. It is never resized, so the alignment holds for its whole life.
pub struct AlignedBuf {
    bytes: Vec<u8>,
    offset: usize,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0u8; len + ALIGN];
        let offset = bytes.as_ptr().align_offset(ALIGN);
        debug_assert!(offset < ALIGN);
        AlignedBuf { bytes, offset, len }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.offset..self.offset + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.offset..self.offset + self.len]
    }
}

/// True if every byte is zero. Compiles to wide compares; runs at memory speed.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole blocks are folded without a branch per byte, so that the compiler vectorises; a block
    // boundary is where it may stop early.
    let mut blocks = bytes.chunks_exact(256);
    for block in &mut blocks {
        if block.iter().fold(0u8, |all, b| all | b) != 0 {
            return false;
        }
    }
    blocks.remainder().iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [1, 4096, 1 << 20] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr() as usize % ALIGN, 0);
            assert!(is_zero(&buf));
        }
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        for len in [1, 255, 256, 4096, 4099] {
            for at in [0, len / 2, len - 1] {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
            }
        }
        assert!(is_zero(&[]));
    }
}
