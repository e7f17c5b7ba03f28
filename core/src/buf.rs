//! Page-aligned buffers, as direct I/O wants them, and the test for zeros.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Buffers of one size that are used again and again: fresh memory costs a page fault every 4 KiB, about
/// as much as hashing what is read into it. Holds as many as were ever in use at once.
pub struct BufPool {
    free: Mutex<Vec<AlignedBuf>>,
    len: usize,
}

impl BufPool {
    /// For buffers of `len` bytes.
    pub fn new(len: usize) -> Arc<Self> {
        Arc::new(BufPool {
            free: Mutex::new(Vec::new()),
            len,
        })
    }

    fn free(&self) -> MutexGuard<'_, Vec<AlignedBuf>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer with whatever was in it before.
    pub fn take(self: &Arc<Self>) -> PoolBuf {
        let used = self.free().pop();
        PoolBuf {
            buf: Some(used.unwrap_or_else(|| AlignedBuf::zeroed(self.len))),
            pool: Arc::clone(self),
        }
    }
}

/// A buffer that goes back to its pool when it is dropped.
pub struct PoolBuf {
    /// Always there until the drop.
    buf: Option<AlignedBuf>,
    pool: Arc<BufPool>,
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        self.pool.free().extend(self.buf.take());
    }
}

impl std::ops::Deref for PoolBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.buf.as_deref().unwrap_or_default()
    }
}

impl std::ops::DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buf.as_deref_mut().unwrap_or_default()
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
    fn a_pool_hands_out_again_what_came_back() {
        let pool = BufPool::new(4096);
        let (mut a, b) = (pool.take(), pool.take());
        a[7] = 1;
        assert_ne!(a.as_ptr(), b.as_ptr());
        let at = a.as_ptr();
        drop(a);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again[7]), (at, 1));
        drop((again, b));
        assert_eq!(pool.free().len(), 2);
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
